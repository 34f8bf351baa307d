"""Tells compressed streams apart by their first bytes, and takes them apart.

One class for all four: their decompressors have the same methods. Several members or frames in a
row are one stream (pigz, eStargz, zstd:chunked). What is written per call is bounded, so a bomb
costs time and no memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

from storagedrivers.errors import MalformedDiffError

_MAX_OUTPUT = 2 << 20  # bytes of one piece
_MIN_STEP, _MAX_STEP = 4 << 10, 2 << 20  # bytes that are decompressed in one go
_SHORT = 64 << 10  # bytes
_MAX_XZ_MEMORY = 256 << 20  # bytes; xz -9 needs 65 MiB, a hostile header may ask for 4 GiB

MAGIC_LENGTH = 10
"""How many bytes :func:`compression_of` looks at."""


def compression_of(head: bytes) -> str:
    """The compression of a stream that begins with *head*: ``none`` where nothing else fits."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # Frames that zstd skips come first in some zstd:chunked and pzstd files: RFC 8878, 3.1.2.
    skippable = head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
    if head.startswith(b"\x28\xb5\x2f\xfd") or (len(head) >= 4 and skippable):
        return "zstd"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    # And what a block, or the end of an empty stream, begins with: a tar's first file may be BZh….
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bzip2"
    return "none"


class Decompressor:
    """Bytes in, pieces of at most 2 MiB out."""

    def __init__(self, compression: str) -> None:
        self._name = compression
        self._new, self._error = _library(compression)
        self._member: Any = None
        self._step = _MAX_STEP

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next bytes of the stream.

        Raises:
            MalformedDiffError: they are damaged.
        """
        short: list[bytes] = []  # of short members: joined, since each piece costs who takes it
        size = 0
        for piece in self._members(data):
            if size + len(piece) > _MAX_OUTPUT and short:
                yield b"".join(short)
                short, size = [], 0
            if len(piece) >= _SHORT and not short:
                yield piece
            else:
                short.append(piece)
                size += len(piece)
        if short:
            yield b"".join(short)

    def _members(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            # What is behind a member's end is copied for the next one: short members, short steps.
            step = data[at : at + self._step]
            if self._member is None:
                if self._name in ("gzip", "xz") and not step[0]:
                    # Zeros between or behind members pad the file to a block of its medium.
                    at += len(step) - len(step.lstrip(b"\0"))
                    continue
                self._member = self._new()
            rest = yield from self._one_member(step)
            taken = len(step) - rest
            at += taken
            self._step = min(2 * self._step, _MAX_STEP) if not rest else max(2 * taken, _MIN_STEP)

    def _one_member(self, data: bytes) -> Generator[bytes, None, int]:
        """Decompress what belongs to the member at hand; how many bytes are behind its end."""
        while data or not self._member.needs_input:
            try:
                piece = self._member.decompress(data, _MAX_OUTPUT)
            except self._error as error:
                raise MalformedDiffError(f"the {self._name} stream is damaged: {error}") from error
            if piece:
                yield piece
            if self._member.eof:
                rest = len(self._member.unused_data)
                self._member = None
                return rest
            if not (piece or data):
                break  # it wants more, whatever it says
            data = b""
        return 0

    def finish(self) -> None:
        """Say that the stream is over.

        Raises:
            MalformedDiffError: it broke off.
        """
        if self._member is not None:
            raise MalformedDiffError(
                f"the {self._name} stream breaks off", resolution="get it again, it is incomplete"
            )


def _library(compression: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """What makes a decompressor, and what that raises for damaged input."""
    if compression == "gzip":
        igzip_lib: Any
        from isal import igzip_lib

        return (
            lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
            (igzip_lib.IsalError, EOFError, ValueError),
        )
    if compression == "zstd":
        zstd = zstd_module()
        return zstd.ZstdDecompressor, (zstd.ZstdError, EOFError)
    if compression == "xz":
        import lzma

        return (
            lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY),
            (lzma.LZMAError, EOFError),
        )
    import bz2

    return bz2.BZ2Decompressor, (OSError, EOFError, ValueError)


def zstd_module() -> Any:
    """The zstd library: Python 3.14's own, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
