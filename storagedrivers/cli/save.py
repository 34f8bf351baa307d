"""Save images to an archive or an OCI layout: short for 'image save'."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from storagedrivers.cli import nouns, output
from storagedrivers.cli.layer import counted, new_file, opened
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.storage import Storage

Write = Callable[[bytes | memoryview], object]

FORMS = ("docker", "oci", "layout")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=nouns.REFERENCE)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="instead of standard output; of a layout: a directory",
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        default="docker",
        help="docker: what docker load reads, the default; oci: an OCI layout as a tar;"
        " layout: one as a directory",
    )


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    if arguments.form == "layout":
        if arguments.output is None:
            raise StoreError(
                "a layout is a directory, and none is named", resolution="name it: -o DIRECTORY"
            )
        with opened(config) as storage:
            storage.images.save_layout(arguments.images, arguments.output)
        return 0
    refuse_terminal(arguments.output)
    with opened(config) as storage:
        write_tar(
            arguments,
            lambda write: storage.images.save(arguments.images, write, form=arguments.form),
            _total(storage, arguments.images),
        )
    return 0


def _total(storage: Storage, images: list[str]) -> int:
    """About how much it will be."""
    return sum(storage.images.size(storage.images.get(one)) for one in images)


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
    arguments: argparse.Namespace, produce: Callable[[Write], object], total: int | None
) -> None:
    """Have a tar written to where the options say."""
    with output.progress("writing", total, quiet=arguments.json) as progress:
        if arguments.output is None:
            produce(counted(sys.stdout.buffer.write, progress))
            return
        with new_file(arguments.output) as file:
            produce(counted(file.write, progress))
