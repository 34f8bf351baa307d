"""The build cache: what steps of builds have made, and what RUNs keep from build to build."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import images, nouns, output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.build_cache import Listed
    from storagedrivers.stores.cache_pruning import Pruned
    from storagedrivers.stores.cache_volumes import CacheVolume

SCHEMA = 1

_SHORT = 12  # digits of a key that are enough for a person
_LONG = 60  # characters of an instruction
_FIELDS = (
    "ID", "Step", "Driver", "Layer", "Size", "CreatedSince", "CreatedAt", "LastUsedSince",
    "LastUsedAt", "UsageCount", "Shared", "Reclaimable",
)  # fmt: skip

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d|w)", re.ASCII)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    nouns.add_verbs(parser, VERBS, ALIASES)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    _, _, action = VERBS[ALIASES.get(arguments.verb, arguments.verb)]
    return action(arguments, config)


# ls


def _configure_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    images.configure_text(parser)


def _ls(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        entries = storage.build_cache.ls()
        volumes = storage.build_cache.volumes()
    if arguments.json:
        output.document(
            {
                "schema": SCHEMA,
                "entries": [_document(one) for one in entries],
                "volumes": [one._asdict() for one in volumes],
            }
        )
        return 0
    rows = [*_rows(entries, volumes, whole=arguments.no_trunc)]
    if arguments.quiet:
        for row in rows:
            output.line(row["ID"])
    elif arguments.format is not None:
        from storagedrivers.cli import templates

        templates.print_all(arguments.format, rows, _FIELDS)
    else:
        columns = {
            "CACHE ID": "ID",
            "STEP": "Step",
            "CREATED": "CreatedSince",
            "LAST USED": "LastUsedSince",
            "USES": "UsageCount",
            "SIZE": "Size",
            "SHARED": "Shared",
        }
        output.table([*columns], [[row[one] for one in columns.values()] for row in rows])
    return 0


def _document(one: Listed) -> dict[str, Any]:
    document = one.entry._asdict()
    del document["number"]
    return {**document, "size": one.size, "shared": one.shared, "lost": one.lost}


def _rows(
    entries: list[Listed], volumes: list[CacheVolume], *, whole: bool
) -> Iterator[dict[str, Any]]:
    """What people see, by the fields of ``--format``."""
    for one in entries:
        entry = one.entry
        yield {
            "ID": entry.key if whole else entry.key[:_SHORT],
            "Step": _step(entry.instruction, whole=whole),
            "Driver": entry.driver,
            "Layer": entry.layer or "-",
            "UsageCount": str(entry.uses),
            **_about(one.size, entry.created, entry.used, shared=one.shared),
        }
    for volume in volumes:
        yield {
            "ID": volume.name,
            "Step": _step(f"RUN --mount=type=cache,id={volume.id}", whole=whole),
            "Driver": "-",
            "Layer": "-",
            "UsageCount": "-",
            **_about(volume.size, volume.created, volume.used, shared=volume.busy),
        }


def _about(size: int, created: float, used: float, *, shared: bool) -> dict[str, str]:
    return {
        "Size": output.size(size),
        "CreatedSince": images.since(created),
        "CreatedAt": images.at(created),
        "LastUsedSince": images.since(used),
        "LastUsedAt": images.at(used),
        "Shared": "yes" if shared else "no",
        "Reclaimable": "false" if shared else "true",
    }


def _step(instruction: str, *, whole: bool) -> str:
    text = " ".join(instruction.split())
    return text if whole or len(text) <= _LONG else f"{text[: _LONG - 1]}…"


# prune


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--max-size",
        "--keep-storage",
        metavar="SIZE",
        help="keep so much, 10g, of what only the cache has: what was used last",
    )
    add("--unused-for", metavar="TIME", help="only what no build had for so long: 36h, 7d")
    add(
        "--filter",
        metavar="until=TIME",
        action="append",
        default=[],
        help="Docker's word for --unused-for",
    )
    add("-a", "--all", action="store_true", help="also forget steps whose layers images have")
    add("-n", "--dry-run", action="store_true", help="only say which")
    add("-f", "--force", action="store_true", help="taken as Docker's: never asks")


def _prune(arguments: argparse.Namespace, config: StorageConfig) -> int:
    unused_for = _unused_for(arguments)
    max_size = None
    if arguments.max_size is not None:
        from storagedrivers.mounts.sizes import parse_size

        max_size = parse_size(arguments.max_size)
    with opened(config, read_only=arguments.dry_run) as storage:
        pruned = storage.build_cache.prune(
            max_size=max_size,
            unused_for=unused_for,
            all=arguments.all,
            dry_run=arguments.dry_run,
        )
    if arguments.json:
        output.document(_pruned(pruned, dry_run=arguments.dry_run))
        return 0
    for entry in pruned.entries:
        output.line(f"{entry.key[:_SHORT]}  {_step(entry.instruction, whole=False)}")
    for volume in pruned.volumes:
        output.line(volume.name)
    words = "would be" if arguments.dry_run else "were"
    count = len(pruned.entries) + len(pruned.volumes)
    output.note(f"{count} {words} removed, {output.size(pruned.size)}")
    return 0


def _pruned(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "dry_run": dry_run,
        "entries": [entry.key for entry in pruned.entries],
        "layers": [*pruned.layers],
        "volumes": [one.name for one in pruned.volumes],
        "bytes": pruned.size,
    }


def _unused_for(arguments: argparse.Namespace) -> float | None:
    """The longest time that was given."""
    given = [] if arguments.unused_for is None else [arguments.unused_for]
    for text in arguments.filter:
        name, _, value = text.partition("=")
        if name not in ("until", "unused-for"):
            raise StoreError(
                f"{text!r} is no filter of the cache", resolution="the only one is until=TIME"
            )
        given.append(value)
    return max(map(parse_duration, given), default=None)


def parse_duration(text: str) -> float:
    """Seconds: of ``90s``, ``1h30m``, ``7d``.

    Raises:
        StoreError: it is no duration.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise StoreError(
            f"{text!r} is no duration", resolution="write numbers and units: 90s, 1h30m, 7d, 2w"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


VERBS: nouns.Verbs = {
    "ls": ("list what steps of builds have made", _configure_ls, _ls),
    "prune": ("forget what builds have made, and free what only that kept", _configure_prune,
              _prune),
}  # fmt: skip

ALIASES = {"list": "ls", "du": "ls"}
"""Docker's other words."""
