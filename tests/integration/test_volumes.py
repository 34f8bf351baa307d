"""Volumes: made, found, used, limited, removed; on the filesystems that hosts have."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from processes import child, forked, succeeded
from stored import release

from storagedrivers.errors import (
    AlreadyExistsError,
    DriverNotFoundError,
    InUseError,
    NotFoundError,
    ReadOnlyError,
    StorageDriversError,
    VolumeError,
)
from storagedrivers.linux import loop
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Volume
from storagedrivers.storage import Storage
from storagedrivers.stores import volume_mounting
from storagedrivers.stores import volume_records as records
from storagedrivers.testing.filesystems import loop_filesystem

MEGABYTE = 1 << 20
FILESYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")
IN_MEMORY = {"type": "tmpfs", "device": "tmpfs"}

Opener = Callable[[], Storage]


def opened(directory: Path) -> Storage:
    return Storage.open(root=directory / "root", run_root=directory / "run", driver="vfs-copy")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with opened(tmp_path) as storage:
        yield storage
        clean(storage)


@pytest.fixture(params=FILESYSTEMS)
def any_storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Storage]:
    with opened(on_filesystem(request.param)) as storage:
        yield storage
        clean(storage)


def clean(storage: Storage) -> None:
    """Remove everything; then nothing is left."""
    with storage.database.transaction() as connection:
        connection.execute("DELETE FROM container_volumes")
    for container in storage.containers.ls():
        storage.containers.remove(container.id, force=True)
    for volume in storage.volumes.ls():
        storage.volumes.remove(volume.name, force=True)
    storage.layers.close()
    release(storage.run_root)
    assert nothing_is_left(storage)


def nothing_is_left(storage: Storage) -> bool:
    found = []
    for directory in (
        storage.root / "volumes",
        storage.root / "locks",
        storage.run_root / "volumes",
    ):
        found += os.listdir(directory) if directory.exists() else []
    assert found == []
    return True


def use(storage: Storage, container: str, *volumes: str) -> str:
    """A container that uses volumes, as its making writes it."""
    made = storage.containers.create(None, name=container)
    with storage.database.transaction() as connection:
        records.use(connection, made.id, [(f"/{name}", name) for name in volumes])
    return made.id


def mountpoints() -> set[str]:
    return {entry.mountpoint for entry in read_mountinfo()}


def write_until_full(path: Path) -> int:
    """How many bytes a file can get in a directory."""
    written = 0
    fd = os.open(path / "full", os.O_WRONLY | os.O_CREAT)
    try:
        while written < 512 * MEGABYTE:
            written += os.write(fd, b"x" * (64 << 10))
            if written % MEGABYTE == 0:
                os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(fd)
    return written


# Making and finding


def test_a_volume_is_a_directory_that_stays(any_storage: Storage) -> None:
    """What is written to it is there when the store is opened again."""
    volumes = any_storage.volumes
    made = volumes.create("db", labels={"a": "b"})
    assert (made.name, made.driver, made.labels, made.anonymous) == (
        "db",
        "local",
        {"a": "b"},
        False,
    )
    assert abs(made.created - time.time()) < 60
    assert volumes.is_empty("db")
    status = os.stat(volumes.data("db"))
    assert (status.st_mode & 0o7777, status.st_uid) == (0o755, 0)
    assert os.stat(volumes.directory("db")).st_mode & 0o7777 == 0o700
    assert volumes.data("db") == str(any_storage.root / "volumes/db/_data")
    with volumes.used("db") as path:
        assert str(path) == volumes.data("db")
        (path / ".hidden").write_text("kept")
    assert not volumes.is_empty("db")
    with opened(any_storage.root.parent) as again:
        assert again.volumes.get("db") == made
        assert again.volumes.ls() == [made]
        with again.volumes.used("db") as path:
            assert (path / ".hidden").read_text() == "kept"


def test_the_umask_of_the_program_does_not_matter(storage: Storage) -> None:
    """A data directory can be entered by every user of a container."""
    before = os.umask(0o077)
    try:
        storage.volumes.create("db")
    finally:
        os.umask(before)
    assert os.stat(storage.volumes.data("db")).st_mode & 0o7777 == 0o755


def test_on_btrfs_a_volume_is_a_subvolume(on_filesystem: Callable[[str], Path]) -> None:
    """So it can be cloned and limited; removing it leaves none."""
    with opened(on_filesystem("btrfs")) as storage:
        storage.volumes.create("db")
        assert os.stat(storage.volumes.data("db")).st_ino == 256
        (Path(storage.volumes.data("db")) / "file").write_text("1")
        clean(storage)


def test_creating_what_is_there_returns_it(storage: Storage) -> None:
    """As Docker does: its labels stay, and what it holds; options are looked at all the same."""
    made = storage.volumes.create("db", labels={"a": "1"})
    (Path(storage.volumes.data("db")) / "file").touch()
    assert storage.volumes.create("db", labels={"b": "2"}) == made
    assert not storage.volumes.is_empty("db")
    with pytest.raises(VolumeError, match="invalid option"):
        storage.volumes.create("db", options={"x": "1"})


def test_a_volume_without_a_name_gets_one(storage: Storage) -> None:
    """64 hexadecimal digits, another each time."""
    names = {storage.volumes.create(anonymous=True).name for _ in range(3)}
    assert len(names) == 3
    assert all(len(name) == 64 and int(name, 16) >= 0 for name in names)
    assert all(volume.anonymous for volume in storage.volumes.ls())


@pytest.mark.parametrize(
    "name", ["", "a", "../x", "a/b", "-a", ".a", "a b", "ä1", "a" * 241, "a\n"]
)
def test_a_name_that_is_none_is_refused(storage: Storage, name: str) -> None:
    """Before it becomes a path, wherever it is given."""
    with pytest.raises(StorageDriversError):
        storage.volumes.create(name)
    for find in (storage.volumes.get, storage.volumes.hold, storage.volumes.remove):
        with pytest.raises(NotFoundError):
            find(name)
    with pytest.raises(StorageDriversError):
        storage.volumes.data(name)
    assert not (storage.root / "volumes").exists() or os.listdir(storage.root / "volumes") == []


def test_the_longest_name_works(storage: Storage) -> None:
    """Its lock has a file of its own, with a longer name."""
    storage.volumes.create("a" * 240)
    storage.volumes.remove("a" * 240)


def test_an_unknown_volume_is_told(storage: Storage) -> None:
    """With what to do."""
    with pytest.raises(NotFoundError, match="there is no volume 'nope'") as caught:
        storage.volumes.get("nope")
    assert caught.value.resolution == "storagedrivers volume ls lists those there are"


def test_a_store_for_reading_shows_and_makes_nothing(storage: Storage, tmp_path: Path) -> None:
    """Also where a volume would have to be mounted."""
    storage.volumes.create("db")
    storage.volumes.create("mem", options=IN_MEMORY)
    with Storage.open(root=storage.root, run_root=tmp_path / "run", read_only=True) as reading:
        assert [one.name for one in reading.volumes.ls()] == ["db", "mem"]
        with reading.volumes.used("db") as path:
            assert path.is_dir()
        for action in (lambda: reading.volumes.create("x1"), lambda: reading.volumes.hold("mem")):
            with pytest.raises(ReadOnlyError):
                action()


def test_what_a_power_loss_left_without_a_row_is_no_obstacle(storage: Storage) -> None:
    """A directory can reach the disk before its row; what is in it is nobody's."""
    directory = storage.root / "volumes/db/_data"
    directory.mkdir(parents=True)
    (directory / "stray").touch()
    storage.volumes.create("db")
    assert storage.volumes.is_empty("db")


# Removing


def test_removing_takes_all_of_it(any_storage: Storage) -> None:
    """Whatever is in it."""
    any_storage.volumes.create("db")
    data = Path(any_storage.volumes.data("db"))
    (data / "a/b").mkdir(parents=True)
    (data / "a/b/file").write_text("1")
    (data / "link").symlink_to("/etc")
    any_storage.volumes.remove("db")
    assert any_storage.volumes.ls() == []
    assert nothing_is_left(any_storage)
    assert os.path.exists("/etc/passwd")


def test_removing_what_is_not_there(storage: Storage) -> None:
    """Is an error, unless by force."""
    with pytest.raises(NotFoundError):
        storage.volumes.remove("db")
    storage.volumes.remove("db", force=True)


def test_a_volume_that_containers_use_stays(storage: Storage) -> None:
    """Also by force; the error names them, in the order in which they were made."""
    storage.volumes.create("db")
    first, second = use(storage, "web", "db"), use(storage, "backup", "db")
    assert storage.volumes.users("db") == ["web", "backup"]
    for force in (False, True):
        with pytest.raises(
            InUseError, match="volume db is in use by containers web, backup"
        ) as caught:
            storage.volumes.remove("db", force=force)
        assert caught.value.holders == ("web", "backup")
    for container in (first, second):
        with storage.database.transaction() as connection:
            records.forget_uses(connection, container)
    storage.volumes.remove("db")


def test_a_container_cannot_use_a_volume_that_goes(storage: Storage) -> None:
    """Who removed it was faster: then there is no such container."""
    container = storage.containers.create(None)
    with pytest.raises(NotFoundError, match="the volume db was removed"):
        with storage.database.transaction() as connection:
            records.use(connection, container.id, [("/db", "db")])


# In use


def test_a_mounted_volume_is_there_as_long_as_someone_holds_it(storage: Storage) -> None:
    """The last who lets go unmounts it."""
    need("mount", "tmpfs")
    volumes = storage.volumes
    volumes.create("mem", options=IN_MEMORY)
    data = volumes.data("mem")
    first, second = volumes.hold("mem"), volumes.hold("mem")
    assert first.path == second.path == data
    Path(data, "file").write_text("1")
    first.release()
    first.release()
    assert Path(data, "file").read_text() == "1"
    with pytest.raises(InUseError, match="is in use by another process"):
        volumes.remove("mem")
    assert volumes.prune(all=True) == []
    second.release()
    assert data not in mountpoints()
    assert os.listdir(data) == []
    assert volumes.is_empty("mem")


def test_a_killed_user_uses_nothing(storage: Storage) -> None:
    """Its mount goes with the next who holds, removes or asks for it."""
    need("mount", "tmpfs")
    volumes = storage.volumes
    volumes.create("mem", options=IN_MEMORY)

    def use_and_die() -> None:
        Path(volumes.hold("mem").path, "file").touch()

    assert succeeded(forked(use_and_die))
    assert volumes.data("mem") in mountpoints()
    assert volumes.unmount_idle() == ["mem"]
    assert volumes.data("mem") not in mountpoints()
    assert succeeded(forked(use_and_die))
    with volumes.used("mem") as path:
        assert os.listdir(path) == [], "a tmpfs that nobody used begins anew"
    assert succeeded(forked(use_and_die))
    volumes.remove("mem")
    assert not [point for point in mountpoints() if point.startswith(str(storage.root))]


def test_what_is_busy_stays_mounted_and_is_told(storage: Storage) -> None:
    """A shell that stands in it keeps no container from starting, but the volume from going."""
    need("mount", "tmpfs")
    volumes = storage.volumes
    volumes.create("mem", options=IN_MEMORY)
    held = volumes.hold("mem")
    with child("import os, sys; os.chdir(sys.argv[1])", held.path) as pid:
        held.release()
        with volumes.used("mem") as path:
            assert path.is_dir()
        with pytest.raises(InUseError, match=r"cannot be unmounted: .*_data is busy") as caught:
            volumes.remove("mem")
        assert any(str(pid) in str(one) for one in caught.value.holders)
    assert volumes.unmount_idle() == ["mem"]


def test_many_processes_hold_one_volume(storage: Storage) -> None:
    """It is mounted as long as one of them has it, and never twice."""
    need("mount", "tmpfs")
    storage.volumes.create("mem", options=IN_MEMORY)
    data, directory = storage.volumes.data("mem"), storage.root.parent

    def hold_often() -> None:
        with opened(directory) as mine:
            for _ in range(10):
                with mine.volumes.used("mem") as path:
                    number = [entry.mountpoint for entry in read_mountinfo()].count(str(path))
                    assert number == 1, number

    children = [forked(hold_often) for _ in range(4)]
    assert [*map(succeeded, children)] == [True] * 4
    assert data not in mountpoints()


# Options


def test_a_bind_shows_a_directory_of_the_host(storage: Storage, tmp_path: Path) -> None:
    """Its owner and mode stay; removing the volume leaves it alone."""
    need("mount")
    source = tmp_path / "source"
    source.mkdir(mode=0o750)
    os.chown(source, 12, 34)
    (source / "file").write_text("host")
    options = {"type": "none", "device": str(source), "o": "bind"}
    storage.volumes.create("host", options=options)
    with storage.volumes.used("host") as path:
        assert (path / "file").read_text() == "host"
        (path / "new").touch()
    assert not storage.volumes.is_empty("host")
    storage.volumes.remove("host")
    status = source.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, 12, 34)
    assert sorted(os.listdir(source)) == ["file", "new"]


def test_options_of_the_mount_are_kept(storage: Storage) -> None:
    """Read-only, noexec and what the filesystem itself takes."""
    need("mount", "tmpfs")
    options = {**IN_MEMORY, "o": "size=2m,uid=1000,noexec,ro,exec,nosuid"}
    storage.volumes.create("mem", options=options)
    with storage.volumes.used("mem") as path:
        entry = next(one for one in read_mountinfo() if one.mountpoint == str(path))
        assert {"ro", "nosuid", "size=2048k", "uid=1000"} <= {*entry.options}
        assert "noexec" not in entry.options


def test_a_file_with_a_filesystem_gets_a_loop_device(storage: Storage, tmp_path: Path) -> None:
    """One for all who use it: two caches of one filesystem would destroy it."""
    need("mount", "loop", "ext4", "mkfs.ext4")
    image = tmp_path / "disk.img"
    image.touch()
    os.truncate(image, 32 * MEGABYTE)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    options = {"type": "ext4", "device": str(image)}
    for name in ("one", "two"):
        storage.volumes.create(name, options=options)
    with storage.volumes.used("one") as one, storage.volumes.used("two") as two:
        (one / "file").write_text("1")
        assert (two / "file").read_text() == "1"
        with loop.loop_device(image) as device:
            sources = {
                entry.source
                for entry in read_mountinfo()
                if entry.mountpoint in (str(one), str(two))
            }
            assert sources == {device}


@pytest.mark.parametrize(
    ("options", "words", "resolution"),
    [
        (
            {"type": "nosuchfs", "device": "/dev/null"},
            "No such device",
            "the kernel has no filesystem",
        ),
        ({"type": "ext4", "device": "/nowhere"}, "", "/nowhere"),
        (
            {"type": "none", "device": "/nowhere", "o": "bind"},
            "No such file or directory",
            "/nowhere",
        ),
        ({"type": "tmpfs", "device": "tmpfs", "o": "what=ever"}, "Invalid argument", "dmesg"),
        (
            {"type": "nfs", "device": ":/x", "o": "addr=no.invalid"},
            "'no.invalid' has no address",
            "addr=",
        ),
    ],
)
def test_what_cannot_be_mounted_is_told(
    storage: Storage, options: dict[str, str], words: str, resolution: str
) -> None:
    """When it is used; it can be removed, and nothing is mounted."""
    need("mount")
    storage.volumes.create("bad", options=options)
    with pytest.raises(VolumeError, match="volume bad cannot be mounted") as caught:
        storage.volumes.hold("bad")
    assert words in caught.value.brief
    assert resolution in (caught.value.resolution or "")
    assert storage.volumes.data("bad") not in mountpoints()
    storage.volumes.remove("bad")


def test_a_password_is_not_told(storage: Storage) -> None:
    """Options of a network filesystem may hold one."""
    need("mount")
    options = {"type": "none", "device": "/nowhere", "o": "bind,password=secret"}
    storage.volumes.create("bad", options=options)
    with pytest.raises(VolumeError) as caught:
        storage.volumes.hold("bad")
    told = (caught.value.brief, caught.value.details, caught.value.resolution)
    assert not any("secret" in (text or "") for text in told)


# Sizes


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "tmpfs"])
def test_an_image_limits_where_nothing_else_does(
    on_filesystem: Callable[[str], Path], filesystem: str
) -> None:
    """An ext4 of its own, with as much room as was asked for; two volumes keep their own."""
    need("mount", "loop", "ext4", "mkfs.ext4")
    with opened(on_filesystem(filesystem)) as storage:
        for name, size in (("small", 3), ("large", 64)):
            storage.volumes.create(name, size=size * MEGABYTE)
            assert storage.volumes.is_empty(name)
        for name, size in (("small", 3), ("large", 64)):
            assert storage.volumes.get(name).size == size * MEGABYTE
            with storage.volumes.used(name) as path:
                written = write_until_full(path)
                assert abs(written - size * MEGABYTE) <= 2 * MEGABYTE
                assert os.stat(path).st_mode & 0o7777 == 0o755
            with storage.volumes.used(name) as path:
                assert os.path.getsize(path / "full") == written
        clean(storage)


@pytest.fixture
def btrfs_with_quotas(tmp_path: Path, nothing_left: None) -> Iterator[Path]:
    need("mount", "loop", "btrfs", "mkfs.btrfs")
    with loop_filesystem("btrfs", tmp_path) as mountpoint:
        subprocess.run(["btrfs", "quota", "enable", str(mountpoint)], check=True)
        yield mountpoint


def qgroups(mountpoint: Path) -> list[str]:
    command = ["btrfs", "qgroup", "show", "-r", "--raw", str(mountpoint)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if line.startswith("0/")]


def test_a_qgroup_limits_on_btrfs(btrfs_with_quotas: Path) -> None:
    """Each volume has its own, which goes with it."""
    need("btrfs")
    before = len(qgroups(btrfs_with_quotas))
    with opened(btrfs_with_quotas / "store") as storage:
        for name, size in (("small", 8), ("large", 64)):
            storage.volumes.create(name, size=size * MEGABYTE)
            assert os.listdir(storage.volumes.directory(name)) == ["_data"]
        for name, size in (("small", 8), ("large", 64)):
            written = write_until_full(Path(storage.volumes.data(name)))
            assert abs(written - size * MEGABYTE) <= 2 * MEGABYTE
        limits = " ".join(qgroups(btrfs_with_quotas))
        assert f" {8 * MEGABYTE}" in limits
        assert f" {64 * MEGABYTE}" in limits
        clean(storage)
    for verb in ("filesystem", "subvolume"):  # the cleaner sleeps until a commit wakes it
        subprocess.run(["btrfs", verb, "sync", str(btrfs_with_quotas)], check=True)
    assert len(qgroups(btrfs_with_quotas)) == before


def test_quotas_are_never_switched_on(on_filesystem: Callable[[str], Path]) -> None:
    """On a btrfs without them an image does it."""
    need("mount", "loop", "ext4", "mkfs.ext4", "btrfs")
    with opened(on_filesystem("btrfs")) as storage:
        storage.volumes.create("db", size=4 * MEGABYTE)
        assert sorted(os.listdir(storage.volumes.directory("db"))) == ["_data", "image"]
        command = ["btrfs", "qgroup", "show", str(storage.root)]
        assert subprocess.run(command, check=False, capture_output=True).returncode
        clean(storage)


@pytest.mark.parametrize("by_option", [True, False])
def test_a_tmpfs_has_its_size(storage: Storage, by_option: bool) -> None:
    """As an option of the driver as well as by itself."""
    need("mount", "tmpfs")
    options = {**IN_MEMORY, **({"size": "2m"} if by_option else {})}
    made = storage.volumes.create("mem", options=options, size=None if by_option else 2 * MEGABYTE)
    assert made.size == 2 * MEGABYTE
    with storage.volumes.used("mem") as path:
        assert write_until_full(path) == 2 * MEGABYTE


def test_a_size_that_nothing_can_enforce_is_refused(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason of each that could; nothing is left."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(VolumeError, match="nothing here can limit the volume db") as caught:
        storage.volumes.create("db", size=4 * MEGABYTE)
    details = caught.value.details or ""
    assert "btrfs qgroups: the graph root is on another filesystem" in details
    assert "project quotas: the filesystem is not mounted with prjquota" in details
    assert "mkfs.ext4 is not installed" in details
    assert storage.volumes.ls() == []
    assert nothing_is_left(storage)


def test_no_loop_devices_are_a_reason(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that may not use them."""
    need("ext4", "mkfs.ext4")

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(loop, "loop_device", refused)
    with pytest.raises(VolumeError) as caught:
        storage.volumes.create("db", size=4 * MEGABYTE)
    assert "there are no loop devices, or they may not be used" in (caught.value.details or "")
    assert nothing_is_left(storage)


# Drivers


def test_a_volume_of_another_driver_has_the_name(storage: Storage) -> None:
    """Then neither is made."""
    storage.volumes.create("db")
    with storage.database.transaction() as connection:
        connection.execute("UPDATE volumes SET driver = 'gone'")
    with pytest.raises(AlreadyExistsError, match="there is a volume db of the driver gone already"):
        storage.volumes.create("db")


def test_a_driver_that_is_gone(storage: Storage) -> None:
    """What it made is shown, and goes by force only."""
    storage.volumes.create("db")
    with storage.database.transaction() as connection:
        connection.execute("UPDATE volumes SET driver = 'gone'")
    assert [one.driver for one in storage.volumes.ls()] == ["gone"]
    for action in (storage.volumes.hold, storage.volumes.remove):
        with pytest.raises(DriverNotFoundError, match="no volume driver is named 'gone'"):
            action("db")
    storage.volumes.remove("db", force=True)
    assert storage.volumes.ls() == []


def test_a_driver_that_is_not_there_makes_nothing(storage: Storage) -> None:
    """The nearest is named."""
    with pytest.raises(DriverNotFoundError) as caught:
        storage.volumes.create("db", driver="locals")
    assert caught.value.resolution == "did you mean local?"
    assert storage.volumes.ls() == []


# Filters and locks


def test_filters(storage: Storage) -> None:
    """As Docker's: values of one kind are alternatives, but labels all must hold."""
    for name, labels in (("db", {"a": "1"}), ("db-2", {"a": "2", "b": ""}), ("web", {})):
        storage.volumes.create(name, labels=labels)
    use(storage, "one", "db")

    def names(*filters: str) -> list[str]:
        return [one.name for one in storage.volumes.ls(filters=filters)]

    assert names() == ["db", "db-2", "web"]
    assert names("dangling=true") == ["db-2", "web"]
    assert names("dangling=false") == ["db"]
    assert names("dangling=false", "dangling=1") == ["db", "db-2", "web"]
    assert names("name=db") == ["db", "db-2"]
    assert names("name=web", "name=-2") == ["db-2", "web"]
    assert names("driver=local", "label=a") == ["db", "db-2"]
    assert names("label=a", "label=b") == ["db-2"]
    assert names("label=a=1") == ["db"]
    assert names("label!=a") == ["web"]
    assert names("driver=other") == []
    for wrong in ("dangling=maybe", "what=ever", "name", ""):
        with pytest.raises(VolumeError, match="is no filter of volumes"):
            names(wrong)


def test_prune_waits_for_nobody(storage: Storage) -> None:
    """One that someone has begun to make a container with stays."""
    storage.volumes.create("db")
    storage.volumes.create("web")

    def prune() -> None:
        with opened(storage.root.parent) as other:
            assert [one.name for one in other.volumes.prune(all=True, dry_run=True)] == ["web"]
            assert [one.name for one in other.volumes.prune(all=True)] == ["web"]

    with storage.volumes.locked("db"), storage.volumes.locked("db"):
        assert succeeded(forked(prune))
    assert [one.name for one in storage.volumes.ls()] == ["db"]


def test_a_lock_is_the_threads(storage: Storage) -> None:
    """Who holds it can use and remove the volume."""
    storage.volumes.create("mem", options=IN_MEMORY)
    with storage.volumes.locked("mem"):
        storage.volumes.hold("mem").release()
        storage.volumes.remove("mem")


def test_another_volume_of_the_name_is_not_taken(storage: Storage) -> None:
    """Who pruned looked at one that is gone meanwhile."""
    from storagedrivers.stores import volume_removal

    old = storage.volumes.create("db")
    storage.volumes.remove("db")
    new = storage.volumes.create("db")
    with pytest.raises(NotFoundError):
        volume_removal.remove(storage.volumes, old)
    assert storage.volumes.get("db") == new


def test_who_dies_holding_is_no_user(storage: Storage) -> None:
    """The kernel drops what a process held."""
    storage.volumes.create("mem", options=IN_MEMORY)
    with storage.volumes.used("mem"):
        assert volume_mounting.is_held(str(storage.run_root), "mem")
    assert not volume_mounting.is_held(str(storage.run_root), "mem")


def test_a_moved_store_has_its_volumes(tmp_path: Path) -> None:
    """No path is kept."""
    (tmp_path / "before").mkdir()
    with opened(tmp_path / "before") as storage:
        storage.volumes.create("db", size=2 * MEGABYTE)
        with storage.volumes.used("db") as path:
            (path / "file").write_text("kept")
        release(storage.run_root)
    (tmp_path / "before").rename(tmp_path / "after")
    with opened(tmp_path / "after") as storage:
        with storage.volumes.used("db") as path:
            assert (path / "file").read_text() == "kept"
        clean(storage)


def test_values_are_what_was_given(storage: Storage) -> None:
    """A volume is a value that says all that is known of it."""
    labels, options = {"a": "ä\n", "keep": ""}, {**IN_MEMORY, "o": "size=1m"}
    made = storage.volumes.create("mem", labels=labels, options=options)
    assert made == Volume("mem", "local", made.created, labels, options)
    assert storage.volumes.get("mem") == made


def test_a_volume_that_someone_works_on_is_not_waited_for(storage: Storage) -> None:
    """Nor is a file that is no volume's: what was left mounted is somebody else's to find."""
    need("mount", "tmpfs")
    storage.volumes.create("mem", options=IN_MEMORY)
    storage.volumes.hold("mem").release()
    users = storage.run_root / "volumes"
    for name in ("mem", "-no-name"):
        (users / name).touch()
    with storage.volumes.locked("mem"):

        def look() -> None:
            with opened(storage.root.parent) as other:
                assert other.volumes.unmount_idle() == []

        assert succeeded(forked(look))
    assert storage.volumes.unmount_idle() == ["mem"]
    (users / "-no-name").unlink()
