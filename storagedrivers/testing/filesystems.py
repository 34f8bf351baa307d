"""Filesystems for tests: made in a file, mounted through a loop device, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from storagedrivers.linux import loop, mount
from storagedrivers.model import Mount

FILESYSTEMS: Mapping[str, tuple[str, ...]] = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "tmpfs": (),
}
"""What can be made, with the command that makes it."""

MEGABYTE = 1 << 20


def missing_program(filesystem: str) -> str | None:
    """The program that :func:`loop_filesystem` would need and the host lacks, or None."""
    command = FILESYSTEMS[filesystem]
    if command and shutil.which(command[0], path=_PATH) is None:
        return command[0]
    return None


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def loop_filesystem(
    filesystem: str, directory: Path, *, size: int = 512 * MEGABYTE, options: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Have an empty filesystem of *size* bytes mounted for the length of a ``with`` block.

    Args:
        filesystem: ``ext4``, ``xfs``, ``btrfs`` or ``tmpfs``.
        directory: an existing directory for the backing file and the mountpoint.
        size: in bytes; the file is sparse. xfs needs 300 MiB.
        options: more words for the command that makes it.

    Raises:
        OSError: no permission to mount or no loop devices.
        subprocess.CalledProcessError: the filesystem could not be made.
    """
    mountpoint = directory / f"{filesystem}.mount"
    mountpoint.mkdir()
    try:
        if filesystem == "tmpfs":
            with mount.mounted([Mount("tmpfs", "tmpfs", options=(f"size={size}",))], mountpoint):
                yield mountpoint
        else:
            with _loop_mounted(filesystem, directory, mountpoint, size, options):
                yield mountpoint
    finally:
        mountpoint.rmdir()


@contextmanager
def _loop_mounted(
    filesystem: str, directory: Path, mountpoint: Path, size: int, options: tuple[str, ...]
) -> Iterator[None]:
    image = directory / f"{filesystem}.img"
    with image.open("xb") as file:
        file.truncate(size)
    try:
        command = [*FILESYSTEMS[filesystem], *options, os.fspath(image)]
        command[0] = shutil.which(command[0], path=_PATH) or command[0]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        with loop.loop_device(image) as device:
            with mount.mounted([Mount(filesystem, device)], mountpoint):
                yield
    finally:
        image.unlink()
