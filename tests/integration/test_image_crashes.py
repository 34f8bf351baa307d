"""Loading and removing images in a process that is killed, or finds the disk full, anywhere."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from crashes import killed, out_of_space, through_every_step
from image_archives import Made, compressed, digest, docker, image, layout_of, read, write
from stored import clean, left_on_disk, tar

from storagedrivers.storage import Storage

BOTTOM, TOP = tar(a="1", b_c="2"), tar(a="changed", **{".wh.b": ""})
MADE = image(BOTTOM, TOP, files=(compressed(BOTTOM), TOP))
OTHER = image(BOTTOM, config={})
NAME = "docker.io/library/thing:1"


class Place:
    """A store that is opened anew each time, as a process would."""

    def __init__(self, directory: Path) -> None:
        self.root, self.run_root = directory / "store", directory / "run"

    def open(self) -> Storage:
        return Storage.open(root=self.root, run_root=self.run_root, driver="overlay2")


@pytest.fixture
def place(on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("mount", "overlay", "tmpfs")
    place = Place(on_filesystem("tmpfs"))
    yield place
    with place.open() as storage:
        storage.images.prune(all=True)
        storage.gc()
    clean(place.open())


def check_whole(storage: Storage, made: Made) -> None:
    """An image that is shown has all that it needs, and nobody has anything else."""
    (found,) = storage.images.ls()
    assert found.id == made.id
    out = io.BytesIO()
    storage.images.save([found.id], out.write)
    files = read(out.getvalue())
    for blob in made.blobs if found.manifest else (made.config,):
        assert files[f"blobs/sha256/{digest(blob)[7:]}"] == blob


def check_nothing_else(storage: Storage, blobs: int) -> None:
    assert storage.gc(dry_run=True) == []
    assert storage.database.rows("SELECT * FROM leases") == []
    assert os.listdir(storage.root / "tmp") == []
    kept = storage.root / "images/sha256"
    assert len(os.listdir(kept) if kept.exists() else []) == blobs
    if not storage.images.ls():
        assert storage.layers.ls() == []
        assert left_on_disk(storage) == []


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_loading(place: Place, tmp_path: Path, act: Callable[[], None]) -> None:
    """There is the image or none; and what is left of it serves the next time."""
    path = write(layout_of(MADE, NAME), tmp_path / "image.tar")

    def load() -> None:
        with place.open() as storage:
            storage.images.load(path)

    def look() -> None:
        with place.open() as storage:
            if storage.images.ls():
                assert storage.images.get(NAME).id == MADE.id
                check_whole(storage, MADE)
            storage.gc()
            check_nothing_else(storage, 3 if storage.images.ls() else 0)
            storage.images.load(path)
            check_whole(storage, MADE)
            storage.images.remove(NAME)
            check_nothing_else(storage, 0)

    place.open().close()
    through_every_step(load, act, look, at_least=30)


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_removing(place: Place, tmp_path: Path, act: Callable[[], None]) -> None:
    """Either image is whole or gone; what they share stays as long as one is there."""
    paths = [
        write(layout_of(MADE, NAME), tmp_path / "one.tar"),
        write(docker(OTHER, "other"), tmp_path / "two.tar"),
    ]
    with place.open() as storage:
        for path in paths:
            storage.images.load(path)

    def remove() -> None:
        with place.open() as storage:
            storage.images.remove(NAME)

    def look() -> None:
        with place.open() as storage:
            storage.gc()
            names = [name for one in storage.images.ls() for name in one.names]
            there = NAME in names
            assert names == (["docker.io/library/other:latest"] + [NAME] * there)
            storage.images.remove("other")
            if there:
                check_whole(storage, MADE)
            check_nothing_else(storage, 3 if there else 0)
            for path in paths:
                storage.images.load(path)

    through_every_step(remove, act, look, at_least=10)


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_getting_another_manifest(place: Place, tmp_path: Path, act: Callable[[], None]) -> None:
    """The image has the one with all its files, or the other."""
    plain = image(BOTTOM, TOP)
    assert plain.id == MADE.id
    before = write(layout_of(plain, NAME), tmp_path / "plain.tar")
    after = write(layout_of(MADE, NAME), tmp_path / "compressed.tar")
    with place.open() as storage:
        storage.images.load(before)

    def load() -> None:
        with place.open() as storage:
            storage.images.load(after)

    def look() -> None:
        with place.open() as storage:
            storage.gc()
            compressed_now = storage.images.get(NAME).manifest == digest(MADE.manifest)
            check_whole(storage, MADE if compressed_now else plain)
            check_nothing_else(storage, 3 if compressed_now else 2)
            storage.images.load(before)
            check_nothing_else(storage, 2)

    through_every_step(load, act, look, at_least=10)
