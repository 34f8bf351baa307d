"""How names and images go. Layers and files go with the last image that has them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import InUseError, NotFoundError
from storagedrivers.oci import reference as references
from storagedrivers.stores import blobs, image_records, locks
from storagedrivers.stores import records as layer_records
from storagedrivers.stores.image_records import Image

if TYPE_CHECKING:
    from storagedrivers.stores.images import ImageStore

_NAMED = 5  # how many of a longer list an error names


class Removed(NamedTuple):
    """What has gone.

    Attributes:
        untagged: names.
        deleted: ids of images.
        layers: ids of the layers that nobody else had.
        size: bytes of the contents of those.
    """

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    size: int = 0

    def plus(self, other: Removed) -> Removed:
        """Both together."""
        return Removed(
            self.untagged + other.untagged,
            self.deleted + other.deleted,
            self.layers + other.layers,
            self.size + other.size,
        )


def remove(store: ImageStore, reference: str, *, force: bool, prune: bool) -> Removed:
    """See :meth:`ImageStore.remove`."""
    image, name = image_records.find_one(store.database, reference)
    if name is not None and len(image.names) > 1:
        store.untag(name)
        return Removed(untagged=(name,))
    removed = _Removal(store, image, force=force, one_name=name).run()
    while prune and image.parent is not None:
        parents = image_records.find(store.database, "WHERE id = ?", image.parent)
        if not parents or not _was_step(store, parents[0]):
            break
        image = parents[0]
        removed = removed.plus(_Removal(store, image, force=False, one_name=None).run())
    return removed


def _was_step(store: ImageStore, image: Image) -> bool:
    """Whether an image was only a step to one that is gone."""
    return (
        not image.names
        and image.source in ("build", "commit")
        and _is_free(store, image)
        and not _children(store, image)
    )


def _is_free(store: ImageStore, image: Image) -> bool:
    query = "SELECT 1 FROM containers WHERE image = ?"
    return store.database.row(query, image.id) is None


def _children(store: ImageStore, image: Image) -> set[str]:
    return {
        row[0] for row in store.database.rows("SELECT id FROM images WHERE parent = ?", image.id)
    }


def prune(store: ImageStore, *, everything: bool, dry_run: bool) -> Removed:
    """See :meth:`ImageStore.prune`."""
    removed = Removed()
    for image in _prunable(store, everything=everything):
        if dry_run:
            removed = removed.plus(Removed(image.names, (image.id,)))
            continue
        # Someone may have given it a name, or made a container of it, since.
        with suppress(NotFoundError, InUseError):
            removed = removed.plus(
                _Removal(store, image, force=False, one_name=None, only=image.names).run()
            )
    return removed


def _prunable(store: ImageStore, *, everything: bool) -> Iterator[Image]:
    """Those that are not used, children before what they were made of."""
    going: set[str] = set()
    for image in store.ls():
        if not _is_free(store, image) or (image.names and not everything):
            continue
        if not image.names and _children(store, image) - going:
            continue
        going.add(image.id)
        yield image


class _Removal:
    """One image on its way out.

    Args:
        store: the images.
        image: which.
        force: whoever uses it, and whatever names it has.
        one_name: the name it was called by, if any.
        only: names that it may have.
    """

    def __init__(
        self,
        store: ImageStore,
        image: Image,
        *,
        force: bool,
        one_name: str | None,
        only: Sequence[str] | None = None,
    ) -> None:
        self._store = store
        self._image = image
        self._force = force
        self._allowed = {*image.names[:1], *([one_name] if one_name else [])}
        if only is not None:
            self._allowed = set(only)

    def run(self) -> Removed:
        """Remove it."""
        store, image = self._store, self._image
        self._refuse_mounted()
        with store.layers.locked(locks.IMAGES, what="the images"):
            with store.database.transaction() as connection:
                image_records.require(connection, image.id)
                names = self._check(connection)
                digests = blobs.forget(connection, image.id)
                row = connection.execute(
                    "SELECT init, layer FROM images WHERE id = ?", (image.id,)
                ).fetchone()
                connection.execute("DELETE FROM image_names WHERE image = ?", (image.id,))
                connection.execute("UPDATE images SET parent = NULL WHERE parent = ?", (image.id,))
                connection.execute("DELETE FROM images WHERE id = ?", (image.id,))
            store.blobs.remove_unused(digests)
        layers, size = self._release([one for one in row if one is not None])
        return Removed(tuple(names), (image.id,), layers, size)

    def _check(self, connection: sqlite3.Connection) -> list[str]:
        """The names that it has; raises where it may not go."""
        image = self._image
        rows = connection.execute(
            "SELECT name FROM image_names WHERE image = ? ORDER BY name", (image.id,)
        )
        names = [row[0] for row in rows]
        if self._force:
            return names
        if users := image_records.users(connection, image.id):
            raise InUseError(
                f"image {image.id} is used by {_some('container', users)}",
                resolution="remove those first, or the image nevertheless with --force:"
                " they keep its layers",
            )
        if not self._allowed.issuperset(names):
            familiar = [references.parse(name).familiar for name in names]
            raise InUseError(
                f"image {image.id} has several names: {', '.join(familiar)}",
                resolution="take one away by naming it, or all with --force",
            )
        return names

    def _refuse_mounted(self) -> None:
        layer = self._image.layer
        if layer is not None and self._store.layers.is_mounted(layer):
            self._store.layers.refuse_mounted(self._store.layers.get(layer))

    def _release(self, layers: Sequence[str]) -> tuple[tuple[str, ...], int]:
        """Let go of the layers, from the top; what was removed, and how much that was."""
        sizes = {
            one: found.size or 0
            for layer in layers
            for one in (layer, *self._store.layers.lowers(layer))
            if (found := layer_records.by_id(self._store.database, one)) is not None
        }
        released: list[str] = []
        for layer in layers:
            with suppress(InUseError):  # it is mounted since: it goes with the next gc
                released += self._store.layers.release(layer)
        return tuple(released), sum(sizes.get(one, 0) for one in released)


def _some(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")
    return f"{what} {shown}" if len(names) == 1 else f"{what}s {shown}"
