"""Volumes whose process is killed, or whose disk is full, at every step; power loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from crashes import killed, make_image, out_of_space, shut_down, through_every_step
from stored import Place, release

from storagedrivers.linux import mount as mounting
from storagedrivers.linux.loop import loop_device
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount, Volume
from storagedrivers.storage import Storage
from storagedrivers.stores import volume_records as records

MEGABYTE = 1 << 20
KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "tmpfs": {"options": {"type": "tmpfs", "device": "tmpfs"}},
    "image": {"size": 2 * MEGABYTE},
}

every_way = pytest.mark.parametrize("act", [killed, out_of_space])


def make_volume(storage: Storage, kind: str, name: str = "db") -> Volume:
    return storage.volumes.create(name, **KINDS[kind])  # type: ignore[arg-type]


@pytest.fixture(params=["tmpfs", "btrfs"])
def place(request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("mount")
    made = Place(on_filesystem(request.param))
    made.open().close()
    yield made
    with made.open() as storage:
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name)
        assert is_whole(storage) == []
        release(storage.run_root)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "image":
        need("loop", "ext4", "mkfs.ext4")
    return str(request.param)


def is_whole(storage: Storage) -> list[str]:
    """Nothing is half made or left behind, and every volume can be used; gives their names."""
    assert storage.warnings == ()
    assert storage.database.rows("SELECT name FROM volumes WHERE state != 'ready'") == []
    assert os.listdir(storage.root / "locks") == []
    storage.volumes.unmount_idle()
    mounted = {entry.mountpoint for entry in read_mountinfo()}
    assert not [point for point in mounted if point.startswith(str(storage.root))]
    names = [volume.name for volume in storage.volumes.ls()]
    home = storage.root / "volumes"
    assert names == (sorted(os.listdir(home)) if home.exists() else [])
    for name in names:
        with storage.volumes.used(name) as path:
            (path / ".probe").touch()
            (path / ".probe").unlink()
    users = storage.run_root / "volumes"
    assert not users.exists() or os.listdir(users) == []
    return names


@every_way
def test_creating(place: Place, kind: str, act: Callable[[], None]) -> None:
    """It is there as a whole, or not at all."""

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) in ([], ["db"])
            for volume in storage.volumes.ls():
                assert volume.size == KINDS[kind].get("size")
                assert storage.volumes.is_empty("db")
                assert os.stat(storage.volumes.data("db")).st_mode & 0o7777 == 0o755
                storage.volumes.remove("db")

    create = place.do(lambda storage: make_volume(storage, kind))
    through_every_step(create, act, look, at_least=5)


@every_way
def test_removing(place: Place, kind: str, act: Callable[[], None]) -> None:
    """It is gone, or has all that it held."""

    def again() -> None:
        with place.open() as storage:
            make_volume(storage, kind)
            with storage.volumes.used("db") as path:
                (path / "directory").mkdir(exist_ok=True)
                (path / "directory/file").write_text("kept")

    def look() -> None:
        with place.open() as storage:
            if is_whole(storage) == ["db"] and kind != "tmpfs":
                with storage.volumes.used("db") as path:
                    assert (path / "directory/file").read_text() == "kept"
        again()

    again()
    remove = place.do(lambda storage: storage.volumes.remove("db"))
    through_every_step(remove, act, look, at_least=4)


@every_way
@pytest.mark.parametrize("mounted", ["tmpfs", "image"])
def test_using(place: Place, mounted: str, act: Callable[[], None]) -> None:
    """What a killed user has mounted is taken away by the next; what it wrote is there."""
    need("loop", "ext4", "mkfs.ext4")
    with place.open() as storage:
        make_volume(storage, mounted)
        with storage.volumes.used("db") as path:
            (path / "file").write_text("kept")

    def use(storage: Storage) -> None:
        with storage.volumes.used("db") as path:
            (path / "file").exists()

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) == ["db"]
            if mounted == "image":
                with storage.volumes.used("db") as path:
                    assert (path / "file").read_text() == "kept"

    through_every_step(place.do(use), act, look, at_least=5)


@every_way
def test_pruning(place: Place, act: Callable[[], None]) -> None:
    """Some are gone and some are there, and never a named one."""

    def again(storage: Storage) -> None:
        for number in range(3):
            storage.volumes.create(f"anonymous-{number}", anonymous=True)
        storage.volumes.create("named")
        storage.volumes.create("kept", labels={"keep": ""}, anonymous=True)

    def look() -> None:
        with place.open() as storage:
            assert {"named", "kept"} <= {*is_whole(storage)}
            again(storage)

    place.do(again)()
    through_every_step(
        place.do(lambda storage: storage.volumes.prune()), act, look, at_least=12, stride=2
    )


def test_a_lost_directory_closes_no_store(place: Place) -> None:
    """A volume whose directory is gone is for ``check`` to tell."""
    with place.open() as storage:
        storage.volumes.create("db")
        data = Path(storage.volumes.data("db"))
        data.rmdir()
        (place.root / "locks/volume-db").touch()
    with place.open() as storage:
        assert storage.warnings == ()
        storage.volumes.remove("db")


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_power_loss(filesystem: str, tmp_path: Path) -> None:
    """What was made stays, what was removed is gone or whole."""
    image, mountpoint = tmp_path / "disk.img", tmp_path / "mount"
    make_image(filesystem, image)
    mountpoint.mkdir()
    place = Place(mountpoint)
    place.run_root = tmp_path / "run"
    with loop_device(image) as device:
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with place.open() as storage:
                for number in range(5):
                    storage.volumes.create(f"volume-{number}")
                storage.volumes.create("limited", size=2 * MEGABYTE)
                storage.volumes.remove("volume-3")
                release(storage.run_root)
            shut_down(mountpoint)
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with place.open() as storage:
                names = ["limited", *(f"volume-{number}" for number in (0, 1, 2, 4))]
                assert is_whole(storage) == names
                assert records.state(storage.database, "volume-3") is None
                for name in names:
                    storage.volumes.remove(name)
                release(storage.run_root)
