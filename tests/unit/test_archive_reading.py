"""Fields, records, compression and kept headers, without a filesystem where none is needed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storagedrivers.archive.compression import Decompressor, compression_of, zstd_module
from storagedrivers.archive.header import Entry, number, parse_pax
from storagedrivers.archive.kept import KeptWriter, kept_records, reassemble
from storagedrivers.archive.reader import Reader
from storagedrivers.archive.source import Source
from storagedrivers.errors import CorruptStoreError, DiffError, DiffLimitError, MalformedDiffError

PAYLOAD = random.Random(1).randbytes(1 << 20) + bytes(2 << 20)  # more than any one piece


def read_all(source: Source) -> bytes:
    pieces = []
    while piece := source.next_piece():
        pieces.append(piece)
    return b"".join(pieces)


def opened(stream: BinaryIO | bytes, *, max_bytes: int = 1 << 30) -> Source:
    stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    return Source(stream, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"00000000644 ", 0o644),
        (b"777777777777", 0o777777777777),  # no room for an end
        (b"\0" * 8, 0),
        (b"        ", 0),
        (b"\x80" + bytes(3) + b"\x01\0\0\0", 1 << 24),
        (b"\xff" * 12, -1),
        (b"\xff" * 11 + b"\xfe", -2),
        (b"\x80" + bytes(10) + b"\xff", 255),
    ],
)
def test_a_number_is_octal_or_base_256(field: bytes, value: int) -> None:
    assert number(field) == value


@pytest.mark.parametrize(
    "field", [b"0000689\0", b"-000644\0", b"0o644\0\0\0", b"6_4\0\0\0\0\0", b"+644   \0"]
)
def test_a_number_is_nothing_else(field: bytes) -> None:
    with pytest.raises(ValueError, match="6"):
        number(field)


@given(st.integers(-(1 << 62), (1 << 62) - 1))
def test_base_256_is_twos_complement_behind_the_marking_bit(value: int) -> None:
    encoded = bytearray((value % (1 << 95)).to_bytes(12, "big"))
    encoded[0] |= 0x80
    assert number(bytes(encoded)) == value


def test_pax_records_are_bytes_and_may_hold_newlines() -> None:
    records = b"12 a=b\nc\xff=d\n" + b"6 x=y\n" + b"5 e=\n"
    assert parse_pax(records) == {b"a": b"b\nc\xff=d", b"x": b"y", b"e": b""}


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\n",
        b"7 a=b\n",
        b"6 ab=\nx",
        b"5 ab\n",
        b"0 a=b\n",
        b"x",
        b"6 =ab\n",
        b"99999999999 a=b\n",
    ],
)
def test_a_pax_record_that_lies_is_refused(records: bytes) -> None:
    with pytest.raises(MalformedDiffError):
        parse_pax(records)


COMPRESSORS = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "zstd": lambda data: zstd_module().compress(data),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
MEMBERS = {
    "gzip": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(700),
    "zstd": lambda data: (
        b"\x52\x2a\x4d\x18\x03\0\0\0abc"
        + zstd_module().compress(data[:1000])
        + zstd_module().compress(data[1000:])
    ),
    "xz": lambda data: lzma.compress(data[:1000]) + lzma.compress(data[1000:]) + bytes(8),
    "bzip2": lambda data: bz2.compress(data[:1000]) + bz2.compress(data[1000:]),
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compression_is_told_by_the_bytes_and_both_digests_are_known(name: str) -> None:
    stored = COMPRESSORS[name](PAYLOAD)
    source = opened(stored)
    assert read_all(source) == PAYLOAD
    assert source.compression == name == compression_of(stored)
    assert source.digests() == (
        f"sha256:{hashlib.sha256(PAYLOAD).hexdigest()}",
        f"sha256:{hashlib.sha256(stored).hexdigest()}",
    )
    assert (source.size, source.stored_size) == (len(PAYLOAD), len(stored))
    source.close()


@pytest.mark.parametrize("name", MEMBERS)
def test_several_members_are_one_stream(name: str) -> None:
    source = opened(MEMBERS[name](PAYLOAD))
    assert read_all(source) == PAYLOAD
    source.close()


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("length", [1, 3000, 100_000])
def test_members_of_any_length_in_pieces_of_any_length(name: str, length: int) -> None:
    """Long, short and empty ones, cut where the steps through them are not."""
    data = PAYLOAD[: 2000 * length] if length > 1 else PAYLOAD[:500]
    cuts = range(0, len(data), length)
    members = [COMPRESSORS[name](data[at : at + length]) for at in cuts]
    members[1:1] = [COMPRESSORS[name](b"")] * 50 + [COMPRESSORS[name](PAYLOAD)]
    expected = data[:length] + PAYLOAD + data[length:]
    for size in (1 << 30, 4097):
        decompressor = Decompressor(name)
        stored = b"".join(members)
        pieces = [
            piece
            for at in range(0, len(stored), size)
            for piece in decompressor.feed(stored[at : at + size])
        ]
        decompressor.finish()
        assert b"".join(pieces) == expected
        assert max(map(len, pieces)) <= 2 << 20


@pytest.mark.parametrize("name", MEMBERS)
def test_many_members_cost_what_they_are(name: str) -> None:
    """Each ends with a look at what follows, which is not the whole rest of the piece."""
    member = COMPRESSORS[name](b"x")
    data = member * ((2 << 20) // len(member))
    begin = time.process_time()
    few = sum(map(len, Decompressor(name).feed(data[: len(member) * 2000])))
    between = time.process_time()
    many = sum(map(len, Decompressor(name).feed(data)))
    spent = time.process_time() - between
    assert (few, many) == (2000, len(data) // len(member))
    assert spent < 3 * many / few * (between - begin)


def test_a_tar_whose_first_file_has_the_name_of_a_format() -> None:
    assert compression_of(b"BZhang/file\0") == compression_of(b"BZh9") == "none"
    assert compression_of(bz2.compress(b"")) == compression_of(bz2.compress(b"x", 1)) == "bzip2"


@pytest.mark.parametrize("name", MEMBERS)
def test_a_stream_that_breaks_off_is_refused(name: str) -> None:
    source = opened(COMPRESSORS[name](PAYLOAD)[:-3])
    with pytest.raises(MalformedDiffError, match=r"breaks off|damaged"):
        read_all(source)
    source.close()


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_ends_at_the_limit(name: str) -> None:
    source = opened(COMPRESSORS[name](bytes(16 << 20)), max_bytes=4 << 20)
    with pytest.raises(DiffLimitError):
        read_all(source)
    assert source.size < 7 << 20
    source.close()


def test_a_source_that_is_closed_early_leaves_no_thread() -> None:
    before = threading.active_count()
    source = opened(PAYLOAD * 8)
    source.next_piece()
    source.close()
    assert threading.active_count() == before


def test_a_pipe_gives_a_byte_at_a_time() -> None:
    class Slow(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, size: int = -1) -> bytes:
            piece, self.data = self.data[:1], self.data[1:]
            return piece

    source = opened(Slow(gzip.compress(b"slow")))  # type: ignore[arg-type]
    assert read_all(source) == b"slow"
    source.close()


class Once:
    """A tar in pieces of a given length."""

    def __init__(self, data: bytes, length: int) -> None:
        self.pieces = [data[at : at + length] for at in range(0, len(data), length)]

    def next_piece(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@given(st.binary(min_size=512, max_size=3000), st.integers(1, 600))
def test_the_reader_ends_or_says_what_is_wrong(data: bytes, length: int) -> None:
    literal: list[bytes] = []
    reader = Reader(Once(data, length), literal=literal.append, max_entries=100)
    try:
        for entry in reader.entries():
            assert isinstance(entry, Entry)
    except DiffError:
        return
    assert b"".join(literal) == data


def test_kept_headers_and_a_tree_give_the_tar_again(tmp_path: Path) -> None:
    writer = KeptWriter(str(tmp_path / "kept"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"first")
    writer.literal(b"header one")
    writer.payload(b"d/file", [(0, 5)])
    with (tmp_path / "d/file").open("rb") as file:
        writer.replaced(b"d/file", file.fileno())
    (tmp_path / "d/file").write_bytes(PAYLOAD)
    writer.literal(b"header two")
    writer.payload(b"d/file", [(10, 5), (1000, len(PAYLOAD) - 1000)])
    writer.literal(b"end")
    writer.close(whole=True)
    out: list[bytes] = []
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        reassemble(str(tmp_path / "kept"), top, lambda piece: out.append(bytes(piece)))
        assert b"".join(out) == (
            b"header one" + b"first" + b"header two" + PAYLOAD[10:15] + PAYLOAD[1000:] + b"end"
        )
        (tmp_path / "d/file").write_bytes(b"cut")
        with pytest.raises(CorruptStoreError, match="too short"):
            reassemble(str(tmp_path / "kept"), top, lambda piece: None)
        (tmp_path / "d/file").unlink()
        (tmp_path / "d/file").symlink_to("/etc/passwd")
        with pytest.raises(CorruptStoreError, match="cannot be read"):
            reassemble(str(tmp_path / "kept"), top, lambda piece: None)
    finally:
        os.close(top)


def test_kept_headers_that_are_damaged_or_cut_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    writer = KeptWriter(str(path))
    writer.literal(random.Random(2).randbytes(5000))
    writer.close(whole=True)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", whole + b"x", b"\0" + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(CorruptStoreError):
            list(kept_records(str(path)))
    path.unlink()
    with pytest.raises(CorruptStoreError):
        list(kept_records(str(path)))


def test_kept_headers_of_a_failed_layer_are_not_whole(tmp_path: Path) -> None:
    writer = KeptWriter(str(tmp_path / "kept"))
    writer.literal(b"half")
    writer.close(whole=False)
    with pytest.raises(CorruptStoreError):
        list(kept_records(str(tmp_path / "kept")))
