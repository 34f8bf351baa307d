"""Loop devices, loop(4): a file as a block device that goes away with its last user."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storagedrivers.linux import ioctl, syscalls

_CTL_GET_FREE = 0x4C82
_SET_FD = 0x4C00
_SET_STATUS64 = 0x4C04
_GET_STATUS64 = 0x4C05
_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encryption type and key
# size, flags; names.
_INFO64 = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG_HEAD = struct.Struct("=II")  # struct loop_config: descriptor, block size; the info; 64 more


@contextmanager
def loop_device(path: str | os.PathLike[str]) -> Iterator[str]:
    """Have the file *path* attached to a loop device, such as ``/dev/loop0``.

    One that is attached already keeps its device: two would have two caches, and a filesystem that
    is mounted through both is lost. The kernel detaches it when it is closed and unmounted, so also
    when this process is killed.

    Raises:
        OSError: no permission, no loop devices.
    """
    with _alone(path):
        backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            device, fd = _attached(backing) or _attach_anew(backing)
        finally:
            os.close(backing)
    try:
        yield device
    finally:
        os.close(fd)


@contextmanager
def _alone(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whoever attaches the file at the same time waits, and finds the device."""
    # Not the descriptor that the device gets, which would keep the lock as long as it is attached.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.flock(fd, syscalls.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _attached(backing: int) -> tuple[str, int] | None:
    """The device that a file is attached to, and a descriptor of it."""
    status = os.fstat(backing)
    for name in _devices(os.path.basename(os.readlink(f"/proc/self/fd/{backing}"))):
        with suppress(OSError):
            fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
            # It may have gone before it was opened; as long as it is open it stays.
            if _backs(fd) == (status.st_dev, status.st_ino):
                return f"/dev/{name}", fd
            os.close(fd)
    return None


def _devices(file: str) -> Iterator[str]:
    """The loop devices that a file of this name is attached to. Others are not even opened, which
    would keep them from going away.
    """
    names: list[str] = []
    with suppress(OSError):  # no /sys
        names = os.listdir("/sys/block")
    for name in names:
        if name.startswith("loop"):
            with suppress(OSError), open(f"/sys/block/{name}/loop/backing_file", "rb") as path:
                if os.path.basename(path.read().rstrip(b"\n")) == os.fsencode(file):
                    yield name


def _backs(fd: int) -> tuple[int, int] | None:
    """Device and inode of the file behind a loop device, if it is all of it."""
    info = bytearray(_INFO64.size)
    try:
        ioctl.ioctl(fd, _GET_STATUS64, info)
    except OSError:  # ENXIO: nothing is
        return None
    device, inode, _, offset, limit = _INFO64.unpack(info)[:5]
    return None if offset or limit else (device, inode)


def _attach_anew(backing: int) -> tuple[str, int]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return _attach(control, backing)
    finally:
        os.close(control)


def _attach(control: int, backing: int) -> tuple[str, int]:
    while True:
        device = f"/dev/loop{ioctl.ioctl(control, _CTL_GET_FREE)}"
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            _configure(fd, backing, device)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:  # another process took it between the two calls
                continue
            raise
        return device, fd


def _configure(fd: int, backing: int, device: str) -> None:
    """Attach the file so that it is detached with its last user."""
    name = os.fsencode(device)
    info = _INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, name, b"", b"", 0, 0)
    try:
        ioctl.ioctl(fd, _CONFIGURE, bytearray(_CONFIG_HEAD.pack(backing, 0) + info + bytes(64)))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        # Before Linux 5.8 in two steps: who is killed between them leaves it attached.
        ioctl.ioctl(fd, _SET_FD, backing)
        ioctl.ioctl(fd, _SET_STATUS64, bytearray(info))
