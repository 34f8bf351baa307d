"""A store is a directory: it opens wherever it lies, and holds layers of several drivers."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from capabilities import need
from stored import DRIVERS, release, tar

from storagedrivers.storage import Storage

FILESYSTEM = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "tmpfs"}
BASE = tar(etc_motd="hello\n", etc_other="x")


def fill(storage: Storage) -> None:
    """An image, one that was committed, and a container with a checkpoint and a change."""
    storage.images.import_(io.BytesIO(BASE), name="base", changes=['CMD ["sh"]'])
    storage.containers.create("base", name="box")
    for text in ("first\n", "second\n"):
        with storage.containers.mounted("box") as path:
            (path / "etc/motd").write_text(text)
        if text == "first\n":
            storage.containers.checkpoint("box", "one")
    storage.containers.commit("box", "done")
    with storage.containers.mounted("box") as path:
        (path / "etc/new").write_text("")


def is_whole(storage: Storage) -> None:
    """What :func:`fill` made is all there, and goes on."""
    assert [*storage.check(deep=True)] == []
    assert storage.gc(dry_run=True) == []
    names = sorted(name for image in storage.images.ls() for name in image.names)
    assert names == ["docker.io/library/base:latest", "docker.io/library/done:latest"]
    with storage.images.mounted("done") as path:
        assert (path / "etc/motd").read_text() == "second\n"
    assert [(str(one.kind), one.path) for one in storage.containers.diff("box")] == [
        ("C", b"etc"),
        ("C", b"etc/motd"),
        ("A", b"etc/new"),
    ]
    storage.containers.rollback("box", "one")
    with storage.containers.mounted("box") as path:
        assert (path / "etc/motd").read_text() == "first\n"
    storage.containers.create("done", name="another")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_store_that_was_renamed(
    on_filesystem: Callable[[str], Path], tmp_path: Path, driver: str
) -> None:
    need("root", "mount")
    top = on_filesystem(FILESYSTEM[driver])
    with Storage.open(root=top / "old", run_root=tmp_path / "run", driver=driver) as storage:
        fill(storage)
    (top / "deeper").mkdir()
    (top / "old").rename(top / "deeper/new")
    with Storage.open(root=top / "deeper/new", run_root=tmp_path / "other") as storage:
        assert storage.driver == driver
        is_whole(storage)
    for run in ("run", "other"):
        release(tmp_path / run)


@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
def test_a_copy_of_a_store(
    on_filesystem: Callable[[str], Path], tmp_path: Path, driver: str
) -> None:
    """As a backup makes it: attributes and devices are kept, inodes are not."""
    need("root", "mount", "cp")
    old, new = on_filesystem("ext4"), on_filesystem("xfs")
    with Storage.open(root=old / "root", run_root=tmp_path / "run", driver=driver) as storage:
        fill(storage)
    subprocess.run(["cp", "-a", old / "root", new / "root"], check=True)
    shutil.rmtree(old / "root")
    with Storage.open(root=new / "root", run_root=tmp_path / "run") as storage:
        is_whole(storage)
    release(tmp_path / "run")


def test_two_drivers_in_one_root(on_filesystem: Callable[[str], Path], tmp_path: Path) -> None:
    """Each image keeps its driver, and containers of it have the same."""
    need("root", "mount", "overlay", "btrfs")
    root, run = on_filesystem("btrfs") / "root", tmp_path / "run"
    for driver in ("overlay2", "btrfs-snapshot"):
        with Storage.open(root=root, run_root=run, driver=driver) as storage:
            data = tar(etc_driver=driver)
            storage.images.import_(io.BytesIO(data), name=driver)
    with Storage.open(root=root, run_root=run) as storage:
        assert len(storage.images.ls()) == 2
        assert [one.driver for one in storage.df().drivers] == ["btrfs-snapshot", "overlay2"]
        for driver in ("overlay2", "btrfs-snapshot"):
            container = storage.containers.create(driver)
            assert storage.layers.get(container.layer).driver == driver
            with storage.containers.mounted(container.id) as path:
                assert (path / "etc/driver").read_text() == driver
                (path / "etc/driver").write_text("changed")
            storage.containers.commit(container.id, f"{driver}-changed")
        assert [*storage.check(deep=True)] == []
        assert len(storage.images.ls()) == 4
    release(run)
