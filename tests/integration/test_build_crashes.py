"""Builds, and prunes of their cache, in a process that is killed or finds the disk full."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from crashes import killed, out_of_space, through_every_step
from stored import Place, clean, left_on_disk

from storagedrivers.build.events import Event, StepDone
from storagedrivers.linux.scratch import SCRATCH
from storagedrivers.storage import Storage

DOCKERFILE = """\
FROM scratch
WORKDIR /srv
COPY one /srv/
LABEL a=b
COPY two /srv/
"""
EPOCH = 1_700_000_000
FILES = 3  # steps that make a layer


@pytest.fixture
def place(on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("root", "mount", "overlay", "tmpfs")
    made = Place(on_filesystem("tmpfs"), "overlay2")
    yield made
    with made.open() as storage:
        storage.images.prune(all=True)
        storage.gc()
    # A trial that was killed is removed when it is old: its process could be another's by then.
    for left in (made.root / "overlay2").glob(f"{SCRATCH}*"):
        shutil.rmtree(left)
    clean(made.open())


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "Dockerfile").write_text(DOCKERFILE)
    for name in ("one", "two"):
        (made / name).write_text(name)
    return made


def build(storage: Storage, context: Path) -> tuple[str, int]:
    """The image's id, and how many layers the cache had."""
    done: list[StepDone] = []

    def note(event: Event) -> None:
        if isinstance(event, StepDone):
            done.append(event)

    image = storage.build(context, source_date_epoch=EPOCH, on_event=note)
    words = ("WORKDIR", "COPY")
    return image.id, sum(one.cached for one in done if one.step.word in words)


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_building(place: Place, context: Path, act: Callable[[], None]) -> None:
    """The next build goes on from the last step that was finished, to the same image."""
    with place.open() as storage:
        expected, _ = build(storage, context)
        empty(storage)
    seen = set()

    def look() -> None:
        with place.open() as storage:
            assert storage.warnings == ()
            known = len(storage.build_cache.ls())
            seen.add(known)
            assert build(storage, context) == (expected, known)
            assert storage.database.rows("SELECT * FROM leases") == []
            storage.gc()  # what had no entry yet
            assert [*storage.check(deep=True)] == []
            assert len(storage.layers.ls()) == FILES
            empty(storage)

    through_every_step(
        lambda: act_on(place, lambda storage: build(storage, context)),
        act,
        look,
        at_least=30,
        stride=7,
    )
    assert seen == set(range(FILES + 1))


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_pruning(place: Place, context: Path, act: Callable[[], None]) -> None:
    """Nothing is left that ``gc`` does not find, and what is left in the cache is whole."""
    with place.open() as storage:
        expected, _ = build(storage, context)
        storage.images.prune(all=True)

    def look() -> None:
        with place.open() as storage:
            known = len(storage.build_cache.ls())
            assert build(storage, context) == (expected, known)
            storage.images.prune(all=True)
            storage.gc()
            assert [*storage.check(deep=True)] == []
            assert len(storage.layers.ls()) == len(storage.build_cache.ls()) == FILES

    through_every_step(
        lambda: act_on(place, lambda storage: storage.build_cache.prune()),
        act,
        look,
        at_least=10,
        stride=4,
    )


def act_on(place: Place, action: Callable[[Storage], object]) -> None:
    with place.open() as storage:
        action(storage)


def empty(storage: Storage) -> None:
    storage.images.prune(all=True)
    storage.build_cache.prune(all=True)
    storage.layers.close()
    assert storage.layers.ls() == []
    assert [one for one in left_on_disk(storage) if SCRATCH not in one] == []
