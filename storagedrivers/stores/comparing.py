"""What containers differ in from their images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from storagedrivers.archive.changes import changes, changes_of_several
from storagedrivers.linux import tree
from storagedrivers.model import Change, ChangeKind
from storagedrivers.stores import content, init

if TYPE_CHECKING:
    from storagedrivers.stores.container_records import Container
    from storagedrivers.stores.layers import LayerStore


def own_layers(layers: LayerStore, top: str, base: str | None) -> tuple[str, ...]:
    """The ids of a container's own layers, the topmost first.

    Args:
        base: what it began on.
    """
    chain = (top, *layers.lowers(top))
    return chain if base is None else chain[: chain.index(base)]


def diff(layers: LayerStore, container: Container) -> Iterator[Change]:
    """See :meth:`ContainerStore.diff`."""
    own = own_layers(layers, container.layer, container.base)
    used = layers.database.row("SELECT used FROM layers WHERE id = ?", container.layer)
    if not (used and used[0]):
        own = own[1:]
    if not own:
        return
    found = layers.changes(own[0]) if len(own) == 1 else _between(layers, own)
    for change in told(layers, own[-1], found):
        if change.path:
            yield change


def _between(layers: LayerStore, own: tuple[str, ...]) -> Iterator[Change]:
    """What several layers change together: the trees with and without them are compared, where
    one of them has something.
    """
    below = layers.get(own[-1]).parent
    with ExitStack() as stack:
        upper = stack.enter_context(content.view(layers, own[0]))
        lower = None if below is None else stack.enter_context(content.view(layers, below))
        driver = layers.driver_for(layers.get(own[0]).driver)
        found = [changeset for one in own if (changeset := driver.changeset(one)) is not None]
        if not found:
            yield from changes(upper, lower, None)
            return
        opened = [stack.enter_context(tree.opened_directory(one.path)) for one in found]
        yield from changes_of_several(upper, lower, opened, found[0].whiteouts)


def told(layers: LayerStore, layer: str, found: Iterator[Change]) -> Iterator[Change]:
    """Changes, but for the deletion of what never was in the image.

    Args:
        layer: the one right above what they are changes of.
    """
    unseen: frozenset[bytes] | None = None
    for change in found:
        if change.kind is ChangeKind.DELETED:
            if unseen is None:
                unseen = init.unseen(layers, layer)
            if change.path in unseen:
                continue
        yield change


def has_changes(layers: LayerStore, layer: str) -> bool:
    """Whether a layer changes anything that its tar would tell."""
    return next(told(layers, layer, layers.changes(layer)), None) is not None
