"""Unpacks a tar that ADD brings."""

from __future__ import annotations

from typing import BinaryIO

from storagedrivers.stores import cp


def unpack(root: int, target: str, stream: BinaryIO) -> None:
    """Unpack a tar, plain or compressed, into a directory of the tree with this root.

    Owners, modes and all else are the tar's. Nothing leaves the tree, whatever its names say.

    Raises:
        DiffError: it is damaged or hostile; names the entry.
        ContainerError: a file is in the way of a directory, or the other way round.
    """
    cp.extract(root, stream, target, archive=True)
