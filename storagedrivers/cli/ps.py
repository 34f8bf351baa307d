"""List the containers that run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagedrivers.cli import container

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig

_, _configure_ls, _ls = container.VERBS["ls"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options, which are those of ``container ls``."""
    _configure_ls(parser)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    if not (arguments.all or any(one.startswith("status=") for one in arguments.filter)):
        arguments.filter = [*arguments.filter, "status=running"]
    return _ls(arguments, config)
