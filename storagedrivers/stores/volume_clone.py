"""Volumes with what another one holds.

On btrfs a snapshot: one moment of the source, at no cost. Elsewhere its files are copied one after
the other, and share their contents with it where the filesystem can (xfs, btrfs); what is written
meanwhile may be in the clone or not. Of a volume that lies in a file, with a filesystem of its own,
the whole file is shared where that can be and nobody uses the volume.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError, VolumeError
from storagedrivers.linux import btrfs, copy, ioctl, syscalls, tree
from storagedrivers.model import Volume
from storagedrivers.mounts.names import check_volume_name
from storagedrivers.stores import volume_content, volume_making, volume_mounting
from storagedrivers.stores.volume_content import IMPORT

if TYPE_CHECKING:
    from storagedrivers.stores.volumes import VolumeStore

Say = Callable[[str], object]

_PLACE = ("type", "device", "o")
"""Options that say where the files of a volume are: a clone has them elsewhere."""

_CANNOT_SNAPSHOT = (
    *(errno.EPERM, errno.EXDEV, errno.ENOTTY, errno.EINVAL),
    errno.ENAMETOOLONG,  # there are nested ones, too deep to be told
)
_CHANGED = (errno.ENOENT, errno.ESTALE)


def clone(
    store: VolumeStore,
    source: str,
    name: str,
    *,
    say: Say | None = None,
    anonymous: bool = False,
    ready: bool = True,
) -> Volume:
    """See :meth:`VolumeStore.clone`.

    Args:
        say: told what it will cost, in a sentence, before anything is copied that cannot be shared.
        anonymous: it is made for one container, which gives it no name.
        ready: as for :func:`volume_making.create`.
    """
    old = store.get(source)
    options = {key: value for key, value in old.options.items() if key not in _PLACE}
    new = old._replace(
        name=check_volume_name(name), created=time.time(), options=options, anonymous=anonymous
    )
    with _shared_image(store, old) as image:

        def put(made: Volume) -> None:
            if not _put_image(store, image, made):
                with _seen(store, old) as data:
                    _bring(store, old, data, made, say)

        if image is not None:
            return volume_making.create(store, new, content=put, ready=ready)
    with _seen(store, old) as data:
        return volume_making.create(
            store, new, content=lambda made: _bring(store, old, data, made, say), ready=ready
        )


@contextmanager
def _seen(store: VolumeStore, volume: Volume) -> Iterator[int]:
    """The volume's files, open; nobody removes or replaces it meanwhile."""
    with volume_mounting.hold(store, volume, guarded=True) as held:
        with tree.opened_directory(held.path, follow_symlinks=True) as data:
            yield data


@contextmanager
def _shared_image(store: VolumeStore, volume: Volume) -> Iterator[int | None]:
    """An open file that has no name and shares all contents of the volume's image; None where it
    has none, someone uses it, or the filesystem cannot.
    """
    image, fd = volume_mounting.image_of(store, volume), None
    if image is not None:
        with store.locked(volume.name):
            store.get(volume.name)
            with suppress(InUseError):  # a shell may stand in it
                # What was written is all in the file once it is mounted nowhere.
                if volume_mounting.unmount_idle(store, volume.name):
                    fd = _twin(image)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _twin(image: Path) -> int | None:
    source = os.open(image, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        twin = os.open(image.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            ioctl.clone_file(source, twin)
        except BaseException:
            os.close(twin)
            raise
    except OSError:
        return None  # then its files are copied
    finally:
        os.close(source)
    return twin


def _put_image(store: VolumeStore, twin: int | None, new: Volume) -> bool:
    """Whether the source's image could take the place of the empty one that the new volume has;
    it has none where there are quotas now.
    """
    image = volume_mounting.image_of(store, new)
    if image is None or twin is None:
        return False
    with tree.opened_directory(image.parent) as directory:
        # The empty one may still have a loop device, which is about to go.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(IMPORT, flags, 0o600, dir_fd=directory)
        try:
            ioctl.clone_file(twin, fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(IMPORT, image.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    return True


def _bring(store: VolumeStore, old: Volume, source: int, new: Volume, say: Say | None) -> None:
    """Put what is in the directory *source* into the new volume."""
    if say is not None and (place := [option for option in _PLACE if option in old.options]):
        say(
            f"the files of {old.name} are mounted from {old.options.get('device')}, and those of"
            f" {new.name} will lie in the store: it does not get the options {', '.join(place)}"
        )
    with volume_mounting.hold(store, new) as held:
        if held.path == store.data(new.name) and _snapshot(store, source, new):
            return
        with tree.opened_directory(held.path, follow_symlinks=True) as target:
            _copy(store, old, source, target, say)


def _snapshot(store: VolumeStore, source: int, new: Volume) -> bool:
    """Whether the new volume's data directory could be made a snapshot of the source."""
    if os.fstat(source).st_ino != btrfs.ROOT_INODE:
        return False
    directory = store.directory(new.name)
    with tree.opened_directory(directory) as fd:
        try:
            # A nested subvolume would be empty in the snapshot; its files can be copied.
            if btrfs.nested_subvolumes(source):
                return False
            btrfs.create_snapshot(source, fd, IMPORT, read_only=False)
        except OSError as error:
            if error.errno not in _CANNOT_SNAPSHOT:
                raise
            return False
        store.driver_for(new.driver).limit(new, Path(directory, IMPORT))
        volume_content.exchange(fd)
    volume_content.settle_exchange(directory)
    return True


def _why(store: VolumeStore, old: Volume) -> str:
    image = volume_mounting.image_of(store, old)
    if image is not None and (twin := _twin(image)) is not None:
        os.close(twin)
        return f"volume {old.name} is in use, and only as a whole could it share them"
    return f"the filesystem of {store.layers.root} cannot share them between two files"


def _copy(store: VolumeStore, old: Volume, source: int, target: int, say: Say | None) -> None:
    if say is not None and not _can_share(source, target):
        size = tree.measure_tree(f"/proc/self/fd/{source}/.").bytes
        say(f"{size} bytes are copied: {_why(store, old)}")
    try:
        copy.copy_tree(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}")
    except OSError as error:
        if error.errno not in _CHANGED:
            raise
        raise VolumeError(
            f"{error.filename!r} went away while it was copied",
            resolution="stop what writes to the volume, and try again",
        ) from error
    syscalls.syncfs(target)


def _can_share(source: int, target: int) -> bool:
    """Whether files in the directory *target* can share contents with those below *source*."""
    with _some_file(source) as file:
        if file is None:
            return True
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        name = f".storagedrivers-{os.urandom(8).hex()}"
        fd = os.open(name, flags, 0o600, dir_fd=target)
        try:
            ioctl.clone_file(file, fd)
        except OSError:
            return False
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=target)
    return True


@contextmanager
def _some_file(top: int) -> Iterator[int | None]:
    """A regular file below *top* that holds something, open; None where there is none."""
    pending = [""]
    while pending:
        path = pending.pop()
        with tree.opened_below(top, path) as directory, os.scandir(directory) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(below)
                elif entry.is_file(follow_symlinks=False) and entry.stat().st_size:
                    fd = tree.open_file_below(top, os.fsencode(below))
                    try:
                        yield fd
                    finally:
                        os.close(fd)
                    return
    yield None
