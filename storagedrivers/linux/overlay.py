"""Asks the kernel whether an overlay still writes to a directory."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from storagedrivers.linux import syscalls


def is_upper_in_use(directory: str | os.PathLike[str], scratch: Path) -> bool | None:
    """Whether a living overlay anywhere has *directory* as its upper, unmounted or not.

    A mount with ``index=on`` refuses a lower that is someone's upper (EBUSY); the superblock is
    made and dropped without being mounted. The kernel sees what /proc does not show: lazily
    unmounted overlays, mounts in other namespaces, descriptors in flight.

    Args:
        directory: a layer's directory.
        scratch: an empty directory on a filesystem that can be an upper; what is left in it is the
            caller's.

    Returns:
        None where the kernel gives no verdict: before Linux 5.2, without privilege, and in a user
        namespace, where it turns ``index=on`` off without saying so.

    Raises:
        OSError: the trial failed for another reason.
    """
    for name in ("empty", "upper", "work"):
        (scratch / name).mkdir()
    with ExitStack() as stack:

        def opened(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        def by_fd(path: str | os.PathLike[str]) -> str:
            fd = opened(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            return f"/proc/self/fd/{fd}"  # short, and without characters to escape

        try:
            context = opened(syscalls.fsopen("overlay"))
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                return None
            raise
        settings = {
            "lowerdir": f"{by_fd(directory)}:{by_fd(scratch / 'empty')}",
            "upperdir": by_fd(scratch / "upper"),
            "workdir": by_fd(scratch / "work"),
            "index": "on",
        }
        try:
            for key, value in settings.items():
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value.encode())
            syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            if error.errno == errno.EINVAL:  # a kernel without index (before 4.13)
                return None
            raise
    return False if (scratch / "work/index").is_dir() else None
