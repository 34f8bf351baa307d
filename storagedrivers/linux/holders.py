"""Finds who may still write to a directory tree: mounts of it in any namespace, and processes.

Matching goes by device, mount id and inode, not by path alone: after a lazy unmount /proc shows
paths such as ``/file``. What no file of /proc shows stays unseen: descriptors in flight in a
socket, loop devices, and processes of other users for who is not root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress

from storagedrivers.linux import tree
from storagedrivers.linux.mountinfo import (
    MountEntry,
    find_mount,
    is_below,
    mount_of,
    read_mountinfo,
)


def find_writers(path: str | os.PathLike[str]) -> list[str]:
    """Who may still write to the tree at *path*: a sentence each, with pid and program.

    A mount of the tree counts, read-only or not, and a directory that a process has open, as its
    working directory for one. An empty list is proof as far as /proc goes:
    it does not show mount namespaces that only a bind mount of their file keeps alive.

    Raises:
        FileNotFoundError: the tree is not there.
    """
    return list(_Search(os.path.realpath(path)).run())


class _Search:
    def __init__(self, path: str) -> None:
        self.path = path
        self.device = os.stat(path).st_dev
        own = mount_of(path)
        self.mount_device = own.device if own else ""
        self.fs_path = _path_in_filesystem(path, own) if own else path
        self._inodes: set[tuple[int, int]] | None = None
        self._views: dict[tuple[str, int, int], dict[int, MountEntry]] = {}
        self._told: set[tuple[str, int]] = set()

    def run(self) -> Iterator[str]:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            yield from self._process(pid)

    def _process(self, pid: str) -> Iterator[str]:
        """What one process has of the tree. What vanishes meanwhile never hides what stays."""
        mounts: dict[int, MountEntry] = {}
        for thread in _listdir(f"/proc/{pid}/task"):  # each may have a namespace of its own
            task = f"/proc/{pid}/task/{thread}"
            with suppress(*_GONE):
                mounts |= yield from self._mounts_of(task, pid)
            for link in ("cwd", "root"):
                if self._is_inside(f"{task}/{link}", None, mounts):
                    yield f"{link} of {_name(pid)}"
        for fd in _listdir(f"/proc/{pid}/fd"):
            if self._is_open_for_writing(pid, fd, mounts):
                yield f"descriptor {fd} of {_name(pid)}"
        with suppress(*_GONE):
            yield from self._mappings(pid)

    def _mounts_of(self, task: str, pid: str) -> Generator[str, None, dict[int, MountEntry]]:
        """The mounts that a thread sees; yields a sentence for each of the tree."""
        root = os.stat(f"{task}/root")
        # After chroot(2) a process sees the mounts below its root only.
        view = (os.readlink(f"{task}/ns/mnt"), root.st_dev, root.st_ino)
        if view not in self._views:
            entries = read_mountinfo(f"{task}/mountinfo")
            self._views[view] = {entry.mount_id: entry for entry in entries}
            for entry in entries:
                if (
                    entry.device == self.mount_device
                    and is_below(entry.root, self.fs_path)
                    and (view[0], entry.mount_id) not in self._told
                ):
                    self._told.add((view[0], entry.mount_id))
                    yield f"mounted at {entry.mountpoint} in the namespace of {_name(pid)}"
        return self._views[view]

    def _is_open_for_writing(self, pid: str, fd: str, mounts: dict[int, MountEntry]) -> bool:
        link = f"/proc/{pid}/fd/{fd}"
        try:
            status = os.stat(link)
            if status.st_dev != self.device:
                return False
            info = _fdinfo(f"/proc/{pid}/fdinfo/{fd}")
        except _GONE:
            return False
        writable = int(info.get("flags", "0"), 8) & os.O_ACCMODE != os.O_RDONLY
        if not stat.S_ISDIR(status.st_mode) and not writable:
            return False
        return self._is_inside(link, int(info.get("mnt_id", "-1")), mounts)

    def _is_inside(self, link: str, mount_id: int | None, mounts: dict[int, MountEntry]) -> bool:
        try:
            status = os.stat(link)
            if status.st_dev != self.device:
                return False
            shown = os.readlink(link)
        except _GONE:
            return False
        mount = find_mount(mounts.values(), shown) if mount_id is None else mounts.get(mount_id)
        if (
            mount is not None
            and is_below(shown, mount.mountpoint)
            and not self._is_detached(link, mount_id)
        ):
            return mount.device == self.mount_device and is_below(
                _path_in_filesystem(shown, mount), self.fs_path
            )
        return (status.st_dev, status.st_ino) in self._tree_inodes()

    @staticmethod
    def _is_detached(link: str, mount_id: int | None) -> bool:
        """Whether a cwd or root shows a path of a mount that is no longer in the tree."""
        if mount_id is not None:
            return False
        try:
            there = os.stat(f"{os.path.dirname(link)}/root{os.readlink(link)}")
            here = os.stat(link)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _mappings(self, pid: str) -> Iterator[str]:
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            for line in file:
                place, permissions, _, _, inode = line.split(maxsplit=5)[:5]
                if permissions[1] != "w" or permissions[3] != "s" or inode == "0":
                    continue
                try:
                    # The device in the line is the filesystem's, on btrfs not the subvolume's.
                    status = os.stat(f"/proc/{pid}/map_files/{place}")
                except OSError:
                    continue  # unmapped meanwhile
                key = (status.st_dev, status.st_ino)
                if status.st_dev == self.device and key in self._tree_inodes():
                    yield f"shared memory mapping of {_name(pid)}"

    def _tree_inodes(self) -> set[tuple[int, int]]:
        """Walked only when something might be inside: shared memory, or after a lazy unmount."""
        if self._inodes is None:
            self._inodes = tree.tree_inodes(self.path)
        return self._inodes


_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # it ended, or is none of ours


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except _GONE:
        return []


def _path_in_filesystem(path: str, mount: MountEntry) -> str:
    relative = os.path.relpath(path, mount.mountpoint)
    return os.path.normpath(os.path.join(mount.root, relative))


def _fdinfo(path: str) -> dict[str, str]:
    with open(path) as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return f"process {pid}"
