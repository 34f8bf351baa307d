"""Volumes as tars: all that they hold comes back, and a tar that is no good changes nothing."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import archives
import pytest
from capabilities import need
from contained import base_image
from crashes import killed, out_of_space, through_every_step
from hostile import Hostile, all_archives
from stored import Place
from volumed import IMAGE, cleaned, content, is_whole

from storagedrivers.archive.whole import pack_whole
from storagedrivers.errors import (
    DiffError,
    DigestMismatchError,
    InUseError,
    StoreError,
    UnrepresentableError,
)
from storagedrivers.linux import copy, syscalls, tree
from storagedrivers.model import Limits
from storagedrivers.storage import Storage
from storagedrivers.stores import volume_archive, volume_records
from storagedrivers.testing.trees import ACL, CAPABILITY, OLD, differences, populate, read_tree

FILES = 10_000
SMALL = archives.tar(
    archives.directory(b"./", mode=0o750, uid=5, gid=6),
    archives.directory(b"a/"),
    archives.file(b"a/new", b"new"),
    archives.file(b"b", b"b"),
)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Place]:
    need("root")
    with cleaned(Place(tmp_path / "place")) as made:
        yield made


@pytest.fixture(params=["plain", "image", "without exchange"])
def each(
    request: pytest.FixtureRequest,
    on_filesystem: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Place, int | None]]:
    """A store, and the size of its volumes: one with a size is mounted from an image."""
    need("mount")
    if request.param == "image":
        need("loop", "ext4", "mkfs.ext4")
    if request.param == "without exchange":
        monkeypatch.setattr(syscalls, "renameat2", _refused)
    with cleaned(Place(on_filesystem("tmpfs"))) as made:
        yield made, 4 << 20 if request.param == "image" else None


def _refused(*_: object) -> None:
    raise OSError(22, "Invalid argument")


def exported(storage: Storage, name: str) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    return storage.volumes.export(name, buffer.write), buffer.getvalue()


def import_(storage: Storage, name: str, data: bytes, digest: str | None = None) -> None:
    storage.volumes.import_(name, io.BytesIO(data), digest=digest)


def old_volume(storage: Storage, name: str = "one", size: int | None = None) -> Path:
    """A volume that holds something, and its data directory."""
    storage.volumes.create(name, size=size)
    with storage.volumes.used(name) as path:
        (path / "old/below").mkdir(parents=True)
        (path / "old/below/file").write_text("old")
        (path / "b").write_text("an older b")
        path.chmod(0o711)
        os.chown(path, 3, 4)
        for one in (path / "old", path):
            os.utime(one, ns=(OLD, OLD))
    return Path(storage.volumes.data(name))


def _many_files(top: Path) -> None:
    """Ten thousand files, among them each kind that is easily lost."""
    for number in range(FILES):
        directory = top / f"{number % 37}/{number % 11}"
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"file-{number}"
        if number % 9 == 1:
            os.link(top / f"{(number - 1) % 37}/{(number - 1) % 11}/file-{number - 1}", file)
            continue
        with file.open("wb") as stream:
            stream.write(b"%d\n" % number * (number % 50))
            if number % 100 == 5:
                stream.truncate(3 << 20)  # a hole at the end
            elif number % 100 == 6:
                stream.seek(1 << 20)
                stream.write(b"behind a hole")
            elif number % 100 == 7:
                stream.truncate(0)
                stream.truncate(1 << 20)  # nothing but a hole
        if number % 3 == 0:
            os.setxattr(file, "user.number", b"%d" % number)
        if number % 7 == 0:
            os.setxattr(file, "system.posix_acl_access", ACL)
        if number % 50 == 0:
            os.setxattr(file, "security.capability", CAPABILITY)
            os.setxattr(file, "trusted.note", b"t")
        if number % 5 == 0:
            os.chown(file, number, number + 1)
    os.setxattr(top / "1", "system.posix_acl_default", ACL)


def _data(path: Path) -> list[tuple[int, int]]:
    """Where a file has no holes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return [*copy.data_segments(fd, os.fstat(fd).st_size)]
    finally:
        os.close(fd)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_ten_thousand_files(
    filesystem: str, on_filesystem: Callable[[str], Path], tmp_path: Path
) -> None:
    """Attributes, ACLs, owners, hard links and holes: the tree is the same, the tar too."""
    need("root")
    with cleaned(Place(on_filesystem(filesystem))) as place, place.open() as storage:
        storage.volumes.create("many")
        data = Path(storage.volumes.data("many"))
        _many_files(data)
        expected = read_tree(data)
        assert sum(node.kind == "file" for node in expected.values()) == FILES
        tar = tmp_path / "tar"
        with tar.open("wb") as file:
            digest = storage.volumes.export("many", file.write)
        with tar.open("rb") as file:
            assert digest == f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        assert tar.stat().st_size < 40 << 20  # the holes would take 500 MiB
        with tar.open("rb") as file:
            made = storage.volumes.import_("back", file, digest=digest)
        assert (made.name, made.seed, made.driver) == ("back", None, "local")
        assert differences(expected, content(storage, "back")) == []
        back = Path(storage.volumes.data("back"))
        for number in (5, 6, 7, 105, 106, 107):
            name = f"{number % 37}/{number % 11}/file-{number}"
            # A filesystem may keep the zeros of a block, but it does not make up data.
            assert _data(back / name) == _data(data / name)
        again, _ = exported(storage, "back")
        assert again == digest
        assert is_whole(storage) == ["back", "many"]


def test_every_kind_of_file(plain: Place) -> None:
    """Only sockets stay behind, at which nobody listens any more."""
    with plain.open() as storage:
        storage.volumes.create("kinds")
        data = Path(storage.volumes.data("kinds"))
        populate(data)
        expected = read_tree(data)
        del expected[b"socket"]
        import_(storage, "again", exported(storage, "kinds")[1])
        assert differences(expected, content(storage, "again")) == []


def test_what_means_something_to_a_stack(plain: Place) -> None:
    """In a volume it is nothing special, as where Docker keeps its own layers in one."""
    with plain.open() as storage:
        storage.volumes.create("inner")
        data = Path(storage.volumes.data("inner"))
        layer = data / "overlay2/diff"
        layer.mkdir(parents=True)
        os.mknod(layer / "gone", stat.S_IFCHR, os.makedev(0, 0))
        for name in (".wh.name", ".wh..wh..opq", ".wh."):
            (layer / name).write_text(name)
        (layer / ".wh.directory").mkdir()
        (layer / ".wh.directory/file").touch()
        for path in (data, layer, layer / ".wh.name"):
            os.setxattr(path, "trusted.overlay.opaque", b"y")
            os.setxattr(path, "user.overlay.origin", b"o")
        import_(storage, "again", exported(storage, "inner")[1])
        again = Path(storage.volumes.data("again"))
        assert differences(read_tree(data), read_tree(again)) == []
        for path in ("", "overlay2/diff", "overlay2/diff/.wh.name"):
            assert os.getxattr(again / path, "trusted.overlay.opaque") == b"y"
            assert os.getxattr(again / path, "user.overlay.origin") == b"o"


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_others_read_it(program: str, plain: Place, tmp_path: Path) -> None:
    """What is exported is a tar as others have it, holes and attributes included."""
    need("root")
    if program == "bsdtar":
        need("bsdtar")
    with plain.open() as storage:
        storage.volumes.create("kinds")
        data = Path(storage.volumes.data("kinds"))
        populate(data)
        (data / "unreadable").chmod(0o400)
        with (data / "holes-and-no-end").open("wb") as file:
            file.write(b"begin")
            file.truncate(5 << 20)
        expected = read_tree(data)
        del expected[b"socket"]
        target = tmp_path / "target"
        target.mkdir()
        words = ["--xattrs"] if program == "bsdtar" else ["--xattrs", "--xattrs-include=*"]
        subprocess.run(
            [program, "-x", "-p", "--numeric-owner", *words, "-f", "-", "-C", target],
            input=exported(storage, "kinds")[1],
            check=True,
        )
        found = read_tree(target)
        del expected[b"."], found[b"."]  # which bsdtar does not set
        # What an ACL is to bsdtar is written in another way.
        ignoring = ("xattrs",) if program == "bsdtar" else ()
        assert differences(expected, found, ignoring=ignoring) == []
        for name in ("sparse", "holes-and-no-end"):
            found = (target / name).stat()
            assert found.st_blocks * 512 < found.st_size // 8


def test_tars_of_others(plain: Place, tmp_path: Path) -> None:
    """A tar of GNU tar, compressed, without an entry for the directory itself."""
    need("root")
    source = tmp_path / "source"
    source.mkdir()
    populate(source)
    names = sorted(set(os.listdir(source)) - {"socket"})
    command = ["tar", "-c", "-S", "-z", "--xattrs", "--acls", "--format=pax", "-C", source]
    data = subprocess.run([*command, "--", *names], capture_output=True, check=True).stdout
    with plain.open() as storage:
        old_volume(storage)
        import_(storage, "one", data)
        expected, found = read_tree(source), content(storage, "one")
        del expected[b"socket"], expected[b"."]
        top = found.pop(b".")
        assert differences(expected, found) == []
        assert (top.mode, top.uid, top.gid, top.mtime_ns) == (0o711, 3, 4, OLD)


def test_the_directory_itself(each: tuple[Place, int | None]) -> None:
    """Its owner and mode come from the tar, and all that was there is gone."""
    place, size = each
    with place.open() as storage:
        old_volume(storage, size=size)
        import_(storage, "one", SMALL)
        found = content(storage, "one")
        assert {*found} == {b".", b"a", b"a/new", b"b"}
        top = found[b"."]
        assert (top.mode, top.uid, top.gid) == (0o750, 5, 6)
        assert is_whole(storage) == ["one"]
        assert storage.volumes.get("one").size == size


def test_it_forgets_the_image(plain: Place, tmp_path: Path) -> None:
    from volumed import fill

    source = tmp_path / "image"
    source.mkdir()
    (source / "f").touch()
    with plain.open() as storage:
        storage.volumes.create("one")
        fill(storage, "one", source)
        assert storage.volumes.get("one").seed == IMAGE
        import_(storage, "one", SMALL)
        assert storage.volumes.get("one").seed is None


def test_protected_files_are_replaced(each: tuple[Place, int | None]) -> None:
    """What cannot be changed or moved (chattr +i) goes all the same."""
    from storagedrivers.linux import ioctl

    place, size = each
    with place.open() as storage:
        old_volume(storage, size=size)
        with storage.volumes.used("one") as path:
            for name in ("old", "b"):
                fd = os.open(path / name, os.O_RDONLY)
                try:
                    ioctl.protect(fd)
                except OSError:
                    pytest.skip("the filesystem has no flags")
                finally:
                    os.close(fd)
        import_(storage, "one", SMALL)
        assert {*content(storage, "one")} == {b".", b"a", b"a/new", b"b"}


def test_a_directory_of_the_host(plain: Place, tmp_path: Path) -> None:
    """Its content is replaced, and it keeps its owner and mode."""
    need("mount")
    host = tmp_path / "host"
    host.mkdir(mode=0o711)
    (host / "old").touch()
    with plain.open() as storage:
        options = {"type": "none", "o": "bind", "device": str(host)}
        storage.volumes.create("bound", options=options)
        import_(storage, "bound", SMALL)
        assert {*read_tree(host)} == {b".", b"a", b"a/new", b"b"}
        status = host.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o711)


@pytest.mark.parametrize("new", [True, False])
def test_a_tar_that_is_another(plain: Place, new: bool) -> None:
    """With the wrong digest nothing changes, and nothing comes."""
    with plain.open() as storage:
        if not new:
            old_volume(storage)
        before = [] if new else content(storage, "one")
        with pytest.raises(DigestMismatchError):
            import_(storage, "one", SMALL, "sha256:" + "0" * 64)
        with pytest.raises(StoreError):
            import_(storage, "one", SMALL, "md5:1")
        assert is_whole(storage) == ([] if new else ["one"])
        if not new:
            assert differences(before, content(storage, "one")) == []
        import_(storage, "one", SMALL, f"sha256:{hashlib.sha256(SMALL).hexdigest()}")


@pytest.mark.parametrize("length", [0, 100, 700, 1536, 2200])
def test_a_tar_that_breaks_off(each: tuple[Place, int | None], length: int) -> None:
    place, size = each
    with place.open() as storage:
        old_volume(storage, size=size)
        before = content(storage, "one")
        for name in ("one", "two"):
            with pytest.raises(DiffError):
                import_(storage, name, SMALL[:length])
        assert differences(before, content(storage, "one")) == []
        assert is_whole(storage) == ["one"]


def test_a_pipe_that_fails(each: tuple[Place, int | None]) -> None:
    def pieces() -> Iterator[bytes]:
        yield SMALL[:1024]
        raise ConnectionResetError(104, "Connection reset by peer")

    place, size = each
    with place.open() as storage:
        old_volume(storage, size=size)
        before = content(storage, "one")
        with pytest.raises(ConnectionResetError):
            storage.volumes.import_("one", archives.Lazy(pieces()))
        assert differences(before, content(storage, "one")) == []
    with place.open() as storage:
        assert is_whole(storage) == ["one"]


def test_one_that_is_too_large(plain: Place) -> None:
    with plain.open() as storage:
        old_volume(storage)
        before = content(storage, "one")
        for limits in (Limits(entries=2), Limits(bytes=2000)):
            with pytest.raises(DiffError):
                volume_archive.import_(storage.volumes, "one", io.BytesIO(SMALL), limits=limits)
        assert differences(before, content(storage, "one")) == []
        assert is_whole(storage) == ["one"]


def test_more_than_the_size_lets_in(on_filesystem: Callable[[str], Path]) -> None:
    """The volume's own limit holds for what is imported, and the old content stays."""
    need("mount", "loop", "ext4", "mkfs.ext4")
    with cleaned(Place(on_filesystem("tmpfs"))) as place:
        with place.open() as storage:
            old_volume(storage, size=2 << 20)
            before = content(storage, "one")
            large = archives.tar(archives.file(b"large", os.urandom(3 << 20)))
            with pytest.raises(OSError, match="No space left"):
                import_(storage, "one", large)
            assert differences(before, content(storage, "one")) == []
        with place.open() as storage:
            assert is_whole(storage) == ["one"]


def test_names_that_can_be_none(plain: Place) -> None:
    with plain.open() as storage:
        for name in ("..", "a/b", "", "x" * 300, "ä"):
            with pytest.raises(StoreError, match="volume name"):
                import_(storage, name, SMALL)
        for name in ("..", "a/b", "none"):
            with pytest.raises(StoreError):
                exported(storage, name)
        assert storage.volumes.ls() == []


def test_an_attribute_that_no_tar_can_say(plain: Place) -> None:
    with plain.open() as storage:
        data = old_volume(storage)
        os.setxattr(data / "b", "user.a=b", b"1")
        with pytest.raises(UnrepresentableError, match=r"user\.a=b"):
            exported(storage, "one")


# While it is in use


def test_a_container_that_runs(plain: Place) -> None:
    """Its volume is not replaced under it; that of one that is stopped is."""
    with plain.open() as storage:
        base_image(storage)
        old_volume(storage)
        container = storage.containers.create("base", name="user")
        with storage.database.transaction() as connection:
            volume_records.use(connection, container.id, [("/data", "one")])
        before = content(storage, "one")
        with _running(storage, container.id):
            with pytest.raises(InUseError, match="user"):
                import_(storage, "one", SMALL)
        assert differences(before, content(storage, "one")) == []
        import_(storage, "one", SMALL)
        assert b"a/new" in content(storage, "one")
        storage.containers.remove("user")
        storage.images.remove("base")


@contextmanager
def _running(storage: Storage, container: str) -> Iterator[None]:
    directory = storage.run_root / "containers" / container
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / "monitor", os.O_RDWR | os.O_CREAT)
    try:
        syscalls.flock(fd, syscalls.LOCK_EX)
        yield
    finally:
        os.close(fd)
        (directory / "monitor").unlink()
        directory.rmdir()


def test_it_is_not_taken_away_meanwhile(each: tuple[Place, int | None]) -> None:
    """A volume that is being exported is neither removed nor replaced: the tar would lack files."""
    place, size = each
    with place.open() as storage, place.open() as other:
        old_volume(storage, size=size)
        written = []

        def write(data: bytes | memoryview) -> None:
            with pytest.raises(InUseError):
                other.volumes.remove("one")
            with pytest.raises(InUseError):
                import_(other, "one", SMALL)
            assert other.volumes.prune(all=True) == []
            written.append(bytes(data))

        storage.volumes.export("one", write)
        assert written
        import_(storage, "again", b"".join(written))
        assert differences(content(storage, "one"), content(storage, "again")) == []


def test_a_container_that_changes_it_all_the_time(plain: Place, tmp_path: Path) -> None:
    """Nothing outside is read, and no device or fifo is opened, whatever is exchanged for what."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("a secret")
    with plain.open() as storage:
        data = old_volume(storage)
        before = {path.name for path in data.iterdir()}
        real = os.stat

        def late(path: object, *arguments: object, **named: object) -> os.stat_result:
            found = real(path, *arguments, **named)  # type: ignore[arg-type]
            if path == b"b" and not (data / "b").is_symlink():
                (data / "b").unlink()
                (data / "b").symlink_to(outside / "secret")
            if path == b"old" and not (data / "old").is_symlink():
                (data / "old").rename(data / "moved")
                (data / "old").symlink_to(outside)
            return found

        buffer = io.BytesIO()
        with pytest.MonkeyPatch.context() as patch, tree.opened_directory(data) as fd:
            patch.setattr(os, "stat", late)
            with pytest.raises((DiffError, OSError)):
                pack_whole(fd, buffer.write)
        (data / "b").unlink()
        os.mkfifo(data / "b")  # to open it would wait for ever
        assert before == {"b", "old"}
        _, whole = exported(storage, "one")
        assert b"a secret" not in buffer.getvalue() + whole


# Hostile tars


ARCHIVES = all_archives()


@pytest.mark.parametrize("family", range(8))
def test_hostile_tars(family: int, plain: Place, tmp_path: Path) -> None:
    """Nothing happens outside; an error leaves what was there, and nothing half made."""
    outside = tmp_path / "outside"
    for path in (outside, outside / "dir"):
        path.mkdir()
        for name in ("secret", "sentinel", "file", "x"):
            (path / name).write_text("untouched")
    with plain.open() as storage:
        data = old_volume(storage)
        storage.volumes.create("beside")
        beside = Path(storage.volumes.data("beside"))
        (beside / "secret").write_text("untouched")
        surroundings = read_tree(outside), read_tree(beside)
        for archive in ARCHIVES[family::8]:
            before = read_tree(data)
            for name in ("one", "new"):
                failed = _import_hostile(storage, name, archive, outside)
                if failed and name == "one":
                    assert differences(before, read_tree(data)) == [], archive.never
                if name == "new" and not failed:
                    storage.volumes.remove("new")
            assert (read_tree(outside), read_tree(beside)) == surroundings, archive.never
            assert sorted(os.listdir(storage.root / "volumes")) == ["beside", "one"]
            assert os.listdir(storage.root / "volumes/one") == ["_data"]
            assert storage.database.rows("SELECT name FROM volumes WHERE state != 'ready'") == []
            if not failed:
                storage.volumes.remove("one")
                data = old_volume(storage)
        _leave_nothing(data)


def _import_hostile(storage: Storage, name: str, archive: Hostile, outside: Path) -> bool:
    """Whether it was refused."""
    made = archive.make(os.fsencode(outside))
    stream: BinaryIO = io.BytesIO(made) if isinstance(made, bytes) else made
    try:
        volume_archive.import_(storage.volumes, name, stream, limits=archive.limits)
    except DiffError:
        return True
    return False


def _leave_nothing(data: Path) -> None:
    """Some archives make trees that are deeper than a path may be."""
    with tree.opened_directory(data) as fd:
        tree.empty_directory(fd)


# At every step


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_every_step_of_making(plain: Place, act: Callable[[], None]) -> None:
    """It is there as a whole, or not at all."""

    def look() -> None:
        with plain.open() as storage:
            names = is_whole(storage)
            assert names in ([], ["one"])
            if names:
                assert {*content(storage, "one")} == {b".", b"a", b"a/new", b"b"}
                storage.volumes.remove("one")

    through_every_step(
        plain.do(lambda storage: import_(storage, "one", SMALL)), act, look, at_least=20
    )


@pytest.mark.parametrize("act", [killed, out_of_space])
def test_every_step_of_replacing(each: tuple[Place, int | None], act: Callable[[], None]) -> None:
    """It holds what it held, or what was to come; never both, and never neither."""
    place, size = each
    expected = []

    def begin() -> None:
        with place.open() as storage:
            storage.volumes.remove("one", force=True)
            old_volume(storage, size=size)
            expected.append(content(storage, "one"))

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) == ["one"]
            found = content(storage, "one")
            if b"a/new" in found:
                assert {*found} == {b".", b"a", b"a/new", b"b"}
                assert (found[b"."].mode, found[b"."].uid) == (0o750, 5)
            else:
                # Who is killed in the middle of it leaves the time of the directory changed.
                ignoring = ("mtime_ns",) if size else ()
                assert differences(expected[-1], found, ignoring=ignoring) == []
                import_(storage, "one", SMALL)
                assert {*content(storage, "one")} == {b".", b"a", b"a/new", b"b"}
        begin()

    begin()
    replace = place.do(lambda storage: import_(storage, "one", SMALL))
    through_every_step(replace, act, look, at_least=25)


def test_sockets_are_left_out(plain: Place) -> None:
    with plain.open() as storage, ExitStack() as stack:
        data = old_volume(storage)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        fd = os.open(data, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
        import_(storage, "two", exported(storage, "one")[1])
        assert b"socket" not in content(storage, "two")
