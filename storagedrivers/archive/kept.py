"""Keeps what a tree cannot give back of a tar, and makes the same tar of both again.

The file is a zstd stream of records::

    "V" u64          the version of this format, first
    "L" u64 bytes    bytes of the tar: headers, padding, whatever is no payload in the tree
    "P" u32 path u32 (u64 u64)*    parts (offset, length) of the file *path* of the tree
    "E"              the end

A payload that a later entry of the same tar replaces is appended to ``<file>.payload``, which is
made only then: ``u32 path u64 bytes``, in order. The n-th record of a path takes the n-th of those;
when they are used up, the tree has it.

All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from storagedrivers.archive import PAYLOAD_SUFFIX
from storagedrivers.archive.compression import zstd_module
from storagedrivers.archive.output import BUFFER, Output, Write
from storagedrivers.errors import CorruptStoreError
from storagedrivers.linux import copy, tree

_VERSION = 1
_LEVEL = 1
_LITERAL, _PAYLOAD = struct.Struct("<cQ"), struct.Struct("<cI")
_ONE_PART = struct.Struct("<IQQ")
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MAX_RECORD = 64 << 20  # bytes; a longer one is no record


class KeptWriter:
    """Writes the file while a tar goes in; ``close`` makes it whole."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        zstd = zstd_module()
        option = zstd.CompressionParameter
        # With a checksum, or a damaged file could pass for another tar.
        self._compressor = zstd.ZstdCompressor(
            options={option.compression_level: _LEVEL, option.checksum_flag: 1}
        )
        self._literals: list[bytes] = []
        self._literal_size = 0
        self._records: list[bytes] = [b"V" + struct.pack("<Q", _VERSION)]
        self._records_size = 0
        self._payload: BinaryIO | None = None

    def literal(self, data: bytes) -> None:
        """The next bytes of the tar, which the tree does not hold."""
        self._literals.append(data)
        self._literal_size += len(data)
        if self._literal_size > BUFFER:
            self._end_literal()

    def payload(self, path: bytes, parts: Sequence[tuple[int, int]]) -> None:
        """The next bytes of the tar are those *parts* of the file *path* of the tree."""
        self._end_literal()
        if len(parts) == 1:
            where = _ONE_PART.pack(1, *parts[0])
        else:
            numbers = [number for part in parts for number in part]
            where = struct.pack(f"<I{len(numbers)}Q", len(parts), *numbers)
        self._record(_PAYLOAD.pack(b"P", len(path)) + path + where)

    def replaced(self, path: bytes, fd: int) -> None:
        """The file *path*, open as *fd*, is about to be replaced by a later entry."""
        if self._payload is None:
            self._payload = open(self._path + PAYLOAD_SUFFIX, "xb")  # noqa: SIM115
        size = os.fstat(fd).st_size
        self._payload.write(struct.pack("<I", len(path)) + path + struct.pack("<Q", size))
        begin = self._payload.tell()
        for offset, end in copy.data_segments(fd, size):  # holes may be as large as they like
            self._payload.seek(begin + offset)
            while offset < end and (data := os.pread(fd, min(BUFFER, end - offset), offset)):
                self._payload.write(data)
                offset += len(data)
        self._payload.seek(begin + size)
        self._payload.truncate()

    def close(self, *, whole: bool) -> None:
        """End the file; one that is not *whole* stays without its end, for the caller to remove."""
        with self._file:
            if self._payload is not None:
                self._payload.close()
            if whole:
                self._end_literal()
                self._record(b"E")
                self._compress()
                self._write(self._compressor.flush())

    def _end_literal(self) -> None:
        if self._literals:
            self._record(_LITERAL.pack(b"L", self._literal_size))
            self._records += self._literals
            self._records_size += self._literal_size
            self._literals = []
            self._literal_size = 0

    def _record(self, data: bytes) -> None:
        self._records.append(data)
        self._records_size += len(data)
        if self._records_size > BUFFER:
            self._compress()

    def _compress(self) -> None:
        self._write(self._compressor.compress(b"".join(self._records)))
        self._records = []
        self._records_size = 0

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


# Back to a tar


def reassemble(kept: str, tree_fd: int, write: Write) -> None:
    """Write the tar that came in, byte for byte.

    Args:
        kept: the file that was kept of it.
        tree_fd: the layer's changeset directory, or the merged view of the layer.
        write: takes the pieces in order; they do not change afterwards, so another thread may
            still read them.

    Raises:
        CorruptStoreError: the file is damaged, or the tree lost what it holds.
        OSError: something cannot be read.
    """
    output = Output(write)
    replaced = _replaced(kept + PAYLOAD_SUFFIX)
    with tree.Walker(tree_fd) as walker:
        _write_records(kept, walker, replaced, output)
    output.flush()


def _write_records(
    kept: str, walker: tree.Walker, replaced: dict[bytes, deque[tuple[str, int]]], output: Output
) -> None:
    for record in kept_records(kept):
        if isinstance(record, (bytes, memoryview)):
            output.put(record)
            continue
        path, parts = record
        if replaced.get(path):
            name, offset = replaced[path].popleft()
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        else:
            offset = 0
            fd = _open_payload(walker, path)
        try:
            for start, length in parts:
                if not output.copy(fd, offset + start, length):
                    raise CorruptStoreError(
                        f"the layer's file {path!r} is too short",
                        resolution="remove the layer and add it again",
                    )
        finally:
            os.close(fd)


def kept_records(kept: str) -> Iterator[bytes | tuple[bytes, list[tuple[int, int]]]]:
    """The records of a kept file: bytes of the tar, or a path and the parts of that file.

    Raises:
        CorruptStoreError: the file is missing or damaged.
    """
    try:
        with open(kept, "rb", buffering=0) as file:
            yield from _Records(file).all()
    except (zstd_module().ZstdError, EOFError, ValueError, FileNotFoundError) as error:
        raise CorruptStoreError(
            f"the tar headers kept in {kept} are damaged: {error}",
            resolution="the layer itself can still be used; to export it as it came in, add it"
            " again",
        ) from error


class _Records:
    """Cuts a kept file into records."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstd_module().ZstdDecompressor()
        self._data = b""
        self._at = 0

    def all(self) -> Iterator[bytes | tuple[bytes, list[tuple[int, int]]]]:
        version = self._take(9)
        if version != b"V" + struct.pack("<Q", _VERSION):
            raise ValueError(f"its version is {version!r}")
        while (kind := self._take(1)) != b"E":
            if kind == b"L":
                (size,) = _U64.unpack(self._take(8))
                yield self._take(size)
            elif kind == b"P":
                yield self._payload()
            else:
                raise ValueError(f"a record is of kind {kind!r}")
        if self._at < len(self._data) or not self._decompressor.eof or self._more_of_file():
            raise ValueError("it does not end where it should")

    def _payload(self) -> tuple[bytes, list[tuple[int, int]]]:
        (size,) = _U32.unpack(self._take(4))
        path = self._take(size)
        (count,) = _U32.unpack(self._take(4))
        numbers = struct.unpack(f"<{2 * count}Q", self._take(16 * count))
        return path, list(zip(numbers[::2], numbers[1::2], strict=True))

    def _take(self, size: int) -> bytes:
        at = self._at
        data = self._data[at : at + size]
        self._at = at + len(data)
        if len(data) == size:
            return data
        if size > _MAX_RECORD:
            raise ValueError(f"a record of {size} bytes")
        pieces = [data]
        missing = size - len(data)
        while missing:
            self._data = self._next_piece()
            self._at = min(missing, len(self._data))
            pieces.append(self._data[: self._at])
            missing -= self._at
        return b"".join(pieces)

    def _next_piece(self) -> bytes:
        while not self._decompressor.eof:
            data = self._file.read(BUFFER) if self._decompressor.needs_input else b""
            if not data and self._decompressor.needs_input:
                break
            if piece := self._decompressor.decompress(data, BUFFER):
                return bytes(piece)
        raise EOFError("it breaks off")

    def _more_of_file(self) -> bool:
        return bool(self._decompressor.unused_data or self._file.read(1))


def _replaced(path: str) -> dict[bytes, deque[tuple[str, int]]]:
    """Where the payloads are that were replaced in the tree, by the path they had."""
    found: dict[bytes, deque[tuple[str, int]]] = defaultdict(deque)
    with suppress(FileNotFoundError), open(path, "rb") as file:
        while head := file.read(4):
            (length,) = struct.unpack("<I", head)
            name = file.read(length)
            (size,) = struct.unpack("<Q", file.read(8))
            found[name].append((path, file.tell()))
            file.seek(size, os.SEEK_CUR)
    return found


def _open_payload(walker: tree.Walker, path: bytes) -> int:
    directory, _, name = path.rpartition(b"/")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=walker.go(directory))
    except OSError as error:
        raise CorruptStoreError(
            f"the layer's file {path!r} cannot be read: {error.strerror}",
            resolution="remove the layer and add it again",
        ) from error
