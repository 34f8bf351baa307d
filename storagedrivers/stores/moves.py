"""How containers go back, go two ways, and keep a state: layers are sealed, laid and dropped."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from storagedrivers.errors import AlreadyExistsError
from storagedrivers.stores import container_records as records
from storagedrivers.stores import copying, writable
from storagedrivers.stores.container_records import Checkpoint, Container

if TYPE_CHECKING:
    from storagedrivers.stores.container_base import ContainerBase
    from storagedrivers.stores.container_volumes import Insert
    from storagedrivers.stores.containers import ContainerStore
    from storagedrivers.stores.leases import Lease


def lay_above(store: ContainerBase, container: Container, layer: str | None) -> Container:
    """Have a container go on in a new writable layer above *layer*; whoever calls holds its
    lock.
    """

    def use(connection: sqlite3.Connection, new: str) -> Container:
        _move(connection, container, new)
        return container._replace(layer=new)

    return writable.lay(store.layers, layer, use)


def _move(connection: sqlite3.Connection, container: Container, layer: str) -> None:
    records.require_ready(connection, container)
    connection.execute("UPDATE containers SET layer = ? WHERE id = ?", (layer, container.id))


def was_written_to(store: ContainerStore, layer: str) -> bool:
    """Whether a layer was ever mounted so that something could be written to it."""
    row = store.database.row("SELECT used FROM layers WHERE id = ?", layer)
    return row is not None and bool(row[0])


def seal(store: ContainerStore, container: Container) -> str:
    """The sealed layer that has all of a container's state; whoever calls holds its lock.

    Nothing is sealed where nothing was written: chains do not grow by that.
    """
    layer = store.layers.get(container.layer)
    if layer.parent is not None and not was_written_to(store, layer.id):
        return layer.parent
    writable.require_room(layer)
    return store.layers.seal(layer.id).id


def _kept(store: ContainerStore, container: Container, lease: Lease) -> tuple[str, Container]:
    """The sealed layer with a container's state, and the container as it goes on above it."""
    if store.is_in_use(container):
        if not copying.is_instant(store.layers, container.layer):
            store.refuse_in_use(
                container, wanted=", and its layer can only be sealed when it rests"
            )
        with store.paused(container):
            return copying.copied(store.layers, container.layer, lease), container
    top = seal(store, container)
    lease.take(top)
    if top == container.layer:
        container = lay_above(store, container, top)
    return top, container


def checkpoint(store: ContainerStore, reference: str, label: str | None) -> Checkpoint:
    """See :meth:`ContainerStore.checkpoint`."""
    wanted = "" if label is None else records.check_label(label)
    with store.settled(reference) as container:
        if label in {one.label for one in records.checkpoints(store.database, container.id)}:
            raise AlreadyExistsError(
                f"container {container.name} has a checkpoint {label} already",
                resolution="choose another label, or drop that one:"
                f" storagedrivers container checkpoint --drop {container.name} {label}",
            )
        with store.layers.leased() as lease:
            top, _ = _kept(store, container, lease)
            new = Checkpoint(container.id, wanted, top, time.time())
            with store.database.transaction() as connection:
                return records.add_checkpoint(connection, new, labelled=label is not None)


def go_to(store: ContainerStore, reference: str, layer: str | None) -> Container:
    """See :meth:`ContainerStore.rollback` and :meth:`ContainerStore.reset`."""
    container = store.get(reference)
    with store.locked(container):
        container = store.get(container.id)
        store.refuse_in_use(container)
        moved = lay_above(store, container, layer)
        store.let_go([container.layer], later=True)
        return moved


def fork(store: ContainerStore, reference: str, name: str | None) -> Container:
    """See :meth:`ContainerStore.fork`."""
    wanted = records.checked_name(name)
    with store.settled(reference) as container, store.layers.leased() as lease:
        if name is not None:
            with store.database.transaction(durable=False) as connection:
                records.refuse_taken(connection, name)
        top, _ = _kept(store, container, lease)
        identity = os.urandom(32).hex()
        config = dict(container.config)
        if config.get("Hostname") == container.id[:12]:
            config["Hostname"] = identity[:12]
        new = container._replace(id=identity, name=wanted, created=time.time(), config=config)
        with (
            store.new_directory(identity),
            _mounts_forked(store, container, new) as (new, insert),
        ):
            return writable.lay(
                store.layers,
                top,
                lambda connection, layer: insert(connection, new._replace(layer=layer)),
            )


def _mounts_forked(
    store: ContainerStore, container: Container, new: Container
) -> AbstractContextManager[tuple[Container, Insert]]:
    if not container.config.get("Mounts"):
        return nullcontext((new, records.insert))
    from storagedrivers.stores import container_volumes

    return container_volumes.forked(store, container, new)
