"""Layers: a row, a directory of a driver, and the headers of the tar that it came from.

::

    <graph root>/storagedrivers.db       the rows; what a row says is true
    <graph root>/<driver>/<layer id>/    the driver's
    <graph root>/tars/<layer id>         headers of the tar, to give the same bytes again
    <graph root>/tars/<layer id>.payload payload that the directory does not hold byte for byte
    <graph root>/locks/                  see :mod:`storagedrivers.stores.locks`

A layer is ``creating`` before the driver is touched, ``ready`` once its bytes are on the disk, and
``removing`` before the driver deletes it. Who creates or removes one holds its lock, so a row that
is not ready and whose lock is free belongs to a process that died: :meth:`LayerStore.recover`
finishes it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.errors import (
    InUseError,
    NotFoundError,
    ReadOnlyError,
    StorageDriversError,
    StoreError,
)
from storagedrivers.model import Change, Limits, check_layer_id, is_layer_id
from storagedrivers.stores import records
from storagedrivers.stores.database import Database
from storagedrivers.stores.records import Durability, Layer, LayerState

if TYPE_CHECKING:
    from storagedrivers.driver import StorageDriver
    from storagedrivers.stores.content import Opened
    from storagedrivers.stores.mounts import MountRecord, MountTable

__all__ = ["Durability", "Layer", "LayerState", "LayerStore"]

TIMEOUT = 60.0
"""Seconds to wait for another process that works on the same layer."""

ADD_TIMEOUT = 600.0
"""Seconds to wait for another process that adds the same layer, which may come from far away."""

_NAMED = 5  # how many of a longer list an error names


class LayerStore:
    """The layers of one store.

    A reference to a layer is its id, the beginning of it, its DiffID or its ChainID.

    Example:
        >>> again = storage.layers.add(io.BytesIO(tar.read_bytes()))
        >>> top = storage.layers.create(again.id)
        >>> again.id == layer.id, storage.layers.lowers(top.id) == (layer.id,)
        (True, True)

    Args:
        database: the store's.
        run_root: where layers are mounted.
        driver_for: gives the driver object of a name, with its home in this store.
        driver: what new base layers are made with.
        pinned: *driver* was asked for: no other is used for new layers.
        durability: whether a new layer has reached the disk when it is ready.
    """

    def __init__(
        self,
        database: Database,
        run_root: str | os.PathLike[str],
        driver_for: Callable[[str], StorageDriver],
        *,
        driver: str,
        pinned: bool = False,
        durability: str = Durability.LAYER,
    ) -> None:
        self.database = database
        self.root = database.root
        self.driver_for = driver_for
        self.driver = driver
        self.problems: list[str] = []
        self._run_root = os.fspath(run_root)
        self.pinned = pinned
        self._durability = Durability(durability)
        self._mounts: MountTable | None = None

    # Finding

    def ls(self) -> list[Layer]:
        """The layers that are ready, the oldest first."""
        return records.find(self.database, "WHERE state = 'ready' ORDER BY number")

    def get(self, reference: str) -> Layer:
        """The layer that *reference* means.

        Raises:
            NotFoundError: none, or several; then they are named.
        """
        found = self._candidates(reference)
        if len(found) > 1:
            found = [layer for layer in found if layer.driver == self.driver] or found
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFoundError(f"there is no layer {reference!r}")
        names = ", ".join(layer.id for layer in found[:_NAMED])
        more = " and others" if len(found) > _NAMED else ""
        raise NotFoundError(
            f"{reference!r} can mean several layers: {names}{more}",
            resolution="say more of the id",
        )

    def _candidates(self, reference: str) -> list[Layer]:
        limit = f"LIMIT {_NAMED + 1}"
        if not reference.isascii():  # a word in bytes that are no UTF-8 is nothing for SQLite
            return []
        if ":" in reference:
            for column in ("chain_id", "diff_id"):
                where = f"WHERE {column} = ? AND state = 'ready' ORDER BY number {limit}"
                if found := records.find(self.database, where, reference):
                    return found
            return []
        layer = records.by_id(self.database, reference)
        if layer is not None:
            return [layer] if layer.state is LayerState.READY else []
        if not (reference and is_layer_id(f"{reference}x")):
            return []
        # Every character of an id comes before "{".
        where = f"WHERE id >= ? AND id < ? AND state = 'ready' {limit}"
        return records.find(self.database, where, reference, reference + "{")

    def lowers(self, layer: str) -> tuple[str, ...]:
        """The ids of the layers below the one with this id, nearest first."""
        return records.chain(self.database, layer)[1:]

    def children(self, layer: str) -> list[str]:
        """The ids of the layers right above the one with this id."""
        rows = self.database.rows("SELECT id FROM layers WHERE parent = ?", layer)
        return [row[0] for row in rows]

    def kept_path(self, layer: str) -> str:
        """The file with the headers of the layer's tar; not every layer has one."""
        return os.path.join(self.root, "tars", check_layer_id(layer))

    # Adding

    def add(
        self,
        stream: BinaryIO,
        *,
        parent: str | None = None,
        diff_id: str | None = None,
        digest: str | None = None,
        limits: Limits | None = None,
        durability: str | None = None,
        progress: Callable[[int], object] | None = None,
        timeout: float = ADD_TIMEOUT,
    ) -> Layer:
        """Make a sealed layer of a tar; the same one above the same parent is there once only.

        Args:
            stream: the tar, plain or compressed.
            parent: reference to the layer below.
            diff_id: expected digest of the tar. Then a layer that is there is returned without
                reading the stream, and one that another process is adding is waited for.
            digest: expected digest of the bytes of the stream.
            limits: what the tar may hold at most.
            durability: ``layer`` or ``none``, instead of the store's.
            progress: gets the number of bytes read so far.
            timeout: seconds to wait for another process that adds the same layer.

        Raises:
            DiffError: the tar is no good; nothing of it is left.
            NotFoundError: there is no such parent.
            LockTimeoutError: another process took too long; names it.
        """
        from storagedrivers.stores.making import Addition

        addition = Addition(
            self,
            None if parent is None else self._parent(parent),
            diff_id=diff_id,
            digest=digest,
            limits=limits or Limits(),
            durability=self._durable(durability),
            progress=progress,
        )
        return addition.run(stream, timeout=timeout)

    def create(
        self, parent: str | None = None, *, size: int | None = None, durability: str | None = None
    ) -> Layer:
        """Make an empty writable layer.

        Args:
            parent: reference to the layer below.
            size: a limit in bytes for what is written to it.
            durability: ``layer`` or ``none``, instead of the store's.

        Raises:
            NotFoundError: there is no such parent.
            DepthExceededError: the chain is too long.
            DriverUnsupportedError: the driver has no limits.
        """
        from storagedrivers.stores import making

        below = None if parent is None else self._parent(parent)
        with making.creating(self, below, writable=True) as new:
            new.driver.create(new.id, new.lowers, size=size)
            making.publish(self, new.id, new.driver, self._durable(durability))
        return self.get(new.id)

    def seal(self, reference: str, *, durability: str | None = None) -> Layer:
        """Make a layer read-only for good; one that is already stays as it is.

        Raises:
            InUseError: it is mounted, or something may still write to it.
        """
        from storagedrivers.stores import making

        layer = self.get(reference).id
        with self.locked(layer, leave=(OSError,)):  # a full disk: the layer may be sealed by then
            found = self.get(layer)
            if not found.writable:
                return found
            self._refuse_mounted(found)
            driver = self.driver_for(found.driver)
            driver.seal(layer, self.lowers(layer))
            making.publish(self, layer, driver, self._durable(durability))
        return self.get(layer)

    def _durable(self, durability: str | None) -> Durability:
        return self._durability if durability is None else Durability(durability)

    def _parent(self, reference: str) -> Layer:
        layer = self.get(reference)
        if layer.writable:
            raise StoreError(
                f"layer {layer.id} is writable, and layers lie above sealed ones only",
                resolution="seal it first",
            )
        return layer

    def sync(self) -> None:
        """Bring every layer that is not durable to the disk."""
        from storagedrivers.stores import making

        making.sync_all(self)

    # Removing

    def remove(self, reference: str, *, timeout: float = TIMEOUT) -> None:
        """Remove a layer.

        Raises:
            InUseError: layers lie above it, or it is mounted; names them.
        """
        layer = self.get(reference)
        with self.locked(layer.id, timeout=timeout):
            self._refuse_mounted(layer)
            with self.database.transaction() as connection:
                records.require_ready(connection, layer.id)
                rows = connection.execute(
                    f"SELECT id FROM layers WHERE parent = ? LIMIT {_NAMED + 1}", (layer.id,)
                ).fetchall()
                if rows:
                    raise InUseError(
                        f"layer {layer.id} has layers above it: {_some([row[0] for row in rows])}",
                        resolution="remove those first",
                    )
                connection.execute("UPDATE layers SET state = 'removing' WHERE id = ?", (layer.id,))
            self._refuse_living_upper(layer)
            self.discard(layer.id)

    def _refuse_mounted(self, layer: Layer) -> None:
        if not self.database.row("SELECT 1 FROM mounts WHERE layer = ?", layer.id):
            return
        if living := self.mount_table.living(layer.id):
            raise InUseError(
                f"layer {layer.id} is mounted at {_some([record.path for record in living])}",
                resolution=f"unmount it: storagedrivers layer unmount {layer.id}",
            )
        self.mount_table.forget_points(layer.id)

    def _refuse_living_upper(self, layer: Layer) -> None:
        """A namespace that took a copy of the mount along may still write to the layer."""
        if not layer.writable:
            return
        row = self.database.row("SELECT used FROM layers WHERE id = ?", layer.id)
        if row is None or not row[0]:
            return
        # Sealing proves it. Its row says already that it goes, so who dies in between leaves no
        # writable layer that is sealed.
        try:
            self.driver_for(layer.driver).seal(layer.id, self.lowers(layer.id))
        except (StorageDriversError, OSError) as error:
            if not isinstance(error, InUseError) and _does_not_matter(error):
                return
            with self.database.transaction() as connection:
                connection.execute("UPDATE layers SET state = 'ready' WHERE id = ?", (layer.id,))
            raise

    def discard(self, layer: str) -> None:
        """Remove what a layer has on the disk, then its row; whoever calls holds its lock."""
        from storagedrivers.archive import PAYLOAD_SUFFIX
        from storagedrivers.linux import tree

        found = records.by_id(self.database, layer)
        if found is None:
            return
        driver = self.driver_for(found.driver)
        driver.remove(layer)
        kept = self.kept_path(layer)
        for path in (kept, kept + PAYLOAD_SUFFIX):
            with suppress(FileNotFoundError):
                os.unlink(path)
        # The row must not be gone before the directory is: syncing the database alone does not
        # bring a removal to the disk (ext4 commits its journal only for what the file needs).
        with suppress(FileNotFoundError), tree.opened_directory(driver.home) as home:
            os.fsync(home)
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM mounts WHERE layer = ?", (layer,))
            connection.execute("DELETE FROM layers WHERE id = ?", (layer,))

    # Mounting

    @property
    def mount_table(self) -> MountTable:
        """The mounts of this store, below its run root."""
        if self._mounts is None:
            from storagedrivers.stores.mounts import MountTable

            self._mounts = MountTable(self.database, self._run_root)
        return self._mounts

    def mounts(self, reference: str | None = None) -> list[MountRecord]:
        """The mounts of one layer or of all, each looked at."""
        return self.mount_table.living(None if reference is None else self.get(reference).id)

    def mount(self, reference: str, *, read_only: bool = True, timeout: float = TIMEOUT) -> Path:
        """Mount a layer above those below it; what is mounted already is counted once more.

        Raises:
            ReadOnlyError: it is sealed and was to be writable.
            InUseError: it is mounted in another way.
            MountError: the kernel refused.
        """
        layer = self.get(reference)
        if not (read_only or layer.writable):
            raise ReadOnlyError(
                f"layer {layer.id} is sealed",
                resolution=f"create a layer above it: storagedrivers layer create {layer.id}",
            )
        driver = self.driver_for(layer.driver)
        with self.locked(layer.id, timeout=timeout):
            return self.mount_table.mount(
                layer.id,
                lambda: driver.mounts(layer.id, self.lowers(layer.id), read_only=read_only),
                read_only=read_only,
            )

    def unmount(self, reference: str, *, timeout: float = TIMEOUT) -> bool:
        """Take one mount back; says whether that was the last, so that the layer is unmounted.

        Raises:
            NotFoundError: it is not mounted.
            InUseError: something uses the mount; names it.
        """
        layer = self.get(reference).id
        with self.locked(layer, timeout=timeout):
            return self.mount_table.unmount(layer)

    @contextmanager
    def mounted(self, reference: str, *, read_only: bool = True) -> Iterator[Path]:
        """Have a layer mounted for the length of a ``with`` block.

        Example:
            >>> with storage.layers.mounted(layer.id) as path:
            ...     print((path / "etc/motd").read_text(), end="")
            hello
        """
        layer = self.get(reference).id
        path = self.mount(layer, read_only=read_only)
        try:
            yield path
        finally:
            self.unmount(layer)

    # Content

    def opened(self, layer: Layer, *, alone: bool = False) -> AbstractContextManager[Opened]:
        """The layer's content as open directories; nothing is mounted where others see it.

        Args:
            alone: without the layers below.
        """
        from storagedrivers.stores import content

        return content.opened(self, layer, alone=alone)

    def changes(self, reference: str) -> Iterator[Change]:
        """What is different in a layer from what lies below it; the root's path is empty.

        Example:
            >>> [(str(one.kind), one.path) for one in storage.layers.changes(layer.id)]
            [('A', b''), ('A', b'etc'), ('A', b'etc/motd')]
        """
        from storagedrivers.archive.changes import changes

        with self.opened(self.get(reference)) as opened:
            yield from changes(*opened)

    def export(self, reference: str, write: Callable[[bytes | memoryview], object]) -> str:
        """Write a layer's tar: the same bytes that came in, or else a canonical one.

        Example:
            >>> out = io.BytesIO()
            >>> storage.layers.export(layer.id, out.write) == layer.diff_id
            True

        Returns:
            The DiffID of what was written.

        Raises:
            CorruptStoreError: what was written is not what the layer's DiffID stands for.
        """
        from storagedrivers.stores.content import export

        return export(self, self.get(reference), write)

    def compute_diff_id(self, reference: str) -> str:
        """The DiffID of a sealed layer; one that is not known yet is computed and remembered."""
        from storagedrivers.stores.content import compute_diff_id

        return compute_diff_id(self, self.get(reference))

    # Looking after

    def recover(self) -> None:
        """Finish what processes that were killed have begun. Costs nothing where nothing is."""
        unfinished = self.database.rows("SELECT id FROM layers WHERE state != 'ready'")
        names = [row[0] for row in unfinished]
        with suppress(FileNotFoundError):
            names += os.listdir(self.lock_path(""))
        if names:
            from storagedrivers.stores import recovery

            for name in dict.fromkeys(names):
                recovery.finish(self, name)

    @contextmanager
    def locked(
        self,
        name: str,
        *,
        what: str | None = None,
        timeout: float = TIMEOUT,
        leave: tuple[type[BaseException], ...] = (),
    ) -> Iterator[None]:
        """Hold the lock of a layer, or another of this store.

        Args:
            name: the layer's id, or of the other lock.
            what: what is locked, for the sentence of the error.
            timeout: seconds to wait for others.
            leave: failures after which :meth:`recover` has something to finish.

        Raises:
            LockTimeoutError: someone else had it all the time; names the process.
        """
        from storagedrivers.stores import locks

        if self.database.read_only:
            raise ReadOnlyError(f"the store at {self.root} was opened for reading only")
        what = what or f"layer {name}"
        with locks.locked(self.lock_path(name), what, timeout=timeout, leave=leave):
            yield

    def lock_path(self, name: str) -> str:
        """The file of a lock."""
        return os.path.join(self.root, "locks", name)


def _does_not_matter(error: StorageDriversError | OSError) -> bool:
    """Whether what kept a layer from being sealed says nothing of who uses it: a full disk above
    all, which removal makes better.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    return error.errno in full if isinstance(error, OSError) else isinstance(error, StoreError)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")
