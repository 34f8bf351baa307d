"""Writes the tar of ``docs/canonical-diff.md``: one way to say each thing. Bytes only, no tree.

What is written is joined into pieces of a MiB: a call for each header would take most of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

from storagedrivers.archive.header import BLOCK, XATTR_PREFIX
from storagedrivers.archive.output import BUFFER, Output, Write
from storagedrivers.errors import DiffError
from storagedrivers.linux import copy

REGULAR, HARD_LINK, SYMLINK = b"0", b"1", b"2"
CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"


_ZEROS = bytes(BUFFER)
_SECOND = 1_000_000_000
_MAX_NAME, _MAX_PREFIX = 100, 155  # bytes; of ustar's fields
_MAX_SMALL, _MAX_LARGE = 8**7 - 1, 8**11 - 1  # of its numbers
_PAX_NAME = b"././@PaxHeader"
_HALF = 250  # bytes of which the sum is below adler32's modulus, whatever they are


class Header(NamedTuple):
    """What a tar says of one entry.

    Attributes:
        name: the path; a directory's with a slash at its end.
        type: the type flag.
        mode: permission bits.
        uid, gid: owners.
        size: bytes of payload.
        mtime_ns: nanoseconds since the epoch.
        link: the target of a link.
        major, minor: of a device.
        xattrs: by name.
        records: other PAX records.
    """

    name: bytes
    type: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] | None = None
    records: Mapping[bytes, bytes] | None = None


class TarWriter:
    """Headers and payloads, in order; ``finish`` writes the end."""

    def __init__(self, write: Write) -> None:
        self._output = Output(write)

    def header(self, header: Header) -> None:
        """The next entry; *size* bytes of payload have to follow."""
        self._output.put(encode(header))

    def payload(self, fd: int, size: int, name: bytes, *, holes: bool) -> None:
        """The first *size* bytes of the file *fd*, and what fills up its last block.

        Args:
            holes: the file may have some; they are not read.

        Raises:
            DiffError: the file is shorter.
        """
        at = 0
        for start, end in copy.data_segments(fd, size) if holes else ((0, size),):
            self._zeros(start - at)
            at = end
            self._copy(fd, start, end, name)
        self._zeros(size - at + -size % BLOCK)

    def parts(self, fd: int, table: bytes, parts: Iterable[tuple[int, int]], name: bytes) -> None:
        """The payload of a file with holes: the table of its *parts*, and those alone.

        Raises:
            DiffError: the file is shorter.
        """
        self._output.put(table)
        size = 0
        for start, end in parts:
            self._copy(fd, start, end, name)
            size += end - start
        self._zeros(-size % BLOCK)

    def _copy(self, fd: int, start: int, end: int, name: bytes) -> None:
        if not self._output.copy(fd, start, end - start):
            raise DiffError(
                "it became shorter while it was read",
                entry=name,
                resolution="stop what writes to it, or seal the layer first",
            )

    def finish(self) -> None:
        """Write the end and what is still held back."""
        self._output.put(_ZEROS[: 2 * BLOCK])
        self._output.flush()

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._output.put(_ZEROS[:count])
            count -= BUFFER


def encode(header: Header) -> bytes:
    """The blocks of one entry's header, with a PAX header before it where ustar cannot say it."""
    name, link = header.name, header.link
    seconds, fraction = divmod(header.mtime_ns, _SECOND)
    if (
        fraction
        or header.xattrs
        or header.records
        or len(name) > _MAX_NAME
        or len(link) > _MAX_NAME
        or not 0 <= seconds <= _MAX_LARGE
        or header.size > _MAX_LARGE
        or header.uid > _MAX_SMALL
        or header.gid > _MAX_SMALL
    ):
        return _encode_extended(header)
    return _block(header, name, seconds, _tail(header.type, link, header.major, header.minor, b""))


def _encode_extended(header: Header) -> bytes:
    records: dict[bytes, bytes] = dict(header.records or {})
    for key, value in (header.xattrs or {}).items():
        records[XATTR_PREFIX + key] = value
    seconds, fraction = divmod(header.mtime_ns, _SECOND)
    if fraction or not 0 <= seconds <= _MAX_LARGE:
        records[b"mtime"] = _time(header.mtime_ns)
        seconds = min(max(seconds, 0), _MAX_LARGE)
    for key, number, most in (
        (b"gid", header.gid, _MAX_SMALL),
        (b"size", header.size, _MAX_LARGE),
        (b"uid", header.uid, _MAX_SMALL),
    ):
        if number > most:
            records[key] = b"%d" % number
    prefix, name = split_name(header.name)
    if not name:
        records[b"path"] = header.name
        name = header.name[:_MAX_NAME]
    if len(header.link) > _MAX_NAME:
        records[b"linkpath"] = header.link
    link = header.link[:_MAX_NAME]
    block = _block(
        header, name, seconds, _tail(header.type, link, header.major, header.minor, prefix)
    )
    return _pax(records) + block if records else block


def split_name(name: bytes) -> tuple[bytes, bytes]:
    """A name as ustar's prefix and name; both empty where it does not fit.

    The prefix is as long as can be.
    """
    if len(name) <= _MAX_NAME:
        return b"", name
    cut = name.rfind(b"/", 0, min(_MAX_PREFIX + 1, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > _MAX_NAME:
        return b"", b""
    return name[:cut], name[cut + 1 :]


def _time(mtime_ns: int) -> bytes:
    """Decimal seconds: the sign, and no digit that says nothing."""
    seconds, fraction = divmod(abs(mtime_ns), _SECOND)
    text = b"%d.%09d" % (seconds, fraction)
    return (b"-" if mtime_ns < 0 else b"") + text.rstrip(b"0").rstrip(b".")


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    """A PAX header with *records*, sorted."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    block = _block(
        Header(_PAX_NAME, b"x", size=len(data)), _PAX_NAME, 0, _tail(b"x", b"", 0, 0, b"")
    )
    return block + data + _ZEROS[: -len(data) % BLOCK]


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE`` and a newline: the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _block(header: Header, name: bytes, seconds: int, tail: tuple[bytes, int]) -> bytes:
    _, _, mode, uid, gid, size, *_ = header
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(_MAX_NAME, b"\0"),
        mode,
        uid if uid <= _MAX_SMALL else 0,
        gid if gid <= _MAX_SMALL else 0,
        size if size <= _MAX_LARGE else 0,
        seconds,
    )
    return b"%b%06o\0 %b" % (head, _sum(head) + tail[1], tail[0])


@lru_cache(maxsize=256)
def _tail(kind: bytes, link: bytes, major: int, minor: int, prefix: bytes) -> tuple[bytes, int]:
    """What follows the checksum in a header; and its sum, with that of the checksum's blanks."""
    tail = b"%b%bustar\x0000%b%07o\0%07o\0%b" % (
        kind,
        link.ljust(_MAX_NAME, b"\0"),
        bytes(64),  # names of the owners
        major,
        minor,
        prefix.ljust(_MAX_PREFIX + 12, b"\0"),
    )
    return tail, _sum(tail[:_HALF]) + _sum(tail[_HALF:]) + 8 * ord(" ")


def _sum(data: bytes) -> int:
    """Of at most 250 bytes: adler32's low half is 1 + that, modulo 65521, and faster."""
    return (adler32(data) & 0xFFFF) - 1
