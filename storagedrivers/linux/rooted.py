"""Reaches into a directory as if it were the root, without leaving it, and makes what is missing.

An image can hold any symlink, and a running container can exchange one at any time. So a path is
walked here, name by name, from descriptors of directories: a symlink is read and followed inside of
the root, ``..`` goes to a descriptor that is already held, and nothing is left to the kernel's own
resolution. What is mounted on the way is entered.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from storagedrivers.linux import syscalls

_MAX_LINKS = 40  # as the kernel's own limit
_TRIES = 3
_NOT_HERE = (errno.ENOSYS, errno.EPERM)  # before Linux 5.6; of seccomp filters


def open_in(root: int, path: str | bytes, flags: int) -> int:
    """Open *path* as if *root* were the root directory: no symlink and no ``..`` leads out.

    The kernel does it where it can. In a mount that is part of no namespace it never gets past a
    ``..`` that follows an absolute symlink (EAGAIN, Linux 6.18); then the way is walked here.

    Args:
        root: an open directory.
        path: what to open.
        flags: O_PATH, or those for a directory.

    Raises:
        OSError: what the kernel says.
    """
    for _ in range(_TRIES):
        try:
            return syscalls.openat2(root, path or ".", flags, resolve=syscalls.RESOLVE_IN_ROOT)
        except BlockingIOError:  # EAGAIN, also where something on the way was renamed meanwhile
            continue
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            break
    return _walked(root, os.fsdecode(path), flags)


def _walked(root: int, path: str, flags: int) -> int:
    found = _Walk(root).go(path)
    try:
        if flags & os.O_DIRECTORY or path.endswith(("/", "/.")):  # or ENOTDIR
            return os.open(".", flags | os.O_CLOEXEC, dir_fd=found)
        return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC)
    finally:
        os.close(found)


class Notes(Protocol):
    """Is told what a :class:`Root` makes; the descriptors are the root's."""

    def before(self, parent: int) -> None:
        """Something is about to be made in this directory."""

    def after(self, parent: int, name: str, fd: int) -> None:
        """It is made."""


class Followed(NamedTuple):
    """What a path leads to.

    Attributes:
        status: of it; None where there is nothing.
        path: without symlinks and ``..``, absolute from the root; as far as the way is there.
        links: the paths of the symlinks on the way.
    """

    status: os.stat_result | None
    path: str
    links: tuple[str, ...]


class Root:
    """A directory that is open; a context manager that closes it.

    Args:
        path: where it is.
        notes: is told of what is made in it.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: str | os.PathLike[str], notes: Notes | None = None) -> None:
        self.path = os.fspath(path)
        self._notes = notes
        self._top = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._top)

    def fileno(self) -> int:
        """The descriptor, which stays the root's."""
        return self._top

    def status(self, path: str) -> os.stat_result | None:
        """What *path* leads to; None where it leads nowhere."""
        try:
            fd = self.open(path)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def open(self, path: str) -> int:
        """A descriptor (O_PATH) of what *path* leads to inside of the root.

        Raises:
            OSError: ENOENT, ENOTDIR, ELOOP.
        """
        return _Walk(self._top).go(path)

    def resolve(self, path: str) -> str:
        """The path without symlinks and ``..`` that *path* leads to, absolute from the root.

        What is missing may follow: then it is taken as it is written.

        Raises:
            OSError: ENOTDIR, ELOOP.
        """
        walk = _Walk(self._top)
        try:
            os.close(walk.go(path))
        except FileNotFoundError:
            return os.path.normpath(walk.path)
        return walk.path

    def follow(self, path: str) -> Followed:
        """What *path* leads to, and on which way.

        Raises:
            OSError: ELOOP.
        """
        walk = _Walk(self._top)
        try:
            fd = walk.go(path)
        except (FileNotFoundError, NotADirectoryError):
            return Followed(None, os.path.normpath(walk.path), tuple(walk.links))
        try:
            return Followed(os.fstat(fd), walk.path, tuple(walk.links))
        finally:
            os.close(fd)

    def make_directory(self, path: str) -> int:
        """A descriptor of the directory *path*; what is missing is made, 0755 and root's.

        Raises:
            OSError: ENOTDIR, ELOOP, or what the filesystem says.
        """
        fd = _Walk(self._top, make=True, notes=self._notes).go(path)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def make_file(self, path: str) -> int:
        """A descriptor (O_PATH) of what is at *path*; an empty file where nothing is, also where a
        symlink leads to nothing.

        Raises:
            OSError: as :meth:`make_directory`.
        """
        return _Walk(self._top, make=True, file=True, notes=self._notes).go(path)

    def is_symlink(self, name: str) -> bool:
        """Whether *name*, right below the root, is a symlink."""
        try:
            status = os.stat(name, dir_fd=self._top, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISLNK(status.st_mode)


class _Walk:
    """One way through the tree: the open directories from the root to where it is.

    Args:
        top: the root.
        make: directories that are missing are made.
        file: the last name is made as a file.
        notes: is told of what is made.

    Attributes:
        path: where it has got to from the root, and what was left to be walked if that failed.
        links: the paths of the symlinks that were followed.
    """

    def __init__(
        self, top: int, *, make: bool = False, file: bool = False, notes: Notes | None = None
    ) -> None:
        self._stack = [top]
        self._make = make
        self._file = file
        self._notes = notes
        self._names: list[str] = []
        self.path = "/"
        self.links: list[str] = []

    def go(self, path: str) -> int:
        """Walk; a descriptor of the end, of which the caller has to take care."""
        left = _names(path)
        try:
            while left:
                self._say(left)
                name = left.pop()
                if name == "..":
                    self._up()
                    continue
                target = self._step(name, last=not left)
                if isinstance(target, int):
                    return target
                if target.startswith("/"):
                    self._return()
                left += _names(target)
            self._say(left)
            return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._stack[-1])
        finally:
            self._return()

    def _say(self, left: list[str]) -> None:
        self.path = f"/{'/'.join([*self._names, *reversed(left)])}"

    def _up(self) -> None:
        if len(self._stack) > 1:
            os.close(self._stack.pop())
            self._names.pop()

    def _step(self, name: str, *, last: bool) -> int | str:
        """Go one name on: what is still to be walked after it, or the end."""
        here = self._stack[-1]
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        except FileNotFoundError:
            if not self._make:
                raise
            fd = self._made(here, name, file=self._file and last)
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            self._stack.append(fd)
            self._names.append(name)
            return ""
        if stat.S_ISLNK(mode):
            return self._follow(fd, name)
        if last:
            return fd
        os.close(fd)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)

    def _made(self, here: int, name: str, *, file: bool) -> int:
        if self._notes is not None:
            self._notes.before(here)
        fd = _make_file(here, name) if file else _make_directory(here, name)
        if self._notes is not None:
            self._notes.after(here, name, fd)
        return fd

    def _follow(self, fd: int, name: str) -> str:
        self.links.append(f"/{'/'.join([*self._names, name])}")
        try:
            if len(self.links) > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def _return(self) -> None:
        while len(self._stack) > 1:
            os.close(self._stack.pop())
        self._names.clear()


def _make_directory(parent: int, name: str) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=parent)
    setgid = os.fstat(fd).st_mode & stat.S_ISGID
    if setgid:  # the directory that it is in passes it on, and its group
        os.fchown(fd, -1, os.getegid())
    os.fchmod(fd, 0o755 | setgid)  # whatever the umask is
    return fd


def _make_file(parent: int, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, 0o644, dir_fd=parent)
    try:
        os.fchmod(made, 0o644)  # whatever the umask is
        return os.open(f"/proc/self/fd/{made}", os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(made)


def _names(path: str) -> list[str]:
    """The names of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
