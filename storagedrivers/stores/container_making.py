"""How containers come: their volumes, a writable layer, and in one transaction the rows of all."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from storagedrivers.stores import container_records as records
from storagedrivers.stores import writable
from storagedrivers.stores.container_records import Container

if TYPE_CHECKING:
    from storagedrivers.mounts.spec import MountSpec
    from storagedrivers.stores.container_base import ContainerBase
    from storagedrivers.stores.container_volumes import Insert
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.mount_requests import Request
    from storagedrivers.stores.plans import Plan


class Wish(NamedTuple):
    """What was asked for, see :meth:`ContainerStore.create`."""

    image: str | None
    config: Mapping[str, Any]
    mounts: Sequence[MountSpec | str]
    tmpfs: Sequence[str]
    volumes_from: Sequence[str]

    def merged(self, store: ContainerBase, image: Image | None, container: str) -> dict[str, Any]:
        """The config of the container with this id."""
        inherited = {} if image is None else store.images.config(image).config
        return records.merged_config(inherited, self.config, container)

    def request(self, store: ContainerBase, config: Mapping[str, Any]) -> Request:
        """The mounts that come of it."""
        from storagedrivers.stores import mount_requests

        return mount_requests.gather(store, config, self.mounts, self.tmpfs, self.volumes_from)


def create(
    store: ContainerBase,
    wish: Wish,
    *,
    name: str | None,
    size: int | None,
    durability: str | None,
) -> Container:
    """See :meth:`ContainerStore.create`."""
    wanted = records.checked_name(name)
    image = None if wish.image is None else store.images.get(wish.image)
    base = None if image is None else _base(store, image)
    identity = os.urandom(32).hex()
    new = Container(
        identity,
        wanted,
        None if image is None else image.id,
        wish.image or "",
        "",
        time.time(),
        wish.merged(store, image, identity),
        base,
    )
    with store.new_directory(identity), _mounts_made(store, new, image, wish) as (new, insert):
        return writable.lay(
            store.layers,
            base,
            lambda connection, layer: insert(connection, new._replace(layer=layer)),
            size=size,
            durability=durability,
        )


def _base(store: ContainerBase, image: Image) -> str:
    """The layer on which the containers of an image begin."""
    if image.init is not None:
        return image.init
    from storagedrivers.stores import init

    with store.layers.leased() as lease:
        return init.make(store.layers, image.id, lease)


def _mounts_made(
    store: ContainerBase, new: Container, image: Image | None, wish: Wish
) -> AbstractContextManager[tuple[Container, Insert]]:
    """A container with its mounts, and what inserts it; for one that has none it costs nothing."""
    if not (wish.mounts or wish.tmpfs or wish.volumes_from or new.config.get("Volumes")):
        return nullcontext((new, records.insert))
    from storagedrivers.stores import container_volumes

    return container_volumes.made(store, new, image, wish.request(store, new.config))


def plan(store: ContainerBase, wish: Wish) -> Plan:
    """See :meth:`ContainerStore.plan`."""
    from storagedrivers.stores import planning

    image = None if wish.image is None else store.images.get(wish.image)
    config = wish.merged(store, image, "plan")
    request = wish.request(store, config)
    base = None
    if image is not None:
        base = image.layer if store.database.read_only else _base(store, image)
    with planning.Planner(store, image, base, str(config.get("User") or "")) as planner:
        return planner.plan(request)
