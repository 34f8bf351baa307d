"""Save images to an archive or an OCI layout: short for 'image save'."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from storagedrivers.cli import nouns
from storagedrivers.cli.nouns import opened
from storagedrivers.cli.outgoing import refuse_terminal, write_tar
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
        with opened(config, only_reads=True) as storage:
            storage.images.save_layout(arguments.images, arguments.output)
        return 0
    refuse_terminal(arguments.output)
    with opened(config, only_reads=True) as storage:
        write_tar(
            arguments,
            lambda write: storage.images.save(arguments.images, write, form=arguments.form),
            _total(storage, arguments.images),
        )
    return 0


def _total(storage: Storage, images: list[str]) -> int:
    """About how much it will be."""
    return sum(storage.images.size(storage.images.get(one)) for one in images)
