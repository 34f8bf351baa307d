"""Filesystems made for a measurement: on disk (in a file, loop mounted) and in memory.

The mounts are to be made in a namespace of the benchmark's own, so they end with its process.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
}


@dataclass(frozen=True, slots=True)
class Filesystem:
    """One that is mounted."""

    mountpoint: Path
    image: int | None = None  # the file it lies in, open
    kind: str = "tmpfs"

    def write_back(self) -> None:
        """Bring everything to the disk, through both filesystems, and forget the image's pages."""
        if self.image is not None:
            os.sync()
            os.fsync(self.image)
            os.posix_fadvise(self.image, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def on_disk(
    kind: str, directory: Path, size: int, *, inodes: int | None = None
) -> Iterator[Filesystem]:
    """A new filesystem in a file below *directory*, mounted; ext4 with so many *inodes*.

    The loop device takes itself away with the mount (``mount -o loop``), and the mount is in a
    namespace that ends with this process. So nothing is left, however the process ends.
    """
    path, mountpoint = directory / "image", directory / "mounted"
    mountpoint.mkdir()
    with path.open("wb") as image:
        image.truncate(size)
        more = ["-N", str(inodes)] if inodes else []
        subprocess.run([*MAKE[kind], *more, path], check=True)
        subprocess.run(["mount", "-t", kind, "-o", "loop", path, mountpoint], check=True)
        path.unlink()
        with _mounted(mountpoint):
            yield Filesystem(mountpoint, image.fileno(), kind)


@contextmanager
def in_memory(directory: Path, size: int) -> Iterator[Filesystem]:
    """A new tmpfs below *directory*, of at most *size* bytes."""
    mountpoint = directory / "mounted"
    mountpoint.mkdir()
    options = f"size={size},nr_inodes=0,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", mountpoint], check=True)
    with _mounted(mountpoint):
        yield Filesystem(mountpoint)


@contextmanager
def _mounted(mountpoint: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # containers-storage leaves a bind mount of its own on its directory.
        subprocess.run(["umount", "--recursive", mountpoint], check=True)


def forget_tree(root: Path) -> None:
    """Drop a tree from the page cache, so that the next copy gets memory that was in use before.

    In a virtual machine the first touch of a page costs more than copying it: the times of both
    sides would tell how much memory earlier copies took.
    """
    for _, _, names, directory_fd in os.fwalk(root):
        for name in names:
            status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                fd = os.open(name, os.O_RDONLY, dir_fd=directory_fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
