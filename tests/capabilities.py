"""What this machine lets a test do: one table, probed once, that drives every skip.

A test that needs something asks with :func:`need`. Where it is missing the test is skipped with the
reason; with ``STORAGEDRIVERS_REQUIRE=all`` (CI) it fails instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from storagedrivers.linux import namespace, syscalls
from storagedrivers.testing import filesystems


def _kernel_has(filesystem: str) -> bool:
    text = Path("/proc/filesystems").read_text() if Path("/proc/filesystems").exists() else ""
    return filesystem in text.split()


def _can_mount() -> bool:
    if not namespace.has_capability(syscalls.CAP_SYS_ADMIN):
        return False
    try:
        namespace.in_private_mount_namespace(lambda: None)
    except OSError:
        return False
    return True


CAPABILITIES: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "the tests do not run as root"),
    "mount": (_can_mount, "this process may not mount"),
    "loop": (
        lambda: _can_mount() and os.access("/dev/loop-control", os.R_OK | os.W_OK),
        "there are no loop devices",
    ),
    "fuse": (lambda: os.access("/dev/fuse", os.R_OK | os.W_OK), "there is no /dev/fuse"),
    "user-namespace": (
        lambda: shutil.which("unshare") is not None and os.system("unshare -Urm true") == 0,
        "user namespaces are not allowed",
    ),
    **{
        name: (lambda name=name: _kernel_has(name), f"the kernel has no {name}")
        for name in ("overlay", "btrfs", "xfs", "ext4", "tmpfs")
    },
    **{
        command[0]: (
            lambda name=name: filesystems.missing_program(name) is None,
            f"{command[0]} is not installed",
        )
        for name, command in filesystems.FILESYSTEMS.items()
        if command
    },
    **{
        program: (
            lambda program=program: shutil.which(program) is not None,
            f"{program} is not installed",
        )
        for program in (
            *("fuse-overlayfs", "strace", "btrfs", "cp", "setpriv"),
            *("bsdtar", "busybox", "pigz"),
            *("docker", "dockerd", "containerd", "ctr", "runc", "crun"),
            *("skopeo", "umoci", "buildah", "ldd"),
        )
    },
}


@cache
def has(name: str) -> bool:
    """Whether the machine has the capability."""
    return CAPABILITIES[name][0]()


def need(*names: str) -> None:
    """Skip the test, or fail it in CI, unless the machine has all of *names*."""
    for name in names:
        if not has(name):
            lack(name, CAPABILITIES[name][1])


def lack(name: str, reason: str) -> NoReturn:
    """Skip the test for want of *name*, or fail it in CI."""
    required = os.environ.get("STORAGEDRIVERS_REQUIRE", "").split(",")
    if "all" in required or name in required:
        pytest.fail(f"CI must have {name}: {reason}", pytrace=False)
    pytest.skip(reason)
