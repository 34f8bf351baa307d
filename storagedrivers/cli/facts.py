"""Print what is known of this host and its graph root, for 'detect --facts' here or elsewhere."""

from __future__ import annotations

import argparse

from storagedrivers.cli import output
from storagedrivers.config import StorageConfig
from storagedrivers.host import read_host


def configure(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    assert config.root.value is not None
    output.line(read_host(config.root.value).to_json().rstrip())
    return 0
