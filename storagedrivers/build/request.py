"""What a build was asked for, and the parts of a store that it works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from storagedrivers.build.events import Event
    from storagedrivers.stores.build_cache import CacheStore
    from storagedrivers.stores.containers import ContainerStore
    from storagedrivers.stores.images import ImageStore
    from storagedrivers.stores.layers import LayerStore


class Parts(NamedTuple):
    """The parts of a store that a build works with."""

    layers: LayerStore
    images: ImageStore
    containers: ContainerStore
    cache: CacheStore


class Request(NamedTuple):
    """What was asked for.

    Attributes:
        dockerfile: its path in the context, or what it says; None for ``Dockerfile``.
        tags: names for the image.
        build_args: values of ARGs.
        target: the stage to build, by its name; the last one where it is None.
        no_cache: build every step, and remember those instead.
        labels: for the image.
        network: of RUNs: ``default``, ``none`` or ``host``.
        platform: that the image is to be for, ``linux/arm64``; the base's where it is None.
        cache_from: images whose layers are taken where their history says the same.
        source_date_epoch: later times become this one, in seconds.
        on_event: is told what happens, one event at a time.
    """

    dockerfile: str | bytes | None = None
    tags: Sequence[str] = ()
    build_args: Mapping[str, str] = {}
    target: str | None = None
    no_cache: bool = False
    labels: Mapping[str, str] = {}
    network: str = "default"
    platform: str | None = None
    cache_from: Sequence[str] = ()
    source_date_epoch: int | None = None
    on_event: Callable[[Event], object] | None = None
