"""Copies files between a container and the host, by the rules of ``docker cp``.

====================  =============================  ===============================================
the source            the destination                what happens
====================  =============================  ===============================================
a file                is not there                   it is made; with a slash at its end: an error
a file                a file                         it is replaced
a file                a directory                    a file of the source's name is made in it
a directory           is not there                   it is made, with the content of the source
a directory           a file                         an error
a directory           a directory                    a directory of the source's name is made in it
a directory ``D/.``   a directory                    the content of the source is copied into it
====================  =============================  ===============================================

The directory above the destination has to be there. A symlink is copied as one, unless it is to be
followed; in the path of a destination it is followed. Owners are root's in the container, and the
user's on the host, unless they are to be kept.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from storagedrivers.archive.output import Write
from storagedrivers.errors import ContainerError, NotFoundError
from storagedrivers.linux import tree
from storagedrivers.stores.transfer import (
    Extraction,
    Owner,
    TarCopy,
    TreeCopy,
    make_directory,
    open_in_root,
)

_MAX_LINKS = 40  # symlinks in one path, as the kernel has it
_NO_NAMES = ("", ".", "..")

_Opens = Callable[[str], int]


class _Place(NamedTuple):
    """A name in an open directory.

    Attributes:
        parent: the directory.
        name: ``.`` for that directory itself.
        status: what is there, or None.
        path: as the user gave it.
    """

    parent: int
    name: str
    status: os.stat_result | None
    path: str

    @property
    def is_directory(self) -> bool:
        """Whether there is a directory."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    @property
    def is_content(self) -> bool:
        """Whether the user wrote that only the content of a directory is meant."""
        return os.path.basename(self.path) == "."

    @property
    def own_name(self) -> str:
        """What a copy in a directory is called; empty for a root directory."""
        name = os.path.basename(os.path.normpath(self.path))
        return "" if name in _NO_NAMES else name


def copy_in(
    root: int, source: str, path: str, *, archive: bool = False, follow_link: bool = False
) -> None:
    """Copy from the host into a container.

    Args:
        root: the container's root directory, open.
        source: a path of the host.
        path: a path in the container.
        archive: keep owners.
        follow_link: copy what *source* leads to, if it is a symlink.

    Raises:
        NotFoundError: the source is not there, or the directory above the destination.
        ContainerError: the rules forbid it.
    """
    owner = None if archive else (0, 0)
    with (
        _found(_on_host, source, follow=follow_link) as there,
        _found(_in(root), path, follow=True) as goal,
        _refused_if_read_only(path),
    ):
        _copy(there, goal, owner)


def copy_out(
    root: int, path: str, target: str, *, archive: bool = False, follow_link: bool = False
) -> None:
    """Copy from a container to the host; as :func:`copy_in`."""
    owner = None if archive else (os.geteuid(), os.getegid())
    with (
        _found(_in(root), path, follow=follow_link) as there,
        _found(_on_host, target, follow=True) as goal,
    ):
        _copy(there, goal, owner)


def extract(root: int, stream: BinaryIO, path: str, *, archive: bool = False) -> tuple[str, ...]:
    """Make what a tar holds in a directory of a container; returns warnings.

    Raises:
        ContainerError: there is no such directory.
        DiffError: the tar is no good; names the entry.
    """
    with _found(_in(root), path, follow=True) as goal:
        if not goal.is_directory:
            raise ContainerError(
                f"{path} is no directory of the container, and a tar is unpacked into one",
                resolution="name the directory",
            )
    owner = None if archive else (0, 0)
    with _refused_if_read_only(path):
        return Extraction(root, os.fsencode(path).strip(b"/"), owner).run(stream)


def pack(root: int, path: str, write: Write, *, follow_link: bool = False) -> None:
    """Write a file or directory of a container as a tar."""
    with _found(_in(root), path, follow=follow_link) as there:
        _require(there)
        tar = TarCopy(write)
        name = os.fsencode("" if there.is_content else there.own_name) or b"."
        if there.is_directory:
            with tree.opened_directory(there.name, dir_fd=there.parent) as source:
                tar.tree(source, name)
        else:
            tar.file(there.parent, there.name, name)
        tar.finish()


@contextmanager
def _refused_if_read_only(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        raise ContainerError(
            f"nothing can be written to {path}: what the container has mounted there is read-only",
            resolution="copy to another place, or make a container that may write there",
        ) from error


def _on_host(path: str) -> int:
    return os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _in(root: int) -> _Opens:
    return lambda path: open_in_root(root, path)


@contextmanager
def _found(opens: _Opens, path: str, *, follow: bool) -> Iterator[_Place]:
    """The place that a path means; what is on the way is followed.

    Args:
        follow: the last name too, where it is a symlink.
    """
    place = _find(opens, path, follow=follow)
    try:
        yield place
    finally:
        os.close(place.parent)


def _find(opens: _Opens, path: str, *, follow: bool) -> _Place:
    at = path
    for _ in range(_MAX_LINKS):
        name = os.path.basename(at.rstrip("/"))
        if name in _NO_NAMES:
            fd = _opened(opens, at or ".", path)
            return _Place(fd, ".", os.fstat(fd), path)
        directory = os.path.dirname(at.rstrip("/"))
        parent = _opened(opens, directory, path)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return _Place(parent, name, None, path)
        except BaseException:
            os.close(parent)
            raise
        if not (stat.S_ISLNK(status.st_mode) and (follow or at.endswith("/"))):
            return _Place(parent, name, status, path)
        try:
            at = os.path.join(directory, os.readlink(name, dir_fd=parent))
        finally:
            os.close(parent)
    raise ContainerError(f"{path} goes through more than {_MAX_LINKS} symlinks")


def _opened(opens: _Opens, directory: str, path: str) -> int:
    try:
        return opens(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{path}: there is no directory {directory}", resolution="make it first"
        ) from error


def _require(place: _Place) -> None:
    if place.status is None:
        raise NotFoundError(f"there is no {place.path}")
    if not place.is_directory and (place.is_content or place.path.endswith("/")):
        raise ContainerError(f"{place.path} is no directory")


def _copy(source: _Place, goal: _Place, owner: Owner | None) -> None:
    _require(source)
    copying = TreeCopy(owner)
    if source.is_directory:
        _copy_directory(copying, source, goal)
    elif goal.is_directory:
        with tree.opened_directory(goal.name, dir_fd=goal.parent) as fd:
            copying.file(source.parent, source.name, fd, source.own_name)
    elif goal.path.endswith("/"):
        raise ContainerError(
            f"{goal.path} is no directory that is there",
            resolution="make it first, or leave the slash out",
        )
    else:
        copying.file(source.parent, source.name, goal.parent, goal.name)


def _copy_directory(copying: TreeCopy, source: _Place, goal: _Place) -> None:
    if goal.status is not None and not goal.is_directory:
        raise ContainerError(
            f"the directory {source.path} cannot be copied to the file {goal.path}",
            resolution="name a directory, or one that is not there yet",
        )
    parent, name = goal.parent, goal.name
    with tree.opened_directory(source.name, dir_fd=source.parent) as here:
        if goal.status is None:
            os.mkdir(name, 0o700, dir_fd=parent)
            with tree.opened_directory(name, dir_fd=parent) as there:
                copying.tree(here, there, new=True)
            return
        with tree.opened_directory(name, dir_fd=parent) as there:
            if source.is_content or not source.own_name:
                copying.tree(here, there, new=False)
                return
            make_directory(there, source.own_name)
            with tree.opened_directory(source.own_name, dir_fd=there) as child:
                copying.tree(here, child, new=True)
