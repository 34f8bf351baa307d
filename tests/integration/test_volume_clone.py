"""Volumes with what another one holds: the same files, at the price the filesystem asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from crashes import killed, out_of_space, through_every_step
from stored import Place
from volumed import IMAGE, cleaned, content, fill, is_whole

from storagedrivers.errors import (
    AlreadyExistsError,
    InUseError,
    NotFoundError,
    StoreError,
    VolumeError,
)
from storagedrivers.linux import btrfs, copy, syscalls, tree
from storagedrivers.storage import Storage
from storagedrivers.testing.filesystems import loop_filesystem
from storagedrivers.testing.trees import differences, populate
from storagedrivers.volumes import sizes

FILESYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")


@pytest.fixture(params=FILESYSTEMS)
def each(request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("root")
    with cleaned(Place(on_filesystem(request.param))) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Place]:
    need("root")
    with cleaned(Place(tmp_path / "place")) as made:
        yield made


def _source(storage: Storage, **more: object) -> Path:
    """A volume ``one`` with a little in it, and its data directory."""
    storage.volumes.create("one", **more)  # type: ignore[arg-type]
    with storage.volumes.used("one") as path:
        (path / "directory").mkdir(mode=0o750)
        (path / "directory/file").write_text("kept")
        (path / "again").hardlink_to(path / "directory/file")
        (path / "large").write_bytes(os.urandom(200_000))
        os.chown(path, 3, 4)
    return Path(storage.volumes.data("one"))


def test_everything_is_there(each: Place) -> None:
    with each.open() as storage:
        storage.volumes.create("one", labels={"a": "b"})
        populate(Path(storage.volumes.data("one")))
        expected = content(storage, "one")
        made = storage.volumes.clone("one", "two")
        assert (made.name, made.labels, made.driver) == ("two", {"a": "b"}, "local")
        assert made == storage.volumes.get("two")
        assert made.created > storage.volumes.get("one").created
        assert differences(expected, content(storage, "two")) == []
        assert is_whole(storage) == ["one", "two"]


def test_each_goes_its_own_way(each: Place) -> None:
    with each.open() as storage:
        data = _source(storage)
        expected = content(storage, "one")
        storage.volumes.clone("one", "two")
        (data / "directory/file").write_text("changed")
        (data / "more").touch()
        assert differences(expected, content(storage, "two")) == []
        before = content(storage, "one")
        other = Path(storage.volumes.data("two"))
        (other / "large").write_text("other")
        (other / "directory/file").unlink()
        assert differences(before, content(storage, "one")) == []
        storage.volumes.remove("one")
        assert (other / "again").read_text() == "kept"


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"])
def test_a_gigabyte(filesystem: str, tmp_path: Path) -> None:
    """In less than two seconds, and 5 MiB more: contents are shared."""
    need("mount", "loop", filesystem, f"mkfs.{filesystem}")
    with loop_filesystem(filesystem, tmp_path, size=3 << 30) as mountpoint:
        with cleaned(Place(mountpoint)) as place, place.open() as storage:
            storage.volumes.create("one")
            data = Path(storage.volumes.data("one"))
            block = os.urandom(1 << 20)
            for number in range(64):
                with (data / f"file-{number}").open("wb") as file:
                    for part in range(16):
                        file.write(b"%d %d" % (number, part) + block[16:])
            before = _used(mountpoint)
            said: list[str] = []
            start = time.monotonic()
            storage.volumes.clone("one", "two", say=said.append)
            took = time.monotonic() - start
            assert _used(mountpoint) - before < 5 << 20
            assert took < 2
            assert said == []
            other = Path(storage.volumes.data("two"))
            for number in (0, 31, 63):
                name = f"file-{number}"
                assert (data / name).read_bytes() == (other / name).read_bytes()
            assert len(os.listdir(other)) == 64


def _used(mountpoint: Path) -> int:
    """Bytes that are used, once everything has reached the disk."""
    with tree.opened_directory(mountpoint) as fd:
        for _ in range(2):  # what btrfs frees it gives back with the next transaction
            syscalls.syncfs(fd)
    found = os.statvfs(mountpoint)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_what_it_costs_is_said_before(
    filesystem: str, on_filesystem: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the filesystem cannot share contents; a snapshot says nothing either."""
    need("root")
    said: list[str] = []
    copied = copy.copy_tree

    def copying(*arguments: object, **named: object) -> bool:
        order.append(len(said))
        return copied(*arguments, **named)  # type: ignore[arg-type]

    order: list[int] = []
    monkeypatch.setattr(copy, "copy_tree", copying)
    with cleaned(Place(on_filesystem(filesystem))) as place, place.open() as storage:
        data = _source(storage)
        storage.volumes.clone("one", "two", say=said.append)
        if filesystem in ("ext4", "tmpfs"):
            size = tree.measure_tree(data).bytes
            assert said == [
                f"{size} bytes are copied: the filesystem of {storage.root} cannot share them"
                " between two files"
            ]
            assert order == [1]
        else:
            assert said == []
            assert order == ([0] if filesystem == "xfs" else [])


def test_subvolumes_in_it_come_along(on_filesystem: Callable[[str], Path]) -> None:
    """A snapshot would show them empty."""
    need("root")
    with cleaned(Place(on_filesystem("btrfs"))) as place, place.open() as storage:
        data = _source(storage)
        with tree.opened_directory(data / "directory") as fd:
            btrfs.create_subvolume(fd, "nested")
        (data / "directory/nested/file").write_text("in it")
        expected = content(storage, "one")
        storage.volumes.clone("one", "two")
        assert differences(expected, content(storage, "two")) == []


def test_a_size_goes_with_it(on_filesystem: Callable[[str], Path]) -> None:
    """Also where it is kept by an image, which is mounted while it is in use."""
    need("mount", "loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("tmpfs"))) as place, place.open() as storage:
        _source(storage, size=2 << 20)
        expected = content(storage, "one")
        made = storage.volumes.clone("one", "two")
        assert made.size == 2 << 20
        assert differences(expected, content(storage, "two")) == []
        with storage.volumes.used("two") as path:
            with pytest.raises(OSError, match="No space left"):
                (path / "more").write_bytes(bytes(3 << 20))
        assert is_whole(storage) == ["one", "two"]


def _in_image(storage: Storage) -> Path:
    """A volume ``one`` in an image of its own with 16 MiB in it, and the image."""
    storage.volumes.create("one", size=64 << 20, labels={"keep": ""})
    with storage.volumes.used("one") as path:
        (path / "large").write_bytes(os.urandom(16 << 20))
        (path / "again").hardlink_to(path / "large")
    return storage.root / "volumes/one/image"


@pytest.mark.parametrize("filesystem", ["xfs", "btrfs"])
def test_an_image_is_shared_as_a_whole(
    filesystem: str, on_filesystem: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("mount", "loop", "ext4", "mkfs.ext4")
    monkeypatch.setattr(copy, "copy_tree", None)
    with cleaned(Place(on_filesystem(filesystem))) as place, place.open() as storage:
        image = _in_image(storage)
        expected = content(storage, "one")
        before = _used(storage.root)
        said: list[str] = []
        made = storage.volumes.clone("one", "two", say=said.append)
        assert _used(storage.root) - before < 8 << 20
        assert (said, made.size, made.labels) == ([], 64 << 20, {"keep": ""})
        assert image.read_bytes() == (storage.root / "volumes/two/image").read_bytes()
        with storage.volumes.used("two") as path:
            (path / "large").write_bytes(b"other")
        assert differences(expected, content(storage, "one")) == []
        assert is_whole(storage) == ["one", "two"]


def test_an_image_in_use_is_copied_by_its_files(on_filesystem: Callable[[str], Path]) -> None:
    """What is mounted has not all reached its image."""
    need("mount", "loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("xfs"))) as place, place.open() as storage:
        _in_image(storage)
        said: list[str] = []
        with storage.volumes.used("one"):
            storage.volumes.clone("one", "two", say=said.append)
        (sentence,) = said
        assert sentence.endswith("volume one is in use, and only as a whole could it share them")
        assert differences(content(storage, "one"), content(storage, "two")) == []
        assert is_whole(storage) == ["one", "two"]


def test_an_image_where_nothing_is_shared(on_filesystem: Callable[[str], Path]) -> None:
    need("mount", "loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("ext4"))) as place, place.open() as storage:
        _in_image(storage)
        said: list[str] = []
        storage.volumes.clone("one", "two", say=said.append)
        (sentence,) = said
        assert sentence.endswith("cannot share them between two files")
        assert differences(content(storage, "one"), content(storage, "two")) == []


def test_an_image_where_the_clone_has_none(
    on_filesystem: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quotas may have come since the source was made."""
    need("mount", "loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("xfs"))) as place, place.open() as storage:
        _in_image(storage)
        with monkeypatch.context() as patch:
            patch.setattr(sizes, "enforce", lambda volume, directory: None)
            storage.volumes.clone("one", "two")
        assert differences(content(storage, "one"), content(storage, "two")) == []
        assert not (storage.root / "volumes/two/image").exists()
        assert is_whole(storage) == ["one", "two"]


def test_it_lies_in_the_store(plain: Place, tmp_path: Path) -> None:
    """A clone of what is mounted from elsewhere is not the same place once more."""
    need("mount")
    host = tmp_path / "host"
    host.mkdir()
    with plain.open() as storage:
        options = {"type": "none", "o": "bind", "device": str(host)}
        _source(storage, options=options)
        said: list[str] = []
        made = storage.volumes.clone("one", "two", say=said.append)
        assert made.options == {}
        assert said[0] == (
            f"the files of one are mounted from {host}, and those of two will lie in the store: it"
            " does not get the options type, device, o"
        )
        (host / "directory/file").write_text("changed")
        assert (Path(storage.volumes.data("two")) / "directory/file").read_text() == "kept"
        assert is_whole(storage) == ["one", "two"]


def test_it_keeps_the_seed(plain: Place, tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.mkdir()
    (source / "f").touch()
    with plain.open() as storage:
        volume = storage.volumes.create("one", anonymous=True)
        fill(storage, volume, source)
        made = storage.volumes.clone("one", "two")
        assert (made.seed, made.anonymous) == (IMAGE, False)


def test_what_is_refused(plain: Place) -> None:
    with plain.open() as storage:
        _source(storage)
        storage.volumes.create("two")
        before = content(storage, "two")
        for name in ("two", "one"):
            with pytest.raises(AlreadyExistsError, match=name):
                storage.volumes.clone("one", name)
        with pytest.raises(NotFoundError):
            storage.volumes.clone("none", "three")
        for name in ("..", "a/b", ""):
            with pytest.raises(StoreError, match="volume name"):
                storage.volumes.clone("one", name)
        assert differences(before, content(storage, "two")) == []
        assert is_whole(storage) == ["one", "two"]


def test_the_source_stays_meanwhile(plain: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be neither removed nor replaced before the clone is done."""
    with plain.open() as storage, plain.open() as other:
        _source(storage)
        copied = copy.copy_tree
        tried = []

        def copying(*arguments: object, **named: object) -> bool:
            with pytest.raises(InUseError):
                other.volumes.remove("one")
            tried.append(1)
            return copied(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(copy, "copy_tree", copying)
        storage.volumes.clone("one", "two")
        assert tried
        storage.volumes.remove("one")
        assert is_whole(storage) == ["two"]


def test_a_source_that_is_written_to(plain: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that goes away while it is copied is an error, and leaves no half of a clone."""
    with plain.open() as storage:
        data = _source(storage)
        real = os.stat

        def late(path: object, *arguments: object, **named: object) -> os.stat_result:
            if path == "large":
                (data / "large").unlink(missing_ok=True)
            return real(path, *arguments, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", late)
            with pytest.raises(VolumeError, match="large"):
                storage.volumes.clone("one", "two")
        assert is_whole(storage) == ["one"]


@pytest.mark.parametrize("act", [killed, out_of_space])
@pytest.mark.parametrize("filesystem", ["tmpfs", "btrfs"])
def test_every_step(
    filesystem: str, on_filesystem: Callable[[str], Path], act: Callable[[], None]
) -> None:
    """The clone is there as a whole, or not at all; the source is as it was."""
    need("root")
    with cleaned(Place(on_filesystem(filesystem))) as place:
        with place.open() as storage:
            _source(storage)
            expected = content(storage, "one")

        def look() -> None:
            with place.open() as storage:
                names = is_whole(storage)
                assert names in (["one"], ["one", "two"])
                for name in names:
                    assert differences(expected, content(storage, name)) == []
                storage.volumes.remove("two", force=True)

        clone = place.do(lambda storage: storage.volumes.clone("one", "two"))
        through_every_step(clone, act, look, at_least=15)


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_every_step_with_an_image(
    on_filesystem: Callable[[str], Path], act: Callable[[], None]
) -> None:
    need("mount", "loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("xfs"))) as place:
        with place.open() as storage:
            _source(storage, size=2 << 20)
            expected = content(storage, "one")

        def look() -> None:
            with place.open() as storage:
                names = is_whole(storage)
                assert names in (["one"], ["one", "two"])
                for name in names:
                    assert differences(expected, content(storage, name)) == []
                storage.volumes.remove("two", force=True)

        clone = place.do(lambda storage: storage.volumes.clone("one", "two"))
        through_every_step(clone, act, look, at_least=15)
