"""The fields of a tar: numbers, names, PAX records, sparse maps. Pure, from bytes to values.

Formats: POSIX.1-2001 pax(1), ustar; GNU tar's ``tar.h`` and its manual, "Tar Internals"; star's
``SCHILY.xattr``. Everything is bytes: no field has an encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from zlib import adler32

from storagedrivers.errors import MalformedDiffError

BLOCK = 512
MAX_SPARSE_PARTS = 400_000  # a 100 GB disk image in pieces of 256 KiB

EXTENSIONS = b"xgLK"
"""Types of headers that extend the next one: PAX for it or for all, GNU's long name and link."""

XATTR_PREFIX = b"SCHILY.xattr."

_DECIMAL = re.compile(rb"-?[0-9]{1,20}")
_ENDS = b"\0 "
_USUAL = re.compile(
    rb"([0-7]{7})[\0 ]" * 3 + rb"([0-7]{11})[\0 ]" * 2 + rb"([0-7]{6})\0 (.)", re.DOTALL
)
"""Mode, owners, size, time, checksum and type, as nearly all writers have them."""
_OF_NO_USE = frozenset((b"atime", b"ctime"))  # which GNU tar writes for every entry
_SPARSE_KEYS = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


class Entry:
    """One entry of a tar; what it says, unchecked but for its syntax.

    Attributes:
        name: as written.
        type: the type flag, one byte.
        mode: permission bits.
        uid, gid: owners.
        size: bytes of payload that follow in the tar.
        mtime_ns: nanoseconds since the epoch.
        link: the target of a link.
        major, minor: of a device.
        xattrs: by name.
        sparse: for a sparse file, the (offset, length) of its parts in order; else None.
        real_size: what the file has on disk.
    """

    __slots__ = (
        "gid",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "size",
        "sparse",
        "type",
        "uid",
        "xattrs",
    )

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes] | None
    sparse: list[tuple[int, int]] | None
    real_size: int


def parse_header(block: bytes) -> Entry:
    """The fields of one header block.

    Raises:
        MalformedDiffError: the checksum is wrong, or a field is no number.
    """
    entry = Entry()
    entry.name = block[:100].split(b"\0", 1)[0]
    entry.major = entry.minor = 0
    usual = _USUAL.match(block, 100)
    if usual is None:
        _parse_numbers(entry, block)
    else:
        mode, uid, gid, size, mtime, checksum, entry.type = usual.groups()
        if _sum(block) != int(checksum, 8):
            check_checksum(block)
        entry.size = entry.real_size = int(size, 8)
        if entry.type in EXTENSIONS:  # half of all headers in some tars; the rest says nothing
            return entry
        entry.mode = int(mode, 8) & 0o7777
        entry.uid = int(uid, 8)
        entry.gid = int(gid, 8)
        entry.mtime_ns = int(mtime, 8) * 1_000_000_000
    if entry.type in b"34":
        _parse_device(entry, block)
    entry.link = block[157:257].split(b"\0", 1)[0] if block[157] else b""
    entry.xattrs = None
    entry.sparse = None
    if block[345] and block[257:263] == b"ustar\0":
        # star keeps times where ustar has the end of the prefix.
        prefix = block[345:476] if block[508:512] == b"tar\0" else block[345:500]
        entry.name = prefix.split(b"\0", 1)[0] + b"/" + entry.name
    return entry


def _parse_numbers(entry: Entry, block: bytes) -> None:
    """The numbers of a header that writes them in an unusual way."""
    check_checksum(block)
    entry.type = block[156:157]
    try:
        entry.mode = number(block[100:108]) & 0o7777
        entry.uid = number(block[108:116])
        entry.gid = number(block[116:124])
        entry.size = entry.real_size = number(block[124:136])
        entry.mtime_ns = number(block[136:148]) * 1_000_000_000
    except ValueError as error:
        raise _no_number(entry, error) from error
    if entry.size < 0:
        raise MalformedDiffError("its size is negative", entry=entry.name)


def _parse_device(entry: Entry, block: bytes) -> None:
    try:
        entry.major = number(block[329:337])
        entry.minor = number(block[337:345])
    except ValueError as error:
        raise _no_number(entry, error) from error


def _no_number(entry: Entry, error: ValueError) -> MalformedDiffError:
    return MalformedDiffError(f"a number of its header is none: {error}", entry=entry.name)


def check_checksum(block: bytes) -> None:
    """Check the header's sum.

    Raises:
        MalformedDiffError: it is another one.
    """
    try:
        expected = number(block[148:156])
    except ValueError:
        expected = -1
    if _sum(block) == expected:
        return
    filled = block[:148] + b"        " + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in filled)  # old tars of some systems
    if signed != expected:
        raise MalformedDiffError(
            "a header's checksum is wrong",
            entry=block[:100].split(b"\0", 1)[0],
            resolution="is it a tar? Get it again, it is damaged",
        )


def _sum(block: bytes) -> int:
    """The sum of a header's bytes, its checksum taken as spaces."""
    filled = block[:148] + b"        " + block[156:]
    # adler32's low half is 1 + the sum of the bytes, modulo 65521, which 256 bytes do not reach:
    # five times faster than sum().
    return (adler32(filled[:256]) & 0xFFFF) + (adler32(filled[256:]) & 0xFFFF) - 2


@lru_cache(maxsize=4096)  # modes, owners and times of one tar are few
def number(field: bytes) -> int:
    """A numeric field: octal digits, or base 256 where the first bit says so.

    Raises:
        ValueError: neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:  # two's complement behind the marking bit
            value -= 1 << (8 * len(field) - 1)
        return value
    if field[-1] in _ENDS and field[:-1].isdigit():  # nearly all of them
        return int(field[:-1], 8)
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError(repr(field)[1:])
    return int(digits, 8)


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX header; an old sparse map, whose keys repeat, as one ``GNU.sparse.map``.

    Raises:
        MalformedDiffError: a record's length lies, or it is none.
    """
    records: dict[bytes, bytes] = {}
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 11)
        digits = data[at:space] if space > at else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (key and equals and at < space < end <= len(data) and data[end - 1] == 0x0A):
            raise MalformedDiffError(
                f"PAX record at byte {at} is malformed: {data[at : at + 40]!r}"
            )
        at = end
        if key in _SPARSE_KEYS:
            if key != _SPARSE_KEYS[len(parts) % 2] or len(parts) > 2 * MAX_SPARSE_PARTS:
                raise MalformedDiffError("its sparse map is malformed")
            parts.append(value)
        else:
            records[key] = value
    if parts:
        records[b"GNU.sparse.map"] = b",".join(parts)
    return records


def apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    """Put PAX records in the place of what the header says.

    Raises:
        MalformedDiffError: a value that cannot be.
    """
    for key, value in records.items():
        if key in _OF_NO_USE:
            continue
        if key.startswith(XATTR_PREFIX):
            name = key[len(XATTR_PREFIX) :]
            if not name or b"\0" in name:
                raise MalformedDiffError("an extended attribute has no name", entry=entry.name)
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[name] = value
        elif not value:
            continue  # an empty value takes a global record back
        elif key == b"mtime":
            entry.mtime_ns = _time(entry, value)
        elif key == b"path":
            entry.name = _without_nul(entry, value)
        elif key == b"linkpath":
            entry.link = _without_nul(entry, value)
        elif key in (b"size", b"uid", b"gid"):
            setattr(entry, key.decode(), decimal(entry, value))
            if key == b"size":
                entry.real_size = entry.size


def _without_nul(entry: Entry, value: bytes) -> bytes:
    if b"\0" in value:
        raise MalformedDiffError(f"a NUL in the PAX name {value!r}", entry=entry.name)
    return value


def decimal(entry: Entry, value: bytes) -> int:
    """A number of a PAX record, not negative.

    Raises:
        MalformedDiffError: it is none.
    """
    if not _DECIMAL.fullmatch(value) or value.startswith(b"-"):
        raise MalformedDiffError(f"{value[:40]!r} is no number", entry=entry.name)
    return int(value)


def _time(entry: Entry, value: bytes) -> int:
    number, _, fraction = value.partition(b".")
    seconds = number.removeprefix(b"-")
    if not seconds.isdigit() or len(seconds) > 20 or not (b"0" + fraction).isdigit():
        raise MalformedDiffError(f"{value[:40]!r} is no time", entry=entry.name)
    nanoseconds = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return nanoseconds if number == seconds else -nanoseconds


def set_sparse(entry: Entry, numbers: Iterable[int], real_size: int) -> None:
    """Make *entry* a sparse file.

    Args:
        numbers: offset, length, offset, length, …

    Raises:
        MalformedDiffError: the parts overlap, leave the file, or are not as long as the payload.
    """
    flat = list(numbers)
    parts = list(zip(flat[::2], flat[1::2], strict=False))
    end = total = 0
    for offset, length in parts:
        if offset < end or length < 0:
            raise MalformedDiffError("its sparse map is not in order", entry=entry.name)
        end = offset + length
        total += length
    if len(flat) % 2 or end > real_size or total != entry.size:
        raise MalformedDiffError(
            f"its sparse map gives {total} bytes up to {end}, its size is {entry.size} of"
            f" {real_size}",
            entry=entry.name,
        )
    entry.sparse = parts
    entry.real_size = real_size
