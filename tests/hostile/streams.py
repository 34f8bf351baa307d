"""Streams that break off, are damaged, or never end."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import repeat

from archives import Lazy, compressed, directory, file, hard_link, header, pax, symlink, tar

from hostile import Hostile
from storagedrivers.errors import DiffError, DiffLimitError, MalformedDiffError
from storagedrivers.model import Limits

_SMALL = Limits(entries=1000, bytes=16 << 20)
_COMPRESSIONS = ("gzip", "zstd", "xz", "bzip2")


def plain() -> bytes:
    """A tar with something of everything, that no compression makes tiny."""
    noise = bytes((n * n * 31 + n * 7) % 251 for n in range(5000))
    return tar(
        directory(b"d/"),
        pax({b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"b"}) + file(b"d/f", noise),
        symlink(b"d/s", b"f"),
        hard_link(b"d/h", b"d/f"),
    )


def _cut() -> list[Hostile]:
    data = plain()
    found = []
    for how, length in (
        ("in its first header", 100),
        ("in a PAX header's own header", 512 + 200),
        ("before a PAX header's records", 1024),
        ("in a PAX header's records", 1024 + 20),
        ("in the padding of PAX records", 1024 + 300),
        ("after a PAX header", 1536),
        ("in a header", 1536 + 511),
        ("after a header with content", 2048),
        ("in content", 2048 + 3000),
        ("a byte before the end of content", 2048 + 4999),
        ("in the padding of content", 2048 + 5060),
        ("a byte before the end of the padding", 2048 + 5119),
        ("in the middle of a link's header", 2048 + 5120 + 256),
    ):
        found.append(
            Hostile(
                f"broken off {how}",
                lambda _, length=length: data[:length],
                MalformedDiffError,
                "half a layer is taken for a whole one",
            )
        )
    for compression in _COMPRESSIONS:
        whole = compressed(data, compression)
        for how, length in (
            ("after its magic", 7),
            ("in its header", 10),
            ("in the middle", len(whole) // 2),
            ("before its trailer", len(whole) - 8),
            ("a byte before its end", len(whole) - 1),
        ):
            found.append(
                Hostile(
                    f"{compression} broken off {how}",
                    lambda _, whole=whole, length=length: whole[:length],
                    MalformedDiffError,
                    "half a layer is taken for a whole one",
                )
            )
    return found


def _flipped() -> list[Hostile]:
    found = []
    data = plain()
    for compression in _COMPRESSIONS:
        whole = compressed(data, compression)
        for share in (3, 5, 8):
            at = len(whole) * share // 10
            damaged = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
            found.append(
                Hostile(
                    f"{compression} with a bit flipped at {share}/10",
                    lambda _, damaged=damaged: damaged,
                    # zstd has no checksum by default: then the tar's own must notice, or nothing.
                    DiffError if compression != "zstd" else (DiffError, type(None)),  # type: ignore[arg-type]
                    "another tar than the one that was packed comes out",
                )
            )
    for at in (0, 3, 124, 130, 149, 156, 257, 400):
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        found.append(
            Hostile(
                f"header with a bit flipped at {at}",
                lambda _, damaged=damaged: damaged,
                MalformedDiffError,
                "a damaged header is believed",
            )
        )
    return found


def _wrong() -> list[Hostile]:
    return [
        Hostile(
            f"no tar: {how}", lambda _, data=data: data, MalformedDiffError, "it is taken for one"
        )
        for how, data in (
            ("text", b"hello, this is no tar at all\n" * 40),
            ("HTML", b"<!DOCTYPE html><title>404</title>" * 40),
            ("ZIP", b"PK\x03\x04" + bytes(600)),
            ("one byte", b"x"),
            ("ELF", b"\x7fELF" + bytes(range(256)) * 4),
            ("gzip of text", gzip.compress(b"hello, this is no tar\n" * 100)),
            ("gzip of gzip", gzip.compress(gzip.compress(plain()))),
            ("gzip magic alone", b"\x1f\x8b"),
            ("gzip magic and garbage", b"\x1f\x8b" + b"garbage" * 100),
            ("zstd magic and garbage", b"\x28\xb5\x2f\xfd" + b"garbage" * 100),
            ("xz magic and garbage", b"\xfd7zXZ\x00" + b"garbage" * 100),
            ("bzip2 magic and garbage", b"BZh9" + b"garbage" * 100),
            ("gzip and garbage behind", gzip.compress(plain()) + b"garbage" * 10),
            ("LZMA alone", b"\x5d\0\0\x80\0" + b"\xff" * 8 + b"garbage" * 20),
            # A frame of a window of 2^41 bytes: RFC 8878 3.1.1.1.2.
            ("zstd with a huge window", b"\x28\xb5\x2f\xfd\x00\xf8" + b"\x01\x00\x00" * 50),
        )
    ]


def _entries_without_end() -> Lazy:
    return Lazy(file(b"f%d" % n) for n in range(1 << 40))


def _directories_without_end() -> Lazy:
    return Lazy(directory(b"d%d/d/d/" % n) for n in range(1 << 40))


def _duplicates_without_end() -> Lazy:
    block = file(b"same", b"x")
    return Lazy(block * 100 for _ in range(1 << 40))


def _pax_without_end() -> Lazy:
    block = pax({b"comment": b"x"})
    return Lazy(repeat(block * 100, 1 << 40))


def _global_pax_without_end() -> Lazy:
    return Lazy(pax({b"k%d" % n: b"v" * 300}, everywhere=True) for n in range(1 << 40))


def _whiteouts_without_end() -> Lazy:
    return Lazy(file(b".wh.f%d" % n) for n in range(1 << 40))


def _content_without_end() -> Lazy:
    def pieces() -> Iterator[bytes]:
        yield header(b"big", size=(1 << 33) - 1)
        yield from repeat(b"\0" * (1 << 20), 1 << 40)

    return Lazy(pieces())


def _zeros_without_end() -> Lazy:
    """After the end mark."""

    def pieces() -> Iterator[bytes]:
        yield tar(file(b"f", b"x"))
        yield from repeat(bytes(1 << 20), 1 << 40)

    return Lazy(pieces())


def _bomb(compression: str) -> Lazy:
    """Members or frames of 1 MiB of zeros, without end, behind a header for content."""
    head = compressed(header(b"big", size=(1 << 33) - 1), compression)
    member = compressed(bytes(1 << 20), compression)

    def pieces() -> Iterator[bytes]:
        yield head
        yield from repeat(member, 1 << 40)

    return Lazy(pieces())


def _empty_members() -> Lazy:
    """Compressed members that hold nothing, without end: bytes come, and no tar."""
    return Lazy(repeat(gzip.compress(b"", mtime=0) * 50, 400))


def _slow() -> Lazy:
    """A byte at a time."""
    data = plain()
    return Lazy(data[at : at + 1] for at in range(len(data)))


def _without_end(name: str, make, never: str = "memory or disk is filled"):  # type: ignore[no-untyped-def]
    return Hostile(name, lambda _: make(), DiffLimitError, never, limits=_SMALL)


ARCHIVES = [
    *_cut(),
    *_flipped(),
    *_wrong(),
    _without_end("files without end", _entries_without_end),
    _without_end("directories without end", _directories_without_end),
    _without_end("duplicates without end", _duplicates_without_end),
    _without_end("whiteouts without end", _whiteouts_without_end),
    _without_end("PAX headers without end", _pax_without_end),
    _without_end("global PAX headers without end", _global_pax_without_end),
    _without_end("content without end", _content_without_end),
    _without_end("zeros without end after the end mark", _zeros_without_end),
    *(
        _without_end(f"{name} bomb", lambda name=name: _bomb(name))
        for name in ("gzip", "zstd", "xz", "bzip2")
    ),
    Hostile(
        "gzip members of nothing",
        lambda _: _empty_members(),
        MalformedDiffError,  # not one byte came out
        "each takes memory",
    ),
    Hostile("a byte at a time", lambda _: _slow(), None, "a short read is taken for the end"),
]
