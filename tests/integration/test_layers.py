"""Layers of a store on real filesystems: in, seen, counted, out; and what many processes do."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from processes import child, forked, succeeded
from stored import DRIVERS, clean, digest, left_on_disk, release, tar, whiteout

from storagedrivers.errors import (
    CorruptStoreError,
    DepthExceededError,
    DigestMismatchError,
    DriverUnsupportedError,
    GraphRootError,
    InUseError,
    LockTimeoutError,
    MalformedDiffError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
    UnsafePathError,
)
from storagedrivers.linux import mount as mounting
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores import locks, making, mounts

Opener = Callable[..., Storage]


@pytest.fixture
def open_storage(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Opener]:
    """Opens stores: by driver, on a filesystem; each is left empty."""
    opened: list[Storage] = []

    def get(
        driver: str | None = "vfs-copy", filesystem: str | None = None, **arguments: object
    ) -> Storage:
        if driver != "vfs-copy":
            need("mount")
        if "root" not in arguments:
            filesystem = filesystem or ("btrfs" if driver == "btrfs-snapshot" else "ext4")
            arguments["root"] = on_filesystem(filesystem) / "store"
        arguments.setdefault("run_root", tmp_path / "run")
        storage = Storage.open(driver=driver, **arguments)
        opened.append(storage)
        return storage

    yield get
    for root in dict.fromkeys(one.root for one in opened):
        last = next(one for one in reversed(opened) if one.root == root)
        clean(Storage.open(root=root, run_root=last.run_root))
    for one in opened:
        one.close()
        release(one.run_root)


# In and out


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_layer_goes_in_is_seen_and_comes_out_as_the_same_bytes(
    open_storage: Opener, driver: str
) -> None:
    layers = open_storage(driver).layers
    first, second = tar(a_b="below", c="stays"), tar(d="above") + b""
    base = layers.add(io.BytesIO(first))
    upper = layers.add(io.BytesIO(second), parent=base.id)
    gone = layers.add(io.BytesIO(whiteout("c")), parent=upper.diff_id)
    with layers.mounted(gone.id) as path:
        assert sorted(os.listdir(path)) == ["a", "d"]
        assert (path / "a/b").read_text() == "below"
    for layer, expected in ((base, first), (upper, second)):
        out = io.BytesIO()
        assert layers.export(layer.id, out.write) == digest(expected) == layer.diff_id
        assert out.getvalue() == expected


def test_what_is_known_of_a_layer(open_storage: Opener) -> None:
    data = tar(a="12345", b="678")
    layers = open_storage().layers
    progress: list[int] = []
    base = layers.add(io.BytesIO(data), progress=progress.append)
    above = layers.add(io.BytesIO(data), parent=base.id)
    assert base.diff_id == base.chain_id == base.digest == digest(data)
    assert (base.diff_size, base.stored_size, base.size) == (len(data), len(data), 8)
    assert (base.compression, base.depth, base.durable, base.writable) == ("none", 1, True, False)
    assert above.chain_id == digest(f"{digest(data)} {digest(data)}".encode())
    assert (above.depth, above.parent) == (2, base.id)
    assert layers.lowers(above.id) == (base.id,)
    assert layers.children(base.id) == [above.id]
    assert layers.ls() == [base, above]
    assert progress[-1] == len(data)


def test_the_same_chain_is_there_once(open_storage: Opener) -> None:
    data = tar(a="1")
    layers = open_storage().layers
    base = layers.add(io.BytesIO(data))
    assert layers.add(io.BytesIO(data)) == base  # found out at its end
    assert layers.add(io.BytesIO(b"not read"), diff_id=digest(data)) == base
    above = layers.add(io.BytesIO(data), parent=base.id)
    assert above.id != base.id
    assert layers.ls() == [base, above]


@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
def test_a_bad_tar_leaves_nothing(open_storage: Opener, driver: str) -> None:
    storage = open_storage(driver)
    data = tar(a="1" * 5000)
    with pytest.raises(MalformedDiffError):
        storage.layers.add(io.BytesIO(data[:3000]))
    with pytest.raises(DigestMismatchError):
        storage.layers.add(io.BytesIO(data), diff_id=digest(b""))
    with pytest.raises(DigestMismatchError):
        storage.layers.add(io.BytesIO(data), digest=digest(b""))
    with pytest.raises(StoreError, match="'sha1:0' is no digest"):
        storage.layers.add(io.BytesIO(data), diff_id="sha1:0")
    assert storage.layers.ls() == []
    assert left_on_disk(storage) == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_writable_layer_is_written_sealed_and_built_upon(
    open_storage: Opener, driver: str
) -> None:
    layers = open_storage(driver).layers
    base = layers.add(io.BytesIO(tar(a="1")))
    layer = layers.create(base.id)
    assert layer.writable
    with pytest.raises(StoreError, match="is writable"):
        layers.create(layer.id)
    with layers.mounted(layer.id, read_only=False) as path:
        (path / "b").write_text("2")
        with pytest.raises(InUseError, match="is mounted at"):
            layers.seal(layer.id)
    sealed = layers.seal(layer.id)
    assert not sealed.writable
    assert layers.seal(layer.id) == sealed
    with pytest.raises(ReadOnlyError, match="is sealed"):
        layers.mount(layer.id, read_only=False)
    above = layers.create(layer.id)
    with layers.mounted(above.id) as path:
        assert sorted(os.listdir(path)) == ["a", "b"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_was_written_comes_out_as_a_canonical_diff(open_storage: Opener, driver: str) -> None:
    """The DiffID of a layer that was made here is computed once, and is the same by any driver."""
    storage = open_storage(driver)
    layers = storage.layers
    base = layers.add(io.BytesIO(tar(a="1", b_c="2")))
    layer = layers.create(base.id)
    with layers.mounted(layer.id, read_only=False) as path:
        (path / "a").unlink()
        (path / "new").write_text("new")
        for name in ("new", "."):
            os.utime(path / name, ns=(10**18, 10**18))
    with pytest.raises(StoreError, match="is writable"):
        layers.compute_diff_id(layer.id)
    kinds = {(change.kind.value, change.path) for change in layers.changes(layer.id)}
    assert {("D", b"a"), ("A", b"new")} <= kinds
    assert not [path for _, path in kinds if path.startswith(b"b")]
    assert layers.seal(layer.id).diff_id is None
    out = io.BytesIO()
    diff_id = layers.export(layer.id, out.write)
    known = layers.get(layer.id)
    assert digest(out.getvalue()) == diff_id == known.diff_id == layers.compute_diff_id(layer.id)
    assert known.diff_size == len(out.getvalue())
    assert known.chain_id == digest(f"{base.chain_id} {diff_id}".encode())
    assert known.inodes is not None
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert {".wh.a", "new"} <= set(archive.getnames())
    again = layers.add(io.BytesIO(out.getvalue()), parent=base.id)
    assert again.id == layer.id


def test_a_layer_that_lost_something_is_not_exported_as_if_whole(open_storage: Opener) -> None:
    layers = open_storage().layers
    layer = layers.add(io.BytesIO(tar(a="content")))
    with layers.mounted(layer.id) as path:
        source = Path(os.path.realpath(path))
    assert source.name.endswith("-ro")
    (layers.driver_for("vfs-copy").layer_path(layer.id) / "fs/a").write_text("CONTENT")
    with pytest.raises(CorruptStoreError):
        layers.export(layer.id, lambda data: None)


def test_a_chain_has_an_end(open_storage: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MAX_DEPTH", 2)
    layers = open_storage().layers
    base = layers.add(io.BytesIO(tar(a="1")))
    above = layers.add(io.BytesIO(tar(b="1")), parent=base.id)
    with pytest.raises(DepthExceededError, match="3 layers, and 2"):
        layers.create(above.id)


# Finding


def test_references(open_storage: Opener) -> None:
    layers = open_storage().layers
    base = layers.add(io.BytesIO(tar(a="1")))
    above = layers.add(io.BytesIO(tar(b="1")), parent=base.id)
    for reference in (above.id, above.id[:20], above.diff_id, above.chain_id):
        assert layers.get(reference) == above
    for reference in (
        "",
        "../x",
        "zz",
        base.id + "x",
        digest(b"no"),
        "%",
        "A",
        "\udcff",
        ":\udcff",
    ):
        with pytest.raises(NotFoundError, match="there is no layer"):
            layers.get(reference)


def test_an_ambiguous_reference_names_what_it_can_mean(
    open_storage: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = open_storage().layers
    names = iter(["samea", "sameb"])
    monkeypatch.setattr(making, "new_id", lambda: next(names))
    layers.create()
    layers.create()
    with pytest.raises(NotFoundError, match="'same' can mean several layers: samea, sameb"):
        layers.get("same")
    assert layers.get("samea").id == "samea"


# Mounts


@pytest.mark.parametrize("driver", DRIVERS)
def test_mounts_are_counted(open_storage: Opener, driver: str) -> None:
    storage = open_storage(driver)
    layers = storage.layers
    layer = layers.add(io.BytesIO(tar(a="1")))
    path = layers.mount(layer.id)
    assert path == storage.run_root / f"mounts/{layer.id}-ro"
    assert layers.mount(layer.id) == path
    assert [(one.times, one.path) for one in layers.mounts(layer.id)] == [(2, str(path))]
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").touch()
    assert layers.unmount(layer.id) is False
    assert (path / "a").exists()
    assert layers.unmount(layer.id) is True
    assert not path.exists()
    with pytest.raises(NotFoundError, match="is not mounted"):
        layers.unmount(layer.id)


def test_a_writable_layer_is_mounted_in_one_way(open_storage: Opener, tmp_path: Path) -> None:
    storage = open_storage("overlay2")
    layer = storage.layers.create(storage.layers.add(io.BytesIO(tar(a="1"))).id)
    storage.layers.mount(layer.id, read_only=False)
    with pytest.raises(InUseError, match="mounted writable at"):
        storage.layers.mount(layer.id)
    other = Storage.open(root=storage.root, run_root=tmp_path / "other")
    with pytest.raises(InUseError, match="mounted writable at"):
        other.layers.mount(layer.id, read_only=False)
    other.close()
    release(tmp_path / "other")


def test_a_busy_mount_names_the_process(open_storage: Opener) -> None:
    layers = open_storage("overlay2").layers
    layer = layers.add(io.BytesIO(tar(a="1")))
    path = layers.mount(layer.id)
    code = "import os, sys\nos.chdir(sys.argv[1])"
    with child(code, path) as pid:
        with pytest.raises(InUseError, match="is busy") as caught:
            layers.unmount(layer.id)
        assert [holder.pid for holder in caught.value.holders] == [pid]
        assert len(layers.mounts()) == 1
    with child("import sys\nfile = open(sys.argv[1])", path / "a") as pid:
        with pytest.raises(InUseError) as caught:
            layers.unmount(layer.id)
        assert f"process {pid} (" in str(caught.value.holders[0])
    assert layers.unmount(layer.id)


def test_a_process_deeper_than_a_path_can_say_is_found(open_storage: Opener) -> None:
    layers = open_storage("vfs-copy", "tmpfs").layers
    layer = layers.create()
    path = layers.mount(layer.id, read_only=False)
    code = (
        "import os, sys\nos.chdir(sys.argv[1])\n"
        "for _ in range(30):\n    os.mkdir('x' * 200)\n    os.chdir('x' * 200)"
    )
    with child(code, path) as pid:
        with pytest.raises(InUseError) as caught:
            layers.unmount(layer.id)
        assert pid in [holder.pid for holder in caught.value.holders]
        mounting.unmount(path, detach=True)
        with pytest.raises(InUseError, match="still in use"):
            layers.seal(layer.id)
    layers.seal(layer.id)


def test_a_busy_mount_without_a_process_says_what_to_look_for(open_storage: Opener) -> None:
    layers = open_storage("overlay2").layers
    layer = layers.create(layers.add(io.BytesIO(tar(a="1"))).id)
    path = layers.mount(layer.id, read_only=False)
    with socket.socket(socket.AF_UNIX) as bound:
        fd = os.open(path, os.O_PATH)
        bound.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
        with pytest.raises(InUseError) as caught:
            layers.unmount(layer.id)
        assert caught.value.holders == ()
        assert "unix socket" in str(caught.value.resolution)
    assert layers.unmount(layer.id)


def test_what_is_mounted_does_not_spread(open_storage: Opener, tmp_path: Path) -> None:
    """Also where everything else is shared, as systemd has it."""
    need("mount")
    mountpoint = tmp_path / "shared"
    mountpoint.mkdir()
    with mounting.mounted([Mount("tmpfs", "tmpfs")], mountpoint):
        subprocess.run(["mount", "--make-shared", mountpoint], check=True)
        storage = open_storage("overlay2", run_root=mountpoint / "run")
        layer = storage.layers.add(io.BytesIO(tar(a="1")))
        with child("", prefix=["unshare", "--mount", "--propagation", "unchanged"]) as pid:
            path = storage.layers.mount(layer.id)
            inside = {one.mountpoint for one in read_mountinfo(f"/proc/{pid}/mountinfo")}
            assert str(path) not in inside
            storage.layers.unmount(layer.id)
        release(storage.run_root)


def test_a_copy_of_a_mount_in_another_namespace_goes_with_it(open_storage: Opener) -> None:
    layers = open_storage("overlay2").layers
    layer = layers.create(layers.add(io.BytesIO(tar(a="1"))).id)
    path = layers.mount(layer.id, read_only=False)
    with child("", prefix=["unshare", "--mount", "--propagation", "private"]) as pid:
        copied = {one.mountpoint for one in read_mountinfo(f"/proc/{pid}/mountinfo")}
        assert str(path) in copied
        layers.unmount(layer.id)
        left = {one.mountpoint for one in read_mountinfo(f"/proc/{pid}/mountinfo")}
        assert str(path) not in left
        layers.seal(layer.id)


def test_a_layer_that_is_still_written_to_elsewhere_is_not_removed(open_storage: Opener) -> None:
    layers = open_storage("overlay2").layers
    layer = layers.create(layers.add(io.BytesIO(tar(a="1"))).id)
    path = layers.mount(layer.id, read_only=False)
    prefix = ["unshare", "--mount", "--propagation", "private"]
    with child("import sys\nfile = open(sys.argv[1], 'w')", path / "b", prefix=prefix):
        layers.unmount(layer.id)  # the copy is detached, and its file stays open
        with pytest.raises(InUseError, match="still in use"):
            layers.remove(layer.id)
        assert layers.get(layer.id) == layer
    layers.remove(layer.id)


@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
def test_a_mount_of_a_killed_process_is_adopted(open_storage: Opener, driver: str) -> None:
    storage = open_storage(driver)
    layer = storage.layers.add(io.BytesIO(tar(a="1")))
    assert succeeded(forked(lambda: storage.layers.mount(layer.id)))
    assert [one.times for one in storage.layers.mounts()] == [1]
    with pytest.raises(InUseError, match="is mounted at"):
        storage.layers.remove(layer.id)
    assert storage.layers.unmount(layer.id)


def test_rows_of_mounts_that_are_gone_do_not_count(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    layers = storage.layers
    layer = layers.add(io.BytesIO(tar(a="1")))
    path = layers.mount(layer.id)
    layers.mount(layer.id)
    mounting.unmount(path)  # by hand
    assert layers.mounts() == []
    path = layers.mount(layer.id)
    layers.mount(layer.id)
    mounting.unmount(path)
    layers.mount(layer.id)
    assert [one.times for one in layers.mounts()] == [1]
    with storage.database.transaction() as connection:
        connection.execute("UPDATE mounts SET boot = 'of another boot'")
    mounting.unmount(path)
    layers.remove(layer.id)
    assert storage.database.rows("SELECT * FROM mounts") == []


def test_rows_of_a_namespace_that_is_gone_do_not_count(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    layer = storage.layers.add(io.BytesIO(tar(a="1")))

    def in_a_namespace() -> None:
        from storagedrivers.linux import namespace

        namespace.make_mounts_private()
        storage.layers.mount(layer.id)

    assert succeeded(forked(in_a_namespace))
    assert len(storage.database.rows("SELECT * FROM mounts")) == 1
    storage.layers.remove(layer.id)


def test_a_mount_in_another_living_namespace_is_seen(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    layer = storage.layers.add(io.BytesIO(tar(a="1")))
    code = (
        "import sys\nfrom storagedrivers.linux import namespace\n"
        "from storagedrivers.storage import Storage\n"
        "namespace.make_mounts_private()\n"
        "storage = Storage.open(root=sys.argv[1], run_root=sys.argv[2])\n"
        "storage.layers.mount(sys.argv[3])"
    )
    with child(code, storage.root, storage.run_root, layer.id):
        with pytest.raises(InUseError, match="is mounted at"):
            storage.layers.remove(layer.id)
    storage.layers.remove(layer.id)


def test_a_run_root_that_others_could_exchange_is_refused(
    open_storage: Opener, tmp_path: Path
) -> None:
    need("root")
    root = tmp_path / "store"
    layer = open_storage(root=root).layers.add(io.BytesIO(tar(a="1")))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "foreign").mkdir()
    os.chown(tmp_path / "foreign", 1234, 1234)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    (tmp_path / "file").touch()
    for name in ("open", "foreign", "foreign/run", "open/run", "link", "file"):
        with Storage.open(root=root, run_root=tmp_path / name) as storage:
            with pytest.raises(UnsafePathError, match="the run root"):
                storage.layers.mount(layer.id)
    assert layer.id in {one.id for one in open_storage(root=root).layers.ls()}


# Removing


def test_what_is_used_is_not_removed(open_storage: Opener) -> None:
    layers = open_storage().layers
    base = layers.add(io.BytesIO(tar(a="1")))
    above = layers.add(io.BytesIO(tar(b="1")), parent=base.id)
    with pytest.raises(InUseError, match=f"needed by layer {above.id}"):
        layers.remove(base.id)
    layers.remove(above.id)
    layers.remove(base.id)
    with pytest.raises(NotFoundError):
        layers.get(base.id)


# Opening


def test_a_store_remembers_its_driver(
    open_storage: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asks no driver again."""
    storage = open_storage("vfs-copy")
    assert storage.root.stat().st_mode & 0o777 == 0o710

    def probed(*_: object) -> None:
        raise AssertionError("a driver was probed")

    monkeypatch.setattr("storagedrivers.drivers.vfs_copy.VfsCopy.probe", probed)
    monkeypatch.setattr("storagedrivers.host.read_host", probed)
    for driver in (None, "vfs-copy"):
        again = Storage.open(root=storage.root, run_root=storage.run_root, driver=driver)
        assert again.driver == "vfs-copy"
        again.close()


def test_a_store_without_a_wish_gets_the_best_driver(open_storage: Opener) -> None:
    need("overlay")
    assert open_storage(None, "ext4").driver in ("overlay2", "aufs")


def test_several_drivers_in_one_store(open_storage: Opener) -> None:
    storage = open_storage("overlay2")
    data = tar(a="1")
    first = storage.layers.add(io.BytesIO(data))
    other = open_storage("vfs", root=storage.root)  # an alias
    second = other.layers.add(io.BytesIO(data))
    assert (first.driver, second.driver) == ("overlay2", "vfs-copy")
    assert other.layers.get(digest(data)) == second  # its own, of two
    assert storage.layers.get(digest(data)) == first
    with pytest.raises(StoreError, match="vfs-copy was asked for, and layer"):
        other.layers.create(first.id)
    plain = open_storage(None, root=storage.root)
    assert plain.driver == "overlay2"
    assert plain.layers.create(second.id).driver == "vfs-copy"
    for layer in plain.layers.ls():
        with plain.layers.mounted(layer.id) as path:
            assert os.listdir(path) == ["a"]


def test_a_driver_that_does_not_work_here_is_refused(open_storage: Opener) -> None:
    storage = open_storage("vfs-copy", "ext4")
    with pytest.raises(DriverUnsupportedError, match="btrfs-snapshot was asked for"):
        Storage.open(root=storage.root, driver="btrfs-snapshot")


def test_a_moved_store_opens(open_storage: Opener, on_filesystem: Callable[[str], Path]) -> None:
    directory = on_filesystem("ext4")
    storage = Storage.open(root=directory / "old", run_root=directory / "run", driver="overlay2")
    base = storage.layers.add(io.BytesIO(tar(a="1")))
    above = storage.layers.add(io.BytesIO(tar(b="1")), parent=base.id)
    storage.close()
    for name in ("locks", "tmp"):  # as backups do with empty directories
        (directory / "old" / name).rmdir()
    (directory / "old").rename(directory / "new")
    moved = open_storage("overlay2", root=directory / "new", run_root=directory / "run")
    with moved.layers.mounted(above.id) as path:
        assert sorted(os.listdir(path)) == ["a", "b"]
    dump = "\n".join(str(row) for row in moved.database.rows("SELECT * FROM layers"))
    assert str(directory) not in dump


def test_a_store_on_a_read_only_filesystem_is_read(open_storage: Opener, tmp_path: Path) -> None:
    need("mount")
    storage = open_storage("overlay2", root=tmp_path / "store")
    layer = storage.layers.add(io.BytesIO(tar(a="1")))
    storage.close()
    seen = tmp_path / "seen"
    seen.mkdir()
    options = ("bind", "ro")
    with mounting.mounted([Mount("bind", str(storage.root), options=options)], seen):
        with Storage.open(root=seen, run_root=tmp_path / "run", read_only=True) as reader:
            assert reader.layers.ls() == [layer]
            assert reader.layers.export(layer.id, lambda data: None) == layer.diff_id
            with pytest.raises(ReadOnlyError):
                reader.layers.create()


def test_there_is_nothing_to_read_where_no_store_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no store"):
        Storage.open(root=tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(GraphRootError):
        Storage.open(root=tmp_path / "file")


def test_two_processes_make_a_store_at_once(tmp_path: Path, open_storage: Opener) -> None:
    root = tmp_path / "store"

    def work() -> None:
        with Storage.open(root=root, run_root=tmp_path / "run", driver="vfs-copy") as storage:
            storage.layers.create()

    assert all(map(succeeded, [forked(work) for _ in range(4)]))
    assert len(open_storage(root=root).layers.ls()) == 4


# Durability


def test_what_has_not_reached_the_disk_is_marked(
    open_storage: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storagedrivers.linux import syscalls

    synced: list[int] = []
    monkeypatch.setattr(syscalls, "syncfs", synced.append)
    storage = open_storage()
    fast = storage.layers.add(io.BytesIO(tar(a="1")), durability="none")
    assert not fast.durable
    assert synced == []
    storage.sync()
    assert storage.layers.get(fast.id).durable
    assert len(synced) == 1
    fast = storage.layers.add(io.BytesIO(tar(b="1")), durability="none")
    assert storage.layers.add(io.BytesIO(tar(c="1"))).durable
    assert storage.layers.get(fast.id).durable, "the later sync was for all that was there"
    assert len(synced) == 2


# Many at once


def test_a_layer_that_is_there_reaches_the_disk_when_that_is_asked_for(
    open_storage: Opener,
) -> None:
    layers = open_storage().layers
    data = tar(a="1")
    for diff_id in (None, digest(data)):
        layer = layers.add(io.BytesIO(data), durability="none")
        assert not layer.durable
        again = layers.add(io.BytesIO(data), diff_id=diff_id, durability="layer")
        assert (again.id, again.durable) == (layer.id, True)
        assert layers.get(layer.id).durable
        layers.remove(layer.id)


def test_a_process_that_ends_while_it_is_looked_at_is_no_error(
    open_storage: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another of its mount namespace is asked then."""
    storage = open_storage("overlay2")
    layers = storage.layers
    layer = layers.add(io.BytesIO(tar(a="1")))
    layers.mount(layer.id)
    asked = []

    def ending(path: str) -> list[object]:
        asked.append(path)
        raise ProcessLookupError(3, "No such process", path)

    with storage.database.transaction() as connection:
        connection.execute("UPDATE mounts SET place = rtrim(place, '0123456789') || '0'")
    with monkeypatch.context() as patch:
        patch.setattr(mounts, "read_mountinfo", ending)
        assert mounts._mountpoints_in(str(os.stat("/proc/self/ns/mnt").st_ino)) == []
    assert len(asked) > 1
    with pytest.raises(InUseError, match=layer.id):
        layers.remove(layer.id)
    point = storage.run_root / "mounts" / f"{layer.id}-ro"
    mounting.unmount(str(point))
    point.rmdir()


def test_a_directory_with_files_of_others_keeps_its_mode(open_storage: Opener) -> None:
    """A slip like --root /tmp must not lock every user out of it."""
    root = open_storage().root.parent / "shared"
    root.mkdir()
    (root / "file").touch()
    root.chmod(0o1777)
    storage = open_storage(root=root)
    layer = storage.layers.add(io.BytesIO(tar(a="1")))
    assert root.stat().st_mode & 0o7777 == 0o1777
    assert (root / "vfs-copy").stat().st_mode & 0o7777 == 0o710
    storage.layers.remove(layer.id)


def test_one_of_several_processes_adds_a_layer(open_storage: Opener) -> None:
    """The others wait, and do not read their streams."""
    storage = open_storage()
    data, go = tar(a="1"), storage.root.parent / "go"

    def waiting() -> None:
        while not go.exists():
            time.sleep(0.005)

    def slow(stream: io.BytesIO) -> None:
        read = stream.read
        stream.read = lambda *size: (waiting(), read(*size))[1]  # type: ignore[method-assign]
        storage.layers.add(stream, diff_id=digest(data))

    class Slow(io.BytesIO):
        pass

    first = forked(lambda: slow(Slow(data)))
    deadline = time.monotonic() + 30
    while not any(name.startswith("chain-") for name in os.listdir(storage.root / "locks")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    unread = io.BytesIO(b"must not be read")
    threading.Timer(0.2, go.touch).start()  # when it waits
    layer = storage.layers.add(unread, diff_id=digest(data))
    assert unread.tell() == 0
    assert succeeded(first)
    assert storage.layers.ls() == [layer]


def test_who_takes_too_long_is_named(open_storage: Opener) -> None:
    storage = open_storage()
    data = tar(a="1")
    chain = f"chain-vfs-copy-{digest(data).partition(':')[2]}"
    code = "import sys\nfrom storagedrivers.stores import locks\nlock = locks.try_lock(sys.argv[1])"
    with child(code, storage.root / "locks" / chain) as pid:
        with pytest.raises(LockTimeoutError, match=f"process {pid} has been working on") as caught:
            storage.layers.add(io.BytesIO(data), diff_id=digest(data), timeout=0.1)
        assert caught.value.holder == pid
    layer = storage.layers.add(io.BytesIO(data), diff_id=digest(data))
    with child(code, storage.root / "locks" / layer.id) as pid:
        with pytest.raises(LockTimeoutError, match=f"process {pid}"):
            storage.layers.remove(layer.id, timeout=0.1)


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """Though its file is deleted and made again all the time."""
    path, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")

    def work() -> None:
        for _ in range(100):
            with locks.locked(os.fspath(path), "the counter"):
                counter.write_text(str(int(counter.read_text()) + 1))

    assert all(map(succeeded, [forked(work) for _ in range(6)]))
    assert counter.read_text() == "600"
    assert not path.exists()


def add_mount_and_remove(root: Path, run_root: Path, worker: int, rounds: int) -> None:
    """What one of many processes does: layers of its own above one that all share."""
    with Storage.open(root=root, run_root=run_root) as storage:
        layers = storage.layers
        shared = tar(shared="by all")
        for number in range(rounds):
            base = layers.add(io.BytesIO(shared), diff_id=digest(shared))
            layer = layers.add(
                io.BytesIO(tar(own=f"{worker} {number}")), parent=base.id, durability="none"
            )
            with layers.mounted(base.id), layers.mounted(layer.id) as path:
                assert (path / "own").read_text() == f"{worker} {number}"
                assert (path / "shared").read_text() == "by all"
            layers.remove(layer.id)


ROUNDS = 12


@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
def test_sixteen_processes(open_storage: Opener, driver: str) -> None:
    """They add, mount and remove at once: no error, no deadlock, nothing left."""
    storage = open_storage(driver)
    children = [
        forked(
            lambda worker=worker: add_mount_and_remove(
                storage.root, storage.run_root, worker, ROUNDS
            )
        )
        for worker in range(16)
    ]
    assert [pid for pid in children if not succeeded(pid)] == []
    (base,) = storage.layers.ls()
    assert storage.layers.mounts() == []
    storage.layers.remove(base.id)
    assert left_on_disk(storage) == []


# Cost


def test_ten_thousand_layers_cost_no_more_than_ten(open_storage: Opener) -> None:
    """Counted in what SQLite does, which a busy machine does not change."""
    storage = open_storage("vfs-copy", "tmpfs")
    layers = storage.layers
    base = layers.add(io.BytesIO(tar(a="1")))

    def work() -> int:
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        connection = storage.database._own()
        connection.set_progress_handler(count, 10)
        layer = layers.add(io.BytesIO(tar(b="2")), parent=base.id)
        layers.get(layer.id[:12])
        layers.get(layer.chain_id)
        layers.mount(layer.id)
        layers.unmount(layer.id)
        layers.remove(layer.id)
        Storage.open(root=storage.root, run_root=storage.run_root).close()
        connection.set_progress_handler(None, 0)
        return steps

    work()
    few = work()
    with storage.database.transaction() as connection:
        connection.executemany(
            "INSERT INTO layers (id, parent, driver, state, writable, created, diff_id, chain_id,"
            " depth, durable) VALUES (?, NULL, 'vfs-copy', 'ready', 0, 1.0, ?, ?, 1, 1)",
            [
                (f"planted{number:05}", digest(b"%d" % number), digest(b"%d" % number))
                for number in range(10_000)
            ],
        )
    many = work()
    with storage.database.transaction() as connection:
        connection.execute("DELETE FROM layers WHERE id LIKE 'planted%'")
    assert many <= few * 1.3


@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
def test_a_full_disk_leaves_nothing(open_storage: Opener, tmp_path: Path, driver: str) -> None:
    need("mount")
    mountpoint = tmp_path / "small"
    mountpoint.mkdir()
    options = ("size=4m", "nr_inodes=200")
    with mounting.mounted([Mount("tmpfs", "tmpfs", options=options)], mountpoint):
        root, run_root = mountpoint / "store", tmp_path / "run"
        with Storage.open(root=root, run_root=run_root, driver=driver) as storage:
            many = tar(**{f"file{number}": b"" for number in range(400)})
            for data in (tar(large=b"x" * (5 << 20)), many):
                with pytest.raises(OSError, match="No space left"):
                    storage.layers.add(io.BytesIO(data))
                assert storage.database.rows("SELECT * FROM layers") == []
                assert left_on_disk(storage) == []
            layer = storage.layers.add(io.BytesIO(tar(small="x")))
            storage.layers.remove(layer.id)


def test_a_store_opens_with_few_imports(open_storage: Opener) -> None:
    """What a command on a store takes as a process is mostly its imports."""
    storage = open_storage("overlay2")
    layer = storage.layers.add(io.BytesIO(tar(a="1")))
    code = (
        "import sys\nfrom storagedrivers.storage import Storage\n"
        "storage = Storage.open(root=sys.argv[1], run_root=sys.argv[2])\n"
        "storage.layers.ls()\nprint(*sys.modules)\n"
        "storage.layers.mount(sys.argv[3])\nstorage.layers.unmount(sys.argv[3])\n"
        "print(*sys.modules)"
    )
    words = [sys.executable, "-c", code, str(storage.root), str(storage.run_root), layer.id]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    listing, mounted = (set(line.split()) for line in output.splitlines())
    never = {
        *("stevedore", "rich", "psutil", "distro", "asyncio", "dataclasses", "subprocess", "json"),
        *("tomllib", "logging", "storagedrivers.host", "storagedrivers.selector"),
    }
    assert not never & mounted
    assert not {"ctypes", "hashlib", "storagedrivers.driver", "storagedrivers.registry"} & listing
