"""What a stage has come to: its layers, its config, its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storagedrivers.oci.config import History, ImageConfig, make_config, write_time
from storagedrivers.oci.platforms import Platform, host_platform

if TYPE_CHECKING:
    from storagedrivers.dockerfile.variables import Scope
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.records import Layer

_SECOND = 1_000_000_000


def time_of(seconds: float, latest: int | None) -> str:
    """A time as history has it, at the latest *latest*."""
    return write_time(int((seconds if latest is None else min(seconds, latest)) * _SECOND))


class State:
    """A stage after one of its steps; changed from step to step.

    A line of the history that stands for no layer takes the time of the one before it: an image
    that is built again of what the cache has gets the same id.

    Attributes:
        scope: which variables its instructions see.
        layer: the id of the topmost layer, or None.
        chain: that one's ChainID, or "".
        config: how to run it.
        history: how it came to be, the oldest line first.
        base: the config of the image that it began with.
        author: what MAINTAINER said.
        platform: what it is for, where it begins with nothing; None for this host's.
        fresh: something in it was built anew.
        untouched: the id of the image that it is, as long as nothing was added to it.
    """

    def __init__(self, scope: Scope, config: dict[str, Any], *, time: str) -> None:
        self.scope = scope
        self.config = config
        self.layer: str | None = None
        self.chain = ""
        self.history: list[History] = []
        self.base: ImageConfig | None = None
        self.author = ""
        self.platform: Platform | None = None
        self.fresh = False
        self.untouched: str | None = None
        self._time = time

    def begin_with(self, base: ImageConfig, layer: Layer | None) -> None:
        """Begin with an image."""
        self.base, self.untouched = base, base.digest
        self.history = [*base.history]
        self._time = base.created or self._time
        self._set_layer(layer)

    def begin_with_stage(self, other: State) -> None:
        """Begin with what another stage has come to."""
        self.base, self.untouched = other.base, other.untouched
        self.history = [*other.history]
        self.layer, self.chain, self._time = other.layer, other.chain, other._time
        self.fresh = other.fresh

    def add(self, created_by: str) -> None:
        """Note a step that made no layer."""
        self.untouched = None
        self.history.append(History(self._time, created_by, self.author, empty_layer=True))

    def add_layer(self, layer: Layer, created_by: str, created: str) -> None:
        """Note a step that made a layer."""
        self._time, self.untouched = created, None
        self.history.append(History(created, created_by, self.author))
        self._set_layer(layer)

    def _set_layer(self, layer: Layer | None) -> None:
        if layer is not None:
            assert layer.chain_id is not None
            self.layer, self.chain = layer.id, layer.chain_id

    def image(self, layers: LayerStore) -> bytes:
        """The config of the image that this is."""
        platform = self.platform or host_platform()
        return make_config(
            base=self.base,
            diff_ids=[str(one.diff_id) for one in layers.image_layers(self.layer)],
            history=self.history,
            config=self.config,
            created=self._time,
            author=self.author,
            architecture=None if self.base else platform.architecture,
            os=platform.os,
            variant=None if self.base else platform.variant,
        )
