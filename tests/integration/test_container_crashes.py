"""Containers whose process is killed, or whose disk is full, at every step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from contained import base_image, clean, read, shown, write
from crashes import killed, make_image, out_of_space, shut_down, through_every_step
from stored import Place

from storagedrivers.linux import mount as mounting
from storagedrivers.linux.loop import loop_device
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores import records
from storagedrivers.stores.check import check

FILES = {"f": "written", "usr_a": "changed", "etc_motd": None}
DIFF = ["C /etc", "D /etc/motd", "A /f", "C /usr", "C /usr/a"]


@pytest.fixture(params=["overlay2", "btrfs-snapshot", "vfs-copy"])
def place(request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("mount", *(("overlay",) if request.param == "overlay2" else ()))
    filesystem = "btrfs" if request.param == "btrfs-snapshot" else "tmpfs"
    # The steps of the store are the same; those of the other drivers are far slower.
    stride = 1 if request.param == "overlay2" else 4
    made = Place(on_filesystem(filesystem), request.param, stride=stride)
    with made.open() as storage:
        base_image(storage)
    yield made
    clean(made.open())


every_way = pytest.mark.parametrize("act", [killed, out_of_space])


def is_whole(storage: Storage) -> list[str]:
    """Nothing is half made or left behind, and every container can be used; gives their names."""
    assert storage.warnings == ()
    storage.gc()
    assert [str(finding) for finding in check(storage.layers, deep=True)] == []
    assert records.unused(storage.database) == []
    for table in ("layers", "containers"):
        assert storage.database.rows(f"SELECT id FROM {table} WHERE state != 'ready'") == []
    assert storage.database.rows("SELECT * FROM leases") == []
    rows = {layer.id for layer in storage.layers.ls()}
    assert set(storage.driver_for(storage.driver).layers()) == rows
    assert os.listdir(storage.root / "locks") == []
    containers = storage.containers.ls()
    for container in containers:
        with storage.containers.mounted(container.id):
            pass
    there = storage.root / "containers"
    assert {one.id for one in containers} == set(os.listdir(there))
    return [one.name for one in containers]


def anew(storage: Storage) -> None:
    """A container with changes, and nothing else."""
    for container in storage.containers.ls():
        storage.containers.remove(container.id, force=True)
    storage.containers.create("base", name="one")
    write(storage, "one", **FILES)


@every_way
@pytest.mark.parametrize("first", [True, False])
def test_creating(place: Place, act: Callable[[], None], first: bool) -> None:
    """It is there as a whole, or not at all."""

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) in ([], ["new"])
            for container in storage.containers.ls():
                assert shown(storage.containers.diff(container.id)) == []
                assert read(storage, container.id, "usr/a") == "1"
                storage.containers.remove(container.id)
            if first:  # so that the next one makes the init layer again
                storage.images.remove("base")
                assert storage.layers.ls() == []
                base_image(storage)
            else:
                storage.containers.remove(storage.containers.create("base").id)

    look()
    create = place.do(lambda storage: storage.containers.create("base", name="new"))
    through_every_step(create, act, look, at_least=8, stride=place.stride)


@every_way
@pytest.mark.parametrize("mounted", [False, True])
def test_committing(place: Place, act: Callable[[], None], mounted: bool) -> None:
    """The image is there as a whole, or not at all; the container is as it was."""
    with place.open() as storage:
        anew(storage)

    def commit(storage: Storage) -> None:
        if mounted:
            with storage.containers.mounted("one"):
                storage.containers.commit("one", "done")
        else:
            storage.containers.commit("one", "done")

    def look() -> None:
        with place.open() as storage:
            for record in storage.layers.mounts():
                storage.layers.unmount(record.layer)
            assert is_whole(storage) == ["one"]
            assert shown(storage.containers.diff("one")) == DIFF
            images = [image for image in storage.images.ls() if image.source == "commit"]
            for image in images:
                assert image.names == ("docker.io/library/done:latest",)
                made = storage.containers.create(image.id)
                assert read(storage, made.id, "f") == "written"
                storage.containers.remove(made.id)
            anew(storage)
            for image in images:
                storage.images.remove(image.id)

    through_every_step(place.do(commit), act, look, at_least=25, stride=place.stride)


@every_way
def test_keeping_a_state(place: Place, act: Callable[[], None]) -> None:
    """A checkpoint is there and can be gone back to, or is not there; nothing written is lost."""
    with place.open() as storage:
        anew(storage)

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) == ["one"]
            assert shown(storage.containers.diff("one")) == DIFF
            labels = [one.label for one in storage.containers.checkpoints("one")]
            assert labels in ([], ["a"])
            for label in labels:
                write(storage, "one", f="later")
                storage.containers.rollback("one", label)
                assert read(storage, "one", "f") == "written"
            anew(storage)

    checkpoint = place.do(lambda storage: storage.containers.checkpoint("one", "a"))
    through_every_step(checkpoint, act, look, at_least=15, stride=place.stride)


@every_way
def test_forking(place: Place, act: Callable[[], None]) -> None:
    """The fork is there as a whole, or not at all; what it is one of has all that was written."""
    with place.open() as storage:
        anew(storage)

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) in (["one"], ["one", "two"])
            for container in storage.containers.ls():
                assert shown(storage.containers.diff(container.id)) == DIFF
                write(storage, container.id, f=container.name)
            for container in storage.containers.ls():
                assert read(storage, container.id, "f") == container.name
            anew(storage)

    fork = place.do(lambda storage: storage.containers.fork("one", "two"))
    through_every_step(fork, act, look, at_least=20, stride=place.stride)


@every_way
@pytest.mark.parametrize("how", ["rollback", "reset"])
def test_going_back(place: Place, act: Callable[[], None], how: str) -> None:
    """It is where it was, or where it was to go, and nothing of the other is left."""

    def begin(storage: Storage) -> None:
        anew(storage)
        storage.containers.checkpoint("one", "a")
        write(storage, "one", f="later")

    def back(storage: Storage) -> None:
        if how == "rollback":
            storage.containers.rollback("one", "a")
        else:
            storage.containers.reset("one")

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) == ["one"]
            there = read(storage, "one", "f")
            assert there in ("later", "written" if how == "rollback" else None)
            assert [one.label for one in storage.containers.checkpoints("one")] == ["a"]
            begin(storage)

    with place.open() as storage:
        begin(storage)
    through_every_step(place.do(back), act, look, at_least=8, stride=place.stride)


@every_way
def test_removing(place: Place, act: Callable[[], None]) -> None:
    """It is there as a whole, or is gone as soon as a store is opened."""

    def begin(storage: Storage) -> None:
        anew(storage)
        storage.containers.checkpoint("one", "a")
        write(storage, "one", f="later")

    def look() -> None:
        with place.open() as storage:
            names = is_whole(storage)
            assert names in ([], ["one"])
            if names:
                assert read(storage, "one", "f") == "later"
                storage.containers.rollback("one", "a")
                storage.layers.close()
            else:
                assert len(storage.layers.ls()) == 2  # the image's and its init layer
            begin(storage)

    with place.open() as storage:
        begin(storage)
    remove = place.do(lambda storage: storage.containers.remove("one"))
    through_every_step(remove, act, look, at_least=15, stride=place.stride)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_power_loss(tmp_path: Path, filesystem: str) -> None:
    """What was said to be done is on the disk, and each container goes on."""
    image, mountpoint = tmp_path / "image", tmp_path / "mountpoint"
    make_image(filesystem, image)
    mountpoint.mkdir()
    place = Place(mountpoint, "overlay2")
    place.run_root = tmp_path / "run"
    with loop_device(image) as device:
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with place.open() as storage:
                base_image(storage)
                storage.containers.create("base", name="worked")
                write(storage, "worked", **FILES)
                storage.containers.checkpoint("worked", "one")
                committed = storage.containers.commit("worked", "done").id
                storage.containers.fork("worked", "forked")
                for number in range(5):
                    storage.containers.create("base", name=f"fresh-{number}")
                shut_down(mountpoint)
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with place.open() as storage:
                names = ["forked", *(f"fresh-{number}" for number in range(5)), "worked"]
                assert sorted(is_whole(storage)) == names
                assert shown(storage.containers.diff("forked")) == DIFF
                storage.containers.rollback("worked", "one")
                assert read(storage, "worked", "f") == "written"
                assert storage.images.get("done").id == committed
                storage.containers.create("done", name="more")
            clean(place.open())
