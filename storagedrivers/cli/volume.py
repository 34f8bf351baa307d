"""Volumes: directories that outlive the containers that use them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import load, nouns, outgoing, output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.model import Volume
    from storagedrivers.storage import Storage

SCHEMA = 1

_FIELDS = ("Name", "Driver", "Scope", "Mountpoint", "Labels", "Size", "Links")
_KEYS = (
    "Name", "Driver", "Mountpoint", "CreatedAt", "Labels", "Options", "Scope",
    "Size", "Anonymous", "Seed", "Containers",
)  # fmt: skip
_SCOPE = "local"  # as Docker says of volumes of one host


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    nouns.add_verbs(parser, VERBS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    _, _, action = VERBS[arguments.verb]
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
    _add_filter(parser)
    add("--format", metavar="TEMPLATE", help="a line each: '{{.Name}}', 'table …', json")


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f" if parser.prog.endswith("ls") else "--filter",
        "--filter",
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
    labels = ",".join(f"{key}={value}" for key, value in sorted(volume.labels.items()))
    return {
        "Name": volume.name,
        "Driver": volume.driver,
        "Scope": _SCOPE,
        "Mountpoint": place,
        "Labels": labels,
        "Size": output.size(volume.size),
        "Links": str(len(users)),
    }


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    _configure_several(parser)
    parser.add_argument(
        "-f", "--format", metavar="TEMPLATE", help="a line each: '{{.Mountpoint}}', json"
    )


def _inspect(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        documents = [_document(storage, name) for name in arguments.volumes]
    if arguments.json:
        output.document({"schema": SCHEMA, "volumes": documents})
    elif arguments.format:
        from storagedrivers.cli import templates

        templates.print_all(arguments.format, documents, _KEYS)
    else:
        output.document(documents)
    return 0


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
    with opened(config) as storage:
        rows = []
        for name in arguments.volumes or [one.name for one in storage.volumes.ls()]:
            volume, usage = storage.volumes.get(name), storage.volumes.usage(name)
            rows.append((volume.name, usage.bytes, usage.inodes, volume.size))
    if arguments.json:
        keys = ("name", "bytes", "inodes", "limit")
        documents = [dict(zip(keys, row, strict=True)) for row in rows]
        output.document({"schema": SCHEMA, "volumes": documents})
        return 0
    output.table(
        ("VOLUME", "BYTES", "INODES", "LIMIT"),
        [
            (name, output.size(count), str(inodes), output.size(limit))
            for name, count, inodes, limit in rows
        ],
    )
    return 0


def _configure_usage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volumes", metavar="VOLUME", nargs="*", help="default: all")


# export, import, clone


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="instead of standard output")


def _export(arguments: argparse.Namespace, config: StorageConfig) -> int:
    outgoing.refuse_terminal(arguments.output)
    with opened(config) as storage:
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


def _configure_import(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    add = parser.add_argument
    add("tar", metavar="TAR", nargs="?", default="-", help="default: -, standard input")
    add("--digest", metavar="sha256:…", help="what export printed; nothing changes for another tar")


def _import(arguments: argparse.Namespace, config: StorageConfig) -> int:
    command = f"volume import {arguments.volume}"
    with load.incoming(arguments.tar, command) as source, opened(config) as storage:
        if isinstance(source, str):
            with open(source, "rb", buffering=0) as file:
                volume = storage.volumes.import_(arguments.volume, file, digest=arguments.digest)
        else:
            volume = storage.volumes.import_(arguments.volume, source, digest=arguments.digest)
    return _answer(arguments, volume)


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
        "-f", "--force", action="store_true", help="one that is not there is no error"
    )


def _rm(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:

        def act(name: str) -> tuple[str, str, object]:
            storage.volumes.remove(name, force=arguments.force)
            return name, name, True

        return nouns.for_each(arguments, "volume", act, schema=SCHEMA)


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also those that someone has given a name")
    add("-n", "--dry-run", action="store_true", help="only say which")
    add("-f", "--force", action="store_true", help="taken as Docker's: never asks")
    _add_filter(parser)


def _prune(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=arguments.dry_run) as storage:
        found = storage.volumes.prune(
            all=arguments.all, dry_run=arguments.dry_run, filters=arguments.filter
        )
    if arguments.json:
        names = [one.name for one in found]
        output.document({"schema": SCHEMA, "dry_run": arguments.dry_run, "volumes": names})
        return 0
    for one in found:
        output.line(one.name)
    words = "would be" if arguments.dry_run else "were"
    output.note(f"{len(found)} {words} removed")
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
