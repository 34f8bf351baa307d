"""A container's log, in the lines that Docker's json-file has.

A line of output is a JSON document with ``log``, the text with its newline, ``stream``, ``stdout``
or ``stderr``, and ``time``. A long one is several, of which only the last has the newline.
"""

from __future__ import annotations

import codecs
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC
from typing import IO, NamedTuple

_LONGEST = 16384  # bytes of a document's text
_CHUNK = 65536
_PAUSE = 0.05  # seconds between two looks at a log that grows


class Entry(NamedTuple):
    """A line, or a part of a long one.

    Attributes:
        text: with its newline, if it has one.
        stream: ``stdout`` or ``stderr``.
        time: as RFC 3339 has it, in UTC with nanoseconds.
    """

    text: str
    stream: str
    time: str


class Writer:
    """Appends to a log what comes from a container; a context manager that closes it."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o640)
        self._streams: dict[str, _Stream] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._streams:
            self.write(name, b"", last=True)
        os.close(self._fd)

    def write(self, stream: str, data: bytes, *, last: bool = False) -> None:
        """Take bytes of a stream; whole lines are written at once."""
        pieces = self._streams.setdefault(stream, _Stream()).feed(data, last=last)
        if not pieces:
            return
        now = _now()
        lines = [json.dumps({"log": one, "stream": stream, "time": now}) + "\n" for one in pieces]
        # A full disk must not keep the container from writing: then these lines are lost.
        with suppress(OSError):
            os.write(self._fd, "".join(lines).encode())


class _Stream:
    """Cuts bytes into lines of text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, *, last: bool) -> list[str]:
        text = self._rest + self._decoder.decode(data, last)
        lines = text.split("\n")
        self._rest = lines.pop()
        pieces = [part for line in lines for part in _parts(f"{line}\n")]
        while len(self._rest) >= _LONGEST or (last and self._rest):
            pieces.append(self._rest[:_LONGEST])
            self._rest = self._rest[_LONGEST:]
        return pieces


def _parts(line: str) -> Iterator[str]:
    for start in range(0, len(line), _LONGEST):
        yield line[start : start + _LONGEST]


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def read_log(
    path: str,
    *,
    tail: int | None = None,
    since: float | None = None,
    follow: Callable[[], bool] | None = None,
) -> Iterator[Entry]:
    """The entries of a log, the oldest first.

    Args:
        path: the file; there may be none.
        tail: only so many of those that are there.
        since: only later ones, in seconds since 1970.
        follow: go on as long as this says that more may come.
    """
    with suppress(FileNotFoundError), open(path, "rb") as file:
        yield from (one for one in _entries(_last(file, tail)) if _is_after(one, since))
        more = follow is not None
        while more:
            # Asked before reading: what was written before the end is read after it.
            more = follow is not None and follow()
            found = False
            for one in _entries(_complete(file)):
                found = True
                if _is_after(one, since):
                    yield one
            if more and not found:
                time.sleep(_PAUSE)


def _last(file: IO[bytes], tail: int | None) -> Iterator[bytes]:
    """The lines, or the last ones; a log can be long, so those are looked for from the end."""
    if tail is not None:
        position = file.seek(0, os.SEEK_END)
        count = 0
        while position and count <= tail:
            size = min(_CHUNK, position)
            position -= size
            file.seek(position)
            count += file.read(size).count(b"\n")
        file.seek(position)
        for _ in range(count - tail):
            file.readline()
    yield from _complete(file)


def _complete(file: IO[bytes]) -> Iterator[bytes]:
    """The lines from here on; one that is still being written is left for later."""
    while True:
        position = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(position)
            return
        yield line


def _entries(lines: Iterator[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            fields = json.loads(line)
            yield Entry(str(fields["log"]), str(fields["stream"]), str(fields["time"]))
        except (ValueError, KeyError, TypeError):
            continue  # a crash left half a line


def _is_after(entry: Entry, since: float | None) -> bool:
    if since is None:
        return True
    from datetime import datetime

    try:
        moment = datetime.strptime(entry.time[:26].rstrip("Z"), "%Y-%m-%dT%H:%M:%S.%f")
    except ValueError:
        return True
    return moment.replace(tzinfo=UTC).timestamp() >= since
