"""What about the mounts of a container cannot work: a plan tells it, and the start refuses it.

What each engine would do by itself at ``/proc``, ``/dev`` and ``/sys``, and say in its own words,
or not, is one rule here for all of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import InvalidMountError, RuntimeFailedError, StorageDriversError

if TYPE_CHECKING:
    from storagedrivers.mounts.spec import MountSpec
    from storagedrivers.stores.plans import PlannedMount

GROUND = ("/proc", "/dev", "/sys")
"""Where an engine mounts filesystems of the kernel's."""

_PROC_MAGIC = 0x9FA0
_CGROUPS = "/sys/fs/cgroup"
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"),
        *("net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)
"""What may be mounted over below /proc: with another one a container could deceive its engine."""

_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")
)


class Shown(NamedTuple):
    """What a mount shows.

    Attributes:
        is_directory: or a file; None where only the start tells.
        path: where it can be looked at; empty for a directory without entries; None where only the
            start tells.
        is_tmpfs: whether it is one that is made.
        read_only: nothing can be made in it.
    """

    is_directory: bool | None = True
    path: str | None = None
    is_tmpfs: bool = False
    read_only: bool = False

    def leads_elsewhere(self, path: str) -> bool:
        """Whether a symlink is on the way, which means something else in the container."""
        if not self.path:
            return False
        top = os.path.realpath(self.path)
        return os.path.realpath(f"{top}/{path}") != f"{top}/{path}"

    def at(self, path: str) -> os.stat_result | None:
        """What it has there; symlinks are not followed."""
        with suppress(OSError):
            return os.lstat(f"{self.path}/{path}") if self.path else None
        return None


def told(error: StorageDriversError) -> str:
    """An error as one of the problems of a plan."""
    return f"{error.brief}: {error.resolution}" if error.resolution else error.brief


def no_subpath(spec: MountSpec) -> str:
    """The problem of a part of a volume that is to be made."""
    return (
        f"the subpath {spec.subpath!r} is not in volume {spec.source}, which is new: make the"
        " volume and the subpath in it first"
    )


def misfit(target: str, *, is_directory: bool) -> RuntimeFailedError:
    """The error for a directory over a file, or the other way round."""
    over, under = ("directory", "file") if is_directory else ("file", "directory")
    return RuntimeFailedError(
        f"the {over} that is to be mounted at {target} cannot cover a {under}",
        resolution=f"name a {over} as the target, or a {under} as the source",
    )


def file_above(target: str) -> RuntimeFailedError:
    """The error for a target that nothing can be made at."""
    return RuntimeFailedError(
        f"nothing can be mounted at {target} in the container: there is a file above it",
        resolution="choose another target",
    )


def seen_outside(target: str) -> RuntimeFailedError:
    """The error for a mount in one that is shared with the host."""
    return RuntimeFailedError(
        f"what is mounted at {target} would be mounted on the host, too: the mount above it is"
        " shared",
        resolution="mount it elsewhere, or give the one above bind-propagation=rslave",
    )


def is_kernels(target: str) -> bool:
    """Whether it is, or lies below, one of :data:`GROUND`."""
    return any(target == one or target.startswith(f"{one}/") for one in GROUND)


def at_kernels(target: str, shown: Shown) -> RuntimeFailedError | None:
    """What is wrong with a mount in the kernel's own filesystems; None where nothing is.

    Args:
        target: one for which :func:`is_kernels` holds, with no other mount of the user's above.
        shown: what is to be mounted there.
    """
    if target in GROUND:
        is_file = shown.is_directory is False
        return misfit(target, is_directory=False) if is_file else _AT[target](shown)
    if target.startswith("/proc/"):
        return _in_proc(target, shown)
    if target in _DEVICES:
        return misfit(target, is_directory=True) if shown.is_directory else None
    return None if target.startswith("/dev/") else _there(target, shown)


def _proc(shown: Shown) -> RuntimeFailedError | None:
    from storagedrivers.linux import syscalls

    if shown.path is None and not shown.is_tmpfs:
        return None
    with suppress(OSError):
        if shown.path and syscalls.statfs_type(shown.path) == _PROC_MAGIC:
            return None
    return RuntimeFailedError(
        "nothing but the kernel's own can be mounted at /proc: no program starts without it",
        resolution="choose another target; -v /proc:/proc shows all processes of the host",
    )


def _dev(shown: Shown) -> RuntimeFailedError | None:
    if shown.path is None or shown.is_tmpfs:
        return None
    null = shown.at("null")
    if null is not None and stat.S_ISCHR(null.st_mode):
        return None
    return RuntimeFailedError(
        "what is to be mounted at /dev has no devices: no program starts without /dev/null",
        resolution="choose a target below it, /dev/NAME, or --tmpfs /dev, which gets them;"
        " -v /dev:/dev shows those of the host",
    )


def _sys(shown: Shown) -> RuntimeFailedError | None:
    if shown.path is None or not shown.read_only or shown.at("fs/cgroup"):
        return None
    return RuntimeFailedError(
        f"what is to be mounted at /sys is read-only, and has no directory for {_CGROUPS}",
        resolution="make fs/cgroup in it, or leave 'ro' out",
    )


_AT: dict[str, Callable[[Shown], RuntimeFailedError | None]] = {
    "/proc": _proc,
    "/dev": _dev,
    "/sys": _sys,
}


def _in_proc(target: str, shown: Shown) -> RuntimeFailedError | None:
    if target in _PROC_FILES or shown.is_tmpfs:
        return _there(target, shown)
    return RuntimeFailedError(
        f"nothing can be mounted at {target}: it is inside of /proc",
        resolution="choose another target; what can be covered there are files: "
        + ", ".join(sorted(_PROC_FILES)),
    )


def _there(target: str, shown: Shown) -> RuntimeFailedError | None:
    """Judge by what this host's kernel has; no name can be made there."""
    if target.startswith(f"{_CGROUPS}/"):  # which may be another one
        return None
    try:
        status = os.stat(target)
    except OSError:
        return RuntimeFailedError(
            f"nothing can be mounted at {target}: this kernel has no such name, and none can be"
            " made there",
            resolution="choose another target",
        )
    return None if _fits(shown, status) else misfit(target, is_directory=bool(shown.is_directory))


def _fits(shown: Shown, under: os.stat_result) -> bool:
    return shown.is_directory in (None, stat.S_ISDIR(under.st_mode))


def nested(inner: tuple[str, Shown], outer: PlannedMount, above: Shown) -> str | None:
    """What is wrong with a mount that lies in another one; None where nothing is.

    Args:
        inner: its target, and what it shows.
        outer: the one above it.
        above: what that one shows.
    """
    target, shown = inner
    if outer.spec.propagation in ("shared", "rshared"):
        return told(seen_outside(target))
    path = target.removeprefix(f"{outer.target}/")
    if above.path is None or above.leads_elsewhere(path):
        return None
    found = above.at(path)
    if found is not None:
        if _fits(shown, found):
            return None
        return told(misfit(target, is_directory=bool(shown.is_directory)))
    if not outer.read_only:
        return None
    return told(
        InvalidMountError(
            f"{target} is not there to be mounted at, and {outer.target} is read-only",
            resolution=f"make it in what is mounted at {outer.target}, or leave 'ro' out",
        )
    )
