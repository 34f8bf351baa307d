"""How containers go: a row that says so, their files, the row, then layers that nobody needs.

Their own volumes are doomed in the transaction in which they are, and go last.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError, NotFoundError, StorageDriversError
from storagedrivers.linux import tree
from storagedrivers.model import is_layer_id
from storagedrivers.stores import build_steps, locks, records, volume_records

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container, ContainerStore


def remove(
    store: ContainerStore, container: Container, *, force: bool, volumes: bool = False
) -> Container:
    """See :meth:`ContainerStore.remove`."""
    volumes = volumes or bool(container.config.get("AutoRemove"))
    has_some = volumes and bool(container.config.get("Mounts"))
    # Of one whose monitor was killed there may be processes and mounts left.
    if force and os.path.isdir(store.run_directory(container)):
        store.kill(container)
    with store.locked(container):
        container = store.get(container.id)
        if force:
            _unmount_all(store, container)
        store.refuse_in_use(container)
        with _own_volumes(store, container) if has_some else _no_volumes() as own:
            with store.database.transaction() as connection:
                connection.execute(
                    "UPDATE containers SET state = 'removing' WHERE id = ?", (container.id,)
                )
                own = [name for name in own if _doom(connection, container, name)]
            _finish(store, container.id)
            for name in own:
                _discard_volume(store, name)
    return container


def _no_volumes() -> AbstractContextManager[list[str]]:
    return nullcontext([])


@contextmanager
def _own_volumes(store: ContainerStore, container: Container) -> Iterator[list[str]]:
    """Have the locks of a container's anonymous volumes, but for those that somebody uses."""
    from storagedrivers.stores import volume_mounting

    query = (
        "SELECT DISTINCT name FROM volumes JOIN container_volumes ON volume = name"
        " WHERE container = ? AND anonymous ORDER BY name"
    )
    with ExitStack() as stack:
        own = []
        for (name,) in store.database.rows(query, container.id):
            stack.enter_context(store.volumes.locked(name))
            with suppress(InUseError):
                if volume_mounting.unmount_idle(store.volumes, name):
                    own.append(name)
        yield own


def _doom(connection: sqlite3.Connection, container: Container, volume: str) -> bool:
    """Within the transaction that dooms a container: a volume of it goes too, unless another one
    uses it. What is killed from now on leaves neither, once the store is opened again.
    """
    use = (container.id, volume)
    query = "SELECT 1 FROM container_volumes WHERE container != ? AND volume = ?"
    if connection.execute(query, use).fetchone() is not None:
        return False
    connection.execute("DELETE FROM container_volumes WHERE container = ? AND volume = ?", use)
    volume_records.set_state(connection, volume, "removing")
    return True


def _discard_volume(store: ContainerStore, name: str) -> None:
    from storagedrivers.stores import volume_removal

    try:
        volume_removal.discard(store.volumes, name)
    except (StorageDriversError, OSError) as error:  # the next who opens the store tries again
        store.layers.problems.append(f"volume {name} could not be removed yet: {error}")


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
        volume_records.forget_uses(connection, container)
        connection.execute("DELETE FROM containers WHERE id = ?", (container,))
    store.let_go(layers)


def prune(store: ContainerStore, *, dry_run: bool, volumes: bool) -> list[Container]:
    """See :meth:`ContainerStore.prune`."""
    idle = [one for one in store.ls() if not store.is_in_use(one)]
    if dry_run:
        return idle
    removed = []
    for container in idle:
        with suppress(NotFoundError, InUseError):  # somebody was faster
            removed.append(remove(store, container, force=False, volumes=volumes))
    return removed


def finish(store: ContainerStore, container: str) -> None:
    """Finish what a process that was killed had begun with a container."""
    if not is_layer_id(container):
        return  # anyone may have named a file so
    try:
        lock = locks.try_lock(store.layers.lock_path(f"{locks.CONTAINER}{container}"))
    except OSError as error:  # a directory
        store.layers.problems.append(f"container {container} could not be finished: {error}")
        return
    if lock is None:
        return  # someone is at it
    try:
        row = store.database.row("SELECT state FROM containers WHERE id = ?", container)
        if row is not None and row[0] == build_steps.STATE:
            build_steps.end(store, container)
        if row is not None and row[0] != "ready":
            _finish(store, container)
        # Layers that it had are referred to by nothing, if it died before it released them.
        store.let_go(records.unused(store.database))
    finally:
        lock.release()


def let_go_of_abandoned(store: ContainerStore) -> None:
    """Remove layers that a build was killed with: nobody can go on with one that is not sealed."""
    abandoned = [records.by_id(store.database, one) for one in records.unused(store.database)]
    store.let_go([one.id for one in abandoned if one is not None and one.writable])
