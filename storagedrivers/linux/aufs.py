"""Asks the kernel which aufs still writes to a directory."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from storagedrivers.linux.mountinfo import read_mountinfo

SYSFS = Path("/sys/fs/aufs")
"""Where the kernel shows aufs superblocks and their branches."""

_READS = 25  # of a superblock that does not answer
_PAUSE = 0.02


def find_writing_mounts(sysfs: Path, diff: str) -> list[str]:
    """The living aufs superblocks that have *diff* as a writable branch: a sentence each.

    A superblock lives while it is mounted in any namespace or something in it is open, so this sees
    lazy unmounts too. /proc does not: a file in an aufs is on the device of the aufs.
    """
    try:
        names = [name for name in os.listdir(sysfs) if name.startswith("si_")]
    except FileNotFoundError:
        return []  # no aufs in this kernel
    users = []
    for name in names:
        branches = _read_branches(sysfs / name)
        if branches is None:
            users.append(f"perhaps {_describe(name)}: it does not tell its branches")
        elif any(_is_writable_branch(branch, diff) for branch in branches):
            users.append(_describe(name))
    return users


def _read_branches(superblock: Path) -> list[str] | None:
    """The branches as ``PATH=PERMISSIONS``: none of one that is gone, None if it does not tell.

    While a superblock is mounted or remounted it has no branches yet, or reading them is EBUSY;
    with the module's parameter ``brs=0`` it never has any.
    """
    for _ in range(_READS):
        with suppress(OSError):  # not read is not proven unused
            names = [name for name in os.listdir(superblock) if re.fullmatch(r"br\d+", name)]
            if names:
                return [_read_branch(superblock / name) for name in names]
        if not superblock.exists():
            return []
        time.sleep(_PAUSE)
    return None


def _read_branch(file: Path) -> str:
    raw = file.read_bytes().rstrip(b"\n")
    # Blanks, control characters and backslashes are in octal.
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw))


def _is_writable_branch(branch: str, diff: str) -> bool:
    path, _, permissions = branch.rpartition("=")
    if permissions.partition("+")[0] != "rw":
        return False
    try:
        return os.path.samefile(path, diff)
    except OSError:
        return False  # what cannot be looked at is another directory


def _describe(superblock: str) -> str:
    option = superblock.replace("_", "=", 1)  # si_1f2e is si=1f2e among the options of its mounts
    places = [entry.mountpoint for entry in read_mountinfo() if option in entry.options]
    where = f"mounted at {', '.join(places)}" if places else "not mounted in this namespace"
    return f"aufs {option}, {where}"
