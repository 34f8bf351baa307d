"""Lists containers, and says all that is known of some: ``container ls``, ``container inspect``,
``ps``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import nouns, output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StoreError
from storagedrivers.stores.container_mounts import mounts_of

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.storage import Storage
    from storagedrivers.stores.containers import Container

SCHEMA = 1

_SHORT = 12  # characters of an id that are enough for a person

_FIELDS = (
    *("ID", "Name", "Names", "Image", "Command", "CreatedAt", "Status", "Labels"),
    *("Mountpoint", "Mounts"),
)


def configure_ls(parser: argparse.ArgumentParser) -> None:
    """Add the options of a list."""
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="ids only")
    add("-a", "--all", action="store_true", help="ps: also those that do not run; ls always does")
    add("--no-trunc", action="store_true", help="whole ids and commands")
    add(
        "-f",
        "--filter",
        metavar="A=B",
        action="append",
        default=[],
        help="name=, id=, label=, status=, ancestor=, volume=; given twice for one: either",
    )
    add("--format", metavar="TEMPLATE", help="a line each: {{.ID}} {{.Name}}, or json")


def ls(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """List the containers."""
    with opened(config, read_only=True) as storage:
        rows = [row_of(storage, one) for one in storage.containers.ls()]
    for key, words in _filters(arguments.filter).items():
        rows = [row for row in rows if any(_FILTERS[key](row, word) for word in words)]
    if arguments.json:
        output.document({"schema": SCHEMA, "containers": rows})
    elif arguments.quiet:
        for row in rows:
            output.line(row["id"] if arguments.no_trunc else row["id"][:_SHORT])
    elif arguments.format:
        from storagedrivers.cli import templates

        fields = [_fields(row, whole=arguments.no_trunc) for row in rows]
        templates.print_all(arguments.format, fields, _FIELDS)
    else:
        _table(rows, whole=arguments.no_trunc)
    return 0


def row_of(storage: Storage, container: Container) -> dict[str, Any]:
    """A container, as the JSON documents have it."""
    status, exit_code = _status(storage, container)
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "image_name": container.image_name,
        "layer": container.layer,
        "created": container.created,
        "status": status,
        "exit_code": exit_code,
        "command": [*_words(container.config)],
        "labels": dict(container.config.get("Labels") or {}),
        "mounts": [
            {"path": one.path, "read_only": one.read_only, "times": one.times}
            for one in storage.containers.mounts(container)
        ],
        "volumes": [one.name for one in mounts_of(container) if one.name],
        "inside": [*_inside(storage, container)],
    }


def _words(config: Mapping[str, Any]) -> list[str]:
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def _status(storage: Storage, container: Container) -> tuple[str, int | None]:
    """What became of its process, and with which exit code."""
    if not os.path.exists(os.path.join(storage.containers.directory(container), "status.json")):
        running = storage.containers.is_running(container)
        return ("running" if running else "created"), None
    state = storage.runtime.state_of(container)
    return state.running.value, state.exit_code


def _filters(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _FILTERS or not equals:
            raise StoreError(
                f"{word!r} is no filter",
                resolution=f"write {', '.join(f'{one}=…' for one in _FILTERS)}",
            )
        if key == "status":
            _check_status(value)
        found.setdefault(key, []).append(value)
    return found


def _check_status(value: str) -> None:
    from storagedrivers.runtime.state import Running

    known = [one.value for one in Running]
    if value not in known:
        raise StoreError(f"{value!r} is no status", resolution=f"there are {', '.join(known)}")


def _has_label(row: Mapping[str, Any], word: str) -> bool:
    key, equals, value = word.partition("=")
    labels = row["labels"]
    return key in labels and (not equals or labels[key] == value)


def _is_of_image(row: Mapping[str, Any], word: str) -> bool:
    digest = (row["image"] or "").partition(":")[2]
    if row["image_name"] in (word, f"{word}:latest"):
        return True
    return bool(word) and digest.startswith(word.removeprefix("sha256:"))


_FILTERS: dict[str, Callable[[Mapping[str, Any], str], bool]] = {
    "name": lambda row, word: word in row["name"],
    "id": lambda row, word: row["id"].startswith(word),
    "label": _has_label,
    "status": lambda row, word: row["status"] == word,
    "ancestor": _is_of_image,
    "volume": lambda row, word: any(
        word in (one["name"], one["source"], one["target"])
        for one in row["inside"]
        if one["type"] != "tmpfs"
    ),
}


def _status_text(row: Mapping[str, Any]) -> str:
    code = row["exit_code"]
    return row["status"] if code is None else f"{row['status']} ({code})"


def _command_text(row: Mapping[str, Any], *, whole: bool) -> str:
    text = " ".join(row["command"])
    return text if whole or len(text) <= 30 else text[:29] + "…"


def _fields(row: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    from storagedrivers.cli.templates import Pairs

    return {
        "ID": row["id"] if whole else row["id"][:_SHORT],
        "Name": row["name"],
        "Names": row["name"],
        "Image": row["image_name"],
        "Command": _command_text(row, whole=whole),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(row["created"])),
        "Status": _status_text(row),
        "Labels": Pairs(row["labels"]),
        "Mountpoint": ",".join(one["path"] for one in row["mounts"]),
        "Mounts": ",".join(
            one["name"] or one["source"] for one in row["inside"] if one["type"] != "tmpfs"
        ),
    }


def _table(rows: Sequence[Mapping[str, Any]], *, whole: bool) -> None:
    now = time.time()
    output.table(
        ("ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "MOUNTED"),
        [
            (
                row["id"] if whole else row["id"][:_SHORT],
                row["name"],
                row["image_name"] or "-",
                _command_text(row, whole=whole) or "-",
                f"{output.duration(now - row['created'])} ago",
                _status_text(row),
                "\n".join(one["path"] for one in row["mounts"]) or "-",
            )
            for row in rows
        ],
    )


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``inspect``."""
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help=nouns.REFERENCE)
    parser.add_argument(
        "-f", "--format", metavar="TEMPLATE", help="a line each: '{{json .Mounts}}', json"
    )


def inspect(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Print all that is known of containers."""
    with opened(config, read_only=True) as storage:
        documents = [_document(storage, reference) for reference in arguments.containers]
    if arguments.json:
        output.document({"schema": SCHEMA, "containers": documents})
    elif arguments.format:
        from storagedrivers.cli import templates

        templates.print_all(arguments.format, [*map(_as_docker, documents)], _KEYS)
    else:
        nouns.print_documents([*map(_for_people, documents)], _text)
    return 0


_KEYS = (
    *("Id", "Name", "Created", "State", "Image", "ImageName", "Config", "Labels", "Mounts"),
    *("Driver", "Layer", "SizeRw", "Checkpoints", "Mountpoints", "Directory"),
)


def _as_docker(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a container, for templates: Docker's keys where it has one."""
    status = document["status"]
    running = {"Running": status == "running", "ExitCode": document["exit_code"] or 0}
    return {
        "Id": document["id"],
        "Name": document["name"],
        "Created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(document["created"])),
        "State": {"Status": status, **running},
        "Image": document["image"],
        "ImageName": document["image_name"],
        "Config": document["config"],
        "Labels": document["labels"],
        "Mounts": [*map(_mount_as_docker, document["inside"])],
        "Driver": document["driver"],
        "Layer": document["layer"],
        "SizeRw": document["size"],
        "Checkpoints": [one["label"] for one in document["checkpoints"]],
        "Mountpoints": [one["path"] for one in document["mounts"]],
        "Directory": document["directory"],
    }


def _mount_as_docker(mount: Mapping[str, Any]) -> dict[str, Any]:
    named = {"Name": mount["name"]} if mount["name"] else {}
    return {
        "Type": mount["type"],
        **named,
        "Source": mount["source"] or "",
        "Destination": mount["target"],
        "Mode": mount["mode"],
        "RW": not mount["read_only"],
        "Propagation": mount["propagation"],
        **({"Subpath": mount["subpath"]} if mount["subpath"] else {}),
        **({"Size": mount["size"]} if mount["size"] is not None else {}),
    }


def _for_people(document: Mapping[str, Any]) -> dict[str, Any]:
    """With ``mounts`` for what is mounted in it, which is what people look for there."""
    names = {"mounts": "mounted at", "inside": "mounts"}
    return {names.get(key, key): value for key, value in document.items()}


def _document(storage: Storage, reference: str) -> dict[str, Any]:
    from storagedrivers.stores.comparing import own_layers

    containers = storage.containers
    container = containers.get(reference)
    layer = storage.layers.get(container.layer)
    return {
        **row_of(storage, container),
        "image_is_gone": containers.image_is_gone(container),
        "driver": layer.driver,
        "depth": layer.depth,
        "own_layers": [*own_layers(storage.layers, container.layer, container.base)],
        "size": storage.layers.driver_for(layer.driver).usage(layer.id).bytes,
        "checkpoints": [
            {"label": one.label, "layer": one.layer, "created": one.created}
            for one in containers.checkpoints(container.id)
        ],
        "directory": containers.directory(container),
        "config": dict(container.config),
    }


def _inside(storage: Storage, container: Container) -> Iterator[dict[str, Any]]:
    """What is mounted in it when it runs."""
    for one in mounts_of(container):
        yield {
            "type": one.type,
            "name": one.name or None,
            "source": storage.volumes.data(one.name) if one.name else one.source or None,
            "subpath": one.subpath or None,
            "target": one.target,
            "read_only": one.read_only,
            "mode": one.mode,
            "propagation": one.propagation,
            "size": one.tmpfs_size,
        }
    for text in container.config.get("Tmpfs") or ():
        target, _, mode = text.partition(":")
        yield {
            **dict.fromkeys(("name", "source", "subpath")),
            "type": "tmpfs",
            "target": target,
            "read_only": "ro" in mode.split(","),
            "mode": mode,
            "propagation": "",
            "size": _tmpfs_size(mode),
        }


def _tmpfs_size(options: str) -> int | None:
    """The bytes that options of a tmpfs say; a part of the memory is no number of them."""
    from storagedrivers.mounts.sizes import parse_size

    given = [word[5:] for word in options.split(",") if word.startswith("size=")]
    with suppress(StoreError):
        return parse_size(given[-1]) if given else None
    return None


def _inside_text(mount: Mapping[str, Any]) -> str:
    words = [mount["type"]]
    if mount["name"]:
        words.append(f"{mount['name']} at {mount['source']}")
    elif mount["source"]:
        words.append(mount["source"])
    if mount["subpath"]:
        words.append(f"subpath {mount['subpath']}")
    if mount["size"] is not None:
        words.append(f"at most {output.size(mount['size'])}")
    if mount["read_only"]:
        words.append("read-only")
    if mount["propagation"]:
        words.append(mount["propagation"])
    return f"\n  {mount['target']}: {', '.join(words)}"


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "created":
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(value))
    if key == "size":
        return f"{value} ({output.size(value)})"
    if key == "mounted at":
        return ", ".join(f"{one['path']} ({one['times']} ×)" for one in value) or "-"
    if key == "mounts":
        return "".join(map(_inside_text, value)) or "-"
    if key == "checkpoints":
        return ", ".join(one["label"] for one in value) or "-"
    if key in ("config", "labels"):
        return ", ".join(f"{name}={one!r}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)
