"""How containers go: a row that says so, their files, the row, then layers that nobody needs."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError, NotFoundError
from storagedrivers.linux import tree
from storagedrivers.stores import locks
from storagedrivers.stores.records import unused

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container, ContainerStore


def remove(store: ContainerStore, container: Container, *, force: bool) -> Container:
    """See :meth:`ContainerStore.remove`."""
    # Of one whose monitor was killed there may be processes and mounts left.
    if force and os.path.isdir(store.run_directory(container)):
        store.kill(container)
    with store.locked(container):
        container = store.get(container.id)
        if force:
            _unmount_all(store, container)
        store.refuse_in_use(container)
        with store.database.transaction() as connection:
            connection.execute(
                "UPDATE containers SET state = 'removing' WHERE id = ?", (container.id,)
            )
        _finish(store, container.id)
    return container


def _unmount_all(store: ContainerStore, container: Container) -> None:
    for record in store.mounts(container):
        for _ in range(record.times):
            with suppress(NotFoundError):  # in another place; whoever refuses then says so
                store.layers.unmount(container.layer)


def _finish(store: ContainerStore, container: str) -> None:
    """What is left to do once the row says so; whoever calls holds the lock."""
    for directory in (store.layers.run_root, store.layers.root):
        with suppress(FileNotFoundError):
            with tree.opened_directory(os.path.join(directory, "containers")) as fd:
                tree.remove_tree(fd, container)
    query = (
        "SELECT layer FROM containers WHERE id = ?1"
        " UNION SELECT layer FROM checkpoints WHERE container = ?1"
    )
    with store.database.transaction() as connection:
        layers = [row[0] for row in connection.execute(query, (container,))]
        connection.execute("DELETE FROM checkpoints WHERE container = ?", (container,))
        connection.execute("DELETE FROM containers WHERE id = ?", (container,))
    store.let_go(layers)


def prune(store: ContainerStore, *, dry_run: bool) -> list[Container]:
    """See :meth:`ContainerStore.prune`."""
    idle = [one for one in store.ls() if not store.is_in_use(one)]
    if dry_run:
        return idle
    removed = []
    for container in idle:
        with suppress(NotFoundError, InUseError):  # somebody was faster
            removed.append(remove(store, container, force=False))
    return removed


def finish(store: ContainerStore, container: str) -> None:
    """Finish what a process that was killed had begun with a container."""
    lock = locks.try_lock(store.layers.lock_path(f"{locks.CONTAINER}{container}"))
    if lock is None:
        return  # someone is at it
    try:
        row = store.database.row("SELECT state FROM containers WHERE id = ?", container)
        if row is not None and row[0] != "ready":
            _finish(store, container)
        # Layers that it had are referred to by nothing, if it died before it released them.
        store.let_go(unused(store.database))
    finally:
        lock.release()
