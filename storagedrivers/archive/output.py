"""Joins what makes up a tar to pieces of a MiB: a write for each would take most of the time."""

from __future__ import annotations

import os
from collections.abc import Callable

Write = Callable[[bytes | memoryview], object]

BUFFER = 1 << 20  # bytes


class Output:
    """Bytes and parts of files in, large pieces out.

    Args:
        write: takes the pieces in order. They do not change afterwards, so another thread may still
            read them.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._view = memoryview(bytearray(BUFFER))
        self._used = 0

    def put(self, data: bytes) -> None:
        """The next bytes."""
        if self._used + len(data) > BUFFER:
            self.flush()
            if len(data) >= BUFFER:
                self._write(data)
                return
        self._view[self._used : self._used + len(data)] = data
        self._used += len(data)

    def copy(self, fd: int, offset: int, length: int) -> bool:
        """The next bytes are those of a file; False where it ends before."""
        while length:
            if self._used == BUFFER:
                self.flush()
            room = self._view[self._used : self._used + length]
            count = os.preadv(fd, [room], offset)
            if not count:
                return False
            self._used += count
            offset += count
            length -= count
        return True

    def flush(self) -> None:
        """Hand on what is still held back."""
        if self._used:
            self._write(self._view[: self._used])
            self._view = memoryview(bytearray(BUFFER))
            self._used = 0
