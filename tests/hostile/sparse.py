"""Sparse maps that lie."""

from __future__ import annotations

from itertools import repeat

from archives import (
    GNU,
    Lazy,
    base256,
    file,
    old_gnu_sparse,
    pax,
    pax_sparse_00,
    pax_sparse_01,
    pax_sparse_10,
    tar,
)

from hostile import Hostile
from storagedrivers.errors import DiffError, MalformedDiffError
from storagedrivers.model import Limits

_F = b"the-file"
_NEVER = "bytes are written where the map does not say, or memory for the map is taken"

_FORMS = (
    ("old GNU", old_gnu_sparse),
    ("PAX 0.0", pax_sparse_00),
    ("PAX 0.1", pax_sparse_01),
    ("PAX 1.0", pax_sparse_10),
)

_LIES = {
    "that overlaps": ([(0, 512), (256, 512)], 1024, 8192),
    "out of order": ([(4096, 512), (0, 512)], 1024, 8192),
    "beyond the real size": ([(0, 512), (8000, 512)], 1024, 8192),
    "wholly beyond the real size": ([(100_000, 512)], 512, 8192),
    "with more than the payload": ([(0, 512), (4096, 512)], 512, 8192),
    "with less than the payload": ([(0, 512)], 1024, 8192),
    "with a part of an exabyte": ([(0, 1 << 60)], 512, 1 << 61),
    "that begins at an exabyte": ([(1 << 60, 512)], 512, 8192),
    "that ends beyond 2^63": ([((1 << 63) - 100, 512)], 512, (1 << 63) + 412),
    "with a real size of 2^62": ([(0, 512)], 512, 1 << 62),
    "with a real size of 2^64": ([(0, 512)], 512, 1 << 64),
    "with the same part twice": ([(0, 512), (0, 512)], 1024, 8192),
}


def _maps() -> list[Hostile]:
    found = []
    for form, make in _FORMS:
        for how, (parts, length, size) in _LIES.items():
            data = tar(make(_F, parts, b"x" * length, size))
            found.append(Hostile(f"{form} map {how}", lambda _, data=data: data, DiffError, _NEVER))
        negative = base256(-512, 12) if form == "old GNU" else b"-512"
        for how, parts in (
            ("with a negative offset", [(negative, 512)]),
            ("with a negative length", [(0, negative), (0, 512)]),
        ):
            data = tar(make(_F, parts, b"x" * 512, 8192))
            found.append(Hostile(f"{form} map {how}", lambda _, data=data: data, DiffError, _NEVER))
        data = tar(make(_F, [(0, 512)], b"x" * 512, negative))
        found.append(
            Hostile(f"{form} negative real size", lambda _, data=data: data, DiffError, _NEVER)
        )
        data = tar(make(b"../escaped", [(0, 512)], b"x" * 512, 8192))
        found.append(
            Hostile(f"{form} climbing name", lambda _, data=data: data, DiffError, "it is written")
        )
    return found


def _endless_extension() -> Lazy:
    """Each block of the map says that one more follows."""
    parts = [(n * 512, 0) for n in range(25)]
    entry = old_gnu_sparse(_F, parts, b"", 1 << 40)
    more = bytes(504) + b"\1" + bytes(7)

    def pieces():  # type: ignore[no-untyped-def]
        yield entry[:512]
        yield from repeat(more * 2048, 1 << 30)

    return Lazy(pieces())


def _endless_map() -> Lazy:
    """A PAX 1.0 map that says 2^60 parts, and gives them."""
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": _F,
        b"GNU.sparse.realsize": b"%d" % (1 << 50),
    }

    def pieces():  # type: ignore[no-untyped-def]
        yield pax(records) + file(b"f", size=base256(1 << 50, 12)) + b"%d\n" % (1 << 60)
        yield from repeat(b"0\n0\n" * 262_144, 1 << 30)

    return Lazy(pieces())


def _text(name: str, text: bytes) -> Hostile:
    data = tar(pax_sparse_10(_F, [], b"x" * 512, 8192, map_text=text))
    return Hostile(f"PAX 1.0 map {name}", lambda _: data, MalformedDiffError, _NEVER)


ARCHIVES = [
    *_maps(),
    Hostile(
        "old GNU extension blocks that never end",
        lambda _: _endless_extension(),
        MalformedDiffError,
        "memory is taken until there is none, or time until the limit for bytes",
        limits=Limits(bytes=256 << 20),
    ),
    Hostile(
        "old GNU extension blocks that the end cuts off",
        lambda _: old_gnu_sparse(_F, [(n * 512, 0) for n in range(30)], b"", 1 << 20)[:512],
        MalformedDiffError,
        "the file is made as far as it goes",
    ),
    Hostile(
        "PAX 1.0 map of 2^60 parts, which come",
        lambda _: _endless_map(),
        MalformedDiffError,
        "memory is taken until there is none, or time until the limit for bytes",
        limits=Limits(bytes=256 << 20),
    ),
    _text("of 2^60 parts, which do not come", b"%d\n" % (1 << 60)),
    _text("of 10^5000 parts", b"1" + b"0" * 5000 + b"\n"),
    _text("of -1 parts", b"-1\n"),
    _text("without a newline", b"1" * 512),
    _text("of letters", b"one\nzero\n512\n"),
    _text("of blanks", b" 1\n 0\n 512\n"),
    _text("with a number too few", b"2\n0\n512\n4096\n"),
    _text("that is empty", b"\n\n\n"),
    _text("with an underscore", b"1\n0\n5_1_2\n"),
    Hostile(
        "PAX 1.0 map longer than the entry",
        lambda _: tar(pax_sparse_10(_F, [(0, 512)], b"x" * 512, 8192, size=100)),
        MalformedDiffError,
        "the next header is taken for part of the map",
    ),
    Hostile(
        "PAX 0.1 map with more parts than it says",
        lambda _: tar(pax_sparse_01(_F, [(0, 512), (4096, 512)], b"x" * 1024, 8192, count=b"1")),
        (DiffError, type(None)),  # the map itself counts
        _NEVER,
    ),
    Hostile(
        "PAX 0.1 map with 2^60 parts said",
        lambda _: tar(pax_sparse_01(_F, [(0, 512)], b"x" * 512, 8192, count=b"%d" % (1 << 60))),
        (DiffError, type(None)),  # the map itself counts
        _NEVER,
    ),
    *(
        Hostile(
            f"PAX 0.1 map {text.decode() or 'that is empty'}",
            lambda _, text=text: tar(
                pax({b"GNU.sparse.map": text, b"GNU.sparse.size": b"8192", b"GNU.sparse.name": _F})
                + file(b"f", b"x" * 512)
            ),
            DiffError,
            _NEVER,
        )
        for text in (b"0", b"0,512,", b",,,", b"0;512", b"zero,512", b"0,512,4096")
    ),
    *(
        Hostile(
            f"PAX 0.0 map of {how}",
            lambda _, records=records: tar(
                pax([(b"GNU.sparse.size", b"8192"), (b"GNU.sparse.numblocks", b"1"), *records])
                + file(_F, b"x" * 512)
            ),
            DiffError,
            _NEVER,
        )
        for how, records in (
            ("an offset alone", [(b"GNU.sparse.offset", b"0")]),
            ("a length alone", [(b"GNU.sparse.numbytes", b"512")]),
            ("a length first", [(b"GNU.sparse.numbytes", b"512"), (b"GNU.sparse.offset", b"0")]),
        )
    ),
    Hostile(
        "sparse version nobody knows",
        lambda _: tar(
            pax({b"GNU.sparse.major": b"9", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": _F})
            + file(b"f", b"1\n0\n")
        ),
        DiffError,
        "the map is taken for content",
    ),
    Hostile(
        "old GNU map in letters",
        lambda _: tar(old_gnu_sparse(_F, [(b"offset", b"length")], b"", 8192, magic=GNU)),
        DiffError,
        _NEVER,
    ),
]
