"""Files go in and out of containers as docker cp has them, and never anywhere else."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from capabilities import need
from contained import base_image, clean
from running import PATIENCE, command_line

from storagedrivers.errors import ContainerError, DiffError, InUseError, NotFoundError
from storagedrivers.linux import syscalls
from storagedrivers.storage import Storage

_RENAME_EXCHANGE = 2


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    need("mount", "overlay")
    directory = on_filesystem("ext4")
    made = Storage.open(root=directory / "store", run_root=directory / "run", driver="overlay2")
    base_image(made)
    made.containers.create("base", name="box")
    yield made
    clean(made)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A file, a directory with a file, a directory and a symlink in it."""
    (tmp_path / "file").write_text("content")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/one").write_text("1")
    (tmp_path / "dir/sub/two").write_text("2")
    (tmp_path / "dir/link").symlink_to("one")
    os.link(tmp_path / "dir/one", tmp_path / "dir/same")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-dir").symlink_to("dir")
    os.utime(tmp_path / "dir/one", ns=(1, 1_600_000_000_123_456_789))
    return tmp_path


def tree_of(directory: Path) -> dict[str, str]:
    """What is below a directory, by path: content, target, or ``/`` for a directory."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink():
            what = f"-> {os.readlink(path)}"
        else:
            what = "/" if path.is_dir() else path.read_text()
        found[str(path.relative_to(directory))] = what
    return found


DIR = {"link": "-> one", "one": "1", "same": "1", "sub": "/", "sub/two": "2"}

# Source, target, what is there before, what is there afterwards or the error.
RULES: list[tuple[str, str, tuple[str, ...], dict[str, str] | str]] = [
    ("file", "new", (), {"new": "content"}),
    ("file", "new/", (), "is no directory that is there"),
    ("file", "no/new", (), "there is no directory"),
    ("file", "old", ("old",), {"old": "content"}),
    ("file", "old/", ("old",), "is no directory that is there"),
    ("file", "d", ("d/",), {"d": "/", "d/file": "content"}),
    ("file", "d/", ("d/",), {"d": "/", "d/file": "content"}),
    ("file", "d", ("d/", "d/file/"), "cannot be replaced by what is none"),
    ("file/", "new", (), "is no directory"),
    ("dir", "new", (), {"new": "/", **{f"new/{key}": value for key, value in DIR.items()}}),
    ("dir", "new/", (), {"new": "/", **{f"new/{key}": value for key, value in DIR.items()}}),
    ("dir/.", "new", (), {"new": "/", **{f"new/{key}": value for key, value in DIR.items()}}),
    ("dir", "no/new", (), "there is no directory"),
    ("dir", "old", ("old",), "cannot be copied to the file"),
    (
        "dir",
        "d",
        ("d/", "d/kept"),
        {
            "d": "/",
            "d/kept": "old",
            "d/dir": "/",
            **{f"d/dir/{key}": value for key, value in DIR.items()},
        },
    ),
    (
        "dir/.",
        "d",
        ("d/", "d/kept", "d/one"),
        {"d": "/", "d/kept": "old", **{f"d/{key}": value for key, value in DIR.items()}},
    ),
    ("dir/.", "d", ("d/", "d/sub"), "a directory cannot replace 'sub'"),
    ("dir/.", "d", ("d/", "d/one/"), "cannot be replaced by what is none"),
    ("to-file", "new", (), {"new": "-> file"}),
    ("to-dir", "new", (), {"new": "-> dir"}),
    ("to-dir/", "new", (), {"new": "/", **{f"new/{key}": value for key, value in DIR.items()}}),
    ("none", "new", (), "there is no"),
]


def prepare(directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if name.endswith("/"):
            (directory / name).mkdir(parents=True)
        else:
            (directory / name).write_text("old")


def outcome(action: Callable[[], object], directory: Path) -> dict[str, str] | str:
    """What is there afterwards, or the error; then nothing has changed, unless what is in the way
    is met in the middle of a tree.
    """
    before = tree_of(directory)
    refusal = ""
    try:
        action()
    except (ContainerError, NotFoundError) as error:
        refusal = error.brief
    after = tree_of(directory)
    assert not refusal or after == before or "replace" in refusal
    return refusal or after


def agrees(found: dict[str, str] | str, expected: dict[str, str] | str) -> bool:
    if isinstance(expected, str):
        return isinstance(found, str) and expected in found
    return found == expected


def test_the_rules_hold_on_the_way_in(storage: Storage, here: Path) -> None:
    with storage.containers.mounted("box") as root:
        for number, (source, target, before, expected) in enumerate(RULES):
            place = root / f"in{number}"
            place.mkdir()
            prepare(place, before)

            def copy(source: str = source, path: str = f"/in{number}/{target}") -> None:
                storage.containers.copy_in("box", f"{here}/{source}", path)

            found = outcome(copy, place)
            assert agrees(found, expected), (source, target, before, found)


def test_the_rules_hold_on_the_way_out(storage: Storage, here: Path, tmp_path: Path) -> None:
    storage.containers.copy_in("box", f"{here}/.", "/src")
    for number, (source, target, before, expected) in enumerate(RULES):
        place = tmp_path / f"out{number}"
        place.mkdir()
        prepare(place, before)

        def copy(source: str = source, path: str = f"{place}/{target}") -> None:
            storage.containers.copy_out("box", f"/src/{source}", path)

        found = outcome(copy, place)
        assert agrees(found, expected), (source, target, before, found)


def test_links_are_followed_where_asked(storage: Storage, here: Path, tmp_path: Path) -> None:
    storage.containers.copy_in("box", here / "to-file", "/f", follow_link=True)
    storage.containers.copy_in("box", here / "to-dir", "/d", follow_link=True)
    with storage.containers.mounted("box") as root:
        assert (root / "f").read_text() == "content"
        assert tree_of(root / "d") == DIR
        (root / "absolute").symlink_to("/d")
    storage.containers.copy_out("box", "/absolute", tmp_path / "out", follow_link=True)
    assert tree_of(tmp_path / "out") == DIR
    storage.containers.copy_out("box", "/absolute", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "/d"


def test_a_destination_goes_through_the_containers_own_links(
    storage: Storage, here: Path, tmp_path: Path
) -> None:
    """Absolute ones begin at its root, and none leads out."""
    with storage.containers.mounted("box") as root:
        (root / "real").mkdir()
        (root / "way").symlink_to("/real")
        (root / "out").symlink_to("../../../../../../real")
        (root / "dangling").symlink_to("/real/made")
    storage.containers.copy_in("box", here / "file", "/way/a")
    storage.containers.copy_in("box", here / "file", "/out/b")
    storage.containers.copy_in("box", here / "file", "/dangling")
    storage.containers.copy_in("box", here / "file", "../../../../../real/c")
    with storage.containers.mounted("box") as root:
        assert sorted(os.listdir(root / "real")) == ["a", "b", "c", "made"]
        (root / "loop").symlink_to("loop")
    with pytest.raises((ContainerError, OSError)):
        storage.containers.copy_in("box", here / "file", "/loop")


def test_what_a_link_of_the_container_names_on_the_host_is_not_touched(
    storage: Storage, here: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    with storage.containers.mounted("box") as root:
        (root / "host").symlink_to(secret)
        (root / "evil").mkdir()
        (root / "evil/link").symlink_to(secret / "key")
    for path in ("/host/key", "/host/"):
        with pytest.raises((NotFoundError, ContainerError)):
            storage.containers.copy_out("box", path, tmp_path / "stolen")
    with pytest.raises(NotFoundError):
        storage.containers.copy_in("box", here / "file", "/host/key")
    storage.containers.copy_out("box", "/evil", tmp_path / "got")
    assert os.readlink(tmp_path / "got/link") == str(secret / "key")
    assert tree_of(secret) == {"key": "secret"}
    # A link that lies where a directory is to be merged into is not followed either.
    (tmp_path / "goal").mkdir()
    (tmp_path / "goal/evil").symlink_to(secret)
    with pytest.raises(ContainerError, match="a directory cannot replace"):
        storage.containers.copy_out("box", "/evil", tmp_path / "goal")
    assert tree_of(secret) == {"key": "secret"}


def test_a_path_that_changes_under_the_copy_leads_nowhere_else(
    storage: Storage, here: Path, tmp_path: Path
) -> None:
    """A directory is exchanged for a symlink to the host's, again and again, while files go in."""
    target = tmp_path / "host"
    target.mkdir()
    stop = threading.Event()
    with storage.containers.mounted("box") as root:
        (root / "x").mkdir()
        (root / "y").symlink_to(target)

        def exchange() -> None:
            while not stop.is_set():
                syscalls.renameat2(root / "x", root / "y", _RENAME_EXCHANGE)

        thread = threading.Thread(target=exchange)
        thread.start()
        done = 0
        try:
            for _ in range(200):
                try:
                    storage.containers.copy_in("box", here / "dir", "/x")
                    done += 1
                except (ContainerError, InUseError, NotFoundError, OSError):
                    continue
        finally:
            stop.set()
            thread.join()
    assert done
    assert os.listdir(target) == []


def test_owners_and_the_rest_of_metadata(storage: Storage, here: Path, tmp_path: Path) -> None:
    os.chown(here / "file", 12, 34)
    (here / "file").chmod(0o4751)
    os.setxattr(here / "file", "user.note", b"kept")
    os.chown(here / "dir/sub", 5, 6)
    storage.containers.copy_in("box", here / "file", "/root-owned")
    storage.containers.copy_in("box", here / "file", "/kept", archive=True)
    storage.containers.copy_in("box", here / "dir", "/dir")
    storage.containers.copy_in("box", here / "dir", "/dir-kept", archive=True)
    with storage.containers.mounted("box") as root:
        for name, owner in (("root-owned", (0, 0)), ("kept", (12, 34))):
            status = os.stat(root / name)
            assert (status.st_uid, status.st_gid) == owner
            assert stat.S_IMODE(status.st_mode) == 0o4751
            assert os.getxattr(root / name, "user.note") == b"kept"
        assert os.stat(root / "dir/one").st_mtime_ns == 1_600_000_000_123_456_789
        assert os.stat(root / "dir/one").st_ino == os.stat(root / "dir/same").st_ino
        assert os.stat(root / "dir/sub").st_uid == 0
        assert os.stat(root / "dir-kept/sub").st_uid == 5
    storage.containers.copy_out("box", "/kept", tmp_path / "mine")
    storage.containers.copy_out("box", "/kept", tmp_path / "theirs", archive=True)
    assert os.stat(tmp_path / "mine").st_uid == os.geteuid()
    assert os.stat(tmp_path / "theirs").st_uid == 12


def test_special_files(storage: Storage, tmp_path: Path) -> None:
    with storage.containers.mounted("box") as root:
        (root / "s").mkdir()
        os.mkfifo(root / "s/fifo", 0o600)
        os.mknod(root / "s/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    storage.containers.copy_out("box", "/s", tmp_path / "s")
    assert stat.S_ISFIFO(os.stat(tmp_path / "s/fifo").st_mode)
    assert os.stat(tmp_path / "s/null").st_rdev == os.makedev(1, 3)


def test_a_tar_goes_out_and_in(storage: Storage, here: Path) -> None:
    storage.containers.copy_in("box", here / "dir", "/a")
    for path, names in (
        ("/a", ["a", "a/link", "a/one", "a/same", "a/sub", "a/sub/two"]),
        ("/a/.", [".", "./link", "./one", "./same", "./sub", "./sub/two"]),
        ("/a/one", ["one"]),
        ("/a/link", ["link"]),
    ):
        out = io.BytesIO()
        storage.containers.copy_out("box", path, out.write)
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            assert archive.getnames() == names
    out = io.BytesIO()
    storage.containers.copy_out("box", "/a", out.write)
    out.seek(0)
    assert storage.containers.copy_in("box", out, "/etc") == ()
    with storage.containers.mounted("box") as root:
        assert tree_of(root / "etc/a") == DIR
        assert os.stat(root / "etc/a/one").st_nlink == 2


def test_a_tar_is_unpacked_inside_only(storage: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = str(outside).encode()
    with storage.containers.mounted("box") as root:
        (root / "d").mkdir()
        (root / "d/out").symlink_to(outside)
    for data in (
        archives.tar(archives.file(b"../x", b"1")),
        archives.tar(archives.file(b"a/../../x", b"1")),
        archives.tar(archives.hard_link(b"h", b"../../etc/passwd")),
        archives.tar(archives.hard_link(b"h", b"none")),
    ):
        with pytest.raises(DiffError):
            storage.containers.copy_in("box", io.BytesIO(data), "/d")
    for data in (
        archives.tar(archives.file(b"out/x", b"1")),
        archives.tar(archives.symlink(b"l", path), archives.file(b"l/x", b"1")),
    ):
        with pytest.raises(OSError, match="No such file"):
            storage.containers.copy_in("box", io.BytesIO(data), "/d")
    assert os.listdir(outside) == []
    absolute = archives.tar(archives.file(b"/abs/x", b"1"), archives.symlink(b"way", b"/d/abs"))
    storage.containers.copy_in("box", io.BytesIO(absolute), "/d")
    more = archives.tar(archives.file(b"way/y", b"2"), archives.file(b".wh.name", b"kept"))
    storage.containers.copy_in("box", io.BytesIO(more), "/d")
    with storage.containers.mounted("box") as root:
        assert sorted(os.listdir(root / "d/abs")) == ["x", "y"]
    for target in ("/none", "/d/abs/x"):
        with pytest.raises(ContainerError, match="is no directory"):
            storage.containers.copy_in("box", io.BytesIO(more), target)


def test_a_tar_replaces_files_and_no_directories(storage: Storage) -> None:
    with storage.containers.mounted("box") as root:
        (root / "d/sub").mkdir(parents=True)
        (root / "d/file").write_text("old")
        (root / "d/link").symlink_to("file")
    good = archives.tar(
        archives.file(b"file", b"new", mode=0o600, uid=7),
        archives.file(b"link", b"no link", mtime=1_500_000_000),
        archives.directory(b"sub/", mode=0o711, mtime=1_500_000_000),
        archives.file(b"sub/x", b"x"),
    )
    storage.containers.copy_in("box", io.BytesIO(good), "/d")
    with storage.containers.mounted("box") as root:
        assert tree_of(root / "d") == {"file": "new", "link": "no link", "sub": "/", "sub/x": "x"}
        assert os.stat(root / "d/file").st_uid == 0
        assert os.stat(root / "d/sub").st_mtime == 1_500_000_000
        assert stat.S_IMODE(os.stat(root / "d/sub").st_mode) == 0o711
    storage.containers.copy_in("box", io.BytesIO(good), "/d", archive=True)
    with storage.containers.mounted("box") as root:
        assert os.stat(root / "d/file").st_uid == 7
    for bad in (archives.file(b"sub", b"1"), archives.directory(b"file/")):
        with pytest.raises((ContainerError, OSError)):
            storage.containers.copy_in("box", io.BytesIO(archives.tar(bad)), "/d")


def test_a_copy_out_needs_no_writable_mount(storage: Storage, tmp_path: Path) -> None:
    container = storage.containers.get("box")
    storage.containers.copy_out("box", "/etc/motd", tmp_path / "motd")
    assert (tmp_path / "motd").read_text() == "hello\n"
    assert storage.database.row("SELECT used FROM layers WHERE id = ?", container.layer) == (0,)


def test_a_copy_that_is_killed_leaves_no_mount(storage: Storage) -> None:
    """Else nobody could fork or roll back before somebody has unmounted it."""
    command = [*command_line(storage), "container", "cp", "-", "box:/"]
    driver = storage.layers.driver_for("overlay2")
    changeset = driver.changeset(storage.containers.get("box").layer)
    assert changeset is not None
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(archives.tar(archives.file(b"first", b"1"))[:1024])
        process.stdin.write(archives.tar(archives.file(b"second", bytes(8 << 20)))[: 4 << 20])
        process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while not Path(os.fsdecode(changeset.path), "first").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert storage.layers.mounts() == []
    fork = storage.containers.fork("box")
    with storage.containers.mounted(fork.id) as path:
        assert (path / "first").read_text() == "1"
