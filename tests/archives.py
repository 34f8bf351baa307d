"""Tars from bytes: headers and records built field by field, so that each can be wrong.

Independent of ``storagedrivers.archive`` and of :mod:`tarfile`: a number may be given as an int,
and is written as POSIX or GNU tar would, or as bytes, and is written as it stands.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 512
END = bytes(2 * BLOCK)
TIME = 1_500_000_000
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = bytes(8)

Records = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]


def octal(value: int, width: int) -> bytes:
    """As POSIX has it: digits and a NUL."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """As GNU tar and star have it: two's complement behind a set bit."""
    field = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    field[0] = field[0] | 0x80
    return bytes(field)


def number(value: int | bytes, width: int) -> bytes:
    """A field: octal where that fits, else base 256; bytes are filled up with NULs."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    fits = 0 <= value < 8 ** (width - 1)
    return octal(value, width) if fits else base256(value, width)


def header(
    name: bytes,
    *,
    type: bytes = b"0",  # noqa: A002 - as POSIX calls it
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    size: int | bytes = 0,
    mtime: int | bytes = TIME,
    link: bytes = b"",
    magic: bytes = USTAR,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    checksum: bytes | None = None,
    tail: bytes | None = None,
) -> bytes:
    """One header block.

    Args:
        checksum: what stands in its place; the right one by default.
        tail: what stands from byte 345 on instead of *prefix*.
    """
    end = prefix.ljust(155, b"\0") + bytes(12) if tail is None else tail.ljust(167, b"\0")
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            number(mode, 8),
            number(uid, 8),
            number(gid, 8),
            number(size, 12),
            number(mtime, 12),
            b" " * 8,
            type,
            link.ljust(100, b"\0"),
            magic,
            b"root".ljust(32, b"\0"),
            b"root".ljust(32, b"\0"),
            number(major, 8),
            number(minor, 8),
            end,
        )
    )
    assert len(block) == BLOCK, f"a field of {name!r} is too long"
    return with_checksum(block, checksum)


def with_checksum(block: bytes, checksum: bytes | None = None) -> bytes:
    """The header with its sum, or with what is given for one."""
    blank = block[:148] + b" " * 8 + block[156:]
    right = b"%06o\0 " % sum(blank)
    return block[:148] + (right if checksum is None else checksum) + block[156:]


def padded(payload: bytes) -> bytes:
    """Filled up to whole blocks."""
    return payload + bytes(-len(payload) % BLOCK)


def _named(name: bytes, link: bytes) -> tuple[bytes, bytes, bytes]:
    """PAX header in front, and what the ustar fields hold, for names of any length."""
    records = [(key, value) for key, value in ((b"path", name), (b"linkpath", link))]
    long = [(key, value) for key, value in records if len(value) > 100]
    return (pax(long) if long else b""), name[:100], link[:100]


def entry(name: bytes, payload: bytes = b"", *, link: bytes = b"", **fields: object) -> bytes:
    """A header, with its payload; names beyond 100 bytes go to a PAX header."""
    front, name, link = _named(name, link)
    fields.setdefault("size", len(payload))
    return front + header(name, link=link, **fields) + padded(payload)  # type: ignore[arg-type]


def file(name: bytes, content: bytes = b"", **fields: object) -> bytes:
    """A regular file."""
    return entry(name, content, **fields)


def directory(name: bytes, **fields: object) -> bytes:
    """A directory; *name* ends in a slash where that is wanted."""
    return entry(name, **{"type": b"5", "mode": 0o755, **fields})  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """A symbolic link."""
    return entry(name, link=target, **{"type": b"2", "mode": 0o777, **fields})  # type: ignore[arg-type]


def hard_link(name: bytes, target: bytes, **fields: object) -> bytes:
    """One more name of an entry."""
    return entry(name, link=target, **{"type": b"1", **fields})  # type: ignore[arg-type]


def fifo(name: bytes, **fields: object) -> bytes:
    """A named pipe."""
    return entry(name, **{"type": b"6", **fields})  # type: ignore[arg-type]


def device(name: bytes, major: int | bytes, minor: int | bytes, **fields: object) -> bytes:
    """A device, a character device unless another type is given."""
    return entry(name, **{"type": b"3", "major": major, "minor": minor, **fields})  # type: ignore[arg-type]


def pax_record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE`` and a newline, the length counting itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def pax(records: Records | bytes, *, everywhere: bool = False, **fields: object) -> bytes:
    """A PAX header for the next entry, or for all that follow; bytes stand for records as is."""
    if isinstance(records, bytes):
        data = records
    else:
        pairs = records.items() if isinstance(records, Mapping) else records
        data = b"".join(pax_record(key, value) for key, value in pairs)
    fields = {"type": b"g" if everywhere else b"x", "size": len(data), **fields}
    return header(b"PaxHeaders/0", **fields) + padded(data)  # type: ignore[arg-type]


def gnu_long(name: bytes, *, link: bool = False, **fields: object) -> bytes:
    """GNU tar's way to give the next entry a long name, or a long target."""
    data = name + b"\0"
    fields = {"type": b"K" if link else b"L", "size": len(data), "magic": GNU, **fields}
    return header(b"././@LongLink", **fields) + padded(data)  # type: ignore[arg-type]


Parts = Sequence[tuple[int | bytes, int | bytes]]


def old_gnu_sparse(
    name: bytes, parts: Parts, payload: bytes, real_size: int | bytes, **fields: object
) -> bytes:
    """A sparse file as GNU tar wrote it until 1.13: the map in the header, and in blocks behind."""
    tail = bytes(41) + _sparse_fields(parts[:4], 4)
    tail += (b"\1" if len(parts) > 4 else b"\0") + number(real_size, 12)
    blocks = []
    for at in range(4, len(parts), 21):
        more = b"\1" if len(parts) > at + 21 else b"\0"
        blocks.append(_sparse_fields(parts[at : at + 21], 21) + more + bytes(7))
    fields = {"type": b"S", "size": len(payload), "magic": GNU, **fields}
    return header(name, tail=tail, **fields) + b"".join(blocks) + padded(payload)  # type: ignore[arg-type]


def _sparse_fields(parts: Parts, room: int) -> bytes:
    data = b"".join(number(offset, 12) + number(length, 12) for offset, length in parts)
    return data.ljust(room * 24, b"\0")


def _plain(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value


def pax_sparse_00(name: bytes, parts: Parts, payload: bytes, real_size: int | bytes) -> bytes:
    """A sparse file in PAX format 0.0: a pair of records for each part."""
    records = [(b"GNU.sparse.size", _plain(real_size))]
    records.append((b"GNU.sparse.numblocks", b"%d" % len(parts)))
    for offset, length in parts:
        records.append((b"GNU.sparse.offset", _plain(offset)))
        records.append((b"GNU.sparse.numbytes", _plain(length)))
    return pax(records) + file(name, payload)


def pax_sparse_01(
    name: bytes, parts: Parts, payload: bytes, real_size: int | bytes, *, count: bytes | None = None
) -> bytes:
    """A sparse file in PAX format 0.1: the map in one record."""
    flat = b",".join(_plain(value) for part in parts for value in part)
    records = {
        b"GNU.sparse.name": name,
        b"GNU.sparse.size": _plain(real_size),
        b"GNU.sparse.numblocks": b"%d" % len(parts) if count is None else count,
        b"GNU.sparse.map": flat,
    }
    return pax(records) + file(b"GNUSparseFile.0/f", payload)


def pax_sparse_10(
    name: bytes,
    parts: Parts,
    payload: bytes,
    real_size: int | bytes,
    *,
    map_text: bytes | None = None,
    **fields: object,
) -> bytes:
    """A sparse file in PAX format 1.0: the map in front of the payload."""
    if map_text is None:
        values = [b"%d" % len(parts), *(_plain(value) for part in parts for value in part)]
        map_text = b"".join(value + b"\n" for value in values)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": _plain(real_size),
    }
    return pax(records) + file(b"GNUSparseFile.0/f", padded(map_text) + payload, **fields)


def xattrs(values: Mapping[bytes, bytes], **more: bytes) -> bytes:
    """A PAX header with extended attributes, as star, GNU tar, Go and libarchive write them."""
    records = {b"SCHILY.xattr." + key: value for key, value in values.items()}
    records.update({key.encode(): value for key, value in more.items()})
    return pax(records)


def tar(*parts: bytes, end: bytes = END) -> bytes:
    """The parts, and the end mark."""
    return b"".join(parts) + end


def compressed(data: bytes, compression: str) -> bytes:
    """As gzip, zstd, xz or bzip2."""
    return {
        "none": lambda data: data,
        "gzip": lambda data: gzip.compress(data, mtime=0),
        "zstd": zstd.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
    }[compression](data)


class Lazy(io.RawIOBase):
    """A stream whose bytes are made while they are read; knows how many were.

    Attributes:
        taken: bytes that were read so far.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(piece)] = piece
        self.taken += len(piece)
        return len(piece)
