"""Processes that are killed, or find the disk full, at each step of what they do; power loss."""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from capabilities import need
from processes import forked

from storagedrivers.errors import StorageDriversError
from storagedrivers.linux import ioctl, syscalls
from storagedrivers.stores.database import Database
from storagedrivers.testing import filesystems

_CHANGES = frozenset(
    {
        *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.mknod", "os.remove", "os.rename"),
        *("os.rmdir", "os.setxattr", "os.symlink", "os.truncate", "os.utime", "fcntl.ioctl"),
    }
)
_FREEING = frozenset({"os.remove", "os.rmdir"})  # what a full disk does not stop
_CALLS = ("mount", "umount2", "move_mount", "fsmount", "syncfs", "renameat2")


class Steps:
    """Calls *act* at a process's n-th change: of the disk, of the mounts, of the database."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.left = number
        self._act = act
        sys.addaudithook(self._audit)
        for name in _CALLS:
            setattr(syscalls, name, self._counted(getattr(syscalls, name)))
        Database._commit = staticmethod(  # type: ignore[method-assign]
            self._counted(Database._commit)
        )

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._act()

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        writes = (
            event == "open"
            and isinstance(arguments[2], int)
            and arguments[2] & os.O_CREAT
            and not str(arguments[0]).endswith(("-wal", "-shm", ".db"))
        )
        if self._act is out_of_space and event in _FREEING:
            return
        if event in _CHANGES or writes:
            self.step()

    def _counted(self, function: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **named: object) -> object:
            self.step()
            result = function(*arguments, **named)
            self.step()
            return result

        return counted


def child_ending(number: int, action: Callable[[], object], act: Callable[[], None]) -> int:
    """What a child that meets *act* at its step *number* ends with: a signal is negative, 3 says
    that it did not get so far.
    """

    def run() -> None:
        steps = Steps(number, act)
        try:
            action()
        except (OSError, StorageDriversError):
            os._exit(2)
        os._exit(3 if steps.left > 0 else 0)

    return os.waitstatus_to_exitcode(os.waitpid(forked(run), 0)[1])


def killed() -> None:
    """The process dies."""
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_space() -> None:
    """The disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def through_every_step(
    action: Callable[[], object],
    act: Callable[[], None],
    afterwards: Callable[[], object],
    *,
    at_least: int,
    stride: int = 1,
) -> None:
    """Do *action* in a child again and again, each time with *act* one step later.

    Args:
        afterwards: looks at what is left.
        stride: look at each of so many steps only.
        at_least: how many steps there are, so that a test cannot pass by counting none.
    """
    for number in range(1, 2000, stride):
        code = child_ending(number, action, act)
        assert code in (-signal.SIGKILL, 0, 2, 3), code
        afterwards()
        if code == 3:
            assert number > at_least, "so few steps: they are not counted"
            return
    raise AssertionError("there is no end of it")


_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN
_NO_LOG_FLUSH = 2


def make_image(filesystem: str, image: Path) -> None:
    need("mount", "loop", filesystem, filesystems.FILESYSTEMS[filesystem][0])
    image.touch()
    os.truncate(image, 512 << 20)
    command = [*filesystems.FILESYSTEMS[filesystem], str(image)]
    assert os.spawnvp(os.P_WAIT, command[0], command) == 0


def shut_down(mountpoint: Path) -> None:
    """What was not written to the disk before is lost."""
    fd = os.open(mountpoint, os.O_RDONLY)
    try:
        ioctl.ioctl(fd, _SHUTDOWN, bytearray(struct.pack("I", _NO_LOG_FLUSH)))
    finally:
        os.close(fd)
