"""Trees that are no layers, such as a volume's, as tars and back: with everything that is in them.

A layer's tar (:mod:`storagedrivers.archive.pack`) has one way to say each thing, and what means
something to a stack cannot be in it. Here such things are files like others:

================================  =================================================================
a hole                            one (PAX, GNU sparse format 1.0); in a layer's tar it is zeros
a name that begins with ``.wh.``  a name
a device 0:0                      a device
overlay's own attributes          attributes, as long as the filesystem takes them
a socket                          left out: nobody listens at a copy
================================  =================================================================

The tree may be changed while it is read, by a container that is hostile: every directory is opened
from the top, and no file before it is known to be one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from storagedrivers.archive.compare import attributes, attributes_at
from storagedrivers.archive.entries import KINDS, FirstNames, check_attributes
from storagedrivers.archive.header import MAX_SPARSE_PARTS, Entry
from storagedrivers.archive.make import LayerMaker
from storagedrivers.archive.metadata import set_xattr
from storagedrivers.archive.output import Write
from storagedrivers.archive.pack import Packed
from storagedrivers.archive.places import join
from storagedrivers.archive.unpack import unpack
from storagedrivers.archive.whiteouts import OVERLAYS_OWN
from storagedrivers.archive.writer import FIFO, HARD_LINK, Header, TarWriter
from storagedrivers.errors import DiffError
from storagedrivers.linux import copy, tree
from storagedrivers.model import Limits, Unpacked

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def pack_whole(top: int, write: Write) -> Packed:
    """Write the tar of the tree whose root *top* is: the same for the same tree.

    Args:
        top: an open directory.
        write: takes the tar, in pieces of about a MiB.

    Raises:
        UnrepresentableError: what no tar can carry; names it.
        DiffError: a file became another one, or shorter, while it was read.
        OSError: what the kernel says.
    """
    packer = _Packer(top, TarWriter(write))
    packer.run()
    return Packed(packer.size, packer.inodes)


class _Packer:
    def __init__(self, top: int, writer: TarWriter) -> None:
        self._top = top
        self._writer = writer
        self._first_names = FirstNames()
        self.size = 0
        self.inodes = 0

    def run(self) -> None:
        todo = [b""]
        while todo:
            path = todo.pop()
            try:
                fd = tree.open_below(self._top, os.fsdecode(path))
            except OSError as error:
                if path and error.errno in _GONE:
                    continue  # gone since it was listed
                raise
            try:
                todo += self._directory(fd, path)
            finally:
                os.close(fd)
        self._writer.finish()

    def _directory(self, fd: int, path: bytes) -> list[bytes]:
        """A directory and the files in it; the directories in it, the first one last."""
        name = path + b"/" if path else b"./"
        self._add(_header(name, os.fstat(fd)), path, attributes(fd, overlays_own=True))
        directories = []
        for child in sorted(map(os.fsencode, os.listdir(fd))):
            try:
                status = os.stat(child, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    directories.append(join(path, child))
                elif not stat.S_ISSOCK(status.st_mode):
                    self._file(fd, child, join(path, child), status)
            except FileNotFoundError:
                continue  # gone since it was listed
        return directories[::-1]

    def _file(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            with _opened_file(directory, name, path) as fd:
                self._regular(fd, path)
            return
        header = _header(path, status)
        if stat.S_ISLNK(status.st_mode):
            header = header._replace(link=os.readlink(name, dir_fd=directory))
        elif header.type != FIFO:
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            header = header._replace(major=major, minor=minor)
        xattrs = attributes_at(directory, name, overlays_own=True)
        self._add(self._linked(header, path, status), path, xattrs)

    def _regular(self, fd: int, path: bytes) -> None:
        status = os.fstat(fd)
        header = self._linked(_header(path, status), path, status)
        xattrs = attributes(fd, overlays_own=True)
        if header.type == HARD_LINK:
            self._add(header, path, xattrs)
            return
        self.size += status.st_size
        parts = _parts(fd, status)
        if parts is None:
            self._add(header._replace(size=status.st_size), path, xattrs)
            self._writer.payload(fd, status.st_size, path, holes=False)
            return
        header, table = _sparse(header, path, status.st_size, parts)
        self._add(header, path, xattrs)
        self._writer.parts(fd, table, parts, path)

    def _linked(self, header: Header, path: bytes, status: os.stat_result) -> Header:
        """A further name of a file refers to the first one, and has all metadata too."""
        first = self._first_names.of(path, status)
        if not first:
            return header
        return header._replace(type=HARD_LINK, link=first, major=0, minor=0)

    def _add(self, header: Header, path: bytes, xattrs: dict[bytes, bytes]) -> None:
        check_attributes(path, xattrs, "FILE")
        self.inodes += header.type != HARD_LINK
        self._writer.header(header._replace(xattrs=xattrs))


def _header(path: bytes, status: os.stat_result) -> Header:
    mode = status.st_mode
    return Header(
        path,
        KINDS[stat.S_IFMT(mode)],
        0o777 if stat.S_ISLNK(mode) else stat.S_IMODE(mode),
        status.st_uid,
        status.st_gid,
        mtime_ns=status.st_mtime_ns,
    )


@contextmanager
def _opened_file(directory: int, name: bytes, path: bytes) -> Iterator[int]:
    """Have a regular file open for reading, without a trace in its time of access if may be."""
    fd = tree.open_regular(directory, name, no_atime=True)
    if fd is None:
        raise DiffError(
            "it became something else while it was read",
            entry=path,
            resolution="stop what writes there, and try again",
        )
    try:
        yield fd
    finally:
        os.close(fd)


def _parts(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Start and end of a file's parts that are no holes; None where it has none."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return None
    parts = [*copy.data_segments(fd, size)]
    return None if parts == [(0, size)] or len(parts) >= MAX_SPARSE_PARTS else parts


def _sparse(
    header: Header, path: bytes, size: int, parts: list[tuple[int, int]]
) -> tuple[Header, bytes]:
    """The header of a file with holes, and the table that stands before its data."""
    ends = [(start, end - start) for start, end in parts]
    if not parts or parts[-1][1] < size:
        ends.append((size, 0))  # or some who read it would make the file end there
    lines = b"".join(b"%d\n%d\n" % one for one in ends)
    table = b"%d\n%b" % (len(ends), lines)
    table += bytes(-len(table) % 512)
    directory, _, name = path.rpartition(b"/")
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": path,
        b"GNU.sparse.realsize": b"%d" % size,
    }
    stored = len(table) + sum(end - start for start, end in parts)
    shown = join(join(directory, b"GNUSparseFile.0"), name)
    return header._replace(name=shown, size=stored, records=records), table


# Back


def unpack_whole(
    stream: BinaryIO, target: int, *, diff_id: str | None = None, limits: Limits | None = None
) -> Unpacked:
    """Unpack a tar, compressed or not, into an open and empty directory.

    Nothing that it says leads out of that; see :mod:`storagedrivers.archive.unpack`.

    Args:
        diff_id: the digest that the uncompressed tar must have.

    Raises:
        DiffError: the tar is damaged, hostile, too big or another one; the entry is named.
        OSError: what the filesystem or the stream says.
    """
    return unpack(stream, target, diff_id=diff_id, limits=limits, maker=_Maker)


class _Maker(LayerMaker):
    """Makes what means something to a stack as if it meant nothing."""

    def _apply(self, entry: Entry) -> None:
        own = {
            name: value
            for name, value in (entry.xattrs or {}).items()
            if name.startswith(OVERLAYS_OWN)
        }
        for name in own:
            del entry.xattrs[name]  # type: ignore[union-attr]
        super()._apply(entry)
        if own:
            self._set(entry, own)

    def _is_mark(self, name: bytes) -> bool:
        return False

    def _is_whiteout(self, entry: Entry) -> bool:
        return False

    def _set(self, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        parent, _, name = self._places.parent(entry.name.rstrip(b"/") or b".")
        try:
            os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return  # it was left out
        entry.xattrs = xattrs
        for attribute in xattrs:
            place = b"/proc/self/fd/%d/%b" % (parent, name) if name else parent
            set_xattr(place, attribute, entry, self.warnings)
