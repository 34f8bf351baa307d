"""Volumes: directories that outlive the containers that use them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import load, nouns, outgoing, output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import (
    DiffError,
    MalformedDiffError,
    NotFoundError,
    StorageDriversError,
    StoreError,
)

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.model import Volume
    from storagedrivers.storage import Storage

SCHEMA = 1

_FIELDS = ("Name", "Driver", "Scope", "Mountpoint", "Labels", "Options", "Size", "Links")
_KEYS = (
    "Name", "Driver", "Mountpoint", "CreatedAt", "Labels", "Options", "Scope",
    "Size", "Anonymous", "Seed", "Containers",
)  # fmt: skip
_SCOPE = "local"  # as Docker says of volumes of one host


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    nouns.add_verbs(parser, VERBS, ALIASES)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    _, _, action = VERBS[ALIASES.get(arguments.verb, arguments.verb)]
    return action(arguments, config)


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", metavar="VOLUME", help="its name")


def _configure_several(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volumes", metavar="VOLUME", nargs="+", help="their names")


def _answer(arguments: argparse.Namespace, volume: Volume) -> int:
    if arguments.json:
        output.document({"schema": SCHEMA, **_row(volume)})
    else:
        output.line(volume.name)
    return 0


def _row(volume: Volume) -> dict[str, Any]:
    """A volume, as the JSON documents have it."""
    return {
        **volume._asdict(),
        "labels": dict(volume.labels),
        "options": dict(volume.options),
    }


# create


def _configure_create(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", help="default: 64 digits that chance chooses")
    add(
        "-d",
        "--driver",
        dest="volume_driver",
        metavar="NAME",
        default="local",
        help="default: local",
    )
    add("-o", "--opt", metavar="A=B", action="append", help="for its driver: type=, device=, o=")
    add("-l", "--label", metavar="A=B", action="append", help="a label; keep: it is never pruned")
    add("--size", metavar="BYTES", help="how much it may hold, at most: 10g")


def _create(arguments: argparse.Namespace, config: StorageConfig) -> int:
    labels, options = _pairs(arguments.label, "--label"), _pairs(arguments.opt, "--opt")
    size = None
    if arguments.size is not None:
        from storagedrivers.mounts.sizes import parse_size

        size = parse_size(arguments.size)
    with opened(config) as storage:
        volume = storage.volumes.create(
            arguments.name,
            driver=arguments.volume_driver,
            labels=labels,
            options=options,
            size=size,
            anonymous=arguments.name is None,
        )
    # Where there was a volume of this name, it is as it was, and Docker does not say so.
    same = labels.items() <= volume.labels.items() and options.items() <= volume.options.items()
    if not same or (size is not None and size != volume.size):
        output.warning(
            f"there was a volume {volume.name} already, with other labels, options or size:"
            " it stays as it is"
        )
    return _answer(arguments, volume)


def _pairs(given: Iterable[str] | None, option: str) -> dict[str, str]:
    found = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not name.strip():
            raise StoreError(f"{option}: {text!r} has no name", resolution="write NAME=VALUE")
        found[name] = value
    return found


# ls, inspect, usage


def _configure_ls(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="names only")
    _add_filter(parser, "-f", "--filter")
    add("--format", metavar="TEMPLATE", help="a line each: '{{.Name}}', 'table …', json")


def _add_filter(parser: argparse.ArgumentParser, *names: str) -> None:
    parser.add_argument(
        *names,
        metavar="A=B",
        action="append",
        default=[],
        help="dangling=true, name=, driver=, label=, label!=",
    )


def _ls(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        volumes = storage.volumes
        found = volumes.ls(filters=arguments.filter)
        users = {} if arguments.quiet else {one.name: volumes.users(one.name) for one in found}
        places = {one.name: volumes.data(one.name) for one in found}
    if arguments.json:
        rows = [
            {**_row(one), "mountpoint": places[one.name], "containers": users.get(one.name, [])}
            for one in found
        ]
        output.document({"schema": SCHEMA, "volumes": rows})
    elif arguments.quiet:
        for one in found:
            output.line(one.name)
    elif arguments.format:
        from storagedrivers.cli import templates

        fields = [_fields(one, places[one.name], users[one.name]) for one in found]
        templates.print_all(arguments.format, fields, _FIELDS)
    else:
        output.table(("DRIVER", "VOLUME NAME"), [(one.driver, one.name) for one in found])
    return 0


def _fields(volume: Volume, place: str, users: list[str]) -> dict[str, Any]:
    from storagedrivers.cli.templates import Pairs

    return {
        "Name": volume.name,
        "Driver": volume.driver,
        "Scope": _SCOPE,
        "Mountpoint": place,
        "Labels": Pairs(volume.labels),
        "Options": Pairs(volume.options),
        "Size": output.size(volume.size),
        "Links": str(len(users)),
    }


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    _configure_several(parser)
    parser.add_argument(
        "-f", "--format", metavar="TEMPLATE", help="a line each: '{{.Mountpoint}}', json"
    )


def _inspect(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """One that is not there does not keep the others."""
    documents = []
    with opened(config, read_only=True) as storage:
        for name in arguments.volumes:
            try:
                documents.append(_document(storage, name))
            except NotFoundError as error:
                output.error(error)
    if arguments.json:
        output.document({"schema": SCHEMA, "volumes": documents})
    elif arguments.format:
        from storagedrivers.cli import templates

        templates.print_all(arguments.format, documents, _KEYS)
    else:
        output.document(documents)
    return 0 if len(documents) == len(arguments.volumes) else 1


def _document(storage: Storage, name: str) -> dict[str, Any]:
    """Docker's keys, and ours behind them."""
    volume = storage.volumes.get(name)
    return {
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": storage.volumes.data(volume.name),
        "CreatedAt": _moment(volume.created),
        "Labels": _mapping(volume.labels),
        "Options": _mapping(volume.options),
        "Scope": _SCOPE,
        "Size": volume.size,
        "Anonymous": volume.anonymous,
        "Seed": volume.seed,
        "Containers": storage.volumes.users(volume.name),
    }


def _mapping(given: Mapping[str, str]) -> dict[str, str] | None:
    return dict(given) or None  # as Docker has it


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    text = datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def _usage(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """One that cannot be mounted does not keep the others."""
    with opened(config, only_reads=True) as storage:
        names = arguments.volumes or [one.name for one in storage.volumes.ls()]
        rows = [_used(storage, name) for name in names]
    if arguments.json:
        output.document({"schema": SCHEMA, "volumes": rows})
    else:
        output.table(("VOLUME", "BYTES", "INODES", "LIMIT"), [*map(_usage_cells, rows)])
    return 1 if any(row["error"] for row in rows) else 0


def _used(storage: Storage, name: str) -> dict[str, Any]:
    """What a volume takes, as the JSON document has it."""
    row: dict[str, Any] = {"name": name, **dict.fromkeys(("bytes", "inodes", "limit", "error"))}
    try:
        row["limit"] = storage.volumes.get(name).size
        usage = storage.volumes.usage(name)
    except (StorageDriversError, OSError) as error:
        output.error(error)
        row["error"] = str(error)
    else:
        row |= {"bytes": usage.bytes, "inodes": usage.inodes}
    return row


def _usage_cells(row: Mapping[str, Any]) -> Sequence[str]:
    if row["error"]:
        return row["name"], "cannot be seen", "-", output.size(row["limit"])
    return row["name"], output.size(row["bytes"]), str(row["inodes"]), output.size(row["limit"])


def _configure_usage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volumes", metavar="VOLUME", nargs="*", help="default: all")


# export, import, clone


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="instead of standard output")


def _export(arguments: argparse.Namespace, config: StorageConfig) -> int:
    outgoing.refuse_terminal(arguments.output)
    with (
        opened(config, only_reads=True) as storage,
        _path(arguments.output, "name one in a directory that is there"),
    ):
        name = storage.volumes.get(arguments.volume).name
        digest = outgoing.write_tar(
            arguments,
            lambda write: storage.volumes.export(name, write),
            None,
            label="exporting",
        )
    if arguments.output is None:
        output.note(digest)
    elif arguments.json:
        output.document({"schema": SCHEMA, "name": name, "digest": digest})
    else:
        output.line(digest)
    return 0


@contextmanager
def _path(path: str | None, resolution: str) -> Iterator[None]:
    """Errors of the kernel about a path that was given say what to do."""
    try:
        yield
    except OSError as error:
        if path is None or error.filename != path or isinstance(error, StorageDriversError):
            raise
        raise StoreError(f"{path}: {error.strerror}", resolution=resolution) from error


def _configure_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "volume",
        metavar="VOLUME",
        help="its name; one that is not there is made, for a size or labels create it first",
    )
    add("tar", metavar="TAR", nargs="?", help="plain or compressed; default: -, standard input")
    add("--digest", metavar="sha256:…", help="what export printed; nothing changes for another tar")


def _import(arguments: argparse.Namespace, config: StorageConfig) -> int:
    command = f"volume import {arguments.volume}"
    with (
        _path(arguments.tar, "name a file that volume export has written, or another tar"),
        load.incoming(arguments.tar or "-", command) as source,
        opened(config) as storage,
        _tar(arguments),
    ):
        import_ = partial(storage.volumes.import_, digest=arguments.digest, warn=output.warning)
        if isinstance(source, str):
            with open(source, "rb", buffering=0) as file:
                volume = import_(arguments.volume, file)
        else:
            volume = import_(arguments.volume, source)
    return _answer(arguments, volume)


@contextmanager
def _tar(arguments: argparse.Namespace) -> Iterator[None]:
    """Errors of the tar say which it is."""
    given, volume = arguments.tar or "-", arguments.volume
    try:
        yield
    except DiffError as error:
        error.brief = f"{'standard input' if given == '-' else given}: {error.brief}"
        if isinstance(error, MalformedDiffError):
            error.resolution = error.resolution or "give it what volume export has written"
        # Docker's users may expect that the file comes first, or alone.
        if arguments.tar is None and (".tar" in volume or os.path.exists(volume)):
            error.resolution = (
                f"{volume} was taken for the name of the volume:"
                f" storagedrivers volume import VOLUME {volume}"
            )
        raise


def _configure_clone(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("name", metavar="NAME", help="the new one's")


def _clone(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        clone = storage.volumes.clone(arguments.volume, arguments.name, say=output.note)
        return _answer(arguments, clone)


# rm, prune


def _configure_rm(parser: argparse.ArgumentParser) -> None:
    _configure_several(parser)
    parser.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="one that is not there is no error; without its driver, forget it",
    )


def _rm(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:

        def act(name: str) -> tuple[str, str, object]:
            storage.volumes.remove(name, force=arguments.force, say=output.warning)
            return name, name, True

        return nouns.for_each(arguments, "volume", act, schema=SCHEMA)


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also those that someone has given a name")
    add("-n", "--dry-run", action="store_true", help="only say which")
    add("-f", "--force", action="store_true", help="taken as Docker's: never asks")
    _add_filter(parser, "--filter")


def _prune(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=arguments.dry_run) as storage:
        prune = partial(storage.volumes.prune, all=arguments.all, filters=arguments.filter)
        found = prune(dry_run=True)
        sizes = {one.name: _freed(storage, one.name) for one in found}
        if not arguments.dry_run:
            found = prune()
    freed = sum(sizes.get(one.name, 0) for one in found)
    if arguments.json:
        names = [one.name for one in found]
        document = {"dry_run": arguments.dry_run, "volumes": names, "bytes": freed}
        output.document({"schema": SCHEMA, **document})
        return 0
    for one in found:
        output.line(one.name)
    words = "would be" if arguments.dry_run else "were"
    output.note(f"{len(found)} {words} removed, {output.size(freed)}")
    return 0


def _freed(storage: Storage, name: str) -> int:
    """Bytes that a volume takes in the store, which is what removing it gives back at most."""
    from storagedrivers.linux.tree import measure_tree

    try:
        return measure_tree(storage.volumes.directory(name)).bytes
    except OSError:  # somebody was faster
        return 0


VERBS: nouns.Verbs = {
    "create": ("make a volume, and print its name", _configure_create, _create),
    "ls": ("list the volumes", _configure_ls, _ls),
    "inspect": ("all that is known of volumes", _configure_inspect, _inspect),
    "rm": ("remove volumes that no container uses", _configure_rm, _rm),
    "prune": ("remove anonymous volumes that nobody uses", _configure_prune, _prune),
    "export": ("write all that a volume holds as a tar", _configure_export, _export),
    "import": ("make or replace a volume with a tar, whole or not", _configure_import, _import),
    "clone": ("make a volume with what another one holds", _configure_clone, _clone),
    "usage": ("what volumes take on the disk", _configure_usage, _usage),
}

ALIASES = {"list": "ls", "remove": "rm"}
"""Docker's other words."""
