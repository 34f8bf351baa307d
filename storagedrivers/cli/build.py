"""Make an image of a Dockerfile; prints its id."""

from __future__ import annotations

import argparse
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from storagedrivers.build.events import Note
from storagedrivers.cli import build_options, output, progress
from storagedrivers.config import source_date_epoch
from storagedrivers.errors import BuildError, MalformedDiffError, StorageDriversError, StoreError
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.image_records import Image

SCHEMA = 1

_BLOCK = 512  # bytes of a tar's header
_USUAL = "Dockerfile"
_OTHER = "Containerfile"  # as some call it
_SHORT = 12  # digits of an id that are enough for a person
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    build_options.configure(parser)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    shown = progress.display(arguments.progress, explain=arguments.explain, quiet=arguments.quiet)
    try:
        image = _built(arguments, config, shown)
    except (StorageDriversError, OSError) as error:
        offline = shown.missed_network and arguments.network != "host"
        shown.error(_completed(error, offline=offline))
        return getattr(error, "exit_code", 1)
    if arguments.json:
        from storagedrivers.cli.images import document_of

        output.document({"schema": SCHEMA, **document_of(image)})
    else:
        output.line(image.id)
    return 0


def _built(arguments: argparse.Namespace, config: StorageConfig, shown: progress.Display) -> Image:
    if arguments.iidfile is not None:
        with suppress(FileNotFoundError):  # nobody shall find the id of another build
            os.unlink(arguments.iidfile)
    with (
        _sources(arguments) as (context, dockerfile),
        Storage.open(config) as storage,
        shown,
    ):
        for text in (*storage.warnings, *build_options.notes_of(arguments)):
            shown(Note(text))
        image = storage.build(
            context,
            dockerfile=dockerfile,
            tags=arguments.tag,
            build_args=build_options.build_args_of(arguments),
            target=arguments.target,
            no_cache=arguments.no_cache,
            labels=build_options.labels_of(arguments),
            network=arguments.network,
            platform=arguments.platform,
            cache_from=build_options.cache_from_of(arguments),
            source_date_epoch=source_date_epoch(),
            on_event=shown,
        )
    if arguments.iidfile is not None:
        with open(arguments.iidfile, "w", encoding="ascii") as file:
            file.write(image.id)
    return image


def _completed(error: Exception, *, offline: bool) -> Exception:
    """An error, and how to look around in the last image that was good.

    Args:
        error: what the build failed of.
        offline: a command seems to have missed a network.
    """
    if isinstance(error, BuildError) and error.image is not None:
        lines = [error.details, f"last good image: {error.image}"]
        if offline:
            lines.append("it seems to want a network, which a RUN has with --network host")
        error.details = "\n".join(filter(None, lines))
        short = error.image.partition(":")[2][:_SHORT]
        look = f"look around in it: storagedrivers run --rm -it {short} sh"
        error.resolution = error.resolution or look
    return error


# Where the files and the Dockerfile come from


@contextmanager
def _sources(
    arguments: argparse.Namespace,
) -> Iterator[tuple[str | BinaryIO, str | bytes | None]]:
    """The context, and the Dockerfile: a path in the context, what it says, or None."""
    context, file = arguments.context, arguments.file
    if context == "-":
        yield _of_input(file)
        return
    if file == "-":
        yield context, _text(_input(context), "standard input")
        return
    if not os.path.isdir(context):
        raise _no_context(context)
    yield context, _usual(context) if file is None else _dockerfile(context, file)


def _no_context(context: str) -> StoreError:
    if context.startswith(_REMOTE):
        return StoreError(
            f"{context}: nothing is fetched for a context",
            resolution="clone or unpack it, and name the directory",
        )
    if os.path.exists(context):
        return StoreError(
            f"{context}: a context is a directory",
            resolution=f"for a tar: storagedrivers build - < {context}",
        )
    return StoreError(f"{context}: there is no such directory")


def _usual(context: str) -> str:
    """The Dockerfile of a directory where none was named."""
    names = sorted(name for name in os.listdir(context) if name.lower() == _USUAL.lower())
    if names:
        return names[0]  # Dockerfile, if it is there
    like = sorted(name for name in os.listdir(context) if "ockerfile" in name or name == _OTHER)
    where = os.path.join(context, like[0] if like else "FILE")
    raise StoreError(
        f"{os.path.join(context, _USUAL)}: there is no such file",
        resolution=f"name the Dockerfile: -f {os.path.normpath(where)}",
    )


def _dockerfile(context: str, file: str) -> str | bytes:
    """A file that was named: by its path in the context, or what it says where it is elsewhere.

    As Docker has it, its path is not one from the context on.
    """
    if not os.path.exists(file):
        inside = os.path.join(context, file)
        raise StoreError(
            f"{file}: there is no such Dockerfile",
            resolution=f"write -f {inside}" if os.path.exists(inside) else None,
        )
    if not os.path.isfile(file):
        raise _no_file(file)
    path, top = os.path.realpath(file), os.path.realpath(context)
    if os.path.commonpath((path, top)) == top:
        return os.path.relpath(path, top)
    return _elsewhere(path)


def _elsewhere(path: str) -> bytes:
    # What would block, a fifo, does not: it is seen below.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _no_file(path)
        return _text(stream, path)


def _no_file(path: str) -> StoreError:
    return StoreError(
        f"{path}: a Dockerfile is a regular file",
        resolution=f"to have it from elsewhere: storagedrivers build -f - … < {path}",
    )


def _text(stream: BinaryIO, name: str, head: bytes = b"") -> bytes:
    """What a Dockerfile says, whose beginning may have been read already."""
    from storagedrivers.build.context import LARGEST

    text = head + stream.read(LARGEST + 1 - len(head))
    if len(text) > LARGEST:
        raise StoreError(
            f"{name}: what should be a Dockerfile is longer than {LARGEST} bytes",
            resolution="check what it is; a context is named, or is a tar on standard input",
        )
    return text


def _input(wanted: str) -> BinaryIO:
    if sys.stdin is None:
        raise StoreError("there is no standard input", resolution=f"name a file for {wanted}")
    return sys.stdin.buffer


def _of_input(file: str | None) -> tuple[BinaryIO, str | bytes | None]:
    """What is on standard input: a tar with the files, or a Dockerfile that needs none."""
    if file == "-":
        raise StoreError(
            "standard input cannot be both the context and the Dockerfile",
            resolution="leave -f out where there is only a Dockerfile",
        )
    stream = _input("the context")
    if stream.isatty():
        raise StoreError(
            "standard input is a terminal, and a tar or a Dockerfile was expected",
            resolution="write to it: … | storagedrivers build -, or name a directory",
        )
    head = stream.read(_BLOCK)
    if _is_archive(head):
        return io.BufferedReader(_Rejoined(head, stream)), file
    if file is not None:
        raise StoreError(
            "standard input is no tar, and -f names another Dockerfile",
            resolution="leave -f out, or name a directory as the context",
        )
    return io.BytesIO(bytes(2 * _BLOCK)), _text(stream, "standard input", head)


def _is_archive(head: bytes) -> bool:
    from storagedrivers.archive.compression import MAGIC_LENGTH, compression_of
    from storagedrivers.archive.header import check_checksum

    if compression_of(head[:MAGIC_LENGTH]) != "none":
        return True
    if len(head) < _BLOCK:
        return False
    try:
        check_checksum(head)
    except MalformedDiffError:
        return not any(head)  # the end of a tar with nothing in it
    return True


class _Rejoined(io.RawIOBase):
    """A stream whose beginning has been read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Give the beginning first."""
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)
