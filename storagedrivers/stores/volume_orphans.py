"""What belongs to no one in the directories of volumes, and how it goes: the part of
:mod:`storagedrivers.stores.orphans` and :mod:`storagedrivers.stores.gc` that is about volumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError, StorageDriversError
from storagedrivers.linux import tree
from storagedrivers.mounts.names import check_volume_name
from storagedrivers.stores import locks, volume_mounting
from storagedrivers.stores import volume_records as records
from storagedrivers.stores.mounts import is_mounted
from storagedrivers.stores.orphans import Kind, Orphan, Seen, names_in
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.volumes import VolumeStore

Judge = Callable[[Seen, str, str], Iterator[Orphan]]
"""Takes what was seen, whose it was and why it is an orphan; measures it."""


def find(store: LayerStore, judge: Judge) -> Iterator[Orphan]:
    """Everything in the directories of volumes that belongs to no one."""
    top = os.path.join(store.root, "volumes")
    names = names_in(top)
    rows = store.database.rows("SELECT name FROM volumes WHERE state != 'ready'")
    for name in sorted({*names, *(row[0] for row in rows)}):
        seen = Seen(Kind.VOLUME, os.path.join(top, name), name)
        state = _state(store, name)
        if state != "ready":
            # Whoever makes, fills or removes it holds its lock all the time.
            if _is_locked(store, name) or (state := _state(store, name)) == "ready":
                continue
            yield from _unfinished(seen, judge, state)
        else:
            yield from _left_over(store, seen, judge)


def _state(store: LayerStore, name: str) -> str | None:
    # Names of files come here, which SQLite may not take.
    return records.state(store.database, name) if name.isascii() else None


def _is_locked(store: LayerStore, name: str) -> bool:
    return locks.is_locked(store.lock_path(f"{locks.VOLUME}{name}"))


def _unfinished(seen: Seen, judge: Judge, state: str | None) -> Iterator[Orphan]:
    if state is None:
        yield from judge(seen, seen.layer, "a directory without a volume")
        return
    reason = f"whoever was {state} the volume is gone"
    row = seen._replace(kind=Kind.VOLUME_ROW)
    found = next(judge(row, seen.layer, reason), None)
    yield found or Orphan(Kind.VOLUME_ROW, seen.path, seen.layer, 0.0, 0, 0, reason)


def _left_over(store: LayerStore, seen: Seen, judge: Judge) -> Iterator[Orphan]:
    """What a killed process has left of a volume that is there."""
    for name in names_in(seen.path):
        if name == DATA or not name.startswith("_"):
            continue
        staged = os.path.join(seen.path, name)
        before = _inode(staged)
        if before and not _is_locked(store, seen.layer) and _inode(staged) == before:
            part = seen._replace(kind=Kind.VOLUME_PART, path=staged)
            yield from judge(part, seen.layer, "it was to go into the volume, and nobody is at it")
    data = os.path.join(seen.path, DATA)
    held = volume_mounting.is_held(store.run_root, seen.layer)
    if is_mounted(data) and not held and not _is_locked(store, seen.layer):
        mounted = seen._replace(kind=Kind.VOLUME_MOUNT, path=data)
        for orphan in judge(mounted, seen.layer, "it is mounted, and nobody uses it"):
            yield orphan._replace(bytes=0, inodes=0, in_use="")


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def collect(volumes: VolumeStore, orphan: Orphan) -> None:
    """Do away with an orphan of :func:`find`, after a last look.

    Raises:
        StorageDriversError, OSError: it stays; says why.
    """
    from storagedrivers.stores import volume_removal

    try:
        check_volume_name(orphan.owner)
    except StorageDriversError:  # no volume has ever had this name
        with suppress(FileNotFoundError), tree.opened_directory(volumes.home) as fd:
            tree.remove_tree(fd, orphan.owner)
        return
    if orphan.kind is Kind.VOLUME_MOUNT:
        _unmount(volumes, orphan.owner)
        return
    problems = volumes.layers.problems
    before = len(problems)
    volume_removal.finish(volumes, orphan.owner)
    if len(problems) > before:
        raise OSError(problems.pop())


def _unmount(volumes: VolumeStore, name: str) -> None:
    if users := volume_mounting.running(volumes, name):
        raise InUseError(f"volume {name} is in use", holders=users)
    with volumes.locked(name):
        if not volume_mounting.unmount_idle(volumes, name):
            raise InUseError(f"volume {name} is in use by another process")
