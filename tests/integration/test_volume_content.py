"""Volumes that get the content of an image: when, what, and whatever happens meanwhile."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import archives
import pytest
from capabilities import need
from crashes import child_ending, killed, make_image, out_of_space, shut_down, through_every_step
from stored import Place
from volumed import IMAGE, cleaned, content, fill, is_whole

from storagedrivers.errors import NotFoundError
from storagedrivers.linux import mount as mounting
from storagedrivers.linux import syscalls, tree
from storagedrivers.linux.loop import loop_device
from storagedrivers.model import Mount, Volume
from storagedrivers.stores import volume_content
from storagedrivers.stores.volume_content import Filled
from storagedrivers.testing.trees import OLD, differences, populate, read_tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of an image, with a little of everything."""
    made = tmp_path / "image"
    (made / "etc/conf.d").mkdir(parents=True)
    (made / "etc/conf.d/one").write_text("1")
    (made / ".hidden").write_text("h")
    (made / "data").write_text("written")
    (made / "etc/same").hardlink_to(made / "data")
    (made / "link").symlink_to("etc")
    os.setxattr(made / "data", "user.note", b"kept")
    os.chown(made / "data", 999, 998)
    os.chown(made, 999, 998)
    made.chmod(0o2750)
    os.utime(made, ns=(OLD, OLD))
    return made


@pytest.fixture(params=["plain", "image"])
def place(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[tuple[Place, int | None]]:
    """A store, and the size of its volumes: one with a size is mounted from an image."""
    need("mount")
    if request.param == "image":
        need("loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("tmpfs"))) as made:
        yield made, 4 << 20 if request.param == "image" else None


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Place]:
    need("root")
    with cleaned(Place(tmp_path / "place")) as made:
        yield made


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_everything_comes(
    filesystem: str, on_filesystem: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every kind of file, with all metadata, and that of the directory itself."""
    need("root")
    source = tmp_path / "source"
    source.mkdir(mode=0o750)
    populate(source)
    os.chown(source, 7, 8)
    os.setxattr(source, "user.top", b"too")
    os.utime(source, ns=(OLD, OLD))
    with cleaned(Place(on_filesystem(filesystem))) as place, place.open() as storage:
        volume = storage.volumes.create("everything")
        found = fill(storage, volume, source)
        paths = list(source.rglob("*"))
        files = [path for path in paths if path.is_file() and not path.is_symlink()]
        size = sum({path.stat().st_ino: path.stat().st_size for path in files}.values())
        assert found == Filled(len(paths), size)
        assert differences(read_tree(source), content(storage, "everything")) == []
        assert storage.volumes.get("everything").seed == IMAGE
        assert is_whole(storage) == ["everything"]
        sparse = Path(storage.volumes.data("everything"), "sparse").stat()
        assert sparse.st_blocks * 512 < sparse.st_size // 8


def test_once_and_never_over_anything(plain: Place, source: Path) -> None:
    """Only an empty volume is filled; a hidden file is something."""
    with plain.open() as storage:
        volume = storage.volumes.create("hidden")
        (Path(storage.volumes.data("hidden")) / ".x").touch()
        assert fill(storage, volume, source) == Filled(0, 0)
        assert os.listdir(storage.volumes.data("hidden")) == [".x"]
        assert storage.volumes.get("hidden").seed is None
        mode = os.stat(storage.volumes.data("hidden")).st_mode & 0o7777
        assert mode == 0o755

        storage.volumes.create("once")
        assert fill(storage, "once", source) == Filled(7, 9)
        before = content(storage, "once")
        assert fill(storage, "once", source.parent, "sha256:other") == Filled(0, 0)
        assert content(storage, "once") == before
        assert storage.volumes.get("once").seed == IMAGE


def test_an_empty_directory_gives_its_owner_and_mode(plain: Place, source: Path) -> None:
    empty = source / "empty"
    empty.mkdir()
    empty.chmod(0o1770)
    os.chown(empty, 70, 71)
    with plain.open() as storage:
        storage.volumes.create("owned")
        assert fill(storage, "owned", empty) == Filled(0, 0)
        status = os.stat(storage.volumes.data("owned"))
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (70, 71, 0o1770)


def test_what_others_write_meanwhile_stays(
    plain: Place, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that has the empty volume mounted loses nothing that it writes."""
    with plain.open() as storage:
        storage.volumes.create("busy")
        theirs = Path(storage.volumes.data("busy")) / "data"
        rename = syscalls.renameat2

        def late(*arguments: object) -> None:
            if not theirs.exists():
                theirs.write_text("theirs")
            rename(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(syscalls, "renameat2", late)
        fill(storage, "busy", source)
        assert theirs.read_text() == "theirs"
        assert {*os.listdir(theirs.parent)} == {*os.listdir(source)}
        assert is_whole(storage) == ["busy"]


def test_a_filesystem_without_renameat2(
    plain: Place, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(syscalls, "renameat2", refused)
    with plain.open() as storage:
        storage.volumes.create("old")
        fill(storage, "old", source)
        assert differences(read_tree(source), content(storage, "old")) == []


def test_a_directory_of_the_host_keeps_owner_and_mode(plain: Place, source: Path) -> None:
    need("mount")
    host = source.parent / "host"
    host.mkdir(mode=0o711)
    os.chown(host, 5, 6)
    with plain.open() as storage:
        options = {"type": "none", "o": "bind", "device": str(host)}
        storage.volumes.create("bound", options=options)
        assert fill(storage, "bound", source) == Filled(7, 9)
        status = host.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 6, 0o711)
        expected, found = read_tree(source), read_tree(host)
        del expected[b"."], found[b"."]
        assert differences(expected, found) == []
        assert is_whole(storage) == ["bound"]


def test_a_filesystem_without_attributes(plain: Place, source: Path) -> None:
    """What it has no place for stays behind, as with Docker."""
    need("mount")
    with plain.open() as storage:
        volume = storage.volumes.create("ram", options={"type": "ramfs", "device": "ramfs"})
        with storage.volumes.used("ram") as path:  # it is gone with its last user
            fill(storage, volume, source)
            expected = read_tree(source)
            assert differences(expected, read_tree(path), ignoring=("xattrs",)) == []


def test_attributes_of_overlay_stay_behind(plain: Place, source: Path) -> None:
    """They tell of the image's place in a stack."""
    for path in (source, source / "etc", source / "data"):
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    with plain.open() as storage:
        storage.volumes.create("free")
        fill(storage, "free", source)
        data = Path(storage.volumes.data("free"))
        for path in (data, data / "etc", data / "data"):
            assert not [name for name in os.listxattr(path) if "overlay" in name]


def test_measuring_is_what_filling_brings(plain: Place, source: Path) -> None:
    with plain.open() as storage, tree.opened_directory(source) as fd:
        storage.volumes.create("measured")
        assert volume_content.measure(fd) == fill(storage, "measured", source)


def test_one_that_is_gone(plain: Place, source: Path) -> None:
    need("mount")
    with plain.open() as storage:
        gone = Volume("gone", "local", 0.0, {}, {})
        with pytest.raises(NotFoundError):
            fill(storage, gone, source)


def test_usage(plain: Place, source: Path) -> None:
    """Allocated bytes and inodes, hard links counted once."""
    with plain.open() as storage:
        storage.volumes.create("used")
        fill(storage, "used", source)
        found = storage.volumes.usage("used")
        assert found.inodes == 7
        assert found == tree.measure_tree(storage.volumes.data("used"))


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_every_step(place: tuple[Place, int | None], source: Path, act: Callable[[], None]) -> None:
    """It is empty as it was, or holds everything; nothing is left of the way there."""
    store, size = place

    def begin() -> None:
        with store.open() as storage:
            storage.volumes.remove("one", force=True)
            storage.volumes.create("one", size=size)

    def look() -> None:
        with store.open() as storage:
            assert is_whole(storage) == ["one"]
            found = content(storage, "one")
            if len(found) > 1:
                assert differences(read_tree(source), found, ignoring=("mtime_ns",)) == []
                assert storage.volumes.get("one").seed == IMAGE
            else:
                assert storage.volumes.get("one").seed is None
                fill(storage, "one", source)
                assert differences(read_tree(source), content(storage, "one")) == []
        begin()

    begin()
    through_every_step(
        store.do(lambda storage: fill(storage, "one", source)), act, look, at_least=40
    )


def test_it_goes_on_at_the_next_filling(plain: Place, source: Path) -> None:
    """What a killed process left is finished also by one that had the store open all the time."""
    with ExitStack() as stack:
        storage = stack.enter_context(plain.open())
        storage.volumes.create("left")
        for step in range(1, 200):
            code = child_ending(
                step, plain.do(lambda storage: fill(storage, "left", source)), killed
            )
            state = storage.database.row("SELECT state FROM volumes WHERE name = 'left'")
            if code == 3 or state == ("filling",):
                break
        assert state == ("filling",)
        fill(storage, "left", source)
        assert differences(read_tree(source), content(storage, "left")) == []
        assert os.listdir(storage.volumes.directory("left")) == ["_data"]


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_power_loss(tmp_path: Path, source: Path, filesystem: str) -> None:
    """What was said to be done is on the disk: filled, imported, replaced, cloned."""
    image, mountpoint = tmp_path / "disk", tmp_path / "mountpoint"
    make_image(filesystem, image)
    mountpoint.mkdir()
    place = Place(mountpoint)
    place.run_root = tmp_path / "run"
    tar = archives.tar(archives.file(b"f", b"from a tar"))
    with loop_device(image) as device:
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with place.open() as storage:
                storage.volumes.create("filled")
                fill(storage, "filled", source)
                storage.volumes.import_("imported", io.BytesIO(tar))
                storage.volumes.create("replaced")
                fill(storage, "replaced", source)
                storage.volumes.import_("replaced", io.BytesIO(tar))
                storage.volumes.clone("filled", "cloned")
                expected = read_tree(source)
                shut_down(mountpoint)
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with cleaned(place), place.open() as storage:
                names = ["cloned", "filled", "imported", "replaced"]
                assert is_whole(storage) == names
                for name in names[:2]:
                    assert differences(expected, content(storage, name)) == []
                for name in names[2:]:
                    assert {*content(storage, name)} == {b".", b"f"}
                    assert Path(storage.volumes.data(name), "f").read_bytes() == b"from a tar"
