"""Tars that go out: to standard output, or to a file that is whole or not there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from storagedrivers.cli import output
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.archive.output import Write

T = TypeVar("T")


def refuse_terminal(path: str | None) -> None:
    """Check that a tar will not be written to a terminal.

    Raises:
        StoreError: it would.
    """
    if path is None and (sys.stdout is None or sys.stdout.isatty()):
        raise StoreError(
            "standard output is a terminal, and a tar is no text",
            resolution="name a file: -o FILE",
        )


def write_tar(
    arguments: argparse.Namespace,
    produce: Callable[[Write], T],
    total: int | None,
    *,
    label: str = "writing",
) -> T:
    """Have a tar written to where the options say, and return what *produce* does.

    Args:
        arguments: ``output``, a path or None, and ``json``: no progress is shown.
        produce: takes what writes.
        total: bytes that it will have, if that is known.
        label: what is done, for the progress.
    """
    with output.progress(label, total, quiet=arguments.json) as progress:
        if arguments.output is None:
            return produce(_counted(sys.stdout.buffer.write, progress))
        with _new_file(arguments.output) as file:
            return produce(_counted(file.write, progress))


def _counted(
    write: Callable[[bytes | memoryview], object], progress: Callable[[int], object] | None
) -> Callable[[bytes | memoryview], object]:
    """What writes, and tells *progress* how many bytes that were; the writer itself without one."""
    if progress is None:
        return write
    done = 0

    def counting(data: bytes | memoryview) -> None:
        nonlocal done
        write(data)
        done += len(data)
        progress(done)

    return counting


@contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """A file that has its name only once it is whole; what is no regular file is written to."""
    if os.path.lexists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            yield file
        return
    target = os.path.realpath(path)  # what a symlink leads to is replaced, and not the link
    temporary = os.path.join(os.path.dirname(target), f".storagedrivers-{os.urandom(8).hex()}")
    try:
        with _made(temporary, path) as file:
            yield file
        os.rename(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _made(temporary: str, path: str) -> BinaryIO:
    try:
        return open(temporary, "xb")
    except OSError as error:  # nobody knows the temporary name
        raise OSError(error.errno, error.strerror, path) from error
