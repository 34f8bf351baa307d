"""Layers: a tar becomes a directory, and the same tar again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from storagedrivers.cli import nouns, output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.storage import Storage
    from storagedrivers.stores.layers import Layer
    from storagedrivers.stores.mounts import MountRecord

SCHEMA = 1

_SHORT = 12  # characters of an id that are enough for a person


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    nouns.add_verbs(parser, VERBS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    _, _, action = VERBS[arguments.verb]
    return action(arguments, config)


def document_of(layer: Layer) -> dict[str, Any]:
    """A layer, as the JSON documents have it."""
    return {**layer._asdict(), "state": layer.state.value, "warnings": list(layer.warnings)}


# add


def _configure_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tar", metavar="TAR", help="plain or compressed; - for standard input")
    parser.add_argument("--parent", metavar="ID", help="the layer below")
    parser.add_argument("--digest", metavar="sha256:…", help="the file must have this digest")
    parser.add_argument(
        "--diff-id", metavar="sha256:…", help="the uncompressed tar must have this digest"
    )
    parser.add_argument(
        "--durability",
        choices=("layer", "none"),
        help="whether it has reached the disk when its id is printed; default: layer",
    )


def _add(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with _tar(arguments.tar) as (stream, total), opened(config) as storage:
        with output.progress("adding", total, quiet=arguments.json) as progress:
            layer = storage.layers.add(
                stream,
                parent=arguments.parent,
                diff_id=arguments.diff_id,
                digest=arguments.digest,
                durability=arguments.durability,
                progress=progress,
            )
        for warning in layer.warnings:
            output.warning(warning)
        _answer(arguments, layer)
    return 0


@contextmanager
def _tar(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The tar that was named, and how long it is, if it says so."""
    if name != "-":
        with open(name, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            yield file, status.st_size or None
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise StoreError(
            "standard input is a terminal, and a tar was expected",
            resolution="name a file, or write to it: … | storagedrivers layer add -",
        )
    yield sys.stdin.buffer, None


def _answer(arguments: argparse.Namespace, layer: Layer) -> None:
    if arguments.json:
        output.document({"schema": SCHEMA, **document_of(layer)})
    else:
        output.line(layer.id)


# create, seal


def _configure_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parent", metavar="PARENT", nargs="?", help="the layer below")
    parser.add_argument(
        "--size", metavar="BYTES", type=int, help="how much may be written to it, at most"
    )


def _create(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        _answer(arguments, storage.layers.create(arguments.parent, size=arguments.size))
    return 0


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layer", metavar="ID", help=_REFERENCE)


def _seal(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        _answer(arguments, storage.layers.seal(arguments.layer))
    return 0


# ls, inspect


def _configure_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def _ls(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        layers = storage.layers.ls()
        if arguments.quiet and not arguments.json:
            for layer in layers:
                output.line(layer.id)
            return 0
        # Most often there are none, and then there is nothing to import for looking at them.
        mounted = storage.database.row("SELECT 1 FROM mounts LIMIT 1") is not None
        mounts = _mounts(storage.layers.mounts()) if mounted else {}
    if arguments.json:
        documents = [{**document_of(one), "mounts": mounts.get(one.id, [])} for one in layers]
        output.document({"schema": SCHEMA, "layers": documents})
        return 0
    now = time.time()
    output.table(
        ("ID", "PARENT", "DRIVER", "SIZE", "CREATED", "MOUNTED"),
        [
            (
                layer.id,
                (layer.parent or "-")[:_SHORT],
                layer.driver,
                "writable" if layer.writable else output.size(layer.size),
                f"{output.duration(now - layer.created)} ago",
                "\n".join(one["path"] for one in mounts.get(layer.id, ())) or "-",
            )
            for layer in layers
        ],
    )
    return 0


def _mounts(records: Iterable[MountRecord]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in records:
        fields = {"path": one.path, "read_only": one.read_only, "times": one.times}
        found.setdefault(one.layer, []).append(fields)
    return found


def _configure_several(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layers", metavar="ID", nargs="+", help=_REFERENCE)


def _inspect(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        documents = []
        for reference in arguments.layers:
            layer = storage.layers.get(reference)
            mounts = _mounts(storage.layers.mounts(layer.id)).get(layer.id, [])
            documents.append(
                {
                    **document_of(layer),
                    "lowers": list(storage.layers.lowers(layer.id)),
                    "children": storage.layers.children(layer.id),
                    "mounts": mounts,
                }
            )
    if arguments.json:
        output.document({"schema": SCHEMA, "layers": documents})
        return 0
    nouns.print_documents(documents, _text)
    return 0


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "created":
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(value))
    if key in ("size", "diff_size", "stored_size") and value is not None:
        return f"{value} ({output.size(value)})"
    if key == "mounts":
        return ", ".join(f"{one['path']} ({one['times']} ×)" for one in value) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)


# export, changes


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="instead of standard output; then print the DiffID"
    )


def _export(arguments: argparse.Namespace, config: StorageConfig) -> int:
    from storagedrivers.cli import outgoing

    outgoing.refuse_terminal(arguments.output)
    with opened(config, only_reads=True) as storage:
        layer = storage.layers.get(arguments.layer)
        diff_id = outgoing.write_tar(
            arguments,
            lambda write: storage.layers.export(layer.id, write),
            layer.diff_size,
            label="exporting",
        )
    if arguments.output is None:
        return 0
    if arguments.json:
        output.document({"schema": SCHEMA, "id": layer.id, "diff_id": diff_id})
    else:
        output.line(diff_id)
    return 0


def _changes(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        changes = storage.layers.changes(arguments.layer)
        output.changes(changes, schema=SCHEMA if arguments.json else None)
    return 0


# mount, unmount, rm


def _configure_mount(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--writable", action="store_true", help="a layer that 'layer create' made")


def _mount(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        path = storage.layers.mount(arguments.layer, read_only=not arguments.writable)
    if arguments.json:
        output.document({"schema": SCHEMA, "path": os.fspath(path)})
    else:
        output.line(os.fspath(path))
    return 0


def _unmount(arguments: argparse.Namespace, config: StorageConfig) -> int:
    return _for_each(arguments, config, lambda storage: storage.layers.unmount)


def _remove(arguments: argparse.Namespace, config: StorageConfig) -> int:
    return _for_each(arguments, config, lambda storage: storage.layers.remove)


def _for_each(
    arguments: argparse.Namespace,
    config: StorageConfig,
    action: Callable[[Storage], Callable[[str], object]],
) -> int:
    """Do it with every layer, and print the ids of those that it was done with."""
    with opened(config) as storage:

        def act(reference: str) -> tuple[str, str, object]:
            layer = storage.layers.get(reference).id
            return layer, layer, action(storage)(layer)

        return nouns.for_each(arguments, "layer", act, schema=SCHEMA)


_REFERENCE = "its id, the beginning of that, its DiffID or its ChainID"


VERBS: nouns.Verbs = {
    "add": ("make a layer of a tar, and print its id", _configure_add, _add),
    "ls": ("list the layers", _configure_ls, _ls),
    "inspect": ("all that is known of layers", _configure_several, _inspect),
    "export": ("write a layer's tar: the bytes that came in", _configure_export, _export),
    "changes": ("print what a layer adds, changes and deletes", _configure_one, _changes),
    "mount": ("mount a layer, and print where", _configure_mount, _mount),
    "unmount": ("take mounts back; those that are gone are printed", _configure_several, _unmount),
    "rm": ("remove layers", _configure_several, _remove),
    "create": ("make an empty writable layer, and print its id", _configure_create, _create),
    "seal": ("make a writable layer read-only for good", _configure_one, _seal),
}
