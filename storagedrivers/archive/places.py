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

_OPEN_DIRECTORIES = 64
# What opening a directory says where there is none of that path, or only through a symlink.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_MAX_LINKS = 40  # symlinks in one path, as the kernel has it
_LONG = 4096  # bytes; longer names of directories are looked up each time
_MAX_COMPONENTS = 8192  # far above what trees have; what is done with a path grows with it

DISTRUST = "do not trust where it comes from"


def components(name: bytes) -> list[bytes]:
    """The names in a path of a tar, without those that mean nothing.

    Raises:
        UnsafeEntryError: one of them is ``..``.
    """
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnsafeEntryError("its path has '..' in it", resolution=DISTRUST)
    if len(parts) > _MAX_COMPONENTS:
        raise MalformedDiffError(
            f"its path has {len(parts)} names in it, and {_MAX_COMPONENTS} are let in"
        )
    return parts


def open_directory(name: bytes, dir_fd: int) -> int:
    """Open the directory *name* in *dir_fd*, and no symlink to one."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=dir_fd)


def join(directory: bytes, name: bytes) -> bytes:
    """The path of *name* in *directory*."""
    return directory + b"/" + name if directory else name


class Lower:
    """The merged view of the layers below; every path is looked up without following symlinks."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd

    def __bool__(self) -> bool:
        return self.fd is not None

    def status(self, path: bytes) -> os.stat_result | None:
        """Of *path*; None where there is nothing, or only through a symlink."""
        if self.fd is None:
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
        if self.fd is None:
            return None
        try:
            return tree.open_below(self.fd, os.fsdecode(path))
        except OSError as error:
            if error.errno in _NOT_THERE:
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

    A subclass that has no directories (:mod:`storagedrivers.archive.expect`) replaces all that
    touches them: ``forget``, ``status``, ``_enter``, ``_reopen`` and ``_cursor``.

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
        if len(text) <= _LONG:
            self._known[text] = path
        return fd, path, base

    def directory(self, parts: list[bytes]) -> tuple[int, bytes]:
        """The directory that *parts* lead to, made where it is missing; and its real path."""
        pending = parts[::-1]
        fd, path, links = self._top, b"", 0
        while pending:
            name = pending.pop()
            if name == b"..":  # of a symlink
                if not path:
                    raise _leads_out()
                path = path.rpartition(b"/")[0]
                fd = self._reopen(path)
                continue
            child = join(path, name)
            found = self._enter(fd, name, child)
            if isinstance(found, bytes):
                links += 1
                pending += _followed(found, links)
                path = b"" if found.startswith(b"/") else path
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
                    found = open_directory(name, fd)
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
                        found = open_directory(name, fd)
                    finally:
                        os.close(fd)
                    break
            assert found is not None
        return self._keep_open(child, found)

    def _keep_open(self, path: bytes, fd: int) -> int:
        """Make *fd* the youngest of those that are kept open; the oldest may have to go."""
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = fd
        return fd

    def _reopen(self, path: bytes) -> int:
        """A directory that is known to be there."""
        if not path:
            return self._top
        fd = self._open.pop(path, None)
        if fd is None:
            fd = tree.open_below(self._top, os.fsdecode(path))
        return self._keep_open(path, fd)

    # Looking without making

    def status(self, path: bytes) -> os.stat_result | None:
        """Of what the layer itself has at *path*, following no symlink."""
        directory, _, name = path.rpartition(b"/")
        try:
            with tree.opened_below(self._top, os.fsdecode(directory)) as fd:
                return os.stat(name or b".", dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise

    def find(self, parts: list[bytes], *, through_lower_symlinks: bool) -> bytes | None:
        """The real path of *parts* in the layer laid over those below; nothing is made.

        The last name is not followed. None where the way there does not exist.
        """
        pending = parts[::-1]
        path: list[bytes] = []
        links = 0
        with self._cursor() as own, Cursor(self._lower.fd) as lower:
            while pending:
                name = pending.pop()
                if name == b"..":
                    if not path:
                        raise _leads_out()
                    path.pop()
                    own.up()
                    lower.up()
                    continue
                status = own.status(name)
                cursor = own if status is not None else lower
                status = status or lower.status(name)
                if not pending:
                    return b"/".join([*path, name])
                if status is not None and stat.S_ISLNK(status.st_mode):
                    if cursor is lower and not through_lower_symlinks:
                        return None
                    links += 1
                    target = cursor.readlink(name)
                    pending += _followed(target, links)
                    if target.startswith(b"/"):
                        path.clear()
                        own.reset()
                        lower.reset()
                elif status is not None and stat.S_ISDIR(status.st_mode):
                    path.append(name)
                    own.down(name)
                    lower.down(name)
                else:
                    return None
        return b"/".join(path)

    def _cursor(self) -> Cursor:
        """At the root of what the layer itself has."""
        return Cursor(self._top)

    def is_reachable(self, path: bytes) -> bool:
        """Whether the layer itself has nothing but directories above *path*, as far as it has
        anything.
        """
        with self._cursor() as own:
            for name in path.split(b"/")[:-1]:
                status = own.status(name)
                if status is None:
                    return True
                if not stat.S_ISDIR(status.st_mode):
                    return False
                own.down(name)
        return True


class Cursor:
    """A place on a way through a tree that may lack the end of it.

    Args:
        top: the tree's root directory, open, or None for a tree that has nothing.
    """

    def __init__(self, top: int | None) -> None:
        self._top = top
        self._fd = -1
        self._missing = 0  # levels below the last one that is there
        self.reset()

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self._move(-1)

    def reset(self) -> None:
        """Back to the root."""
        self._missing = 1 if self._top is None else 0
        self._move(-1 if self._top is None else tree.open_below(self._top, ""))

    def status(self, name: bytes) -> os.stat_result | None:
        """Of *name* here; None where there is none."""
        if self._missing:
            return None
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise

    def readlink(self, name: bytes) -> bytes:
        """The target of the symlink *name*."""
        return os.readlink(name, dir_fd=self._fd)

    def down(self, name: bytes) -> None:
        """Go into *name*, whether it is there or not."""
        if self._missing:
            self._missing += 1
            return
        try:
            self._move(open_directory(name, self._fd))
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            self._missing = 1

    def up(self) -> None:
        """Go back to the directory above."""
        if self._missing:
            self._missing -= 1
        else:
            self._move(open_directory(b"..", self._fd))

    def _move(self, fd: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd


def _followed(target: bytes, links: int) -> list[bytes]:
    """The names in the target of a symlink, the first one last."""
    if links > _MAX_LINKS:
        raise UnsafeEntryError(f"its path goes through more than {_MAX_LINKS} symlinks")
    return [part for part in target.split(b"/") if part not in (b"", b".")][::-1]


def _leads_out() -> UnsafeEntryError:
    return UnsafeEntryError(
        "its path goes through a symlink that leads out of the layer", resolution=DISTRUST
    )
