"""Lock files: who works on what, known also when a process was killed.

::

    <graph root>/locks/<layer id>              whoever creates, mounts, seals or removes the layer
    <graph root>/locks/chain-<driver>-<hex>    whoever adds a layer that others may want too
    <graph root>/locks/container-<id>          whoever starts, seals, moves or removes the container
    <graph root>/locks/init-<hex>              whoever makes the init layer of the image
    <graph root>/locks/volume-<name>           whoever makes, fills, mounts or removes the volume
    <graph root>/locks/build-cache-<hex>       whoever has that cache of RUNs for itself

A lock is a flock(2), which the kernel drops with its process. The file is deleted before it is
unlocked, so a directory of locks is as large as what goes on; it holds the process's id, for those
who wait. They are in the graph root, since two processes with different run roots must not take
each other for dead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from storagedrivers.errors import LockTimeoutError
from storagedrivers.linux import syscalls

TIMEOUT = 60.0
"""Seconds that one waits for another process by default."""

IMAGES = "images"
"""Whoever gives files of images their names, or takes images away, holds it."""

CONTAINER = "container-"
"""What the names of the locks of containers begin with."""

VOLUME = "volume-"
"""What the names of the locks of volumes begin with."""

_LONGEST_PID = 16  # bytes
_FIRST_SLEEP, _LONGEST_SLEEP = 0.001, 0.1


class Lock(NamedTuple):
    """A lock that is held."""

    path: str
    fd: int

    def release(self) -> None:
        """Give it back."""
        # In this order nobody gets the lock of a file that is gone and takes it for the lock.
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.fd)

    def leave(self) -> None:
        """Give it back as a killed process would: who opens the store next finishes the work."""
        os.close(self.fd)


def try_lock(path: str) -> Lock | None:
    """Take the lock, or None where someone has it.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        fd = _opened(path)
        try:
            syscalls.flock(fd, syscalls.LOCK_EX | syscalls.LOCK_NB)
            if _is_named(fd, path):
                with suppress(OSError):  # a full disk: then those who wait do not learn the name
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return Lock(path, fd)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # who had it has deleted the file: there may be a new one


def _opened(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:  # a backup may leave empty directories out
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _is_named(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


@contextmanager
def locked(
    path: str, what: str, *, timeout: float = TIMEOUT, leave: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Hold the lock for the length of a ``with`` block.

    Args:
        path: the file.
        what: what is locked, for the sentence of the error.
        timeout: how many seconds to wait for others.
        leave: failures of the block after which something is still to be finished.

    Raises:
        LockTimeoutError: another process held it all the time.
        OSError: the file cannot be made.
    """
    lock = _waited_for(path, what, timeout)
    try:
        yield
    except leave:
        lock.leave()
        raise
    except BaseException:
        lock.release()
        raise
    lock.release()


def _waited_for(path: str, what: str, timeout: float) -> Lock:
    deadline = time.monotonic() + timeout
    sleep = _FIRST_SLEEP
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            pid = holder(path)
            raise LockTimeoutError(
                f"{f'process {pid}' if pid else 'another process'} has been working on {what}"
                f" for more than {timeout:g} s",
                holder=pid,
                resolution="wait for it, or end it",
            )
        time.sleep(sleep)
        sleep = min(sleep * 1.5, _LONGEST_SLEEP)
    return lock


def is_locked(path: str) -> bool:
    """Whether a process holds the lock of a file or directory; takes nothing from anyone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # gone, or nothing that can be locked
        return False
    try:
        syscalls.flock(fd, syscalls.LOCK_SH | syscalls.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def holder(path: str) -> int | None:
    """The process that the lock file names, or None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(os.read(fd, _LONGEST_PID))
    except (OSError, ValueError):  # a directory, or a file that is not a lock's
        return None
    finally:
        os.close(fd)
