"""What limits a volume to its size: the first of these that works where it lies.

- a qgroup of btrfs, where quotas are enabled; they are never switched on here
- a project quota of ext4 or xfs, mounted with ``prjquota``
- a file ``image`` with an ext4 of its own, mounted through a loop device while the volume is in use
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from storagedrivers.errors import VolumeError
from storagedrivers.linux import btrfs, quota, syscalls, tree
from storagedrivers.model import Mount, Volume
from storagedrivers.volume_driver import DATA

MINIMUM = 1 << 20
"""Bytes. Less than that a filesystem needs for itself."""

_BTRFS_MAGIC = 0x9123683E
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MKFS = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-E", "nodiscard")
_BLOCK = 4096
_ATTEMPTS = 5


class _NotHereError(Exception):
    """Why something cannot enforce a size here."""


def check(size: int) -> None:
    """Refuse a size that is too small or too large for any filesystem.

    Raises:
        VolumeError: it is.
    """
    if size < MINIMUM:
        raise VolumeError(
            f"a volume of {size} bytes is too small: the smallest has {MINIMUM}",
            resolution="give it 1m or more",
        )
    if size >= 1 << 60:
        raise VolumeError(f"no volume can have {size} bytes")


def enforce(volume: Volume, directory: Path) -> None:
    """Have the new volume limited by the first that can do it.

    Raises:
        VolumeError: nothing can; says why.
    """
    assert volume.size is not None
    reasons = []
    for enforcer in (_by_qgroup, _by_project, _by_image):
        try:
            enforcer(volume.size, directory)
            return
        except _NotHereError as reason:
            reasons.append(str(reason))
    raise VolumeError(
        f"nothing here can limit the volume {volume.name} to {volume.size} bytes",
        details="\n".join(reasons),
        resolution="see the reasons, or leave the size out",
    )


def limit_like(volume: Volume, data: Path) -> None:
    """Limit a directory that takes the place of the volume's own as that is limited; one in an
    image is.
    """
    assert volume.size is not None
    directory = data.parent
    if (directory / "image").exists():
        return
    limited = _limit_subvolume if _is_on_btrfs(directory) else _limit_project
    try:
        limited(volume.size, data)
    except _NotHereError as reason:
        raise VolumeError(
            f"nothing here can limit the volume {volume.name} to {volume.size} bytes any more",
            details=str(reason),
        ) from reason


def release(data: Path) -> None:
    """Take the limit of a directory's project away; a qgroup goes with its subvolume."""
    try:
        with tree.opened_directory(data.parent) as above, tree.opened_directory(data) as fd:
            project = quota.project_of(fd)
            if project and project != quota.project_of(above):
                quota.limit_project(fd, project, None)
    except OSError as error:
        if error.errno not in quota.NO_QUOTAS:
            raise


def _is_on_btrfs(directory: Path) -> bool:
    return syscalls.statfs_type(directory) == _BTRFS_MAGIC


def _by_qgroup(size: int, directory: Path) -> None:
    if not _is_on_btrfs(directory):
        raise _NotHereError("btrfs qgroups: the graph root is on another filesystem")
    _limit_subvolume(size, directory / DATA)


def _limit_subvolume(size: int, data: Path) -> None:
    with tree.opened_directory(data) as fd:
        _refused(
            "btrfs qgroups: quotas are not enabled on this filesystem (btrfs quota enable PATH)",
            btrfs.QUOTAS_OFF,
            lambda: btrfs.limit_size(fd, size, shared=True),
        )


def _by_project(size: int, directory: Path) -> None:
    if _is_on_btrfs(directory):
        raise _NotHereError("project quotas: the graph root is on btrfs")
    _limit_project(size, directory / DATA)


def _limit_project(size: int, data: Path) -> None:
    with tree.opened_directory(data) as fd:
        _refused(
            "project quotas: the filesystem is not mounted with prjquota (ext4 and xfs have it)",
            quota.NO_QUOTAS,
            lambda: quota.limit_directory(fd, size),
        )


def _refused(reason: str, numbers: tuple[int, ...], action: Callable[[], object]) -> None:
    """Do *action*; some errors of it mean that it cannot be done here."""
    try:
        action()
    except OSError as error:
        if error.errno not in numbers:
            raise
        raise _NotHereError(f"{reason}: {os.strerror(error.errno)}") from error


# A filesystem of its own


def make_image(size: int, directory: Path) -> bool:
    """Make an image for content that is to take the place of a volume's; whether it could."""
    try:
        _by_image(size, directory)
    except _NotHereError:
        return False
    return True


def _by_image(size: int, directory: Path) -> None:
    """Make a file that holds an empty ext4 with as much room as was asked for."""
    import shutil

    program = shutil.which(_MKFS[0], path=_PATH)
    if program is None:
        raise _NotHereError(f"an image with ext4: {_MKFS[0]} is not installed")
    image = directory / "image"
    os.close(os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _refused(
        "an image with ext4: there are no loop devices, or they may not be used",
        (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODEV, errno.ENXIO),
        lambda: _make_filesystem(program, image, size),
    )
    with image.open("rb") as file:
        os.fsync(file.fileno())


def _make_filesystem(program: str, image: Path, size: int) -> None:
    """What ext4 takes for itself is not foreseen but measured."""
    whole = _rounded(size + max(size // 20, 8 << 20))
    for _ in range(_ATTEMPTS):
        os.truncate(image, 0)
        _extend(image, whole, size)
        _run(program, image)
        missing = size - _prepare(image)
        if abs(missing) <= max(size // 64, 16 * _BLOCK):
            return
        whole = _rounded(whole + missing)


def _extend(image: Path, whole: int, size: int) -> None:
    """Have the file *whole* bytes, which are holes."""
    try:
        os.truncate(image, whole)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        largest = _largest(image, whole)
        raise VolumeError(
            f"a volume of {size} bytes is too large: it lies in a file, and no file here can have"
            f" more than {largest} bytes",
            resolution=f"give it {largest * 15 // 16 >> 20}m at most, or leave the size out",
        ) from error


def _largest(image: Path, too_large: int) -> int:
    """How large the file can be, to a block; its filesystem says so in no other way."""
    low, high = 0, too_large
    while high - low > _BLOCK:
        middle = _rounded((low + high) // 2)
        try:
            os.truncate(image, middle)
            low = middle
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            high = middle
    return low


def _rounded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _run(program: str, image: Path) -> None:
    import subprocess

    command = [program, *_MKFS[1:], os.fspath(image)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip()
        raise _NotHereError(f"an image with ext4: {_MKFS[0]} failed: {words}")


def _prepare(image: Path) -> int:
    """Take away what a new ext4 holds, so that the volume is empty; the bytes that are free."""
    from storagedrivers.linux import loop, mount

    with loop.loop_device(image) as device:
        fd = mount.open_view([Mount("ext4", device)])
        try:
            os.rmdir("lost+found", dir_fd=fd)
            found = os.fstatvfs(fd)
            syscalls.syncfs(fd)
            return found.f_bavail * found.f_frsize
        finally:
            os.close(fd)
