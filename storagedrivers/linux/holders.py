"""Finds who may still write to a directory tree: mounts of it in any namespace, and processes.

Matching goes by device, mount id and inode, not by path alone: after a lazy unmount /proc shows
paths such as ``/file``. What no file of /proc shows stays unseen: descriptors in flight in a
socket, loop devices, namespaces that only a bind mount of their file keeps alive, and processes of
other users for who is not root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from storagedrivers.linux import syscalls, tree
from storagedrivers.linux.mountinfo import (
    MountEntry,
    find_mount,
    is_below,
    mount_of,
    parse_options,
    read_mountinfo,
)

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # it ended, or is none of ours

# What a FUSE mount without its server says, and a network filesystem without its: not the tree's.
_DEAD = (errno.EIO, errno.ENOTCONN, errno.ESTALE)

_OVERLAY_MAGIC = 0x794C7630

# Filesystems where files of one tree can have other device numbers than its top.
_MANY_DEVICES = ("btrfs", "overlay")


class Holder(NamedTuple):
    """A process that holds a tree, and by what."""

    pid: int
    program: str
    by: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program}): {self.by}"


def find_writers(path: str | os.PathLike[str], *, overlays: bool = False) -> list[Holder]:
    """Who may still write to the tree at *path*.

    A mount of the tree counts, read-only or not, and a directory that a process has open, as its
    working directory for one. An empty list is proof as far as /proc goes.

    Args:
        path: the tree.
        overlays: it may be the upper of overlays: those count too, and so does everything that is
            open in an overlay that is mounted nowhere any more, whatever its upper is.

    Raises:
        FileNotFoundError: the tree is not there.
    """
    return list(_Search(os.path.realpath(path), overlays).run())


class _Search:
    def __init__(self, path: str, overlays: bool) -> None:
        self.path = path
        self.overlays = overlays
        self.top = os.stat(path)
        own = mount_of(path)
        self.mount_device = own.device if own else ""
        self.fs_path = _path_in_filesystem(path, own) if own else path
        self.many_devices = own is not None and own.filesystem in _MANY_DEVICES
        self._inodes: set[tuple[int, int]] | None = None
        self._views: dict[tuple[str, int, int], dict[int, MountEntry]] = {}
        self._mounts: dict[int, MountEntry] = {}

    def run(self) -> Iterator[Holder]:
        """Mounts first: what is open in one is told by it."""
        processes = [
            (pid, [f"/proc/{pid}/task/{thread}" for thread in _listdir(f"/proc/{pid}/task")])
            for pid in filter(str.isdigit, os.listdir("/proc"))
        ]
        # What vanishes meanwhile never hides what stays: each file is asked for by itself.
        for pid, tasks in processes:
            for task in tasks:  # each may have a namespace of its own
                with _unless_gone():
                    yield from self._mounts_of(task, pid)
        for pid, tasks in processes:
            yield from self._directories(pid, tasks)
            yield from self._descriptors(pid, tasks)
            with _unless_gone():
                yield from self._mappings(pid)

    def _view(self, task: str) -> tuple[str, int, int]:
        """What mounts a thread sees: those of its namespace below its root."""
        root = os.stat(f"{task}/root")
        return os.readlink(f"{task}/ns/mnt"), root.st_dev, root.st_ino

    def _mounts_of(self, task: str, pid: str) -> Iterator[Holder]:
        view = self._view(task)
        if view in self._views:
            return
        entries = {entry.mount_id: entry for entry in read_mountinfo(f"{task}/mountinfo")}
        self._views[view] = entries
        for number, entry in entries.items():
            if number in self._mounts:
                continue
            self._mounts[number] = entry
            if entry.device == self.mount_device and is_below(entry.root, self.fs_path):
                yield _holder(pid, f"its namespace has it mounted at {entry.mountpoint}")
            elif self.overlays and self._is_upper_of(entry, task):
                yield _holder(pid, f"its namespace has an overlay of it at {entry.mountpoint}")

    def _is_upper_of(self, entry: MountEntry, task: str) -> bool:
        if entry.filesystem != "overlay":
            return False
        for upper in parse_options(entry).get("upperdir", ()):
            for path in (upper, f"{task}/root{upper}"):
                with suppress(OSError):
                    if os.path.samestat(os.stat(path), self.top):
                        return True
        return False

    def _directories(self, pid: str, tasks: list[str]) -> Iterator[Holder]:
        for task in tasks:
            for link in ("cwd", "root"):
                with _unless_gone():
                    if self._has_directory(task, link):
                        yield _holder(pid, f"its {link} is in it")

    def _has_directory(self, task: str, link: str) -> bool:
        status = os.stat(f"{task}/{link}")
        shown = _shown(f"{task}/{link}")
        if shown is None:
            return self._is_detached_part(f"{task}/{link}", status)
        mount = find_mount(self._views.get(self._view(task), {}).values(), shown)
        with suppress(OSError):
            there = os.stat(f"{task}/root{shown}")
            if mount is not None and os.path.samestat(there, status):
                return self._shows_tree(mount, shown)
        return self._is_detached_part(f"{task}/{link}", status)

    def _descriptors(self, pid: str, tasks: list[str]) -> Iterator[Holder]:
        tables = set()  # threads share theirs, unless they were made without
        for task in tasks:
            names = frozenset(_listdir(f"{task}/fd"))
            if names in tables:
                continue
            tables.add(names)
            for name in names:
                with _unless_gone():
                    if self._is_open(task, name):
                        yield _holder(pid, f"its descriptor {name} is open in it")

    def _is_open(self, task: str, name: str) -> bool:
        link = f"{task}/fd/{name}"
        status = os.stat(link)
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            return False
        info = _fdinfo(f"{task}/fdinfo/{name}")
        mount = self._mounts.get(int(info.get("mnt_id", "-1")))
        if mount is None:  # one that could only read may be opened anew, through /proc
            return self._is_detached_part(link, status)
        writable = int(info.get("flags", "0"), 8) & os.O_ACCMODE != os.O_RDONLY
        if not writable and not stat.S_ISDIR(status.st_mode):
            return False
        shown = _shown(link)
        if shown is None:
            return mount.device == self.mount_device and self._is_detached_part(link, status)
        return self._shows_tree(mount, shown)

    def _shows_tree(self, mount: MountEntry, shown: str) -> bool:
        """Whether the path *shown*, on *mount*, is in the tree."""
        if mount.device != self.mount_device or not is_below(shown, mount.mountpoint):
            return False
        return is_below(_path_in_filesystem(shown, mount), self.fs_path)

    def _is_detached_part(self, link: str, status: os.stat_result) -> bool:
        """Whether what is open on no mount that anyone sees is in the tree, or may be."""
        if self.overlays and syscalls.statfs_type(link) == _OVERLAY_MAGIC:
            return True
        if status.st_dev != self.top.st_dev and not self.many_devices:
            return False
        return (status.st_dev, status.st_ino) in self._tree_inodes()

    def _mappings(self, pid: str) -> Iterator[Holder]:
        with open(f"/proc/{pid}/maps", errors="replace", newline="\n") as file:
            for line in file:
                place, permissions, _, device, inode = line.split(maxsplit=5)[:5]
                if permissions[1] != "w" or permissions[3] != "s" or inode == "0":
                    continue
                if self._is_mapped(pid, place, device, int(inode)):
                    yield _holder(pid, "it has shared memory of a file in it")

    def _is_mapped(self, pid: str, place: str, device: str, inode: int) -> bool:
        try:
            # The device in the line is the filesystem's, on btrfs not the subvolume's.
            status = os.stat(f"/proc/{pid}/map_files/{place}")
            key = (status.st_dev, status.st_ino)
        except PermissionError:  # in a user namespace
            major, _, minor = device.partition(":")
            key = (os.makedev(int(major, 16), int(minor, 16)), inode)
        except OSError:
            return False  # unmapped meanwhile
        if key[0] != self.top.st_dev and not self.many_devices:
            return False
        return key in self._tree_inodes()

    def _tree_inodes(self) -> set[tuple[int, int]]:
        """Walked only when something might be inside: shared memory, or after a lazy unmount."""
        if self._inodes is None:
            self._inodes = tree.tree_inodes(self.path)
        return self._inodes


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Pass over a process that ended or is none of ours, and over what it has on a dead mount."""
    try:
        yield
    except _GONE:
        pass
    except OSError as error:
        if error.errno not in _DEAD:
            raise


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except _GONE:
        return []


def _shown(link: str) -> str | None:
    """The path that a link of /proc shows; None where it is longer than any path can be."""
    try:
        return os.readlink(link)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


def _path_in_filesystem(path: str, mount: MountEntry) -> str:
    relative = os.path.relpath(path, mount.mountpoint)
    return os.path.normpath(os.path.join(mount.root, relative))


def _fdinfo(path: str) -> dict[str, str]:
    with open(path, errors="replace") as file:  # it may name files
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _holder(pid: str, by: str) -> Holder:
    program = ""
    with suppress(OSError), open(f"/proc/{pid}/comm", errors="replace") as file:
        program = file.read().strip()
    return Holder(int(pid), program, by)
