"""How volumes come: a row, directories that have reached the disk, the row again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.errors import AlreadyExistsError, StorageDriversError, VolumeError
from storagedrivers.linux import btrfs, tree
from storagedrivers.model import Volume
from storagedrivers.stores import volume_records as records
from storagedrivers.stores import volume_removal
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.stores.volumes import VolumeStore

_MODE = 0o755  # of a data directory, as Docker has it; an image's content brings its own
_NO_BTRFS = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL)


def create(
    store: VolumeStore,
    new: Volume,
    *,
    content: Callable[[Volume], object] | None = None,
    ready: bool = True,
) -> Volume:
    """See :meth:`VolumeStore.create`.

    Args:
        content: puts into the new volume what it is to hold when it is there; then none may be
            there already.
        ready: else its row goes on to say ``creating``, and whoever calls holds the lock until it
            has set that right, or has discarded the volume.
    """
    driver = store.driver_for(new.driver)
    new = new._replace(size=_size(new, driver.size(new.options)))
    _make_home(store)
    driver.check(new.options, new.size, Path(store.home))
    with store.locked(new.name):
        if (there := _there(store, new)) is not None:
            if content is not None:
                raise AlreadyExistsError(
                    f"there is a volume {new.name} already", resolution="choose another name"
                )
            return there
        try:
            with store.database.transaction(durable=False) as connection:
                records.insert(connection, new)
            lay(store, new)
            if content is not None:
                content(new)
            if ready:
                with store.database.transaction() as connection:
                    records.set_state(connection, new.name, "ready")
        except BaseException:
            # What cannot be cleaned now (a full disk) is finished by the next who opens.
            with suppress(OSError, StorageDriversError):
                if records.state(store.database, new.name) == "creating":
                    volume_removal.discard(store, new.name)
            raise
    return new


def _make_home(store: VolumeStore) -> None:
    if not os.path.isdir(store.home):
        os.makedirs(store.home, mode=0o700, exist_ok=True)
        with tree.opened_directory(store.layers.root, follow_symlinks=True) as root:
            os.fsync(root)


def _size(new: Volume, wanted: int | None) -> int | None:
    """The size that was asked for in either way."""
    if new.size is None:
        return wanted
    if wanted is not None and wanted != new.size:
        raise VolumeError(
            f"two sizes were given: {new.size} bytes, and {wanted} as an option",
            resolution="leave one of them out",
        )
    return new.size


def _there(store: VolumeStore, new: Volume) -> Volume | None:
    """The volume that has the name already; what a killed process left of one is cleared away."""
    found = records.find(store.database, "name = ?", new.name)
    if not found:
        volume_removal.discard(store, new.name)
        volume_removal.delete_directory(store, new.name)
        return None
    if found[0].driver != new.driver:
        raise AlreadyExistsError(
            f"there is a volume {new.name} of the driver {found[0].driver} already",
            resolution="choose another name",
        )
    return found[0]


def lay(store: VolumeStore, new: Volume) -> None:
    """Make its directories, and bring them to the disk."""
    directory = Path(store.directory(new.name))
    directory.mkdir(mode=0o700)
    with tree.opened_directory(directory) as fd:
        make_data(fd, DATA)
        store.driver_for(new.driver).create(new, directory)
        with tree.opened_directory(DATA, dir_fd=fd) as data:
            os.fsync(data)
        os.fsync(fd)
    with tree.opened_directory(store.home) as home:
        os.fsync(home)


def make_data(parent_fd: int, name: str) -> None:
    """Make an empty data directory, on btrfs a subvolume: it can be snapshot and limited."""
    try:
        btrfs.create_subvolume(parent_fd, name)
    except OSError as error:
        if error.errno not in _NO_BTRFS:
            raise
        os.mkdir(name, dir_fd=parent_fd)
    os.chmod(name, _MODE, dir_fd=parent_fd)  # whatever the umask
