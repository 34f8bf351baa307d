"""Removes directory trees of any depth without ever leaving them.

A container's tree can be deeper than PATH_MAX and than the limit of open files, can hold immutable files
and names in any bytes, and can be removed by two processes at once. So: only descriptors and single names,
no recursion. Subdirectories are moved up to the top before they are emptied, one level at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from storagedrivers.linux import ioctl, syscalls

T = TypeVar("T")


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove *name*, a directory or anything else, from the directory *parent_fd*; idempotent.

    Raises:
        OSError: EXDEV (something is mounted inside: nothing of it is touched), or what the kernel says.
    """
    try:
        mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        _unprotected(parent_fd, name, lambda: os.unlink(name, dir_fd=parent_fd))
        return
    # Another process that removes the same tree may have moved a directory up after it was listed here.
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
                # Unique among processes that empty the same tree, and no valid UTF-8 name of a user's.
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
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

    def open_it() -> int:
        try:
            return syscalls.openat2(parent_fd, name, flags, resolve=syscalls.RESOLVE_NO_XDEV)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        return _open_on_same_device(parent_fd, name, flags)

    try:
        return _unprotected(parent_fd, name, open_it)
    except FileNotFoundError:
        return -1


def _open_on_same_device(parent_fd: int, name: str, flags: int) -> int:
    """Before Linux 5.6: a change of device gives a mount away, unless it is a btrfs subvolume (inode 256)."""
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

