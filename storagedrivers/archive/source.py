"""Reads a stream beside the work that is done with it: one thread decompresses, one hashes.

Pieces go through a short queue, so memory stays the same whatever the stream's length.
"""

from __future__ import annotations

import hashlib
import threading
from queue import Empty, Queue
from typing import BinaryIO

from storagedrivers.archive.compression import MAGIC_LENGTH, Decompressor, compression_of
from storagedrivers.errors import DiffLimitError

_PIECE = 2 << 20  # bytes that are read at once; measured: 1 MiB is slower, and so is 4
_AHEAD = 4  # pieces in each queue


class Hasher:
    """sha256 in a thread of its own; ``hashlib`` lets the interpreter go on meanwhile."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pieces: Queue[bytes | memoryview | None] = Queue(_AHEAD)
        self._thread = threading.Thread(target=self._work, name="storagedrivers-hash", daemon=True)
        self._thread.start()

    def update(self, piece: bytes | memoryview) -> None:
        """Add bytes, which must not change any more."""
        self._pieces.put(piece)

    def finish(self) -> str:
        """End the thread; the digest of everything, ``sha256:`` and hex. Idempotent."""
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()
        return f"sha256:{self._hash.hexdigest()}"

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)


class Source:
    """A tar, compressed or not, as uncompressed pieces.

    Args:
        stream: anything with ``read``.
        max_bytes: how many may come out.
        hash_stored: whether the digest of compressed bytes is wanted too. Who decompresses has the
            most to do, so it costs time.

    Attributes:
        compression: as :func:`compression_of` says.
        stored_size: bytes of the stream that were read so far.
        size: bytes that came out so far.
    """

    def __init__(self, stream: BinaryIO, *, max_bytes: int, hash_stored: bool = True) -> None:
        self.compression = "none"
        self.stored_size = 0
        self.size = 0
        self._stream = stream
        self._max_bytes = max_bytes
        self._stored_hash = hashlib.sha256() if hash_stored else None
        self._hasher = Hasher()
        self._pieces: Queue[bytes | BaseException] = Queue(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="storagedrivers-read", daemon=True)
        self._thread.start()

    def next_piece(self) -> bytes:
        """The next bytes; none at the end.

        Raises:
            DiffError: the stream is damaged, breaks off, or holds more than it may.
            OSError: it cannot be read.
        """
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            self._pieces.put(piece)  # for whoever asks again
            raise piece
        if not piece:
            self._pieces.put(b"")
        return piece

    def digests(self) -> tuple[str, str | None]:
        """Of the uncompressed and of the incoming bytes, once all are read; of the latter None
        where they were not hashed.
        """
        diff_id = self._hasher.finish()
        if self.compression == "none":
            return diff_id, diff_id
        if self._stored_hash is None:
            return diff_id, None
        return diff_id, f"sha256:{self._stored_hash.hexdigest()}"

    def close(self) -> None:
        """End the threads, also in the middle of the stream."""
        self._stopped = True
        # A thread that waits for room in a queue gets it; one that waits for a pipe whose other
        # end is silent cannot be woken, and ends with the process.
        for _ in range(20):
            self._drain()
            self._thread.join(0.01)
            if not self._thread.is_alive():
                break
        self._hasher.finish()

    def _drain(self) -> None:
        try:
            while True:
                self._pieces.get_nowait()
        except Empty:
            pass

    def _work(self) -> None:
        try:
            self._read_all()
            self._pieces.put(b"")
        except BaseException as error:  # raised by next_piece(), in the caller's thread
            self._pieces.put(error)

    def _is_stopped(self) -> bool:
        return self._stopped

    def _read_all(self) -> None:
        head = self._read_head()
        self.compression = compression_of(head)
        if self.compression == "none":
            piece = head
            while piece and not self._is_stopped():
                self._hand_on(piece)
                piece = self._read()
            return
        decompressor = Decompressor(self.compression)
        data = head
        while data and not self._is_stopped():
            if self._stored_hash is not None:
                self._stored_hash.update(data)
            for piece in decompressor.feed(data):
                if self._is_stopped():
                    return
                self._hand_on(piece)
            data = self._read()
        if not self._is_stopped():
            decompressor.finish()

    def _read_head(self) -> bytes:
        head = piece = self._read()
        while piece and len(head) < MAGIC_LENGTH:  # a pipe gives what it has
            piece = self._read()
            head += piece
        return head

    def _read(self) -> bytes:
        data = self._stream.read(_PIECE)
        self.stored_size += len(data)
        return data

    def _hand_on(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise DiffLimitError(
                f"the tar holds more than {self._max_bytes} bytes",
                resolution="raise the limit if you trust where it comes from",
            )
        self._hasher.update(piece)
        self._pieces.put(piece)
