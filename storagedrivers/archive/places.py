"""Finds the places in a layer that the names of its tar mean, name by name.

A name never leaves the layer: ``..`` in it is refused, symlinks of the layer itself are followed
inside of its root, symlinks of the layers below are not followed but replaced by directories.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from storagedrivers.archive.metadata import Metadata, read_metadata
from storagedrivers.errors import MalformedDiffError, UnsafeEntryError
from storagedrivers.linux import tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES = 64
_MAX_LINKS = 40  # symlinks in one path, as the kernel has it
_MAX_COMPONENTS = 100_000

DISTRUST = "do not trust where it comes from"


def components(name: bytes) -> list[bytes]:
    """The names in a path of a tar, without those that mean nothing.

    Raises:
        UnsafeEntryError: one of them is ``..``.
    """
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnsafeEntryError("its path has '..' in it", resolution=DISTRUST)
    return parts


def join(directory: bytes, name: bytes) -> bytes:
    """The path of *name* in *directory*."""
    return directory + b"/" + name if directory else name


class Lower:
    """The merged view of the layers below; every path is looked up without following symlinks."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def __bool__(self) -> bool:
        return self._fd is not None

    def status(self, path: bytes) -> os.stat_result | None:
        """Of *path*; None where there is nothing, or only through a symlink."""
        if self._fd is None:
            return None
        directory, _, name = path.rpartition(b"/")
        fd = self.open_directory(directory)
        if fd is None:
            return None
        try:
            return os.stat(name or b".", dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise
        finally:
            os.close(fd)

    def open_directory(self, path: bytes) -> int | None:
        """The directory *path*, for the caller to close; None where there is none."""
        if self._fd is None:
            return None
        try:
            return tree.open_below(self._fd, os.fsdecode(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise

    def metadata(self, path: bytes) -> Metadata | None:
        """Of the directory *path*; None where there is none."""
        fd = self.open_directory(path)
        if fd is None:
            return None
        try:
            return read_metadata(fd)
        finally:
            os.close(fd)

    def names(self, path: bytes) -> list[bytes]:
        """What is in the directory *path*."""
        fd = self.open_directory(path)
        if fd is None:
            return []
        try:
            return sorted(map(os.fsencode, os.listdir(fd)))
        finally:
            os.close(fd)


class Places:
    """The directories of a layer in the making.

    Args:
        top: the layer's root directory, open; only this object and its user write below it.
        lower: what lies below.
        make: called with the descriptor of a directory, a name in it and its path, makes the
            directory that entries below it imply.
        discard: called likewise, removes what is in a directory's way.
    """

    def __init__(
        self,
        top: int,
        lower: Lower,
        *,
        make: Callable[[int, bytes, bytes], None],
        discard: Callable[[int, bytes, bytes], None],
    ) -> None:
        self._top = top
        self._lower = lower
        self._make = make
        self._discard = discard
        self._open: dict[bytes, int] = {}
        self._known: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Close what is kept open."""
        self.forget()

    def forget(self) -> None:
        """Something was taken away: what was found before may lead elsewhere now."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        self._known.clear()

    def forget_symlinks(self) -> None:
        """A symlink was taken away."""
        self._known.clear()

    def parent(self, name: bytes) -> tuple[int, bytes, bytes]:
        """The directory that holds an entry, made where it is missing.

        Returns:
            Its descriptor, valid until the next call; its path; the entry's name in it, empty for
            the layer's root.
        """
        text, _, base = name.rpartition(b"/")
        if base in (b"", b".", b".."):
            parts = components(name)
            base = parts.pop() if parts else b""
            text = b"/".join(parts)
        path = self._known.get(text)
        if path is not None:
            fd = self._open.get(path)
            if fd is not None:
                return fd, path, base
        parts = components(text)
        fd, path = self.directory(parts)
        if len(self._known) > 2 * _OPEN_DIRECTORIES:
            self._known.clear()
        self._known[text] = path
        return fd, path, base

    def directory(self, parts: list[bytes]) -> tuple[int, bytes]:
        """The directory that *parts* lead to, made where it is missing; and its real path."""
        if len(parts) > _MAX_COMPONENTS:
            raise MalformedDiffError(f"its path has {len(parts)} names in it")
        pending = parts[::-1]
        fd, path, links = self._top, b"", 0
        while pending:
            name = pending.pop()
            if name == b"..":  # of a symlink
                path = self._up(path)
                fd = self._reopen(path)
                continue
            child = join(path, name)
            found = self._enter(fd, name, child)
            if isinstance(found, bytes):
                links += 1
                path, more = self._follow(path, found, links)
                pending += more
                fd = self._reopen(path)
            else:
                fd, path = found, child
        return fd, path

    def _enter(self, fd: int, name: bytes, child: bytes) -> int | bytes:
        """The directory *name* in *fd*, or the target of the symlink that it is."""
        found = self._open.pop(child, None)
        if found is None:
            for _ in range(3):
                try:
                    found = os.open(name, _DIRECTORY, dir_fd=fd)
                    break
                except FileNotFoundError:
                    self._make(fd, name, child)
                except NotADirectoryError:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISLNK(status.st_mode):
                        return os.readlink(name, dir_fd=fd)
                    fd = os.dup(fd)
                    try:
                        self._discard(fd, name, child)
                        self._make(fd, name, child)
                        found = os.open(name, _DIRECTORY, dir_fd=fd)
                    finally:
                        os.close(fd)
                    break
            assert found is not None
            if len(self._open) >= _OPEN_DIRECTORIES:
                os.close(self._open.pop(next(iter(self._open))))
        self._open[child] = found  # now the youngest
        return found

    @staticmethod
    def _follow(path: bytes, target: bytes, links: int) -> tuple[bytes, list[bytes]]:
        """Where to go on behind a symlink in *path*: the directory, and the names still to walk."""
        if links > _MAX_LINKS:
            raise UnsafeEntryError(f"its path goes through more than {_MAX_LINKS} symlinks")
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        return (b"" if target.startswith(b"/") else path), parts[::-1]

    @staticmethod
    def _up(path: bytes) -> bytes:
        if not path:
            raise UnsafeEntryError(
                "its path goes through a symlink that leads out of the layer", resolution=DISTRUST
            )
        return path.rpartition(b"/")[0]

    def _reopen(self, path: bytes) -> int:
        """A directory that is known to be there."""
        if not path:
            return self._top
        fd = self._open.pop(path, None)
        if fd is None:
            fd = tree.open_below(self._top, os.fsdecode(path))
        self._open[path] = fd
        return fd

    # Looking without making

    def status(self, path: bytes) -> os.stat_result | None:
        """Of what the layer itself has at *path*, following no symlink."""
        directory, _, name = path.rpartition(b"/")
        try:
            with tree.opened_below(self._top, os.fsdecode(directory)) as fd:
                return os.stat(name or b".", dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            missing = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
            if error.errno in missing:
                return None
            raise

    def find(self, parts: list[bytes], *, through_lower_symlinks: bool) -> bytes | None:
        """The real path of *parts* in the layer laid over those below; nothing is made.

        The last name is not followed. None where the way there does not exist.
        """
        pending = parts[::-1]
        path, links = b"", 0
        while pending:
            name = pending.pop()
            if name == b"..":
                path = self._up(path)
                continue
            child = join(path, name)
            status = self.status(child)
            own = status is not None
            if status is None:
                status = self._lower.status(child)
            if not pending:
                return child
            if status is None:
                return None
            if stat.S_ISLNK(status.st_mode):
                if not (own or through_lower_symlinks):
                    return None
                links += 1
                path, more = self._follow(path, self._link(child, own=own), links)
                pending += more
            elif stat.S_ISDIR(status.st_mode):
                path = child
            else:
                return None
        return path

    def _link(self, path: bytes, *, own: bool) -> bytes:
        directory, _, name = path.rpartition(b"/")
        if own:
            with tree.opened_below(self._top, os.fsdecode(directory)) as fd:
                return os.readlink(name, dir_fd=fd)
        lower = self._lower.open_directory(directory)
        assert lower is not None
        try:
            return os.readlink(name, dir_fd=lower)
        finally:
            os.close(lower)
