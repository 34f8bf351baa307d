"""Volumes as tars: out, and in again.

A tar that comes in is unpacked beside what a volume holds, checked and brought to the disk before
anything of that is touched::

    <graph root>/volumes/<name>/_import    the new data directory; then the old one, on its way out
    <graph root>/volumes/<name>/_old       the old one, where two names cannot be exchanged at once

Where a volume is mounted from elsewhere, its filesystem takes both until the end; see
:mod:`storagedrivers.stores.volume_content`.

A tar shows one moment of a volume only if nothing writes to it meanwhile. Of a volume on btrfs a
clone is such a moment, at no cost, and can be exported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.errors import InUseError
from storagedrivers.linux import syscalls, tree
from storagedrivers.model import Limits, Volume
from storagedrivers.stores import (
    locks,
    volume_content,
    volume_making,
    volume_mounting,
)
from storagedrivers.stores import volume_records as records
from storagedrivers.stores.making import check_digest
from storagedrivers.stores.volume_content import IMPORT
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.archive.output import Write
    from storagedrivers.stores.volumes import VolumeStore

Make = Callable[[int], object]
"""Writes a volume's content into an open directory."""


def export(store: VolumeStore, name: str, write: Write) -> str:
    """See :meth:`VolumeStore.export`."""
    from storagedrivers.archive.source import Hasher
    from storagedrivers.archive.whole import pack_whole

    hasher = Hasher()

    def hashed(data: bytes | memoryview) -> None:
        hasher.update(data)
        write(data)

    try:
        with volume_mounting.hold(store, store.get(name), guarded=True) as held:
            with tree.opened_directory(held.path, follow_symlinks=True) as data:
                pack_whole(data, hashed)
    finally:
        digest = hasher.finish()
    return digest


def import_(
    store: VolumeStore,
    name: str,
    stream: BinaryIO,
    *,
    digest: str | None = None,
    limits: Limits | None = None,
) -> Volume:
    """See :meth:`VolumeStore.import_`."""
    digest = None if digest is None else check_digest(digest)

    def unpack_into(data: int) -> None:
        from storagedrivers.archive.whole import unpack_whole

        unpack_whole(stream, data, diff_id=digest, limits=limits)

    with store.locked(name):
        if not records.find(store.database, "name = ?", name):
            new = Volume(name, "local", time.time(), {}, {})
            return volume_making.create(
                store, new, content=lambda made: _fill_new(store, made, unpack_into)
            )
        _replace(store, store.get(name), unpack_into)
        return store.get(name)


def _fill_new(store: VolumeStore, new: Volume, make: Make) -> None:
    with tree.opened_directory(store.data(new.name)) as data:
        make(data)
        syscalls.syncfs(data)


def _replace(store: VolumeStore, volume: Volume, make: Make) -> None:
    """Have what *make* writes into an empty directory take the place of what a volume holds."""
    _refuse_used(store, volume)
    if volume_mounting.mounts_of(store, volume):
        volume_content.replace(store, volume, make)
        return
    volume_content.recover(store, volume)
    directory = store.directory(volume.name)
    with tree.opened_directory(directory) as fd:
        try:
            volume_making.make_data(fd, IMPORT)
            _make(store, volume, fd, make)
            volume_content.exchange(fd)
        except BaseException:
            volume_content.settle_exchange(directory)
            raise
        _forget_seed(store, volume)
        volume_content.settle_exchange(directory)


def _make(store: VolumeStore, volume: Volume, directory: int, make: Make) -> None:
    store.driver_for(volume.driver).limit(volume, Path(store.directory(volume.name), IMPORT))
    with (
        tree.opened_directory(DATA, dir_fd=directory) as old,
        tree.opened_directory(IMPORT, dir_fd=directory) as new,
    ):
        volume_content.be_like(old, new)  # where the tar says nothing of it
        make(new)
        syscalls.syncfs(new)


def _forget_seed(store: VolumeStore, volume: Volume) -> None:
    with store.database.transaction() as connection:
        connection.execute("UPDATE volumes SET seed = NULL WHERE name = ?", (volume.name,))


_USERS = """
    SELECT DISTINCT containers.id, containers.name FROM container_volumes
    JOIN containers ON containers.id = container_volumes.container WHERE volume = ?
"""


def _refuse_used(store: VolumeStore, volume: Volume) -> None:
    """Check that nothing has the volume at hand.

    Raises:
        InUseError: a container that runs, or another process.
    """
    running = []
    for container, name in store.database.rows(_USERS, volume.name):
        directory = os.path.join(store.layers.run_root, "containers", container)
        if locks.is_locked(os.path.join(directory, "monitor")):
            running.append(name)
    if running:
        raise InUseError(
            f"volume {volume.name} is in use by {', '.join(running)}, so its content cannot be"
            " replaced",
            holders=running,
            resolution=f"stop them first: storagedrivers stop {' '.join(running)}",
        )
    if not volume_mounting.unmount_idle(store, volume.name):
        raise InUseError(
            f"volume {volume.name} is in use by another process, so its content cannot be replaced",
            resolution="wait for it, or end it",
        )
