"""Images that Docker's classic builder and we built of the same context, told alike."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from build_cases import Case
from interop.daemons import Daemons

from storagedrivers.linux import mount as mounting
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores.images import Image
from storagedrivers.testing.trees import Node, Tree, read_tree

_SETTINGS = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell"),
    *("StopSignal", "User", "Volumes", "WorkingDir"),
)
"""What of an image's config says how to run it."""

NOW = -1
"""The time of what the build made."""

_RECENT = 1_600_000_000
"""Later times, in seconds, are those of the build."""


class Seen(NamedTuple):
    """What counts of an image.

    Attributes:
        tree: its files.
        layers: how many it has.
        config: how to run it.
        about: author and platform.
        history: each line, with its author and comment, and whether it stands for no layer.
    """

    tree: Tree
    layers: int
    config: Mapping[str, Any]
    about: tuple[str, ...]
    history: list[tuple[object, ...]]


def build_by_docker(daemons: Daemons, case: Case, context: Path) -> str:
    """The id of the image.

    Raises:
        RuntimeError: it was not built.
    """
    options = [f"--build-arg={key}={value}" for key, value in case.build_args.items()]
    options += [f"--label={key}={value}" for key, value in case.labels.items()]
    if case.target:
        options.append(f"--target={case.target}")
    fixed = ("--quiet", "--network=none", "--force-rm", f"--file={context / case.file}")
    return daemons.docker("build", *fixed, *options, context).decode().strip()


def build_by_us(storage: Storage, case: Case, context: Path) -> Image:
    """The image.

    Raises:
        StorageDriversError: it was not built.
    """
    return storage.build(
        context,
        dockerfile=case.file,
        build_args=case.build_args,
        labels=case.labels,
        target=case.target,
        network="none",
    )


def seen_in_docker(daemons: Daemons, image: str) -> Seen:
    """An image of Docker's, as it lies below its directory."""
    at = daemons.directory / "docker/image/overlay2/imagedb/content/sha256" / image[7:]
    layers = daemons.docker_inspect(image)["GraphDriver"]["Data"]
    with _merged(layers) as top:
        return _seen(json.loads(at.read_bytes()), top)


def seen_in_ours(storage: Storage, image: Image) -> Seen:
    """An image of ours."""
    config = json.loads(storage.images.config(image).raw)
    if image.layer is None:
        return _seen(config, None)
    with storage.images.mounted(image.id) as top:
        return _seen(config, top)


@contextmanager
def _merged(layers: Mapping[str, str] | None) -> Iterator[Path | None]:
    """The layers of an image of Docker's, mounted as it mounts them."""
    if not layers:
        yield None
    elif "LowerDir" not in layers:
        yield Path(layers["UpperDir"])
    else:
        with tempfile.TemporaryDirectory() as top:
            lower = f"lowerdir={layers['UpperDir']}:{layers['LowerDir']}"
            mounting.mount(Mount("overlay", "overlay", options=("ro", lower)), top)
            try:
                yield Path(top)
            finally:
                mounting.unmount(top)


def _seen(config: Mapping[str, Any], top: Path | None) -> Seen:
    run = config.get("config") or {}
    platform = (config["os"], config["architecture"], config.get("variant", ""))
    return Seen(
        {} if top is None else _timeless(read_tree(top)),
        len(config["rootfs"].get("diff_ids") or ()),
        {key: run[key] for key in _SETTINGS if run.get(key)},
        (config.get("author", ""), *platform),
        [
            (
                re.sub(r"[0-9a-f]{64}(?= in )", "…", one.get("created_by", "")),
                one.get("empty_layer", False),
                one.get("author", ""),
                one.get("comment", ""),
            )
            for one in config["history"]
        ],
    )


def expected(theirs: Seen, mine: Seen, empty_lines: tuple[int, ...]) -> Seen:
    """What should come of it with us: what Docker made of it, but for directories that Docker
    touches, because it mounts something in them, or copies nothing to them.

    Args:
        empty_lines: of the history, which stand for no layer with us.
    """
    touched = {
        path: replace(node, mtime_ns=mine.tree[path].mtime_ns)
        for path, node in theirs.tree.items()
        if node.kind == "directory" and node.mtime_ns == NOW and path in mine.tree
    }
    history = [
        (text, empty or number in empty_lines, *more)
        for number, (text, empty, *more) in enumerate(theirs.history)
    ]
    return theirs._replace(
        tree={**theirs.tree, **touched}, layers=theirs.layers - len(empty_lines), history=history
    )


def _timeless(tree: Tree) -> dict[bytes, Node]:
    """The tree with times that are of the context or the base, in seconds."""

    def told(node: Node) -> Node:
        seconds = node.mtime_ns // 1_000_000_000
        return replace(node, mtime_ns=seconds if seconds < _RECENT else NOW)

    return {path: told(node) for path, node in tree.items() if path != b"."}
