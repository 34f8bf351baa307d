"""Puts copies into a tree by the rules of COPY and ADD, as Docker's own builder has them.

What is there gives way: a file to a directory, a directory with all that is in it to a file, a
symlink to whatever has its name. A destination that is a symlink is followed, inside of the tree
only. An existing destination keeps its own mode and owner; directories in it take those of the
source. A file whose name is a whiteout's hides what is there, as it would in a layer's tar.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from storagedrivers.archive.compare import open_file
from storagedrivers.build.items import (
    ARCHIVE,
    DIRECTORY,
    Item,
    Owner,
    Part,
    Rules,
    Tree,
    changed,
    stamp_of,
)
from storagedrivers.errors import BuildError
from storagedrivers.linux import copy, tree
from storagedrivers.linux.rooted import Root

_LARGE = 1 << 20  # bytes; below, a second thread costs more than it does
_PREFIX, _OPAQUE, _OTHERS = ".wh.", ".wh..wh..opq", ".wh..wh."
_SECOND = 1_000_000_000
_NO_PLACE = (errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)


class Copies(NamedTuple):
    """What one instruction copies, and where to.

    Attributes:
        parts: its sources.
        rules: what copies get.
        target: the destination, absolute; with a slash at its end for a directory.
        word: of the instruction, for messages.
    """

    parts: tuple[Part, ...]
    rules: Rules
    target: str
    word: str

    def apply(self, root: int) -> None:
        """Copy everything into the tree with this root."""
        path = f"/proc/self/fd/{root}"
        with Root(path) as top, Root(path, _Owned(self.rules.owner)) as owning:
            place = _Place(top, owning, self)
            for part in self.parts:
                if part.how == ARCHIVE:
                    from storagedrivers.build import archives

                    with place.directory(of_archive=True) as fd:
                        archives.unpack(part.tree, fd)
                elif part.how == DIRECTORY:
                    with place.directory() as fd, _Filling(fd, part.tree) as filling:
                        filling.all()
                else:
                    with place.file(part.name) as (fd, name), _Filling(fd, part.tree) as filling:
                        filling.one(name)


class _Owned:
    """Gives directories that are made on the way their owner.

    Args:
        owner: of them; None where they are root's.
    """

    def __init__(self, owner: Owner | None) -> None:
        self._owner = owner

    def before(self, parent: int) -> None:
        """Nothing is to be done."""

    def after(self, parent: int, name: str, fd: int) -> None:
        """One was made."""
        if self._owner is not None:
            os.fchown(fd, *self._owner)


class _Place:
    """Where copies go.

    Args:
        root: of the tree.
        owning: the same, where directories that are made get the owner of the copies, not root.
        copies: what is copied.
    """

    def __init__(self, root: Root, owning: Root, copies: Copies) -> None:
        self._root = root
        self._owning = owning
        self._target = copies.target
        self._rules = copies.rules
        self._word = copies.word

    @contextmanager
    def directory(self, *, of_archive: bool = False) -> Iterator[int]:
        """Have the destination open, a directory, which is made where it is missing.

        Args:
            of_archive: it is root's, whoever owns copies.
        """
        path = self._target
        with self._refused(path):
            is_new = self._root.status(path) is None
            fd = _opened(self._root, path)
        try:
            if is_new and not of_archive and self._rules.owner is not None:
                os.fchown(fd, *self._rules.owner)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def file(self, name: str) -> Iterator[tuple[int, str]]:
        """Have the directory open that a file is copied into, and the file's name there.

        Args:
            name: its name where the destination is a directory.
        """
        path = self._target
        with self._refused(path):
            status = self._root.status(path)
            if path.endswith("/") or (status is not None and stat.S_ISDIR(status.st_mode)):
                if not name:
                    raise BuildError(
                        f"{self._word} failed: cannot determine filename for a file in {path}",
                        resolution="name the file in the destination",
                    )
            else:
                path, name = posixpath.split(self._root.resolve(path))
            fd = _opened(self._owning, path)
        try:
            yield fd, name
        finally:
            os.close(fd)

    @contextmanager
    def _refused(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            raise BuildError(
                f"failed to copy files: {path}, or what is above it, is no directory",
                resolution="remove it in a step before, or copy to another place",
            ) from error


def _opened(root: Root, path: str) -> int:
    """A directory, made where it is missing, for more than to begin a path there."""
    handle = root.make_directory(path)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
    finally:
        os.close(handle)


class _Filling:
    """Makes the copies of one tree in a directory; a context manager that waits for all of them.

    Args:
        goal: the directory, open.
        source: what was read.
    """

    def __init__(self, goal: int, source: Tree) -> None:
        self._goal = goal
        self._source = source
        self._contents = copy.Contents()
        self._helper: copy.Helper | None = None
        self._here = -1  # a directory of the source, open: the one of this path
        self._here_path = ""

    def __enter__(self) -> _Filling:
        return self

    def __exit__(self, *_: object) -> None:
        if self._here >= 0:
            os.close(self._here)
        if self._helper is not None:
            self._helper.finish()

    def one(self, name: str) -> None:
        """Copy what is no directory, as *name*."""
        for mark in self._source.marks:
            _hide(self._goal, mark)
        for item in self._source.items:
            self._make(item, self._goal, name)

    def all(self) -> None:
        """Copy everything. Directories get what they are to have when all is in them."""
        self._hide_all()
        directories = []
        with tree.Walker(self._goal) as walker:
            there, at = walker.go(b""), ""
            for item in self._source.items:
                above, _, name = item.path.rpartition("/")
                if above != at:
                    there, at = walker.go(os.fsencode(above)), above
                if item.kind == stat.S_IFDIR:
                    directories.append((item, _make_directory(there, name)))
                else:
                    self._make(item, there, name)
            for item, is_new in reversed(directories):
                _finish_directory(walker.go(os.fsencode(item.path)), item, is_new=is_new)

    def _hide_all(self) -> None:
        for mark in self._source.marks:
            above, _, name = mark.rpartition("/")
            with suppress(FileNotFoundError, NotADirectoryError):
                with tree.opened_below(self._goal, above) as there:
                    _hide(there, name)

    def _make(self, item: Item, there: int, name: str) -> None:
        try:
            self._make_new(item, there, name)
        except FileExistsError:
            clear(there, name)
            self._make_new(item, there, name)

    def _make_new(self, item: Item, there: int, name: str) -> None:
        if item.first:
            self._link(item, there, name)
        elif item.kind == stat.S_IFREG:
            self._make_file(item, there, name)
        else:
            if item.kind == stat.S_IFLNK:
                os.symlink(item.link, name, dir_fd=there)
            else:
                os.mknod(name, item.kind | 0o600, item.device, dir_fd=there)
            os.chown(name, *item.owner, dir_fd=there, follow_symlinks=False)
            if item.kind != stat.S_IFLNK:
                tree.set_mode(there, name, item.mode)  # mknod applied the umask
            time = item.mtime * _SECOND
            os.utime(name, ns=(time, time), dir_fd=there, follow_symlinks=False)

    def _link(self, item: Item, there: int, name: str) -> None:
        above, _, first = item.first.rpartition("/")
        with tree.opened_below(self._goal, above) as fd:
            os.link(first, name, src_dir_fd=fd, dst_dir_fd=there, follow_symlinks=False)

    # Files

    def _make_file(self, item: Item, there: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=there)
        if item.data is not None:
            try:
                _write(fd, item.data)
                _finish_file(fd, item)
            finally:
                os.close(fd)
            return
        try:
            source = self._opened(item)
        except BaseException:
            os.close(fd)
            raise
        if item.size < _LARGE or not self._offered(source, fd, item):
            self._fill(source, fd, item)

    def _offered(self, source: int, fd: int, item: Item) -> bool:
        """Whether another thread fills the file."""
        if self._helper is None:
            self._helper = copy.Helper(room=2)
        return self._helper.offer(lambda: self._fill(source, fd, item))

    def _fill(self, source: int, fd: int, item: Item) -> None:
        """Give a new file what it is to have; closes both."""
        try:
            status = os.fstat(source)
            if item.size:
                self._contents.copy(source, fd, status)
            if item.stamp is not None and stamp_of(os.fstat(source)) != item.stamp:
                raise changed(self._whole(item))
            _finish_file(fd, item)
        finally:
            os.close(fd)
            os.close(source)

    def _opened(self, item: Item) -> int:
        """What a file was read from, if it is still the same."""
        if item.opened >= 0:
            return os.dup(item.opened)
        above, _, name = item.path.rpartition("/")
        try:
            if self._here < 0 or above != self._here_path:
                here = tree.open_below(self._source.fd, above, mounts=True)
                if self._here >= 0:
                    os.close(self._here)
                self._here, self._here_path = here, above
            fd = open_file(self._here, name)
        except OSError as error:
            raise changed(self._whole(item)) from error
        if stamp_of(os.fstat(fd)) != item.stamp:
            os.close(fd)
            raise changed(self._whole(item))
        return fd

    def _whole(self, item: Item) -> str:
        return posixpath.join(self._source.path, item.path)


def _write(fd: int, data: bytes) -> None:
    done = os.write(fd, data) if data else 0
    while done < len(data):
        done += os.write(fd, data[done:])


def _finish_file(fd: int, item: Item) -> None:
    os.fchown(fd, *item.owner)  # also 0:0: a setgid directory passes its group on
    os.fchmod(fd, item.mode)
    if item.capability:
        os.setxattr(fd, "security.capability", item.capability)
    time = item.mtime * _SECOND
    os.utime(fd, ns=(time, time))


def _make_directory(there: int, name: str) -> bool:
    """Whether one was made; else there was one."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=there)
        return True
    if stat.S_ISDIR(os.stat(name, dir_fd=there, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=there)
    os.mkdir(name, 0o700, dir_fd=there)
    return True


def _finish_directory(fd: int, item: Item, *, is_new: bool) -> None:
    """Give a directory what it is to have; one that has it already is not touched: that would
    make it part of the layer.
    """
    time = item.mtime * _SECOND
    if not is_new:
        status = os.fstat(fd)
        has = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        if has == (item.mode, *item.owner, time):
            return
    os.fchown(fd, *item.owner)
    os.fchmod(fd, item.mode)
    os.utime(fd, ns=(time, time))


def clear(directory: int, name: str) -> None:
    """Remove what has a name, with all that is in it."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # of a directory, or protected
        tree.remove_tree(directory, name)


def _hide(directory: int, mark: str) -> None:
    """Do what a whiteout says."""
    if mark == _OPAQUE:
        tree.empty_directory(directory)
    elif not mark.startswith(_OTHERS):  # those mean nothing to anyone but aufs
        name = mark.removeprefix(_PREFIX)
        if name in ("", ".", ".."):
            raise BuildError(
                f"failed to copy files: {mark!r} is the name of a whiteout that hides nothing",
                resolution="rename it, or leave it out",
            )
        clear(directory, name)
