"""Put right what 'check' finds, and touch nothing else.

What can be put right without loss is. A layer that lost something is put in quarantine: it stays,
and its tar added again makes a new layer. With --yes it is removed, with the layers above it, and
so are files that no tar brought; a volume that lost its directory gets an empty one. Exit codes: 0
everything is put right, 1 something is left.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagedrivers.cli import output
from storagedrivers.cli.check import add_deep_option, document_of, find, text_of
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_deep_option(parser)
    parser.add_argument(
        "--yes", action="store_true", help="remove what cannot be put right, with what lies above"
    )


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    from storagedrivers.stores.repair import Outcome, repair

    with Storage.open(config, read_only=True) as storage:
        findings = [*find(storage, arguments)]
    if not findings:
        if arguments.json:
            output.document({"schema": 1, "repairs": []})
        else:
            output.note("nothing is wrong")
        return 0
    # Opening the store finishes what was half made; the rest is done here.
    with Storage.open(config) as storage:
        repairs = [*repair(storage.layers, findings, storage.volumes, yes=arguments.yes)]
    if arguments.json:
        documents = [
            {**document_of(one.finding), "outcome": one.outcome.value, "result": one.message}
            for one in repairs
        ]
        output.document({"schema": 1, "repairs": documents})
    else:
        for one in repairs:
            output.line(text_of(one.finding))
            output.line(f"  {one.outcome}: {one.message}")
    bad = (Outcome.LEFT, Outcome.QUARANTINED)
    return 1 if any(one.outcome in bad for one in repairs) else 0
