"""The writable layers of containers: ready in the same moment in which a container has them.

So there is never one that belongs to nobody, and a container costs two transactions, of which one
waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from storagedrivers.errors import DepthExceededError, StorageDriversError
from storagedrivers.linux import tree
from storagedrivers.model import Capability
from storagedrivers.stores import content, making
from storagedrivers.stores.making import NewRow
from storagedrivers.stores.records import Durability, Layer

if TYPE_CHECKING:
    from storagedrivers.driver import StorageDriver
    from storagedrivers.linux.stage import Prepare
    from storagedrivers.stores.layers import LayerStore

T = TypeVar("T")


def lay(
    layers: LayerStore,
    parent: str | None,
    use: Callable[[sqlite3.Connection, str], T],
    *,
    size: int | None = None,
    durability: str | None = None,
    waits: bool = True,
) -> T:
    """Make an empty writable layer.

    Args:
        parent: the id of the layer below, or None.
        use: within the transaction that makes it ready, writes what refers to it: gets its id.
        size: a limit in bytes for what is written to it.
        durability: ``layer`` or ``none``, instead of the store's.
        waits: its row is on the disk when this returns; else a loss of power takes it away.

    Raises:
        NotFoundError: there is no such parent.
        DepthExceededError: the chain is too long.
        DriverUnsupportedError: the driver has no limits.
    """
    try:
        return _laid(layers, parent, use, size, layers.durable(durability), waits=waits)
    except (StorageDriversError, OSError):
        # Who wanted to release what is below could not, as long as this lay above it.
        if parent is not None:
            with suppress(StorageDriversError, OSError):
                layers.release(parent)
        raise


def _laid(
    layers: LayerStore,
    parent: str | None,
    use: Callable[[sqlite3.Connection, str], T],
    size: int | None,
    durability: Durability,
    *,
    waits: bool,
) -> T:
    below = None if parent is None else layers.get(parent)
    row = NewRow(writable=True, held=False, waits=False)
    with making.creating(layers, below, row) as new:
        new.driver.create(new.id, new.lowers, size=size)
        durable = durability is Durability.LAYER
        if durable:
            _settle(layers, new.driver, new.id)
        with layers.database.transaction(durable=waits) as connection:
            connection.execute(
                "UPDATE layers SET state = 'ready', durable = ? WHERE id = ?", (durable, new.id)
            )
            return use(connection, new.id)


def _settle(layers: LayerStore, driver: StorageDriver, layer: str) -> None:
    """Bring an empty layer to the disk: its directories, where that is all that it is.

    The content of others is not waited for, as syncfs(2) does.
    """
    if not is_cheap(layers, driver, layer):
        making.flush(layers, driver)
        return
    # The home comes first of what was made. ext4 and xfs bring all that came after it along, and
    # btrfs logs what is new in it. So one flush does: each costs what a transaction does.
    with tree.opened_directory(driver.home, follow_symlinks=True) as home:
        os.fsync(home)


def is_cheap(layers: LayerStore, driver: StorageDriver, layer: str) -> bool:
    """Whether a layer above this one costs the same whatever lies below: the capability
    ``cheap-fork``.
    """
    if driver.changeset(layer) is not None:
        return True  # what it makes is an empty directory
    return Capability.CHEAP_FORK in _capabilities(layers, driver)


def _capabilities(layers: LayerStore, driver: StorageDriver) -> frozenset[str]:
    """What the driver can do in this store: asked once, and remembered."""
    key = f"capabilities:{driver.name}"
    known = layers.database.meta(key)
    if known is None:
        from storagedrivers.host import read_host

        result = driver.probe(read_host(layers.root, inventory=False), driver.home)
        known = " ".join(sorted(result.capabilities))
        if not layers.database.read_only:
            layers.database.set_meta(**{key: known})
    return frozenset(known.split())


@contextmanager
def opened(layers: LayerStore, layer: str, prepare: Prepare | None = None) -> Iterator[int]:
    """Have the root of a writable layer that is mounted nowhere open, to write to it.

    Whoever calls holds the layer's lock. A process that is killed leaves no mount.
    """
    with layers.database.transaction(durable=False) as connection:
        connection.execute("UPDATE layers SET used = 1 WHERE id = ?", (layer,))
    with content.view(layers, layer, read_only=False, prepare=prepare) as fd:
        yield fd


def require_room(layer: Layer, more: int = 1) -> None:
    """Check, before anything is sealed, that *more* layers fit above one.

    Raises:
        DepthExceededError: the chain would be too long.
    """
    if layer.depth + more > making.MAX_DEPTH:
        raise DepthExceededError(
            f"the chain of layer {layer.id} would have {layer.depth + more} layers, and"
            f" {making.MAX_DEPTH} is the limit",
            resolution="roll the container back to an older checkpoint, or make it flat: "
            "storagedrivers container export C | storagedrivers image import - NAME",
        )
