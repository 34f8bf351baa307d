"""Containers in which a build runs a command: a row, a writable layer, and directories for a while.

Their rows never say that they are ready, so nobody sees one: not ``container ls``, ``prune`` or
``check``. Whoever builds holds the container's lock; where that is free, the build was killed, and
the next who opens the store ends what is left of it. The layer outlives the container: a lease has
it, too.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from storagedrivers.errors import StorageDriversError
from storagedrivers.linux import tree
from storagedrivers.stores import container_records as records
from storagedrivers.stores import locks, writable
from storagedrivers.stores.container_records import Container
from storagedrivers.stores.mounts import make_private_directory
from storagedrivers.stores.records import Durability

if TYPE_CHECKING:
    from storagedrivers.stores.containers import ContainerStore
    from storagedrivers.stores.leases import Lease

STATE = "creating"
"""What the rows of such containers say."""

_SHORT = 12  # characters of an id


@contextmanager
def step(
    store: ContainerStore, parent: str | None, config: Mapping[str, Any], lease: Lease
) -> Iterator[Container]:
    """Have a container for the length of a ``with`` block; its layer stays if that does not fail.

    Args:
        parent: the id of the sealed layer below, or None.
        config: what is run, and how.
        lease: gets the layer.

    Raises:
        NotFoundError: there is no such parent.
        DepthExceededError: the chain is too long.
    """
    identity = os.urandom(32).hex()
    name = f"build-{identity[:_SHORT]}"
    new = Container(identity, name, None, "", "", time.time(), config, parent)
    with store.layers.locked(f"{locks.CONTAINER}{identity}", what="a build"):
        try:
            new = _laid(store, new, lease)
            _make_directories(store, new)
            yield new
        except BaseException:
            try:
                _drop(store, new, lease)
            except (StorageDriversError, OSError) as error:  # the next who opens finishes it
                problem = f"what a build has left could not be removed yet: {error}"
                store.layers.problems.append(problem)
            raise
        _forget(store, identity)


def _make_directories(store: ContainerStore, container: Container) -> None:
    make_private_directory(store.layers.run_root)
    store.make_directory(container.id)
    os.makedirs(store.run_directory(container), mode=0o700)


def _laid(store: ContainerStore, container: Container, lease: Lease) -> Container:
    def use(connection: sqlite3.Connection, layer: str) -> Container:
        lease.note(layer, connection)
        connection.execute("UPDATE layers SET used = 1 WHERE id = ?", (layer,))
        new = container._replace(layer=layer)
        return records.insert(connection, new, state=STATE)

    durability = Durability.NONE
    return writable.lay(store.layers, container.base, use, durability=durability, waits=False)


def _drop(store: ContainerStore, container: Container, lease: Lease) -> None:
    """Forget it, and have its layer removed."""
    try:
        _drop_rows(store, container, lease)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not container.layer:
            raise
        # What it wrote leaves no room to write down that it goes.
        store.layers.driver_for(store.layers.get(container.layer).driver).remove(container.layer)
        _drop_rows(store, container, lease)


def _drop_rows(store: ContainerStore, container: Container, lease: Lease) -> None:
    _forget(store, container.id)
    if container.layer:
        lease.drop(container.layer)


def _forget(store: ContainerStore, container: str) -> None:
    """Remove its directories, then its row."""
    for root in (store.layers.run_root, store.layers.root):
        with suppress(FileNotFoundError):
            with tree.opened_directory(os.path.join(root, "containers")) as fd:
                tree.remove_tree(fd, container)
    with store.database.transaction(durable=False) as connection:
        connection.execute("DELETE FROM containers WHERE id = ?", (container,))


def end(store: ContainerStore, container: str) -> None:
    """End what is left of one whose build was killed; whoever calls has its lock."""
    for found in records.find(store.database, "WHERE id = ?", container):
        with store.holding(found), suppress(StorageDriversError, OSError):  # then its layer is
            store.kill(found)  # in use, and told of
