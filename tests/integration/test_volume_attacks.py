"""What somebody who is hostile, or only careless, can do to volumes, and what comes of it."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import archives
import pytest
from capabilities import need
from contained import base_image
from mounted import mounted, shared_mount
from processes import forked
from stored import Place, release
from volumed import cleaned, content, fill, is_whole

from storagedrivers.errors import ContainerError, InUseError, NotFoundError, VolumeError
from storagedrivers.linux import stage, syscalls
from storagedrivers.storage import Storage
from storagedrivers.stores import volume_content, volume_removal
from storagedrivers.stores.gc import Kind, find_orphans
from storagedrivers.stores.mounts import is_mounted
from storagedrivers.testing.trees import differences

SMALL = archives.tar(archives.directory(b"./"), archives.file(b"new", b"new"))
IN_MEMORY = {"type": "tmpfs", "device": "tmpfs"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    need("root", "mount")
    with cleaned(Place(tmp_path / "place")) as made:
        yield made


def import_(storage: Storage, name: str, data: bytes = SMALL) -> None:
    storage.volumes.import_(name, io.BytesIO(data))


def set_state(storage: Storage, name: str, state: str) -> None:
    with storage.database.transaction() as connection:
        connection.execute("UPDATE volumes SET state = ? WHERE name = ?", (state, name))


def leave_held(place: Place, name: str) -> None:
    """Leave a volume as a process does that holds it and is killed."""
    ready, told = os.pipe()

    def hold() -> None:
        with place.open() as storage, storage.volumes.used(name):
            os.write(told, b"x")
            signal.pause()

    pid = forked(hold)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def clean_containers(storage: Storage) -> Iterator[None]:
    try:
        yield
    finally:
        for container in storage.containers.ls():
            storage.containers.remove(container.id, force=True)
        for image in storage.images.ls():
            storage.images.remove(image.id)


# Names of files in the store


@pytest.mark.parametrize(
    "name",
    [
        *(b"volume-..", b"volume-.", b"volume-", b"volume-\xff", b"volume--", b"volume-a"),
        *(b"container-..", b"container-.", b"container-", b"container-\xff", b"\xff", b"lease-.."),
    ],
)
def test_a_lock_that_leads_elsewhere(place: Place, name: bytes) -> None:
    """A file that anyone may have put among the locks makes nobody delete anything."""
    with place.open() as storage:
        (Path(storage.volumes.data(storage.volumes.create("one").name)) / "file").write_text("kept")
        directory = os.fsencode(storage.root / "locks")
        os.makedirs(directory, exist_ok=True)
        kept = {*os.listdir(storage.root)}
    with open(os.path.join(directory, name), "wb"):
        pass
    with place.open() as storage:
        assert storage.warnings == ()
        assert {*os.listdir(storage.root)} == kept
        storage.gc()
        assert content(storage, "one")[b"file"]
        assert is_whole(storage) == ["one"]


@pytest.mark.parametrize("name", ["volume-none", "container-none", "none"])
def test_a_lock_that_is_a_directory_closes_no_store(place: Place, name: str) -> None:
    with place.open() as storage:
        (storage.root / "locks" / name).mkdir(parents=True)
    with place.open() as storage:
        assert name.removeprefix("volume-").removeprefix("container-") in storage.warnings[0]
        storage.gc()
    with place.open() as storage:
        assert is_whole(storage) == []


@pytest.mark.parametrize("name", ["..", ".", "", "a/../../x"])
def test_no_directory_but_a_volumes_is_deleted(place: Place, name: str) -> None:
    with place.open() as storage:
        storage.volumes.create("one")
        with pytest.raises(VolumeError):
            volume_removal.delete_directory(storage.volumes, name)
        volume_removal.finish(storage.volumes, name)
        assert "could not be finished" in storage.layers.problems.pop()
        assert is_whole(storage) == ["one"]


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo"])
def test_what_is_no_directory_goes(place: Place, tmp_path: Path, kind: str) -> None:
    """And what a symlink leads to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    with place.open() as storage:
        storage.volumes.create("one")
        stray = storage.root / "volumes/stray"
        if kind == "file":
            stray.write_text("x")
        elif kind == "symlink":
            stray.symlink_to(outside)
        else:
            os.mkfifo(stray)
        assert [one.kind for one in find_orphans(storage.layers)] == [Kind.VOLUME]
        assert [one.problem for one in storage.gc()] == [""]
        assert not os.path.lexists(stray)
    with place.open() as storage:
        assert is_whole(storage) == ["one"]
    assert (outside / "file").read_text() == "kept"


def test_a_file_in_the_place_of_a_volume(place: Place) -> None:
    with place.open() as storage:
        storage.volumes.create("one")
        (storage.root / "volumes/one/_data").rmdir()
        (storage.root / "volumes/one").rmdir()
        (storage.root / "volumes/one").write_text("x")
        assert [one.code for one in storage.check()] == ["missing-volume-directory"]
        storage.gc()
        storage.volumes.remove("one")
        assert is_whole(storage) == []


# Who uses a volume


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_container_without_a_monitor(place: Place, tmp_path: Path, elsewhere: bool) -> None:
    """One whose monitor was killed, or that was started from another run root, is mounted."""
    run_root = tmp_path / "run" if elsewhere else place.run_root
    with (
        place.open() as storage,
        Storage.open(root=place.root, run_root=run_root) as other,
        clean_containers(storage),
    ):
        base_image(storage)
        import_(storage, "data", archives.tar(archives.file(b"old", b"old")))
        container = storage.containers.create("base", mounts=["data:/mnt"])
        other.containers.mount(container.id)
        try:
            with pytest.raises(InUseError, match=container.name):
                import_(storage, "data")
        finally:
            other.containers.unmount(container.id)
            release(run_root)
        assert set(content(storage, "data")) == {b".", b"old"}
        import_(storage, "data")
        assert set(content(storage, "data")) == {b".", b"new"}


def test_a_plain_volume_stays_while_it_is_used(place: Place) -> None:
    with place.open() as storage, place.open() as other:
        storage.volumes.create("one")
        with storage.volumes.used("one") as path:
            for refused in (other.volumes.remove, lambda name: import_(other, name)):
                with pytest.raises(InUseError):
                    refused("one")
            assert other.volumes.prune(all=True) == []
            with other.volumes.used("one") as again:
                assert path == again
            assert path.is_dir()
        import_(other, "one")
        other.volumes.remove("one")
        assert is_whole(storage) == []


def test_who_reads_a_store_uses_its_volumes(place: Place) -> None:
    with place.open() as storage:
        import_(storage, "one")
    with (
        Storage.open(root=place.root, run_root=place.run_root, read_only=True) as storage,
        storage.volumes.used("one") as path,
    ):
        assert os.listdir(path) == ["new"]
    assert not (place.run_root / "volumes/one").exists()


@pytest.mark.parametrize("state", ["creating", "removing"])
@pytest.mark.parametrize("options", [{}, IN_MEMORY])
def test_nobody_gets_what_is_not_there(place: Place, state: str, options: dict[str, str]) -> None:
    """A volume that is about to go, or that somebody else makes, is not mounted any more."""
    from storagedrivers.stores import volume_mounting

    with place.open() as storage:
        volume = storage.volumes.create("one", options=options)
        set_state(storage, "one", state)
        with pytest.raises(NotFoundError):
            volume_mounting.hold(storage.volumes, volume, guarded=True)
        assert not is_mounted(storage.volumes.data("one"))
    with place.open() as storage:
        assert is_whole(storage) == []


def test_what_is_mounted_is_not_discarded(place: Place) -> None:
    with place.open() as storage, place.open() as other:
        storage.volumes.create("one", options=IN_MEMORY)
        with storage.volumes.used("one") as path:
            (path / "file").write_text("kept")
            set_state(other, "one", "removing")
            with other.volumes.locked("one"), pytest.raises(InUseError):
                volume_removal.discard(other.volumes, "one")
            assert (path / "file").read_text() == "kept"
    with place.open() as storage:
        assert is_whole(storage) == []


def test_a_mount_that_no_file_tells_of(place: Place) -> None:
    """Whoever is next to find that something was left unmounts it."""
    with place.open() as storage:
        storage.volumes.create("one", options=IN_MEMORY)
        data = storage.volumes.data("one")
    leave_held(place, "one")
    assert is_mounted(data)
    (place.run_root / "volumes/one").unlink()
    (place.root / "locks/volume-left").touch()
    with place.open() as storage:
        assert not is_mounted(data)
        assert is_whole(storage) == ["one"]


# While a volume is filled


def _take_away(path: Path, outside: Path) -> None:
    path.rename(path.with_name("away"))


def _put_symlink(path: Path, outside: Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to(outside)


def _put_file(path: Path, outside: Path) -> None:
    path.rename(path.with_name("away"))
    path.write_text("x")


@pytest.mark.parametrize("act", [_take_away, _put_symlink, _put_file])
@pytest.mark.parametrize("what", ["new", "like", "new/file", "new/directory", "."])
def test_a_container_takes_away_what_is_staged(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Path, Path], None],
    what: str,
) -> None:
    """Then that is lost to it, but the volume is whole, and nothing outside is touched."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "directory").mkdir(parents=True)
    (source / "file").write_text("x")
    outside.mkdir()
    (outside / "file").write_text("kept")
    os.chown(source, 5, 6)
    move_in = volume_content._move_in

    def hostile(staged: volume_content._Place) -> None:
        (directory,) = Path(storage.volumes.data("one")).glob(".storagedrivers-*")
        act(directory / what if what != "." else directory, outside)
        move_in(staged)

    with place.open() as storage:
        storage.volumes.create("one")
        monkeypatch.setattr(volume_content, "_move_in", hostile)
        fill(storage, "one", source)
        monkeypatch.undo()
        assert storage.database.rows("SELECT state FROM volumes") == [("ready",)]
        assert [one.name for one in os.scandir(outside)] == ["file"]
        assert os.stat(outside).st_uid == os.stat(outside / "file").st_uid == 0
        for left in Path(storage.volumes.data("one")).glob(".storagedrivers-*"):
            assert what == "."  # its own name was taken for something else
            left.unlink()
    with place.open() as storage:
        assert is_whole(storage) == ["one"]


# Mounts below a volume


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host, with a mount in it, that is shared."""
    need("root", "mount")
    directory = tmp_path / "device"
    (directory / "sub").mkdir(parents=True)
    (directory / "late").mkdir()
    with shared_mount(directory), mounted(directory / "sub"):
        (directory / "sub/file").write_text("kept")
        yield directory


@pytest.mark.parametrize("how", ["rbind", "bind"])
def test_what_is_mounted_below_a_volume_goes_with_it(place: Place, device: Path, how: str) -> None:
    """And the host's own mounts stay."""
    with place.open() as storage:
        storage.volumes.create("one", options={"type": "none", "o": how, "device": str(device)})
        data = storage.volumes.data("one")
        with ExitStack() as stack:
            with storage.volumes.used("one") as path:
                assert is_mounted(str(path / "sub")) == (how == "rbind")
                stack.enter_context(mounted(device / "late"))
                assert is_mounted(str(path / "late"))
            assert not is_mounted(data)
            assert is_mounted(str(device / "late"))
        assert (device / "sub/file").read_text() == "kept"
        storage.volumes.remove("one")
        assert is_whole(storage) == []
        assert (device / "sub/file").read_text() == "kept"


def test_a_process_below_a_volume_keeps_it(place: Place, device: Path) -> None:
    with place.open() as storage:
        storage.volumes.create("one", options={"type": "none", "o": "rbind", "device": str(device)})
        with storage.volumes.used("one") as path:
            fd = os.open(path / "sub/file", os.O_RDONLY)
        try:
            with pytest.raises(InUseError):
                storage.volumes.remove("one")
            (found,) = find_orphans(storage.layers)
            assert found.kind is Kind.VOLUME_MOUNT
            (kept,) = storage.gc()
            assert "busy" in kept.problem
        finally:
            os.close(fd)
        assert [one.problem for one in storage.gc()] == [""]
        assert is_whole(storage) == ["one"]


def test_gc_unmounts_what_a_killed_process_left(place: Place, device: Path) -> None:
    with place.open() as storage:
        storage.volumes.create("one", options={"type": "none", "o": "rbind", "device": str(device)})
        leave_held(place, "one")
        assert is_mounted(storage.volumes.data("one"))
        assert [one.problem for one in storage.gc()] == [""]
        assert is_whole(storage) == ["one"]
    assert (device / "sub/file").read_text() == "kept"


@pytest.mark.parametrize("old", [False, True])
def test_no_device_works_below_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """What is mounted in it may hold devices, too; with old kernels as well."""
    need("root", "mount")

    def missing(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if old:
        monkeypatch.setattr(syscalls, "mount_setattr", missing)
    with mounted(tmp_path):
        (tmp_path / "sub").mkdir()
        with mounted(tmp_path / "sub"):
            stage.set_no_devices(str(tmp_path))
            for point in (tmp_path, tmp_path / "sub"):
                assert os.statvfs(point).f_flag & syscalls.MS_NODEV
                os.mknod(point / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
                with pytest.raises(PermissionError):
                    os.open(point / "null", os.O_RDONLY)


# What comes in


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_what_would_be_gone_at_once_is_refused(place: Place, kind: str) -> None:
    with place.open() as storage, clean_containers(storage):
        base_image(storage)
        storage.volumes.create("ram", options={"type": kind, "device": kind})
        with pytest.raises(VolumeError, match="kept in memory") as refused:
            import_(storage, "ram")
        assert refused.value.resolution
        container = storage.containers.create("base", mounts=["ram:/ram", "data:/ram/data"])
        for path in ("/ram", "/ram/x"):
            with pytest.raises(ContainerError, match="kept in memory"):
                storage.containers.copy_in(container.id, io.BytesIO(SMALL), path)
        storage.containers.copy_in(container.id, io.BytesIO(SMALL), "/ram/data")
        assert set(content(storage, "data")) == {b".", b"new"}
        with storage.volumes.used("ram") as path:  # so it stays
            storage.containers.copy_in(container.id, io.BytesIO(SMALL), "/ram")
            assert {*os.listdir(path)} >= {"new"}


def test_what_could_not_be_kept_is_said(place: Place) -> None:
    tar = archives.tar(archives.xattrs({b"bogus.name": b"x"}), archives.file(b"file", b"x"))
    said: list[str] = []
    with place.open() as storage:
        for _ in ("made", "replaced"):
            storage.volumes.import_("one", io.BytesIO(tar), warn=said.append)
        assert len(said) == 2
        assert all("bogus.name" in one for one in said)


def test_an_image_takes_its_own_export(place: Place) -> None:
    """There need not be room for twice as much in it."""
    need("loop", "ext4", "mkfs.ext4")
    size = 8 << 20
    with place.open() as storage:
        storage.volumes.create("one", size=size)
        if not (storage.root / "volumes/one/image").exists():
            pytest.skip("quotas limit volumes here")
        with storage.volumes.used("one") as path:
            (path / "large").write_bytes(os.urandom(size * 3 // 4))
            os.chown(path, 5, 6)
        before = content(storage, "one")
        pieces: list[bytes] = []
        storage.volumes.export("one", lambda data: pieces.append(bytes(data)))
        import_(storage, "one", b"".join(pieces))
        assert differences(before, content(storage, "one")) == []
        assert is_whole(storage) == ["one"]
        with storage.volumes.used("one") as path, pytest.raises(OSError, match="No space") as full:
            (path / "more").write_bytes(bytes(size // 2))  # it has its size still
        assert full.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space"):
            import_(storage, "one", archives.tar(archives.file(b"x", os.urandom(size * 2))))
        assert b"large" in content(storage, "one")
