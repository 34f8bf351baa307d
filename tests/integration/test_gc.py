"""gc: everything that belongs to no one is found and removed, and nothing else; df and owner."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from capabilities import need
from processes import child, forked
from stored import DRIVERS, clean, left_on_disk, release

from storagedrivers.errors import ReadOnlyError
from storagedrivers.linux import mount
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores import locks
from storagedrivers.stores.check import Remedy, check
from storagedrivers.stores.gc import Kind, collect, find_orphans
from storagedrivers.stores.making import new_id
from storagedrivers.stores.owner import find_owner
from storagedrivers.stores.usage import driver_usage, filesystem, layer_usage
from storagedrivers.testing.trees import read_tree

TAR = archives.tar(
    archives.directory(b"d/"), archives.file(b"d/f", b"x" * 10_000), archives.symlink(b"l", b"/d/f")
)
NO_PROCESS = 4_194_305  # beyond the largest pid

Opener = Callable[[str], Storage]


@pytest.fixture
def open_storage(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Opener]:
    """Opens a store by driver; it is left empty."""
    opened: list[Storage] = []

    def get(driver: str) -> Storage:
        need("mount")
        filesystem = "btrfs" if driver == "btrfs-snapshot" else "ext4"
        root = on_filesystem(filesystem) / "store"
        storage = Storage.open(root=root, run_root=tmp_path / "run", driver=driver)
        opened.append(storage)
        return storage

    yield get
    for storage in opened:
        clean(Storage.open(root=storage.root, run_root=storage.run_root))
        storage.close()
        release(storage.run_root)


def add(storage: Storage, name: bytes, parent: str | None = None) -> str:
    data = archives.tar(archives.file(name, name * 1000))
    return storage.layers.add(io.BytesIO(data), parent=parent, durability="none").id


def populated(storage: Storage) -> str:
    """A chain, a writable layer on it and one beside it; two are mounted. Gives the topmost."""
    base = storage.layers.add(io.BytesIO(TAR)).id
    above = add(storage, b"above", base)
    top = storage.layers.create(above).id
    add(storage, b"beside")
    storage.layers.mount(above)
    storage.layers.mount(top, read_only=False)
    return top


def plant(storage: Storage, number: int) -> str:
    """Something that belongs to no one, of another kind each time; its path."""
    root, run, name = storage.root, storage.run_root, storage.driver
    kinds: list[Callable[[], Path]] = [
        lambda: _layer(storage),
        lambda: _filled(root / name / new_id()),
        lambda: _filled(root / name / ".trash" / f"{new_id()}.{number:012x}"),
        lambda: _file(root / "tars" / new_id()),
        lambda: _file(root / "tars" / f"{new_id()}.payload"),
        lambda: _file(root / "locks" / new_id()),
        lambda: _filled(root / "tmp" / f"staged-{number}"),
        lambda: _old(_filled(root / f".storagedrivers-scratch-{NO_PROCESS}-{number:x}")),
        lambda: _old(_filled(root / name / f".storagedrivers-scratch-{NO_PROCESS}-{number:x}")),
        lambda: _made(run / "mounts" / f"{new_id()}-ro"),
        lambda: _mounted(storage, run / "mounts" / f"{new_id()}-rw"),
        lambda: _row(storage),
    ]
    if name == "overlay2":
        kinds.append(lambda: _link(root / "overlay2/l" / f"{number:016x}"))
    return str(kinds[number % len(kinds)]())


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _filled(path: Path) -> Path:
    _made(path / "a/b")
    _file(path / "a/b/c")
    (path / "a/link").symlink_to("/etc")
    return path


def _file(path: Path) -> Path:
    path.write_bytes(b"x" * 5000)
    return path


def _old(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def _link(path: Path) -> Path:
    path.symlink_to("../nothing/diff")
    return path


def _layer(storage: Storage) -> Path:
    driver = storage.driver_for(storage.driver)
    layer = new_id()
    driver.create(layer, ())
    driver.seal(layer, ())
    return driver.layer_path(layer)


def _mounted(storage: Storage, path: Path) -> Path:
    """As a store has it whose database was put back from a backup."""
    source = storage.root / "tars"
    mount.mount(Mount("bind", str(source), options=("bind",)), _made(path))
    return path


def _row(storage: Storage) -> Path:
    layer = new_id()
    with storage.database.transaction() as connection:
        connection.execute(
            "INSERT INTO layers (id, driver, state, writable, created, depth, durable)"
            " VALUES (?, ?, 'creating', 0, 0, 1, 0)",
            (layer, storage.driver),
        )
    return _filled(storage.root / storage.driver / layer)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_hundred_orphans_are_found_and_nothing_else(open_storage: Opener, driver: str) -> None:
    storage = open_storage(driver)
    populated(storage)
    assert find_orphans(storage.layers) == []
    before = read_tree(storage.root)
    planted = {plant(storage, number) for number in range(100)}
    assert len(planted) == 100
    found = find_orphans(storage.layers)
    assert {one.path for one in found} == planted
    assert len(found) == 100
    assert not any(one.in_use for one in found)
    for one in found:
        assert one.reason
        assert one.age >= 0
        assert (one.bytes > 0) == (one.kind not in (Kind.MOUNT, Kind.MOUNTPOINT, Kind.LINK)) or (
            one.kind in (Kind.MOUNTPOINT, Kind.LAYER)  # an empty directory may take no block
        )
    assert {one.path for one in find_orphans(storage.layers)} == planted  # they were looked at only
    collected = [*collect(storage.layers, found, storage.volumes)]
    assert [one.problem for one in collected if one.problem] == []
    assert find_orphans(storage.layers) == []
    assert not any(os.path.lexists(path) for path in planted)
    assert [*check(storage.layers, deep=True)] == []
    times = {b".", b"tmp", b"tars", b"locks", driver.encode()}
    times |= {os.path.join(driver.encode(), one) for one in (b"l", b".trash")}
    after = read_tree(storage.root)
    changing = (b"storagedrivers.db",)
    for path in before.keys() | after.keys():
        if path not in times and not path.startswith(changing):
            assert before.get(path) == after.get(path), path


@pytest.mark.parametrize("driver", DRIVERS)
def test_after_everything_is_removed_nothing_is_left(open_storage: Opener, driver: str) -> None:
    storage = open_storage(driver)
    top = populated(storage)
    for record in storage.layers.mounts():
        storage.layers.unmount(record.layer)
    for layer in (top, *reversed([one.id for one in storage.layers.ls() if one.id != top])):
        storage.layers.remove(layer)
    assert find_orphans(storage.layers) == []
    assert left_on_disk(storage) == []


_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.chmod", "os.mkdir", "fcntl.ioctl")


def killed_at(number: int, action: Callable[[], object]) -> bool:
    """Run *action* in a child that is killed before its change *number*; whether it got so far."""

    def run() -> None:
        left = number

        def count(event: str, arguments: object) -> None:
            nonlocal left
            if event not in _CHANGES:
                return
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        action()

    code = os.waitstatus_to_exitcode(os.waitpid(forked(run), 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("driver", DRIVERS)
def test_gc_is_killed_at_every_step(open_storage: Opener, driver: str) -> None:
    storage = open_storage(driver)
    populated(storage)

    def work() -> None:
        with Storage.open(root=storage.root, run_root=storage.run_root) as other:
            problems = [
                one.problem
                for one in collect(other.layers, find_orphans(other.layers), other.volumes)
            ]
            assert problems == [""] * len(problems)

    number = 0
    while True:
        number += 1
        planted = [plant(storage, kind) for kind in range(13)]
        if not killed_at(number, work):
            break
        # Nothing but what was not removed yet.
        assert {one.remedy for one in check(storage.layers, deep=True)} <= {Remedy.COLLECT}
        for path in planted:
            if "scratch" in path and os.path.lexists(path):
                _old(Path(path))  # a minute must pass after it was changed
        work()
        assert find_orphans(storage.layers) == []
        assert [path for path in planted if os.path.lexists(path)] == []
    assert number > 20
    assert [*check(storage.layers, deep=True)] == []


def test_what_is_in_use_stays(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    orphan = _layer(storage)
    (orphan / "diff/file").write_text("x")
    point = _made(storage.run_root.parent / "point")
    with mount.mounted([Mount("bind", str(orphan / "diff"), options=("bind",))], point):
        (found,) = find_orphans(storage.layers)
        assert str(point) in found.in_use
        (kept,) = collect(storage.layers, [found], storage.volumes)
        assert "in use" in kept.problem
        assert (point / "file").read_text() == "x"
        assert [*check(storage.layers)] == []
    (found,) = find_orphans(storage.layers)
    assert found.in_use == ""
    assert [one.problem for one in collect(storage.layers, [found], storage.volumes)] == [""]


def test_a_mount_in_another_namespace_is_a_use(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    orphan = _layer(storage)
    point = _made(storage.run_root.parent / "point")
    code = "import subprocess, sys; subprocess.run(['mount', '--bind', *sys.argv[1:]], check=True)"
    with child(code, orphan / "diff", point, prefix=("unshare", "-m", "--propagation", "private")):
        (found,) = find_orphans(storage.layers)
        assert str(point) in found.in_use
    (found,) = find_orphans(storage.layers)
    assert found.in_use == ""
    [*collect(storage.layers, [found], storage.volumes)]


def test_removing_enters_no_mount_and_follows_no_link(open_storage: Opener, tmp_path: Path) -> None:
    storage = open_storage("vfs-copy")
    outside = _filled(tmp_path / "outside")
    staged = _made(storage.root / "tmp/staged/point")
    (staged.parent / "out").symlink_to(outside)
    (found,) = find_orphans(storage.layers)
    with mount.mounted([Mount("bind", str(outside), options=("bind",))], staged):
        (kept,) = collect(
            storage.layers, [found], storage.volumes
        )  # it was found before something was mounted
        assert kept.problem
        assert (staged / "a/b/c").exists()
    [*collect(storage.layers, [found], storage.volumes)]
    assert not (storage.root / "tmp/staged").exists()
    assert (outside / "a/b/c").exists()


def test_what_is_mounted_after_it_was_found_stays(open_storage: Opener) -> None:
    """Rows, mountpoints and mounts of a layer that someone mounts while gc is on its way."""
    storage = open_storage("overlay2")
    layers = storage.layers
    ids = [add(storage, name) for name in (b"row", b"point", b"mount")]
    for layer in (ids[0], ids[2]):
        layers.mount(layer)
    mount.unmount(str(storage.run_root / "mounts" / f"{ids[0]}-ro"))
    _made(storage.run_root / "mounts" / f"{ids[1]}-ro")
    with storage.database.transaction() as connection:
        connection.execute("DELETE FROM mounts WHERE layer = ?", (ids[2],))
    found = find_orphans(layers)
    kinds = [Kind.MOUNT, Kind.MOUNTPOINT, Kind.MOUNT_ROW]
    assert [one.kind for one in found] == kinds
    for layer in ids:
        layers.mount(layer)
    assert [one.problem for one in collect(layers, found, storage.volumes)] == [""] * 3
    assert {record.layer for record in layers.mounts()} == set(ids)
    for layer in ids:
        assert layers.unmount(layer)


def test_a_store_that_is_open_for_reading_is_not_collected(open_storage: Opener) -> None:
    storage = open_storage("vfs-copy")
    orphan = _layer(storage)
    with Storage.open(root=storage.root, run_root=storage.run_root, read_only=True) as reading:
        with pytest.raises(ReadOnlyError, match="for reading"):
            reading.gc()
        with pytest.raises(ReadOnlyError, match="for reading"):
            reading.repair()
    assert orphan.is_dir()
    assert [one.problem for one in storage.gc()] == [""]


def test_odd_names_among_the_locks_do_not_close_the_store(open_storage: Opener) -> None:
    storage = open_storage("vfs-copy")
    directory = os.fsencode(storage.root / "locks")
    os.mkdir(directory + b"/directory")
    os.symlink("/nowhere", directory + b"/link")
    os.mkfifo(directory + b"/fifo")
    for name in (b"/no-utf-8-\xff", b"/directory/inside"):
        os.close(os.open(directory + name, os.O_CREAT | os.O_WRONLY))
    with Storage.open(root=storage.root, run_root=storage.run_root) as again:
        assert len(again.warnings) == 2
        assert all("could not be finished" in warning for warning in again.warnings)
        add(again, b"works")
        assert {finding.code for finding in again.check()} == {"orphan-lock"}
        assert {one.problem for one in again.gc()} == {""}
    assert os.listdir(directory) == []


def test_what_someone_is_at_is_no_orphan(open_storage: Opener) -> None:
    storage = open_storage("vfs-copy")
    layer = new_id()
    staged = _made(storage.root / "tmp/staged")
    scratch = _made(storage.root / f".storagedrivers-scratch-{os.getpid()}-ab")
    trash = _filled(storage.root / "vfs-copy/.trash" / f"{layer}.ab")
    held = [locks.try_lock(str(storage.root / "locks" / layer))]
    staged_lock = os.open(staged, os.O_RDONLY)
    import fcntl

    fcntl.flock(staged_lock, fcntl.LOCK_EX)
    assert find_orphans(storage.layers) == []
    os.close(staged_lock)
    for lock in held:
        assert lock is not None
        lock.release()
    found = {one.path for one in find_orphans(storage.layers)}
    assert found == {str(staged), str(trash)}
    [*collect(storage.layers, find_orphans(storage.layers), storage.volumes)]
    scratch.rmdir()


def test_mounts_of_another_store_with_the_same_run_root_stay(
    open_storage: Opener, on_filesystem: Callable[[str], Path]
) -> None:
    storage = open_storage("overlay2")
    other_root = on_filesystem("xfs") / "other"
    with Storage.open(root=other_root, run_root=storage.run_root, driver="overlay2") as other:
        base = other.layers.add(io.BytesIO(TAR)).id
        above = add(other, b"above", base)
        for layer in (base, above):
            other.layers.mount(layer)
        assert find_orphans(storage.layers) == []
        for layer in (above, base):
            other.layers.unmount(layer)
            other.layers.remove(layer)


_MOUNT = """
import sys
from storagedrivers.storage import Storage
root, run_root, layer = sys.argv[1:]
Storage.open(root=root, run_root=run_root).layers.mount(layer)
"""


def test_mounts_of_another_store_in_another_namespace_stay(
    open_storage: Opener, on_filesystem: Callable[[str], Path]
) -> None:
    """Removing a mountpoint here would detach what is mounted there."""
    storage = open_storage("overlay2")
    other_root = on_filesystem("xfs") / "other"
    with Storage.open(root=other_root, run_root=storage.run_root, driver="overlay2") as other:
        layer = other.layers.add(io.BytesIO(TAR)).id
        place = ("unshare", "-m", "--propagation", "private")
        with child(_MOUNT, other_root, storage.run_root, layer, prefix=place) as pid:
            point = os.path.realpath(storage.run_root / "mounts" / f"{layer}-ro")
            mounts = Path(f"/proc/{pid}/mountinfo")
            assert point in mounts.read_text()
            for one in collect(storage.layers, find_orphans(storage.layers), storage.volumes):
                assert "in use" in one.problem
            assert point in mounts.read_text()
        other.layers.remove(layer)


def test_layers_of_docker_are_no_orphans(open_storage: Opener) -> None:
    """A graph root that a Docker had before, or has."""
    storage = open_storage("overlay2")
    layer = _filled(storage.root / "overlay2" / ("0123456789abcdef" * 4))
    _made(storage.root / "image/overlay2/layerdb")
    assert find_orphans(storage.layers) == []
    subprocess.run(["rm", "-r", layer, storage.root / "image"], check=True)


def test_a_driver_that_is_gone_leaves_orphans_that_can_be_removed(open_storage: Opener) -> None:
    storage = open_storage("vfs-copy")
    storage.database.set_meta(**{"accepted:no-such": "yes"})
    layer = _filled(storage.root / "no-such" / new_id())
    _made(storage.root / "no-such/.trash")
    found = find_orphans(storage.layers)
    assert [one.path for one in found] == [str(layer)]
    assert [one.problem for one in collect(storage.layers, found, storage.volumes)] == [""]
    assert not layer.exists()


def test_files_of_others_in_the_graph_root_are_no_orphans(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    add(storage, b"a")
    _file(storage.root / "notes.txt")
    _filled(storage.root / "lost+found")
    _filled(storage.root / "backup")
    _filled(storage.root / "mail/folder")
    _made(storage.root / "mail/.trash/letter")
    _made(storage.root / "overlay2/lost+found")
    assert find_orphans(storage.layers) == []
    (storage.root / "overlay2/lost+found").rmdir()


# df


def test_usage_is_counted_from_rows(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    base = storage.layers.add(io.BytesIO(TAR)).id
    above = add(storage, b"above", base)
    storage.layers.create(above)
    (usage,) = driver_usage(storage.layers)
    assert usage == ("overlay2", 3, 15_000, usage.inodes, 1, 0)
    found = {one.id: one for one in layer_usage(storage.layers)}
    assert (found[base].unique, found[base].shared, found[base].children) == (10_000, 0, 1)
    assert (found[above].unique, found[above].shared, found[above].children) == (5_000, 10_000, 1)
    free = filesystem(storage.layers)
    assert 0 < free.bytes_free <= free.bytes
    assert 0 < free.inodes_free <= free.inodes


def test_usage_of_ten_thousand_layers(open_storage: Opener) -> None:
    storage = open_storage("vfs-copy")
    with storage.database.transaction() as connection:
        connection.executemany(
            "INSERT INTO layers (id, parent, driver, state, writable, created, size, depth,"
            " durable) VALUES (?, ?, 'vfs-copy', 'ready', 0, 0, 1, ?, 1)",
            [
                (f"layer{number}", f"layer{number - 1}" if number % 100 else None, number % 100)
                for number in range(10_000)
            ],
        )
    start = time.process_time()
    layers = layer_usage(storage.layers)
    drivers = driver_usage(storage.layers)
    owner = find_owner(storage.layers, str(storage.root / "vfs-copy/layer9999/fs/etc"))
    elapsed = time.process_time() - start
    assert drivers[0].bytes == 10_000
    assert layers[-1].shared == 99
    assert owner is not None
    assert len(owner.lowers) == 99
    assert elapsed < 1
    with storage.database.transaction() as connection:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("DELETE FROM layers")


# owner


def test_owner_of_every_place(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    base = storage.layers.add(io.BytesIO(TAR)).id
    above = add(storage, b"above", base)
    point = storage.layers.mount(above)
    root = storage.root
    (link,) = (one for one in (root / "overlay2/l").iterdir() if base in os.readlink(one))

    def owner(path: Path) -> tuple[str, str, str, bool]:
        found = find_owner(storage.layers, str(path))
        assert found is not None
        return found.kind, found.layer, found.inside, found.known

    assert owner(root / "overlay2" / base) == ("layer", base, "", True)
    assert owner(root / "overlay2" / base / "diff/d/f") == ("layer", base, "/d/f", True)
    assert owner(link) == ("link", base, "", True)
    assert owner(root / "tars" / f"{base}.payload") == ("tar", base, "", True)
    assert owner(root / "locks" / base) == ("lock", base, "", True)
    assert owner(point / "d/f") == ("mountpoint", above, "/d/f", True)
    assert owner(root / "storagedrivers.db-wal") == ("store", "", "", False)
    assert owner(root / "overlay2" / ("o" * 26) / "diff") == ("layer", "o" * 26, "/", False)
    assert owner(root / f"overlay2/.trash/{base}.00/diff") == ("trash", base, "", False)
    assert owner(root / "tmp/x") == ("staging", "", "", False)
    assert find_owner(storage.layers, "/etc/passwd") is None
    assert find_owner(storage.layers, str(root / "notes")) is None
    storage.layers.unmount(above)


def test_owner_names_the_layer_that_brings_a_file(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    base = storage.layers.add(io.BytesIO(TAR)).id
    above = add(storage, b"above", base)
    with storage.layers.mounted(above) as point:
        for name, layer in (("d/f", base), ("above", above), ("l", base)):
            found = find_owner(storage.layers, str(point / name))
            assert found is not None
            assert found.provider == layer
            assert found.lowers == (base,)
            assert found.mounts == (str(point),)
        found = find_owner(storage.layers, str(storage.root / "overlay2" / base))
        assert found is not None
        assert found.children == (above,)
        assert found.lowers == ()


def test_owner_follows_no_link_out_of_a_layer(open_storage: Opener, tmp_path: Path) -> None:
    """And what lies below something that was replaced comes from no layer."""
    storage = open_storage("overlay2")
    base = storage.layers.add(io.BytesIO(TAR)).id
    outside = _filled(tmp_path / "outside")
    data = archives.tar(archives.symlink(b"link", bytes(outside)), archives.file(b"d", b"x"))
    above = storage.layers.add(io.BytesIO(data), parent=base).id
    with storage.layers.mounted(above) as point:
        for name, provider in (("link/a", ""), ("link", above), ("d", above), ("d/f", "")):
            found = find_owner(storage.layers, f"{point}/{name}")
            assert found is not None
            assert found.provider == provider, name
