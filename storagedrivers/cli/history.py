"""Show how an image came to be, the newest step first: short for 'image history'."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import nouns, output
from storagedrivers.cli.images import at, configure_text, shown_id, since
from storagedrivers.cli.nouns import opened

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.history import HistoryEntry

SCHEMA = 1

_MISSING = "<missing>"
_FIELDS = ("ID", "CreatedSince", "CreatedAt", "CreatedBy", "Size", "Comment", "Tags")
_LONGEST = 45  # characters of a command that are shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("image", metavar="IMAGE", help=nouns.REFERENCE)
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    configure_text(parser)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    with opened(config, read_only=True) as storage:
        entries = storage.images.history(arguments.image)
    if arguments.json:
        documents = [{**one._asdict(), "tags": list(one.tags)} for one in entries]
        output.document({"schema": SCHEMA, "history": documents})
        return 0
    rows = [_row(one, arguments) for one in entries]
    if arguments.quiet:
        for row in rows:
            output.line(row["ID"])
    elif arguments.format is not None:
        from storagedrivers.cli import templates

        templates.print_all(arguments.format, rows, _FIELDS)
    else:
        output.table(
            ("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"),
            [
                (row["ID"], row["CreatedSince"], row["CreatedBy"], row["Size"], row["Comment"])
                for row in rows
            ],
        )
    return 0


def _row(entry: HistoryEntry, arguments: argparse.Namespace) -> dict[str, Any]:
    from storagedrivers.oci.config import parse_time

    created = None if entry.created is None else parse_time(entry.created)
    command = " ".join(entry.created_by.split("\t"))
    if not arguments.no_trunc and len(command) > _LONGEST:
        command = command[: _LONGEST - 1] + "…"
    return {
        "ID": _MISSING if entry.id is None else shown_id(entry.id, arguments),
        "CreatedSince": "-" if created is None else since(created),
        "CreatedAt": "-" if created is None else at(created),
        "CreatedBy": command,
        "Size": output.size(entry.size),
        "Comment": entry.comment,
        "Tags": ",".join(entry.tags),
    }
