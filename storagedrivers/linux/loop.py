"""Loop devices, loop(4): a file as a block device that goes away with its last user."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from storagedrivers.linux import ioctl

_CTL_GET_FREE = 0x4C82
_SET_FD = 0x4C00
_SET_STATUS64 = 0x4C04
_AUTOCLEAR = 4

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encryption type and key
# size, flags; names.
_INFO64 = struct.Struct("=5Q4I64s64s32s2Q")


@contextmanager
def loop_device(path: str | os.PathLike[str]) -> Iterator[str]:
    """Have the file *path* attached to a free loop device, such as ``/dev/loop0``.

    The kernel detaches it when it is closed and unmounted, so also when this process is killed.

    Raises:
        OSError: no permission, no loop devices.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    control = os.open("/dev/loop-control", flags)
    try:
        backing = os.open(path, flags)
        try:
            device, fd = _attach(control, backing)
        finally:
            os.close(backing)
    finally:
        os.close(control)
    try:
        name = os.fsencode(device)
        info = _INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, name, b"", b"", 0, 0)
        ioctl.ioctl(fd, _SET_STATUS64, bytearray(info))
        yield device
    finally:
        os.close(fd)


def _attach(control: int, backing: int) -> tuple[str, int]:
    while True:
        device = f"/dev/loop{ioctl.ioctl(control, _CTL_GET_FREE)}"
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            ioctl.ioctl(fd, _SET_FD, backing)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:  # another process took it between the two calls
                continue
            raise
        return device, fd
