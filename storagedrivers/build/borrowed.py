"""``--cache-from``: layers of named images, for steps of which their history says the same.

Anyone can write a history, so an image that was loaded is asked only if it was named; and what was
taken of one gets no entry in the cache, where a build would find it that did not name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import InvalidReferenceError, NotFoundError
from storagedrivers.oci.config import History, parse_time

if TYPE_CHECKING:
    from storagedrivers.stores.images import ImageStore
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.records import Layer


class Borrowed(NamedTuple):
    """What an image has for a step.

    Attributes:
        layer: its layer; None where the step changed nothing.
        created: when it was made, in seconds since the epoch.
        image: the id of the image.
    """

    layer: Layer | None
    created: float
    image: str


class _Source(NamedTuple):
    """An image: its history, its layers, and how many lie below, by the ChainID of those."""

    image: str
    history: tuple[History, ...]
    layers: tuple[Layer, ...]
    places: dict[str | None, int]


class Sources:
    """The images that were named.

    Args:
        images: those of the store.
        names: which; what is not there has nothing, as Docker has it.

    Attributes:
        missing: the names of those that are not there.
    """

    def __init__(self, images: ImageStore, names: Sequence[str]) -> None:
        self.missing: list[str] = []
        self._sources: list[_Source] = []
        for name in names:
            try:
                self._sources.append(_source(images, name))
            except (NotFoundError, InvalidReferenceError):
                self.missing.append(name)

    def find(
        self,
        history: Sequence[History],
        chain: str,
        created_by: str,
        *,
        driver: str,
        lease: Lease,
    ) -> Borrowed | None:
        """What the first image has that begins with these layers and this history, and goes on
        with this step.

        Args:
            history: of the steps before.
            chain: the ChainID of the layers below, or "".
            created_by: what the history is to say of the step.
            driver: whose layers those below are.
            lease: keeps the layer until its end.
        """
        for source in self._sources:
            found = _next(source, history, chain, created_by)
            if found is not None and found.layer is None:
                return found
            if found is not None and found.layer is not None and found.layer.driver == driver:
                try:
                    lease.take(found.layer.id)
                except NotFoundError:  # the image was removed meanwhile
                    continue
                return found
        return None


def _source(images: ImageStore, name: str) -> _Source:
    image = images.get(name)
    layers = images.layers.image_layers(image.layer)
    chains = ["", *(layer.chain_id for layer in layers)]
    places = {chain: place for place, chain in enumerate(chains)}
    return _Source(image.id, images.config(image).history, layers, places)


def _next(
    source: _Source, history: Sequence[History], chain: str, created_by: str
) -> Borrowed | None:
    """What an image has for a step, whatever driver it is of."""
    before, after = source.history[: len(history)], source.history[len(history) :]
    place = source.places.get(chain)
    if place is None or not after or after[0].created_by != created_by:
        return None
    if [*map(_said, before)] != [*map(_said, history)]:
        return None
    above = source.layers[place:]
    # A history may say nothing of the lowest layers, so it is counted from above.
    if sum(not one.empty_layer for one in after) != len(above):
        return None
    step = after[0]
    created = parse_time(step.created) if step.created else None
    return Borrowed(None if step.empty_layer else above[0], created or 0.0, source.image)


def _said(line: History) -> tuple[str, bool]:
    return line.created_by, line.empty_layer
