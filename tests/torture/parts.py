"""What cases are written in: entries of a layer, nodes of the tree that they make."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import archives
from archives import TIME

from storagedrivers.testing.trees import Node

OLD = 1_400_000_000
"""When everything in the parent layer was changed last."""


class Place(NamedTuple):
    """Where a part is written: the case's directory with its slash, and the layer's time."""

    at: bytes
    time: int


Part = Callable[[Place], bytes]


class Case(NamedTuple):
    """One case; paths are relative to its directory."""

    name: str
    lower: tuple[Part, ...]
    layer: tuple[Part, ...]
    shows: Mapping[bytes, Node]


# Entries


def file(name: bytes, content: bytes = b"", **fields: object) -> Part:
    return lambda p: archives.file(p.at + name, content, **{"mtime": p.time, **fields})


def directory(name: bytes, **fields: object) -> Part:
    return lambda p: archives.directory(p.at + name + b"/", **{"mtime": p.time, **fields})


def symlink(name: bytes, target: bytes, **fields: object) -> Part:
    """``@`` at the target's beginning stands for the case's directory, from the root."""
    return lambda p: archives.symlink(
        p.at + name,
        b"/" + p.at + target[1:] if target.startswith(b"@") else target,
        **{"mtime": p.time, **fields},
    )


def hard_link(name: bytes, target: bytes, **fields: object) -> Part:
    return lambda p: archives.hard_link(p.at + name, p.at + target, **{"mtime": p.time, **fields})


def fifo(name: bytes, **fields: object) -> Part:
    return lambda p: archives.fifo(p.at + name, **{"mtime": p.time, **fields})


def device(name: bytes, major: int, minor: int, **fields: object) -> Part:
    return lambda p: archives.device(p.at + name, major, minor, **{"mtime": p.time, **fields})


def whiteout(name: bytes, content: bytes = b"", **fields: object) -> Part:
    directory, base = os.path.split(name)
    return file(os.path.join(directory, b".wh." + base), content, **fields)


def opaque(name: bytes = b"") -> Part:
    return file(os.path.join(name, b".wh..wh..opq"))


def with_xattrs(part: Part, values: Mapping[bytes, bytes]) -> Part:
    return lambda p: archives.xattrs(values) + part(p)


def with_pax(part: Part, records: Mapping[bytes, bytes]) -> Part:
    return lambda p: archives.pax(records) + part(p)


# What is shown


def _ns(time: int | float) -> int:
    return time * 10**9 if isinstance(time, int) else round(time * 10**9)


def a_file(content: bytes = b"", *, mtime: int = TIME, **fields: object) -> Node:
    digest = hashlib.sha256(content).hexdigest()
    node = Node("file", 0o644, 0, 0, _ns(mtime), size=len(content), content=digest)
    return replace(node, **fields)  # type: ignore[arg-type]


def a_directory(*, mtime: int = TIME, **fields: object) -> Node:
    return replace(Node("directory", 0o755, 0, 0, _ns(mtime)), **fields)  # type: ignore[arg-type]


def a_symlink(target: bytes, *, mtime: int = TIME, **fields: object) -> Node:
    node = Node("symlink", 0o777, 0, 0, _ns(mtime), target=target)
    return replace(node, **fields)  # type: ignore[arg-type]


def a_fifo(*, mtime: int = TIME, **fields: object) -> Node:
    return replace(Node("fifo", 0o644, 0, 0, _ns(mtime)), **fields)  # type: ignore[arg-type]


def a_device(major: int, minor: int, *, mtime: int = TIME, **fields: object) -> Node:
    device = os.makedev(major, minor)
    node = Node("character device", 0o644, 0, 0, _ns(mtime), device=device)
    return replace(node, **fields)  # type: ignore[arg-type]


def linked(node: Node, *names: bytes) -> dict[bytes, Node]:
    """The same node under several names."""
    return {name: replace(node, links=tuple(sorted(names))) for name in names}


CASES: list[Case] = []


def case(
    name: str,
    layer: Part | tuple[Part, ...] = (),
    shows: Mapping[bytes, Node] | None = None,
    *,
    lower: Part | tuple[Part, ...] = (),
) -> None:
    CASES.append(
        Case(
            name,
            lower if isinstance(lower, tuple) else (lower,),
            layer if isinstance(layer, tuple) else (layer,),
            shows or {},
        )
    )
