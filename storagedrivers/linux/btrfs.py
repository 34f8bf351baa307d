"""Subvolumes, snapshots and qgroups of btrfs, by ioctl(2); see btrfs-ioctl(2) and linux/btrfs.h."""

from __future__ import annotations

import errno
import os
import struct

from storagedrivers.linux import ioctl, syscalls

SUPER_MAGIC = 0x9123683E
ROOT_INODE = 256
"""The inode number of every subvolume's root directory."""

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B
_INO_LOOKUP = 0xD0009412
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP_USER = 0xD000943E

_SUBVOL_RDONLY = 2
_QGROUP_LIMIT_MAX_RFER = 1
_FIRST_FREE_OBJECTID = 256

_NAME_V1 = struct.Struct("q4088s")  # struct btrfs_ioctl_vol_args
_NAME_V2 = struct.Struct("=qQQ4Q4040s")  # struct btrfs_ioctl_vol_args_v2


def is_subvolume(path: str | os.PathLike[str]) -> bool:
    """Whether *path* is the root of a subvolume."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return status.st_ino == ROOT_INODE and syscalls.statfs_type(path) == SUPER_MAGIC


def create_subvolume(parent_fd: int, name: str) -> None:
    """Make an empty subvolume in the directory *parent_fd*."""
    ioctl.ioctl(parent_fd, _SUBVOL_CREATE, bytearray(_NAME_V1.pack(0, os.fsencode(name))))


def create_snapshot(source_fd: int, parent_fd: int, name: str, *, read_only: bool) -> None:
    """Make a snapshot of the subvolume *source_fd* in the directory *parent_fd*.

    Dirty data of the source are flushed first. A nested subvolume becomes an empty directory.
    """
    flags = _SUBVOL_RDONLY if read_only else 0
    arguments = _NAME_V2.pack(source_fd, 0, flags, 0, 0, 0, 0, os.fsencode(name))
    ioctl.ioctl(parent_fd, _SNAP_CREATE_V2, bytearray(arguments))


def delete_subvolume(parent_fd: int, name: str) -> None:
    """Delete a subvolume and those nested in it; the cleaner frees their space in the background.

    Raises:
        FileNotFoundError: it is not there.
        OSError: EPERM (see the mount option user_subvol_rm_allowed), EINVAL (no subvolume).
    """
    arguments = bytearray(_NAME_V1.pack(0, os.fsencode(name)))
    try:
        ioctl.ioctl(parent_fd, _SNAP_DESTROY, arguments)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        _delete_nested(parent_fd, name)
        ioctl.ioctl(parent_fd, _SNAP_DESTROY, arguments)


def _delete_nested(parent_fd: int, name: str) -> None:
    fd = os.open(
        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd
    )
    try:
        _make_writable(fd)  # nothing can be deleted from a read-only subvolume
        for directory, child in nested_subvolumes(fd):
            directory_fd = os.open(
                directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd
            )
            try:
                delete_subvolume(directory_fd, child)
            finally:
                os.close(directory_fd)
    finally:
        os.close(fd)


def _make_writable(fd: int) -> None:
    if is_read_only(fd):
        ioctl.ioctl(fd, _SUBVOL_SETFLAGS, bytearray(8))


def is_read_only(fd: int) -> bool:
    """Whether the subvolume that *fd* lies in is read-only."""
    flags = bytearray(8)
    ioctl.ioctl(fd, _SUBVOL_GETFLAGS, flags)
    return bool(int.from_bytes(flags, "little") & _SUBVOL_RDONLY)


def nested_subvolumes(fd: int) -> list[tuple[str, str]]:
    """The subvolumes directly below the subvolume whose root is *fd*: (directory, name) of each.

    The directory is relative to the subvolume. Linux 4.18.

    Raises:
        OSError: ENOTTY on older kernels.
    """
    found = []
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
    return int.from_bytes(arguments[:8], "little")


def limit_size(fd: int, size: int) -> None:
    """Limit what the subvolume *fd* may refer to, in bytes: its qgroup ``0/<id>``.

    Raises:
        OSError: ENOTCONN or EINVAL where quotas are not enabled on the filesystem.
    """
    # struct btrfs_ioctl_qgroup_limit_args: qgroupid 0 is the subvolume's own; then flags and the
    # limits.
    limits = struct.pack("=QQQQQQ", 0, _QGROUP_LIMIT_MAX_RFER, size, 0, 0, 0)
    ioctl.ioctl(fd, _QGROUP_LIMIT, bytearray(limits))


def delete_qgroup(fd: int, subvolume: int) -> None:
    """Delete the qgroup of a subvolume that is gone; newer kernels do it by themselves, later."""
    try:
        ioctl.ioctl(fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", 0, subvolume)))
    except OSError as error:
        # No quotas, no such qgroup, or the cleaner has not come to the subvolume yet.
        if error.errno not in (errno.ENOTCONN, errno.EINVAL, errno.ENOENT, errno.EBUSY):
            raise
