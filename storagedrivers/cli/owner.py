"""Say to which layer, image, container or volume a path in the graph root or in the run root
belongs, and what refers to it.

Exit codes: 0 it belongs to something, 1 it is an orphan or not the store's.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagedrivers.cli import output
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.owner import Owner


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the path."""
    parser.add_argument("path", metavar="PATH")


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    from storagedrivers.stores.owner import find_owner

    with Storage.open(config, read_only=True) as storage:
        owner = find_owner(storage.layers, arguments.path)
        root = storage.root
    if arguments.json:
        output.document({"schema": 1, "owner": None if owner is None else owner._asdict()})
    elif owner is None:
        output.line(f"{arguments.path} belongs to nothing in the store at {root}")
    else:
        _print(arguments.path, owner)
    return 1 if owner is None or owner.is_orphan else 0


def _print(path: str, owner: Owner) -> None:
    if owner.is_orphan:
        layer = f" of layer {owner.layer}" if owner.layer else ""
        output.line(f"{path}: {owner.kind}{layer}, which is in no row: an orphan")
        output.line("  → storagedrivers gc")
        return
    if owner.volume:
        output.line(f"volume: {owner.volume}")
    if not owner.layer and (owner.images or owner.containers or owner.volume):
        output.line(f"what: {owner.kind}")
        if owner.inside and owner.volume:
            output.line(f"inside: {owner.inside}")
        _print_users(owner)
        return
    if not owner.layer:
        output.line(f"{path}: {owner.kind}{f' of {owner.driver}' if owner.driver else ''}")
        return
    output.line(f"layer: {owner.layer}")
    output.line(f"driver: {owner.driver}")
    output.line(f"what: {owner.kind}")
    for name in ("inside", "provider"):
        if value := getattr(owner, name):
            output.line(f"{name}: {value}")
    for name in ("lowers", "children", "mounts"):
        output.line(f"{name}: {', '.join(getattr(owner, name)) or '-'}")
    _print_users(owner)


def _print_users(owner: Owner) -> None:
    for name in ("images", "containers"):
        if value := getattr(owner, name):
            output.line(f"{name}: {', '.join(value)}")
    for step in owner.steps:
        output.line(f"build cache: {' '.join(step.split())}")
