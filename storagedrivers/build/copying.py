"""Copies files into a tree by the rules of COPY and ADD, as Docker's own builder has them.

What is there gives way: a file to a directory, a whole directory to a file, a symlink to whatever
has its name. A destination that is a symlink is followed, inside of the tree only. An existing
destination keeps its own mode and owner; directories in it take those of the source.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from storagedrivers.errors import BuildError
from storagedrivers.linux import copy, tree
from storagedrivers.linux.rooted import Root

Owner = tuple[int, int]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Item(NamedTuple):
    """Something that was read.

    Attributes:
        path: from the top of what it is in.
        status: as it was then.
        link: where it leads, if it is a symlink.
    """

    path: str
    status: os.stat_result
    link: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)


class Tree(NamedTuple):
    """A directory that is copied from.

    Attributes:
        fd: it, open.
        path: where it is in the context, for messages.
        items: what is copied of it.
    """

    fd: int
    path: str
    items: tuple[Item, ...]


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """What tells a file from what it was before."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)


def changed(path: str) -> BuildError:
    """The error for a file that is another one than when it was read."""
    return BuildError(
        f"{path} changed while it was read",
        resolution="build again when nothing writes to the context",
    )


def is_tar(directory: int, name: str) -> bool:
    """Whether a file is a tar with something in it, plain or compressed."""
    from storagedrivers.archive.reader import Reader
    from storagedrivers.archive.source import Source
    from storagedrivers.errors import DiffError

    fd = tree.open_regular(directory, name)
    if fd is None:
        return False
    with open(fd, "rb") as file:
        if not any(file.read(512)):
            return False
        file.seek(0)
        source = Source(file, max_bytes=1 << 62, hash_stored=False)
        try:
            reader = Reader(source, literal=lambda _: None, max_entries=1 << 30)
            return next(reader.entries(), None) is not None
        except (DiffError, OSError, EOFError):
            return False
        finally:
            source.close()


class Work:
    """What one instruction copies.

    Args:
        owner: of everything; None where owners are kept.
        mode: of everything; None where modes are kept.
        target: the destination, absolute; with a slash at its end for a directory.
        several: there is more than one source.
    """

    def __init__(
        self, *, owner: Owner | None, mode: int | None, target: str, several: bool
    ) -> None:
        self._owner = owner
        self._mode = mode
        self._target = target
        self._several = several
        self._parts: list[Callable[[int], None]] = []

    @property
    def is_directory(self) -> bool:
        """The destination has to be a directory."""
        return self._target.endswith("/")

    def add_tree(self, source: Tree) -> None:
        """Copy the content of a directory."""
        self._parts.append(lambda root: self._copy_tree(root, source))

    def add_file(self, source: Tree, name: str) -> None:
        """Copy one file, which is called *name* in a directory."""
        self._parts.append(lambda root: self._copy_file(root, source, name))

    def add_archive(self, source: Tree) -> None:
        """Unpack a tar."""
        self._parts.append(lambda root: self._unpack(root, source))

    def add_data(self, name: str, data: bytes, mode: int, modified: float | None) -> None:
        """Write a file."""

        def write(fd: int) -> None:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)

        self._parts.append(lambda root: self._write(root, name, write, mode, modified))

    def add_open_file(self, name: str, source: int, mode: int, modified: float | None) -> None:
        """Copy a file that is open."""

        def write(fd: int) -> None:
            with open(fd, "wb", closefd=False) as file, open(source, "rb", closefd=False) as read:
                read.seek(0)
                while data := read.read(1 << 20):
                    file.write(data)

        self._parts.append(lambda root: self._write(root, name, write, mode, modified))

    def apply(self, root: int) -> None:
        """Do it, in the tree with this root.

        Raises:
            BuildError: it cannot be there; something changed since it was read.
        """
        for part in self._parts:
            part(root)

    # Where to

    @contextmanager
    def _directory(self, root: int, path: str) -> Iterator[tuple[int, bool]]:
        """A directory of the tree, made where it is missing; and whether it was."""
        with Root(f"/proc/self/fd/{root}", _Owning(self._owner)) as top:
            made = top.status(path) is None
            try:
                fd = top.make_directory(path)
            except NotADirectoryError as error:
                raise BuildError(
                    f"COPY failed: {path} is no directory, or what is above it is none",
                    resolution="remove it in a step before, or copy to another place",
                ) from error
            try:
                yield fd, made
            finally:
                os.close(fd)

    @contextmanager
    def _place(self, root: int, name: str) -> Iterator[tuple[int, str]]:
        """Where a file is to be: the open directory above it, and its name."""
        path = self._target
        if self.is_directory or self._is_directory(root, path):
            path = posixpath.join(path, name)
        else:
            path = self._followed(root, path)
        above, name = posixpath.split(path)
        with self._directory(root, above) as (fd, _):
            yield fd, name

    @staticmethod
    def _is_directory(root: int, path: str) -> bool:
        with Root(f"/proc/self/fd/{root}") as top:
            status = top.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    @staticmethod
    def _followed(root: int, path: str) -> str:
        with Root(f"/proc/self/fd/{root}") as top:
            return top.resolve(path)

    # What

    def _copy_tree(self, root: int, source: Tree) -> None:
        links: dict[tuple[int, int], str] = {}
        with self._directory(root, self._target.rstrip("/") or "/") as (goal, _):
            _Copy(self._owner, self._mode, source, goal, links).run()

    def _copy_file(self, root: int, source: Tree, name: str) -> None:
        (item,) = source.items
        with self._place(root, name) as (goal, new_name):
            _Copy(self._owner, self._mode, source, goal, {}).one(source.fd, item, goal, new_name)

    def _write(
        self,
        root: int,
        name: str,
        write: Callable[[int], None],
        mode: int,
        modified: float | None,
    ) -> None:
        with self._place(root, name) as (goal, new_name):
            clear(goal, new_name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(new_name, flags, 0o600, dir_fd=goal)
            try:
                write(fd)
                os.fchown(fd, *(self._owner or (0, 0)))
                os.fchmod(fd, mode if self._mode is None else self._mode)
                if modified is not None:
                    os.utime(fd, (modified, modified))
            finally:
                os.close(fd)

    def _unpack(self, root: int, source: Tree) -> None:
        from storagedrivers.build import archives

        (item,) = source.items
        fd = tree.open_regular(source.fd, posixpath.basename(item.path))
        if fd is None:
            raise changed(source.path)
        with open(fd, "rb") as file, self._directory(root, self._target.rstrip("/") or "/"):
            if stamp(os.fstat(fd)) != stamp(item.status):
                raise changed(source.path)
            archives.unpack(root, self._target, file)


class _Owning:
    """Gives what is made on the way the owner."""

    def __init__(self, owner: Owner | None) -> None:
        self._owner = owner or (0, 0)

    def before(self, parent: int) -> None:
        """Nothing is to be done before."""

    def after(self, parent: int, name: str, fd: int) -> None:
        """Something was made."""
        if self._owner != (0, 0):
            os.chown(name, *self._owner, dir_fd=parent, follow_symlinks=False)


def clear(directory: int, name: str) -> os.stat_result | None:
    """Remove what has a name, with all that is in it; what it was."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        tree.remove_tree(directory, name)
    else:
        os.unlink(name, dir_fd=directory)
    return status


class _Copy:
    """Copies what was read of one directory into another."""

    def __init__(
        self,
        owner: Owner | None,
        mode: int | None,
        source: Tree,
        goal: int,
        links: dict[tuple[int, int], str],
    ) -> None:
        self._owner = owner
        self._mode = mode
        self._source = source
        self._goal = goal
        self._links = links

    def run(self) -> None:
        """Copy everything: directories get their times when all is in them."""
        directories = []
        here, there, at = -1, -1, None
        try:
            for item in self._source.items:
                above, name = posixpath.split(item.path)
                if above != at:
                    for fd in (here, there):
                        if fd >= 0:
                            os.close(fd)
                    here = tree.open_below(self._source.fd, above, mounts=True)
                    there = tree.open_below(self._goal, above, mounts=True)
                    at = above
                if item.is_directory:
                    self._make_directory(there, name)
                    directories.append(item)
                elif not self._linked(item, there, name):
                    self.one(here, item, there, name)
        finally:
            for fd in (here, there):
                if fd >= 0:
                    os.close(fd)
        for item in reversed(directories):
            with tree.opened_below(self._goal, item.path, mounts=True) as fd:
                self._finish_directory(fd, item)

    def _make_directory(self, there: int, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=there)
            return
        if not stat.S_ISDIR(os.stat(name, dir_fd=there, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=there)
            os.mkdir(name, 0o700, dir_fd=there)

    def _finish_directory(self, fd: int, item: Item) -> None:
        status = item.status
        os.fchown(fd, *(self._owner or (status.st_uid, status.st_gid)))
        os.fchmod(fd, stat.S_IMODE(status.st_mode) if self._mode is None else self._mode)
        if self._owner is None:
            with tree.opened_below(self._source.fd, item.path, mounts=True) as source:
                _copy_xattrs(source, fd)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _linked(self, item: Item, there: int, name: str) -> bool:
        """Whether it is one more name of what was copied."""
        status = item.status
        if status.st_nlink < 2:
            return False
        key = (status.st_dev, status.st_ino)
        first = self._links.setdefault(key, item.path)
        if first == item.path:
            return False
        clear(there, name)
        above, first_name = posixpath.split(first)
        with tree.opened_below(self._goal, above, mounts=True) as fd:
            os.link(first_name, name, src_dir_fd=fd, dst_dir_fd=there, follow_symlinks=False)
        return True

    def one(self, here: int, item: Item, there: int, name: str) -> None:
        """Copy what is no directory."""
        clear(there, name)
        old = posixpath.basename(item.path)
        whole = posixpath.join(self._source.path, item.path)
        if item.is_file:
            fd = tree.open_regular(here, old)
            if fd is None:
                raise changed(whole)
            try:
                if stamp(os.fstat(fd)) != stamp(item.status):
                    raise changed(whole)
                copy.copy_opened(fd, there, name)
                if stamp(os.fstat(fd)) != stamp(item.status):
                    raise changed(whole)
            finally:
                os.close(fd)
        else:
            copy.copy_entry(here, old, there, name)
        self._own(item, there, name)

    def _own(self, item: Item, there: int, name: str) -> None:
        mode = stat.S_IMODE(item.status.st_mode)
        is_link = stat.S_ISLNK(item.status.st_mode)
        if self._owner is not None:
            os.chown(name, *self._owner, dir_fd=there, follow_symlinks=False)
            if item.is_file:
                mode &= 0o1777  # as chown(2) does it to a program
        if not is_link and (self._mode is not None or self._owner is not None):
            tree.set_mode(there, name, mode if self._mode is None else self._mode)
        times = (item.status.st_atime_ns, item.status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=there, follow_symlinks=False)


def _copy_xattrs(source: int, target: int) -> None:
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
