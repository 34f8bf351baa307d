"""Layers of a build: made above others, filled, sealed, and known by their DiffID."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import StorageDriversError
from storagedrivers.stores import writable

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.records import Layer

_EMPTY = f"sha256:{hashlib.sha256(bytes(1024)).hexdigest()}"
"""The DiffID of a tar with nothing in it: of a layer that changes nothing."""


def filled(
    layers: LayerStore,
    parent: str | None,
    lease: Lease,
    fill: Callable[[int], object],
    *,
    epoch: int | None,
) -> Layer | None:
    """A sealed layer with what *fill* writes; None where that changes nothing.

    Args:
        parent: the id of the layer below, or None.
        lease: gets it.
        fill: gets the open root.
        epoch: later times in it become this one.
    """
    layer = layers.create(parent, durability="none", held=False, lease=lease).id
    try:
        with writable.opened(layers, layer) as root:
            fill(root)
    except BaseException:
        with suppress(StorageDriversError, OSError):  # then it goes with the lease
            lease.drop(layer)
        raise
    return sealed(layers, layer, lease, epoch=epoch)


def sealed(layers: LayerStore, layer: str, lease: Lease, *, epoch: int | None) -> Layer | None:
    """A layer of the lease that was writable, sealed and with its DiffID; None where it changes
    nothing, then it is gone.
    """
    from storagedrivers.runtime.processes import await_spawning

    kept = False
    await_spawning()  # a child of another thread has what is open here until it executes
    try:
        layers.seal(layer, durability="none")
        kept = layers.compute_diff_id(layer, source_date_epoch=epoch) != _EMPTY
    finally:
        if not kept:
            with suppress(StorageDriversError, OSError):
                lease.drop(layer)
    return layers.get(layer) if kept else None
