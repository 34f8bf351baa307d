"""What this host's cgroups let a runtime do."""

from __future__ import annotations

import os
from typing import NamedTuple

ROOT = "/sys/fs/cgroup"


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
