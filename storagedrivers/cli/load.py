"""Load images from an archive or an OCI layout: short for 'image load'."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.cli import output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.loading import LayerProgress

SCHEMA = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "-i",
        "--input",
        metavar="FILE",
        default="-",
        help="an archive, plain or compressed, or a directory; default: standard input",
    )
    parser.add_argument("--name", metavar="NAME", help="instead of the names in the archive")
    parser.add_argument("--platform", metavar="OS/ARCH", help="default: this host's")
    parser.add_argument(
        "--durability",
        choices=("layer", "none"),
        help="none: do not wait for the disk, as others do not; default: layer",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    quiet = arguments.json or arguments.quiet
    with (
        incoming(arguments.input, "image load") as source,
        opened(config) as storage,
        output.progress("loading", None, quiet=quiet) as progress,
    ):
        images = storage.images.load(
            source,
            name=arguments.name,
            platform=arguments.platform,
            durability=arguments.durability,
            progress=None if progress is None else _summed(progress),
        )
    if arguments.json:
        documents = [{"id": image.id, "names": list(image.names)} for image in images]
        output.document({"schema": SCHEMA, "images": documents})
    else:
        for image in images:
            output.line(image.id)
    return 0


@contextmanager
def incoming(name: str, command: str) -> Iterator[str | BinaryIO]:
    """What was named: a path, or standard input for a dash."""
    if name != "-":
        os.stat(name)  # before a store is made for it
        yield name
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise StoreError(
            "standard input is a terminal, and an archive was expected",
            resolution=f"name a file, or write to it: … | storagedrivers {command} -",
        )
    yield sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer


def _summed(progress: Callable[..., object]) -> Callable[[LayerProgress], object]:
    """All layers together, as far as they are known."""
    known: dict[str, tuple[int, int]] = {}

    def tell(one: LayerProgress) -> None:
        known[one.layer] = one.total if one.state in ("present", "done") else one.done, one.total
        done, total = map(sum, zip(*known.values(), strict=True))
        progress(done, total)

    return tell
