"""The volumes of a container that is made: locked, made, filled, and written down with it.

One that is made for it says ``creating`` until the transaction that makes the container: whatever
is killed before that leaves neither, and after it both are there. One that was there, and empty, is
filled before that, all or nothing. What a driver has on a filesystem of others (Docker's option
``device``) is filled in this way too; of that a whole volume can be left, and nobody's.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import StorageDriversError
from storagedrivers.linux import copy, syscalls, tree
from storagedrivers.mounts.spec import MountType
from storagedrivers.stores import (
    container_records,
    volume_clone,
    volume_content,
    volume_making,
    volume_mounting,
    volume_records,
    volume_removal,
)
from storagedrivers.stores.container_mounts import ContainerMount, as_json, from_spec, mounts_of
from storagedrivers.stores.known_volumes import volume_of
from storagedrivers.stores.planning import Planner

if TYPE_CHECKING:
    from storagedrivers.model import Volume
    from storagedrivers.stores.container_base import ContainerBase
    from storagedrivers.stores.container_records import Container
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.mount_requests import Request
    from storagedrivers.stores.plans import PlannedMount
    from storagedrivers.stores.volumes import VolumeStore

Insert = Callable[[sqlite3.Connection, "Container"], "Container"]
"""Within a transaction: the row of a container, and all that goes with it."""


@contextmanager
def made(
    store: ContainerBase, new: Container, image: Image | None, request: Request
) -> Iterator[tuple[Container, Insert]]:
    """Have all volumes of a new container there for the length of a ``with`` block that inserts it.

    If that fails, those that were made for it go.

    Returns:
        The container with its mounts, and what inserts it.
    """
    if new.name:  # before anything is copied
        with store.database.transaction(durable=False) as connection:
            container_records.refuse_taken(connection, new.name)
    with ExitStack() as stack:
        _lock(store.volumes, stack, _names(request))
        planner = stack.enter_context(Planner(store, image, new.base))
        making = _Making(store, stack, new.id)
        try:
            mounts = making.carry_out(planner, request)
            config = {**new.config, "Tmpfs": [*request.tmpfs]}
            yield making.with_mounts(new._replace(config=config), mounts)
        except BaseException:
            making.undo()
            raise


@contextmanager
def forked(
    store: ContainerBase, container: Container, new: Container
) -> Iterator[tuple[Container, Insert]]:
    """As :func:`made`, of a container that goes on from another one's state.

    It shares the volumes that have names. Of those that have none it gets clones: they are part of
    the state of one container, and two that write to them would destroy it.
    """
    mounts = mounts_of(container)
    with ExitStack() as stack:
        _lock(store.volumes, stack, {one.name for one in mounts if one.name})
        making = _Making(store, stack, new.id)
        try:
            own = [making.fork(one) for one in mounts]
            yield making.with_mounts(new, own)
        except BaseException:
            making.undo()
            raise


def _names(request: Request) -> set[str]:
    return {one.source for one in request.specs if one.type is MountType.VOLUME and one.source}


def _lock(volumes: VolumeStore, stack: ExitStack, names: set[str]) -> None:
    """Have the locks of volumes, each as a whole: what a process that was killed was copying into
    one would count as content.
    """
    for name in sorted(names):  # in one order, so that nobody waits in a circle
        stack.enter_context(volumes.locked(name))
        _settle(volumes, name)


def _settle(volumes: VolumeStore, name: str) -> None:
    for found in volume_records.find(volumes.database, "name = ?", name):
        volume_content.recover(volumes, found)


class _Making:
    """Makes the volumes of one container."""

    def __init__(self, store: ContainerBase, stack: ExitStack, container: str) -> None:
        self._store = store
        self._volumes = store.volumes
        self._stack = stack  # has the locks of all that is made or used
        self._container = container
        # What was made for it, and the image that its content is from.
        self._made: dict[str, str | None] = {}
        self._clones: dict[str, str] = {}

    def carry_out(self, planner: Planner, request: Request) -> list[ContainerMount]:
        """Make and fill volumes; the container's mounts, each with the name of its volume."""
        asked = {*request.specs}
        plan = planner.plan(request)
        return [
            from_spec(one.spec, self._volume(planner, one, plan.image))
            for one in plan.mounts
            if one.spec in asked
        ]

    def fork(self, mount: ContainerMount) -> ContainerMount:
        """What a fork has in the place of a mount."""
        if not mount.name or not self._volumes.get(mount.name).anonymous:
            return mount
        if mount.name not in self._clones:
            name = self._clones[mount.name] = self._new_name()
            self._made[name] = None
            volume_clone.clone(self._volumes, mount.name, name, anonymous=True, ready=False)
        return mount._replace(name=self._clones[mount.name])

    def _new_name(self) -> str:
        """A name by chance, with its lock."""
        name = os.urandom(32).hex()
        self._stack.enter_context(self._volumes.locked(name))
        return name

    def _volume(self, planner: Planner, planned: PlannedMount, image: str | None) -> str:
        """The name of a mount's volume, made and filled as planned; empty for another kind."""
        spec = planned.spec
        if spec.type is not MountType.VOLUME:
            return ""
        name = spec.source or self._new_name()
        if planned.creates:
            self._make(volume_of(spec, name))
        if planned.fills and image is not None:
            with planner.at(spec.target) as there:
                assert there.fd is not None
                self._fill(name, there.fd, image)
        return name

    def _make(self, new: Volume) -> None:
        self._made[new.name] = None
        volume_making.create(self._volumes, new, ready=not self._is_own(new))

    def _is_own(self, volume: Volume) -> bool:
        """Whether all that it holds goes with its directory."""
        directory = self._volumes.directory(volume.name)
        mounts = volume_mounting.mounts_of(self._volumes, volume)
        return all(one.source.startswith(f"{directory}/") for one in mounts)

    def _fill(self, name: str, source: int, image: str) -> None:
        volume = volume_records.any_of(self._volumes.database, name)
        assert volume is not None
        if name not in self._made or not self._is_own(volume):
            self._volumes.fill(volume, source, image)
            return
        # Nobody else sees it yet, so it need not come as a whole.
        with (
            volume_mounting.hold(self._volumes, volume) as held,
            tree.opened_directory(held.path, follow_symlinks=True) as data,
        ):
            copy.copy_tree(f"/proc/self/fd/{source}", f"/proc/self/fd/{data}", lossy=True)
            syscalls.syncfs(data)
        self._made[name] = image

    def with_mounts(self, new: Container, mounts: list[ContainerMount]) -> tuple[Container, Insert]:
        """The container with these mounts, and what inserts it: it says of its volumes that they
        are there and used.
        """
        uses = [(one.target, one.name) for one in mounts if one.name]

        def insert(connection: sqlite3.Connection, container: Container) -> Container:
            container = container_records.insert(connection, container)
            for name, seed in self._made.items():
                connection.execute(
                    "UPDATE volumes SET state = 'ready', seed = coalesce(?, seed)"
                    " WHERE name = ? AND state = 'creating'",
                    (seed, name),
                )
            volume_records.use(connection, container.id, uses)
            return container

        config = {**new.config, "Mounts": [*map(as_json, mounts)]}
        return new._replace(config=config), insert

    def undo(self) -> None:
        """Take away what was made, unless there is the container that has it.

        What cannot be taken away now (a full disk) goes when the store is opened again.
        """
        query = "SELECT 1 FROM containers WHERE id = ?"
        with suppress(OSError, StorageDriversError):
            if self._store.database.row(query, self._container) is not None:
                return
            for name in self._made:
                with self._store.database.transaction(durable=False) as connection:
                    volume_records.set_state(connection, name, "removing")
                volume_removal.discard(self._volumes, name)
