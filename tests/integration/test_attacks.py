"""What someone who means harm, or bad luck, does to images and containers: archives that swell,
names that break tables, processes that get in each other's way.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import contained
import pytest
from capabilities import need
from contained import base_image, clean
from image_archives import Made, compressed, digest, docker, image, layout_of, write
from image_archives import tar as archive_of
from stored import tar

from storagedrivers.archive import metadata
from storagedrivers.cli import images as image_list
from storagedrivers.cli import templates
from storagedrivers.errors import (
    ContainerError,
    CorruptStoreError,
    InUseError,
    MalformedImageError,
    NotFoundError,
)
from storagedrivers.linux import tree
from storagedrivers.oci.config import make_config, parse_config, parse_time
from storagedrivers.oci.files import ArchiveFiles
from storagedrivers.storage import Storage
from storagedrivers.stores import (
    blobs,
    borrowing,
    comparing,
    gc,
    init,
    loading,
    mounts,
    transfer,
    writable,
)
from storagedrivers.stores.images import NewImage

BOTTOM = tar(a_b="below", c="1")
MADE = image(BOTTOM, files=(compressed(BOTTOM),))
NAME = "docker.io/library/thing:1"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = Storage.open(root=tmp_path / "root", run_root=tmp_path / "run", driver="vfs-copy")
    with opened:
        yield opened
        clean(opened)


def load(storage: Storage, files: dict[str, bytes]) -> str:
    """The id of the one image in an archive."""
    (loaded,) = storage.images.load(io.BytesIO(archive_of(dict(files))))
    return loaded.id


def refused(storage: Storage, source: Any, words: str) -> None:
    """Loading it is refused, and leaves nothing."""
    if isinstance(source, dict):
        source = io.BytesIO(archive_of(dict(source)))
    with pytest.raises(MalformedImageError, match=words):
        storage.images.load(source)
    assert nothing_to_collect(storage)


def nothing_to_collect(storage: Storage) -> bool:
    found = storage.gc(dry_run=True)
    assert found == []
    return True


def collected_again(storage: Storage, orphan: Any) -> Iterator[str]:
    """What keeps an orphan that was found before from being collected now."""
    for one in gc.collect(storage.layers, [orphan], storage.volumes):
        yield one.problem


def with_config(text: str) -> Made:
    """An image whose config has *text* as its part ``config``."""
    whole = image(BOTTOM, config="@").config
    return Made(whole.replace(b'"@"', text.encode()), (BOTTOM,), (BOTTOM,))


# Documents


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_has_not(storage: Storage, number: str) -> None:
    """Python reads and writes them, and no other program reads what is made of them."""
    refused(storage, layout_of(with_config(f'{{"StopTimeout": {number}}}')), "no JSON")


def test_nesting_that_only_just_can_be_read(storage: Storage) -> None:
    """What is read here is written elsewhere, with a stack that is fuller by then."""
    for depth in (200, 900):
        text = f'{{"Nested": {"[" * depth}{"]" * depth}}}'
        refused(storage, layout_of(with_config(text)), "nested")
    text = f'{{"Nested": {"[" * 50}{"]" * 50}, "Labels": {{"a": "{"[" * 500}"}}}}'
    load(storage, layout_of(with_config(text), NAME))
    assert storage.containers.create(NAME).config["Labels"] == {"a": "[" * 500}


def test_one_large_config_for_many_images(storage: Storage) -> None:
    """A small archive must not fill the memory."""
    large = json.dumps({**json.loads(image().config), "author": "x" * (1 << 20)}).encode()
    listed = [{"Config": "c.json", "Layers": []}] * 100
    files = {"c.json": large, "manifest.json": json.dumps(listed).encode()}
    refused(storage, files, "documents")


def test_an_index_that_is_listed_again_and_again(storage: Storage) -> None:
    files = layout_of(MADE)
    (entry,) = json.loads(files["index.json"])["manifests"]
    padded = json.dumps({"x": "x" * (1 << 20), "manifests": [entry]}).encode()
    one = {**entry, "size": len(padded), "mediaType": "application/vnd.oci.image.index.v1+json"}
    one["digest"] = digest(padded)
    files[f"blobs/sha256/{one['digest'][7:]}"] = padded
    entries = [
        {**one, "annotations": {"io.containerd.image.name": f"{NAME}{number}"}}
        for number in range(100)
    ]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    refused(storage, files, "documents")


def test_long_names_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "names.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(200):
            archive.addfile(tarfile.TarInfo(f"{number}/" + "n" * 60_000))
            link = tarfile.TarInfo(f"l{number}")
            link.type, link.linkname = tarfile.SYMTYPE, "n" * 60_000
            archive.addfile(link)
        archive.addfile(tarfile.TarInfo("index.json"))
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            files = ArchiveFiles(file.fileno(), "names.tar")
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert files.find("index.json") is not None
        with pytest.raises(MalformedImageError):
            files.find("l7")
    assert kept < 2 << 20


def test_times_at_the_end_of_the_calendar(storage: Storage) -> None:
    """A list of images must not fail for one of them."""
    for text in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        assert parse_time(text) is None
        refused(storage, layout_of(image(BOTTOM, created=text)), "no time")
    for text in ("9999-12-31T23:59:59.9Z", "0001-01-01T00:00:00Z"):
        moment = parse_time(text)
        assert moment is not None
        assert image_list.at(moment).startswith(text[:4].lstrip("0"))
    assert parse_time("9999-12-31T23:59:59.999999Z") is None  # the next year, as a float


# Files of layouts


def test_a_device_or_socket_in_a_layout_is_not_even_opened(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open one can do something: arm a watchdog, rewind a tape."""
    directory = write(layout_of(MADE, NAME), tmp_path / "layout")
    victim = directory / "blobs/sha256" / MADE.id[7:]
    victim.unlink()
    with socket.socket(socket.AF_UNIX) as anything:
        monkeypatch.chdir(victim.parent)
        anything.bind("s")
        os.rename("s", victim)
    refused(storage, directory, "no regular file")
    if os.geteuid() == 0:
        victim.unlink()
        os.mknod(victim, 0o20600, os.makedev(240, 77))  # of no driver: opening it fails
        refused(storage, directory, "no regular file")


# Tables


def test_values_with_tabs_and_newlines_do_not_break_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"A": "x\ty\nz\x1b[2J", "B": "1"}]
    templates.print_all(r"table {{.A}}\t{{.B}}", rows, ["A", "B"])
    templates.print_all("{{.A}}", rows, ["A", "B"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["A               B", r"x\ty\nz\x1b[2J  1", r"x\ty\nz\x1b[2J"]


# In each other's way


def test_gc_while_an_archive_is_staged(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a file and its lock there is a moment."""
    flock = blobs.syscalls.flock
    collected = []

    def late(fd: int, operation: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{storage.root}/tmp/") and not collected:
            collected.append(1)
            storage.gc()
        flock(fd, operation)

    monkeypatch.setattr(blobs.syscalls, "flock", late)
    load(storage, layout_of(MADE, NAME))
    assert collected
    assert [*storage.check(deep=True)] == []


def test_gc_leaves_what_was_locked_since_it_looked(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = storage.root / "tmp/blob-x"
    path.write_bytes(b"left by someone who was killed")
    (orphan,) = storage.gc(dry_run=True)
    staged = storage.images.blobs.stage(f"sha256:{1:064x}")
    try:
        late = orphan.orphan._replace(path=staged.path)
        assert [*collected_again(storage, late)] == [""]
        assert os.path.exists(staged.path)
    finally:
        staged.drop()
    storage.gc()
    assert not path.exists()


def test_gc_while_a_compressed_archive_is_opened(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def late(path: Any, **options: Any) -> None:
        if "/tmp/archive-" in str(path) and not options:
            unlink(path)
        unlink(path, **options)

    monkeypatch.setattr(loading.os, "unlink", late)
    data = compressed(archive_of(dict(docker(MADE, "a"))))
    assert [one.id for one in storage.images.load(io.BytesIO(data))] == [MADE.id]


def test_files_of_an_image_that_gets_no_row(storage: Storage) -> None:
    made = image(BOTTOM)
    with pytest.raises(NotFoundError):
        storage.images.register([NewImage(made.config, "0" * 26, "load", (), made.manifest)])
    assert nothing_to_collect(storage)


def test_an_image_that_is_removed_while_it_is_used_is_not_damaged(storage: Storage) -> None:
    gone = base_image(storage)
    storage.images.remove("base")
    with pytest.raises(NotFoundError):
        storage.images.config(gone)
    there = base_image(storage)
    os.unlink(storage.images.blobs.path(there.id))
    with pytest.raises(CorruptStoreError, match="is gone"):
        storage.images.config(there)


@pytest.mark.parametrize("step", ["begun", "made"])
def test_an_image_that_is_removed_while_its_first_container_is_made(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    base_image(storage)
    make = init._made

    def late(*arguments: Any) -> str:
        if step == "begun":
            storage.images.remove("base")
            return make(*arguments)
        made = make(*arguments)
        storage.images.remove("base")
        return made

    monkeypatch.setattr(init, "_made", late)
    with pytest.raises(NotFoundError):
        storage.containers.create("base")
    assert storage.layers.ls() == []
    assert nothing_to_collect(storage)


def test_an_image_that_is_removed_just_before_a_container_gets_its_row(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_image(storage)
    storage.containers.remove(storage.containers.create("base").id)
    driver = storage.layers.driver_for(storage.layers.driver)
    create = driver.create

    def late(*arguments: Any, **options: Any) -> None:
        storage.images.remove("base")
        create(*arguments, **options)

    monkeypatch.setattr(driver, "create", late)
    with pytest.raises(NotFoundError):
        storage.containers.create("base")
    assert storage.layers.ls() == []
    assert nothing_to_collect(storage)


def test_an_image_that_is_removed_while_it_is_saved_leaves_nothing(storage: Storage) -> None:
    base_image(storage)
    removed: list[object] = []

    def late(_: bytes | memoryview) -> None:
        if not removed:
            removed.append(storage.images.remove("base"))

    storage.images.save(["base"], late)
    assert storage.layers.ls() == []
    assert nothing_to_collect(storage)


def test_what_an_interrupted_load_has_is_found_by_the_next(storage: Storage) -> None:
    def interrupted() -> None:
        with storage.layers.leased() as lease:
            storage.layers.add(io.BytesIO(BOTTOM), held=False, lease=lease)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(storage.layers.ls()) == 1
    with storage.layers.leased() as lease:
        storage.layers.add(io.BytesIO(b""), diff_id=MADE.diff_ids[0], held=False, lease=lease)
    assert storage.layers.ls() == []


def test_gc_while_a_container_is_made(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory comes before its row."""
    base_image(storage)
    lay = writable.lay
    found: list[object] = []

    def late(*arguments: Any, **options: Any) -> Any:
        found.extend(storage.gc())
        return lay(*arguments, **options)

    monkeypatch.setattr(writable, "lay", late)
    container = storage.containers.create("base")
    assert found == []
    assert os.path.isdir(storage.containers.directory(container))


def test_gc_that_has_looked_before_a_container_got_its_row(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base")
    with storage.database.transaction() as connection:
        rows = connection.execute("SELECT * FROM containers").fetchall()
        connection.execute("DELETE FROM containers")
    (orphan,) = [one.orphan for one in storage.gc(dry_run=True) if one.orphan.kind == "container"]
    with storage.database.transaction() as connection:
        connection.execute(
            f"INSERT INTO containers VALUES ({','.join('?' * len(rows[0]))})", rows[0]
        )
    assert [*collected_again(storage, orphan)] == [""]
    assert os.path.isdir(storage.containers.directory(container))


def test_gc_while_a_layer_is_borrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Storage.open(
        root=tmp_path / "other", run_root=tmp_path / "run2", driver="vfs-copy"
    ) as other:
        base_image(other)
    with Storage.open(
        root=tmp_path / "root",
        run_root=tmp_path / "run",
        driver="vfs-copy",
        additional_stores=[tmp_path / "other"],
    ) as storage:
        link = borrowing._link

        def late(*arguments: Any) -> None:
            link(*arguments)
            storage.gc()

        monkeypatch.setattr(borrowing, "_link", late)
        storage.images.get("base")
        assert [*storage.check(deep=True)] == []
        clean(storage)


def test_a_borrowed_layer_that_could_not_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Storage.open(
        root=tmp_path / "other", run_root=tmp_path / "run2", driver="vfs-copy"
    ) as other:
        base_image(other)
    with Storage.open(
        root=tmp_path / "root",
        run_root=tmp_path / "run",
        driver="vfs-copy",
        additional_stores=[tmp_path / "other"],
    ) as storage:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(borrowing, "_copy", full)
            with pytest.raises(OSError, match="No space"):
                storage.images.get("base")
        assert nothing_to_collect(storage)
        assert storage.layers.ls() == []
        storage.images.get("base")
        clean(storage)


# Containers


def test_a_tar_with_a_path_of_a_thousand_directories(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base").id
    name = "d/" * 1500 + "f"
    with io.BytesIO(tar(**{name.replace("/", "_"): "deep"})) as stream:
        storage.containers.copy_in(container, stream, "/")
    assert len([*storage.containers.diff(container)]) == 1501


def test_a_tar_with_a_file_where_a_directory_is_wanted(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base").id
    for entries in (tar(etc_motd_x="1"), tar(usr_link_x="1")):
        with pytest.raises(ContainerError, match=r"motd|link"):
            storage.containers.copy_in(container, io.BytesIO(entries), "/")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the host that must stay as it is."""
    path = tmp_path / "victim"
    path.write_text("")
    path.chmod(0o600)
    return path


def swapping(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, where: Path, to: Path
) -> list[Path]:
    """Have the first thing in *where* exchanged for a symlink, once *name* was called; what was."""
    function = getattr(module, name)
    swapped: list[Path] = []

    def late(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        for one in [*where.iterdir()][:1]:
            one.unlink()
            one.symlink_to(to)
            swapped.append(one)
        return result

    monkeypatch.setattr(module, name, late)
    return swapped


def test_a_symlink_in_the_place_of_a_file_that_was_copied_in(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs in a container is as fast as who copies into it."""
    need("root")
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    (source / "file").write_text("x")
    (source / "file").chmod(0o777)
    os.chown(source / "file", 1, 1)
    swapped = swapping(monkeypatch, transfer.copy, "copy_opened", goal, victim)
    with suppress(OSError):
        cp_into(goal, source / "file")
    assert swapped
    assert victim.stat().st_mode & 0o777 == 0o600


def cp_into(goal: Path, source: Path) -> None:
    with (
        tree.opened_directory(source.parent) as here,
        tree.opened_directory(goal) as there,
    ):
        transfer.TreeCopy((0, 0)).file(here, source.name, there, source.name)


def test_a_symlink_in_the_place_of_a_file_that_is_copied_out(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("root")
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    os.mkfifo(source / "fifo")
    (source / "fifo").chmod(0o777)
    os.chown(source / "fifo", 1, 1)
    copy_entry = transfer.copy.copy_entry

    def late(*arguments: Any) -> None:
        (source / "fifo").unlink()
        (source / "fifo").symlink_to(victim)
        copy_entry(*arguments)

    monkeypatch.setattr(transfer.copy, "copy_entry", late)
    cp_into(goal, source / "fifo")
    assert (goal / "fifo").is_symlink()
    assert victim.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("module", [metadata, transfer.copy])
def test_a_symlink_in_the_place_of_a_device_or_fifo_that_was_made(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    need("root")
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    os.mkfifo(source / "fifo")
    (source / "fifo").chmod(0o777)
    entry = tarfile.TarInfo("fifo")
    entry.type, entry.mode = tarfile.FIFOTYPE, 0o777
    swapped = swapping(monkeypatch, module.os, "chown", goal, victim)
    with tree.opened_directory(goal) as root, suppress(OSError):
        if module is metadata:
            stream = io.BytesIO(entry.tobuf() + bytes(1024))
            transfer.Extraction(root, b"", (0, 0)).run(stream)
        else:
            cp_into(goal, source / "fifo")
    assert swapped
    assert victim.stat().st_mode & 0o777 == 0o600


def test_a_fifo_in_the_place_of_a_file_that_is_copied_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open it waits for a writer, who never comes."""
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    (source / "file").write_text("x")
    status = os.stat

    def late(*arguments: Any, **options: Any) -> os.stat_result:
        found = status(*arguments, **options)
        if arguments[0] == "file":
            (source / "file").unlink()
            os.mkfifo(source / "file")
        return found

    monkeypatch.setattr(transfer.copy.os, "stat", late)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(5)
    try:
        with pytest.raises(OSError, match="became something else"):
            transfer.copy.copy_tree(source, goal)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_a_file_below_a_mount_that_was_taken_away(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes to the path of a mount that is gone leaves a file; that is no error of others."""
    need("mount")
    base_image(storage)
    container = storage.containers.create("base")
    path = storage.containers.mount(container.id)
    unmount = mounts.mount.unmount

    def late(point: str) -> None:
        unmount(point)
        Path(point, "late").write_text("x")

    monkeypatch.setattr(mounts.mount, "unmount", late)
    assert storage.containers.unmount(container.id)
    assert storage.layers.mounts() == []
    monkeypatch.undo()
    storage.gc()
    assert not path.exists()


CHANGES = [
    *(errno.ELOOP, errno.EINVAL, errno.ENODATA, errno.EPERM, errno.ENOTDIR, errno.ENOENT),
    errno.ESTALE,
]


@pytest.mark.parametrize("number", CHANGES)
def test_a_tree_that_changes_while_it_is_committed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    need("mount")
    base_image(storage)
    container = storage.containers.create("base")

    def late(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "usr/a")

    with storage.containers.mounted(container.id) as path:
        (path / "new").touch()
        before = storage.layers.ls()
        driver = storage.layers.driver_for(storage.layers.driver)
        with monkeypatch.context() as patched:
            patched.setattr(driver, "create", late)
            with pytest.raises(InUseError, match=r"changed while it was copied: 'usr/a'"):
                storage.containers.commit(container.id)
        assert storage.layers.ls() == before
    assert nothing_to_collect(storage)


def test_a_tree_that_changes_while_it_is_read(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a container that nobody uses it is a failure of another kind."""
    need("mount")
    base_image(storage)
    containers = storage.containers
    container = containers.create("base").id

    def late(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), b"a")

    monkeypatch.setattr(comparing, "diff", late)
    monkeypatch.setattr(transfer.copy, "copy_opened", late)
    actions: list[Callable[[], object]] = [
        lambda: [*containers.diff(container)],
        lambda: containers.copy_out(container, "/etc/motd", tmp_path / "motd"),
        lambda: containers.copy_in(container, __file__, "/file"),
    ]
    for action in actions:
        with pytest.raises(OSError, match="Too many levels"):
            action()
    with containers.mounted(container):
        for action in actions:
            with pytest.raises(InUseError, match="changed while"):
                action()
    assert storage.layers.mounts() == []


@pytest.mark.parametrize("removed", [True, False])
def test_a_container_that_is_removed_by_force_before_it_is_copied_into(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    """What is copied must not end up in the empty mountpoint."""
    need("mount")
    base_image(storage)
    container = storage.containers.create("base").id
    point = storage.containers.mount(container)
    table = storage.layers.mount_table
    opened = table.open

    def late(path: Path) -> int:
        if removed:
            storage.containers.remove(container, force=True)
        else:
            mounts.mount.unmount(path)
        return opened(path)

    monkeypatch.setattr(table, "open", late)
    with pytest.raises(ContainerError, match="was unmounted"):
        storage.containers.copy_in(container, __file__, "/file")
    assert not (point / "file").exists()
    assert storage.layers.mounts() == []


def test_what_is_copied_into_a_container_at_rest_is_not_mounted(storage: Storage) -> None:
    """A process that is killed then leaves no mount that somebody has to take back."""
    base_image(storage)
    container = storage.containers.create("base")
    seen: list[object] = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append(storage.layers.mounts())
            return super().read(size)

        def readinto(self, buffer: Any, /) -> int:
            seen.append(storage.layers.mounts())
            return super().readinto(buffer)

    storage.containers.copy_in(container.id, Stream(tar(new="x")), "/")
    assert seen
    assert not any(seen)
    assert contained.read(storage, container.id, "new") == "x"
    fork = storage.containers.fork(container.id)
    assert contained.read(storage, fork.id, "new") == "x"


def test_what_commit_writes_can_be_read() -> None:
    raw = make_config(
        base=None,
        diff_ids=[],
        history=[],
        config={"Env": ["A=\ud800"]},
        created="2024-01-01T00:00:00Z",
    )
    assert parse_config(raw).config == {"Env": ["A=\ufffd"]}
