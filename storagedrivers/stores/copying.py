"""Copies of what a writable layer has now, for containers that are in use and stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError
from storagedrivers.linux import copy
from storagedrivers.stores import making, writable
from storagedrivers.stores.making import NewRow

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease


def is_instant(layers: LayerStore, layer: str) -> bool:
    """Whether a copy is one moment's state and costs nothing: a snapshot."""
    driver = layers.driver_for(layers.get(layer).driver)
    return driver.changeset(layer) is None and writable.is_cheap(layers, driver, layer)


def copied(layers: LayerStore, layer: str, lease: Lease) -> str:
    """A sealed layer with what a writable one has now, above the same parent.

    Raises:
        InUseError: it changed while it was copied.
    """
    found = layers.get(layer)
    below = None if found.parent is None else layers.get(found.parent)
    driver = layers.driver_for(found.driver)
    row = NewRow(writable=False, held=False, lease=lease)
    with making.creating(layers, below, row) as new:
        source = driver.changeset(layer)
        if source is None:
            # A tree that is whole is copied, or snapshotted, as the layer above it would be.
            driver.create(new.id, (layer, *new.lowers))
        else:
            driver.create(new.id, new.lowers)
            target = driver.changeset(new.id)
            assert target is not None
            try:
                copy.copy_tree(source.path, target.path)
            except FileNotFoundError as error:
                raise InUseError(
                    f"layer {layer} changed while it was copied: {error.filename} is gone",
                    resolution="try again, or unmount it first",
                ) from error
        driver.seal_new(new.id, new.lowers)
        making.publish(layers, new.id, driver, layers.durable(None))
    return new.id
