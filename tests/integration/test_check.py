"""check, repair: nothing is said of a sound store, and each fault is named alone and put right."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import archives
import pytest
import torture
from capabilities import need
from stored import DRIVERS, clean, release

from storagedrivers.errors import StorageDriversError
from storagedrivers.linux import btrfs, ioctl, tree
from storagedrivers.storage import Storage
from storagedrivers.stores.check import Finding, Remedy, Severity, check
from storagedrivers.stores.layers import Layer
from storagedrivers.stores.repair import Outcome, Repaired, repair
from storagedrivers.testing.trees import CAPABILITY, Tree, differences, read_tree

BASE = archives.tar(
    archives.directory(b"d/", mode=0o750, uid=3, gid=4),
    archives.file(b"d/f", b"content of f\n" * 100, mode=0o4755, uid=1, gid=2),
    archives.xattrs({b"user.note": b"kept", b"security.capability": CAPABILITY}),
    archives.file(b"d/program", b"#!\n", mode=0o755),
    archives.file(b"d/other", b"other"),
    archives.hard_link(b"d/linked", b"d/other"),
    archives.symlink(b"d/link", b"f"),
    archives.device(b"d/null", 1, 3, mode=0o666),
    archives.fifo(b"d/pipe"),
    archives.directory(b"gone/"),
    archives.file(b"gone/x", b"x"),
)
ABOVE = archives.tar(
    archives.file(b"d/new", b"new"),
    archives.file(b"d/.wh.program"),
    archives.directory(b"gone/"),
    archives.file(b"gone/.wh..wh..opq"),
    archives.file(b"gone/y", b"y"),
)
ALONE = archives.tar(archives.file(b"alone", b"alone"))


class Place:
    """A store with a chain of two layers, a layer beside it and a writable one on top."""

    def __init__(self, root: Path, run_root: Path, driver: str) -> None:
        self.root = root
        self.run_root = run_root
        self.driver = driver
        with self.opened() as storage:
            self.base = storage.layers.add(io.BytesIO(BASE))
            self.above = storage.layers.add(io.BytesIO(ABOVE), parent=self.base.id)
            self.alone = storage.layers.add(io.BytesIO(ALONE))
            self.top = storage.layers.create(self.above.id)
        self.sound = self.trees()

    def opened(self, *, read_only: bool = False) -> Storage:
        driver = None if read_only else self.driver
        return Storage.open(
            root=self.root, run_root=self.run_root, driver=driver, read_only=read_only
        )

    def home(self, layer: Layer) -> Path:
        return self.root / self.driver / layer.id

    def files(self, layer: Layer) -> Path:
        """The directory with the layer's own files."""
        names = ("diff", "sealed", "fs")
        return next(self.home(layer) / one for one in names if (self.home(layer) / one).is_dir())

    def kept(self, layer: Layer) -> Path:
        return self.root / "tars" / layer.id

    def check(self, *, deep: bool = False) -> list[Finding]:
        with self.opened(read_only=True) as storage:
            return [*check(storage.layers, deep=deep)]

    def repair(self, findings: list[Finding], *, yes: bool) -> list[Repaired]:
        with self.opened() as storage:
            return [*repair(storage.layers, findings, storage.volumes, yes=yes)]

    def trees(self) -> dict[str, Tree]:
        """Everything on the disk, by layer."""
        found = {}
        for layer in (self.base, self.above, self.alone, self.top):
            if self.home(layer).exists():
                found[layer.id] = read_tree(self.home(layer))
        return found

    def sql(self, statement: str, *values: object) -> None:
        """As someone who knows no rules."""
        connection = sqlite3.connect(self.root / "storagedrivers.db")
        with connection:
            connection.execute(statement, values)
        connection.close()

    def changed(self, layer: Layer, change: Callable[[Path], object]) -> None:
        """Change the files of a layer, sealed or not, and leave its directory's time."""
        root = self.files(layer)
        with tree.opened_directory(root) as fd:
            sealed = ioctl.is_read_only_subvolume(fd)
            ioctl.clear_read_only_subvolume(fd)
            change(root)
            if sealed:
                ioctl.set_read_only_subvolume(fd)


Places = Callable[[str], Place]


@pytest.fixture
def places(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Places]:
    """Makes stores by driver, and takes them away."""
    made: list[Place] = []

    def get(driver: str) -> Place:
        need("mount")
        filesystem = "btrfs" if driver == "btrfs-snapshot" else "ext4"
        place = Place(on_filesystem(filesystem) / "store", tmp_path / "run", driver)
        made.append(place)
        return place

    yield get
    for place in made:
        with place.opened() as storage:
            for record in storage.layers.mounts():
                for _ in range(record.times):
                    storage.layers.unmount(record.layer)
        release(place.run_root)
        if place.driver == "btrfs-snapshot":
            for path in place.root.glob("btrfs-snapshot/*"):
                with tree.opened_directory(path.parent) as fd:
                    tree.remove_tree(fd, path.name)


# No false alarms


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_sound_store_has_no_findings(places: Places, driver: str) -> None:
    place = places(driver)
    assert place.check(deep=True) == []
    with place.opened() as storage, storage.layers.mounted(place.top.id, read_only=False) as path:
        (path / "d/f").write_text("changed in a container")
        (path / "mountpoint").mkdir()
        with storage.layers.mounted(place.above.id):
            assert place.check(deep=True) == []
    with place.opened() as storage:
        storage.layers.seal(place.top.id)
    assert place.check(deep=True) == []


@pytest.mark.parametrize(
    ("driver", "filesystem"),
    [
        ("overlay2", "ext4"),
        ("overlay2", "xfs"),
        ("overlay2", "tmpfs"),
        ("btrfs-snapshot", "btrfs"),
        ("vfs-copy", "xfs"),
        ("vfs-copy", "ext4"),
    ],
)
def test_odd_tars_are_no_findings(
    on_filesystem: Callable[[str], Path],
    tmp_path: Path,
    driver: str,
    filesystem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a layer's tree should be is worked out by rules of its own; here they meet those that
    made it, in 200 cases.
    """
    need("mount")
    # xfs holds device numbers of 18 bits only.
    cases = [one for one in torture.CASES if filesystem != "xfs" or "4095" not in one.name]
    monkeypatch.setattr(torture, "CASES", cases)
    storage = Storage.open(root=on_filesystem(filesystem), run_root=tmp_path / "run", driver=driver)
    with storage:
        base = storage.layers.add(io.BytesIO(torture.parent_tar()))
        storage.layers.add(io.BytesIO(torture.layer_tar()), parent=base.id)
        assert [*check(storage.layers, deep=True)] == []
    clean(Storage.open(root=storage.root, run_root=storage.run_root))
    release(storage.run_root)


def test_lost_headers_of_a_compressed_tar_are_named(places: Places) -> None:
    """Also where no one asked for the digest of what came, so that its row has none."""
    place = places("overlay2")
    with place.opened() as storage:
        layer = storage.layers.add(io.BytesIO(gzip.compress(archives.tar(archives.file(b"z")))))
    assert (layer.digest, layer.compression) == (None, "gzip")
    os.unlink(place.kept(layer))
    for deep in (False, True):
        assert [one.code for one in place.check(deep=deep)] == ["missing-kept"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_healthy_operations_leave_no_findings(places: Places, driver: str) -> None:
    """Whatever is done in whatever order; containers stay mounted meanwhile."""
    place = places(driver)
    choose = random.Random(driver)
    with place.opened() as storage:
        layers = storage.layers

        def some(kind: Callable[[Layer], bool]) -> str:
            return choose.choice([one.id for one in layers.ls() if kind(one)])

        def write() -> None:
            layer = some(lambda one: one.writable)
            path = layers.mount(layer, read_only=False)
            (path / f"file{choose.random()}").write_text("x" * choose.randrange(9000))
            shutil.rmtree(path / "d", ignore_errors=True)

        def add() -> None:
            data = archives.tar(archives.file(b"%f" % choose.random(), b"x"))
            layers.add(io.BytesIO(data), parent=some(lambda one: not one.writable))

        operations: list[Callable[[], object]] = [
            write,
            add,
            lambda: layers.create(some(lambda one: not one.writable)),
            lambda: layers.mount(some(lambda one: not one.writable)),
            lambda: layers.unmount(choose.choice([one.layer for one in layers.mounts()])),
            lambda: layers.seal(some(lambda one: one.writable)),
            lambda: layers.compute_diff_id(some(lambda one: not one.writable)),
            lambda: layers.remove(some(lambda one: one.id != place.base.id)),
        ]
        for turn in range(120):
            # Nothing to choose from, or in use: as anyone may try.
            with contextlib.suppress(StorageDriversError, IndexError):
                choose.choice(operations)()
            if turn % 20 == 0:
                assert place.check(deep=True) == []
        assert place.check(deep=True) == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_layer_that_came_from_no_tar_is_compared_with_its_diff(
    places: Places, driver: str
) -> None:
    place = places(driver)
    with place.opened() as storage:
        with storage.layers.mounted(place.top.id, read_only=False) as path:
            (path / "made").write_text("in a container")
        storage.layers.seal(place.top.id)
        storage.layers.compute_diff_id(place.top.id)
    assert place.check(deep=True) == []
    place.changed(place.top, lambda root: (root / "made").write_text("afterwards....."))
    (finding,) = place.check(deep=True)
    assert (finding.code, finding.layer) == ("content", place.top.id)


def test_a_store_that_is_being_used_has_no_findings(places: Places) -> None:
    """Check runs beside others that add, mount and remove layers."""
    place = places("overlay2")
    end = threading.Event()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with place.opened() as storage:
                for turn in range(1000):
                    if end.is_set():
                        return
                    data = archives.tar(archives.file(b"%d-%d" % (number, turn), b"x"))
                    layer = storage.layers.add(
                        io.BytesIO(data), parent=place.base.id, durability="none"
                    )
                    with storage.layers.mounted(layer.id):
                        pass
                    storage.layers.remove(layer.id)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        found = [place.check(deep=turn % 5 == 0) for turn in range(25)]
    finally:
        end.set()
        for worker in workers:
            worker.join()
    assert failures == []
    assert found == [[]] * 25


def test_a_layer_in_the_making_is_no_finding(places: Places) -> None:
    place = places("overlay2")
    with place.opened() as storage, storage.layers.locked("a" * 26):
        place.sql(
            "INSERT INTO layers (id, driver, state, writable, created, depth, durable)"
            " VALUES (?, 'overlay2', 'creating', 0, 0, 1, 0)",
            "a" * 26,
        )
        (place.root / "overlay2" / ("a" * 26)).mkdir()
        assert place.check() == []


def test_a_layer_that_is_being_sealed_is_no_finding(places: Places) -> None:
    """On the disk it is sealed already, and its row says so once all has reached the disk."""
    place = places("overlay2")
    with place.opened() as storage:
        layer = storage.layers.create().id
        with storage.layers.locked(layer):
            storage.driver_for("overlay2").seal(layer, ())
            assert place.check() == []
        (finding,) = place.check()
        assert finding.code == "sealed"
        storage.layers.seal(layer)
        assert place.check() == []


def test_check_writes_nothing(places: Places) -> None:
    place = places("overlay2")
    before = read_tree(place.root)
    place.check(deep=True)
    ignored = {b".", b"storagedrivers.db-shm", b"storagedrivers.db-wal"}
    after = read_tree(place.root)
    assert (
        differences(
            {path: node for path, node in before.items() if path not in ignored},
            {path: node for path, node in after.items() if path not in ignored},
        )
        == []
    )


# Faults


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        plant: does it.
        code: of the one finding.
        layer: the layer it is about, by its name in :class:`Place`.
        path: how the path of the finding ends.
        after: what ``repair`` makes of it.
        with_yes: what ``repair --yes`` makes of what is left.
        deep: only a deep check sees it.
        drivers: those that can have it.
    """

    plant: Callable[[Place], object]
    code: str
    layer: str = ""
    path: str = ""
    after: Outcome = Outcome.DONE
    with_yes: Outcome | None = None
    deep: bool = False
    drivers: tuple[str, ...] = ("overlay2", "btrfs-snapshot", "vfs-copy")


def _keeping_time(path: Path, change: Callable[[], object]) -> None:
    status = path.stat()
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _flip(root: Path) -> None:
    path = root / "d/f"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    _keeping_time(path, lambda: path.write_bytes(data))
    os.chmod(path, 0o4755)


def _shorten(root: Path) -> None:
    path = root / "d/f"
    _keeping_time(path, lambda: os.truncate(path, 77))
    os.chmod(path, 0o4755)


def _add_extra(root: Path) -> None:
    _keeping_time(root / "d", lambda: (root / "d/extra").write_text("not of the tar"))


def _unlink(root: Path) -> None:
    _keeping_time(root / "d", (root / "d/f").unlink)


def _retarget(root: Path) -> None:
    def change() -> None:
        (root / "d/link").unlink()
        (root / "d/link").symlink_to("elsewhere")

    times = (root / "d/link").lstat().st_mtime_ns
    _keeping_time(root / "d", change)
    os.utime(root / "d/link", ns=(times, times), follow_symlinks=False)


def _renumber(root: Path) -> None:
    path = root / "d/null"
    status = path.stat()

    def change() -> None:
        path.unlink()
        os.mknod(path, status.st_mode, os.makedev(1, 5))
        path.chmod(0o666)

    _keeping_time(root / "d", change)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _split_link(root: Path) -> None:
    path = root / "d/linked"
    status = path.stat()

    def change() -> None:
        path.unlink()
        shutil.copy2(root / "d/other", path)

    _keeping_time(root / "d", change)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _inside(layer: str, change: Callable[[Path], object]) -> Callable[[Place], object]:
    return lambda place: place.changed(getattr(place, layer), change)


def _lose_subvolume(place: Place) -> None:
    with tree.opened_directory(place.home(place.above)) as fd:
        btrfs.delete_subvolume(fd, "sealed")


def _drop_link(place: Place) -> None:
    for link in (place.root / "overlay2/l").iterdir():
        if os.readlink(link) == f"../{place.base.id}/diff":
            link.unlink()


def _stale_mount(place: Place) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.stat("/proc/self/ns/mnt").st_ino
    status = place.run_root.stat() if place.run_root.exists() else None
    place.sql(
        "INSERT INTO mounts VALUES (?, ?, ?, 1, 1)",
        place.base.id,
        f"{namespace}:{status.st_dev if status else 0}:{status.st_ino if status else 0}",
        boot,
    )


def _left_mountpoint(place: Place) -> None:
    (place.run_root / "mounts" / f"{'m' * 26}-ro").mkdir(parents=True)


def _half_made(place: Place) -> None:
    place.sql(
        "INSERT INTO layers (id, driver, state, writable, created, depth, durable)"
        " VALUES (?, ?, 'creating', 0, 0, 1, 0)",
        "h" * 26,
        place.driver,
    )


def _half_removed(place: Place) -> None:
    place.sql("UPDATE layers SET state = 'removing' WHERE id = ?", place.alone.id)


def _damage_kept(place: Place) -> None:
    path = place.kept(place.base)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _orphan_layer(place: Place) -> None:
    with place.opened() as storage:
        storage.driver_for(place.driver).create("o" * 26, ())


def _trash(place: Place) -> None:
    (place.root / place.driver / ".trash" / f"{'t' * 26}.0a0b").mkdir(parents=True)


def _half_sealed(place: Place) -> None:
    with tree.opened_directory(place.home(place.above)) as fd:
        btrfs.create_subvolume(fd, "fs")


Q, R, D = Outcome.QUARANTINED, Outcome.REMOVED, Outcome.DONE
UNION, COPY, SNAPSHOT = ("overlay2",), ("vfs-copy",), ("btrfs-snapshot",)

FAULTS: dict[str, Fault] = {
    "the short link of a layer is lost": Fault(
        _drop_link, "missing-link", "base", "base", drivers=UNION
    ),
    "the directory of a layer is lost": Fault(
        lambda place: shutil.rmtree(place.home(place.alone)),
        "missing-directory", "alone", "alone", Q, R, drivers=(*UNION, *COPY),
    ),
    "the diff of a layer is lost": Fault(
        lambda place: shutil.rmtree(place.home(place.base) / "diff"),
        "missing-directory", "base", "base", Q, R, drivers=UNION,
    ),
    "a subvolume is lost": Fault(
        _lose_subvolume, "missing-directory", "above", "above", Q, R, drivers=SNAPSHOT
    ),
    "sealing was killed between two steps": Fault(
        _half_sealed, "half-sealed", "above", "above", drivers=SNAPSHOT
    ),
    "a mark of sealing is lost": Fault(
        lambda place: (place.home(place.alone) / "sealed").unlink(),
        "not-sealed", "alone", "alone", drivers=COPY,
    ),
    "a work directory is lost": Fault(
        lambda place: shutil.rmtree(place.home(place.top) / "work"),
        "sealed", "top", "top", drivers=UNION,
    ),
    "a row lost its parent": Fault(
        lambda place: place.sql("UPDATE layers SET parent = 'none' WHERE id = ?", place.top.id),
        "missing-parent", "top", "top", Q, R,
    ),
    "a row has a wrong depth": Fault(
        lambda place: place.sql("UPDATE layers SET depth = 9 WHERE id = ?", place.top.id),
        "wrong-depth", "top", "top", Q, R,
    ),
    "the headers of a tar are lost": Fault(
        lambda place: place.kept(place.alone).unlink(),
        "missing-kept", "alone", "kept:alone", Q, R,
    ),
    "the headers of a tar are empty": Fault(
        lambda place: os.truncate(place.kept(place.alone), 0),
        "damaged-kept", "alone", "kept:alone", Q, R,
    ),
    "the headers of a tar are damaged": Fault(
        _damage_kept, "damaged-kept", "base", "kept:base", Q, R, deep=True
    ),
    "a directory has no row": Fault(_orphan_layer, "orphan-layer", "", "o" * 26),
    "a removal was killed": Fault(_trash, "orphan-trash", "", ".0a0b"),
    "headers have no layer": Fault(
        lambda place: (place.root / "tars" / ("k" * 26)).write_bytes(b"x"),
        "orphan-tar", "", "k" * 26,
    ),
    "a link has no layer": Fault(
        lambda place: (place.root / "overlay2/l/0123456789abcdef").symlink_to("../none/diff"),
        "orphan-link", "", "l/0123456789abcdef", drivers=UNION,
    ),
    "a lock file has no holder": Fault(
        lambda place: (place.root / "locks" / ("s" * 26)).write_text("1\n"),
        "orphan-lock", "", "s" * 26,
    ),
    "a trial was killed": Fault(
        lambda place: os.utime(_made(place.root / ".storagedrivers-scratch-4194305-ab"), (0, 0)),
        "orphan-scratch", "", "-ab",
    ),
    "something staged is left": Fault(
        lambda place: (place.root / "tmp/staged").write_bytes(b"x"),
        "orphan-staging", "", "tmp/staged",
    ),
    "a mount's row is left": Fault(_stale_mount, "orphan-mount-row", "base", "-ro"),
    "a mountpoint is left": Fault(_left_mountpoint, "orphan-mountpoint", "", "-ro"),
    "an addition was killed": Fault(_half_made, "half-made", "h", "h" * 26),
    "a removal's row is left": Fault(_half_removed, "half-made", "alone", "alone"),
    "a byte is changed": Fault(_inside("base", _flip), "content", "base", "base", Q, R, deep=True),
    "a file is shortened": Fault(
        _inside("base", _shorten), "size", "base", "/d/f", Q, R, deep=True
    ),
    "a file is lost": Fault(
        _inside("base", _unlink), "missing", "base", "/d/f", Q, R, deep=True
    ),
    "a file is there that no tar brought": Fault(
        _inside("above", _add_extra), "extra", "above", "/d/extra", Outcome.LEFT, D, deep=True
    ),
    "a mode is changed": Fault(
        _inside("base", lambda root: os.chmod(root / "d/f", 0o755)),
        "mode", "base", "/d/f", deep=True,
    ),
    "a mode is changed in a copy": Fault(
        _inside("above", lambda root: os.chmod(root / "d/f", 0o755)),
        "mode", "above", "/d/f", deep=True, drivers=(*SNAPSHOT, *COPY),
    ),
    "a directory's mode is changed": Fault(
        _inside("above", lambda root: os.chmod(root / "gone", 0o700)),
        "mode", "above", "/gone", deep=True,
    ),
    "a directory's mode is changed that layers above share": Fault(
        _inside("base", lambda root: os.chmod(root / "d", 0o700)), "mode", "base", "/d", deep=True
    ),
    "an owner is changed": Fault(
        _inside("above", lambda root: os.chown(root / "d/new", 7, 8)),
        "owner", "above", "/d/new", deep=True,
    ),
    "a time is changed": Fault(
        _inside("above", lambda root: os.utime(root / "d/new", (5, 5))),
        "mtime", "above", "/d/new", deep=True,
    ),
    "an attribute is lost": Fault(
        _inside("base", lambda root: os.removexattr(root / "d/program", "user.note")),
        "xattr", "base", "/d/program", deep=True,
    ),
    "an attribute is changed": Fault(
        _inside("above", lambda root: os.setxattr(root / "d/new", "user.evil", b"1")),
        "xattr", "above", "/d/new", deep=True,
    ),
    "a directory leads elsewhere": Fault(
        _inside("above", lambda root: os.setxattr(root / "d", "trusted.overlay.redirect", b"/x")),
        "xattr", "above", "/d", deep=True, drivers=UNION,
    ),
    "a directory hides no longer": Fault(
        _inside("above", lambda root: os.removexattr(root / "gone", "trusted.overlay.opaque")),
        "opaque", "above", "/gone", Q, R, deep=True, drivers=UNION,
    ),
    "a whiteout is lost": Fault(
        _inside(
            "above",
            lambda root: _keeping_time(root / "d", (root / "d/program").unlink),
        ),
        "missing", "above", "/d/program", Q, R, deep=True, drivers=UNION,
    ),
    "a symlink leads elsewhere": Fault(
        _inside("base", _retarget), "target", "base", "/d/link", deep=True
    ),
    "a device is another": Fault(
        _inside("base", _renumber), "device", "base", "/d/null", deep=True
    ),
    "a hard link is split": Fault(
        _inside("base", _split_link), "hard-link", "base", "", Q, R, deep=True
    ),
}  # fmt: skip

CASES = [
    pytest.param(fault, driver, id=f"{name} ({driver})")
    for name, fault in FAULTS.items()
    for driver in fault.drivers
]


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _expected_path(place: Place, fault: Fault) -> str:
    kind, _, name = fault.path.rpartition(":")
    if name in ("base", "above", "alone", "top"):
        layer: Layer = getattr(place, name)
        return str(place.kept(layer) if kind == "kept" else place.home(layer))
    return fault.path


@pytest.mark.parametrize(("fault", "driver"), CASES)
def test_a_fault_is_named_alone_and_put_right(places: Places, fault: Fault, driver: str) -> None:
    place = places(driver)
    fault.plant(place)
    if fault.deep:
        assert place.check() == []
    findings = place.check(deep=True)
    (finding,) = findings
    assert finding.code == fault.code
    wanted = "h" * 26 if fault.layer == "h" else getattr(place, fault.layer or "-", None)
    assert finding.layer == (wanted.id if isinstance(wanted, Layer) else wanted or "")
    assert finding.path.endswith(_expected_path(place, fault))
    _is_repaired(place, fault, findings)


def _is_repaired(place: Place, fault: Fault, findings: list[Finding]) -> None:
    (repaired,) = place.repair(findings, yes=False)
    assert repaired.outcome is fault.after, repaired.message
    _others_are_untouched(place, fault)
    if repaired.outcome is Outcome.DONE:
        assert place.check(deep=True) == []
        return
    assert [one.code for one in place.check(deep=True)] == [fault.code]
    if repaired.outcome is Outcome.QUARANTINED:
        _can_be_added_again(place, fault)
    found = place.check(deep=True)
    (repaired,) = place.repair(found, yes=True)
    assert repaired.outcome is fault.with_yes, repaired.message
    _others_are_untouched(place, fault)
    assert place.check(deep=True) == []


def _others_are_untouched(place: Place, fault: Fault) -> None:
    """Every layer that the fault is not about is what it was."""
    about = {"base": ("base", "above", "top"), "above": ("above", "top")}
    names = about.get(fault.layer, (fault.layer,))
    now = place.trees()
    for name in ("base", "above", "alone", "top"):
        if name not in names:
            layer = getattr(place, name).id
            assert differences(place.sound[layer], now[layer]) == []


def _can_be_added_again(place: Place, fault: Fault) -> None:
    data = {"base": BASE, "above": ABOVE, "alone": ALONE}.get(fault.layer)
    if data is None:
        return
    with place.opened() as storage:
        parent = place.base.id if fault.layer == "above" else None
        new = storage.layers.add(io.BytesIO(data), parent=parent)
        assert new.id != getattr(place, fault.layer).id
        out = io.BytesIO()
        storage.layers.export(new.id, out.write)
        assert out.getvalue() == data
        storage.layers.remove(new.id)


def test_several_faults_are_named_together(places: Places) -> None:
    place = places("overlay2")
    # The lock last: whoever opens the store takes it away.
    for name in ("a time is changed", "a directory has no row", "a lock file has no holder"):
        FAULTS[name].plant(place)
    codes = sorted(one.code for one in place.check(deep=True))
    assert codes == ["mtime", "orphan-layer", "orphan-lock"]
    repaired = place.repair(place.check(deep=True), yes=False)
    assert {one.outcome for one in repaired} == {Outcome.DONE}
    assert place.check(deep=True) == []


def test_a_changed_byte_names_the_file(places: Places) -> None:
    place = places("overlay2")
    place.changed(place.base, _flip)
    (finding,) = place.check(deep=True)
    assert finding.message.endswith("touched since: /d/f")
    assert (finding.severity, finding.remedy) == (Severity.ERROR, Remedy.QUARANTINE)


def test_a_changed_byte_in_a_copy_of_the_layer_below(places: Places) -> None:
    place = places("vfs-copy")
    place.changed(place.above, _flip)
    (finding,) = place.check(deep=True)
    assert (finding.code, finding.layer, finding.path) == ("content", place.above.id, "/d/f")


def test_a_mounted_layer_is_not_repaired(places: Places) -> None:
    place = places("overlay2")
    with place.opened() as storage:
        storage.layers.mount(place.top.id)
        place.changed(place.base, lambda root: os.chmod(root / "d", 0o700))
        findings = place.check(deep=True)
        for yes in (False, True):
            (repaired,) = place.repair(findings, yes=yes)
            assert repaired.outcome is Outcome.LEFT
            assert place.top.id in repaired.message
        storage.layers.unmount(place.top.id)
        (repaired,) = place.repair(findings, yes=False)
        assert repaired.outcome is Outcome.DONE


def test_a_damaged_database_is_named(places: Places) -> None:
    place = places("vfs-copy")
    with place.opened() as storage:  # so that all of it is in the one file
        storage.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = storage.database.rows(
            "SELECT rootpage FROM sqlite_master WHERE name = 'layers_of_diff'"
        )
        (size,) = storage.database.rows("PRAGMA page_size")[0]
    path = place.root / "storagedrivers.db"
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.seek((pages[0][0] - 1) * size)
        file.write(bytes(size))
    codes = [one.code for one in place.check()]
    path.write_bytes(whole)
    assert codes == ["database"]


def test_a_driver_that_is_gone_is_named(places: Places) -> None:
    place = places("vfs-copy")
    place.sql("UPDATE layers SET driver = 'no-such' WHERE id = ?", place.alone.id)
    os.makedirs(place.root / "no-such/.trash")
    os.rename(place.home(place.alone), place.root / "no-such" / place.alone.id)
    (finding,) = place.check(deep=True)
    assert (finding.code, finding.layer) == ("missing-driver", place.alone.id)
    (repaired,) = place.repair([finding], yes=True)
    assert repaired.outcome is Outcome.LEFT
    assert (place.root / "no-such" / place.alone.id / "fs/alone").read_text() == "alone"


def test_a_copied_store_is_sound(places: Places, tmp_path: Path) -> None:
    """No path is kept, so a store can be moved."""
    place = places("overlay2")
    moved = place.root.with_name("moved")
    subprocess.run(["cp", "-a", place.root, moved], check=True)
    with Storage.open(root=moved, run_root=tmp_path / "run", read_only=True) as storage:
        assert [*check(storage.layers, deep=True)] == []
