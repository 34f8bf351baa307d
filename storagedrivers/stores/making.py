"""How layers come to be: a row, the driver's directory, what a tar brings, the disk, then ready."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from storagedrivers.errors import (
    DepthExceededError,
    NotFoundError,
    StorageDriversError,
    StoreError,
)
from storagedrivers.linux import syscalls
from storagedrivers.linux.mount import open_view
from storagedrivers.model import Limits, Unpacked
from storagedrivers.stores import records
from storagedrivers.stores.records import Durability, Layer

if TYPE_CHECKING:
    from storagedrivers.driver import StorageDriver
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease

MAX_DEPTH = 128
"""Layers in a chain: what is not found is looked up in each (95 µs at 128, 392 µs at 500)."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # 32 characters that are not mistaken for others
_ID_LENGTH = 26
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class NewRow(NamedTuple):
    """What the row of a layer that is being made says.

    Attributes:
        writable, held, role: see :class:`Layer`.
        lease: has it.
        waits: it is on the disk before the driver is touched, so a power loss leaves nothing that
            has no row. Else ``gc`` would find it.
    """

    writable: bool
    held: bool = True
    lease: Lease | None = None
    role: str = ""
    waits: bool = True


class New(NamedTuple):
    """A layer that is being made."""

    id: str
    driver: StorageDriver
    lowers: tuple[str, ...]


def new_id() -> str:
    """A random layer id: 130 bits."""
    return "".join(_ALPHABET[byte & 31] for byte in os.urandom(_ID_LENGTH))


def chain_id(below: Layer | None, diff_id: str) -> str | None:
    """As in the OCI image spec; None where the chain below has none."""
    if below is None:
        return diff_id
    if below.chain_id is None:
        return None
    return f"sha256:{hashlib.sha256(f'{below.chain_id} {diff_id}'.encode()).hexdigest()}"


def check_digest(digest: str) -> str:
    """Return *digest* if it is one.

    Raises:
        StoreError: it is not ``sha256:`` and 64 hexadecimal digits.
    """
    if not _DIGEST.fullmatch(digest):
        raise StoreError(
            f"{digest!r} is no digest", resolution="a digest is sha256: and 64 hexadecimal digits"
        )
    return digest


@contextmanager
def creating(store: LayerStore, below: Layer | None, row: NewRow) -> Iterator[New]:
    """A new row with its lock, its driver and its lowers; when the block fails, nothing stays.

    Raises:
        DepthExceededError: the chain is too long.
        StoreError: another driver than the parent's was asked for.
    """
    driver = store.driver_for(_driver_above(store, below))
    depth = 1 if below is None else below.depth + 1
    if depth > MAX_DEPTH:
        raise DepthExceededError(
            f"the chain would have {depth} layers, and {MAX_DEPTH} is the limit",
            resolution="merge layers, or rebuild the image with fewer",
        )
    new = New(new_id(), driver, () if below is None else (below.id, *store.lowers(below.id)))
    with store.locked(new.id):
        try:
            _insert(store, new, depth, row)
            yield new
        except BaseException:
            # What cannot be cleaned now (a full disk) is finished by the next who opens. What is
            # ready already may be someone's.
            with suppress(OSError, StorageDriversError):
                found = records.by_id(store.database, new.id)
                if found is not None and found.state is not records.LayerState.READY:
                    store.discard(new.id)
            raise


def _driver_above(store: LayerStore, below: Layer | None) -> str:
    if below is None or below.driver == store.driver:
        return store.driver
    if store.pinned:
        raise StoreError(
            f"{store.driver} was asked for, and layer {below.id} is one of {below.driver}:"
            " a chain is of one driver",
            resolution=f"add the layers below with {store.driver} too, or ask for no driver",
        )
    return below.driver


def _insert(store: LayerStore, new: New, depth: int, row: NewRow) -> None:
    parent = new.lowers[0] if new.lowers else None
    with store.database.transaction(durable=row.waits) as connection:
        if parent is not None:
            records.require_ready(connection, parent)
        connection.execute(
            "INSERT INTO layers"
            " (id, parent, driver, state, writable, created, depth, durable, held, role)"
            " VALUES (?, ?, ?, 'creating', ?, ?, ?, 0, ?, ?)",
            (new.id, parent, new.driver.name, row.writable, time.time(), depth, row.held, row.role),
        )
        if row.lease is not None:
            row.lease.note(new.id, connection)


def publish(
    store: LayerStore,
    layer: str,
    driver: StorageDriver,
    durability: Durability,
    *,
    unpacked: Unpacked | None = None,
    chain: str | None = None,
) -> str:
    """Bring what the layer has to the disk, then say that it is ready; or sealed, if it was ready.

    Returns:
        The id of the layer that counts: another one, if that was ready first with the same chain.
    """
    durable = durability is Durability.LAYER
    flushed = flush(store, driver) if durable else []
    with store.database.transaction() as connection:
        if chain is not None:
            row = connection.execute(
                "SELECT id FROM layers WHERE chain_id = ? AND driver = ? AND state = 'ready'"
                " AND id != ?",
                (chain, driver.name, layer),
            ).fetchone()
            if row is not None:
                connection.execute("UPDATE layers SET state = 'removing' WHERE id = ?", (layer,))
                return str(row[0])
        if unpacked is not None:
            records.describe(connection, layer, unpacked, chain)
        # One that was ready, and is published again, has been sealed.
        connection.execute(
            "UPDATE layers SET writable = (writable AND state = 'creating'), durable = ?,"
            " state = 'ready' WHERE id = ?",
            (durable, layer),
        )
        records.set_durable(connection, flushed)
    return layer


def sync_all(store: LayerStore) -> None:
    """Bring every layer that is not durable to the disk."""
    query = "SELECT DISTINCT driver FROM layers WHERE durable = 0 AND state = 'ready'"
    for (name,) in store.database.rows(query):
        flushed = flush(store, store.driver_for(name))
        with store.database.transaction() as connection:
            records.set_durable(connection, flushed)


def flush(store: LayerStore, driver: StorageDriver) -> list[str]:
    """Sync the filesystems of the driver's home and of the graph root.

    One syncfs costs a fifth of syncing a layer's files one by one, but for what others have dirty.

    Returns:
        The layers that were ready before, and have reached the disk with it.
    """
    query = "SELECT id FROM layers WHERE durable = 0 AND state = 'ready' AND driver = ?"
    rows = store.database.rows(query, driver.name)
    devices = set()
    for directory in (driver.home, store.root):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            device = os.fstat(fd).st_dev
            if device not in devices:
                syscalls.syncfs(fd)
                devices.add(device)
        finally:
            os.close(fd)
    return [row[0] for row in rows]


class Addition:
    """One tar that becomes a layer."""

    def __init__(
        self,
        store: LayerStore,
        below: Layer | None,
        *,
        diff_id: str | None,
        digest: str | None,
        limits: Limits,
        durability: Durability,
        progress: Callable[[int], object] | None,
        held: bool = True,
        lease: Lease | None = None,
    ) -> None:
        self._store = store
        self._below = below
        self._held = held
        self._lease = lease
        self._diff_id = None if diff_id is None else check_digest(diff_id)
        self._digest = None if digest is None else check_digest(digest)
        self._limits = limits
        self._durability = durability
        self._progress = progress

    def run(self, stream: BinaryIO, *, timeout: float) -> Layer:
        """Add it, or find it: only one of several processes does the work."""
        chain = None if self._diff_id is None else chain_id(self._below, self._diff_id)
        if chain is None:
            return self._make(stream)
        if (layer := self._ready(chain)) is not None:
            with suppress(NotFoundError):  # someone has begun to remove it: it is made again
                return self._found(layer)
        driver = _driver_above(self._store, self._below)
        name = f"chain-{driver}-{chain.partition(':')[2]}"
        with self._store.locked(name, what=f"the chain {chain}", timeout=timeout):
            layer = self._ready(chain)
            return self._make(stream) if layer is None else self._found(layer)

    def _found(self, layer: Layer) -> Layer:
        """One that is there is wanted by one more, and may have been added with less durability
        than is asked for now.
        """
        if self._lease is not None or (self._held and not layer.held):
            with self._store.database.transaction(durable=self._held) as connection:
                records.require_ready(connection, layer.id)
                if self._lease is not None:
                    self._lease.note(layer.id, connection)
                if self._held:
                    connection.execute("UPDATE layers SET held = 1 WHERE id = ?", (layer.id,))
            layer = self._store.get(layer.id)
        return self._on_the_disk(layer)

    def _on_the_disk(self, layer: Layer) -> Layer:
        if layer.durable or self._durability is not Durability.LAYER:
            return layer
        sync_all(self._store)
        return self._store.get(layer.id)

    def _ready(self, chain: str) -> Layer | None:
        driver = _driver_above(self._store, self._below)
        where = "WHERE chain_id = ? AND driver = ? AND state = 'ready' LIMIT 1"
        found = records.find(self._store.database, where, chain, driver)
        return found[0] if found else None

    def _make(self, stream: BinaryIO) -> Layer:
        store = self._store
        row = NewRow(writable=False, held=self._held, lease=self._lease)
        with creating(store, self._below, row) as new:
            new.driver.create(new.id, new.lowers)
            unpacked = self._unpack(stream, new)
            new.driver.seal_new(new.id, new.lowers)
            chain = chain_id(self._below, unpacked.diff_id)
            used = publish(
                store, new.id, new.driver, self._durability, unpacked=unpacked, chain=chain
            )
            if used != new.id:
                store.discard(new.id)
        if used != new.id:
            return self._found(store.get(used))
        return self._on_the_disk(store.get(used))

    def _unpack(self, stream: BinaryIO, new: New) -> Unpacked:
        from storagedrivers.archive.unpack import unpack

        directory = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with ExitStack() as stack:

            def opened(fd: int) -> int:
                stack.callback(os.close, fd)
                return fd

            lower_fd = None
            if new.lowers:
                mounts = new.driver.mounts(new.lowers[0], new.lowers[1:], read_only=True)
                lower_fd = opened(open_view(mounts))
            changeset = new.driver.changeset(new.id)
            if changeset is None:
                mounts = new.driver.mounts(new.id, new.lowers, read_only=False)
                target_fd = opened(open_view(mounts))
            else:
                target_fd = opened(os.open(changeset.path, directory))
            return unpack(
                stream,
                target_fd,
                lower_fd=lower_fd,
                whiteouts=None if changeset is None else changeset.whiteouts,
                kept=store_kept(self._store, new.id),
                diff_id=self._diff_id,
                digest=self._digest,
                limits=self._limits,
                progress=self._progress,
            )


def store_kept(store: LayerStore, layer: str) -> str:
    """The path for the headers of a layer's tar, in a directory that is there."""
    path = store.kept_path(layer)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return path
