"""Parses /proc/PID/mountinfo, proc_pid_mountinfo(5)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")


class MountEntry(NamedTuple):
    """One line of mountinfo.

    Attributes:
        device: ``major:minor`` of the filesystem, which is not st_dev on btrfs.
        root: the directory of the filesystem that is mounted, seen from the filesystem's own root.
        options: the mount's own and the superblock's.
    """

    mount_id: int
    device: str
    root: str
    mountpoint: str
    filesystem: str
    source: str
    options: tuple[str, ...]


def mount_namespaces() -> Iterator[tuple[str, int]]:
    """The processes of this machine, ``self`` first, each with its mount namespace's inode."""
    for pid in ("self", *filter(str.isdigit, os.listdir("/proc"))):
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        except OSError:  # it ended, or is another user's
            continue
        yield pid, namespace


def parse_mountinfo(lines: Iterable[str]) -> Iterator[MountEntry]:
    """Parse lines of mountinfo; what is not of its form is passed over, as later kernels may add to
    it.
    """
    for line in lines:
        left, separator, right = line.rstrip("\n").partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not separator or len(before) < 6 or len(after) < 3 or not before[0].isdigit():
            continue
        yield MountEntry(
            mount_id=int(before[0]),
            device=before[2],
            root=_unescape(before[3]),
            mountpoint=_unescape(before[4]),
            filesystem=after[0],
            source=_unescape(after[1]),
            options=tuple(dict.fromkeys((*before[5].split(","), *after[2].split(",")))),
        )


def find_mount(entries: Iterable[MountEntry], path: str) -> MountEntry | None:
    """The mount that *path*, absolute and without symlinks, lies on.

    Of several at one mountpoint the last one is on top.
    """
    best: MountEntry | None = None
    for entry in entries:
        if is_below(path, entry.mountpoint) and (
            best is None or len(entry.mountpoint) >= len(best.mountpoint)
        ):
            best = entry
    return best


def mount_of(path: str | os.PathLike[str]) -> MountEntry | None:
    """The mount that *path* lies on in this process, by its id; None where there is no /proc.

    Unlike the text of mountinfo this knows of mounts that another one hides.

    Raises:
        OSError: the path is not there.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file)
    except FileNotFoundError:
        return None
    except PermissionError:  # a process that changed its user may not look at itself
        return find_mount(read_mountinfo(), os.path.realpath(path))
    finally:
        os.close(fd)
    number = int(fields.get("mnt_id", "-1"))
    return next((entry for entry in read_mountinfo() if entry.mount_id == number), None)


def is_below(path: str, directory: str) -> bool:
    """Whether *path* is *directory* or lies in it; both absolute and normal."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def read_mountinfo(path: str = "/proc/self/mountinfo") -> list[MountEntry]:
    """The mounts of a process; none where there is no /proc.

    Raises:
        ProcessLookupError: the process is ending, and has no mounts any more.
        OSError: the file is there and cannot be read.
    """
    try:
        # The kernel escapes newlines and not carriage returns.
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return list(parse_mountinfo(file))
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.EINVAL:  # fs/proc_namespace.c: a task without a namespace
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), path) from error
        raise


def parse_options(entry: MountEntry) -> dict[str, tuple[str, ...]]:
    """The options with a value, without the escapes of mountinfo and of overlay: both readings."""
    found: dict[str, tuple[str, ...]] = {}
    for option in entry.options:
        key, separator, value = option.partition("=")
        if separator:
            plain = _unescape(value)
            found[key] = (plain, re.sub(r"\\(.)", r"\1", plain, flags=re.DOTALL))
    return found


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)  # ASCII: blanks and backslash
