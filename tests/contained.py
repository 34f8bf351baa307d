"""Containers in tests: an image to make them of, and a look at what is left."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import archives
from stored import left_on_disk, release

from storagedrivers.model import Change
from storagedrivers.storage import Storage
from storagedrivers.stores.images import Image

BASE = archives.tar(
    archives.directory(b"etc/", mtime=1_600_000_000),
    archives.file(b"etc/motd", b"hello\n", mtime=1_600_000_000),
    archives.directory(b"usr/"),
    archives.file(b"usr/a", b"1"),
    archives.file(b"usr/b", b"2"),
    archives.symlink(b"usr/link", b"a"),
)


def base_image(storage: Storage, data: bytes = BASE, name: str = "base") -> Image:
    """An image of one layer."""
    changes = ('CMD ["sh"]', "ENV A=1 B=2", "LABEL from=image")
    return storage.images.import_(io.BytesIO(data), name=name, changes=changes)


def shown(changes: Iterable[Change]) -> list[str]:
    """As ``container diff`` prints them."""
    return [f"{change.kind.value} /{os.fsdecode(change.path)}" for change in changes]


def write(storage: Storage, container: str, **files: str | None) -> None:
    """Write files into a container; ``_`` in a name stands for a slash, None deletes."""
    with storage.containers.mounted(container) as path:
        for name, content in files.items():
            file = path / name.replace("_", "/")
            if content is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content)


def read(storage: Storage, container: str, name: str) -> str | None:
    """What a file in a container holds; None where there is none."""
    with storage.containers.opened(container) as root:
        file = Path(f"/proc/self/fd/{root}/{name}")
        return file.read_text() if file.exists() else None


def clean(storage: Storage) -> None:
    """Remove everything, and take the run root's own mount away; then nothing is left."""
    with storage:
        for container in storage.containers.ls():
            storage.containers.remove(container.id, force=True)
        for image in storage.images.ls():
            storage.images.remove(image.id, force=True)
        storage.layers.close()
        assert storage.layers.problems == []
        assert storage.layers.ls() == []
        release(storage.run_root)
        assert left_on_disk(storage) == []
        for directory in (storage.root / "containers", storage.run_root / "containers"):
            assert not directory.exists() or os.listdir(directory) == []
