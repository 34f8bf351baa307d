"""End containers that run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagedrivers.cli import nouns, running

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.runtime import Runtime


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "-t",
        "--time",
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long it may take before it is killed; default: 10",
    )
    add("containers", metavar="CONTAINER", nargs="+", help=nouns.REFERENCE)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""

    def stop(runtime: Runtime, reference: str) -> str:
        runtime.stop(reference, timeout=arguments.time)
        return reference

    return running.each(arguments, config, stop)
