"""How entries of the build cache go, with the layers that only they had."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import InUseError
from storagedrivers.stores.build_cache import Entry, Listed

if TYPE_CHECKING:
    from storagedrivers.stores.build_cache import CacheStore
    from storagedrivers.stores.cache_volumes import CacheVolume


class Pruned(NamedTuple):
    """What has gone, or would go.

    Attributes:
        entries: what the cache has forgotten.
        layers: the ids of the layers that nothing else had.
        volumes: what RUNs had kept from build to build.
        size: bytes of the contents of all of those.
    """

    entries: tuple[Entry, ...] = ()
    layers: tuple[str, ...] = ()
    volumes: tuple[CacheVolume, ...] = ()
    size: int = 0


class _Layer(NamedTuple):
    """What counts of a layer."""

    id: str
    parent: str | None
    size: int
    chain: str | None
    depth: int


_LAYERS = """
    SELECT id, parent, COALESCE(size, 0), chain_id, depth FROM layers WHERE state = 'ready'
    ORDER BY number
"""


class Kept:
    """The layers that only the cache has, and what of them is left while entries go.

    Attributes:
        size: bytes of the contents of those that are left.
        used: when each was used last, itself or what lies on it.
    """

    def __init__(self, cache: CacheStore, entries: Iterable[Listed]) -> None:
        needed = cache.needed()
        layers = {row[0]: _Layer(*row) for row in cache.database.rows(_LAYERS)}
        self._chains = {layers[one].chain for one in needed if one in layers}
        self._only: dict[str, _Layer] = {}
        self._references: dict[str, int] = {}
        self.used: dict[str, float] = {}
        for one in entries:
            self._add(one.entry.layer, one.entry.used, layers, needed)
        self.size = sum(one.size for one in self._only.values())

    def _add(
        self, layer: str | None, used: float, layers: dict[str, _Layer], needed: set[str]
    ) -> None:
        """Count what an entry refers to, and what that lies on."""
        counted = False
        while layer in layers and layer not in needed:
            assert layer is not None
            self.used[layer] = max(used, self.used.get(layer, used))
            if not counted:
                self._references[layer] = self._references.get(layer, 0) + 1
                counted = layer in self._only
            self._only[layer] = layers[layer]
            layer = layers[layer].parent

    def __contains__(self, layer: str | None) -> bool:
        return layer in self._only

    def order(self, entry: Entry) -> tuple[float, int, int]:
        """Sorts those that were used longest ago first, and what lies on another before that."""
        layer = self._only.get(entry.layer or "")
        if layer is None:
            return entry.used, 0, -entry.number
        return self.used[layer.id], -layer.depth, -entry.number

    def chains(self) -> set[str | None]:
        """The ChainIDs of the layers that are left."""
        return self._chains | {one.chain for one in self._only.values()}

    def drop(self, layer: str | None) -> Iterator[str]:
        """Let an entry go; gives the layers that go with it, the topmost first."""
        while layer is not None and layer in self._only:
            self._references[layer] -= 1
            if self._references[layer]:
                return
            gone = self._only.pop(layer)
            self.size -= gone.size
            yield layer
            layer = gone.parent


class _Choice:
    """What is to go: entries with the layers that only they have, and volumes."""

    def __init__(
        self, cache: CacheStore, *, max_size: int | None, unused_for: float, everything: bool
    ) -> None:
        self._entries = cache.ls()
        self._volumes = cache.volumes()
        self._kept = Kept(cache, self._entries)
        self._max_size = max_size
        self._latest = time.time() - unused_for
        self._everything = everything and max_size is None
        self._left = self._kept.size + sum(one.size for one in self._volumes)
        self.entries: list[Entry] = []
        self.layers: list[str] = []
        self.volumes: list[CacheVolume] = []

    def pruned(self) -> Pruned:
        """What it comes to."""
        before = self._left
        ordered: list[tuple[tuple[float, int, int], Listed | CacheVolume]] = [
            *((self._kept.order(one.entry), one) for one in self._entries),
            *(((one.used, 0, 0), one) for one in self._volumes),
        ]
        for (used, *_), one in sorted(ordered, key=lambda pair: pair[0]):
            if isinstance(one, Listed):
                self._consider(one, used)
            elif not one.busy and self._goes(used):
                self.volumes.append(one)
                self._left -= one.size
        self._add_left_over()
        return Pruned(
            tuple(self.entries), tuple(self.layers), tuple(self.volumes), before - self._left
        )

    def _consider(self, one: Listed, used: float) -> None:
        own = one.entry.layer in self._kept
        if one.lost or (self._goes(used) and (own or self._everything)):
            self.entries.append(one.entry)
            before = self._kept.size
            self.layers += self._kept.drop(one.entry.layer)
            self._left -= before - self._kept.size

    def _goes(self, used: float) -> bool:
        """Whether it was not used for long enough, and there is too much."""
        return used <= self._latest and (self._max_size is None or self._left > self._max_size)

    def _add_left_over(self) -> None:
        """What changed nothing takes nothing: it goes with what it lay on."""
        chosen, chains = {*self.entries}, self._kept.chains()
        for one in self._entries:
            entry = one.entry
            idle = entry.layer is None and entry.used <= self._latest and entry not in chosen
            if idle and entry.chain and entry.chain not in chains:
                self.entries.append(entry)


def prune(
    cache: CacheStore,
    *,
    max_size: int | None,
    unused_for: float | None,
    everything: bool,
    dry_run: bool,
) -> Pruned:
    """See :meth:`CacheStore.prune`."""
    choice = _Choice(cache, max_size=max_size, unused_for=unused_for or 0.0, everything=everything)
    pruned = choice.pruned()
    return pruned if dry_run else _remove(cache, pruned)


def _remove(cache: CacheStore, chosen: Pruned) -> Pruned:
    """Remove what was chosen, but for what a build has used since."""
    forgotten = []
    with cache.database.transaction() as connection:
        for entry in chosen.entries:
            done = connection.execute(
                "DELETE FROM build_cache WHERE number = ? AND uses = ?", (entry.number, entry.uses)
            )
            if done.rowcount:
                forgotten.append(entry)
    sizes: dict[str, int] = dict(cache.database.rows("SELECT id, COALESCE(size, 0) FROM layers"))
    released: list[str] = []
    for layer in chosen.layers:
        with suppress(InUseError):  # it is mounted since: it goes with the next gc
            released += cache.layers.release(layer)
    volumes = cache.remove_volumes(chosen.volumes) if chosen.volumes else []
    size = sum(sizes.get(one, 0) for one in released) + sum(one.size for one in volumes)
    return Pruned(tuple(forgotten), tuple(released), tuple(volumes), size)
