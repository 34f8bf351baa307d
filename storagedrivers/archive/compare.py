"""Whether two files are the same to a layer: kind, metadata, attributes and content, in this order.

Not compared: the number of links, times of access and of change, where a file has holes, flags.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack

from storagedrivers.linux import copy, extents

_CHUNK = 1 << 20  # bytes
_LARGE = 8 << 10  # bytes; measured: a smaller file is read as fast as it is looked up
_NO_XATTRS = (errno.EOPNOTSUPP, errno.ENOSYS)

_NAMESPACES = ("user.", "trusted.", "security.")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
# The names under which xfs shows its ACLs once more; what the host's security policy gives to every
# file, and makes of its content.
_HOSTS = (
    "trusted.SGI_ACL_",
    "security.selinux",
    "security.SMACK64",
    "security.ima",
    "security.evm",
)
_FOREIGN = (*copy.OVERLAYS_OWN, *_HOSTS)


def open_file(directory: int, name: str | bytes) -> int:
    """Open a regular file for reading, without a trace in its time of access where that is allowed.

    Raises:
        OSError: what the kernel says.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:  # another's file
        return os.open(name, flags, dir_fd=directory)


def attributes(file: int | bytes, *, overlays_own: bool = False) -> dict[bytes, bytes]:
    """The extended attributes that belong to a layer, of an open file or of a path.

    Args:
        overlays_own: also those that overlay keeps for itself.
    """
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    foreign = _HOSTS if overlays_own else _FOREIGN
    return {
        os.fsencode(name): os.getxattr(file, name, follow_symlinks=follow)
        for name in names
        if (name.startswith(_NAMESPACES) and not name.startswith(foreign)) or name in _ACLS
    }


def attributes_at(directory: int, name: bytes, *, overlays_own: bool = False) -> dict[bytes, bytes]:
    """The extended attributes of what may not be opened: a symlink, a fifo, a device."""
    # No xattr call takes a directory and a name; through /proc it stays the opened one.
    return attributes(b"/proc/self/fd/%d/%b" % (directory, name), overlays_own=overlays_own)


def same_status(one: os.stat_result, two: os.stat_result) -> bool:
    """Whether kind and metadata are the same, and so is the size of files."""
    kind = stat.S_IFMT(one.st_mode)
    return (
        one.st_mtime_ns == two.st_mtime_ns
        and (one.st_uid, one.st_gid) == (two.st_uid, two.st_gid)
        and (one.st_mode == two.st_mode or kind == stat.S_IFLNK == stat.S_IFMT(two.st_mode))
        and (kind != stat.S_IFREG or one.st_size == two.st_size)
        and (kind not in (stat.S_IFCHR, stat.S_IFBLK) or one.st_rdev == two.st_rdev)
    )


def same_file(
    one: tuple[int, bytes, os.stat_result], two: tuple[int, bytes, os.stat_result]
) -> bool:
    """Whether two files, no directories, each a directory with a name and its status, are the same.

    Times prove nothing: contents are compared wherever all metadata is equal, and read unless they
    are shared on the disk.
    """
    (one_fd, one_name, status), (two_fd, two_name, other) = one, two
    if not same_status(status, other):
        return False
    if (status.st_dev, status.st_ino) == (other.st_dev, other.st_ino):
        return True
    if not stat.S_ISREG(status.st_mode):
        return attributes_at(one_fd, one_name) == attributes_at(two_fd, two_name) and (
            not stat.S_ISLNK(status.st_mode)
            or os.readlink(one_name, dir_fd=one_fd) == os.readlink(two_name, dir_fd=two_fd)
        )
    with ExitStack() as stack:
        first = open_file(one_fd, one_name)
        stack.callback(os.close, first)
        second = open_file(two_fd, two_name)
        stack.callback(os.close, second)
        return attributes(first) == attributes(second) and (
            (status.st_size >= _LARGE and extents.share_all_extents(first, second, status.st_size))
            or _same_content(
                first, second, status.st_size, holes=has_holes(status) and has_holes(other)
            )
        )


def has_holes(status: os.stat_result) -> bool:
    """Whether a file may have holes that are worth looking for."""
    return status.st_size > _CHUNK and status.st_blocks * 512 < status.st_size


def _same_content(one: int, two: int, size: int, *, holes: bool) -> bool:
    if not holes:
        return _same_range(one, two, 0, size)
    # What is a hole in both needs no reading; what is one in the first only is read in the second.
    for first, second in ((one, two), (two, one)):
        for start, end in copy.data_segments(first, size):
            if not _same_range(first, second, start, end):
                return False
    return True


def _same_range(one: int, two: int, start: int, end: int) -> bool:
    while start < end:
        length = min(end - start, _CHUNK)
        data = os.pread(one, length, start)
        if not data or data != os.pread(two, len(data), start):
            return False
        start += len(data)
    return True
