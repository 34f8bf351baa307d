"""A parent layer and a layer of more than 200 cases, and the tree that they make.

A case is data: entries of the parent layer, entries of the layer, and all that the merged tree
shows in the case's own directory. That directory is in the parent layer with metadata of its own,
and the layer does not mention it, so every case also says that the metadata of a directory stays
when only something below it changes.

The rules are those for tars in the wild: whiteouts hide what lies below, and never what the same
layer brings; a later entry of a path replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import archives
from archives import TIME

from storagedrivers.testing.trees import Node
from torture import formats, hard_links, kinds, metadata, parents, whiteouts
from torture.parts import CASES, OLD, Case, Place, a_directory

__all__ = ["CASES", "OLD", "Case", "Place", "expected_tree", "layer_tar", "parent_tar"]


def directory_of(number: int, one: Case) -> bytes:
    """The case's directory, with its slash."""
    return f"{number:03}-{one.name.replace(' ', '-').replace('/', '+')}/".encode()


def _build() -> None:
    for family in (
        parents.parents,
        kinds.types,
        kinds.duplicates,
        hard_links.hard_links,
        whiteouts.whiteouts,
        metadata.metadata,
        metadata.attributes,
        formats.names,
        formats.formats,
        formats.sparse,
        formats.specials,
        formats.everywhere,
    ):
        family()


_build()


def _entries(which: str, time: int) -> Iterator[bytes]:
    for number, one in enumerate(CASES):
        at = directory_of(number, one)
        if which == "lower":
            yield archives.directory(at, mode=0o750, uid=11, gid=12, mtime=time)
        for part in getattr(one, which):
            yield part(Place(at, time))


def parent_tar() -> bytes:
    """The layer below."""
    root = archives.directory(b"./", mode=0o711, uid=1, gid=2, mtime=OLD - 1)
    return archives.tar(root, *_entries("lower", OLD))


def layer_tar() -> bytes:
    """The layer with the cases."""
    root = archives.directory(b"./", mode=0o751, uid=3, gid=4, mtime=TIME + 1)
    return archives.tar(root, *_entries("layer", TIME))


def expected_tree() -> dict[bytes, Node]:
    """What the two show together."""
    tree = {b".": a_directory(mode=0o751, uid=3, gid=4, mtime=TIME + 1)}
    for number, one in enumerate(CASES):
        at = directory_of(number, one)
        tree[at[:-1]] = a_directory(mode=0o750, uid=11, gid=12, mtime=OLD)
        for path, node in one.shows.items():
            links = tuple(sorted(at + name for name in node.links))
            target = node.target.replace(b"/%s", b"/" + at)
            tree[at + path] = replace(node, links=links, target=target)
    return tree
