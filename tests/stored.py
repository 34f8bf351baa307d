"""Stores in tests: layers to put in, and a look at what is left."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from storagedrivers.linux import mount as mounting
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.storage import Storage

DRIVERS = ("overlay2", "btrfs-snapshot", "vfs-copy")


class Place:
    """A store that is opened anew each time, as a process would.

    Args:
        stride: at how many steps once something goes wrong; those of some drivers are slow.
    """

    def __init__(self, directory: Path, driver: str = "vfs-copy", *, stride: int = 1) -> None:
        self.root, self.run_root, self.driver = directory / "store", directory / "run", driver
        self.stride = stride

    def open(self) -> Storage:
        return Storage.open(root=self.root, run_root=self.run_root, driver=self.driver)

    def do(self, action: Callable[[Storage], object]) -> Callable[[], None]:
        """The action, with a store of its own."""

        def run() -> None:
            with self.open() as storage:
                action(storage)

        return run


def tar(**files: bytes | str) -> bytes:
    """A tar of files; ``_`` in a name stands for a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name.replace("_", "/"))
            entry.size = len(data)
            entry.mtime = 1_700_000_000
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def whiteout(name: str) -> bytes:
    return tar(**{f".wh.{name}": b""})


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def left_on_disk(storage: Storage) -> list[str]:
    """What a store without layers should not hold."""
    found = []
    for directory in ("tars", "locks", *_drivers(storage)):
        path = storage.root / directory
        names = os.listdir(path) if path.exists() else []
        found += [f"{directory}/{name}" for name in names if name not in (".trash", "l")]
        for own in (".trash", "l"):
            if (path / own).is_dir():
                found += [f"{directory}/{own}/{name}" for name in os.listdir(path / own)]
    points = storage.run_root / "mounts"
    if points.exists():
        found += [str(points / name) for name in os.listdir(points)]
    return found


def _drivers(storage: Storage) -> list[str]:
    return [name for name in DRIVERS if (storage.root / name).exists()]


def clean(storage: Storage) -> None:
    """Remove everything, and take the run root's own mount away; then nothing is left."""
    with storage:
        for record in storage.layers.mounts():
            for _ in range(record.times):
                storage.layers.unmount(record.layer)
        storage.build_cache.prune(all=True)
        for layer in reversed(storage.layers.ls()):
            storage.layers.remove(layer.id)
        release(storage.run_root)
        assert left_on_disk(storage) == []


def release(run_root: Path) -> None:
    points = os.path.realpath(run_root / "mounts")
    while points in {entry.mountpoint for entry in read_mountinfo()}:
        mounting.unmount(points)
