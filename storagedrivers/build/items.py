"""What was read of a tree that is copied: its entries, and what they are to become."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

from storagedrivers.errors import BuildError

Owner = tuple[int, int]

Fields = tuple[str | int, ...]
"""What of an entry counts: kind, mode, uid, gid, size or target, digest."""

DIRECTORY, FILE, ARCHIVE = "dir", "file", "archive"
"""What becomes of a source: its content is copied, or it is, or it is unpacked."""

Stamp = tuple[int, int, int, int, int]
"""What tells a file, and what it holds, from others: device, inode, size, times."""

KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}
"""What a layer can hold, by the type of a file; sockets it cannot."""


class Rules(NamedTuple):
    """What copies get.

    Attributes:
        owner: of everything; None where owners are kept.
        mode: of everything but symlinks; None where modes are kept.
    """

    owner: Owner | None
    mode: int | None

    def mode_of(self, mode: int) -> int:
        """The mode of the copy of what has *mode*, its type among it."""
        if self.mode is not None:
            return self.mode
        # As chown(2) does it to a file, with which Docker gives copies their owner.
        if self.owner is not None and not stat.S_ISDIR(mode):
            mode &= ~stat.S_ISUID
            if mode & stat.S_IXGRP:
                mode &= ~stat.S_ISGID
        return stat.S_IMODE(mode)


class Item:
    """One entry of a tree, as it was when it was read, and as its copy is to be.

    Attributes:
        path: from the top of the tree on.
        kind: the type of the file, as in ``st_mode``.
        mode: permissions of the copy.
        owner: of the copy.
        mtime: in whole seconds, which is what an image of Docker's has.
        size: bytes of a file.
        digest: of what a file holds, hexadecimal.
        link: the target of a symlink.
        device: the number of a device.
        first: the path of the item that is the same file under another name; empty where it is the
            only one or comes first.
        capability: the file's capabilities, if they are kept.
        data: what a small file holds.
        stamp: of a file of the tree.
        opened: a descriptor of what the file holds, where that is nowhere else; else -1.
    """

    __slots__ = (
        "capability",
        "data",
        "device",
        "digest",
        "first",
        "kind",
        "link",
        "mode",
        "mtime",
        "opened",
        "owner",
        "path",
        "size",
        "stamp",
    )

    def __init__(self, path: str, status: os.stat_result, rules: Rules) -> None:
        self.path = path
        mode = status.st_mode
        self.kind = stat.S_IFMT(mode)
        self.mode = rules.mode_of(mode) if self.kind != stat.S_IFLNK else 0o777
        self.owner = rules.owner or (status.st_uid, status.st_gid)
        self.mtime = int(status[stat.ST_MTIME])
        self.size = 0
        self.digest = ""
        self.link = ""
        self.device = status.st_rdev
        self.first = ""
        self.capability = b""
        self.data: bytes | None = None
        self.stamp: Stamp | None = None
        self.opened = -1

    def fields(self) -> Fields:
        """What of it counts."""
        extra: str | int = self.link or self.size
        if self.kind in (stat.S_IFCHR, stat.S_IFBLK):
            extra = f"{os.major(self.device)}:{os.minor(self.device)}"
        return (KINDS[self.kind], self.mode, *self.owner, extra, self.digest)


class Tree(NamedTuple):
    """What is copied from one place.

    Attributes:
        fd: the directory that paths of items begin in, open.
        path: where that is in the context or the root, for messages.
        items: a directory before what is in it.
        marks: paths of files with a whiteout's name, whose copies hide what is there.
    """

    fd: int
    path: str
    items: list[Item]
    marks: list[str]


class Part(NamedTuple):
    """One source of an instruction.

    Attributes:
        how: what becomes of it.
        name: what a file is called where it is copied into a directory.
        tree: what was read.
    """

    how: str
    name: str
    tree: Tree

    @property
    def is_fetched(self) -> bool:
        """Whether it came by a URL."""
        return any(item.opened >= 0 for item in self.tree.items)

    def describe(self, facts: dict[str, Fields]) -> bytes:
        """All that counts of it, to be hashed; its entries are added to *facts*."""
        top = self.tree.path
        lines = [f"{self.how}\0{self.name}"]
        for item in self.tree.items:
            fields = facts[f"{top}/{item.path}" if top else item.path] = item.fields()
            lines.append(f"{item.path}\0{fields}{item.capability.hex()}\0{item.first}")
        for path in self.tree.marks:
            facts[f"{top}/{path}" if top else path] = ("file", 0, 0, 0, 0, "")
            lines.append(f"{path}\0")
        return "\n".join(lines).encode(errors="surrogateescape")


def made_part(
    name: str, mode: int, mtime: float, rules: Rules, data: bytes | None = None, opened: int = -1
) -> Part:
    """A file that is in no tree.

    Args:
        data: what it holds.
        opened: a descriptor of what it holds, if that is not *data*.
    """
    status = os.stat_result((stat.S_IFREG | mode, *(0,) * 6, 0, int(mtime), 0))
    item = Item(name, status, rules)
    item.opened = opened
    if data is not None:
        item.data, item.size = data, len(data)
        item.digest = hashlib.sha256(data).hexdigest()
    return Part(FILE, name, Tree(-1, "", [item], []))


def stamp_of(status: os.stat_result) -> Stamp:
    """What tells a file, and what it holds, from others."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def changed(path: str) -> BuildError:
    """The error for what is another thing than before."""
    return BuildError(
        f"{path} changed while it was read or copied",
        resolution="build again when nothing writes to the build context",
    )
