"""Tells compressed streams apart by their first bytes, and takes them apart.

One class for all four: their decompressors have the same methods. Several members or frames in a
row are one stream (pigz, eStargz, zstd:chunked). What is written per call is bounded, so a bomb
costs time and no memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from storagedrivers.errors import MalformedDiffError

_MAX_OUTPUT = 2 << 20  # bytes of one piece
_MAX_XZ_MEMORY = 256 << 20  # bytes; xz -9 needs 65 MiB, a hostile header may ask for 4 GiB

MAGIC_LENGTH = 6
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
    if head.startswith(b"BZh"):
        return "bzip2"
    return "none"


class Decompressor:
    """Bytes in, pieces of at most 2 MiB out."""

    def __init__(self, compression: str) -> None:
        self._name = compression
        self._new, self._error = _library(compression)
        self._member: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next bytes of the stream.

        Raises:
            MalformedDiffError: they are damaged.
        """
        while data or (self._member is not None and not self._member.needs_input):
            if self._member is None:
                # Zeros between or behind members pad the file to a block of its medium.
                data = data.lstrip(b"\0") if self._name in ("gzip", "xz") else data
                if not data:
                    return
                self._member = self._new()
            try:
                piece = self._member.decompress(data, _MAX_OUTPUT)
            except self._error as error:
                raise MalformedDiffError(f"the {self._name} stream is damaged: {error}") from error
            if piece:
                yield piece
            elif not (data or self._member.eof):
                return  # it wants more, whatever it says
            data = b""
            if self._member.eof:
                data = self._member.unused_data
                self._member = None

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
