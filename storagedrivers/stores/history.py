"""How an image came to be, as ``docker history`` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.stores import image_records

if TYPE_CHECKING:
    from storagedrivers.stores.image_records import Image
    from storagedrivers.stores.images import ImageStore


class HistoryEntry(NamedTuple):
    """One step.

    Attributes:
        id: of the image after it; None where that image is not in the store.
        created: when, as RFC 3339 has it, or None.
        created_by: the command.
        size: bytes of the contents of its layer.
        comment: what was said about it.
        tags: the names of that image.
        empty: it made no layer.
    """

    id: str | None
    created: str | None
    created_by: str
    size: int
    comment: str
    tags: tuple[str, ...]
    empty: bool


def history(store: ImageStore, image: Image) -> list[HistoryEntry]:
    """See :meth:`ImageStore.history`."""
    layers = iter(store.layers.image_layers(image.layer))
    entries = []
    for step in store.config(image).history:
        layer = None if step.empty_layer else next(layers, None)
        size = 0 if layer is None else layer.size or 0
        entries.append(
            HistoryEntry(
                None, step.created, step.created_by, size, step.comment, (), step.empty_layer
            )
        )
    entries.reverse()
    # The image itself, and those it was made of, step by step, as far as they are here.
    one: Image | None = image
    for number, entry in enumerate(entries):
        if one is None:
            break
        entries[number] = entry._replace(id=one.id, tags=one.names)
        parents = image_records.find(store.database, "WHERE id = ?", one.parent)
        one = parents[0] if parents else None
    return entries
