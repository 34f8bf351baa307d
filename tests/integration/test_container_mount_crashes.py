"""Containers with volumes whose process is killed, or whose disk is full, at every step."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from capabilities import need
from contained import clean
from crashes import killed, make_image, out_of_space, shut_down, through_every_step
from stored import Place

from storagedrivers.linux import mount as mounting
from storagedrivers.linux.loop import loop_device
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores.container_mounts import mounts_of
from storagedrivers.stores.containers import Container

IMAGE = archives.tar(
    archives.directory(b"data/", mode=0o750, uid=12, gid=34),
    archives.file(b"data/a", b"1"),
    archives.directory(b"data/sub/"),
    archives.file(b"data/sub/b", b"22"),
    archives.directory(b"more/"),
    archives.symlink(b"more/link", b"a"),
)
CONTENT = {"/data": ["a", "sub", "sub/b"], "/more": ["link"], "/old": ["a", "sub", "sub/b"]}

every_way = pytest.mark.parametrize("act", [killed, out_of_space])


@pytest.fixture(params=["overlay2", "btrfs-snapshot"])
def place(request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("root", "mount", *(("overlay",) if request.param == "overlay2" else ()))
    filesystem = "btrfs" if request.param == "btrfs-snapshot" else "tmpfs"
    # The steps of the store are the same; those of the other drivers are far slower.
    stride = 1 if request.param == "overlay2" else 5
    made = Place(on_filesystem(filesystem), request.param, stride=stride)
    with made.open() as storage:
        storage.images.import_(io.BytesIO(IMAGE), name="base", changes=("VOLUME /data",))
        # The steps of the image's first container are those of its init layer.
        storage.containers.remove(storage.containers.create("base").id, volumes=True)
    yield made
    storage = made.open()
    for container in storage.containers.ls():
        storage.containers.remove(container.id)
    for volume in storage.volumes.ls():
        storage.volumes.remove(volume.name)
    clean(storage)


def create(storage: Storage) -> Container:
    """A container with an anonymous volume, a new one, and one that is there."""
    mounts = ["new:/more:ro", "type=volume,source=old,target=/old,volume-nocopy"]
    return storage.containers.create("base", name="one", mounts=mounts)


def content(storage: Storage, volume: str) -> list[str]:
    """The paths in a volume."""
    data = Path(storage.volumes.data(volume))
    return sorted(str(one.relative_to(data)) for one in data.rglob("*"))


def is_whole(storage: Storage) -> tuple[list[str], list[str]]:
    """Nothing is half made or left behind, and the rows say who uses what; gives the names of
    containers and of volumes, that of an anonymous one as ``*``.
    """
    assert storage.warnings == ()
    there = {*os.listdir(storage.root / "volumes")}
    storage.gc()  # empty directories of containers, and layers, wait for it
    assert [*storage.check()] == []
    for table in ("layers", "containers", "volumes"):
        assert storage.database.rows(f"SELECT * FROM {table} WHERE state != 'ready'") == []
    assert os.listdir(storage.root / "locks") == []
    containers, volumes = storage.containers.ls(), storage.volumes.ls()
    assert {one.name for one in volumes} == there
    assert {one.id for one in containers} == set(os.listdir(storage.root / "containers"))
    uses = {
        (one.id, mount.target, mount.name)
        for one in containers
        for mount in mounts_of(one)
        if mount.name
    }
    assert {*storage.database.rows("SELECT container, target, volume FROM container_volumes")} == (
        uses
    )
    for volume in volumes:
        by = [one.name for one in containers if volume.name in {m.name for m in mounts_of(one)}]
        assert storage.volumes.users(volume.name) == by
    return [one.name for one in containers], sorted(
        "*" if one.anonymous else one.name for one in volumes
    )


def anew(storage: Storage) -> None:
    """No container, and one volume with content of its own."""
    for container in storage.containers.ls():
        storage.containers.remove(container.id)
    for volume in storage.volumes.ls():
        storage.volumes.remove(volume.name)
    storage.volumes.create("old")
    (Path(storage.volumes.data("old")) / "own").touch()


@every_way
def test_creating(place: Place, act: Callable[[], None]) -> None:
    """The container and all of its volumes are there, filled; or neither it nor any of them."""

    def look() -> None:
        with place.open() as storage:
            names, volumes = is_whole(storage)
            if names:
                assert (names, volumes) == (["one"], ["*", "new", "old"])
                for mount in mounts_of(storage.containers.get("one")):
                    expected = ["own"] if mount.name == "old" else CONTENT[mount.target]
                    assert content(storage, mount.name) == expected
            else:
                assert volumes == ["old"]
            assert content(storage, "old") == ["own"]
            anew(storage)

    with place.open() as storage:
        anew(storage)
    look()
    through_every_step(place.do(create), act, look, at_least=30, stride=place.stride)


@every_way
def test_filling_one_that_is_there(place: Place, act: Callable[[], None]) -> None:
    """It is empty or filled as a whole, whether or not there is the container."""

    def begin(storage: Storage) -> None:
        anew(storage)
        os.unlink(Path(storage.volumes.data("old")) / "own")

    def look() -> None:
        with place.open() as storage:
            names, volumes = is_whole(storage)
            assert volumes == (["*", "old"] if names else ["old"])
            full = content(storage, "old") == CONTENT["/old"]
            assert full or (names, content(storage, "old")) == ([], [])
            status = os.stat(storage.volumes.data("old"))
            expected = (12, 34, 0o40750) if full else (0, 0, 0o40755)
            assert (status.st_uid, status.st_gid, status.st_mode) == expected
            begin(storage)

    with place.open() as storage:
        begin(storage)
    fill = place.do(
        lambda storage: storage.containers.create("base", name="one", mounts=["old:/data", "/more"])
    )
    through_every_step(fill, act, look, at_least=30, stride=place.stride)


def test_who_has_the_store_open_goes_on(place: Place) -> None:
    """A volume that a killed process has left half filled is filled when another one uses it."""
    with place.open() as storage:

        def begin() -> None:
            anew(storage)
            os.unlink(Path(storage.volumes.data("old")) / "own")

        def look() -> None:
            storage.containers.create("base", mounts=["old:/data"])
            assert content(storage, "old") == CONTENT["/data"]
            begin()

        begin()
        fill = place.do(lambda own: own.containers.create("base", mounts=["old:/data"]))
        through_every_step(fill, killed, look, at_least=30, stride=place.stride)
        storage.gc()


@every_way
@pytest.mark.parametrize("volumes", [True, False])
def test_removing(place: Place, act: Callable[[], None], volumes: bool) -> None:
    """Its own volume is there as long as it is, and goes with it if that was asked for."""

    def begin(storage: Storage) -> None:
        anew(storage)
        create(storage)

    def look() -> None:
        with place.open() as storage:
            names, there = is_whole(storage)
            stays = ["*"] if names or not volumes else []
            assert there == [*stays, "new", "old"]
            for volume in storage.volumes.ls():
                if volume.anonymous:
                    assert content(storage, volume.name) == CONTENT["/data"]
            begin(storage)

    with place.open() as storage:
        begin(storage)
    remove = place.do(lambda storage: storage.containers.remove("one", volumes=volumes))
    through_every_step(remove, act, look, at_least=15, stride=place.stride)


@every_way
def test_forking(place: Place, act: Callable[[], None]) -> None:
    """The fork is there with a volume of its own, or neither of both is."""

    def begin(storage: Storage) -> None:
        anew(storage)
        create(storage)

    def look() -> None:
        with place.open() as storage:
            names, volumes = is_whole(storage)
            assert names in (["one"], ["one", "two"])
            assert volumes == [*("*" for _ in names), "new", "old"]
            for name in names:
                (own,) = (m for m in mounts_of(storage.containers.get(name)) if m.target == "/data")
                assert content(storage, own.name) == CONTENT["/data"]
            begin(storage)

    with place.open() as storage:
        begin(storage)
    fork = place.do(lambda storage: storage.containers.fork("one", "two"))
    through_every_step(fork, act, look, at_least=20, stride=place.stride)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_power_loss(tmp_path: Path, filesystem: str) -> None:
    """A container that was made has its volumes, with all that the image brought."""
    image, mountpoint = tmp_path / "image", tmp_path / "mountpoint"
    make_image(filesystem, image)
    mountpoint.mkdir()
    place = Place(mountpoint, "overlay2")
    place.run_root = tmp_path / "run"
    with loop_device(image) as device:
        with mounting.mounted([Mount(filesystem, device)], mountpoint), place.open() as storage:
            storage.images.import_(io.BytesIO(IMAGE), name="base", changes=("VOLUME /data",))
            storage.volumes.create("old")
            storage.containers.create("base", name="one", mounts=["new:/more", "old:/data/sub"])
            storage.containers.fork("one", "two")
            storage.containers.remove(storage.containers.create("base").id, volumes=True)
            shut_down(mountpoint)
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with place.open() as storage:
                assert is_whole(storage) == (["one", "two"], ["*", "*", "new", "old"])
                for volume in storage.volumes.ls():
                    expected = {"new": ["link"], "old": ["b"]}.get(volume.name, CONTENT["/data"])
                    assert content(storage, volume.name) == expected
                anew(storage)
                storage.volumes.remove("old")
            clean(place.open())
