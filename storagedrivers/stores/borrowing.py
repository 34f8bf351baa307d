"""Images of stores of other owners, which are only read: ``additional_stores``.

A borrowed layer has a row of its own here, the headers of its tar are copied, and where its
directory would be there is a symlink to that of the other store. So it is a layer like any other
for what lies above it, and removing it takes the link away. The other store must keep what was
borrowed of it: it cannot know.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.archive import PAYLOAD_SUFFIX
from storagedrivers.driver import TRASH
from storagedrivers.errors import NotFoundError, StorageDriversError
from storagedrivers.stores import records
from storagedrivers.stores.database import Database
from storagedrivers.stores.images import Image, ImageStore, NewImage
from storagedrivers.stores.layers import LayerStore
from storagedrivers.stores.making import store_kept
from storagedrivers.stores.records import Layer

if TYPE_CHECKING:
    from storagedrivers.stores.leases import Lease


def others(store: ImageStore) -> list[ImageStore]:
    """The additional stores that are there, open for reading."""
    return [_opened(store, root) for root in store.additional if os.path.isdir(root)]


def _opened(store: ImageStore, root: str) -> ImageStore:
    database = Database(root, read_only=True)
    driver = database.meta("driver") or store.layers.driver
    layers = LayerStore(
        database,
        store.layers.run_root,
        lambda name: type(store.layers.driver_for(name))(Path(root, name)),
        driver=driver,
    )
    return ImageStore(layers)


def available(store: ImageStore) -> dict[Image, int]:
    """See :meth:`ImageStore.available`."""
    known = {image.id for image in store.ls()}
    found: dict[Image, int] = {}
    for other in others(store):
        try:
            images = [image for image in other.ls() if image.id not in known]
            sizes = other.sizes(images)
            found |= {image: sizes[image.id] for image in images}
            known |= sizes.keys()
        finally:
            other.database.close()
    return found


def borrow(store: ImageStore, reference: str) -> Image | None:
    """The image of the first additional store that has it, made one of this store's; None where
    none has it.
    """
    for other in others(store):
        try:
            with suppress(NotFoundError):
                return _borrow(store, other, other.get(reference))
        finally:
            other.database.close()
    return None


def _borrow(store: ImageStore, other: ImageStore, image: Image) -> Image:
    config = other.config(image)
    with store.layers.leased() as lease:
        layer = None
        database = other.database
        chain = [] if image.layer is None else records.chain_layers(database, image.layer)
        for one in reversed(chain):
            layer = _layer(store.layers, other.layers, one, layer, lease)
        (made,) = store.register(
            [NewImage(config.raw, layer, "load", image.names, _manifest(other, image))]
        )
    return made


def _manifest(other: ImageStore, image: Image) -> bytes | None:
    """The manifest, unless it names compressed layers: those stay where they are."""
    query = "SELECT COUNT(*) FROM image_blobs WHERE image = ?"
    row = other.database.row(query, image.id)
    if image.manifest is None or row is None or row[0] > len({image.id, image.manifest}):
        return None
    return other.blobs.read(image.manifest)


def _layer(
    store: LayerStore, other: LayerStore, layer: Layer, parent: str | None, lease: Lease
) -> str:
    """The id of the same layer here: one that is there, or the one that is borrowed."""
    here = _same(store, layer)
    if here is not None:
        lease.take(here)
        return here
    with store.locked(layer.id):
        here = _same(store, layer)
        if here is not None:  # someone was faster
            lease.take(here)
            return here
        store.discard(layer.id)  # what someone has left who was killed
        try:
            _insert(store, other, layer, parent, lease)
            _link(store, other, layer)
            with store.database.transaction() as connection:
                connection.execute("UPDATE layers SET state = 'ready' WHERE id = ?", (layer.id,))
        except BaseException:
            with suppress(OSError, StorageDriversError):  # else who opens next finishes it
                store.discard(layer.id)
            raise
    return layer.id


def _insert(
    store: LayerStore, other: LayerStore, layer: Layer, parent: str | None, lease: Lease
) -> None:
    """The row, before there is anything else."""
    columns = [name for name in Layer._fields if name not in ("state", "durable", "warnings")]
    values = layer._replace(parent=parent, held=False)._asdict()
    with store.database.transaction() as connection:
        connection.execute(
            f"INSERT INTO layers ({', '.join(columns)}, state, durable, warnings, epoch)"
            f" VALUES ({', '.join('?' * len(columns))}, 'creating', 1, ?, ?)",
            (
                *(values[name] for name in columns),
                records.warnings_text(layer.warnings),
                records.epoch(other.database, layer.id),
            ),
        )
        lease.note(layer.id, connection)


def _same(store: LayerStore, layer: Layer) -> str | None:
    query = (
        "SELECT id FROM layers WHERE state = 'ready' AND driver = ? AND (id = ? OR chain_id = ?)"
    )
    row = store.database.row(query, layer.driver, layer.id, layer.chain_id)
    return None if row is None else str(row[0])


def _link(store: LayerStore, other: LayerStore, layer: Layer) -> None:
    home = os.path.join(store.root, layer.driver)
    os.makedirs(os.path.join(home, TRASH), mode=0o700, exist_ok=True)
    with suppress(FileExistsError):  # of someone who was killed while borrowing it
        os.symlink(
            os.path.realpath(f"{other.root}/{layer.driver}/{layer.id}"), f"{home}/{layer.id}"
        )
    for suffix in ("", PAYLOAD_SUFFIX):
        kept = other.kept_path(layer.id) + suffix
        if os.path.exists(kept):
            _copy(kept, store_kept(store, layer.id) + suffix)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as file, open(target, "wb") as new:
        os.fchmod(new.fileno(), 0o600)
        shutil.copyfileobj(file, new)
        new.flush()
        os.fsync(new.fileno())
