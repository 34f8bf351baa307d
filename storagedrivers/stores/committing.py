"""Makes images of containers: their own layers become layers of an image, and a config names
them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from storagedrivers.dockerfile.changes import apply_changes
from storagedrivers.errors import NotFoundError
from storagedrivers.oci import reference
from storagedrivers.oci.config import History, ImageConfig, make_config, write_time
from storagedrivers.stores import comparing, copying, moves

if TYPE_CHECKING:
    from storagedrivers.stores.container_records import Container
    from storagedrivers.stores.containers import ContainerStore
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.records import Layer

# What of a container's config an image is to say too; the rest is about one run.
_KEPT = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
    *("StopSignal", "Healthcheck", "Shell", "StopTimeout", "ArgsEscaped"),
)


class Commit(NamedTuple):
    """What was asked for, see :meth:`ContainerStore.commit`."""

    name: str | None
    author: str
    message: str
    changes: tuple[str, ...]
    pause: bool
    source_date_epoch: int | None

    def run(self, store: ContainerStore, container: Container) -> Image:
        """Make the image."""
        if self.name is not None:
            reference.parse(self.name)  # before anything is sealed
        base = _base_config(store, container)
        config = _kept_config(container, base)
        apply_changes(config, self.changes)
        now = self._time(time.time())
        copies: list[str] = []
        try:
            with store.layers.leased() as lease:
                top = self._sealed(store, container, lease, copies)
                own = _own(store.layers, container, top)
                stack = store.layers.image_layers(top)
                diff_ids = [
                    store.layers.compute_diff_id(one.id, source_date_epoch=self.source_date_epoch)
                    for one in stack
                ]
                raw = make_config(
                    base=base,
                    diff_ids=diff_ids,
                    history=[*(base.history if base else ()), *self._history(container, own, now)],
                    config=config,
                    created=now,
                    author=self.author,
                )
                return store.images.add(
                    raw,
                    stack[-1].id if stack else None,
                    source="commit",
                    name=self.name,
                    parent=container.image if base else None,
                    lease=lease,
                )
        finally:
            store.let_go(copies)  # does nothing where the image has it

    def _sealed(
        self, store: ContainerStore, container: Container, lease: Lease, copies: list[str]
    ) -> str | None:
        """The topmost sealed layer of the image to be; the container goes on above it, unless it
        is in use.
        """
        with store.settled(container.id) as container:
            layer = store.layers.get(container.layer)
            if not self._is_changed(store, layer):
                if layer.parent is not None:
                    lease.take(layer.parent)
                return layer.parent
            if store.is_in_use(container):
                paused = store.is_running(container) and self.pause
                with store.paused(container) if paused else nullcontext():
                    copies.append(copying.copied(store.layers, layer.id, lease))
                return copies[-1]
            top = moves.seal(store, container)
            lease.take(top)
            moves.lay_above(store, container, top)
            return top

    @staticmethod
    def _is_changed(store: ContainerStore, layer: Layer) -> bool:
        return moves.was_written_to(store, layer.id) and comparing.has_changes(
            store.layers, layer.id
        )

    def _history(self, container: Container, own: list[Layer], now: str) -> Iterator[History]:
        """A line for each of the container's own layers, the last one with what was said; one that
        stands for no layer where there are none.
        """
        command = " ".join(container.config.get("Cmd") or ())
        for layer in own[:-1]:
            yield History(created=self._time(layer.created), created_by=command)
        yield History(
            created=now,
            created_by=command,
            author=self.author,
            comment=self.message,
            empty_layer=not own,
        )

    def _time(self, when: float) -> str:
        latest = self.source_date_epoch
        seconds = when if latest is None else min(when, latest)
        return write_time(int(seconds * 1_000_000) * 1000)


def _base_config(store: ContainerStore, container: Container) -> ImageConfig | None:
    if container.image is None:
        return None
    try:
        return store.images.config(store.images.get(container.image))
    except NotFoundError:  # removed by force: its layers are there, their history is not
        return None


def _kept_config(container: Container, base: ImageConfig | None) -> dict[str, Any]:
    config = dict(base.config) if base else {}
    for key in _KEPT:
        # What is empty says so only where the image says something else.
        if key in container.config and (container.config[key] or key in config):
            config[key] = container.config[key]
    return config


def _own(layers: LayerStore, container: Container, top: str | None) -> list[Layer]:
    """The container's own layers up to *top*, the lowest first."""
    if top is None:
        return []
    return [*map(layers.get, reversed(comparing.own_layers(layers, top, container.base)))]
