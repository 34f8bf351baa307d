"""What is special to btrfs-snapshot: nested subvolumes, quotas, seals by snapshot."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from capabilities import need
from processes import forked, succeeded

from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.errors import (
    DriverUnsupportedError,
    InUseError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
)
from storagedrivers.host import read_host
from storagedrivers.linux import btrfs, ioctl, mount
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Capability, Mount
from storagedrivers.testing.filesystems import MEGABYTE, loop_filesystem
from storagedrivers.testing.trees import differences, populate, read_tree

SUBVOL_SETFLAGS = 0x4008941A  # BTRFS_IOC_SUBVOL_SETFLAGS; 2 is read-only

OnFilesystem = Callable[[str], Path]


@pytest.fixture
def driver(on_filesystem: OnFilesystem) -> BtrfsSnapshot:
    """A driver on btrfs without quotas."""
    need("root", "mount", "btrfs")
    return BtrfsSnapshot(on_filesystem("btrfs") / "btrfs-snapshot")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A btrfs of the test's own, whose cleaner comes by each second."""
    need("root", "mount", "loop", "btrfs", "mkfs.btrfs")
    with loop_filesystem("btrfs", tmp_path, size=512 * MEGABYTE) as top:
        mount.mount(Mount("btrfs", "none", options=("remount", "commit=1")), top)
        yield top


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A mountpoint."""
    directory = tmp_path / "point"
    directory.mkdir()
    return directory


@contextmanager
def view(
    driver: BtrfsSnapshot, point: Path, layer: str, *lowers: str, read_only: bool = False
) -> Iterator[Path]:
    with mount.mounted(driver.mounts(layer, lowers, read_only=read_only), point):
        yield point


def tree_of(driver: BtrfsSnapshot, layer: str) -> Path:
    (value,) = driver.mounts(layer, (), read_only=True)
    return Path(value.source)


def make_base(driver: BtrfsSnapshot, write: Callable[[Path], object], *, name: str = "base") -> str:
    driver.create(name, ())
    write(tree_of(driver, name))
    driver.seal(name, ())
    return name


def subvolume(path: Path, *, read_only: bool = False) -> Path:
    """Make a subvolume with a file in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        btrfs.create_subvolume(fd, path.name)
        (path / "file").write_text("in a subvolume")
    finally:
        os.close(fd)
    if read_only:
        run("btrfs", "property", "set", "-t", "subvol", path, "ro", "true")
    return path


def run(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    need("btrfs")
    return subprocess.run(
        [str(word) for word in command],
        check=check,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def subvolumes_of(driver: BtrfsSnapshot) -> set[str]:
    """The subvolumes in the home, as the kernel's tree of roots has them, relative to it."""
    (entry,) = [
        one
        for one in read_mountinfo()
        if driver.home.is_relative_to(one.mountpoint) and one.filesystem == "btrfs"
    ]
    home = f"{driver.home.relative_to(entry.mountpoint)}/"
    lines = run("btrfs", "subvolume", "list", entry.mountpoint).stdout.splitlines()
    paths = (line.partition(" path ")[2] for line in lines)
    return {path.removeprefix(home) for path in paths if path.startswith(home)}


def assert_gone(driver: BtrfsSnapshot, layer: str) -> None:
    assert layer not in driver.layers()
    assert os.listdir(driver.home / ".trash") == []
    assert not {one for one in subvolumes_of(driver) if one.startswith((f"{layer}/", ".trash/"))}


# Nested subvolumes


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
def test_nested_subvolumes_go_with_their_layer(driver: BtrfsSnapshot, read_only: bool) -> None:
    """What a container made by itself is removed, in any directory and in each other."""
    driver.create("layer", ())
    top = tree_of(driver, "layer")
    inner = subvolume(top / "a/b/outer") / "c/inner"
    subvolume(inner / "innermost", read_only=read_only)
    if read_only:
        run("btrfs", "property", "set", "-t", "subvol", top / "a/b/outer", "ro", "true")
    for name in ("direct", "no UTF-8 \udcff", "new\nline", "-a", "ü"):
        subvolume(top / name, read_only=read_only)
    driver.remove("layer")
    assert_gone(driver, "layer")


def test_300_nested_subvolumes(driver: BtrfsSnapshot) -> None:
    """More than the kernel names in one answer are all found and deleted."""
    driver.create("layer", ())
    top = tree_of(driver, "layer")
    names = [f"directory{number % 7}/subvolume{number}" for number in range(300)]
    for name in names:
        subvolume(top / name)
    fd = os.open(top, os.O_RDONLY)
    try:
        found = btrfs.nested_subvolumes(fd)
    finally:
        os.close(fd)
    assert sorted("/".join(one) for one in found) == sorted(names)
    with pytest.raises(StoreError, match="300"):
        driver.seal("layer", ())
    driver.remove("layer")
    assert_gone(driver, "layer")


@pytest.mark.parametrize("levels", [150, 1200])
def test_subvolumes_nested_deep_in_each_other(own: Path, levels: int) -> None:
    """Nobody can make a layer that cannot be removed by nesting."""
    driver = BtrfsSnapshot(own / "btrfs-snapshot")
    driver.create("layer", ())
    fd = os.open(tree_of(driver, "layer"), os.O_RDONLY)
    for _ in range(levels):
        btrfs.create_subvolume(fd, "s")
        below = os.open("s", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(StoreError, match="/s"):
        driver.seal("layer", ())
    driver.remove("layer")
    assert_gone(driver, "layer")


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
def test_subvolume_deeper_than_any_path(own: Path, read_only: bool) -> None:
    """Nor by a subvolume whose path is longer than the kernel can say."""
    driver = BtrfsSnapshot(own / "btrfs-snapshot")
    driver.create("layer", ())
    fd = os.open(tree_of(driver, "layer"), os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    btrfs.create_subvolume(fd, "s")
    os.close(os.open(f"/proc/self/fd/{fd}/s/file", os.O_CREAT | os.O_WRONLY))
    if read_only:
        inner = os.open("s", os.O_RDONLY, dir_fd=fd)
        ioctl.ioctl(inner, SUBVOL_SETFLAGS, bytearray((2).to_bytes(8, "little")))
        os.close(inner)
    os.close(fd)
    with pytest.raises(StoreError):  # not a bare OSError
        driver.seal("layer", ())
    driver.remove("layer")
    assert_gone(driver, "layer")


def test_seal_names_nested_subvolumes(driver: BtrfsSnapshot, point: Path) -> None:
    """A layer that a snapshot would not copy whole is not sealed; the error says what is in the
    way.
    """
    driver.create("layer", ())
    with view(driver, point, "layer") as top:
        subvolume(top / "var/lib/docker/one")
        subvolume(top / "two")
    for _ in range(2):
        with pytest.raises(StoreError, match="2 btrfs subvolumes") as caught:
            driver.seal("layer", ())
        assert not isinstance(caught.value, InUseError)
        assert "/var/lib/docker/one" in caught.value.brief
        assert "/two" in caught.value.brief
        assert caught.value.resolution
    with view(driver, point, "layer") as top:  # it is as it was
        assert (top / "two/file").read_text() == "in a subvolume"
        for name in ("var/lib/docker/one", "two"):
            run("btrfs", "subvolume", "delete", top / name)
    driver.seal("layer", ())


@pytest.mark.parametrize("place", ["a/point", "nested/point"])
def test_foreign_subvolume_survives_a_removal(place: str, driver: BtrfsSnapshot) -> None:
    """A subvolume from elsewhere that is mounted inside of a layer keeps its content."""
    driver.create("layer", ())
    subvolume(tree_of(driver, "layer") / "nested")
    foreign = subvolume(driver.home.parent / "foreign")
    subvolume(foreign / "nested")
    target = tree_of(driver, "layer") / place
    target.mkdir(parents=True)
    mount.mount(Mount("bind", str(foreign)), target)
    try:
        with suppress(OSError):  # either way is right
            driver.remove("layer")
    finally:
        for entry in read_mountinfo():
            if entry.mountpoint.startswith(str(driver.home)):
                mount.unmount(entry.mountpoint)
    assert (foreign / "file").read_text() == "in a subvolume"
    assert (foreign / "nested/file").read_text() == "in a subvolume"
    driver.remove("layer")
    assert_gone(driver, "layer")


# Size limits


@pytest.fixture
def limited(own: Path) -> BtrfsSnapshot:
    """A driver on a btrfs with quotas."""
    run("btrfs", "quota", "enable", own)
    return BtrfsSnapshot(own / "btrfs-snapshot")


def fill(directory: Path, size: int, *, name: str = "fill") -> None:
    with (directory / name).open("wb") as file:
        for _ in range(size // MEGABYTE):
            file.write(os.urandom(MEGABYTE))
        file.flush()
        os.fsync(file.fileno())


def quotas(top: Path) -> subprocess.CompletedProcess[str]:
    return run("btrfs", "qgroup", "show", "--raw", top, check=False)


def test_size_limits_are_a_capability_where_quotas_are_on(own: Path) -> None:
    """The probe tells by trying, and leaves quotas as they are."""
    home = own / "btrfs-snapshot"

    def capabilities() -> frozenset[Capability]:
        result = BtrfsSnapshot.probe(read_host(own), home)
        assert result.supported
        return result.capabilities

    assert quotas(own).returncode != 0
    assert Capability.SIZE_LIMIT not in capabilities()
    assert quotas(own).returncode != 0
    run("btrfs", "quota", "enable", own)
    assert Capability.SIZE_LIMIT in capabilities()
    assert quotas(own).returncode == 0
    run("btrfs", "quota", "disable", own)
    assert Capability.SIZE_LIMIT not in capabilities()
    assert quotas(own).returncode != 0
    assert os.listdir(own) == []


def test_limit_without_quotas_is_refused_and_leaves_nothing(own: Path) -> None:
    """Quotas are the administrator's to switch on: the error names the command."""
    driver = BtrfsSnapshot(own / "btrfs-snapshot")
    base = make_base(driver, populate)
    for lowers in ((), (base,)):
        with pytest.raises(DriverUnsupportedError) as caught:
            driver.create("top", lowers, size=8 * MEGABYTE)
        assert "btrfs quota enable" in (caught.value.resolution or "")
        assert_gone(driver, "top")
    assert quotas(own).returncode != 0


def test_limit_of_a_base_layer(limited: BtrfsSnapshot, point: Path) -> None:
    """Writes beyond the limit fail with EDQUOT; what fits is written."""
    limited.create("layer", (), size=8 * MEGABYTE)
    with view(limited, point, "layer") as top:
        fill(top, 4 * MEGABYTE)
        with pytest.raises(OSError, match="quota") as caught:
            fill(top, 16 * MEGABYTE, name="more")
        assert caught.value.errno == errno.EDQUOT
        (top / "more").unlink()
    limited.seal("layer", ())
    assert (tree_of(limited, "layer") / "fill").stat().st_size == 4 * MEGABYTE


def test_limit_counts_what_is_written_to_the_layer(limited: BtrfsSnapshot, point: Path) -> None:
    """What lies in the layers below does not count against a layer's limit."""
    base = make_base(limited, lambda top: fill(top, 20 * MEGABYTE, name="base"))
    limited.create("top", (base,), size=8 * MEGABYTE)
    with view(limited, point, "top", base) as top:
        fill(top, 4 * MEGABYTE)
        with pytest.raises(OSError, match="quota") as caught:
            fill(top, 16 * MEGABYTE, name="more")
        assert caught.value.errno == errno.EDQUOT


def test_limit_holds_for_its_layer_only(limited: BtrfsSnapshot, point: Path) -> None:
    """Layers beside and above a limited one are not limited."""
    base = make_base(limited, populate)
    limited.create("small", (base,), size=8 * MEGABYTE)
    limited.create("free", (base,))
    with view(limited, point, "free", base) as top:
        fill(top, 16 * MEGABYTE)
    limited.seal("small", (base,))
    limited.create("above", ("small", base))
    with view(limited, point, "above", "small", base) as top:
        fill(top, 16 * MEGABYTE)


def test_qgroups_go_with_their_layers(limited: BtrfsSnapshot, own: Path) -> None:
    """Once the cleaner was there, no qgroup of a removed or sealed subvolume is left."""
    before = set(quotas(own).stdout.split("\n"))
    base = make_base(limited, populate)
    limited.create("top", (base,), size=8 * MEGABYTE)
    limited.seal("top", (base,))
    for layer in ("top", base):
        limited.remove(layer)
    BtrfsSnapshot.probe(read_host(own), limited.home)
    names = {line.split()[0] for line in before if line}
    end = time.monotonic() + 60
    while True:
        run("btrfs", "filesystem", "sync", own)
        left = {line.split()[0] for line in quotas(own).stdout.split("\n") if line} - names
        if not left:
            break
        assert time.monotonic() < end, f"left are {sorted(left)}:\n{quotas(own).stdout}"
        time.sleep(0.5)
    assert subvolumes_of(limited) == set()


# Seals


def test_sealed_layer_is_a_read_only_subvolume(driver: BtrfsSnapshot) -> None:
    """Not even root changes it by accident, through any path."""
    base = make_base(driver, populate)
    top = tree_of(driver, base)
    assert top.name == "sealed"
    assert top.stat().st_ino == btrfs.ROOT_INODE
    assert run("btrfs", "property", "get", "-t", "subvol", top, "ro").stdout == "ro=true\n"
    for action in (
        (top / "new").touch,
        (top / "small").unlink,
        lambda: (top / "small").write_bytes(b""),
        lambda: top.chmod(0o700),
        lambda: os.setxattr(top / "small", "user.note", b"x"),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            action()
        assert caught.value.errno == errno.EROFS
    assert sorted(os.listdir(driver.layer_path(base))) == ["sealed"]
    driver.create("top", (base,))
    top = tree_of(driver, "top")
    assert run("btrfs", "property", "get", "-t", "subvol", top, "ro").stdout == "ro=false\n"


def test_late_descriptor_cannot_change_a_sealed_layer(driver: BtrfsSnapshot) -> None:
    """A seal is refused while a file is open for writing; if one slips through it writes to what is
    no longer the layer.
    """
    driver.create("layer", ())
    path = tree_of(driver, "layer") / "file"
    path.write_bytes(b"before the seal")
    with path.open("r+b", buffering=0) as file:
        with pytest.raises(InUseError) as caught:
            driver.seal("layer", ())
        assert any(f"process {os.getpid()} " in str(line) for line in caught.value.holders)
        # As if the descriptor were where nobody sees it: the seal's two steps without the look.
        fd = os.open(driver.layer_path("layer"), os.O_RDONLY)
        source = os.open(driver.layer_path("layer") / "fs", os.O_RDONLY)
        btrfs.create_snapshot(source, fd, "sealed", read_only=True)
        os.close(source)
        btrfs.delete_subvolume(fd, "fs")
        os.close(fd)
        file.write(b"AFTER THE SEAL ")
        os.fsync(file.fileno())
    driver.seal("layer", ())
    assert (tree_of(driver, "layer") / "file").read_bytes() == b"before the seal"


def test_crash_between_the_snapshot_and_the_deletion(driver: BtrfsSnapshot, point: Path) -> None:
    """A layer that has both is sealed: nothing writes to it any more, and the next seal cleans
    up.
    """
    driver.create("layer", ())
    (tree_of(driver, "layer") / "file").write_text("sealed")
    fd = os.open(driver.layer_path("layer"), os.O_RDONLY)
    source = os.open(driver.layer_path("layer") / "fs", os.O_RDONLY)
    btrfs.create_snapshot(source, fd, "sealed", read_only=True)
    os.close(source)
    os.close(fd)
    (driver.layer_path("layer") / "fs/file").write_text("never sealed")
    with pytest.raises(ReadOnlyError):
        driver.mounts("layer", (), read_only=False)
    with view(driver, point, "layer", read_only=True) as top:
        assert (top / "file").read_text() == "sealed"
    driver.create("above", ("layer",))
    assert (tree_of(driver, "above") / "file").read_text() == "sealed"
    driver.seal("layer", ())
    assert sorted(os.listdir(driver.layer_path("layer"))) == ["sealed"]
    assert "layer/fs" not in subvolumes_of(driver)
    driver.seal("layer", ())
    driver.remove("layer")
    assert_gone(driver, "layer")


def test_layer_with_both_subvolumes_can_be_removed(driver: BtrfsSnapshot) -> None:
    """A crash in the middle of a seal does not keep a layer from being removed."""
    driver.create("layer", ())
    subvolume(tree_of(driver, "layer") / "nested")
    fd = os.open(driver.layer_path("layer"), os.O_RDONLY)
    source = os.open(driver.layer_path("layer") / "fs", os.O_RDONLY)
    btrfs.create_snapshot(source, fd, "sealed", read_only=True)
    os.close(source)
    os.close(fd)
    driver.remove("layer")
    assert_gone(driver, "layer")


def test_layer_without_its_subvolume_is_not_there(driver: BtrfsSnapshot) -> None:
    """What a killed create() left is no layer to mount or to seal, in the words of the package."""
    driver.create("layer", ())
    (driver.layer_path("layer") / "fs").rmdir()
    for action in (
        lambda: driver.mounts("layer", (), read_only=True),
        lambda: driver.seal("layer", ()),
        lambda: driver.create("above", ("layer",)),
    ):
        with pytest.raises(NotFoundError):
            action()
    assert list(driver.layers()) == ["layer"]
    driver.remove("layer")


# The rest


def test_two_processes_remove_one_layer(driver: BtrfsSnapshot) -> None:
    """Both succeed whoever comes first, nested subvolumes or not."""
    driver.create("first", ())
    driver.remove("first")  # there is a trash directory
    for turn in range(15):
        layer = f"layer{turn}"
        driver.create(layer, ())
        for number in range(20):
            subvolume(tree_of(driver, layer) / f"a/{number}/nested")
        reader, writer = os.pipe()

        def action(layer: str = layer, reader: int = reader, writer: int = writer) -> None:
            os.close(writer)
            os.read(reader, 1)
            driver.remove(layer)

        children = [forked(action) for _ in range(2)]
        os.close(reader)
        os.close(writer)  # the start
        assert [succeeded(pid) for pid in children] == [True, True]
        assert_gone(driver, layer)


def test_layers_survive_a_move_of_the_graph_root(driver: BtrfsSnapshot, point: Path) -> None:
    """A store that was moved shows what it showed, and goes on."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    before = read_tree(tree_of(driver, "top"))
    moved = BtrfsSnapshot(driver.home.parent / "moved" / "btrfs-snapshot")
    moved.home.parent.mkdir()
    driver.home.rename(moved.home)
    assert differences(before, read_tree(tree_of(moved, "top"))) == []
    with view(moved, point, "top", base) as top:
        (top / "after").touch()
    moved.seal("top", (base,))
    moved.create("above", ("top", base))
    assert (tree_of(moved, "above") / "after").exists()
    for layer in ("above", "top", base):
        moved.remove(layer)
    assert subvolumes_of(moved) == set()


def test_usage_counts_the_layers_tree(driver: BtrfsSnapshot) -> None:
    """Bytes and inodes of the whole tree, sealed or not; shared extents count in each layer."""
    base = make_base(driver, lambda top: fill(top, 2 * MEGABYTE))
    os.sync()
    assert 2 * MEGABYTE <= driver.usage(base).bytes < 3 * MEGABYTE
    driver.create("top", (base,))
    assert driver.usage("top") == driver.usage(base)
    (tree_of(driver, "top") / "new").touch()
    assert driver.usage("top").inodes == driver.usage(base).inodes + 1


def test_chain_of_200_layers(driver: BtrfsSnapshot) -> None:
    """Each layer of a long chain has the files of all below, and the middle one can go."""
    lowers: list[str] = []
    for number in range(200):
        layer = f"layer{number:03}"
        driver.create(layer, lowers)
        (tree_of(driver, layer) / f"file{number:03}").touch()
        driver.seal(layer, lowers)
        lowers.insert(0, layer)
    assert len(os.listdir(tree_of(driver, "layer199"))) == 200
    assert len(os.listdir(tree_of(driver, "layer099"))) == 100
    driver.remove("layer100")
    assert len(os.listdir(tree_of(driver, "layer199"))) == 200
    for layer in lowers:
        driver.remove(layer)
    assert subvolumes_of(driver) == set()


def _work_of(driver: BtrfsSnapshot, base: str, layer: str) -> Counter[str]:
    """What create() and seal() do to the disk, by the interpreter's own audit events."""
    reader, writer = os.pipe()

    def action() -> None:
        found: Counter[str] = Counter()

        def count(event: str, arguments: tuple[object, ...]) -> None:
            about = str(arguments[0]) if arguments else ""
            if not about.startswith("/proc") and event.startswith(("os.", "open", "fcntl.")):
                found[event] += 1

        driver.create(f"{layer}warm", (base,))  # imports, caches
        sys.addaudithook(count)
        driver.create(layer, (base,))
        driver.seal(layer, (base,))
        result = "\n".join(f"{event} {number}" for event, number in found.items())
        os.write(writer, result.encode())

    pid = forked(action)
    os.close(writer)
    with open(reader) as file:
        lines = file.read().splitlines()
    assert succeeded(pid)
    return Counter({event: int(number) for event, _, number in (x.partition(" ") for x in lines)})


def test_create_and_seal_do_the_same_for_any_content(driver: BtrfsSnapshot) -> None:
    """The steps of a fork do not depend on how many files lie in the layers."""

    def many(top: Path) -> None:
        for number in range(2000):
            directory = top / f"directory{number % 50}"
            directory.mkdir(exist_ok=True)
            (directory / f"file{number}").touch()

    small = make_base(driver, lambda top: (top / "file").touch(), name="small")
    large = make_base(driver, many, name="large")
    steps = _work_of(driver, small, "above-small")
    assert steps["fcntl.ioctl"] >= 3
    assert _work_of(driver, large, "above-large") == steps
