"""Remembers which files of a layer are copies of files below it, for hard links to those."""

from __future__ import annotations

from collections.abc import Hashable


class Borrowed:
    """Copies of the lower's files, and the names that each has in the layer.

    A copy without a name is forgotten at once: the filesystem may give its inode number to the next
    file.
    """

    def __init__(self) -> None:
        self._inodes: dict[bytes, Hashable] = {}
        self._copies: dict[Hashable, tuple[bytes, dict[bytes, None]]] = {}

    def add(self, target: bytes, inode: Hashable, name: bytes) -> None:
        """The lower's file *target* was copied to *name*."""
        self._inodes[target] = inode
        self._copies[inode] = (target, {name: None})

    def link(self, inode: Hashable, name: bytes) -> None:
        """*name* was made a name of *inode*, which need not be a copy."""
        if inode in self._copies:
            self._copies[inode][1][name] = None

    def discard(self, inode: Hashable, name: bytes) -> None:
        """*name*, of *inode*, is going away."""
        if inode in self._copies:
            target, names = self._copies[inode]
            names.pop(name, None)
            if not names:
                del self._copies[inode], self._inodes[target]

    def name(self, target: bytes) -> bytes | None:
        """A name of the copy of *target*; None where there is no copy."""
        if target not in self._inodes:
            return None
        return next(iter(self._copies[self._inodes[target]][1]))

    def targets(self) -> list[bytes]:
        """The lower's files that have a copy, sorted."""
        return sorted(self._inodes)
