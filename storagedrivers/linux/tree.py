"""Removes and measures directory trees of any depth without ever leaving them.

A container's tree can be deeper than PATH_MAX and than the limit of open files, can hold immutable
files and names in any bytes, and can be removed by two processes at once. So: only descriptors and
single names, no recursion, no mount is entered, and what lies too deep is moved up first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from storagedrivers.linux import ioctl, syscalls
from storagedrivers.model import Usage

T = TypeVar("T")

_MAX_DEPTH = 100  # directories that are open at once; the usual limit of open files is 1,024
_ROUNDS = 100
_SHORT = 1000  # characters of a path, so below PATH_MAX in any encoding
_BENEATH = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
_SUBVOLUME_ROOT = 256  # the inode number of every btrfs subvolume's root


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove *name*, a directory or anything else, from the directory *parent_fd*; idempotent.

    What protects a file (modes, chattr +i and +a) is taken off, inside of the tree only.

    Raises:
        OSError: EXDEV or EBUSY (something is mounted inside; it is not entered), or what the
            kernel says.
    """
    try:
        mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        with suppress(FileNotFoundError):
            _unprotected(None, parent_fd, name, lambda: os.unlink(name, dir_fd=parent_fd))
        return
    # Another process that removes the same tree may move a directory up after it was listed here.
    for _ in range(_ROUNDS):
        try:
            top = _open_directory(None, parent_fd, name)
        except FileNotFoundError:
            return
        try:
            empty_directory(top)
        finally:
            os.close(top)
        if _remove_directory(None, parent_fd, name):
            return
    raise OSError(errno.ENOTEMPTY, "the directory fills up while it is emptied", name)


def empty_directory(top: int) -> None:
    """Remove what is in the directory *top*, depth first.

    Raises:
        OSError: as :func:`remove_tree` does.
    """
    stack = [_Level(top, "", _remove_files(top))]
    try:
        while True:
            level = stack[-1]
            if not level.directories:
                if len(stack) == 1:
                    return
                os.close(stack.pop().fd)
                _remove_directory(stack[-1].fd, stack[-1].fd, level.name)
                continue
            child = level.directories.pop()
            with suppress(FileNotFoundError):
                if len(stack) > _MAX_DEPTH and _move_up(level, child, stack):
                    continue
                fd = _open_directory(level.fd, level.fd, child)
                stack.append(_Level(fd, child, []))
                stack[-1].directories = _remove_files(fd)
    finally:
        for level in stack[1:]:
            os.close(level.fd)


class _Level:
    """An open directory on the way down: its name in the one above, and what is left to do."""

    __slots__ = ("directories", "fd", "name")

    def __init__(self, fd: int, name: str, directories: list[str]) -> None:
        self.fd = fd
        self.name = name
        self.directories = directories


def _move_up(level: _Level, child: str, stack: list[_Level]) -> bool:
    """Move a directory as far up as it can go, under a name that no one else has.

    That is the top, or of a nested btrfs subvolume the root, which no rename can leave. False where
    it is there already.
    """
    device = os.fstat(level.fd).st_dev
    goal = next(one for one in stack if os.fstat(one.fd).st_dev == device)
    if goal is level:
        return False
    name = f".removing-{os.urandom(8).hex()}"
    _unprotected(
        level.fd,
        level.fd,
        child,
        lambda: os.rename(child, name, src_dir_fd=level.fd, dst_dir_fd=goal.fd),
    )
    goal.directories.append(name)
    return True


def _remove_directory(inside: int | None, parent_fd: int, name: str) -> bool:
    """Whether the directory is gone; False when another process put something into it."""
    try:
        _unprotected(inside, parent_fd, name, lambda: os.rmdir(name, dir_fd=parent_fd))
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _remove_files(fd: int) -> list[str]:
    """Unlink everything in the directory *fd* that is no directory; the names of those."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            try:
                os.unlink(entry.name, dir_fd=fd)
            except FileNotFoundError:
                continue
            except PermissionError:
                _remove_protected(fd, entry.name)
    return directories


def _remove_protected(fd: int, name: str) -> None:
    with suppress(FileNotFoundError):
        _unprotected(fd, fd, name, lambda: os.unlink(name, dir_fd=fd))


def _open_directory(inside: int | None, parent_fd: int, name: str) -> int:
    """Open a directory without crossing a mount.

    Raises:
        FileNotFoundError: it is gone.
        OSError: EXDEV: something is mounted there.
    """
    fd = _unprotected(inside, parent_fd, name, lambda: _open_beneath(parent_fd, name))
    if os.fstat(fd).st_ino == _SUBVOLUME_ROOT:
        ioctl.clear_read_only_subvolume(fd)
    return fd


def _open_on_same_mount(parent_fd: int, name: str, flags: int) -> int:
    """What openat2(2) with RESOLVE_NO_XDEV does, for Linux before 5.6."""
    fd = os.open(name, flags, dir_fd=parent_fd)
    if mount_id(fd) != mount_id(parent_fd):
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd


def mount_id(fd: int) -> str:
    """What tells the mount that *fd* was opened on from others."""
    with open(f"/proc/self/fdinfo/{fd}", errors="replace") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


def _unprotected(inside: int | None, parent_fd: int, name: str, action: Callable[[], T]) -> T:
    """Do *action*; if it is not permitted, take protection off the name and try once more.

    Args:
        inside: the directory of the name, if that belongs to the tree too: its protection goes.
        parent_fd: the directory of the name.
        name: what the action is about.
        action: raises PermissionError where something protects it.
    """
    try:
        return action()
    except PermissionError:
        if inside is not None:
            _unprotect(inside)
        # Opening a device or a fifo does something, and no flag of theirs is in the way.
        with suppress(OSError):
            mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                _unprotect_name(parent_fd, name, stat.S_ISDIR(mode))
        return action()


def _unprotect_name(parent_fd: int, name: str, is_directory: bool) -> None:
    if is_directory:
        with suppress(OSError):  # immutable: after the flag is gone
            os.chmod(name, 0o700, dir_fd=parent_fd)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=parent_fd)
    try:
        if is_directory:
            _unprotect(fd)
        else:
            ioctl.clear_protection(fd)
    finally:
        os.close(fd)


def _unprotect(directory_fd: int) -> None:
    with suppress(OSError):  # not its owner: the action tells
        ioctl.clear_protection(directory_fd)
        os.chmod(directory_fd, 0o700)


def measure_tree(path: str | os.PathLike[str]) -> Usage:
    """Count what a tree takes: allocated bytes and inodes, hard links once, other mounts not.

    Raises:
        FileNotFoundError: it is not there.
    """
    blocks = inodes = 0
    linked: set[tuple[int, int]] = set()
    for status in _walk(path):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key in linked:
                continue
            linked.add(key)
        blocks += status.st_blocks
        inodes += 1
    return Usage(bytes=blocks * 512, inodes=inodes)


def tree_inodes(path: str | os.PathLike[str]) -> set[tuple[int, int]]:
    """Device and inode number of everything in a tree.

    Raises:
        FileNotFoundError: it is not there.
    """
    return {(status.st_dev, status.st_ino) for status in _walk(path)}


def _walk(path: str | os.PathLike[str]) -> Iterator[os.stat_result]:
    """The status of a directory and of everything below it."""
    with opened_directory(path) as top:
        yield os.fstat(top)
        pending = [""]
        while pending:
            directory = pending.pop()
            for name, status in _entries(top, directory):
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{directory}/{name}" if directory else name)
                yield status


def _entries(top: int, directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a directory below *top*; nothing where it is gone or another filesystem is
    mounted.
    """
    try:
        fd = open_below(top, directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EXDEV):
            return
        raise
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # the layer is live
    finally:
        os.close(fd)


@contextmanager
def opened_directory(
    path: str | os.PathLike[str], *, dir_fd: int | None = None, follow_symlinks: bool = False
) -> Iterator[int]:
    """Have a directory open for the length of a ``with`` block."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_below(top: int, path: str, *, mounts: bool = False) -> Iterator[int]:
    """Have what :func:`open_below` opens for the length of a ``with`` block."""
    fd = open_below(top, path, mounts=mounts)
    try:
        yield fd
    finally:
        os.close(fd)


def open_below(top: int, path: str, *, mounts: bool = False) -> int:
    """Open the directory *path* below *top*, following no symlink and crossing no mount.

    Args:
        path: names joined by ``/``; empty for *top* itself. It may be longer than PATH_MAX.
        mounts: what is mounted on the way is entered.

    Raises:
        OSError: ENOENT, ELOOP or ENOTDIR (a symlink), EXDEV (a mount).
    """
    fd = _open_self(top)
    try:
        while path:
            head, path = _split_path(path)
            child = _open_beneath(fd, head, mounts=mounts)
            os.close(fd)
            fd = child
    except BaseException:
        os.close(fd)
        raise
    return fd


class Walker:
    """A place in a tree that moves to the next one by single steps.

    For many paths in the order of a walk: each costs what lies between it and the one before, at
    any depth, and one descriptor is open.
    """

    def __init__(self, top: int) -> None:
        self._fd = _open_self(top)
        self._path = b""

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def go(self, path: bytes) -> int:
        """Go to the directory *path*, following no symlink and crossing no mount.

        Returns:
            Its descriptor, which the next call closes.

        Raises:
            OSError: as :func:`open_below` does.
        """
        while self._path and path != self._path and not path.startswith(self._path + b"/"):
            self._step(os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd))
            self._path = self._path.rpartition(b"/")[0]
        rest = path[len(self._path) :].strip(b"/")
        for name in rest.split(b"/") if rest else ():
            self._step(_open_beneath(self._fd, os.fsdecode(name)))
            self._path = self._path + b"/" + name if self._path else name
        return self._fd

    def _step(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd


def open_file_below(top: int, path: bytes) -> int:
    """Open the file *path* below *top* for reading, following no symlink and crossing no mount.

    Raises:
        OSError: ENOENT, ELOOP or ENOTDIR (a symlink), EXDEV (a mount).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if len(path) <= _SHORT:
        try:
            return syscalls.openat2(top, path, flags, resolve=_BENEATH)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
    directory, _, name = path.rpartition(b"/")
    with opened_below(top, os.fsdecode(directory)) as parent:
        return os.open(name, flags, dir_fd=parent)


def open_regular(directory_fd: int, name: str | bytes, *, no_atime: bool = False) -> int | None:
    """Open a file for reading, if it is a regular one: to open a device or a fifo does something.

    Args:
        no_atime: leave no trace in its time of access, where that is allowed.

    Raises:
        OSError: ENOENT, EACCES.
    """
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        again, flags = f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC
        if no_atime:
            with suppress(PermissionError):  # another's file
                return os.open(again, flags | os.O_NOATIME)
        return os.open(again, flags)
    finally:
        os.close(handle)


def set_mode(directory_fd: int, name: str | bytes, mode: int) -> None:
    """Give *name*, in an open directory, a mode; chmod(2) would follow it where it is a symlink.

    Raises:
        OSError: EOPNOTSUPP: it is one.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        # Not fchmod(2), which takes no such descriptor; fchmodat2(2) is new in Linux 6.6.
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _open_self(fd: int) -> int:
    # Not dup(2): on btrfs a descriptor never lists what was made after it was opened (Linux 6.18).
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def _split_path(path: str) -> tuple[str, str]:
    """A part of at most 1,000 characters, so below PATH_MAX in any encoding, and what follows
    it.
    """
    if len(path) <= _SHORT:
        return path, ""
    cut = path.rindex("/", 0, _SHORT)  # a name has at most 255 bytes
    return path[:cut], path[cut + 1 :]


def _open_beneath(fd: int, path: str, *, mounts: bool = False) -> int:
    resolve = _BENEATH & ~syscalls.RESOLVE_NO_XDEV if mounts else _BENEATH
    try:
        return syscalls.openat2(fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # EPERM: also seccomp filters
            raise
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.dup(fd)
    for name in path.split("/"):
        try:
            if mounts:
                child = os.open(name, flags, dir_fd=fd)
            else:
                child = _open_on_same_mount(fd, name, flags)
        finally:
            os.close(fd)
        fd = child
    return fd
