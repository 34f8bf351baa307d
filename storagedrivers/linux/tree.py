"""Removes and measures directory trees of any depth without ever leaving them.

A container's tree can be deeper than PATH_MAX and than the limit of open files, can hold immutable
files and names in any bytes, and can be removed by two processes at once. So: only descriptors and
single names, no recursion. Subdirectories are moved up to the top before they are emptied, one
level at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

from storagedrivers.linux import ioctl, syscalls
from storagedrivers.model import Usage

T = TypeVar("T")


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove *name*, a directory or anything else, from the directory *parent_fd*; idempotent.

    Raises:
        OSError: EXDEV (something is mounted inside: nothing of it is touched), or what the kernel
            says.
    """
    try:
        mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        _unprotected(parent_fd, name, lambda: os.unlink(name, dir_fd=parent_fd))
        return
    # Another process that removes the same tree may have moved a directory up after it was listed
    # here.
    for last in (False,) * 99 + (True,):
        top = _open_directory(parent_fd, name)
        if top < 0:
            return
        try:
            _empty(top)
        finally:
            os.close(top)
        try:
            _unprotected(parent_fd, name, lambda: os.rmdir(name, dir_fd=parent_fd))
        except FileNotFoundError:
            return
        except OSError as error:
            if last or error.errno != errno.ENOTEMPTY:
                raise
        else:
            return


def _empty(top: int) -> None:
    pending = _remove_files(top)
    moved = 0
    while pending:
        name = pending.pop()
        fd = _open_directory(top, name)
        if fd < 0:
            continue
        try:
            for child in _remove_files(fd):
                # Unique among processes that empty the same tree, and no valid UTF-8 name of a
                # user's.
                if _remove_if_empty(fd, child):
                    continue
                moved += 1
                new = f".removing-{os.getpid()}-{moved}\udcff"
                if _move_up(fd, child, top, new):
                    pending.append(new)
        finally:
            os.close(fd)
        try:
            os.rmdir(name, dir_fd=top)
        except FileNotFoundError:
            continue
        except OSError as error:  # ENOTEMPTY: as above, for the next round
            if error.errno != errno.ENOTEMPTY:
                raise


def _remove_if_empty(fd: int, name: str) -> bool:
    """Whether an empty directory was removed, which is cheaper than moving it."""
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError:  # it is not empty, protected or gone: the long way finds out
        return False
    return True


def _move_up(fd: int, child: str, top: int, new: str) -> bool:
    """Whether *child* now lies in *top*; False when it is gone."""
    try:
        _unprotected(fd, child, lambda: os.rename(child, new, src_dir_fd=fd, dst_dir_fd=top))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A nested btrfs subvolume: its directories cannot leave it, so it is a top of its own.
        remove_tree(fd, child)
        return False
    return True


def _remove_files(fd: int) -> list[str]:
    """Unlink everything in the directory *fd* that is no directory; the names of those."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                try:
                    os.unlink(entry.name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except PermissionError:
                    name = entry.name
                    _unprotected(fd, name, lambda: os.unlink(name, dir_fd=fd))  # noqa: B023
    return directories


def _open_directory(parent_fd: int, name: str) -> int:
    """Open a directory without crossing a mount; -1 when it is gone."""
    try:
        return _unprotected(parent_fd, name, lambda: _open_beneath(parent_fd, name))
    except FileNotFoundError:
        return -1


def _open_on_same_device(parent_fd: int, name: str, flags: int) -> int:
    """Before Linux 5.6: a change of device gives a mount away, unless it is a btrfs subvolume
    (inode 256).
    """
    fd = os.open(name, flags, dir_fd=parent_fd)
    status = os.fstat(fd)
    if status.st_dev != os.fstat(parent_fd).st_dev and status.st_ino != 256:
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd


def _unprotected(parent_fd: int, name: str, action: Callable[[], T]) -> T:
    """Do *action*; if it is not permitted, take protection off the name and its directory, once."""
    try:
        return action()
    except PermissionError:
        _unprotect(parent_fd, name)
        return action()


def _unprotect(parent_fd: int, name: str) -> None:
    ioctl.clear_protection(parent_fd)
    os.fchmod(parent_fd, stat.S_IMODE(os.fstat(parent_fd).st_mode) | stat.S_IRWXU)
    mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return  # opening a device or a fifo does something; they carry no flags that matter here
    if stat.S_ISDIR(mode):
        os.chmod(name, stat.S_IMODE(mode) | stat.S_IRWXU, dir_fd=parent_fd)
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent_fd)
    try:
        ioctl.clear_protection(fd)
    finally:
        os.close(fd)


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
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield os.fstat(top)
        pending = [""]
        while pending:
            directory = pending.pop()
            for name, status in _entries(top, directory):
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{directory}/{name}" if directory else name)
                yield status
    finally:
        os.close(top)


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


def open_below(top: int, path: str) -> int:
    """Open the directory *path* below *top*, following no symlink and crossing no mount.

    Args:
        path: names joined by ``/``; empty for *top* itself. It may be longer than PATH_MAX.

    Raises:
        OSError: ENOENT, ELOOP or ENOTDIR (a symlink), EXDEV (a mount).
    """
    fd = os.dup(top)
    try:
        while path:
            head, path = _split_path(path)
            child = _open_beneath(fd, head)
            os.close(fd)
            fd = child
    except BaseException:
        os.close(fd)
        raise
    return fd


def _split_path(path: str) -> tuple[str, str]:
    """A part of at most 1,000 characters, so below PATH_MAX in any encoding, and what follows
    it.
    """
    if len(path) <= 1000:
        return path, ""
    cut = path.rindex("/", 0, 1000)  # a name has at most 255 bytes
    return path[:cut], path[cut + 1 :]


def _open_beneath(fd: int, path: str) -> int:
    resolve = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
    try:
        return syscalls.openat2(fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.dup(fd)
    for name in path.split("/"):
        try:
            child = _open_on_same_device(fd, name, flags)
        finally:
            os.close(fd)
        fd = child
    return fd
