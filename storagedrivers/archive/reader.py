"""Cuts a stream into the entries of a tar: ustar, PAX, GNU names and sparse files, old headers.

Every byte goes to one of two places: payloads to whoever asks for them, all others (and payloads
that nobody asked for) to ``literal``, in order. So whoever keeps those and the payloads has the
whole tar.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol

from storagedrivers.archive.header import (
    BLOCK,
    EXTENSIONS,
    MAX_SPARSE_PARTS,
    XATTR_PREFIX,
    Entry,
    apply_pax,
    decimal,
    number,
    parse_header,
    parse_pax,
    set_sparse,
)
from storagedrivers.errors import DiffError, DiffLimitError, MalformedDiffError

_MAX_EXTENSION = 4 << 20  # bytes of a PAX header or a long name: xattrs may take 64 KiB each
_MAX_GLOBAL = 1 << 20  # bytes of all global PAX records
_MEANT = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", XATTR_PREFIX)
_ZEROS = bytes(BLOCK)
_NO_PAYLOAD = b"123456"  # links, devices, directories, fifos: their size means nothing
_MAX_SPARSE_BLOCKS = MAX_SPARSE_PARTS // 21  # as many parts are in one
_OLD_SPARSE_PART = 24  # bytes: an offset and a length
_MAX_TIME = 1_000_000_000 << 63  # nanoseconds; the kernel's seconds have 64 bits
_TRUNCATED = "get it again, it is incomplete"


class Pieces(Protocol):
    """Where the bytes come from."""

    def next_piece(self) -> bytes:
        """The next bytes; none at the end."""


class Reader:
    """One pass over one tar.

    Attributes:
        entry: the entry at hand, for messages.
        count: headers so far.
    """

    def __init__(
        self, source: Pieces, *, literal: Callable[[bytes], object], max_entries: int
    ) -> None:
        self.entry: Entry | None = None
        self.count = 0
        self._source = source
        self._literal = literal
        self._max_entries = max_entries
        self._piece = b""
        self._at = 0
        self._told = 0  # up to here the piece went to *literal*, or is payload
        self._left = 0  # payload of the entry that nobody asked for yet
        self._padding = 0
        self._global: dict[bytes, bytes] = {}

    def entries(self) -> Iterator[Entry]:
        """The entries in order; each payload is to be taken before the next one.

        Raises:
            DiffError: it is no tar, breaks off, or holds too many entries.
        """
        local: dict[bytes, bytes] = {}
        name = link = None
        while (block := self._next_header()) is not None:
            entry = self.entry = self._parse_header(block)
            kind = entry.type
            if kind in EXTENSIONS:
                data = self._extension(entry)
                if kind == b"x":
                    local = self._parse(entry, data)
                elif kind == b"g":
                    self._set_global(self._parse(entry, data))
                elif kind == b"L":
                    name = data.split(b"\0", 1)[0]
                else:
                    link = data.split(b"\0", 1)[0]
                continue
            if name is not None:
                entry.name = name
            if link is not None:
                entry.link = link
            if local or self._global:
                apply_pax(entry, {**self._global, **local} if self._global else local)
            self._expect_payload(entry)
            if kind == b"S":
                self._read_old_sparse(entry, block)
            elif b"GNU.sparse.major" in local or b"GNU.sparse.size" in local:
                self._read_pax_sparse(entry, local)
            local = {}
            name = link = None
            yield entry
            if self._left or self._padding:
                self._skip_rest()
        if local or name is not None or link is not None:
            raise MalformedDiffError("it ends behind an extended header", resolution=_TRUNCATED)
        self._drain()

    def tell(self) -> None:
        """Give *literal* what came before: what follows is not for it."""
        if self._told < self._at:
            self._literal(self._piece[self._told : self._at])
            self._told = self._at

    def copy_payload(self, fd: int) -> None:
        """Write the payload of the entry at hand to the file *fd*, at its parts' places."""
        self.tell()
        entry = self.entry
        assert entry is not None
        if entry.sparse is None:
            self._copy(fd, self._left)
        else:
            for offset, length in entry.sparse:
                os.lseek(fd, offset, os.SEEK_SET)
                self._copy(fd, length)
            os.ftruncate(fd, entry.real_size)

    def _copy(self, fd: int, length: int) -> None:
        self._left -= length
        while length:
            at = self._at
            available = len(self._piece) - at
            if available == 0:
                self._next_piece()
                continue
            count = min(available, length)
            view = memoryview(self._piece)[at : at + count]
            self._at = self._told = at + count
            length -= count
            while (written := os.write(fd, view)) < len(view):
                view = view[written:]

    def _next_header(self) -> bytes | None:
        if self._at == len(self._piece) and not self._more():
            return None  # some writers leave the end marker out
        block = self._take(BLOCK)
        if not block[0] and block == _ZEROS:
            if self._at == len(self._piece) and not self._more():
                return None
            if self._take(BLOCK) != _ZEROS:
                raise MalformedDiffError("a lone block of zeros stands among its headers")
            return None
        self.count += 1
        if self.count > self._max_entries:
            raise DiffLimitError(
                f"the tar holds more than {self._max_entries} entries",
                resolution="raise the limit if you trust where it comes from",
            )
        return block

    def _parse_header(self, block: bytes) -> Entry:
        try:
            return parse_header(block)
        except MalformedDiffError as error:
            if self.count > 1 or block[257:262] == b"ustar":
                raise
            raise MalformedDiffError(
                "it is no tar, plain or compressed with gzip, zstd, xz or bzip2",
                details=error.brief,
            ) from error

    def _expect_payload(self, entry: Entry) -> None:
        if entry.size >> 63:
            raise MalformedDiffError(f"its size is {entry.size}", entry=entry.name)
        if not -_MAX_TIME <= entry.mtime_ns < _MAX_TIME:
            raise MalformedDiffError(
                f"its time is {entry.mtime_ns // 1_000_000_000} seconds", entry=entry.name
            )
        self._left = 0 if entry.type in _NO_PAYLOAD else entry.size
        self._padding = -self._left % BLOCK

    def _skip_rest(self) -> None:
        """What nobody took of a payload, and the padding behind it."""
        while self._left:
            self._left -= self._pass(self._left)
        padding, self._padding = self._padding, 0
        if padding and self._at == len(self._piece) and not self._more():
            return  # `umoci insert` ends a layer behind the last payload
        while padding:
            padding -= self._pass(padding)

    def _extension(self, entry: Entry) -> bytes:
        """The payload of a header that extends the next one."""
        if not 0 <= entry.size <= _MAX_EXTENSION:
            raise MalformedDiffError(
                f"an extended header takes {entry.size} bytes, and {_MAX_EXTENSION} are let in",
                entry=entry.name,
            )
        return self._take(entry.size + -entry.size % BLOCK)[: entry.size]

    def _parse(self, entry: Entry, data: bytes) -> dict[bytes, bytes]:
        try:
            return parse_pax(data)
        except DiffError as error:
            raise type(error)(error.brief, entry=entry.name) from error

    def _set_global(self, records: dict[bytes, bytes]) -> None:
        self._global.update((key, records[key]) for key in records if key.startswith(_MEANT))
        if sum(len(key) + len(value) for key, value in self._global.items()) > _MAX_GLOBAL:
            raise MalformedDiffError(f"global PAX records take more than {_MAX_GLOBAL} bytes")

    # Sparse files: "Storing Sparse Files" in GNU tar's manual

    def _read_old_sparse(self, entry: Entry, block: bytes) -> None:
        numbers: list[int] = []
        table, more = block[386:482], block[482]
        try:
            real_size = number(block[483:495])
            for _ in range(_MAX_SPARSE_BLOCKS):
                for at in range(0, len(table) - _OLD_SPARSE_PART + 1, _OLD_SPARSE_PART):
                    if not table[at]:  # an unused place
                        break
                    numbers.append(number(table[at : at + 12]))
                    numbers.append(number(table[at + 12 : at + 24]))
                if not more:
                    break
                table = self._take(BLOCK)
                table, more = table[:504], table[504]
            else:
                raise MalformedDiffError("its sparse map is too long", entry=entry.name)
        except ValueError as error:
            raise MalformedDiffError(f"its sparse map: {error}", entry=entry.name) from error
        set_sparse(entry, numbers, real_size)

    def _read_pax_sparse(self, entry: Entry, records: dict[bytes, bytes]) -> None:
        if b"GNU.sparse.name" in records:
            entry.name = records[b"GNU.sparse.name"]
        size = records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size", b""))
        if b"GNU.sparse.major" not in records:  # formats 0.0 and 0.1
            fields = records.get(b"GNU.sparse.map", b"").split(b",")
            if len(fields) > 2 * MAX_SPARSE_PARTS:
                raise MalformedDiffError("its sparse map is too long", entry=entry.name)
            numbers = [decimal(entry, field) for field in fields] if fields != [b""] else []
        elif (records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")) == (b"1", b"0"):
            numbers = self._read_sparse_map(entry)
        else:
            raise MalformedDiffError("its sparse format is unknown", entry=entry.name)
        set_sparse(entry, numbers, decimal(entry, size))

    def _read_sparse_map(self, entry: Entry) -> list[int]:
        """Format 1.0: the map stands before the data, a decimal number a line, padded."""
        data = bytearray()
        lines, found = 1, 0
        while found < lines:
            if self._left < BLOCK or len(data) > 40 * MAX_SPARSE_PARTS:
                raise MalformedDiffError("its sparse map breaks off", entry=entry.name)
            block = self._take(BLOCK)
            self._left -= BLOCK
            entry.size -= BLOCK
            data += block
            found += block.count(b"\n")
            if lines == 1 and found:
                lines = 1 + 2 * decimal(entry, bytes(data.partition(b"\n")[0]))
                if lines > 2 * MAX_SPARSE_PARTS:
                    raise MalformedDiffError("its sparse map is too long", entry=entry.name)
        return [decimal(entry, field) for field in bytes(data).split(b"\n")[1:lines]]

    # Bytes

    def _more(self) -> bool:
        """Whether there is another piece."""
        self.tell()
        self._piece = self._source.next_piece()
        self._at = self._told = 0
        return bool(self._piece)

    def _next_piece(self) -> None:
        if not self._more():
            name = self.entry.name if self.entry else None
            raise MalformedDiffError("the tar breaks off", entry=name, resolution=_TRUNCATED)

    def _take(self, length: int) -> bytes:
        """Exactly *length* bytes, which are no payload."""
        at = self._at
        data = self._piece[at : at + length]
        self._at = at + len(data)
        if len(data) == length:
            return data
        parts, missing = [data], length - len(data)
        while missing:  # pieces may be as short as a byte
            self._next_piece()
            parts.append(self._piece[:missing])
            self._at = len(parts[-1])
            missing -= self._at
        return b"".join(parts)

    def _pass(self, limit: int) -> int:
        """Pass over at least one and at most *limit* bytes, which are no payload; says how many."""
        if self._at == len(self._piece):
            self._next_piece()
        count = min(limit, len(self._piece) - self._at)
        self._at += count
        return count

    def _drain(self) -> None:
        """What follows the end marker belongs to the tar's digest too."""
        while self._at < len(self._piece) or self._more():
            self._pass(len(self._piece))
        self.tell()
