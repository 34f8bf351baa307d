"""What comes into a volume: an image's content the first time, other content in the place of the
old.

::

    <graph root>/volumes/<name>/_fill    a symlink that says where content is staged:
        _data/.storagedrivers-<hex>/     in the data directory, which may be a subvolume, have a
                                         quota or be mounted: nothing could be renamed into it
            new/                         what is to come
            like/                        empty; has the metadata that the data directory is to get
            old/, then gone-<hex>/       what was there before, if it is replaced

Until the row says ``filling`` nothing of it counts, and recovery takes it away. From then on it is
moved into place entry by entry, and recovery goes on with that. Others may have the volume mounted
all the time: what they put there meanwhile stays.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.linux import ioctl, syscalls, tree
from storagedrivers.stores import volume_mounting, volume_removal
from storagedrivers.stores import volume_records as records
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.model import Usage, Volume
    from storagedrivers.stores.volumes import VolumeStore

MARK = "_fill"
"""Says where content is staged."""

IMPORT, OLD = "_import", "_old"
"""A data directory in the making, and one that had to make room; see volume_archive.py."""

_STAGING = ".storagedrivers-"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NO_FLAGS = (errno.EINVAL, errno.ENOSYS)  # a filesystem, or a C library, without renameat2(2)


class Filled(NamedTuple):
    """What an image brings, or brought, into a volume.

    Attributes:
        entries: files and directories, but for the directory itself.
        bytes: of the contents of its regular files, hard links counted once.
    """

    entries: int
    bytes: int


class _Place(NamedTuple):
    """A volume at hand: its directory and its files, both open."""

    store: VolumeStore
    volume: Volume
    directory: int
    data: int


@contextmanager
def _opened(store: VolumeStore, volume: Volume) -> Iterator[_Place]:
    """Have it mounted, and locked against others who would fill, mount or remove it."""
    with store.locked(volume.name):
        store.get(volume.name)
        with (
            volume_mounting.hold(store, volume) as held,
            tree.opened_directory(store.directory(volume.name)) as directory,
            tree.opened_directory(held.path, follow_symlinks=True) as data,
        ):
            yield _Place(store, volume, directory, data)


def usage(store: VolumeStore, name: str) -> Usage:
    """See :meth:`VolumeStore.usage`."""
    with store.used(name) as path:
        return tree.measure_tree(path)


def measure(source_fd: int) -> Filled:
    """What filling a volume with an open directory would bring."""
    entries = size = 0
    linked: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        path = pending.pop()
        with tree.opened_below(source_fd, path) as fd, os.scandir(fd) as found:
            for entry in found:
                entries += 1
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{path}/{entry.name}" if path else entry.name)
                elif stat.S_ISREG(status.st_mode) and (key := _key(status)) not in linked:
                    linked.add(key)
                    size += status.st_size
    return Filled(entries, size)


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def fill(store: VolumeStore, volume: Volume, source_fd: int, image: str) -> Filled:
    """Give an empty volume the content, the owner and the mode of a directory of an image.

    One that holds anything stays as it is; a hidden file is something.

    Args:
        store: the store.
        volume: what to fill.
        source_fd: the directory, open.
        image: the id of the image.

    Raises:
        NotFoundError, VolumeError: the volume is gone, or cannot be mounted.
        OSError: what the kernel says; then the volume is empty as it was.
    """
    from storagedrivers.linux import copy

    with _opened(store, volume) as place:
        _settle(place)
        if not is_empty(place.data):
            return Filled(0, 0)
        found = measure(source_fd)
        put(
            place,
            lambda new: copy.copy_tree(
                f"/proc/self/fd/{source_fd}", f"/proc/self/fd/{new}", lossy=True
            ),
            seed=image,
        )
        return found


def is_empty(data: int) -> bool:
    """Whether an open directory holds nothing."""
    with os.scandir(data) as entries:
        return next(entries, None) is None


def replace(store: VolumeStore, volume: Volume, make: Callable[[int], object]) -> None:
    """Have *make* write into an empty directory, which gets the place of all that a volume holds.

    For one whose data directory is mounted; others are exchanged as a whole.
    """
    with _opened(store, volume) as place:
        _settle(place)
        put(place, make, seed=None, replacing=True)


def put(
    place: _Place, make: Callable[[int], object], *, seed: str | None, replacing: bool = False
) -> None:
    """Have *make* write into an empty directory, and what it wrote become the volume's content."""
    store, name = place.store, place.volume.name
    try:
        with _staged(place) as staging:
            _make(staging, make, place.data if replacing else None)
        syscalls.syncfs(place.data)
        with store.database.transaction() as connection:
            connection.execute(
                "UPDATE volumes SET state = 'filling', seed = ? WHERE name = ?", (seed, name)
            )
    except BaseException:
        if records.state(store.database, name) == "ready":
            _clear(place)
        raise
    _move_in(place)


@contextmanager
def _staged(place: _Place) -> Iterator[int]:
    """A new directory for content on its way in."""
    name = f"{_STAGING}{os.urandom(8).hex()}"
    os.symlink(f"{DATA}/{name}", MARK, dir_fd=place.directory)
    os.fsync(place.directory)
    with _keeping_times(place.data):
        os.mkdir(name, 0o700, dir_fd=place.data)
    with tree.opened_directory(name, dir_fd=place.data) as fd:
        yield fd


@contextmanager
def _keeping_times(directory: int) -> Iterator[None]:
    """What comes and goes in the block leaves no trace in a directory's times."""
    before = os.fstat(directory)
    yield
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def _make(staging: int, make: Callable[[int], object], replaced: int | None) -> None:
    for name in ("new", "like", *(() if replaced is None else ("old",))):
        os.mkdir(name, 0o700, dir_fd=staging)
    with (
        tree.opened_directory("new", dir_fd=staging) as new,
        tree.opened_directory("like", dir_fd=staging) as like,
    ):
        if replaced is not None:
            be_like(replaced, new)
        make(new)
        be_like(new, like)  # which keeps its times when the new one is emptied


def be_like(one: int, other: int) -> None:
    """Give the directory *other* the owner, mode, attributes and time of the directory *one*."""
    from storagedrivers.archive.header import Entry
    from storagedrivers.archive.metadata import Warnings, read_metadata, set_directory_metadata

    set_directory_metadata(other, read_metadata(one), Entry(), Warnings())


def _move_in(place: _Place) -> None:
    """Move what is staged into place: the second half of :func:`put`, also after a kill."""
    store, name = place.store, place.volume.name
    if (staged := _staging(place)) is not None:
        with _still(place.data, staged) as fd:
            if fd is not None:
                _exchange(place, staged, fd)
                os.fsync(fd)
                os.fsync(place.data)
    with store.database.transaction() as connection:
        records.set_state(connection, name, "ready")
    _clear(place)


def _exchange(place: _Place, staged: str, staging: int) -> None:
    with _still(staging, "old") as old:
        if old is not None:
            _move(place.data, old, but=staged)
            gone = f"gone-{os.urandom(8).hex()}"
            with suppress(FileNotFoundError):
                os.rename("old", gone, src_dir_fd=staging, dst_dir_fd=staging)
    with _still(staging, "new") as new:
        if new is not None:
            _move(new, place.data)
    # A directory of the host keeps its owner and its mode.
    if not volume_mounting.shows_host(place.store, place.volume):
        with _still(staging, "like") as like:
            if like is not None:
                be_like(like, place.data)


@contextmanager
def _still(parent_fd: int, name: str) -> Iterator[int | None]:
    """What was staged, open; None where a container that has the volume mounted took it away, or
    put something else there: then there is nothing left to move.
    """
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd
        )
    except OSError as error:
        if error.errno not in _GONE:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _move(source: int, target: int, *, but: str = "") -> None:
    for name in sorted(os.listdir(source)):
        if name != but:
            try:
                _move_one(source, target, name)
            except OSError as error:
                if error.errno not in (errno.EEXIST, *_GONE):
                    raise  # else others were at it just now


def _move_one(source: int, target: int, name: str) -> None:
    try:
        _rename(source, target, name)
    except PermissionError:
        _unprotect(source, name)
        _rename(source, target, name)


def _rename(source: int, target: int, name: str) -> None:
    """Move a name, and nothing over another."""
    old, new = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}"
    try:
        syscalls.renameat2(old, new, syscalls.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _unprotect(directory: int, name: str) -> None:
    """Take the flags off (chattr +i, +a) that keep something where it is."""
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
        try:
            ioctl.clear_protection(fd)
        finally:
            os.close(fd)


def _staging(place: _Place) -> str | None:
    """The name in the data directory that the mark says; None where there is no mark."""
    try:
        target = os.readlink(MARK, dir_fd=place.directory)
    except FileNotFoundError:
        return None
    directory, _, name = target.partition("/")
    return name if directory == DATA and name.startswith(_STAGING) and "/" not in name else None


def _clear(place: _Place) -> None:
    """Take away what is staged, and the mark."""
    if (staged := _staging(place)) is not None:
        with _keeping_times(place.data):
            _remove_staged(place.data, staged)
        os.fsync(place.data)
    with suppress(FileNotFoundError):
        os.unlink(MARK, dir_fd=place.directory)


def _remove_staged(data: int, staged: str) -> None:
    try:
        tree.remove_tree(data, staged)
    except OSError as error:
        # A container that goes on filling it may keep what it has put there.
        if error.errno != errno.ENOTEMPTY:
            raise


def _settle(place: _Place) -> None:
    """Finish what a process that was killed had begun."""
    if records.state(place.store.database, place.volume.name) == "filling":
        _move_in(place)
    else:
        _clear(place)


def recover(store: VolumeStore, volume: Volume) -> None:
    """Finish or undo what a process that was killed had begun with a volume's content; whoever
    calls has its lock.
    """
    directory = store.directory(volume.name)
    state = records.state(store.database, volume.name)
    if state == "filling" or os.path.lexists(os.path.join(directory, MARK)):
        with _opened(store, volume) as place:
            _settle(place)
    settle_exchange(directory)


def exchange(directory: int) -> None:
    """Have the new data directory take the place of the old one, durably."""
    try:
        path = f"/proc/self/fd/{directory}"
        syscalls.renameat2(f"{path}/{IMPORT}", f"{path}/{DATA}", syscalls.RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
        # Who finds no data directory takes the old one for it.
        os.rename(DATA, OLD, src_dir_fd=directory, dst_dir_fd=directory)
        os.rename(IMPORT, DATA, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def settle_exchange(directory: str) -> None:
    """Have the data directory, and none beside it, in a volume's directory."""
    with suppress(FileNotFoundError), tree.opened_directory(directory) as fd:
        there = {*os.listdir(fd)}
        if OLD in there and DATA not in there:
            os.rename(OLD, DATA, src_dir_fd=fd, dst_dir_fd=fd)
            there.discard(OLD)
        for name in {IMPORT, OLD} & there:
            volume_removal.delete_data(fd, name)
