"""Volumes while they are in use: mounted where their driver says so, and told from idle ones.

::

    <run root>/volumes/<name>    every user of a volume that has mounts holds flock(2) LOCK_SH on it

The kernel drops the lock with its process, so there is no count that could be wrong. Who lets go
takes the volume's lock and tries LOCK_EX: if that works nobody uses the volume, and it is
unmounted. What a killed process has left mounted is found in the same way by the next who holds,
removes or recovers.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.errors import (
    InUseError,
    LockTimeoutError,
    StorageDriversError,
    UnmountError,
    VolumeError,
)
from storagedrivers.linux import mount, syscalls
from storagedrivers.linux.mountinfo import is_below, read_mountinfo
from storagedrivers.model import Mount, Volume
from storagedrivers.stores import locks
from storagedrivers.stores import volume_records as records
from storagedrivers.stores.mounts import busy_error, is_mounted, make_private_directory
from storagedrivers.volume_driver import DATA, LOOP

if TYPE_CHECKING:
    from storagedrivers.stores.volumes import VolumeStore

_ATTEMPTS, _PASSING = 5, 0.001  # seconds


class HeldVolume:
    """A volume that someone uses; a context manager that lets go of it.

    Attributes:
        path: where its files are to be seen.
    """

    def __init__(self, path: str, let_go: Callable[[], None] | None = None) -> None:
        self.path = path
        self._let_go = let_go

    def release(self) -> None:
        """Let go of it; the last one unmounts it. Idempotent."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def __enter__(self) -> HeldVolume:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(store: VolumeStore, volume: Volume, *, guarded: bool = False) -> HeldVolume:
    """See :meth:`VolumeStore.hold`.

    Args:
        guarded: nobody is to remove or replace it meanwhile, also where it has no mounts. Whoever
            has its lock all the time needs none.
    """
    data = store.data(volume.name)
    mounts = mounts_of(store, volume)
    if store.database.is_fixed:  # so nobody removes or replaces it, and nobody can mount it
        if mounts:
            raise VolumeError(
                f"volume {volume.name} is seen only when it is mounted, and the store at"
                f" {store.layers.root} cannot be changed",
                resolution="mount the filesystem of the store for writing, or a copy of it",
            )
        return HeldVolume(data)
    if not (mounts or guarded):
        return HeldVolume(data)
    makes = store.has_lock(volume.name)
    with store.locked(volume.name):
        if not makes or records.state(store.database, volume.name) != "creating":
            store.get(volume.name)  # says that it is gone, or about to go
        fd = _opened(store, volume.name)
        try:
            if _is_idle(fd):
                _tidy(store, volume.name, data, reuse=len(mounts) == 1)
            syscalls.flock(fd, syscalls.LOCK_SH)
            if mounts and not is_mounted(data):
                _mount(volume, mounts, data)
        except BaseException:
            os.close(fd)
            raise
    return HeldVolume(data, lambda: _let_go(store, volume.name, fd))


def mounts_of(store: VolumeStore, volume: Volume) -> tuple[Mount, ...]:
    """How the volume's files are to be seen at ``_data``; nothing where they lie there."""
    return store.driver_for(volume.driver).mounts(volume, Path(store.directory(volume.name)))


def _let_go(store: VolumeStore, name: str, fd: int) -> None:
    os.close(fd)
    # A shell may stand in it: then the next who holds it finds it mounted.
    with suppress(InUseError, LockTimeoutError), store.locked(name):
        unmount_idle(store, name)


def is_held(run_root: str, name: str) -> bool:
    """Whether someone uses a volume that has mounts, or guards one; takes nothing from anyone."""
    try:
        fd = os.open(_user_path(run_root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Whoever holds it shares the lock with others, so that one cannot be had shows it.
        syscalls.flock(fd, syscalls.LOCK_EX | syscalls.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def unmount_idle(store: VolumeStore, name: str) -> bool:
    """Unmount a volume that nobody holds; whoever calls has its lock.

    Returns:
        False where someone holds it.

    Raises:
        InUseError: something else has it open; names it.
    """
    data = store.data(name)
    if not os.path.lexists(_user_path(store.layers.run_root, name)):
        _tidy(store, name, data, reuse=False)
        return True
    fd = _opened(store, name)
    try:
        if not _is_idle(fd):
            return False
        _tidy(store, name, data, reuse=False)
        with suppress(FileNotFoundError):
            os.unlink(_user_path(store.layers.run_root, name))
        return True
    finally:
        os.close(fd)


def unmount_all_idle(store: VolumeStore) -> list[str]:
    """See :meth:`VolumeStore.unmount_idle`."""
    directory = os.path.join(store.layers.run_root, "volumes")
    names = os.listdir(directory) if os.path.isdir(directory) else []
    unmounted = []
    for name in dict.fromkeys([*names, *_mounted(store)]):
        if is_held(store.layers.run_root, name) or running(store, name):
            continue
        with suppress(StorageDriversError), store.locked(name, timeout=0):  # in use, or no name
            if unmount_idle(store, name):
                unmounted.append(name)
    return unmounted


def _mounted(store: VolumeStore) -> list[str]:
    """The names of the volumes that are mounted, whoever did it from whatever run root."""
    home = os.path.realpath(store.home)
    points = [os.path.split(entry.mountpoint) for entry in read_mountinfo()]
    return [
        os.path.basename(above)
        for above, name in points
        if name == DATA and os.path.dirname(above) == home
    ]


_USERS = """
    SELECT DISTINCT containers.id, containers.name, containers.layer FROM container_volumes
    JOIN containers ON containers.id = container_volumes.container WHERE volume = ?
"""


def running(store: VolumeStore, name: str) -> list[str]:
    """The names of the containers that use a volume and run, from whatever run root."""
    found, mounts = [], store.layers.mount_table
    for container, its_name, layer in store.database.rows(_USERS, name):
        directory = os.path.join(store.layers.run_root, "containers", container)
        # Without its monitor, or from another run root, one that runs is only seen to be mounted.
        if locks.is_locked(os.path.join(directory, "monitor")) or mounts.living(layer):
            found.append(its_name)
    return found


def _user_path(run_root: str, name: str) -> str:
    return os.path.join(run_root, "volumes", name)


def _opened(store: VolumeStore, name: str) -> int:
    make_private_directory(store.layers.run_root)
    path = _user_path(store.layers.run_root, name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    # Whoever opens it holds the volume's lock, and so does whoever deletes it.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_idle(fd: int) -> bool:
    for _ in range(_ATTEMPTS):
        try:
            syscalls.flock(fd, syscalls.LOCK_EX | syscalls.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PASSING)  # someone may only have looked, see is_held
        else:
            return True
    return False


def _mount(volume: Volume, mounts: Sequence[Mount], data: str) -> None:
    for done, value in enumerate(mounts):
        try:
            _mount_one(value, data)
        except OSError as error:
            mount.unmount_all(mounts[:done], data)
            raise _refused(volume, value, error) from error


def _mount_one(value: Mount, data: str) -> None:
    if LOOP not in value.options:
        mount.mount(value, data)
        return
    from storagedrivers.linux import loop

    options = tuple(option for option in value.options if option != LOOP)
    with loop.loop_device(value.source) as device:
        mount.mount(value._replace(source=device, options=options), data)


def _refused(volume: Volume, value: Mount, error: OSError) -> VolumeError:
    """What is said of a volume that cannot be mounted; options may hold a password."""
    number = error.errno or 0
    resolutions = {
        errno.ENODEV: f"the kernel has no filesystem {value.type}: look at the option type",
        errno.ENOENT: f"see whether {value.source} is there",
        errno.ENOTBLK: f"{value.source} is neither a block device nor a file",
        errno.EPERM: "run as root",
    }
    return VolumeError(
        f"volume {volume.name} cannot be mounted: {value.type} of {value.source}:"
        f" {os.strerror(number)}",
        resolution=resolutions.get(number, "see the kernel's log (dmesg) for its reason"),
    )


def _tidy(store: VolumeStore, name: str, data: str, *, reuse: bool) -> None:
    """Unmount what a process that was killed has left.

    Args:
        reuse: what is busy may as well stay.
    """
    while is_mounted(data):
        try:
            mount.unmount(data)
        except UnmountError as error:
            if error.errno != errno.EBUSY:
                raise
            if _detached(store, name, data):
                continue
            if reuse:
                return
            raise busy_error(f"volume {name}", data) from error


def _detached(store: VolumeStore, name: str, data: str) -> bool:
    """Whether what kept a directory of the host busy were only mounts below it, which came along
    with it or later, and it is gone with them.
    """
    from storagedrivers.linux import busy
    from storagedrivers.linux.holders import Holder

    volume = records.any_of(store.database, name)
    if volume is None or not shows_host(store, volume):
        return False
    point = os.path.realpath(data)
    below = [
        entry.mountpoint
        for entry in read_mountinfo()
        if entry.mountpoint != point and is_below(entry.mountpoint, point)
    ]
    if not below or any(isinstance(user, Holder) for user in busy.find_users(point)):
        return False
    # Else the host's own mounts would go with them.
    syscalls.mount(None, point, None, syscalls.MS_SLAVE | syscalls.MS_REC, None)
    mount.unmount(data, detach=True)  # of all at once, so that nobody finds a part of it
    return True


def forgets(store: VolumeStore, volume: Volume) -> bool:
    """Whether what the volume holds is gone as soon as nobody uses it."""
    mounts = mounts_of(store, volume)
    return bool(mounts) and mounts[-1].type in ("tmpfs", "ramfs")


def image_of(store: VolumeStore, volume: Volume) -> Path | None:
    """The file in a volume's directory that has its files in a filesystem of its own."""
    mounts = mounts_of(store, volume)
    if len(mounts) != 1 or LOOP not in mounts[0].options:
        return None
    path = Path(mounts[0].source)
    return path if path.parent == Path(store.directory(volume.name)) else None


@contextmanager
def seen_in_image(store: VolumeStore, volume: Volume, image: Path) -> Iterator[int]:
    """The filesystem in another image for a volume, open and mounted nowhere."""
    from storagedrivers.linux import loop

    (value,) = mounts_of(store, volume)
    options = tuple(option for option in value.options if option != LOOP)
    with loop.loop_device(image) as device:
        fd = mount.open_view([value._replace(source=device, options=options)])
        try:
            yield fd
        finally:
            os.close(fd)


def shows_host(store: VolumeStore, volume: Volume) -> bool:
    """Whether the volume's files are a directory of the host's, by a bind mount."""
    try:
        mounts = mounts_of(store, volume)
    except StorageDriversError:  # its driver is gone, or a host has no address
        return False
    return any(
        one.type in ("bind", "rbind") or {"bind", "rbind"} & {*one.options} for one in mounts
    )
