"""How volumes go: a row that says so, what is mounted, their files, the row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.errors import (
    DriverError,
    InUseError,
    LockTimeoutError,
    NotFoundError,
    StorageDriversError,
)
from storagedrivers.linux import btrfs, tree
from storagedrivers.model import Volume
from storagedrivers.mounts.names import check_volume_name
from storagedrivers.stores import locks, volume_mounting
from storagedrivers.stores import volume_records as records
from storagedrivers.stores.locks import TIMEOUT
from storagedrivers.stores.mounts import is_mounted
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.stores.volumes import VolumeStore

Say = Callable[[str], object]

KEEP = "keep"
"""The label of volumes that :func:`prune` never takes."""


def remove(
    store: VolumeStore,
    volume: Volume,
    *,
    force: bool = False,
    say: Say | None = None,
    timeout: float = TIMEOUT,
) -> None:
    """Remove this volume, and not one that has got its name meanwhile.

    Args:
        force: also where its driver is not installed any more.
        say: told in a sentence what such a driver leaves behind.
        timeout: seconds to wait for who works on it.
    """
    name = volume.name
    with store.locked(name, timeout=timeout):
        if store.get(name).created != volume.created:
            raise NotFoundError(f"the volume {name} was removed, and another one made")
        if not force:
            store.driver_for(volume.driver)  # else it could not be finished
        _unmount(store, name)
        with store.database.transaction() as connection:
            refuse_used(name, records.users_within(connection, name))
            records.set_state(connection, name, "removing")
        discard(store, name, force=force, say=say)


def _unmount(store: VolumeStore, name: str) -> None:
    refuse_used(name, records.users(store.database, name))
    if not volume_mounting.unmount_idle(store, name):
        raise _in_use(name)


def _in_use(name: str) -> InUseError:
    return InUseError(
        f"volume {name} is in use by another process", resolution="wait for it, or end it"
    )


def refuse_used(name: str, users: Iterable[str]) -> None:
    """Check that no container uses a volume.

    Raises:
        InUseError: one does; names them.
    """
    if names := [*users]:
        error = InUseError(
            f"volume {name} is in use by {_counted(names)}",
            holders=names,
            resolution=f"remove {'them' if len(names) > 1 else 'it'} first:"
            f" storagedrivers container rm {' '.join(names)}",
        )
        error.details = None  # the sentence has the names
        raise error


def _counted(names: list[str]) -> str:
    return f"container{'s' if len(names) > 1 else ''} {', '.join(names)}"


def discard(store: VolumeStore, name: str, *, force: bool = False, say: Say | None = None) -> None:
    """Remove what a volume has on the disk, then its row; whoever calls holds its lock.

    Args:
        force, say: as for :func:`remove`.
    """
    found = records.any_of(store.database, name)
    if found is None:
        return
    directory = Path(store.directory(name))
    if directory.is_dir():
        if not volume_mounting.unmount_idle(store, name) and is_mounted(store.data(name)):
            raise _in_use(name)
        try:
            driver = store.driver_for(found.driver)
        except DriverError:
            if not force:
                raise
            if say is not None:
                say(_left(found))
        else:
            driver.unlimit(found, directory / DATA)
            driver.remove(found, directory)
    delete_directory(store, name)
    with store.database.transaction() as connection:
        connection.execute("DELETE FROM volumes WHERE name = ?", (name,))


def _left(volume: Volume) -> str:
    """What is said of a volume that goes without its driver."""
    options = " ".join(f"{name}={value}" for name, value in volume.options.items())
    return (
        f"volume {volume.name} is only forgotten: its driver {volume.driver} is not there to remove"
        f" what it keeps outside of the store; its options were {options or 'none'}"
    )


def delete_directory(store: VolumeStore, name: str) -> None:
    """Delete a volume's directory, or what is there instead; nothing there is no error.

    Raises:
        VolumeError: no volume can have this name, so it may lead to something else.
    """
    check_volume_name(name)
    with suppress(FileNotFoundError), tree.opened_directory(store.home) as home:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            tree.opened_directory(name, dir_fd=home) as fd,
        ):
            for entry in os.listdir(fd):
                delete_data(fd, entry)
        tree.remove_tree(home, name)
        # The row must not be gone before the directory is.
        os.fsync(home)


def delete_data(parent_fd: int, name: str) -> None:
    """Delete a data directory, or another entry of a volume's directory."""
    number = None
    try:
        with tree.opened_directory(name, dir_fd=parent_fd) as fd:
            if os.fstat(fd).st_ino == btrfs.ROOT_INODE:
                number = btrfs.subvolume_id(fd)
    except OSError:  # no directory
        number = None
    if number is not None:
        with suppress(OSError):  # not permitted, or no btrfs: then by its files
            btrfs.delete_subvolume(parent_fd, name)
            btrfs.delete_qgroup(parent_fd, number)
    tree.remove_tree(parent_fd, name)


def prune(
    store: VolumeStore,
    *,
    all: bool,  # noqa: A002
    dry_run: bool,
    filters: Sequence[str],
) -> list[Volume]:
    """See :meth:`VolumeStore.prune`."""
    idle = [one for one in store.ls(filters=filters) if _may_go(store, one, all=all)]
    if dry_run:
        return idle
    removed = []
    for volume in idle:
        with suppress(NotFoundError, InUseError, LockTimeoutError):  # somebody was faster
            remove(store, volume, timeout=0)
            removed.append(volume)
    return removed


def _may_go(store: VolumeStore, volume: Volume, *, all: bool) -> bool:  # noqa: A002
    if KEEP in volume.labels or not (all or volume.anonymous):
        return False
    return not is_used(store, volume)


def is_used(store: VolumeStore, volume: Volume) -> bool:
    """Whether a container has it, or someone holds it."""
    if records.users(store.database, volume.name) or volume_mounting.is_held(
        store.layers.run_root, volume.name
    ):
        return True
    # Whoever makes a container has the locks of its volumes until there is a row that says so.
    return locks.is_locked(store.lock_path(volume.name))


def finish(store: VolumeStore, name: str) -> None:
    """Finish what a process that was killed had begun with a volume."""
    lock = None
    finished = False
    try:
        lock = locks.try_lock(store.lock_path(check_volume_name(name)))
        if lock is None:
            return  # someone is at it
        with store.holding(name):
            _finish(store, name)
        finished = True
    except (StorageDriversError, OSError) as error:
        store.layers.problems.append(f"volume {name} could not be finished: {error}")
    finally:
        if lock is not None:
            (lock.release if finished else lock.leave)()


def release_left(store: VolumeStore, name: str) -> None:
    """Take away the lock that a failure has left, where there is nothing to be finished."""
    with suppress(OSError, StorageDriversError):
        lock = locks.try_lock(store.lock_path(name))
        if lock is None:
            return  # the next who has it already
        try:
            settled = _is_settled(store, name)
        except BaseException:
            lock.leave()
            raise
        (lock.release if settled else lock.leave)()


def _is_settled(store: VolumeStore, name: str) -> bool:
    """Whether a volume is there as a whole, or not at all."""
    state, directory = records.state(store.database, name), store.directory(name)
    if state is None:
        return not os.path.lexists(directory)
    return state == "ready" and not _staged(os.listdir(directory))


def _staged(entries: Iterable[str]) -> list[str]:
    """What of a volume's directory was on its way in."""
    return [entry for entry in entries if entry.startswith("_") and entry != DATA]


def _finish(store: VolumeStore, name: str) -> None:
    """Whoever calls has the volume's lock."""
    state = records.state(store.database, name)
    if state in ("creating", "removing"):
        discard(store, name)
    elif state is None:
        delete_directory(store, name)
    else:
        _settle(store, name)


def _settle(store: VolumeStore, name: str) -> None:
    from storagedrivers.stores import volume_content

    volume_content.settle_exchange(store.directory(name))
    if not os.path.isdir(store.data(name)):
        return  # ``check`` says that it is lost
    with suppress(InUseError):  # it stays mounted, and the next who holds it finds it so
        volume_mounting.unmount_idle(store, name)
    volume_content.recover(store, store.get(name))
    delete_staged(store, name)


def delete_staged(store: VolumeStore, name: str) -> None:
    """Delete what was on its way into a volume: all beside its data that begins with ``_``."""
    with tree.opened_directory(store.directory(name)) as fd:
        for entry in _staged(os.listdir(fd)):
            delete_data(fd, entry)
