"""What a layer deletes of the layers below: collected, then written as whiteouts or carried out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from storagedrivers.archive.places import Lower, Places, join
from storagedrivers.archive.whiteouts import OPAQUE, OVERLAY_OPAQUE, PREFIX
from storagedrivers.errors import UnrepresentableError
from storagedrivers.linux import tree
from storagedrivers.model import WhiteoutFormat

_MAX_NAME = 255  # bytes


class Deletions:
    """What whiteouts name, as far as the lower has it. Their order does not matter."""

    def __init__(self, places: Places, lower: Lower) -> None:
        self._places = places
        self._lower = lower
        self._names: set[bytes] = set()
        self._opaque: set[bytes] = set()

    def add(self, directory: list[bytes], name: bytes) -> None:
        """The lower's *name* in *directory* is gone."""
        if not self._lower:
            return
        parent = self._places.find([*directory, name], through_lower_symlinks=False)
        if parent is not None and self._lower.status(parent) is not None:
            self._names.add(parent)

    def add_opaque(self, directory: list[bytes]) -> None:
        """Everything that the lower has in *directory* is gone."""
        if not self._lower:
            return
        path = self._real(directory)
        if path is not None and self._lower_is_directory(path):
            self._opaque.add(path)

    def _real(self, directory: list[bytes]) -> bytes | None:
        # The last name counts as one on the way: it may be a symlink.
        path = self._places.find([*directory, b"."], through_lower_symlinks=False)
        return None if path is None else path.removesuffix(b".").removesuffix(b"/")

    def _lower_is_directory(self, path: bytes) -> bool:
        status = self._lower.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def hides(self, path: bytes) -> bool:
        """Whether the lower's *path* does not show: it is deleted, by itself or with a directory
        above it, or an entry stands in its way.
        """
        if not self._places.is_reachable(path):
            return True
        above = [b"", *_above(path)]
        return path in self._names or any(
            one in self._opaque or one in self._names for one in above
        )

    def settled(self) -> Iterator[tuple[bytes, bool]]:
        """The deletions that are left when all entries are there: path, and whether it stays as an
        opaque directory. A path comes after those above it; where one above is deleted, it does not
        come.
        """
        done: set[bytes] = set()
        if b"" in self._opaque:  # no driver can mark a root
            self._names.update(self._lower.names(b""))
            self._opaque.discard(b"")
        for path in sorted(self._names | self._opaque):
            hidden = any(above in done for above in _above(path))
            if not hidden and self._places.is_reachable(path):
                opaque = self._becomes_opaque(path)
                if opaque is not None:
                    done.add(path)
                    yield path, opaque

    def _becomes_opaque(self, path: bytes) -> bool | None:
        """Whether *path* is an opaque directory, or gone; None where an entry hides it anyway."""
        status = self._places.status(path)
        if status is None:
            return path in self._opaque and path not in self._names
        if stat.S_ISDIR(status.st_mode) and self._lower_is_directory(path):
            return True
        return None

    def make_parent(self, path: bytes) -> tuple[int, bytes]:
        """The directory that holds *path*, made like the lower's where the layer has none."""
        directory, _, name = path.rpartition(b"/")
        fd, _ = self._places.directory(directory.split(b"/") if directory else [])
        return fd, name

    def make(self, path: bytes) -> int:
        """The directory *path*, made like the lower's where the layer has none."""
        return self._places.directory(path.split(b"/"))[0]

    def close(self) -> None:
        """Close what looking up opened."""
        self._places.close()


def _above(path: bytes) -> Iterator[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def write_whiteouts(top: int, kind: WhiteoutFormat, deletions: Deletions) -> None:
    """Write the deletions into the changeset *top*.

    Raises:
        UnrepresentableError: aufs has no room for the name.
    """
    try:
        for path, opaque in deletions.settled():
            if opaque:
                _mark_opaque(deletions.make(path), kind)
            else:
                _write_whiteout(*deletions.make_parent(path), kind)
    finally:
        deletions.close()


def _mark_opaque(fd: int, kind: WhiteoutFormat) -> None:
    if kind is WhiteoutFormat.AUFS:
        _touch(fd, OPAQUE)
    else:
        os.setxattr(fd, OVERLAY_OPAQUE[kind], b"y")


def _write_whiteout(parent: int, name: bytes, kind: WhiteoutFormat) -> None:
    if kind is not WhiteoutFormat.AUFS:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        return
    if len(name) + len(PREFIX) > _MAX_NAME:
        raise UnrepresentableError(
            f"aufs cannot hide a name of {len(name)} bytes",
            entry=name,
            resolution="use another driver for this image",
        )
    _touch(parent, PREFIX + name)


def _touch(parent: int, name: bytes) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=parent))


# Without whiteouts


def merge(target: int, staging: int, staging_name: bytes, deletions: Deletions) -> None:
    """Carry the deletions out in the tree *target*, and move the layer's entries into it.

    Args:
        staging: the directory that has them, *staging_name* in *target*; it is gone afterwards.
    """
    try:
        _delete(target, staging_name, deletions)
    finally:
        deletions.close()
    pending = [b""]
    while pending:
        path = pending.pop()
        with (
            tree.opened_below(staging, os.fsdecode(path)) as source,
            tree.opened_below(target, os.fsdecode(path)) as goal,
        ):
            for name in map(os.fsencode, os.listdir(source)):
                if not _move(source, goal, name):
                    pending.append(join(path, name))
    tree.remove_tree(target, os.fsdecode(staging_name))


def _delete(target: int, staging_name: bytes, deletions: Deletions) -> None:
    for path, opaque in deletions.settled():
        directory, _, name = path.rpartition(b"/")
        if opaque:
            deletions.make(path)  # so that it gets its metadata back
            with tree.opened_below(target, os.fsdecode(path)) as fd:
                tree.empty_directory(fd)
        else:
            deletions.make_parent(path)
            with tree.opened_below(target, os.fsdecode(directory)) as fd:
                if directory or name != staging_name:
                    tree.remove_tree(fd, os.fsdecode(name))


def _move(source: int, goal: int, name: bytes) -> bool:
    """Move an entry; False for a directory whose content has to be merged."""
    new = os.stat(name, dir_fd=source, follow_symlinks=False)
    old = None
    with suppress(FileNotFoundError):
        old = os.stat(name, dir_fd=goal, follow_symlinks=False)
    if old is not None and stat.S_ISDIR(old.st_mode):
        if stat.S_ISDIR(new.st_mode):
            return False
        tree.remove_tree(goal, os.fsdecode(name))
    elif old is not None and stat.S_ISDIR(new.st_mode):
        os.unlink(name, dir_fd=goal)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=goal)
    return True
