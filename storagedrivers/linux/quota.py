"""Project quotas of ext4 and xfs: a directory with a limit of its own; see quotactl(2), xfs(5).

Only a filesystem that is mounted with ``prjquota`` has them.
"""

from __future__ import annotations

import errno
import os
import struct

from storagedrivers.linux import ioctl, syscalls
from storagedrivers.linux.mountinfo import mount_of

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=5I8s")  # struct fsxattr: flags, extent size, extents, project, cow size

_PROJECT = 2  # PRJQUOTA
_XGETQUOTA = 0x5803
_XSETQLIM = 0x5804
_BLOCK = 512  # bytes; limits are told in such

# struct fs_disk_quota: version, flags, mask, id; block and inode limits (hard, soft), both counts.
_DISK_QUOTA = struct.Struct("=bbHI6Q56s")
_VERSION, _IS_PROJECT = 1, 2
_BLOCKS_SOFT, _BLOCKS_HARD = 1 << 2, 1 << 3

NO_QUOTAS = (
    *(errno.ENOSYS, errno.ESRCH, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM),
    *(errno.ENOTBLK, errno.ENODEV, errno.ENOENT),
)
"""What limits answer where they cannot be set: no kernel support, not enabled, not permitted."""

_ATTEMPTS = 20
_FIRST, _LAST = 1 << 20, (1 << 31) - 1  # of the projects chosen: above those that people number


def project_of(fd: int) -> int:
    """The project of a file or directory; 0 where there is none."""
    attributes = bytearray(_FSXATTR.size)
    try:
        ioctl.ioctl(fd, _FSGETXATTR, attributes)
    except OSError:
        return 0
    return int(_FSXATTR.unpack(attributes)[3])


def limit_directory(fd: int, size: int) -> int:
    """Give an empty directory a project of its own with a limit in bytes; what is made in it is of
    that project too.

    Returns:
        The project.

    Raises:
        OSError: one of :data:`NO_QUOTAS` where the filesystem has no such quotas.
    """
    project = _unused_project(fd)
    limit_project(fd, project, size)
    try:
        _set_project(fd, project)
    except OSError:
        limit_project(fd, project, None)
        raise
    return project


def limit_project(fd: int, project: int, size: int | None) -> None:
    """Limit a project on the filesystem of *fd*, in bytes; None takes the limit away.

    Raises:
        OSError: one of :data:`NO_QUOTAS`.
    """
    blocks = 0 if size is None else -(-size // _BLOCK)
    mask = _BLOCKS_SOFT | _BLOCKS_HARD
    limits = (blocks, blocks, 0, 0, 0, 0)
    quota = _DISK_QUOTA.pack(_VERSION, _IS_PROJECT, mask, project, *limits, b"")
    _quotactl(fd, _XSETQLIM, project, bytearray(quota))


def _unused_project(fd: int) -> int:
    """A number that has neither a limit nor files."""
    for _ in range(_ATTEMPTS):
        project = _FIRST + int.from_bytes(os.urandom(4)) % (_LAST - _FIRST)
        quota = bytearray(_DISK_QUOTA.size)
        try:
            _quotactl(fd, _XGETQUOTA, project, quota)
        except FileNotFoundError:  # xfs: nobody has asked for it yet
            return project
        if not any(_DISK_QUOTA.unpack(quota)[4:10]):
            return project
    raise OSError(errno.EBUSY, "no unused project was found")


def _set_project(fd: int, project: int) -> None:
    attributes = bytearray(_FSXATTR.size)
    ioctl.ioctl(fd, _FSGETXATTR, attributes)
    flags, extent, extents, _, cow, rest = _FSXATTR.unpack(attributes)
    changed = _FSXATTR.pack(flags | _PROJINHERIT, extent, extents, project, cow, rest)
    ioctl.ioctl(fd, _FSSETXATTR, bytearray(changed))


def _quotactl(fd: int, command: int, project: int, quota: bytearray) -> None:
    command = command << 8 | _PROJECT
    try:
        syscalls.quotactl_fd(fd, command, project, quota)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        mount = mount_of(f"/proc/self/fd/{fd}")  # before Linux 5.14: by the device
        if mount is None:
            raise
        syscalls.quotactl(command, mount.source, project, quota)
