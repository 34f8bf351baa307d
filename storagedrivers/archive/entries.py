"""What every tar of a tree says in the same way: types, names of one file, attributes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from storagedrivers.archive.writer import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    REGULAR,
    SYMLINK,
)
from storagedrivers.errors import UnrepresentableError

KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
"""Type flags by the type of a file; a socket has none."""


class FirstNames:
    """The name under which a file with several came first: the others are hard links to it.

    Forgets a file once it has come as often as it has names, so as to hold only what it must.
    """

    def __init__(self) -> None:
        # By device and inode: the first name, and how many may still come.
        self._links: dict[tuple[int, int], tuple[bytes, int]] = {}

    def of(self, path: bytes, status: os.stat_result) -> bytes:
        """The name that came before *path* of the same file; empty for the first one."""
        if status.st_nlink < 2:
            return b""
        key = status.st_dev, status.st_ino
        first, left = self._links.get(key, (b"", status.st_nlink))
        if left > 1:
            self._links[key] = first or path, left - 1
        else:
            self._links.pop(key, None)
        return first


def check_attributes(path: bytes, names: Iterable[bytes], where: str) -> None:
    """Check that a tar can say attributes.

    Args:
        where: on what they can be removed, for the error.

    Raises:
        UnrepresentableError: one that it cannot.
    """
    for name in names:
        if b"=" in name:
            shown = name.decode(errors="backslashreplace")
            raise UnrepresentableError(
                f"a tar cannot say the attribute {shown}, for the '=' in its name",
                entry=path,
                resolution=f"remove it: setfattr -x '{shown}' {where}",
            )
