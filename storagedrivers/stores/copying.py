"""Copies of what a writable layer has now, for containers that are in use and stay as they are."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError, StorageDriversError
from storagedrivers.linux import copy
from storagedrivers.stores import making, writable
from storagedrivers.stores.making import NewRow

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease


_CHANGED = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ESTALE),
        *(errno.EINVAL, errno.ENODATA, errno.EPERM),
    )
)
"""What a walk through a tree meets that others change: what it has found is gone, or another."""


def refuse_changed(error: OSError, what: str) -> None:
    """Raise InUseError for a failure that can come of a change of what is copied.

    Raises:
        InUseError: it can; says what it met.
    """
    if error.errno in _CHANGED and not isinstance(error, StorageDriversError):
        named = isinstance(error.filename, str | bytes)
        where = f"{os.fsdecode(error.filename)!r}: " if named else ""
        raise InUseError(
            f"{what} changed while it was copied: {where}{error.strerror}",
            resolution="try again, or stop and unmount it first",
        ) from error


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
        try:
            if source is None:
                # A tree that is whole is copied, or snapshotted, as the layer above it would be.
                driver.create(new.id, (layer, *new.lowers))
            else:
                driver.create(new.id, new.lowers)
                target = driver.changeset(new.id)
                assert target is not None
                copy.copy_tree(source.path, target.path)
        except OSError as error:
            refuse_changed(error, f"layer {layer}")
            raise
        driver.seal_new(new.id, new.lowers)
        making.publish(layers, new.id, driver, layers.durable(None))
    return new.id
