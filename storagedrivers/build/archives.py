"""Unpacks a tar that ADD brings, by the rules of Docker's builder.

The destination is its root: ``..`` leads no further up, and an absolute symlink begins there. What
is there gives way, but a symlink to a directory is followed where the tar has no entry for it.
Owners, modes and capabilities are the tar's; other attributes are left out.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from itertools import islice
from typing import BinaryIO

from storagedrivers.archive.compare import open_file
from storagedrivers.archive.compression import MAGIC_LENGTH, Decompressor, compression_of
from storagedrivers.archive.header import BLOCK, Entry, check_checksum
from storagedrivers.archive.places import components
from storagedrivers.archive.reader import Reader
from storagedrivers.archive.whiteouts import META, OPAQUE, PREFIX
from storagedrivers.build.copying import clear
from storagedrivers.build.items import Tree, changed, stamp_of
from storagedrivers.errors import DiffError, MalformedDiffError, UnsafeEntryError
from storagedrivers.linux import tree
from storagedrivers.stores.transfer import Extraction

_HEAD = 64 << 10  # bytes that are decompressed to see whether a tar is in them
_CAPABILITY = b"security.capability"
_SECOND = 1_000_000_000
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_ENTRYS_FAULT = (*_NOTHING, errno.EISDIR, errno.EEXIST, errno.EXDEV, errno.EPERM)
"""Of what it wants to be made of, or through."""


def is_archive(source: Tree) -> bool:
    """Whether a file is a tar with something in it, plain or compressed."""
    (item,) = source.items
    if not stat.S_ISREG(item.kind):
        return False
    if item.data is not None:
        return _begins_tar(item.data[:_HEAD])
    fd = open_file(source.fd, item.path)
    try:
        return _begins_tar(os.pread(fd, _HEAD, 0))
    finally:
        os.close(fd)


def _begins_tar(head: bytes) -> bool:
    try:
        compression = compression_of(head[:MAGIC_LENGTH])
        if compression != "none":
            head = b"".join(islice(Decompressor(compression).feed(head), 1))
        block = head[:BLOCK]
        if len(block) < BLOCK or not any(block):
            return False
        check_checksum(block)
    except (DiffError, ImportError):
        return False
    return True


def unpack(source: Tree, goal: int) -> None:
    """Unpack a tar into the directory *goal*.

    Raises:
        DiffError: it is damaged or hostile; names the entry.
        BuildError: it is another one than was read.
    """
    (item,) = source.items
    if item.data is not None:
        _Adding(goal).run(io.BytesIO(item.data))
        return
    fd = open_file(source.fd, item.path)
    with open(fd, "rb") as file:
        if stamp_of(os.fstat(fd)) != item.stamp:
            raise changed(item.path)
        _Adding(goal).run(file)
        if stamp_of(os.fstat(fd)) != item.stamp:
            raise changed(item.path)


class _Adding(Extraction):
    """An extraction that replaces what is there, and hides what whiteouts name."""

    def __init__(self, goal: int) -> None:
        super().__init__(goal, b"", None)
        self._goal = goal
        self._made: set[bytes] = set()
        self._marks: list[list[bytes]] = []

    def run(self, stream: BinaryIO) -> tuple[str, ...]:
        """Make everything; returns warnings."""
        warnings = super().run(stream)
        for parts in self._marks:
            try:
                self._hide(b"/".join(parts[:-1]), parts[-1])
            except OSError as error:
                if error.errno not in _NOTHING:
                    raise
        return warnings

    def _make(self, entry: Entry, reader: Reader) -> None:
        parts = self._parts(entry.name)
        if parts and parts[-1].startswith(PREFIX):
            self._marks.append(parts)
            return
        if not parts and entry.type == b"5":
            return  # the destination keeps what it has
        if entry.type == b"3" and entry.major == entry.minor == 0:
            raise MalformedDiffError("a device 0:0, which would be a whiteout", entry=entry.name)
        if entry.xattrs:
            entry.xattrs = {k: v for k, v in entry.xattrs.items() if k == _CAPABILITY}
        entry.mtime_ns -= entry.mtime_ns % _SECOND
        self._note(parts)
        try:
            super()._make(entry, reader)
        except OSError as error:
            if error.errno not in _ENTRYS_FAULT:
                raise
            raise MalformedDiffError(
                f"it cannot be made: {error.strerror}", entry=entry.name
            ) from error

    def _link(self, entry: Entry, parent: int, name: bytes) -> None:
        super()._link(entry, parent, name)
        # It may be a file that was there.
        os.utime(name, ns=(entry.mtime_ns,) * 2, dir_fd=parent, follow_symlinks=False)

    def _note(self, parts: list[bytes]) -> None:
        """Remember that something was made, and what is above it."""
        path = b"/".join(parts)
        while path and path not in self._made:
            self._made.add(path)
            path = path.rpartition(b"/")[0]

    def _parts(self, name: bytes) -> list[bytes]:
        return components(os.path.normpath(b"/" + name))

    def _made_directory(self, parts: list[bytes]) -> int:
        if parts:
            parent = self._opened_directory(parts[:-1])
            try:
                status = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(parts[-1], dir_fd=parent)
            except FileNotFoundError:
                pass
            finally:
                os.close(parent)
        return self._opened_directory(parts)

    def _clear(self, parent: int, name: bytes) -> None:
        clear(parent, os.fsdecode(name))

    def _hide(self, directory: bytes, mark: bytes) -> None:
        """Do what a whiteout says to what was there before."""
        with tree.opened_below(self._goal, os.fsdecode(directory)) as fd:
            if mark == OPAQUE:
                names = [os.fsencode(name) for name in os.listdir(fd)]
            elif mark.startswith(META):
                return
            else:
                names = [mark[len(PREFIX) :]]
            for name in names:
                if name in (b"", b".", b".."):
                    raise UnsafeEntryError("a whiteout that names no file", entry=mark)
                path = directory + b"/" + name if directory else name
                if path not in self._made:
                    clear(fd, os.fsdecode(name))
