"""Print what a container wrote when it ran detached."""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING

from storagedrivers.cli import nouns, output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on until the container ends")
    add("-n", "--tail", metavar="LINES", default="all", help="only so many of the last ones")
    add("--since", metavar="TIME", help="2024-05-01T12:00:00Z, seconds since 1970, or 10m ago")
    add("-t", "--timestamps", action="store_true", help="when each line was written")
    add("container", metavar="CONTAINER", help=nouns.REFERENCE)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    tail = _tail(arguments.tail)
    since = None if arguments.since is None else _moment(arguments.since)
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    with opened(config, read_only=True) as storage:
        entries = storage.runtime.logs(
            arguments.container, follow=arguments.follow, tail=tail, since=since
        )
        last = None
        for entry in entries:
            stream = streams.get(entry.stream, streams["stdout"])
            if last is not None and last is not stream:
                last.flush()  # both may lead to one file: the lines keep their order
            last = stream
            prefix = f"{entry.time} " if arguments.timestamps else ""
            stream.write((prefix + entry.text).encode(errors="surrogateescape"))
            if arguments.follow:
                stream.flush()
    output.flush()
    sys.stderr.buffer.flush()
    return 0


def _tail(words: str) -> int | None:
    if words == "all":
        return None
    if words.isascii() and words.isdigit():
        return int(words)
    raise StoreError(f"{words!r} is no number of lines", resolution="write a number, or all")


def _moment(words: str) -> float:
    """A moment in seconds since 1970."""
    from datetime import datetime

    if _DURATION.fullmatch(words):
        parts = re.findall(r"([\d.]+)([smhd])", words)
        return time.time() - sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return float(words)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(words).timestamp()
    except ValueError as error:
        raise StoreError(
            f"{words!r} is no time",
            resolution="write 2024-05-01T12:00:00Z, seconds since 1970, or 10m for ten minutes ago",
        ) from error
