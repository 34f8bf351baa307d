"""Mount namespaces and working directories that belong to one piece of work.

A thread can have its own: ``unshare(2)`` takes the calling thread apart from its process, and what
it unshared goes away when the thread ends. So nothing here forks or changes the process.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from storagedrivers.linux import syscalls

T = TypeVar("T")


def in_private_mount_namespace(work: Callable[[], T]) -> T:
    """Run *work* where its mounts are seen by no one else and vanish when it returns.

    Raises:
        OSError: no permission to make a mount namespace (EPERM), or what *work* raises.
    """
    return _in_thread(make_mounts_private, work)


def in_own_mount_namespace(work: Callable[[], T]) -> T:
    """The same, but mounts still spread between here and there as they did; a child process that
    *work* starts keeps the namespace.

    Raises:
        OSError: no permission to make a mount namespace (EPERM), or what *work* raises.
    """

    def own() -> T:
        before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            try:
                return work()
            finally:
                # A thread that has ended for Python may have it for a moment still.
                with suppress(OSError):
                    syscalls.setns(before, syscalls.CLONE_NEWNS)
        finally:
            os.close(before)

    return _in_thread(int, own)


def keep_mounts_in() -> None:
    """Within :func:`in_own_mount_namespace`: from now on nothing that is mounted or unmounted here
    arrives there; what is unmounted there still is here.

    Raises:
        OSError: EPERM in a chroot.
    """
    _spread_from_root(syscalls.MS_SLAVE)


def in_directory(directory: str | os.PathLike[str], work: Callable[[], T]) -> T:
    """Run *work* with *directory* as working directory, other threads keeping theirs.

    Raises:
        OSError: the directory cannot be entered, or what *work* raises.
    """

    def enter() -> None:
        syscalls.unshare(syscalls.CLONE_FS)
        os.chdir(directory)

    return _in_thread(enter, work)


def make_mounts_private() -> None:
    """Give the calling thread, or a process with one thread, a mount namespace of its own.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, or in a chroot.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    _spread_from_root(syscalls.MS_PRIVATE)


def _spread_from_root(how: int) -> None:
    try:
        syscalls.mount(None, "/", None, syscalls.MS_REC | how, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # After chroot(2) the root is no mount: what is mounted below could be seen outside.
        raise PermissionError(
            errno.EPERM, "the root directory is no mount, as in a chroot"
        ) from error


def _in_thread(prepare: Callable[[], object], work: Callable[[], T]) -> T:
    call = _Call(prepare, work)
    thread = threading.Thread(target=call.run, name="storagedrivers-unshared")
    try:
        thread.start()
        thread.join()
    except BaseException:  # an interrupt: what was begun is not left to itself
        call.give_up()
        raise
    if call.failure is not None:
        raise call.failure
    return call.results[0]


class _Call(Generic[T]):
    """What a thread is to do; whoever waits may give up, also before it has begun."""

    def __init__(self, prepare: Callable[[], object], work: Callable[[], T]) -> None:
        self._prepare = prepare
        self._work = work
        self._lock = threading.Lock()
        self._given_up = False
        self._ended: threading.Event | None = None
        self.results: list[T] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        with self._lock:
            if self._given_up:
                return
            self._ended = threading.Event()
        try:
            self._prepare()
            self.results.append(self._work())
        except BaseException as error:  # handed to the caller's thread, which raises it
            self.failure = error
        finally:
            self._ended.set()

    def give_up(self) -> None:
        """Return when it has ended, or will never begin."""
        with self._lock:
            self._given_up = True
        if self._ended is not None:
            self._ended.wait()


def in_user_namespace() -> bool:
    """Whether this process is outside the initial user namespace.

    The initial one maps every id to itself; see user_namespaces(7).
    """
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


def has_capability(number: int) -> bool:
    """Whether this thread has capability *number* of capabilities(7) in effect."""
    try:
        with open("/proc/thread-self/status") as file:
            for line in file:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) >> number & 1)
    except OSError:
        pass
    return False
