"""How images get their rows, names and files: all of several images at once, or nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import InUseError, NotFoundError
from storagedrivers.oci.config import parse_config, parse_time
from storagedrivers.oci.documents import digest_of
from storagedrivers.stores import blobs as files
from storagedrivers.stores import image_records, locks, records
from storagedrivers.stores.blobs import Staged

if TYPE_CHECKING:
    from storagedrivers.stores.images import ImageStore, NewImage


def register(store: ImageStore, images: Sequence[NewImage]) -> list[str]:
    """See :meth:`ImageStore.register`; returns their ids, in order."""
    ids: list[str] = []
    replaced: list[str] = []
    layers: list[str] = []
    for one in (one for image in images for one in image.staged):
        one.sync()  # before anyone has to wait
    with ExitStack() as stack:
        stack.enter_context(store.layers.locked(locks.IMAGES, what="the images"))
        placed = _keep(store, images, stack)
        try:
            with store.database.transaction() as connection:
                for image in images:
                    layers += _replace_layers(connection, image)
                    ids.append(_insert(connection, image, replaced))
        except BaseException:
            store.blobs.remove_unused(placed)
            raise
        store.blobs.remove_unused(replaced)
    for layer in layers:
        with suppress(InUseError):  # gc finds it when it is unmounted
            store.layers.release(layer)
    return ids


def _keep(store: ImageStore, images: Sequence[NewImage], stack: ExitStack) -> list[str]:
    """Give the new files their names, and check that the others are there; which are new."""
    staged: dict[str, Staged] = {}
    for image in images:
        staged.update((one.digest, one) for one in image.staged)
        for data in (image.config, image.manifest):
            digest = None if data is None else digest_of(data)
            if data is None or digest is None or store.blobs.has(digest, len(data)):
                continue
            one = staged[digest] = store.blobs.stage(digest)
            stack.callback(one.drop)
            one.write(data)
            one.sync()
    for digest, size in (one for image in images for one in image.kept):
        if digest not in staged and not store.blobs.has(digest, size):
            raise NotFoundError(
                f"the layer {digest} went with an image that was removed meanwhile",
                resolution="do it again",
            )
    if staged:
        store.blobs.place(staged.values())
    return [*staged]


def _replace_layers(connection: sqlite3.Connection, image: NewImage) -> list[str]:
    """Within a transaction: an image that is there and comes with other layers than it has gets
    those: one of its own is in quarantine. Its containers keep what they have.

    Returns:
        The layers that it had, and its init layer.
    """
    query = "SELECT layer, init FROM images WHERE id = ? AND source = 'load' AND layer != ?"
    row = connection.execute(query, (digest_of(image.config), image.layer)).fetchone()
    if row is None or image.source != "load":
        return []
    connection.execute(
        "UPDATE images SET layer = ?, init = NULL WHERE id = ?",
        (image.layer, digest_of(image.config)),
    )
    return [layer for layer in reversed(row) if layer is not None]


def _insert(connection: sqlite3.Connection, image: NewImage, replaced: list[str]) -> str:
    """One image; the digests of files that it does not need any more go to *replaced*."""
    config = parse_config(image.config)
    manifest = None if image.manifest is None else digest_of(image.manifest)
    if image.layer is not None:
        records.require_ready(connection, image.layer)
    row = connection.execute(
        "SELECT manifest FROM images WHERE id = ?", (config.digest,)
    ).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO images (id, layer, manifest, created, added, source, parent)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                config.digest,
                image.layer,
                manifest,
                None if config.created is None else parse_time(config.created),
                time.time(),
                image.source,
                image.parent,
            ),
        )
    elif manifest is not None and manifest != row[0]:
        replaced += files.forget(connection, config.digest)
        connection.execute("UPDATE images SET manifest = ? WHERE id = ?", (manifest, config.digest))
    else:
        manifest = None  # it has one, and its files
    needed = {config.digest: len(image.config)}
    if manifest is not None and image.manifest is not None:
        needed |= {manifest: len(image.manifest), **dict(image.kept)}
    connection.executemany(
        "INSERT OR IGNORE INTO image_blobs VALUES (?, ?, ?)",
        [(config.digest, digest, size) for digest, size in needed.items()],
    )
    for name in image.names:
        image_records.give_name(connection, name, config.digest)
    return config.digest
