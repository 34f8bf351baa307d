"""Removes what :mod:`storagedrivers.stores.orphans` finds, each with a last look whether it still
belongs to no one. Crosses no mount and follows no symlink.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.driver import TRASH
from storagedrivers.errors import InUseError, ReadOnlyError, StorageDriversError, UnmountError
from storagedrivers.linux import busy, mount, tree
from storagedrivers.linux.mountinfo import mount_of
from storagedrivers.model import is_layer_id
from storagedrivers.stores import locks, records, volume_orphans
from storagedrivers.stores.orphans import (
    OF_VOLUMES,
    Kind,
    Orphan,
    driver_or_none,
    find_orphans,
)

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.volumes import VolumeStore

_CONTAINER = re.compile(r"[0-9a-f]{64}")

__all__ = ["Collected", "Kind", "Orphan", "collect", "find_orphans", "planned"]


class Collected(NamedTuple):
    """What became of an orphan: gone, or why it is not."""

    orphan: Orphan
    problem: str = ""


def planned(orphan: Orphan) -> Collected:
    """What would become of an orphan."""
    return Collected(orphan, orphan.in_use and f"it is in use: {orphan.in_use}")


def collect(
    store: LayerStore, orphans: Iterable[Orphan], volumes: VolumeStore
) -> Iterator[Collected]:
    """Remove *orphans*; one that cannot be removed does not keep the others.

    Raises:
        ReadOnlyError: the store was opened for reading.
    """
    if store.database.read_only:
        raise ReadOnlyError(f"the store at {store.root} was opened for reading only")
    for orphan in orphans:
        if orphan.in_use:
            yield planned(orphan)
            continue
        try:
            if orphan.kind in OF_VOLUMES:
                volume_orphans.collect(volumes, orphan)
            else:
                _COLLECTORS[orphan.kind](store, orphan)
        except (OSError, StorageDriversError) as error:
            details = getattr(error, "details", None)
            yield Collected(orphan, f"{error}{f' ({details})' if details else ''}")
        else:
            yield Collected(orphan)


def _collect_layer(store: LayerStore, orphan: Orphan) -> None:
    row = records.by_id(store.database, orphan.owner)
    if row is not None and row.driver == orphan.driver:
        return  # it has got one: a database was put back
    driver = driver_or_none(store, orphan.driver)
    if driver is not None and os.path.isdir(orphan.path):
        driver.remove(orphan.owner)
        return
    home = os.path.dirname(orphan.path)
    os.makedirs(f"{home}/{TRASH}", mode=0o700, exist_ok=True)
    discarded = f"{home}/{TRASH}/{orphan.owner}.{os.urandom(6).hex()}"
    with suppress(FileNotFoundError):
        os.rename(orphan.path, discarded)
    _remove(discarded)


def _collect_trash(store: LayerStore, orphan: Orphan) -> None:
    driver = driver_or_none(store, orphan.driver)
    if driver is None:
        _remove(orphan.path)
        return
    with tree.opened_directory(os.path.dirname(orphan.path)) as fd:
        driver.delete_discarded(fd, os.path.basename(orphan.path))


def _collect_lockable(store: LayerStore, orphan: Orphan) -> None:
    """What is locked by whoever is at it; who has just made it may be about to lock it."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(orphan.path).st_mode):
            _remove(orphan.path)
        elif lock := locks.try_lock(orphan.path):
            lock.release()


def _collect_path(store: LayerStore, orphan: Orphan) -> None:
    _remove(orphan.path)


def _unless_mounted(
    act: Callable[[Orphan], None],
) -> Callable[[LayerStore, Orphan], None]:
    """Who has mounted the layer since it was looked at has a row, and who is at it has its lock."""

    def collector(store: LayerStore, orphan: Orphan) -> None:
        if not is_layer_id(orphan.owner):
            act(orphan)
            return
        with store.locked(orphan.owner):
            if not store.mount_table.living(orphan.owner):
                act(orphan)

    return collector


def _collect_mountpoint(orphan: Orphan) -> None:
    try:
        os.rmdir(orphan.path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        _remove(orphan.path)


def _collect_mount(orphan: Orphan) -> None:
    point = os.path.realpath(orphan.path)
    while (entry := mount_of(point)) is not None and entry.mountpoint == point:
        try:
            mount.unmount(point)
        except UnmountError as error:
            if error.errno != errno.EBUSY:
                raise
            raise InUseError(f"{point} is busy", holders=busy.find_users(point)) from error
    with suppress(FileNotFoundError):
        os.rmdir(orphan.path)


def _collect_unused(store: LayerStore, orphan: Orphan) -> None:
    store.release(orphan.owner)  # which looks again whether nothing refers to it


def _collect_blob(store: LayerStore, orphan: Orphan) -> None:
    digest = f"sha256:{os.path.basename(orphan.path)}"
    with store.locked(locks.IMAGES, what="the images"):
        if store.database.row("SELECT 1 FROM image_blobs WHERE digest = ?", digest) is None:
            _remove(orphan.path)


def _collect_container(store: LayerStore, orphan: Orphan) -> None:
    """The directory of a container is made before its row, under the lock of both."""
    name = os.path.basename(orphan.path)
    if not _CONTAINER.fullmatch(name):
        _remove(orphan.path)
        return
    with store.locked(f"{locks.CONTAINER}{name}", what=f"container {name}"):
        if store.database.row("SELECT 1 FROM containers WHERE id = ?", name) is None:
            _remove(orphan.path)


def _collect_row(store: LayerStore, orphan: Orphan) -> None:
    store.problems.clear()
    store.recover()
    left = records.by_id(store.database, orphan.owner)
    if left is not None and left.state is not records.LayerState.READY and store.problems:
        raise OSError(store.problems[-1])


def _collect_mount_row(store: LayerStore, orphan: Orphan) -> None:
    with store.locked(orphan.owner):  # the row may count a new mount by now
        store.mount_table.living(orphan.owner)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError), tree.opened_directory(os.path.dirname(path)) as fd:
        tree.remove_tree(fd, os.path.basename(path))


_COLLECTORS: dict[Kind, Callable[[LayerStore, Orphan], None]] = {
    Kind.LAYER: _collect_layer,
    Kind.TRASH: _collect_trash,
    Kind.LINK: _collect_path,
    Kind.TAR: _collect_path,
    Kind.LOCK: _collect_lockable,
    Kind.STAGING: _collect_lockable,
    Kind.SCRATCH: _collect_path,
    Kind.MOUNT: _unless_mounted(_collect_mount),
    Kind.MOUNTPOINT: _unless_mounted(_collect_mountpoint),
    Kind.UNUSED: _collect_unused,
    Kind.BLOB: _collect_blob,
    Kind.CONTAINER: _collect_container,
    Kind.ROW: _collect_row,
    Kind.MOUNT_ROW: _collect_mount_row,
}
