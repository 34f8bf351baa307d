"""What a changeset directory says, read independently of the drivers and of the archive engine."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace

from storagedrivers.model import Changeset, WhiteoutFormat
from storagedrivers.testing.trees import Node, Tree, read_tree

_AUFS_PREFIX = b".wh."
_AUFS_OPAQUE = b".wh..wh..opq"
_AUFS_OWN = b".wh..wh."


def lay_over(lower: Tree, changeset: Changeset) -> Tree:
    """The tree that a changeset makes of *lower*."""
    changes = read_tree(changeset.path)
    result = dict(lower)
    for path in sorted(changes):
        hidden = _hidden(path, changes[path], changeset)
        if hidden is not None:
            _drop(result, hidden, itself=True)
    for path in sorted(changes):
        node = changes[path]
        if _is_mark(path, node, changeset.whiteouts):
            continue
        keeps_children = (
            node.kind == "directory"
            and result.get(path, node).kind == "directory"
            and not _is_opaque(path, changeset)
        )
        if not keeps_children and path != b".":
            _drop(result, path, itself=True)
        result[path] = node
    return _relinked(result)


def _hidden(path: bytes, node: Node, changeset: Changeset) -> bytes | None:
    """The lower path that an entry of the changeset hides."""
    if changeset.whiteouts is WhiteoutFormat.AUFS:
        directory, name = os.path.split(path)
        if name.startswith(_AUFS_PREFIX) and not name.startswith(_AUFS_OWN):
            return os.path.join(directory, name[len(_AUFS_PREFIX) :])
        return None
    return path if node.kind == "character device" and node.device == 0 else None


def _is_mark(path: bytes, node: Node, whiteouts: WhiteoutFormat) -> bool:
    if whiteouts is WhiteoutFormat.AUFS:
        return any(name.startswith(_AUFS_PREFIX) for name in path.split(b"/"))
    return node.kind == "character device" and node.device == 0


def _is_opaque(path: bytes, changeset: Changeset) -> bool:
    full = os.path.join(os.fsencode(changeset.path), path)
    if changeset.whiteouts is WhiteoutFormat.AUFS:
        return os.path.lexists(os.path.join(full, _AUFS_OPAQUE))
    prefix = "user" if changeset.whiteouts is WhiteoutFormat.OVERLAY_USER else "trusted"
    try:
        return os.getxattr(full, f"{prefix}.overlay.opaque") == b"y"
    except OSError:
        return False


def _drop(tree: dict[bytes, Node], path: bytes, *, itself: bool) -> None:
    for other in [one for one in tree if one.startswith(path + b"/")]:
        del tree[other]
    if itself:
        tree.pop(path, None)


def _relinked(tree: dict[bytes, Node]) -> Tree:
    """Hard links whose other names were replaced or hidden are none any more."""
    groups: dict[tuple[bytes, ...], list[bytes]] = defaultdict(list)
    for path, node in tree.items():
        if node.links:
            groups[node.links].append(path)
    for paths in groups.values():
        links = tuple(sorted(paths)) if len(paths) > 1 else ()
        for path in paths:
            tree[path] = replace(tree[path], links=links)
    return tree
