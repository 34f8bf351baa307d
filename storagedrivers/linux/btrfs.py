"""Subvolumes, snapshots and qgroups of btrfs, by ioctl(2); see btrfs-ioctl(2) and linux/btrfs.h."""

from __future__ import annotations

import errno
import os
import struct
import sys

from storagedrivers.linux import ioctl, tree

ROOT_INODE = 256
"""The inode number of every subvolume's root directory."""

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B
_TREE_SEARCH = 0xD0009411
_INO_LOOKUP = 0xD0009412
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP_USER = 0xD000943E

_QGROUP_LIMIT_MAX_RFER = 1
_QGROUP_LIMIT_MAX_EXCL = 2
_FIRST_FREE_OBJECTID = 256
_ROOT_TREE = 1
_ROOT_REF = 156
_MAX = 2**64 - 1

QUOTAS_OFF = (errno.ENOTCONN, errno.EINVAL, errno.ENOENT, errno.EPERM)
"""What limits answer where they cannot be set: quotas are off, or not for this user."""

_NAME_V1 = struct.Struct("q4088s")  # struct btrfs_ioctl_vol_args
_NAME_V2 = struct.Struct("=qQQ4Q4040s")  # struct btrfs_ioctl_vol_args_v2


def create_subvolume(parent_fd: int, name: str) -> None:
    """Make an empty subvolume in the directory *parent_fd*."""
    ioctl.ioctl(parent_fd, _SUBVOL_CREATE, bytearray(_NAME_V1.pack(0, os.fsencode(name))))


def create_snapshot(source_fd: int, parent_fd: int, name: str, *, read_only: bool) -> None:
    """Make a snapshot of the subvolume *source_fd* in the directory *parent_fd*.

    Dirty data of the source are flushed first. A nested subvolume becomes an empty directory.
    """
    flags = ioctl.BTRFS_SUBVOL_RDONLY if read_only else 0
    arguments = _NAME_V2.pack(source_fd, 0, flags, 0, 0, 0, 0, os.fsencode(name))
    ioctl.ioctl(parent_fd, _SNAP_CREATE_V2, bytearray(arguments))


def delete_subvolume(parent_fd: int, name: str) -> None:
    """Delete a subvolume and those nested in it, however deep; the cleaner frees their space later.

    Raises:
        FileNotFoundError: it is not there.
        OSError: EPERM (see the mount option user_subvol_rm_allowed), EINVAL (no subvolume).
    """
    pending = [name]
    while pending:
        try:
            arguments = bytearray(_NAME_V1.pack(0, os.fsencode(pending[-1])))
            ioctl.ioctl(parent_fd, _SNAP_DESTROY, arguments)
            pending.pop()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            pending += _lift_nested(parent_fd, pending[-1])


def _lift_nested(parent_fd: int, name: str) -> list[str]:
    """Move what is nested in a subvolume up beside it; the new names."""
    with tree.opened_below(parent_fd, name) as fd:
        # Nothing can be moved out of a read-only subvolume, nor can it be moved itself.
        ioctl.clear_read_only_subvolume(fd)
        try:
            nested = nested_subvolumes(fd)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            tree.empty_directory(fd)  # rmdir(2) removes a subvolume that is empty, since 4.18
            return []
        lifted = []
        for directory, child in nested:
            with tree.opened_below(fd, directory) as directory_fd:
                with tree.opened_below(directory_fd, child) as child_fd:
                    ioctl.clear_read_only_subvolume(child_fd)
                new = f".removing-{os.urandom(8).hex()}"
                os.rename(child, new, src_dir_fd=directory_fd, dst_dir_fd=parent_fd)
                lifted.append(new)
        return lifted


def nested_subvolumes(fd: int) -> list[tuple[str, str]]:
    """The subvolumes directly below the subvolume whose root is *fd*: (directory, name) of each.

    The directory is relative to the subvolume.

    Raises:
        OSError: ENAMETOOLONG where a directory's path is too long to be told (about 3,800 bytes).
    """
    try:
        return _nested_by_rootref(fd)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
    return _nested_by_search(fd)  # before Linux 4.18; for root only


def _nested_by_rootref(fd: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    start = 0
    while True:
        arguments = bytearray(4096)
        struct.pack_into("=Q", arguments, 0, start)
        more = False
        try:
            ioctl.ioctl(fd, _GET_SUBVOL_ROOTREF, arguments)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:  # more than 255: this was the first part
                raise
            more = True
        count = arguments[8 + 255 * 16]
        for index in range(count):
            tree_id, directory_id = struct.unpack_from("=QQ", arguments, 8 + index * 16)
            found.append(_subvolume_name(fd, tree_id, directory_id))
            start = tree_id + 1
        if not more:
            return found


def _nested_by_search(fd: int) -> list[tuple[str, str]]:
    """By the items ROOT_REF of the root tree, which name each child of a subvolume."""
    found: list[tuple[str, str]] = []
    own, start = subvolume_id(fd), 0
    while True:
        arguments = bytearray(4096)
        # struct btrfs_ioctl_search_key: tree; ids, offsets, transids from and to; types; count.
        key = (_ROOT_TREE, own, own, start, _MAX, 0, _MAX, _ROOT_REF, _ROOT_REF, 64)
        struct.pack_into("=7QIII", arguments, 0, *key)
        ioctl.ioctl(fd, _TREE_SEARCH, arguments)
        count = struct.unpack_from("=I", arguments, 64)[0]
        if count == 0:
            return found
        place = 104
        for _ in range(count):
            _, _, child, _, length = struct.unpack_from("=QQQII", arguments, place)
            place += 32
            directory_id, _, size = struct.unpack_from("<QQH", arguments, place)
            name = bytes(arguments[place + 18 : place + 18 + size])
            found.append((_directory_path(fd, own, directory_id), os.fsdecode(name)))
            place += length
            start = child + 1


def _directory_path(fd: int, subvolume: int, directory_id: int) -> str:
    arguments = bytearray(4096)
    struct.pack_into("=QQ", arguments, 0, subvolume, directory_id)
    ioctl.ioctl(fd, _INO_LOOKUP, arguments)
    return os.fsdecode(bytes(arguments[16:]).split(b"\0", 1)[0].rstrip(b"/"))


def _subvolume_name(fd: int, tree_id: int, directory_id: int) -> tuple[str, str]:
    arguments = bytearray(4096)
    struct.pack_into("=QQ", arguments, 0, directory_id, tree_id)
    ioctl.ioctl(fd, _INO_LOOKUP_USER, arguments)
    name = bytes(arguments[16 : 16 + 256]).split(b"\0", 1)[0]
    path = bytes(arguments[272:]).split(b"\0", 1)[0]
    return os.fsdecode(path.rstrip(b"/")), os.fsdecode(name)


def subvolume_id(fd: int) -> int:
    """The id of the subvolume that *fd* lies in."""
    arguments = bytearray(4096)
    struct.pack_into("=QQ", arguments, 0, 0, _FIRST_FREE_OBJECTID)
    ioctl.ioctl(fd, _INO_LOOKUP, arguments)
    return int.from_bytes(arguments[:8], sys.byteorder)


def limit_size(fd: int, size: int | None, *, shared: bool = False) -> None:
    """Limit what the subvolume *fd* has for itself, in bytes: its qgroup ``0/<id>``.

    What it shares with a snapshot below does not count, or with *shared* it does. None takes a
    limit away that a snapshot inherited.

    Raises:
        OSError: ENOTCONN or EINVAL where quotas are not enabled on the filesystem, EPERM without
            privilege.
    """
    # struct btrfs_ioctl_qgroup_limit_args: qgroup 0 is the subvolume's own; flags; the limits.
    value = _MAX if size is None else size
    flag = _QGROUP_LIMIT_MAX_RFER if shared else _QGROUP_LIMIT_MAX_EXCL
    limits = struct.pack("=QQQQQQ", 0, flag, value, value, 0, 0)
    ioctl.ioctl(fd, _QGROUP_LIMIT, bytearray(limits))


def delete_qgroup(fd: int, subvolume: int) -> None:
    """Delete the qgroup of a subvolume that is gone; newer kernels do it by themselves, later."""
    try:
        ioctl.ioctl(fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", 0, subvolume)))
    except OSError as error:
        # No quotas, no such qgroup, or the cleaner has not come to the subvolume yet.
        # Without privilege there can be none that is ours.
        if error.errno not in (*QUOTAS_OFF, errno.EBUSY):
            raise
