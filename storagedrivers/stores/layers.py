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

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.errors import InUseError, ReadOnlyError, StoreError
from storagedrivers.model import Change, Limits, check_layer_id
from storagedrivers.stores import records
from storagedrivers.stores.database import Database
from storagedrivers.stores.records import Durability, Layer, LayerState

if TYPE_CHECKING:
    from storagedrivers.driver import StorageDriver
    from storagedrivers.stores.content import Opened
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.mounts import MountRecord, MountTable
    from storagedrivers.stores.removing import Reclaimer

__all__ = ["Durability", "Layer", "LayerState", "LayerStore"]

TIMEOUT = 60.0
"""Seconds to wait for another process that works on the same layer."""

ADD_TIMEOUT = 600.0
"""Seconds to wait for another process that adds the same layer, which may come from far away."""


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
        self.root, self.driver_for = database.root, driver_for
        self.driver = driver
        self.problems: list[str] = []
        self.run_root = os.fspath(run_root)
        self.pinned = pinned
        self._durability = Durability(durability)
        self._mounts: MountTable | None = None
        self._reclaimer: Reclaimer | None = None

    # Finding

    def ls(self) -> list[Layer]:
        """The layers that are ready, the oldest first."""
        return records.find(self.database, "WHERE state = 'ready' ORDER BY number")

    def get(self, reference: str) -> Layer:
        """The layer that *reference* means.

        Raises:
            NotFoundError: none, or several; then they are named.
        """
        return records.find_one(self.database, reference, preferred=self.driver)

    def lowers(self, layer: str) -> tuple[str, ...]:
        """The ids of the layers below the one with this id, nearest first."""
        return records.chain(self.database, layer)[1:]

    def image_layers(self, layer: str | None) -> tuple[Layer, ...]:
        """The layers whose DiffIDs are an image's: those of a chain, without what is there for
        containers only, the lowest first.

        Args:
            layer: the id of the topmost one; None for an image without layers.
        """
        chain = [] if layer is None else records.chain_layers(self.database, layer)
        return tuple(one for one in reversed(chain) if not one.role)

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
        held: bool = True,
        lease: Lease | None = None,
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
            held: it is wanted for its own sake; else it goes with the last that refers to it.
            lease: keeps it until something does.

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
            durability=self.durable(durability),
            progress=progress,
            held=held,
            lease=lease,
        )
        return addition.run(stream, timeout=timeout)

    def create(
        self,
        parent: str | None = None,
        *,
        size: int | None = None,
        durability: str | None = None,
        held: bool = True,
        lease: Lease | None = None,
        role: str = "",
    ) -> Layer:
        """Make an empty writable layer.

        Args:
            parent: reference to the layer below.
            size: a limit in bytes for what is written to it.
            durability: ``layer`` or ``none``, instead of the store's.
            held: it is wanted for its own sake; else it goes with the last that refers to it.
            lease: keeps it until something does.
            role: what it is besides a layer, see :class:`Layer`.

        Raises:
            NotFoundError: there is no such parent.
            DepthExceededError: the chain is too long.
            DriverUnsupportedError: the driver has no limits.
        """
        from storagedrivers.stores import making

        below = None if parent is None else self._parent(parent)
        row = making.NewRow(writable=True, held=held, lease=lease, role=role)
        with making.creating(self, below, row) as new:
            new.driver.create(new.id, new.lowers, size=size)
            making.publish(self, new.id, new.driver, self.durable(durability))
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
            self.refuse_mounted(found)
            driver = self.driver_for(found.driver)
            driver.seal(layer, self.lowers(layer))
            making.publish(self, layer, driver, self.durable(durability))
        return self.get(layer)

    def durable(self, durability: str | None) -> Durability:
        """What was asked for, or else what this store does."""
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
            InUseError: layers lie above it, an image or a container has it, or it is mounted; names
                them.
        """
        from storagedrivers.stores import removing

        removing.remove(self, self.get(reference), timeout=timeout)

    def release(self, layer: str, *, later: bool = False) -> list[str]:
        """Remove a layer that nobody wants for its own sake if nothing refers to it any more, then
        the one below it likewise, and so on.

        Args:
            layer: its id.
            later: it is gone at once for everyone, and a thread deletes the files; :meth:`close`
                waits for it.

        Returns:
            The ids of those that are gone; with *later* only the first is looked at.

        Raises:
            InUseError: it is mounted, or something may still write to it.
        """
        from storagedrivers.stores import removing

        return removing.release(self, layer, later=later)

    def leased(self) -> Lease:
        """A context manager; the layers that are added or created with it stay until its end."""
        from storagedrivers.stores.leases import Lease

        return Lease(self)

    @property
    def reclaimer(self) -> Reclaimer:
        """What deletes files in a thread."""
        if self._reclaimer is None:
            from storagedrivers.stores.removing import Reclaimer

            self._reclaimer = Reclaimer()
        return self._reclaimer

    def close(self) -> None:
        """Wait for what is being deleted."""
        if self._reclaimer is not None:
            self._reclaimer.wait()

    def is_mounted(self, layer: str) -> bool:
        """Whether the layer with this id is mounted anywhere."""
        if not self.database.row("SELECT 1 FROM mounts WHERE layer = ?", layer):
            return False
        return bool(self.mount_table.living(layer))

    def refuse_mounted(self, layer: Layer) -> None:
        """Whoever calls holds the layer's lock.

        Raises:
            InUseError: it is mounted.
        """
        if not self.database.row("SELECT 1 FROM mounts WHERE layer = ?", layer.id):
            return
        if living := self.mount_table.living(layer.id):
            raise InUseError(
                f"layer {layer.id} is mounted at {', '.join(record.path for record in living)}",
                resolution=f"unmount it: storagedrivers layer unmount {layer.id}",
            )
        self.mount_table.forget_points(layer.id)

    def discard(self, layer: str) -> None:
        """Remove what a layer has on the disk, then its row; whoever calls holds its lock."""
        from storagedrivers.stores import removing

        removing.discard(self, layer)

    # Mounting

    @property
    def mount_table(self) -> MountTable:
        """The mounts of this store, below its run root."""
        if self._mounts is None:
            from storagedrivers.stores.mounts import MountTable

            self._mounts = MountTable(self.database, self.run_root)
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

    def compute_diff_id(self, reference: str, *, source_date_epoch: int | None = None) -> str:
        """The DiffID of a sealed layer; one that is not known yet is computed and remembered.

        Args:
            source_date_epoch: later times in its tar become this one, in seconds, now and whenever
                it is exported; one that is known stays what it is.
        """
        from storagedrivers.stores.content import compute_diff_id

        layer = self.get(reference)
        return compute_diff_id(self, layer, source_date_epoch=source_date_epoch)

    # Looking after

    def recover(self) -> bool:
        """Finish what processes that were killed have begun. Costs nothing where nothing is.

        Returns:
            Whether there may be containers or volumes that were not finished either.
        """
        unfinished = self.database.rows(
            "SELECT id FROM layers WHERE state != 'ready' UNION SELECT name FROM leases"
        )
        names = [row[0] for row in unfinished]
        with suppress(FileNotFoundError):
            names += os.listdir(self.lock_path(""))
        left = bool(
            self.database.row(
                "SELECT 1 FROM containers WHERE state != 'ready'"
                " UNION ALL SELECT 1 FROM volumes WHERE state != 'ready'"
            )
        )
        if names:
            from storagedrivers.stores import leases, locks, recovery

            for name in dict.fromkeys(names):
                if name.startswith((locks.CONTAINER, locks.VOLUME)):
                    left = True
                    continue
                left |= name.startswith(leases.PREFIX)
                if name.isascii():  # anyone may have named a file, as no row can be
                    recovery.finish(self, name)
        return left

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
            raise self.database.refusal()
        what = what or f"layer {name}"
        with locks.locked(self.lock_path(name), what, timeout=timeout, leave=leave):
            yield

    def lock_path(self, name: str) -> str:
        """The file of a lock."""
        return os.path.join(self.root, "locks", name)
