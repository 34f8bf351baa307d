"""Volumes in tests: stores that are opened anew each time, and a look at what is left of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stored import Place, release

from storagedrivers.model import Volume
from storagedrivers.storage import Storage
from storagedrivers.stores import locks
from storagedrivers.stores.mounts import is_mounted
from storagedrivers.testing.trees import Tree, read_tree

IMAGE = "sha256:" + "1" * 64


def is_whole(storage: Storage) -> list[str]:
    """Nothing is half made or left behind; gives the names of the volumes."""
    assert storage.warnings == ()
    assert storage.database.rows("SELECT name FROM volumes WHERE state != 'ready'") == []
    held = storage.root / "locks"
    assert not held.exists() or os.listdir(held) == []
    users = storage.run_root / "volumes"
    assert not [one for one in users.glob("*") if locks.is_locked(str(one))]
    names = [volume.name for volume in storage.volumes.ls()]
    home = storage.root / "volumes"
    assert sorted(os.listdir(home) if home.exists() else ()) == names
    for name in names:
        assert {"_data"} == {*os.listdir(home / name)} - {"image"}, os.listdir(home / name)
        with storage.volumes.used(name) as path:
            assert not [one for one in os.listdir(path) if one.startswith(".storagedrivers-")]
        assert not is_mounted(str(home / name / "_data"))
    return names


def content(storage: Storage, name: str) -> Tree:
    """What a volume holds."""
    with storage.volumes.used(name) as path:
        return read_tree(path)


def fill(storage: Storage, volume: Volume | str, source: Path, image: str = IMAGE) -> object:
    """Fill a volume as a container's creation does."""
    if isinstance(volume, str):
        volume = storage.volumes.get(volume)
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return storage.volumes.fill(volume, fd, image)
    finally:
        os.close(fd)


@contextmanager
def cleaned(place: Place) -> Iterator[Place]:
    """Remove all volumes in the end; then nothing is left."""
    yield place
    with place.open() as storage:
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name)
        assert not storage.volumes.ls()
        home = storage.root / "volumes"
        assert not home.exists() or os.listdir(home) == []
        release(storage.run_root)
