"""What is made in a root filesystem for a run only, and taken away after it without a trace.

A mount needs something to be mounted at. What the image lacks is made before the run; the times of
the directories in which it is made are put back at once, so that whatever the run does to them is
seen. Afterwards it goes, unless the run has made it its own: has put something into a directory,
or changed a mode. Everything is remembered by descriptors: a directory may be somewhere else by
then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from storagedrivers.linux import tree
from storagedrivers.runtime.rootfs import Rootfs

_DIRECTORIES = ("/proc", "/dev", "/sys")
_MARK = "/.dockerenv"
"""By which programs know that they run in a container."""

_TABLE = ("/etc", "mtab", "/proc/mounts")


class _Made(NamedTuple):
    """One thing: its directory, open; its name there; what it was when it was made."""

    parent: int
    name: str
    status: os.stat_result


class Traces:
    """A context manager; the notes of a :class:`~storagedrivers.runtime.rootfs.Rootfs`.

    Args:
        path: the root filesystem. What is made in other mounts in it stays.
    """

    def __init__(self, path: str) -> None:
        self._made: list[_Made] = []
        self._parents: dict[tuple[int, int], int] = {}  # open directories, by what they are
        self._times: dict[int, tuple[int, int]] = {}  # by their descriptors
        self._rootfs = Rootfs(path, self)
        self._mount = tree.mount_id(self._rootfs.fileno())

    def __enter__(self) -> Traces:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._parents.values():
            os.close(fd)
        self._rootfs.__exit__(None, None, None)

    # Before the run

    def before(self, parent: int) -> None:
        """Something is about to be made in this directory."""
        if tree.mount_id(parent) != self._mount:
            return
        status = os.fstat(parent)
        key = (status.st_dev, status.st_ino)
        if key not in self._parents:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
            self._parents[key] = fd
            mine = any(os.path.samestat(one.status, status) for one in self._made)
            self._times[fd] = (0, 0) if mine else (status.st_atime_ns, status.st_mtime_ns)

    def after(self, parent: int, name: str, fd: int) -> None:
        """It is made."""
        if tree.mount_id(parent) == self._mount:
            above = os.fstat(parent)
            ours = self._parents[above.st_dev, above.st_ino]
            self._made.append(_Made(ours, name, os.fstat(fd)))

    def make_usual(self) -> None:
        """Make what an engine and programs expect, as every container has it."""
        for path in _DIRECTORIES:
            with suppress(NotADirectoryError):  # as the engine will say
                os.close(self._rootfs.make_directory(path))
        with suppress(OSError):  # of a symlink that leads nowhere
            os.close(self._rootfs.make_file(_MARK))
        directory, name, target = _TABLE
        with suppress(NotADirectoryError):
            parent = self._rootfs.make_directory(directory)
            try:
                self._make_symlink(parent, name, target)
            finally:
                os.close(parent)

    def _make_symlink(self, parent: int, name: str, target: str) -> None:
        self.before(parent)
        with suppress(FileExistsError):
            os.symlink(target, name, dir_fd=parent)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self.after(parent, name, fd)
            finally:
                os.close(fd)

    def settle(self) -> None:
        """Put the times of directories back: all is made."""
        for fd, times in self._times.items():
            os.utime(fd, ns=times)

    # After the run

    def remove(self) -> None:
        """Take away what the run has left as it was."""
        with self._times_kept():
            for one in reversed(self._made):
                with suppress(FileNotFoundError):
                    status = os.stat(one.name, dir_fd=one.parent, follow_symlinks=False)
                    if _is_as_made(status, one.status):
                        _remove(one.parent, one.name, status)

    @contextmanager
    def _times_kept(self) -> Iterator[None]:
        """What is removed in the block leaves no mark in the times of directories."""
        times = {fd: os.fstat(fd) for fd in self._times}
        yield
        for fd, status in times.items():
            if os.fstat(fd).st_nlink:  # else it is gone
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_as_made(now: os.stat_result, made: os.stat_result) -> bool:
    if not os.path.samestat(now, made) or now.st_mode != made.st_mode:
        return False
    if (now.st_uid, now.st_gid) != (made.st_uid, made.st_gid):
        return False
    return stat.S_ISDIR(now.st_mode) or now.st_mtime_ns == made.st_mtime_ns


def _remove(parent: int, name: str, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    with suppress(OSError):  # it holds something now
        os.rmdir(name, dir_fd=parent)
