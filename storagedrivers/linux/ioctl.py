"""ioctl(2), and the few requests that work on any filesystem; the only importer of ``fcntl``."""

from __future__ import annotations

import errno
import os
import sys

try:
    import fcntl
except ImportError:  # not a Unix: nothing here can be called
    fcntl = None  # type: ignore[assignment]

FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10
BTRFS_IOC_SUBVOL_GETFLAGS = 0x80089419
BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941A
BTRFS_SUBVOL_RDONLY = 2
FS_APPEND_FL = 0x20


def ioctl(fd: int, request: int, argument: int | bytearray = 0) -> int:
    """ioctl(2). A *bytearray* is read and written in place: ``bytes`` end at 1,024 there."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return fcntl.ioctl(fd, request, argument)


def clone_file(source_fd: int, target_fd: int) -> None:
    """Make the empty *target_fd* share all content of *source_fd*: ioctl_ficlone(2).

    Raises:
        OSError: EOPNOTSUPP or EINVAL (the filesystem cannot), EXDEV (another filesystem).
    """
    ioctl(target_fd, FICLONE, source_fd)


def protect(fd: int) -> None:
    """Set the immutable flag (chattr +i).

    Raises:
        OSError: EPERM without CAP_LINUX_IMMUTABLE, ENOTTY or EOPNOTSUPP where there is none.
    """
    _set_flags(fd, _flags(fd) | FS_IMMUTABLE_FL)


def clear_protection(fd: int) -> None:
    """Take the immutable and append-only flags (chattr +i, +a) off, where there are any."""
    try:
        flags = _flags(fd)
    except OSError:
        return  # a filesystem without flags protects nothing by them
    if flags & (FS_IMMUTABLE_FL | FS_APPEND_FL):
        _set_flags(fd, flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL))


def clear_read_only_subvolume(fd: int) -> None:
    """Make the btrfs subvolume whose root is *fd* writable, if it is one that is not."""
    flags = bytearray(8)
    try:
        ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, flags)
    except OSError:
        return  # another filesystem
    value = int.from_bytes(flags, sys.byteorder)
    if value & BTRFS_SUBVOL_RDONLY:
        value &= ~BTRFS_SUBVOL_RDONLY
        ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, bytearray(value.to_bytes(8, sys.byteorder)))


def set_read_only_subvolume(fd: int) -> None:
    """Make the btrfs subvolume whose root is *fd* read-only. What is open for writing stays so."""
    flags = bytearray(8)
    ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, flags)
    value = int.from_bytes(flags, sys.byteorder) | BTRFS_SUBVOL_RDONLY
    ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, bytearray(value.to_bytes(8, sys.byteorder)))


def is_read_only_subvolume(fd: int) -> bool:
    """Whether *fd* is the root of a btrfs subvolume that cannot be written to."""
    flags = bytearray(8)
    try:
        ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, flags)
    except OSError:
        return False  # another filesystem
    return bool(int.from_bytes(flags, sys.byteorder) & BTRFS_SUBVOL_RDONLY)


def _flags(fd: int) -> int:
    flags = bytearray(8)  # the request says long, and the kernel fills an int
    ioctl(fd, FS_IOC_GETFLAGS, flags)
    return int.from_bytes(flags[:4], sys.byteorder)


def _set_flags(fd: int, flags: int) -> None:
    ioctl(fd, FS_IOC_SETFLAGS, bytearray(flags.to_bytes(4, sys.byteorder) + bytes(4)))
