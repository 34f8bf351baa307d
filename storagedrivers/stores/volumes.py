"""Volumes: directories that outlive the containers that use them.

::

    <graph root>/volumes/<name>/         0700
    <graph root>/volumes/<name>/_data    the files; on btrfs a subvolume; a mountpoint where the
                                         volume's driver says so, see volume_mounting.py
    <graph root>/volumes/<name>/_fill    an image's content on its way in, see volume_content.py
    <graph root>/volumes/<name>/image    a filesystem in a file, behind a volume with a size where
                                         nothing else enforces it

A row says ``creating`` until its directories have reached the disk, and ``removing`` before any of
them goes. Which containers use a volume is in rows that are written with those of the containers.
"""

from __future__ import annotations

import os
import time
from _thread import get_ident  # of threading, which costs a start more than a millisecond
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.errors import NotFoundError, VolumeError
from storagedrivers.model import Volume
from storagedrivers.mounts.names import check_volume_name, is_volume_name
from storagedrivers.stores import locks
from storagedrivers.stores import volume_records as records

if TYPE_CHECKING:
    from storagedrivers.archive.output import Write
    from storagedrivers.model import Usage
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.volume_content import Filled
    from storagedrivers.stores.volume_mounting import HeldVolume
    from storagedrivers.volume_driver import VolumeDriver

__all__ = ["Volume", "VolumeStore"]


class VolumeStore:
    """The volumes of one store.

    Args:
        layers: the store's layers.
        driver_for: gives the volume driver of a name.
    """

    def __init__(self, layers: LayerStore, driver_for: Callable[[str], VolumeDriver]) -> None:
        self.layers = layers
        self.database = layers.database
        self.driver_for = driver_for
        self.home = os.path.join(layers.root, "volumes")
        self._held: set[tuple[int, str]] = set()

    # Finding

    def ls(self, *, filters: Sequence[str] = ()) -> list[Volume]:
        """All of them, by name.

        Args:
            filters: ``dangling=true`` (no container uses it) or ``false``, ``name=`` a part of it,
                ``driver=`` its name, ``label=KEY`` or ``label=KEY=VALUE``, ``label!=`` likewise.
                Of one kind any must hold, but of labels all; all kinds must.

        Raises:
            VolumeError: a filter that is none.
        """
        found = records.find(self.database)
        if not filters:
            return found
        from storagedrivers.stores import volume_filters

        lets_through = volume_filters.parse(filters, records.used(self.database))
        return [one for one in found if lets_through(one)]

    def get(self, name: str) -> Volume:
        """The volume of this name.

        Raises:
            NotFoundError: there is none.
        """
        return records.get(self.database, _text(name, "the name of a volume"))

    def users(self, name: str) -> list[str]:
        """The names of the containers that use it, the oldest first."""
        return records.users(self.database, self.get(name).name)

    def directory(self, name: str) -> str:
        """Where it lies, whether it is there or not.

        Raises:
            VolumeError: no volume can have this name.
        """
        return os.path.join(self.home, _checked(name))

    def data(self, name: str) -> str:
        """The directory with its files; where they are mounted only while it is in use."""
        return os.path.join(self.directory(name), "_data")

    def is_empty(self, name: str) -> bool:
        """Whether it holds nothing; a hidden file is something."""
        with self.used(name) as path, os.scandir(path) as entries:
            return next(entries, None) is None

    # Making

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        size: int | None = None,
        anonymous: bool = False,
    ) -> Volume:
        """Make a volume; one that is there is returned as it is.

        Args:
            name: by default 64 hexadecimal digits that chance chooses.
            driver: what makes it.
            labels: what to say of it. One with the label ``keep`` is never pruned.
            options: what the driver takes.
            size: how much it may hold, in bytes.
            anonymous: it is made for one container, which gives it no name.

        Raises:
            VolumeError: no volume can have this name, or these options, or this size.
            AlreadyExistsError: there is one of another driver.
            DriverNotFoundError, DriverLoadError: there is no such driver.
        """
        from storagedrivers.stores import volume_making

        new = Volume(
            os.urandom(32).hex() if name is None else _checked(name),
            _text(driver, "the name of a volume driver"),
            time.time(),
            _texts(labels, "label"),
            _texts(options, "option"),
            _bytes(size),
            anonymous,
        )
        return volume_making.create(self, new)

    # Removing

    def remove(
        self, name: str, *, force: bool = False, say: Callable[[str], object] | None = None
    ) -> None:
        """Remove it with all that it holds.

        Args:
            force: one that is not there is no error, nor one whose driver is not installed any
                more: it is forgotten, and what the driver keeps elsewhere stays.
            say: told in a sentence what stays.

        Raises:
            NotFoundError: there is none.
            DriverNotFoundError, DriverLoadError: its driver is not there.
            InUseError: containers use it, or a process does; names them.
        """
        from storagedrivers.stores import volume_removal

        try:
            volume_removal.remove(self, self.get(name), force=force, say=say)
        except NotFoundError:
            if not force:
                raise

    def prune(
        self,
        *,
        all: bool = False,  # noqa: A002
        dry_run: bool = False,
        filters: Sequence[str] = (),
    ) -> list[Volume]:
        """Remove those that no container uses, but never one with the label ``keep``.

        Args:
            all: also those that someone gave a name.
            dry_run: only say which.
            filters: as for :meth:`ls`.

        Returns:
            Which went, or would.
        """
        from storagedrivers.stores import volume_removal

        return volume_removal.prune(self, all=all, dry_run=dry_run, filters=list(filters))

    # Using

    def hold(self, name: str) -> HeldVolume:
        """Have it mounted as long as the result is not released, and this process lives; nobody
        removes it meanwhile.

        Raises:
            NotFoundError: there is none.
            VolumeError: it cannot be mounted; says why.
        """
        from storagedrivers.stores import volume_mounting

        guarded = not self.database.read_only
        return volume_mounting.hold(self, self.get(name), guarded=guarded)

    @contextmanager
    def used(self, name: str) -> Iterator[Path]:
        """Have its files at a path for the length of a ``with`` block.

        Raises:
            NotFoundError, VolumeError: as :meth:`hold` does.
        """
        with self.hold(name) as held:
            yield Path(held.path)

    # Content

    def fill(self, volume: Volume, source_fd: int, image: str) -> Filled:
        """Copy a directory of an image into a volume that is empty; see
        :mod:`storagedrivers.stores.volume_content`.

        Args:
            source_fd: the open directory.
            image: the image's id, which the volume keeps as its seed.
        """
        from storagedrivers.stores import volume_content

        return volume_content.fill(self, volume, source_fd, image)

    def export(self, name: str, write: Write) -> str:
        """Write all that it holds as a tar.

        Returns:
            The tar's digest.

        Raises:
            NotFoundError: there is none.
        """
        from storagedrivers.stores import volume_archive

        return volume_archive.export(self, name, write)

    def import_(
        self,
        name: str,
        stream: BinaryIO,
        *,
        digest: str | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> Volume:
        """Make a volume of a tar, or have that take the place of what one holds: all or nothing.

        Args:
            digest: what the tar must have.
            warn: told what of it could not be kept, a sentence each.

        Raises:
            DiffError: the tar is no good, or another one.
            InUseError: a container that uses it runs.
        """
        from storagedrivers.stores import volume_archive

        return volume_archive.import_(self, name, stream, digest=digest, warn=warn)

    def clone(
        self, source: str, name: str, *, say: Callable[[str], object] | None = None
    ) -> Volume:
        """Make a volume with what another one holds; where the filesystem can, it costs nothing.

        Args:
            say: told in a sentence what it costs, before anything is copied that cannot be shared;
                and where the files of the source lie elsewhere, that those of the clone do not.

        Raises:
            NotFoundError: there is no such source.
            AlreadyExistsError: the name is taken.
        """
        from storagedrivers.stores import volume_clone

        return volume_clone.clone(self, source, _checked(name), say=say)

    def usage(self, name: str) -> Usage:
        """What its files take, wherever they lie.

        Raises:
            NotFoundError, VolumeError: as :meth:`hold` does.
        """
        from storagedrivers.stores import volume_content

        return volume_content.usage(self, name)

    # Looking after

    @contextmanager
    def locked(self, name: str, *, timeout: float = locks.TIMEOUT) -> Iterator[None]:
        """Hold its lock; the thread that holds it already goes on.

        Nobody prunes or removes it meanwhile, so who makes a container holds the locks of its
        volumes until there are rows that say so; of several, in the order of their names.

        Args:
            timeout: seconds to wait for others.

        Raises:
            LockTimeoutError: someone else had it all the time; names the process.
        """
        if (get_ident(), _text(name, "the name of a volume")) in self._held:
            yield
            return
        try:
            with self.layers.locked(
                f"{locks.VOLUME}{check_volume_name(name)}",
                what=f"volume {name}",
                timeout=timeout,
                leave=(OSError,),  # a full disk: the next who opens the store finishes it
            ):
                with self.holding(name):
                    yield
        except OSError:
            from storagedrivers.stores import volume_removal

            volume_removal.release_left(self, name)
            raise

    def has_lock(self, name: str) -> bool:
        """Whether this thread has the volume's lock."""
        return (get_ident(), name) in self._held

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Within the block this thread has the volume's lock, however it got it."""
        key = (get_ident(), name)
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)

    def lock_path(self, name: str) -> str:
        """The file of its lock."""
        return self.layers.lock_path(f"{locks.VOLUME}{name}")

    def unmount_idle(self) -> list[str]:
        """Unmount what processes that were killed have left mounted; the names of those."""
        from storagedrivers.stores import volume_mounting

        return volume_mounting.unmount_all_idle(self)

    def recover(self) -> None:
        """Finish what processes that were killed have begun; what cannot be finished is noted in
        the store's problems.
        """
        rows = self.database.rows("SELECT name FROM volumes WHERE state != 'ready'")
        names = [row[0] for row in rows]
        with suppress(FileNotFoundError):
            found = os.listdir(self.layers.lock_path(""))
            names += [
                one.removeprefix(locks.VOLUME) for one in found if one.startswith(locks.VOLUME)
            ]
        for name in filter(is_volume_name, dict.fromkeys(names)):  # anyone may have named a file
            from storagedrivers.stores import volume_removal

            volume_removal.finish(self, name)
        self.unmount_idle()


def _checked(name: str) -> str:
    return check_volume_name(_text(name, "the name of a volume"))


def _text(value: object, what: str) -> str:
    """Return *value* if it is a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, Volume):
        raise VolumeError(f"{what} is a text, and not the volume", resolution="give its name")
    raise VolumeError(f"{what} is a text, and not {value!r}", resolution="give a text")


def _texts(pairs: Mapping[str, str] | None, what: str) -> dict[str, str]:
    """A copy of labels or options."""
    if pairs is None:
        return {}
    if not isinstance(pairs, Mapping):
        raise VolumeError(
            f"the {what}s of a volume are a mapping, and not {pairs!r}",
            resolution='write {"name": "value"}',
        )
    return {
        _text(name, f"the name of a {what}"): _text(value, f"the {what} {name!r}")
        for name, value in pairs.items()
    }


def _bytes(size: int | None) -> int | None:
    if size is None or (isinstance(size, int) and not isinstance(size, bool)):
        return size
    raise VolumeError(
        f"the size of a volume is a number of bytes, and not {size!r}",
        resolution="storagedrivers.mounts.sizes.parse_size makes one of a text such as 64m",
    )
