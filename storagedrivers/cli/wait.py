"""Wait for the end of containers, and print their exit codes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagedrivers.cli import nouns, running

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help=nouns.REFERENCE)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    return running.each(
        arguments, config, lambda runtime, reference: runtime.wait(reference), exit_codes=True
    )
