"""What this host's cgroups let a runtime do."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import NamedTuple

from storagedrivers.linux import syscalls

ROOT = "/sys/fs/cgroup"

_MAGIC = (0x27E0EB, 0x63677270)  # CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC of statfs(2)
_LONGEST_END, _PAUSE = 5.0, 0.002  # seconds


class Cgroups(NamedTuple):
    """How cgroups are mounted here.

    Attributes:
        usable: a cgroup can be made for a container, which limits its devices and can freeze it.
        mixed: version 1, and controllers of version 2 beside it: crun refuses to work there.
    """

    usable: bool
    mixed: bool


def read_cgroups(root: str = ROOT) -> Cgroups:
    """Look at *root*, where they are mounted."""
    if _exists(root, "cgroup.controllers"):
        # Below the real root a cgroup that holds processes hands no controllers down.
        inner = _exists(root, "cgroup.type") and bool(_read(root, "cgroup.procs"))
        return Cgroups(usable=_is_writable(root) and not inner, mixed=False)
    mixed = bool(_read(root, "unified", "cgroup.controllers").strip())
    return Cgroups(usable=_is_writable(os.path.join(root, "devices")), mixed=mixed)


def _is_cgroup(directory: str) -> bool:
    """Whether it is one, and no directory that looks like one where nothing is mounted."""
    try:
        return syscalls.statfs_type(directory) in _MAGIC
    except FileNotFoundError:
        return False


def _exists(*names: str) -> bool:
    return os.path.exists(os.path.join(*names))


def _read(*names: str) -> str:
    try:
        with open(os.path.join(*names)) as file:
            return file.read()
    except OSError:
        return ""


def _is_writable(directory: str) -> bool:
    """Whether directories can be made there; a read-only mount is none for root either."""
    return os.access(directory, os.W_OK)


def remove(path: str, root: str = ROOT) -> None:
    """Remove what an engine that was killed has left of a container's cgroup, with the processes in
    it; idempotent.

    Args:
        path: the cgroup, as the engine was told.
        root: where cgroups are mounted.
    """
    hierarchies = [root]
    with suppress(OSError), os.scandir(root) as entries:  # of version 1 there are several
        hierarchies += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for hierarchy in hierarchies:
        directory = os.path.join(hierarchy, path.lstrip("/"))
        deadline = time.monotonic() + _LONGEST_END
        while _is_cgroup(directory) and time.monotonic() < deadline:
            for pid in _read(directory, "cgroup.procs").split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with suppress(OSError):  # EBUSY: they are about to end
                os.rmdir(directory)
                break
            time.sleep(_PAUSE)
