"""Remove what lies in the graph root and the run root and belongs to nothing: no layer, image,
container or volume.

Nothing that is used is touched, no mount is entered and no symlink followed. Exit codes: 0 all of
it is gone, or --dry-run; 1 something could not be removed.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import output
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.gc import Collected


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    from storagedrivers.stores.gc import collect, find_orphans, planned

    with Storage.open(config, read_only=True) as storage:
        orphans = find_orphans(storage.layers)
    if arguments.dry_run or not orphans:
        found = [*map(planned, orphans)]
    else:
        # Opening the store finishes what was half made; the rest is done here.
        with Storage.open(config) as storage:
            found = [*collect(storage.layers, orphans, storage.volumes)]
    gone = [one for one in found if not one.problem]
    reclaimed = sum(one.orphan.bytes for one in gone)
    if arguments.json:
        output.document(
            {
                "schema": 1,
                "dry_run": arguments.dry_run,
                "bytes": reclaimed,
                "orphans": [_document(one, dry_run=arguments.dry_run) for one in found],
            }
        )
    else:
        _print(found)
        words = "would be" if arguments.dry_run else "were"
        output.note(f"{len(gone)} {words} removed, {output.size(reclaimed)}")
    return 0 if arguments.dry_run or len(gone) == len(found) else 1


def _document(one: Collected, *, dry_run: bool) -> dict[str, Any]:
    orphan = one.orphan
    return {
        "kind": orphan.kind.value,
        "path": orphan.path,
        "owner": orphan.owner or None,
        "age": round(orphan.age, 3),
        "bytes": orphan.bytes,
        "inodes": orphan.inodes,
        "reason": orphan.reason,
        "removed": not (dry_run or one.problem),
        "problem": one.problem or None,
    }


def _print(found: list[Collected]) -> None:
    if not found:
        return
    output.table(
        ("KIND", "OWNER", "AGE", "BYTES", "PATH", "REASON"),
        [
            (
                one.orphan.kind.value,
                one.orphan.owner or "-",
                output.duration(one.orphan.age),
                output.size(one.orphan.bytes),
                one.orphan.path,
                one.orphan.reason + (f"\nkept: {one.problem}" if one.problem else ""),
            )
            for one in found
        ],
    )
