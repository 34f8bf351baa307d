"""What is in a layer: its directories, opened; its tar; its DiffID."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import CorruptStoreError, StoreError
from storagedrivers.linux.mount import open_view
from storagedrivers.model import WhiteoutFormat
from storagedrivers.stores.making import chain_id, check_digest
from storagedrivers.stores.records import Layer, by_id, epoch

if TYPE_CHECKING:
    from storagedrivers.archive.pack import Packed
    from storagedrivers.linux.stage import Prepare
    from storagedrivers.stores.layers import LayerStore


def blob_path(root: str, digest: str) -> str:
    """Where a file of images lies: ``images/sha256/<hex>``.

    Raises:
        StoreError: *digest* is none.
    """
    return os.path.join(root, "images", *check_digest(digest).split(":"))


class Opened(NamedTuple):
    """A layer's content, as :mod:`storagedrivers.archive` takes it.

    Attributes:
        upper_fd: the directory with its changes, or else the merged view of it.
        lower_fd: the merged view of the layers below, or None.
        whiteouts: how the directory says that something is gone; None for a merged view.
    """

    upper_fd: int
    lower_fd: int | None
    whiteouts: WhiteoutFormat | None


@contextmanager
def view(
    store: LayerStore, layer: str, *, read_only: bool = True, prepare: Prepare | None = None
) -> Iterator[int]:
    """Have the root of a layer above those below it open, mounted where no one else sees it.

    Args:
        prepare: gives what mounts more in it, see :mod:`storagedrivers.linux.stage`.
    """
    driver = store.driver_for(store.get(layer).driver)
    mounts = driver.mounts(layer, store.lowers(layer), read_only=read_only)
    if prepare is None:
        fd = open_view(mounts)
    else:
        from storagedrivers.linux import stage

        fd = stage.open_view(mounts, prepare)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened(store: LayerStore, layer: Layer, *, alone: bool = False) -> Iterator[Opened]:
    """See :meth:`LayerStore.opened`."""
    driver = store.driver_for(layer.driver)
    lowers = store.lowers(layer.id)
    with ExitStack() as stack:

        def view(one: str, below: tuple[str, ...]) -> int:
            fd = open_view(driver.mounts(one, below, read_only=True))
            stack.callback(os.close, fd)
            return fd

        changeset = driver.changeset(layer.id)
        lower_fd = view(lowers[0], lowers[1:]) if lowers and not alone else None
        if changeset is None:
            yield Opened(view(layer.id, lowers), lower_fd, None)
        else:
            fd = os.open(changeset.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            yield Opened(fd, lower_fd, changeset.whiteouts)


class _Hashed:
    """Counts and hashes what goes through, beside the writing."""

    def __init__(self, write: Callable[[bytes | memoryview], object] | None) -> None:
        from storagedrivers.archive.source import Hasher

        self._write = write
        self._hasher = Hasher()
        self.size = 0

    def __call__(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        self.size += len(data)
        if self._write is not None:
            self._write(data)

    def digest(self) -> str:
        """Of everything; ends the thread. To be called in any case."""
        return self._hasher.finish()


def export(
    store: LayerStore,
    layer: Layer,
    write: Callable[[bytes | memoryview], object] | None,
    *,
    source_date_epoch: int | None = None,
) -> str:
    """See :meth:`LayerStore.export`; without *write* only the digest is wanted.

    Args:
        source_date_epoch: for one whose DiffID is not known yet: later times become this one.
    """
    diff_id, diff_size, packed = write_tar(store, layer, write, source_date_epoch=source_date_epoch)
    if layer.diff_id is not None and layer.diff_id != diff_id:
        raise CorruptStoreError(
            f"layer {layer.id} is not what came in: its tar was {layer.diff_id},"
            f" and what it holds now gives {diff_id}",
            resolution="storagedrivers check --deep says what changed; then add the layer anew",
        )
    if layer.diff_id is None and not layer.writable and packed is not None:
        _remember(store, layer, diff_id, diff_size, packed, source_date_epoch)
    return diff_id


def write_tar(
    store: LayerStore,
    layer: Layer,
    write: Callable[[bytes | memoryview], object] | None = None,
    *,
    source_date_epoch: int | None = None,
) -> tuple[str, int, Packed | None]:
    """Make the tar of what a layer holds now; the digest and the size of it, and for a canonical
    diff what went into it.

    Args:
        source_date_epoch: later times become this one; with a DiffID those are as it has them.
    """
    if layer.diff_id is not None:
        source_date_epoch = epoch(store.database, layer.id)
    hashed = _Hashed(write)
    packed = None
    kept = store.kept_path(layer.id)
    try:
        if os.path.exists(kept):
            from storagedrivers.archive.kept import reassemble

            with opened(store, layer, alone=True) as content:
                reassemble(kept, content.upper_fd, hashed)
        else:
            from storagedrivers.archive.pack import pack
            from storagedrivers.stores import init

            unseen = init.unseen(store, layer.id)
            with opened(store, layer) as content:
                packed = pack(*content, hashed, source_date_epoch=source_date_epoch, unseen=unseen)
    finally:
        digest = hashed.digest()
    return digest, hashed.size, packed


def compute_diff_id(
    store: LayerStore, layer: Layer, *, source_date_epoch: int | None = None
) -> str:
    """See :meth:`LayerStore.compute_diff_id`.

    Raises:
        StoreError: the layer is writable, so it has none yet.
    """
    if layer.diff_id is not None:
        return layer.diff_id
    if layer.writable:
        raise StoreError(
            f"layer {layer.id} is writable, so its DiffID could change", resolution="seal it first"
        )
    return export(store, layer, None, source_date_epoch=source_date_epoch)


def _remember(
    store: LayerStore,
    layer: Layer,
    diff_id: str,
    diff_size: int,
    packed: Packed,
    epoch: int | None,
) -> None:
    if store.database.read_only:
        return
    below = None if layer.parent is None else by_id(store.database, layer.parent)
    with store.database.transaction() as connection:
        connection.execute(
            "UPDATE layers SET diff_id = ?, chain_id = ?, diff_size = ?, size = ?, inodes = ?,"
            " epoch = ? WHERE id = ? AND diff_id IS NULL",
            (
                *(diff_id, chain_id(below, diff_id), diff_size),
                *(packed.size, packed.inodes, epoch, layer.id),
            ),
        )
