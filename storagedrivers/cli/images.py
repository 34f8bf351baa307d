"""List the images: short for 'image ls'."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError
from storagedrivers.oci import reference as references

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.image_records import Image

SCHEMA = 1

NONE = "<none>"
"""What stands where there is no name, as Docker has it."""

_SHORT = 12  # digits of an id that are enough for a person
_FIELDS = ("ID", "Repository", "Tag", "Digest", "CreatedSince", "CreatedAt", "Size")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("pattern", metavar="NAME", nargs="?", help="only images of this name")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.add_argument(
        "-a", "--all", action="store_true", help="taken as Docker's: all are listed anyway"
    )
    parser.add_argument(
        "-f",
        "--filter",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="dangling=true: without a name; reference=PATTERN: of a name",
    )
    parser.add_argument("--digests", action="store_true", help="with the manifests' digests")
    configure_text(parser)


def configure_text(parser: argparse.ArgumentParser) -> None:
    """Add the options of lists for people."""
    parser.add_argument("--no-trunc", action="store_true", help="cut nothing short")
    parser.add_argument("--format", metavar="TEMPLATE", help="a line each: '{{.ID}}', 'table …'")


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    wanted = [_parsed(one) for one in arguments.filter]
    if arguments.pattern is not None:
        wanted.append(("reference", arguments.pattern))
    with opened(config, read_only=True) as storage:
        images = storage.images.ls()
        sizes = storage.images.sizes(images) if arguments.json or not arguments.quiet else {}
        for image, size in storage.images.available().items() if storage.images.additional else ():
            images.append(image)
            sizes[image.id] = size
    found = [(image, names) for image in images if (names := _names(image, wanted)) is not None]
    if arguments.json:
        documents = [
            {**document_of(image), "names": list(names), "size": sizes[image.id]}
            for image, names in found
        ]
        output.document({"schema": SCHEMA, "images": documents})
    elif arguments.quiet:
        for image, _ in found:
            output.line(shown_id(image.id, arguments))
    else:
        rows = [row for image, names in found for row in _rows(image, names, sizes, arguments)]
        _print(rows, arguments)
    return 0


def document_of(image: Image) -> dict[str, Any]:
    """An image, as the JSON documents have it."""
    return {**image._asdict(), "names": list(image.names)}


def shown_id(image: str, arguments: argparse.Namespace) -> str:
    """An id as it was asked for."""
    return image if arguments.no_trunc else image.partition(":")[2][:_SHORT]


def _parsed(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    known = key == "reference" or (key == "dangling" and value in ("true", "false"))
    if not (equals and known):
        raise StoreError(
            f"{text!r} is no filter of images",
            resolution="filters are dangling=true, dangling=false and reference=PATTERN",
        )
    return key, value


def _names(image: Image, wanted: Sequence[tuple[str, str]]) -> tuple[str, ...] | None:
    """The names of an image that the filters let through; None where they do not let it through."""
    names = image.names
    patterns = [value for key, value in wanted if key == "reference"]
    for key, value in wanted:
        if key == "dangling" and (value == "true") == bool(names):
            return None
    if patterns:
        names = tuple(name for name in names if any(_matches(name, one) for one in patterns))
        if not names:
            return None
    return names


def _matches(name: str, pattern: str) -> bool:
    reference = references.parse(name)
    texts = (reference.familiar, reference.familiar_repository, reference.repository, name)
    return any(_is_like(text.split("/"), pattern.split("/")) for text in texts)


def _is_like(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """A star stands for no slash."""
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _rows(
    image: Image, names: Sequence[str], sizes: dict[str, int], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    created = image.created
    for name in names or (None,):
        reference = None if name is None else references.parse(name)
        yield {
            "ID": shown_id(image.id, arguments),
            "Repository": reference.familiar_repository if reference else NONE,
            "Tag": reference.tag if reference else NONE,
            "Digest": image.manifest or NONE,
            "CreatedSince": "-" if created is None else since(created),
            "CreatedAt": "-" if created is None else at(created),
            "Size": output.size(sizes[image.id]),
        }


def since(created: float) -> str:
    """How long ago, for people."""
    return f"{output.duration(max(time.time() - created, 0))} ago"


def at(created: float) -> str:
    """When, for people."""
    from datetime import UTC, datetime, timedelta

    # Not time.localtime(): years from 1 on occur.
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=created)
    return moment.strftime("%Y-%m-%d %H:%M:%S %z")


def _print(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    if arguments.format is not None:
        from storagedrivers.cli import templates

        templates.print_all(arguments.format, rows, _FIELDS)
        return
    columns = {
        "REPOSITORY": "Repository",
        "TAG": "Tag",
        **({"DIGEST": "Digest"} if arguments.digests else {}),
        "IMAGE ID": "ID",
        "CREATED": "CreatedSince",
        "SIZE": "Size",
    }
    output.table([*columns], [[row[one] for one in columns.values()] for row in rows])
