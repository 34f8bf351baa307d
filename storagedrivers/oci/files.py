"""The files of an image from outside, by name: in a tar that is not unpacked, or in a directory.

A tar is read once, header by header; what a file holds is read where it lies. Names are only looked
up, in what the tar lists or below the directory: none becomes a path of this machine.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from storagedrivers.archive.compression import MAGIC_LENGTH, Decompressor, compression_of
from storagedrivers.archive.header import (
    BLOCK,
    Entry,
    apply_pax,
    parse_header,
    parse_pax,
)
from storagedrivers.errors import DiffError, MalformedImageError
from storagedrivers.linux import tree

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIECE = 2 << 20
"""Bytes that are read at once."""

_MOST_ENTRIES = 100_000
_LONGEST_EXTENSION = 64 << 10  # bytes of a PAX header, or of a long name
_LONGEST_NAME = 1024  # characters
_MAX_DOCUMENTS = 32 << 20  # bytes of all that is read whole, over and over again included
_MOST_LINKS = 16  # from one name to the next
_REGULAR = b"07\0"
_HARD_LINK, _SYMLINK = b"1", b"2"
_BATCH = 64 << 10  # bytes that are read for headers at once
_INCOMPLETE = "get it again, it is incomplete"
_ZEROS = bytes(BLOCK)


def _is_encodable(name: str) -> bool:
    """JSON can hold halves of characters, and those are in no name."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; none at the end."""


class Place(NamedTuple):
    """Where a file's bytes are.

    Attributes:
        opened: has the file with them open for the length of a ``with`` block.
        offset: where they begin in it.
        size: how many they are.
    """

    opened: Callable[[], AbstractContextManager[int]]
    offset: int
    size: int


class Files(ABC):
    """Files by name. Names have slashes, and no ``.`` or ``..`` in them.

    Attributes:
        name: what it is all in, for messages.
    """

    name: str
    _left = _MAX_DOCUMENTS

    @abstractmethod
    def find(self, name: str) -> Place | None:
        """Where the file is; None where there is none.

        Raises:
            MalformedImageError: it is no regular file, or a link that leads nowhere.
        """

    def place(self, name: str) -> Place:
        """Where the file is.

        Raises:
            MalformedImageError: there is none.
        """
        found = self.find(check_name(name, self.name))
        if found is None:
            raise MalformedImageError(f"{self.name} holds no {name}", resolution=_INCOMPLETE)
        return found

    def read(self, name: str, limit: int) -> bytes:
        """All that a small file holds.

        Raises:
            MalformedImageError: there is none, or it is larger than *limit*, or all that was read
                is too much: what becomes of it is kept in memory.
        """
        place = self.place(name)
        if place.size > limit:
            raise MalformedImageError(
                f"{name} in {self.name} has {place.size} bytes, and {limit} are let in"
            )
        self._left -= place.size
        if self._left < 0:
            raise MalformedImageError(
                f"the documents in {self.name} have more than {_MAX_DOCUMENTS} bytes",
                resolution="have fewer images saved in one archive",
            )
        with place.opened() as fd:
            data = Slice(fd, place.offset, place.size, name).readall()
        if len(data) != place.size:
            raise MalformedImageError(f"{name} in {self.name} breaks off", resolution=_INCOMPLETE)
        return data


def check_name(name: str, where: str) -> str:
    """Return the name of a file as an archive lists it, without a ``./`` in front.

    Raises:
        MalformedImageError: it would lead out of the archive.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = not parts or name.startswith("/") or ".." in parts or "\0" in name
    if outside or len(name) > _LONGEST_NAME or not _is_encodable(name):
        raise MalformedImageError(
            f"{where} speaks of a file {name[:200]!r}, which is none in it",
            resolution="have it made again by a program that you trust",
        )
    return "/".join(parts)


class Slice(io.RawIOBase):
    """A file's bytes as a stream, read where they lie.

    Args:
        fd: what it lies in.
        offset: where it begins.
        size: how long it is.
        name: of the file, for messages.
    """

    def __init__(self, fd: int, offset: int, size: int, name: str) -> None:
        super().__init__()
        self._fd = fd
        self._at = offset
        self._end = offset + size
        self._name = name

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes.

        Raises:
            MalformedImageError: the file is shorter than it was.
        """
        left = self._end - self._at
        count = left if size < 0 else min(size, left)
        if not count:
            return b""
        data = os.pread(self._fd, count, self._at)
        if not data:
            raise MalformedImageError(f"{self._name} breaks off", resolution=_INCOMPLETE)
        self._at += len(data)
        return data

    def readinto(self, buffer: Buffer, /) -> int:
        """The next bytes, into *buffer*."""
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def uncompressed(stream: Readable, *, limit: int) -> Iterator[bytes]:
    """The pieces of a stream, which may be compressed.

    Raises:
        MalformedDiffError: it is damaged, or breaks off.
        MalformedImageError: more than *limit* bytes come out.
    """
    head = data = stream.read(PIECE)
    while data and len(head) < MAGIC_LENGTH:  # a pipe gives what it has
        data = stream.read(PIECE)
        head += data
    compression = compression_of(head)
    decompressor = None if compression == "none" else Decompressor(compression)
    size, data = 0, head
    while data:
        for piece in [data] if decompressor is None else decompressor.feed(data):
            size += len(piece)
            if size > limit:
                raise MalformedImageError(f"more than {limit} bytes come out of it")
            yield piece
        data = stream.read(PIECE)
    if decompressor is not None:
        decompressor.finish()


class ArchiveFiles(Files):
    """The files of an uncompressed tar.

    Args:
        fd: the tar, open; whoever calls closes it, when this is used no more.
        offset: where it begins.
        name: of the tar, for messages.

    Raises:
        MalformedImageError: it is no tar, or breaks off.
    """

    def __init__(self, fd: int, name: str, *, offset: int = 0) -> None:
        self.name = name
        self._fd = fd
        self._places: dict[str, Place] = {}
        self._links: dict[str, str] = {}
        self._others: set[str] = set()
        for entry, at in _entries(fd, offset, name):
            self._add(entry, at)

    def _add(self, entry: Entry, at: int) -> None:
        name = os.fsdecode(entry.name).rstrip("/")
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
        self._places.pop(name, None)
        self._links.pop(name, None)
        if len(name) > _LONGEST_NAME:  # nobody asks for it, and 100,000 of them are gigabytes
            return
        if entry.type in (_HARD_LINK, _SYMLINK):
            target = os.fsdecode(entry.link)
            if entry.type == _SYMLINK:
                target = posixpath.join(posixpath.dirname(name), target)
            self._links[name] = posixpath.normpath(target)[: _LONGEST_NAME + 1]
        elif entry.type in _REGULAR:
            self._places[name] = Place(self._opened, at, entry.size)
        else:
            self._others.add(name)

    def _opened(self) -> AbstractContextManager[int]:
        return nullcontext(self._fd)

    def find(self, name: str) -> Place | None:
        """See :meth:`Files.find`."""
        target = name
        for _ in range(_MOST_LINKS):
            if target not in self._links:
                break
            target = check_name(self._links[target], f"{name} in {self.name}")
        found = self._places.get(target)
        if found is None and (name in self._links or name in self._others):
            raise MalformedImageError(
                f"{name} in {self.name} is no regular file, and leads to none",
                resolution=_INCOMPLETE,
            )
        return found


def _entries(fd: int, at: int, name: str) -> Iterator[tuple[Entry, int]]:
    """Each entry of the tar, and where its payload begins."""
    size = os.fstat(fd).st_size
    headers = _Headers(fd, name)
    records: dict[bytes, bytes] = {}
    names: dict[bytes, bytes] = {}
    for _ in range(_MOST_ENTRIES):
        block = headers.take(at, BLOCK)
        if not block or block == _ZEROS:
            return
        if len(block) < BLOCK:
            break
        try:
            entry = parse_header(block)
            payload = at + BLOCK
            if entry.type in b"xLKg":
                if entry.size > _LONGEST_EXTENSION:
                    raise MalformedImageError(f"{name}: an extended header is too long")
                data = headers.take(payload, entry.size)
                if entry.type == b"x":
                    records = parse_pax(data)
                elif entry.type != b"g":
                    names[entry.type] = data.split(b"\0", 1)[0]
            else:
                entry.name = names.get(b"L", entry.name)
                entry.link = names.get(b"K", entry.link)
                apply_pax(entry, records)
                if entry.type in b"123456":
                    entry.size = 0
                if payload + entry.size > size:
                    break
                yield entry, payload
                records, names = {}, {}
        except DiffError as error:
            raise MalformedImageError(
                f"{name} is no sound tar: {error}",
                resolution="is it an archive of an image? Get it again, it is damaged",
            ) from error
        at = payload + entry.size + -entry.size % BLOCK
    else:
        raise MalformedImageError(f"{name} holds more than {_MOST_ENTRIES} files")
    raise MalformedImageError(f"{name} breaks off", resolution=_INCOMPLETE)


class _Headers:
    """Bytes at a place: headers that follow each other are read together."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._data = b""
        self._start = 0

    def take(self, at: int, size: int) -> bytes:
        """The bytes there; fewer at the end of the file."""
        skip = at - self._start
        if not 0 <= skip <= len(self._data) - size:
            self._data = os.pread(self._fd, max(size, _BATCH), at)
            self._start, skip = at, 0
        return self._data[skip : skip + size]


class DirectoryFiles(Files):
    """The files below a directory; no symlink leads out of it.

    Args:
        path: the directory.

    Raises:
        OSError: there is none.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def find(self, name: str) -> Place | None:
        """See :meth:`Files.find`."""
        try:
            with self._open(name) as fd:
                size = os.fstat(fd).st_size
        except FileNotFoundError:
            return None
        return Place(partial(self._open, name), 0, size)

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        try:
            with self._handle(name) as handle:
                self._check(name, os.fstat(handle).st_mode)
                fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error
            if error.errno not in (errno.EXDEV, errno.ELOOP):
                raise
            raise self._outside(name) from error
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _handle(self, name: str) -> Iterator[int]:
        """What can only be looked at: to open a device does something, whatever comes of it."""
        directory, _, last = name.rpartition("/")
        with tree.opened_below(self._top, directory) as parent:
            fd = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            yield fd
        finally:
            os.close(fd)

    def _check(self, name: str, mode: int) -> None:
        if stat.S_ISLNK(mode):
            raise self._outside(name)
        if not stat.S_ISREG(mode):
            raise MalformedImageError(f"{name} in {self.name} is no regular file")

    def _outside(self, name: str) -> MalformedImageError:
        return MalformedImageError(f"{name} in {self.name} leads out of it")

    def close(self) -> None:
        """Close what is open."""
        os.close(self._top)
