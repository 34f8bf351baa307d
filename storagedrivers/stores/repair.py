"""Acts on what :func:`storagedrivers.stores.check.check` found, and on nothing else.

What can be put right without losing anything is. A layer that lost something is put in quarantine:
it stays as it is, and is no longer found by the digest of its tar, so that the tar added again
makes a new one. Removing it, and what lies above it, is done on request only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import InUseError, NotFoundError, StorageDriversError, StoreError
from storagedrivers.linux import ioctl, tree
from storagedrivers.model import FlawKind, Volume
from storagedrivers.stores.check import Finding, Remedy
from storagedrivers.stores.gc import collect
from storagedrivers.stores.orphans import Orphan
from storagedrivers.stores.records import Layer, LayerState, by_id, containers_on, images_on
from storagedrivers.stores.volume_check import make_anew

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.volumes import VolumeStore

_ROUNDS = 3  # taking a file away changes the time of its directory, which is mended then

_ABOVE = """
    WITH RECURSIVE above (id, distance) AS (
        SELECT ?, 0
        UNION ALL
        SELECT layers.id, distance + 1 FROM layers JOIN above ON layers.parent = above.id
    )
    SELECT id FROM above ORDER BY distance DESC
"""


class Outcome(StrEnum):
    """What became of a finding."""

    DONE = "done"
    """It is put right."""

    REMOVED = "removed"
    """The layer is removed, and those above it."""

    QUARANTINED = "quarantined"
    """The layer is kept as it is, and its tar added again makes a new one."""

    LEFT = "left"
    """Nothing was done."""


class Repaired(NamedTuple):
    """A finding, and what became of it."""

    finding: Finding
    outcome: Outcome
    message: str


def repair(
    store: LayerStore, findings: Iterable[Finding], volumes: VolumeStore, *, yes: bool
) -> Iterator[Repaired]:
    """Put right what can be.

    Args:
        findings: of :func:`storagedrivers.stores.check.check`.
        volumes: of the same store.
        yes: remove layers that lost something, with those above them, and files that no tar
            brought; make empty directories for volumes that lost theirs.
    """
    # Layers in the order in which they lie on each other: what is mended may be mended from below.
    number = {layer.id: place for place, layer in enumerate(store.ls(), 1)}
    ordered = sorted(findings, key=lambda one: (number.get(one.layer, 0), one.layer))
    for layer, group in groupby(ordered, key=lambda one: one.layer):
        together = [*group]
        orphans = [one for one in together if one.remedy is Remedy.COLLECT]
        yield from _collected(store, orphans, volumes)
        others = [one for one in together if one.remedy is not Remedy.COLLECT]
        if layer and others:
            yield from _layer(store, layer, others, yes=yes)
        else:
            yield from (_other(volumes, one, yes=yes) for one in others)


def _left(finding: Finding, why: str) -> Repaired:
    return Repaired(finding, Outcome.LEFT, f"{why}: {finding.action}")


def _other(volumes: VolumeStore, finding: Finding, *, yes: bool) -> Repaired:
    """What is no layer's."""
    if finding.remedy is not Remedy.ANEW:
        return _left(finding, "it cannot be repaired here")
    if not yes:
        return _left(finding, "nothing was done")
    assert isinstance(finding.subject, Volume)
    try:
        make_anew(volumes, finding.subject)
    except (OSError, StorageDriversError) as error:
        return Repaired(finding, Outcome.LEFT, str(error))
    return Repaired(finding, Outcome.DONE, "it is made anew, and empty")


def _collected(
    store: LayerStore, findings: list[Finding], volumes: VolumeStore
) -> Iterator[Repaired]:
    for finding in findings:
        assert isinstance(finding.subject, Orphan)
        (done,) = collect(store, [finding.subject], volumes)
        if done.problem:
            yield Repaired(finding, Outcome.LEFT, done.problem)
        else:
            yield Repaired(finding, Outcome.DONE, "it is removed")


def _layer(
    store: LayerStore, layer_id: str, findings: list[Finding], *, yes: bool
) -> Iterator[Repaired]:
    layer = by_id(store.database, layer_id)
    if layer is None or layer.state is not LayerState.READY:
        done = Outcome.REMOVED
        yield from (Repaired(one, done, "the layer is gone meanwhile") for one in findings)
        return
    if any(one.remedy is Remedy.QUARANTINE for one in findings):
        outcome, message = _lost(store, layer, yes=yes)
        yield from (Repaired(one, outcome, message) for one in findings)
        return
    try:
        unable = _mend(store, layer, findings, yes=yes)
    except (OSError, StorageDriversError) as error:
        yield from (Repaired(one, Outcome.LEFT, str(error)) for one in findings)
        return
    for one in findings:
        if one in unable:
            yield _left(one, "nothing was done")
        else:
            yield Repaired(one, Outcome.DONE, "it is put right")


# Layers that lost something


def above(store: LayerStore, layer: str) -> list[str]:
    """A layer and all that lie above it, the topmost first."""
    return [row[0] for row in store.database.rows(_ABOVE, layer)]


def _lost(store: LayerStore, layer: Layer, *, yes: bool) -> tuple[Outcome, str]:
    ids = above(store, layer.id)
    others = f" with {len(ids) - 1} above it: {', '.join(ids[:-1])}" if len(ids) > 1 else ""
    if not yes:
        with store.database.transaction() as connection:
            connection.executemany(
                "UPDATE layers SET chain_id = NULL WHERE id = ?", [(one,) for one in ids]
            )
            _forget_builds(connection, ids)
        return Outcome.QUARANTINED, (
            f"the layer is in quarantine{others}; its tar added again makes a new one,"
            " storagedrivers repair --yes removes it"
        )
    try:
        _refuse_mounted(store, ids)
        _refuse_needed(store, layer.id)
        with store.database.transaction() as connection:
            _forget_builds(connection, ids)
        for one in ids:
            with suppress(NotFoundError):  # nobody wanted it any more, and it went with the last
                store.remove(one)
    except (OSError, StorageDriversError) as error:
        return Outcome.LEFT, str(error)
    return Outcome.REMOVED, f"the layer is removed{others}"


def _forget_builds(connection: sqlite3.Connection, layers: list[str]) -> None:
    """What a build would find in the cache is not to lie on a layer that lost something."""
    connection.executemany(
        "DELETE FROM build_cache WHERE layer = ?", [(layer,) for layer in layers]
    )


def _refuse_mounted(store: LayerStore, ids: list[str]) -> None:
    mounted = {record.layer for record in store.mount_table.living()}
    if used := [one for one in ids if one in mounted]:
        raise InUseError(
            f"layer {used[0]} is mounted",
            resolution=f"storagedrivers layer unmount {used[0]}",
        )


def _refuse_needed(store: LayerStore, layer: str) -> None:
    names = [f"container {name}" for name in containers_on(store.database, layer)]
    names += [f"image {name}" for name in images_on(store.database, layer)]
    if names:
        raise InUseError(
            f"layer {layer} is a layer of {', '.join(names)}",
            resolution="remove those first, then load them again",
        )


# Layers that lost nothing


def _mend(store: LayerStore, layer: Layer, findings: list[Finding], *, yes: bool) -> list[Finding]:
    """Put right what can be; the findings that cannot."""
    flaws = {one.subject for one in findings if isinstance(one.subject, FlawKind)}
    driver = store.driver_for(layer.driver)
    if FlawKind.SMALL in flaws or FlawKind.WRITABLE in flaws:
        with store.locked(layer.id):
            driver.mend(layer.id)
            if FlawKind.WRITABLE in flaws:
                driver.seal(layer.id, store.lowers(layer.id))
    if FlawKind.SEALED in flaws:
        store.seal(layer.id)
    unable = [one for one in findings if one.remedy is Remedy.NONE]
    content = [one for one in findings if not isinstance(one.subject, FlawKind)]
    content = [one for one in content if one.remedy is not Remedy.NONE]
    if not yes:
        unable += [one for one in content if one.remedy is Remedy.TAKE_AWAY]
        content = [one for one in content if one.remedy is not Remedy.TAKE_AWAY]
    if content:
        with store.locked(layer.id):
            _refuse_mounted(store, above(store, layer.id))
            _mend_content(store, layer, content)
    return unable


def _mend_content(store: LayerStore, layer: Layer, findings: list[Finding]) -> None:
    from storagedrivers.archive.mend import MENDABLE, mend
    from storagedrivers.archive.verify import What
    from storagedrivers.stores.check import differences_of

    paths = {os.fsencode(one.path[1:]) for one in findings}
    for _ in range(_ROUNDS):
        differences, _ = differences_of(store, layer)
        wanted = [one for one in differences if one.path in paths]
        if not wanted:
            return
        with _writable_root(store, layer) as fd:
            for one in wanted:
                if one.what is What.EXTRA:
                    directory, _, name = one.path.rpartition(b"/")
                    with tree.opened_below(fd, os.fsdecode(directory)) as parent:
                        tree.remove_tree(parent, os.fsdecode(name))
            for one in wanted:
                if one.what in MENDABLE:
                    mend(fd, one)
        # Their directories have another time now, which is to be mended too.
        paths |= {one.path.rpartition(b"/")[0] for one in wanted}


@contextmanager
def _writable_root(store: LayerStore, layer: Layer) -> Iterator[int]:
    """The directory that holds a sealed layer, open and writable."""
    driver = store.driver_for(layer.driver)
    changeset = driver.changeset(layer.id)
    if changeset is not None:
        path = os.fspath(changeset.path)
    else:
        mounts = driver.mounts(layer.id, store.lowers(layer.id), read_only=True)
        if len(mounts) != 1 or mounts[0].type != "bind":
            raise StoreError(f"{driver.name} does not say where the layer's files are")
        path = mounts[0].source
    with tree.opened_directory(path, follow_symlinks=True) as fd:
        sealed = ioctl.is_read_only_subvolume(fd)
        if sealed:
            ioctl.clear_read_only_subvolume(fd)
        try:
            yield fd
        finally:
            if sealed:
                ioctl.set_read_only_subvolume(fd)
