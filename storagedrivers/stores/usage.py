"""What a store takes, from its rows: nothing is walked, so it costs the same for any content; but
for volumes, whose files no one has counted, when that is asked for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.driver import TRASH
from storagedrivers.errors import StorageDriversError

if TYPE_CHECKING:
    from storagedrivers.model import Usage
    from storagedrivers.stores.build_cache import CacheStore
    from storagedrivers.stores.layers import LayerStore


class LayerUsage(NamedTuple):
    """One layer.

    Attributes:
        unique: bytes of its own files; None while it is writable and not counted.
        shared: bytes of the files of all layers below it.
        inodes: its own.
        children: how many layers lie right above it; without it they cannot be.
    """

    id: str
    driver: str
    parent: str | None
    unique: int | None
    shared: int
    inodes: int | None
    children: int


class DriverUsage(NamedTuple):
    """All layers of one driver.

    Attributes:
        layers: how many.
        bytes: of the files of all of them.
        inodes: of all of them.
        uncounted: how many of the layers are writable, and not in these sums.
        trash: how many removals are not finished.
    """

    driver: str
    layers: int
    bytes: int
    inodes: int
    uncounted: int
    trash: int


class ImageUsage(NamedTuple):
    """One image.

    Attributes:
        names: what it is called; empty where it has no name any more.
        bytes: of the files of all of its layers.
        unique: of those layers that no other image has; what removing it gives back at most.
        layers: how many it has.
        containers: how many were made of it.
    """

    id: str
    names: tuple[str, ...]
    bytes: int
    unique: int
    layers: int
    containers: int


class VolumeUsage(NamedTuple):
    """One volume.

    Attributes:
        limit: how much it may hold, in bytes; None without a limit.
        anonymous: it was made for one container.
        containers: how many use it.
        bytes: what its files take; None where that was not asked for, or they cannot be seen.
        inodes: likewise.
    """

    name: str
    driver: str
    limit: int | None
    anonymous: bool
    containers: int
    bytes: int | None = None
    inodes: int | None = None


class CacheUsage(NamedTuple):
    """The build cache; volumes that it has are among the volumes.

    Attributes:
        entries: how many steps it knows.
        layers: how many layers those made.
        bytes: of their own files.
        reclaimable: of the files of the layers that nothing but the cache has.
    """

    entries: int
    layers: int
    bytes: int
    reclaimable: int


class Filesystem(NamedTuple):
    """The filesystem of the graph root, as statvfs(3) has it for this user."""

    bytes: int
    bytes_free: int
    inodes: int
    inodes_free: int


def layer_usage(store: LayerStore) -> list[LayerUsage]:
    """Every layer, the oldest first."""
    rows = store.database.rows(
        "SELECT id, driver, parent, size, inodes FROM layers WHERE state = 'ready' ORDER BY number"
    )
    below: dict[str, int] = {}  # bytes of a layer and all below it
    children: dict[str | None, int] = {}
    for layer, _, parent, size, _ in rows:  # a layer comes after the one it lies on
        below[layer] = (size or 0) + below.get(parent, 0)
        children[parent] = children.get(parent, 0) + 1
    return [
        LayerUsage(
            layer, driver, parent, size, below.get(parent, 0), inodes, children.get(layer, 0)
        )
        for layer, driver, parent, size, inodes in rows
    ]


def driver_usage(store: LayerStore) -> list[DriverUsage]:
    """Every driver that has layers here, by name."""
    rows = store.database.rows(
        "SELECT driver, COUNT(*), COALESCE(SUM(size), 0), COALESCE(SUM(inodes), 0),"
        " SUM(size IS NULL) FROM layers WHERE state = 'ready' GROUP BY driver ORDER BY driver"
    )
    return [
        DriverUsage(driver, layers, size, inodes, uncounted, _trash(store, driver))
        for driver, layers, size, inodes, uncounted in rows
    ]


def image_usage(store: LayerStore) -> list[ImageUsage]:
    """Every image, the oldest first."""
    images = store.database.rows("SELECT id, layer FROM images ORDER BY number")
    chains = {image: store.image_layers(layer) for image, layer in images}
    users = Counter(layer.id for chain in chains.values() for layer in chain)
    names: dict[str, list[str]] = {}
    for name, image in store.database.rows("SELECT name, image FROM image_names ORDER BY name"):
        names.setdefault(image, []).append(name)
    containers: dict[str, int] = dict(
        store.database.rows("SELECT image, COUNT(*) FROM containers GROUP BY image")
    )
    return [
        ImageUsage(
            image,
            tuple(names.get(image, ())),
            sum(layer.size or 0 for layer in chain),
            sum(layer.size or 0 for layer in chain if users[layer.id] == 1),
            len(chain),
            containers.get(image, 0),
        )
        for image, chain in chains.items()
    ]


def volume_usage(
    store: LayerStore, *, measure: Callable[[str], Usage] | None = None
) -> list[VolumeUsage]:
    """Every volume, by name.

    Args:
        measure: counts what one takes, which nobody else has counted: ``VolumeStore.usage``.
    """
    rows = store.database.rows(
        "SELECT name, driver, size, anonymous, COUNT(DISTINCT container) FROM volumes"
        " LEFT JOIN container_volumes ON volume = name"
        " WHERE state IN ('ready', 'filling') GROUP BY name ORDER BY name"
    )
    found = [
        VolumeUsage(name, driver, limit, bool(anonymous), containers)
        for name, driver, limit, anonymous, containers in rows
    ]
    return found if measure is None else [measured(one, measure) for one in found]


def measured(volume: VolumeUsage, measure: Callable[[str], Usage]) -> VolumeUsage:
    """It with what its files take, if they can be seen."""
    with suppress(OSError, StorageDriversError):  # gone meanwhile, or it cannot be mounted
        usage = measure(volume.name)
        return volume._replace(bytes=usage.bytes, inodes=usage.inodes)
    return volume


def cache_usage(cache: CacheStore) -> CacheUsage:
    """What the steps of builds have made."""
    from storagedrivers.stores.cache_pruning import Kept

    entries = cache.ls()
    sizes = {one.entry.layer: one.size for one in entries if one.entry.layer is not None}
    return CacheUsage(len(entries), len(sizes), sum(sizes.values()), Kept(cache, entries).size)


def filesystem(store: LayerStore) -> Filesystem:
    """Of the graph root."""
    found = os.statvfs(store.root)
    return Filesystem(
        found.f_blocks * found.f_frsize,
        found.f_bavail * found.f_frsize,
        found.f_files,
        found.f_favail,
    )


def _trash(store: LayerStore, driver: str) -> int:
    try:
        return len(os.listdir(os.path.join(store.root, driver, TRASH)))
    except FileNotFoundError:
        return 0
