"""A volume driver of another package: called in the right order, with what it needs to know."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from capabilities import need
from stored import release

from storagedrivers import extensions
from storagedrivers.errors import AlreadyExistsError, VolumeError
from storagedrivers.extensions import Extension
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount, Volume
from storagedrivers.storage import Storage
from storagedrivers.volume_driver import VolumeDriver
from storagedrivers.volume_registry import GROUP

calls: list[tuple[str, str]] = []


class Ram(VolumeDriver):
    """In memory, with a directory below: two mounts."""

    name = "ram"

    def check(self, options: Mapping[str, str], size: int | None, directory: Path) -> None:
        calls.append(("check", ",".join(options)))
        assert directory.is_dir()
        if "bad" in options:
            raise VolumeError("bad is no good")

    def size(self, options: Mapping[str, str]) -> int | None:
        return int(options["pages"]) * 4096 if "pages" in options else None

    def create(self, volume: Volume, directory: Path) -> None:
        calls.append(("create", volume.name))
        assert os.listdir(directory) == ["_data"]
        (directory / "note").write_text(volume.name)
        if "late" in volume.options:
            raise VolumeError("too late")

    def mounts(self, volume: Volume, directory: Path) -> tuple[Mount, ...]:
        assert (directory / "note").read_text() == volume.name
        first = Mount("tmpfs", "ram", options=(f"size={volume.size or 4096}",))
        if "broken" in volume.options:
            return (first, Mount("nosuchfs", "ram"))
        return (first, Mount("tmpfs", "second", options=("ro",)))

    def remove(self, volume: Volume, directory: Path) -> None:
        calls.append(("remove", volume.name))


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    need("mount", "tmpfs")
    calls.clear()
    real, ram = extensions.load, [Extension("ram", "x:Ram", Ram)]
    monkeypatch.setattr(
        extensions, "load", lambda group: iter(ram) if group == GROUP else real(group)
    )
    with Storage.open(
        root=tmp_path / "root", run_root=tmp_path / "run", driver="vfs-copy"
    ) as opened:
        yield opened
        for volume in opened.volumes.ls():
            opened.volumes.remove(volume.name)
        release(opened.run_root)
        assert not mounts(opened)


def mounts(storage: Storage) -> list[str]:
    """What is mounted of volumes, in order."""
    data = f"{storage.root}/volumes/"
    return [entry.source for entry in read_mountinfo() if entry.mountpoint.startswith(data)]


def test_the_life_of_a_volume(storage: Storage) -> None:
    """It is checked, made, mounted, unmounted and removed."""
    made = storage.volumes.create("db", driver="ram", options={"pages": "3"})
    assert (made.driver, made.size) == ("ram", 3 * 4096)
    with storage.volumes.used("db") as path:
        assert mounts(storage) == ["ram", "second"]
        assert os.statvfs(path).f_flag & os.ST_RDONLY
    assert mounts(storage) == []
    storage.volumes.remove("db")
    assert calls == [("check", "pages"), ("create", "db"), ("remove", "db")]


def test_what_it_refuses_is_not_made(storage: Storage) -> None:
    """Before and after something is on the disk."""
    for option, words in (("bad", "bad is no good"), ("late", "too late")):
        with pytest.raises(VolumeError, match=words):
            storage.volumes.create("db", driver="ram", options={option: "1"})
        assert storage.volumes.ls() == []
        assert os.listdir(storage.root / "volumes") == []
    assert calls[-1] == ("remove", "db"), "what it made elsewhere can go too"


def test_half_of_its_mounts_are_taken_back(storage: Storage) -> None:
    """Where the second fails, the first goes."""
    storage.volumes.create("db", driver="ram", options={"broken": "1"})
    with pytest.raises(VolumeError, match="nosuchfs of ram: No such device"):
        storage.volumes.hold("db")
    assert mounts(storage) == []


def test_two_sizes_are_refused(storage: Storage) -> None:
    """Unless they are the same."""
    with pytest.raises(VolumeError, match="two sizes were given"):
        storage.volumes.create("db", driver="ram", options={"pages": "3"}, size=5)
    assert storage.volumes.create("db", driver="ram", options={"pages": "3"}, size=3 * 4096).size


def test_a_name_belongs_to_one_driver(storage: Storage) -> None:
    """Whoever was first."""
    storage.volumes.create("db", driver="ram")
    with pytest.raises(AlreadyExistsError, match="of the driver ram already"):
        storage.volumes.create("db")
