"""Changes to a populated tree, as programs in a container make them.

Each does the same on a plain directory and on a layer, on every driver: what drivers may do
differently (hard links that lie in a lower layer, renames of lower directories) has contracts of
its own.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from storagedrivers.testing.trees import OLD


def replace_kinds(top: Path) -> None:
    """A file for a directory, a directory for a file, a symlink for either."""
    shutil.rmtree(top / "directory")
    (top / "directory").write_bytes(b"a file now")
    (top / "small").unlink()
    (top / "small").mkdir()
    (top / "small/inside").write_bytes(b"a directory now")
    shutil.rmtree(top / "odd")
    (top / "odd").symlink_to("setgid")
    (top / "empty").unlink()
    (top / "empty").symlink_to("/etc/passwd")
    (top / "dangling").unlink()
    os.mkfifo(top / "dangling")


def edit(top: Path) -> None:
    """Contents, lengths, modes, owners, times and attributes of files that lie below."""
    (top / "small").write_bytes(b"rewritten")
    with (top / "executable").open("ab") as file:
        file.write(b"appended")
    with (top / "large").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"in the middle")
        file.truncate(2 << 20)
    (top / "directory/below/file").chmod(0o600)
    (top / "closed").chmod(0o711)
    (top / "setuid").chmod(0o755)
    os.utime(top / "unreadable", ns=(OLD - 5, OLD - 5))
    os.utime(top / "dangling", ns=(OLD - 7, OLD - 7), follow_symlinks=False)
    for directory in ("directory/below", "directory"):
        os.utime(top / directory, ns=(OLD - 9, OLD - 9))
    if os.geteuid() == 0:
        os.chown(top / "sticky", 0, 0)
    for name in sorted(os.listxattr(top / "small"))[:1]:
        os.removexattr(top / "small", name)


def rename_files(top: Path) -> None:
    """Files to new names, over others, into other directories, and exchanged by way of a third
    name.
    """
    (top / "small").rename(top / "small-renamed")
    (top / "executable").rename(top / "empty")
    (top / "large").rename(top / "directory/below/deeper/large")
    (top / "directory/file").rename(top / "closed/file")
    (top / "setuid").rename(top / "third")
    (top / "unreadable").rename(top / "setuid")
    (top / "third").rename(top / "unreadable")
    for directory in ("directory/below/deeper", "directory/below", "directory", "closed"):
        os.utime(top / directory, ns=(OLD - 11, OLD - 11))


def build(top: Path) -> None:
    """New directories, links among new files, renames of new directories, an unlinked open file."""
    (top / "new/a/b").mkdir(parents=True)
    (top / "new/a/b/file").write_bytes(b"new")
    (top / "new/link").hardlink_to(top / "new/a/b/file")
    (top / "new/a").rename(top / "new/c")
    (top / "new").rename(top / "moved")
    with (top / "gone").open("wb") as file:
        (top / "gone").unlink()
        file.write(b"never seen again")
    os.utime(top / "moved/link", ns=(OLD, OLD))


def change_special_files(top: Path) -> None:
    """Owners, modes and names of fifos, sockets and devices, and their end."""
    for name in ("fifo", "socket", "null"):
        if os.path.lexists(top / name):
            (top / name).chmod(0o600)
            if os.geteuid() == 0:
                os.chown(top / name, 0, 0)
            (top / name).rename(top / f"{name}-renamed")
    if os.path.lexists(top / "disk"):
        (top / "disk").unlink()


def change_and_look_at_times(top: Path) -> None:
    """Changes that leave the times of directories above, and of what is renamed, as they are."""
    (top / "directory/below/file").write_bytes(b"changed")
    (top / "directory/file").chmod(0o600)
    (top / "dangling").rename(top / "sticky/dangling")


def make_in_setgid(top: Path) -> None:
    """A directory and a file in a directory that passes its group on."""
    with suppress(OSError):  # who may give nothing away, or a namespace without this id
        os.chown(top / "setgid", 0, 5)
    (top / "setgid").chmod(0o2755)
    (top / "setgid/directory").mkdir()
    (top / "setgid/file").touch()


def write_sparse(top: Path) -> None:
    """A file of 64 MiB with a few bytes of data."""
    with (top / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(b"data")


def dig(top: Path, levels: int, name: str) -> None:
    """Directories in each other, deeper than any path can say."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(levels):
            os.mkdir(name, dir_fd=fd)
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child
    finally:
        os.close(fd)
