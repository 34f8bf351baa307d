"""Finds what keeps a mountpoint busy, umount(2) EBUSY.

Paths are enough here: what is busy is mounted, so /proc shows it by the path of its mountpoint.
What holds a mount and appears in no file of /proc: a bound unix socket, a descriptor in flight in a
socket, a loop device, a namespace that a bind mount of its file keeps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

from storagedrivers.linux.holders import Holder
from storagedrivers.linux.mountinfo import is_below, read_mountinfo

INVISIBLE = (
    "no process in /proc shows it: look for a unix socket that is bound in it (ss -xl), a"
    " descriptor in flight in a socket, a loop device (losetup -l), a namespace that a bind mount"
    " keeps (findmnt -t nsfs)"
)
"""What to look for when nothing was found."""

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # it ended, or is none of ours


def find_users(mountpoint: str) -> list[object]:
    """Who holds the mount at *mountpoint*, a real path: processes, and mounts below it."""
    below = [
        entry.mountpoint
        for entry in read_mountinfo()
        if entry.mountpoint != mountpoint and is_below(entry.mountpoint, mountpoint)
    ]
    namespace = os.readlink("/proc/self/ns/mnt")
    found: list[object] = [f"mounted below it: {path}" for path in below]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(*_GONE):
            if os.readlink(f"/proc/{pid}/ns/mnt") == namespace:
                found += _held_by(pid, mountpoint)
    return found


def _held_by(pid: str, mountpoint: str) -> Iterator[Holder]:
    for by in _uses(pid, mountpoint):
        program = ""
        with suppress(*_GONE), open(f"/proc/{pid}/comm", errors="replace") as file:
            program = file.read().strip()
        yield Holder(int(pid), program, by)
        return  # one reason is enough to end it


def _uses(pid: str, mountpoint: str) -> Iterator[str]:
    links = {"cwd": "its working directory", "root": "its root", "exe": "its program"}
    for link, words in links.items():
        if _is_in(f"/proc/{pid}/{link}", mountpoint):
            yield f"{words} is in it"
    with suppress(*_GONE):
        for name in os.listdir(f"/proc/{pid}/fd"):
            if _is_in(f"/proc/{pid}/fd/{name}", mountpoint):
                yield f"its descriptor {name} is open in it"
    with suppress(*_GONE), open(f"/proc/{pid}/maps", errors="replace", newline="\n") as file:
        for line in file:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and is_below(fields[5], mountpoint):
                yield "it has a file in it mapped"


def _is_in(link: str, mountpoint: str) -> bool:
    try:
        return is_below(os.readlink(link), mountpoint)
    except _GONE:
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    with suppress(*_GONE):  # deeper than a path can say: the filesystem must do
        return os.stat(link).st_dev == os.stat(mountpoint).st_dev
    return False
