"""What is special to vfs-copy: shared contents, full disks, no privileges."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from capabilities import need
from processes import forked, succeeded

from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.errors import DriverUnsupportedError, InUseError, ReadOnlyError
from storagedrivers.host import read_host
from storagedrivers.linux import ioctl, mount
from storagedrivers.model import Capability, Mount
from storagedrivers.testing.filesystems import MEGABYTE, loop_filesystem
from storagedrivers.testing.trees import differences, populate, read_tree

NOBODY = 65534

OnFilesystem = Callable[[str], Path]


def make_base(driver: VfsCopy, write: Callable[[Path], object]) -> str:
    driver.create("base", ())
    write(tree_of(driver, "base"))
    driver.seal("base", ())
    return "base"


def tree_of(driver: VfsCopy, layer: str) -> Path:
    (value,) = driver.mounts(layer, (), read_only=True)
    return Path(value.source)


def on_disk(driver: VfsCopy) -> set[str]:
    """The paths in the home, but for an empty trash directory."""
    found = {str(path.relative_to(driver.home)) for path in driver.home.rglob("*")}
    return found - {".trash"}


# Contents

_FIEMAP = 0xC020660B  # FS_IOC_FIEMAP, linux/fiemap.h
_SYNC = 1
_LAST, _SHARED = 0x1, 0x2000
_HEADER = struct.Struct("=QQIIII")  # start, length, flags, mapped, count, reserved
_EXTENT = struct.Struct("=QQQQQIIII")  # logical, physical, length, …, flags, …
_EXTENTS = 32


def extents_are_shared(path: Path) -> bool:
    """Whether another file has every extent of *path* too."""
    request = bytearray(_HEADER.size + _EXTENTS * _EXTENT.size)
    _HEADER.pack_into(request, 0, 0, 2**64 - 1, _SYNC, 0, _EXTENTS, 0)
    with path.open("rb") as file:
        ioctl.ioctl(file.fileno(), _FIEMAP, request)
    count = _HEADER.unpack_from(request)[3]
    flags = [
        _EXTENT.unpack_from(request, _HEADER.size + number * _EXTENT.size)[5]
        for number in range(count)
    ]
    assert flags, "it has no extents"
    assert flags[-1] & _LAST, "it has more extents than this asks for"
    return all(one & _SHARED for one in flags)


def used_bytes(path: Path) -> int:
    os.sync()
    space = os.statvfs(path)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def _write_large(top: Path) -> None:
    (top / "directory").mkdir()
    for name in ("large", "directory/large"):
        with (top / name).open("wb") as file:
            file.write(os.urandom(8 * MEGABYTE))
            os.fsync(file.fileno())


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_contents_are_shared_as_declared(kind: str, on_filesystem: OnFilesystem) -> None:
    """On xfs and btrfs a layer shares its extents with the one below, as the probe says; on ext4
    neither.
    """
    root = on_filesystem(kind)
    driver = VfsCopy(root / "vfs-copy")
    declared = Capability.REFLINK in VfsCopy.probe(read_host(root), driver.home).capabilities
    assert declared is (kind != "ext4")
    base = make_base(driver, _write_large)
    before = used_bytes(root)
    driver.create("top", (base,))
    for name in ("large", "directory/large"):
        assert extents_are_shared(tree_of(driver, "top") / name) is declared
    taken = used_bytes(root) - before
    assert taken < 4 * MEGABYTE if declared else taken >= 16 * MEGABYTE
    (tree_of(driver, "top") / "large").write_bytes(b"changed")
    lower = (tree_of(driver, base) / "large").stat()
    assert lower.st_size == 8 * MEGABYTE
    driver.remove("top")
    assert not extents_are_shared(tree_of(driver, base) / "large")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_contents_are_copied_inside_the_kernel(
    kind: str, on_filesystem: OnFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be shared copy_file_range(2) does the work, and no byte comes up here."""
    calls = {"copy_file_range": 0, "pread": 0}

    def counted(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            calls[name] += 1
            return real(*arguments)

        return call

    driver = VfsCopy(on_filesystem(kind) / "vfs-copy")
    base = make_base(driver, _write_large)
    for name in calls:
        monkeypatch.setattr(os, name, counted(name))
    driver.create("top", (base,))
    monkeypatch.undo()
    shares = kind in ("xfs", "btrfs")
    assert (calls["copy_file_range"] > 0) is not shares
    assert calls["pread"] == 0
    for name in ("large", "directory/large"):
        copied = (tree_of(driver, "top") / name).read_bytes()
        assert copied == (tree_of(driver, base) / name).read_bytes()


# Full disks


def _small_files(top: Path) -> None:
    for number in range(60):
        directory = top / f"directory{number}"
        directory.mkdir()
        for file in range(40):
            (directory / f"file{file}").write_bytes(b"x" * 4096)


def _large_files(top: Path) -> None:
    for number in range(20):
        (top / f"large{number}").write_bytes(os.urandom(MEGABYTE))


def _fill(directory: Path, *, leave: int) -> None:
    """Take all the space but *leave* bytes."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(MEGABYTE))
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - leave))
    os.sync()


@pytest.mark.parametrize("write", [_small_files, _large_files], ids=["small files", "large files"])
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_full_disk_in_the_middle_of_create(
    kind: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    """A copy that finds no room raises ENOSPC and leaves nothing, in a home without trash too."""
    need("root", "mount", kind, *(("loop", "mkfs.ext4") if kind == "ext4" else ()))
    with loop_filesystem(kind, tmp_path, size=64 * MEGABYTE) as top:
        driver = VfsCopy(top / "vfs-copy")
        base = make_base(driver, write)
        before = on_disk(driver)
        content = read_tree(tree_of(driver, base))
        _fill(top, leave=5 * MEGABYTE)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left") as caught:
                driver.create("top", (base,))
            assert caught.value.errno == errno.ENOSPC
            assert on_disk(driver) == before
            assert list(driver.layers()) == [base]
        assert differences(content, read_tree(tree_of(driver, base))) == []
        (top / "filler").unlink()
        driver.create("top", (base,))
        assert differences(content, read_tree(tree_of(driver, "top"))) == []


def test_no_inode_left_in_the_middle_of_create(tmp_path: Path) -> None:
    """Where the copy took the last inode there is none for a trash directory either, and nothing
    stays all the same.
    """
    need("root", "mount", "tmpfs")
    options = ("nr_inodes=100", "size=8m")
    with mount.mounted((Mount("tmpfs", "tmpfs", options=options),), tmp_path):
        driver = VfsCopy(tmp_path / "vfs-copy")
        base = make_base(driver, lambda top: [(top / str(number)).touch() for number in range(60)])
        before = on_disk(driver)
        with pytest.raises(OSError, match="No space left"):
            driver.create("top", (base,))
        assert list(driver.layers()) == [base]
        assert on_disk(driver) == before


# Without privileges


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user reaches and may write to."""
    need("root")
    directory = Path(tempfile.mkdtemp(prefix="storagedrivers-test-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


def test_user_without_privileges_keeps_layers(public: Path) -> None:
    """Layers are made, sealed, copied and removed without mounting anything."""

    def action() -> None:
        root = public / "graph-root"
        root.mkdir()
        driver = VfsCopy(root / "vfs-copy")
        result = VfsCopy.probe(read_host(root, inventory=False), driver.home)
        assert result.supported
        assert not result.predicted
        base = make_base(driver, lambda top: (populate(top), (top / "closed").chmod(0o500)))
        with pytest.raises(ReadOnlyError):
            driver.mounts(base, (), read_only=False)
        driver.create("top", (base,))
        top = tree_of(driver, "top")
        assert differences(read_tree(tree_of(driver, base)), read_tree(top)) == []
        with (top / "small").open("wb") as file:
            file.write(b"changed")
            with pytest.raises(InUseError) as caught:
                driver.seal("top", (base,))
            assert any(f"process {os.getpid()} " in str(line) for line in caught.value.holders)
        driver.seal("top", (base,))
        assert (tree_of(driver, base) / "small").read_bytes() != b"changed"
        assert driver.usage("top").inodes > 10
        for layer in ("top", base):
            driver.remove(layer)
        assert on_disk(driver) == set()

    read_host(public, inventory=False)  # the user may not be able to read what this imports
    assert succeeded(forked(action, user=NOBODY))


def test_another_users_layers_are_not_touched(public: Path) -> None:
    """Who may not write to a home is told so, and nothing of it changes."""
    driver = VfsCopy(public / "vfs-copy")
    base = make_base(driver, populate)
    driver.home.chmod(0o755)
    driver.layer_path(base).chmod(0o755)
    before = on_disk(driver)

    def action() -> None:
        for attempt in (lambda: driver.create("top", ()), lambda: driver.remove(base)):
            with pytest.raises(PermissionError):
                attempt()

    assert succeeded(forked(action, user=NOBODY))
    assert on_disk(driver) == before


# The rest


def test_size_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit cannot be kept, and is refused with a remedy before anything is made."""
    driver = VfsCopy(tmp_path / "vfs-copy")
    with pytest.raises(DriverUnsupportedError) as caught:
        driver.create("top", (), size=MEGABYTE)
    assert caught.value.resolution
    assert not driver.home.exists()


def test_layers_survive_a_move_of_the_graph_root(tmp_path: Path) -> None:
    """A store that was moved shows what it showed, and what is sealed stays so."""
    need("root")
    driver = VfsCopy(tmp_path / "old" / "vfs-copy")
    base = make_base(driver, populate)
    driver.create("top", (base,))
    before = read_tree(tree_of(driver, "top"))
    (tmp_path / "old").rename(tmp_path / "new")
    moved = VfsCopy(tmp_path / "new" / "vfs-copy")
    assert differences(before, read_tree(tree_of(moved, "top"))) == []
    with pytest.raises(ReadOnlyError):
        moved.mounts(base, (), read_only=False)
    moved.mounts("top", (base,), read_only=False)
