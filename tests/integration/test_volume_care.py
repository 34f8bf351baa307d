"""check, repair, gc, df and owner of volumes: what belongs to no one, is lost, or is used."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capabilities import need
from contained import base_image, clean
from processes import forked

from storagedrivers.errors import InUseError
from storagedrivers.linux import mount
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores import locks, volume_removal
from storagedrivers.stores.check import Severity
from storagedrivers.stores.gc import Kind, collect, find_orphans
from storagedrivers.stores.repair import Outcome
from storagedrivers.stores.usage import volume_usage


@pytest.fixture(params=["ext4", "btrfs"])
def storage(
    on_filesystem: Callable[[str], Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Storage]:
    """A store; nothing is left of it."""
    need("mount", "overlay")
    root = on_filesystem(request.param) / "store"
    with Storage.open(root=root, run_root=tmp_path / "run", driver="overlay2") as opened:
        yield opened
        for container in opened.containers.ls():
            opened.containers.remove(container.id, force=True)
        for volume in opened.volumes.ls():
            opened.volumes.remove(volume.name)
        assert find_orphans(opened.layers) == []
    clean(Storage.open(root=root, run_root=tmp_path / "run"))


def found(storage: Storage) -> dict[str, Kind]:
    """Orphans by their path in the store."""
    return {
        os.path.relpath(one.path, storage.root): one.kind for one in find_orphans(storage.layers)
    }


def codes(storage: Storage) -> list[str]:
    return [one.code for one in storage.check()]


def set_state(storage: Storage, name: str, state: str) -> None:
    with storage.database.transaction() as connection:
        connection.execute("UPDATE volumes SET state = ? WHERE name = ?", (state, name))


def mounted(path: str) -> bool:
    return path in {entry.mountpoint for entry in read_mountinfo()}


# gc


def test_volumes_are_no_orphans(storage: Storage) -> None:
    base_image(storage)
    storage.volumes.create("db", size=2 << 20)
    storage.volumes.create(anonymous=True)
    storage.containers.create("base", mounts=["data:/etc", "/own"])
    assert found(storage) == {}
    assert codes(storage) == []
    with storage.volumes.used("db"):
        assert found(storage) == {}
    storage.gc()
    assert len(storage.volumes.ls()) == 4


def test_a_directory_without_a_volume_goes(storage: Storage) -> None:
    storage.volumes.create("db")
    for name in ("db", "lost", "sp ace", "é", "x"):
        data = storage.root / "volumes" / name / "_data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "f").write_text("x")
    names = ("lost", "sp ace", "é", "x")
    assert found(storage) == {f"volumes/{name}": Kind.VOLUME for name in names}
    assert codes(storage) == ["orphan-volume"] * 4
    assert {one.problem for one in storage.gc(dry_run=True)} == {""}
    assert len(found(storage)) == 4
    assert [one.problem for one in storage.gc()] == [""] * 4
    assert os.listdir(storage.root / "volumes") == ["db"]
    assert (storage.root / "volumes/db/_data/f").exists()


def test_a_volume_in_the_making_is_no_orphan(storage: Storage) -> None:
    (storage.root / "volumes/new").mkdir(parents=True)
    lock = locks.try_lock(storage.volumes.lock_path("new"))
    assert lock is not None
    try:
        assert found(storage) == {}
        assert codes(storage) == []
    finally:
        lock.release()
    assert found(storage) == {"volumes/new": Kind.VOLUME}
    storage.gc()


@pytest.mark.parametrize("state", ["creating", "removing"])
def test_what_a_killed_process_left_half_made_is_finished(storage: Storage, state: str) -> None:
    storage.volumes.create("db")
    set_state(storage, "db", state)
    assert found(storage) == {"volumes/db": Kind.VOLUME_ROW}
    (finding,) = storage.check()
    assert (finding.code, finding.severity, finding.layer) == ("half-made", Severity.WARNING, "")
    assert [one.outcome for one in storage.repair()] == [Outcome.DONE]
    assert os.listdir(storage.root / "volumes") == []
    assert storage.volumes.ls() == []
    assert codes(storage) == []


def test_what_was_on_its_way_into_a_volume_goes(storage: Storage) -> None:
    storage.volumes.create("db")
    directory = storage.root / "volumes/db"
    (directory / "_data/f").write_text("kept")
    (directory / "_import").mkdir()
    (directory / "_import/f").write_text("new")
    assert found(storage) == {"volumes/db/_import": Kind.VOLUME_PART}
    assert codes(storage) == ["orphan-volume-part"]
    with storage.volumes.locked("db"):
        assert found(storage) == {}
    assert [one.problem for one in storage.gc()] == [""]
    assert os.listdir(directory) == ["_data"]
    assert (directory / "_data/f").read_text() == "kept"


@contextmanager
def holding(storage: Storage, name: str) -> Iterator[int]:
    """A process that uses a volume, and is killed."""
    ready, told = os.pipe()

    def hold() -> None:
        with storage.volumes.used(name):
            os.write(told, b"x")
            signal.pause()

    pid = forked(hold)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_mount_that_a_killed_process_left_goes(storage: Storage) -> None:
    storage.volumes.create("scratch", options={"type": "tmpfs", "device": "tmpfs"})
    data = os.path.realpath(storage.volumes.data("scratch"))
    with holding(storage, "scratch"):
        assert mounted(data)
        assert found(storage) == {}
        assert codes(storage) == []
    assert mounted(data)
    assert found(storage) == {"volumes/scratch/_data": Kind.VOLUME_MOUNT}
    assert codes(storage) == ["orphan-volume-mount"]
    (orphan,) = find_orphans(storage.layers)
    with storage.volumes.used("scratch"):  # who uses it since it was found keeps it
        [*collect(storage.layers, [orphan], storage.volumes)]
        assert mounted(data)
    assert not mounted(data)
    assert found(storage) == {}


def test_what_is_mounted_is_not_deleted(storage: Storage, tmp_path: Path) -> None:
    """Not even in a directory that belongs to no one."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("kept")
    lost = storage.root / "volumes/lost/_data"
    lost.mkdir(parents=True)
    with mount.mounted([Mount("bind", str(outside), options=("bind",))], lost):
        (orphan,) = find_orphans(storage.layers)
        assert "mounted at" in orphan.in_use
        (kept,) = collect(storage.layers, [orphan._replace(in_use="")], storage.volumes)
        assert kept.problem
    assert (outside / "f").read_text() == "kept"
    storage.layers.problems.clear()
    assert [one.problem for one in storage.gc()][-1] == ""
    assert found(storage) == {}


# check, repair


def test_a_lost_directory_is_found_and_made_anew_on_request(storage: Storage) -> None:
    storage.volumes.create("db")
    storage.volumes.create("other", size=2 << 20)
    with storage.volumes.used("other") as path:
        (path / "f").write_text("kept")
    storage.volumes.create("gone")
    for name in ("db", "gone"):
        volume_removal.delete_directory(storage.volumes, name)
    findings = [*storage.check()]
    assert [one.code for one in findings] == ["missing-volume-directory"] * 2
    assert {one.severity for one in findings} == {Severity.ERROR}
    assert {one.outcome for one in storage.repair()} == {Outcome.LEFT}
    assert {one.outcome for one in storage.repair(yes=True)} == {Outcome.DONE}
    assert codes(storage) == []
    assert storage.volumes.is_empty("db")
    with storage.volumes.used("other") as path:
        assert (path / "f").read_text() == "kept"


def test_a_lost_mountpoint_costs_nothing_that_lies_elsewhere(storage: Storage) -> None:
    storage.volumes.create("db", options={"type": "tmpfs", "device": "tmpfs"})
    os.rmdir(storage.volumes.data("db"))
    assert codes(storage) == ["missing-volume-directory"]
    storage.repair(yes=True)
    assert storage.volumes.is_empty("db")
    assert codes(storage) == []


def test_a_container_whose_volume_is_gone_is_found(storage: Storage) -> None:
    base_image(storage)
    box = storage.containers.create("base", name="box", mounts=["db:/data"])
    with storage.database.transaction() as connection:  # as an old backup of a database has it
        connection.execute("DELETE FROM container_volumes")
    storage.volumes.remove("db")
    (finding,) = storage.check()
    assert finding.code == "missing-volume"
    assert "container box uses the volume db" in finding.message
    assert [one.outcome for one in storage.repair(yes=True)] == [Outcome.LEFT]
    storage.volumes.create("db")
    assert codes(storage) == []
    storage.containers.remove(box.id)


# df, owner


def test_usage_says_who_uses_what(storage: Storage) -> None:
    base_image(storage)
    storage.volumes.create("limited", size=2 << 20)
    storage.volumes.create("plain")
    for name in ("one", "two"):
        storage.containers.create("base", name=name, mounts=["plain:/a", "plain:/b"])
    listed = {one.name: one for one in volume_usage(storage.layers)}
    assert (listed["limited"].limit, listed["limited"].containers) == (2 << 20, 0)
    assert (listed["plain"].limit, listed["plain"].containers) == (None, 2)
    assert {one.bytes for one in listed.values()} == {None}
    with storage.volumes.used("plain") as path:
        (path / "f").write_bytes(b"x" * 1_000_000)
    os.sync()
    walked = {one.name: one for one in volume_usage(storage.layers, measure=storage.volumes.usage)}
    assert 1_000_000 <= (walked["plain"].bytes or 0) < 1_100_000
    assert storage.df().volumes == [*listed.values()]


def test_owner_of_every_place(storage: Storage) -> None:
    base_image(storage)
    storage.containers.create("base", name="box", mounts=["db:/data"])
    directory = storage.root / "volumes/db"
    places = {directory: "", directory / "_data": "/", directory / "_data/a/b": "/a/b"}
    for path, inside in places.items():
        owner = storage.owner(path)
        assert owner is not None
        assert (owner.kind, owner.volume, owner.known) == ("volume", "db", True)
        assert (owner.containers, owner.is_orphan) == (("box",), False)
        assert owner.inside == inside
    lock = storage.owner(storage.volumes.lock_path("db"))
    assert lock is not None
    assert (lock.kind, lock.volume, lock.is_orphan) == ("lock", "db", False)
    run = storage.owner(storage.run_root / "volumes/db")
    assert run is not None
    assert run.volume == "db"
    lost = storage.owner(storage.root / "volumes/lost/_data/f")
    assert lost is not None
    assert (lost.volume, lost.is_orphan) == ("lost", True)
    top = storage.owner(storage.root / "volumes")
    assert top is not None
    assert top.kind == "store"


def test_a_used_volume_is_not_removed_by_anyone(storage: Storage) -> None:
    base_image(storage)
    storage.containers.create("base", name="box", mounts=["db:/data"])
    with pytest.raises(InUseError, match="container box"):
        storage.volumes.remove("db")
    assert storage.volumes.prune(all=True) == []
    storage.gc()
    assert [one.name for one in storage.volumes.ls()] == ["db"]
