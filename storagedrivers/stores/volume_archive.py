"""Volumes as tars: out, and in again.

A tar that comes in is unpacked beside what a volume holds, checked and brought to the disk before
anything of that is touched::

    <graph root>/volumes/<name>/_import    the new data directory; then the old one, on its way out
    <graph root>/volumes/<name>/_old       the old one, where two names cannot be exchanged at once

Where a volume lies in an image, ``_import`` is a directory with another image, which takes its
place. Where one is mounted from elsewhere, its filesystem takes both contents until the end; see
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

from storagedrivers.errors import InUseError, VolumeError
from storagedrivers.linux import syscalls, tree
from storagedrivers.model import Limits, Volume
from storagedrivers.stores import (
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
    warn: Callable[[str], object] | None = None,
) -> Volume:
    """See :meth:`VolumeStore.import_`."""
    digest = None if digest is None else check_digest(digest)

    def unpack_into(data: int) -> None:
        from storagedrivers.archive.whole import unpack_whole

        unpacked = unpack_whole(stream, data, diff_id=digest, limits=limits)
        if warn is not None:
            for warning in unpacked.warnings:
                warn(warning)

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
    _refuse_forgetting(store, volume)
    if volume_mounting.mounts_of(store, volume):
        if not _replace_image(store, volume, make):
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


def _replace_image(store: VolumeStore, volume: Volume, make: Make) -> bool:
    """Have a new image take the place of a volume's, which may have no room for both contents;
    False where it has none, or no other one can be made.
    """
    image = volume_mounting.image_of(store, volume)
    if image is None:
        return False
    volume_content.recover(store, volume)
    directory = store.directory(volume.name)
    with tree.opened_directory(directory) as fd:
        try:
            os.mkdir(IMPORT, 0o700, dir_fd=fd)
            beside = Path(directory, IMPORT)
            if not store.driver_for(volume.driver).beside(volume, beside):
                return False
            _make_image(store, volume, beside / image.name, make)
            os.rename(f"{IMPORT}/{image.name}", image.name, src_dir_fd=fd, dst_dir_fd=fd)
            os.fsync(fd)
        finally:
            volume_content.settle_exchange(directory)
    _forget_seed(store, volume)
    return True


def _make_image(store: VolumeStore, volume: Volume, image: Path, make: Make) -> None:
    with volume_mounting.seen_in_image(store, volume, image) as new:
        with (
            volume_mounting.hold(store, volume) as held,
            tree.opened_directory(held.path, follow_symlinks=True) as old,
        ):
            volume_content.be_like(old, new)  # where the tar says nothing of it
        make(new)
        syscalls.syncfs(new)
    with image.open("rb") as file:
        os.fsync(file.fileno())


def _forget_seed(store: VolumeStore, volume: Volume) -> None:
    with store.database.transaction() as connection:
        connection.execute("UPDATE volumes SET seed = NULL WHERE name = ?", (volume.name,))


def _refuse_forgetting(store: VolumeStore, volume: Volume) -> None:
    """Check that a volume keeps what it gets, though nobody uses it."""
    if volume_mounting.forgets(store, volume):
        raise VolumeError(
            f"volume {volume.name} is kept in memory, and only while someone uses it: what is"
            " imported would be gone at once",
            resolution="start a container that uses it, and copy into that:"
            " storagedrivers cp -a - CONTAINER:PATH",
        )


def _refuse_used(store: VolumeStore, volume: Volume) -> None:
    """Check that nothing has the volume at hand.

    Raises:
        InUseError: a container that runs, or another process.
    """
    running = volume_mounting.running(store, volume.name)
    if running:
        error = InUseError(
            f"volume {volume.name} is in use by {', '.join(running)}, so its content cannot be"
            " replaced",
            holders=running,
            resolution=f"stop them first: storagedrivers stop {' '.join(running)}; or unmount them:"
            f" storagedrivers container unmount {' '.join(running)}",
        )
        error.details = None  # the sentence has the names
        raise error
    if not volume_mounting.unmount_idle(store, volume.name):
        raise InUseError(
            f"volume {volume.name} is in use by another process, so its content cannot be replaced",
            resolution="wait for it, or end it",
        )
