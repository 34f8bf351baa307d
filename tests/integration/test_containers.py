"""Containers under each driver: made, written to, kept, moved, committed, removed."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import archives
import pytest
from capabilities import need
from contained import base_image, clean, read, shown, write
from processes import forked, succeeded

from storagedrivers.archive.changes import changes
from storagedrivers.archive.pack import pack
from storagedrivers.errors import (
    AlreadyExistsError,
    ContainerRunningError,
    DepthExceededError,
    InUseError,
    NotFoundError,
    StoreError,
    UnrepresentableError,
)
from storagedrivers.linux import tree
from storagedrivers.storage import Storage
from storagedrivers.stores import locks, making
from storagedrivers.stores.containers import Container, ContainerStore

DRIVERS = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "xfs"}


@pytest.fixture(params=DRIVERS)
def storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Storage]:
    need("mount", *(("overlay",) if request.param == "overlay2" else ()))
    directory = on_filesystem(DRIVERS[request.param])
    made = Storage.open(root=directory / "store", run_root=directory / "run", driver=request.param)
    yield made
    clean(made)


@pytest.fixture
def overlay(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    """For what is the same under every driver."""
    need("mount", "overlay")
    directory = on_filesystem("ext4")
    made = Storage.open(root=directory / "store", run_root=directory / "run", driver="overlay2")
    yield made
    clean(made)


def names_in(storage: Storage, layer: str) -> list[str]:
    """The entries of a layer's tar."""
    out = io.BytesIO()
    storage.layers.export(layer, out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        return archive.getnames()


@contextmanager
def running(storage: Storage, container: Container) -> Iterator[None]:
    """Have its monitor's lock held, as by whoever runs it."""
    directory = storage.containers.run_directory(container)
    os.makedirs(directory, exist_ok=True)
    lock = locks.try_lock(os.path.join(directory, "monitor"))
    assert lock is not None
    try:
        yield
    finally:
        lock.release()


# Making


def test_one_is_its_image_with_what_engines_expect(storage: Storage) -> None:
    image = base_image(storage)
    container = storage.containers.create("base", name="one")
    assert container == storage.containers.get("one") == storage.containers.get(container.id[:7])
    assert (container.image, container.image_name) == (image.id, "base")
    assert storage.containers.ls() == [container]
    with storage.containers.mounted("one") as path:
        assert sorted(os.listdir(path)) == sorted(
            [".dockerenv", "dev", "etc", "proc", "sys", "usr"]
        )
        assert sorted(os.listdir(path / "etc")) == [
            *("hostname", "hosts", "motd", "mtab", "resolv.conf")
        ]
        assert os.readlink(path / "etc/mtab") == "/proc/mounts"
        assert sorted(os.listdir(path / "dev")) == ["console", "pts", "shm"]
        for name in ("dev/console", "etc/hosts", ".dockerenv"):
            status = os.stat(path / name)
            assert (status.st_size, stat.S_ISREG(status.st_mode)) == (0, True)
        assert os.stat(path / "etc").st_mtime == 1_600_000_000
    assert os.listdir(storage.containers.directory(container)) == []
    assert shown(storage.containers.diff("one")) == []


def test_the_init_layer_is_shared_and_only_has_what_is_missing(storage: Storage) -> None:
    image = base_image(storage)
    first, second = storage.containers.create("base"), storage.containers.create("base")
    parents = {storage.layers.get(one.layer).parent for one in (first, second)}
    (init,) = parents
    assert init is not None
    assert storage.layers.get(init).role == "init"
    assert storage.layers.get(init).parent == image.layer
    assert storage.images.get("base").init == init
    assert not storage.layers.get(init).held
    whole = archives.tar(
        *map(archives.directory, (b"dev/", b"dev/pts/", b"dev/shm/", b"etc/", b"proc/", b"sys/")),
        *map(archives.file, (b".dockerenv", b"dev/console", b"etc/hosts", b"etc/hostname")),
        archives.file(b"etc/resolv.conf", b"kept"),
        archives.symlink(b"etc/mtab", b"elsewhere"),
    )
    complete = base_image(storage, whole, "complete")
    third = storage.containers.create("complete")
    assert storage.layers.get(third.layer).parent == complete.layer
    assert read(storage, third.id, "etc/resolv.conf") == "kept"


def test_symlinks_of_an_image_lead_the_init_layer_nowhere(storage: Storage, tmp_path: Path) -> None:
    """Files are made neither behind them nor in their place."""
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = archives.tar(
        archives.symlink(b"etc", str(outside).encode()),
        archives.symlink(b"dev", b"../../../../.." + str(outside).encode()),
        archives.symlink(b"proc", b"nowhere"),
        archives.file(b"sys", b"a file"),
    )
    base_image(storage, hostile, "hostile")
    container = storage.containers.create("hostile")
    assert os.listdir(outside) == []
    with storage.containers.mounted(container.id) as path:
        assert os.readlink(path / "etc") == str(outside)
        assert (path / "dev").is_symlink()
        assert sorted(os.listdir(path)) == [".dockerenv", "dev", "etc", "proc", "sys"]


def test_an_empty_root(storage: Storage) -> None:
    container = storage.containers.create(None, name="empty")
    assert container.image is None
    write(storage, "empty", d_f="x")
    assert shown(storage.containers.diff("empty")) == ["A /d", "A /d/f"]
    image = storage.containers.commit("empty", "made")
    assert names_in(storage, image.layer or "") == [".", "d", "d/f"]
    assert storage.images.config(image).diff_ids == (storage.layers.get(image.layer or "").diff_id,)
    storage.containers.reset("empty")
    assert shown(storage.containers.diff("empty")) == []


def test_the_config_is_the_images_and_what_was_asked_for(overlay: Storage) -> None:
    base_image(overlay)
    plain = overlay.containers.create("base").config
    assert (plain["Cmd"], plain["Env"]) == (["sh"], ["A=1", "B=2"])
    assert plain["Labels"] == {"from": "image"}
    given = {"Env": ["B=3", "C=4"], "Labels": {"own": "1"}, "Cmd": ["ls", "-l"], "User": "me"}
    config = overlay.containers.create("base", config=given).config
    assert config["Env"] == ["A=1", "B=3", "C=4"]
    assert config["Labels"] == {"from": "image", "own": "1"}
    assert (config["Cmd"], config["User"]) == (["ls", "-l"], "me")
    entry = overlay.containers.create("base", config={"Entrypoint": ["/bin/x"]})
    assert (entry.config["Entrypoint"], entry.config["Cmd"]) == (["/bin/x"], None)
    assert entry.config["Hostname"] == entry.id[:12]


def test_names(overlay: Storage) -> None:
    base_image(overlay)
    first = overlay.containers.create("base", name="a.b-c_D")
    with pytest.raises(AlreadyExistsError, match=f"taken, by container {first.id[:12]}"):
        overlay.containers.create("base", name="a.b-c_D")
    for name in ("", "x", "-a", "a b", "ä", "a/b", ".." * 4, "a" * 256):
        with pytest.raises(StoreError, match="is no name for a container"):
            overlay.containers.create("base", name=name)
    second = overlay.containers.create("base")
    assert second.name.count("_") == 1
    with pytest.raises(AlreadyExistsError):
        overlay.containers.rename(second.id, "a.b-c_D")
    assert overlay.containers.rename(second.id, "other").id == overlay.containers.get("other").id
    assert overlay.containers.rename("other", "other").name == "other"
    assert [one.name for one in overlay.containers.ls()] == ["a.b-c_D", "other"]
    with pytest.raises(NotFoundError, match="there is no container"):
        overlay.containers.get("none")
    with pytest.raises(NotFoundError, match="there is no image"):
        overlay.containers.create("none")
    # A name that is the beginning of an id means the container of that name.
    named = overlay.containers.create("base", name=second.id[:6])
    assert overlay.containers.get(second.id[:6]) == named


def test_a_prefix_that_several_have(overlay: Storage) -> None:
    base_image(overlay)
    ids = [overlay.containers.create("base").id for _ in range(17)]
    first = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    with pytest.raises(NotFoundError, match="can mean several containers"):
        overlay.containers.get(first)


def test_a_failed_create_leaves_nothing(overlay: Storage) -> None:
    base_image(overlay)
    overlay.containers.create("base", name="first")
    before = [layer.id for layer in overlay.layers.ls()]
    with pytest.raises(AlreadyExistsError):
        overlay.containers.create("base", name="first")
    assert [layer.id for layer in overlay.layers.ls()] == before
    assert set(overlay.driver_for("overlay2").layers()) == set(before)


def test_many_make_the_first_container_of_an_image_at_once(overlay: Storage) -> None:
    """One init layer, whoever is first."""
    base_image(overlay)

    def make() -> None:
        with Storage.open(root=overlay.root, run_root=overlay.run_root) as own:
            for _ in range(5):
                own.containers.create("base")

    assert all(map(succeeded, [forked(make) for _ in range(4)]))
    containers = overlay.containers.ls()
    assert len(containers) == len({one.name for one in containers}) == 20
    assert len([layer for layer in overlay.layers.ls() if layer.role == "init"]) == 1


def test_a_thousand_cost_what_ten_do(overlay: Storage) -> None:
    """Counted, not timed: the same statements for each, and less than 60 KB on the disk."""
    base_image(overlay)
    statements: list[str] = []
    overlay.containers.create("base")

    def count() -> int:
        statements.clear()
        overlay.containers.create("base")
        return len(statements)

    overlay.database._own().set_trace_callback(statements.append)
    first = count()
    before = disk_use(overlay.root)
    for _ in range(200):
        overlay.containers.create("base", durability="none")
    assert count() == first
    assert (disk_use(overlay.root) - before) / 201 < 60_000
    overlay.database._own().set_trace_callback(None)


def disk_use(root: Path) -> int:
    return tree.measure_tree(root).bytes


# Reading and writing


def test_a_diff_is_against_the_image(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base").id
    write(storage, container, usr_a="changed", new_dir_f="x", etc_motd=None)
    expected = [
        "C /etc",
        "D /etc/motd",
        "A /new",
        "A /new/dir",
        "A /new/dir/f",
        "C /usr",
        "C /usr/a",
    ]
    assert shown(storage.containers.diff(container)) == expected
    storage.containers.checkpoint(container, "one")
    assert shown(storage.containers.diff(container)) == expected
    write(storage, container, new_dir_f=None, usr_b="other", etc_motd="hello again")
    assert shown(storage.containers.diff(container)) == [
        *("C /etc", "C /etc/motd", "A /new", "A /new/dir", "C /usr", "C /usr/a", "C /usr/b")
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_diff_of_several_layers_is_what_comparing_everything_gives(
    overlay: Storage, seed: int
) -> None:
    """Only what the layers name is looked at, and nothing is missed."""
    chance = random.Random(seed)
    base_image(overlay, archives.tar(*tree_entries()), "tree")
    container = overlay.containers.create("tree", name="one")
    for _ in range(5):
        with overlay.containers.mounted("one") as path:
            for _ in range(12):
                change_something(path, chance)
        overlay.containers.checkpoint("one")
    found = set(shown(overlay.containers.diff("one")))
    assert container.base is not None
    with (
        overlay.containers.opened("one") as now,
        overlay.layers.mounted(container.base) as before,
        tree.opened_directory(before) as lower,
    ):
        expected = {one for one in shown(changes(now, lower, None)) if one[2:] != "/"}
    assert found == expected != set()


def tree_entries() -> Iterator[bytes]:
    for one in "ab":
        yield archives.directory(f"{one}/".encode())
        for two in "cd":
            yield archives.directory(f"{one}/{two}/".encode())
            for three in "efg":
                yield archives.file(f"{one}/{two}/{three}".encode(), three.encode())


def change_something(root: Path, chance: random.Random) -> None:
    """Write, delete or make something at one of a few paths, where that is possible."""
    depth = chance.choice([1, 2, 2, 3, 3])
    path = root.joinpath(*(chance.choice(names) for names in ("abx", "cdx", "efgx")[:depth]))
    with suppress(FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError):
        match chance.choice(["write", "write", "remove", "remove", "mkdir", "anew"]):
            case "write":
                path.write_text(str(chance.random()))
            case "mkdir":
                path.mkdir()
            case what:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                if what == "anew":
                    path.mkdir()


def test_two_of_one_image_do_not_see_each_other(storage: Storage) -> None:
    image = base_image(storage)
    before = fingerprint(storage, image.layer)
    first, second = storage.containers.create("base"), storage.containers.create("base")
    write(storage, first.id, usr_a="of the first", f="1")
    write(storage, second.id, usr_a="of the second")
    assert read(storage, first.id, "usr/a") == "of the first"
    assert read(storage, second.id, "usr/a") == "of the second"
    assert read(storage, second.id, "f") is None
    storage.containers.remove(first.id)
    assert fingerprint(storage, image.layer) == before


def fingerprint(storage: Storage, layer: str | None) -> bytes:
    out = io.BytesIO()
    with storage.layers.mounted(layer or "") as path, tree.opened_directory(path) as fd:
        pack(fd, None, None, out.write)
    return out.getvalue()


def test_what_the_init_layer_made_is_no_change_when_it_goes(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base").id
    with storage.containers.mounted(container) as path:
        (path / "etc/hosts").unlink()
        (path / ".dockerenv").unlink()
        (path / "dev/console").unlink()
    assert [one for one in shown(storage.containers.diff(container)) if one[0] != "C"] == []
    image = storage.containers.commit(container)
    assert [one for one in names_in(storage, image.layer or "") if ".wh." in one] == []


def test_what_was_written_over_the_init_layer_can_be_deleted(storage: Storage) -> None:
    """A committed file is the image's, whoever made the first of its name."""
    base_image(storage)
    container = storage.containers.create("base").id
    write(storage, container, etc_hosts="own")
    first = storage.containers.commit(container, "first")
    assert "etc/hosts" in names_in(storage, first.layer or "")
    write(storage, container, etc_hosts=None)
    second = storage.containers.commit(container, "second")
    assert "etc/.wh.hosts" in names_in(storage, second.layer or "")


def test_mounts_are_counted(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base", name="one")
    path = storage.containers.mount("one")
    assert storage.containers.mount("one") == path
    assert [one.times for one in storage.containers.mounts(container)] == [2]
    with pytest.raises(InUseError):
        storage.containers.mount("one", read_only=True)
    assert storage.containers.unmount("one") is False
    assert storage.containers.unmount("one") is True
    with pytest.raises(NotFoundError):
        storage.containers.unmount("one")
    with storage.containers.mounted("one", read_only=True) as path:
        with pytest.raises(OSError, match="Read-only"):
            (path / "f").touch()


def test_exported_is_everything(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base").id
    write(storage, container, new="x", usr_a=None)
    for mounted in (False, True):
        if mounted:
            storage.containers.mount(container)
        out = io.BytesIO()
        storage.containers.export(container, out.write)
        out.seek(0)
        with tarfile.open(fileobj=out) as archive:
            names = archive.getnames()
            assert {"new", "usr/b", "etc/motd", "usr/link"} <= set(names)
            assert "usr/a" not in names
    storage.containers.unmount(container)


# Committing


def test_a_commit_is_a_layer_and_a_config(storage: Storage) -> None:
    base = base_image(storage)
    container = storage.containers.create("base", name="one", config={"Cmd": ["make", "it"]})
    write(storage, "one", usr_a=None, new="x")
    changes = ('ENTRYPOINT ["/run"]', "ENV C=3", "LABEL own=1")
    image = storage.containers.commit("one", "done:1", author="me", message="why", changes=changes)
    assert image.names == ("docker.io/library/done:1",)
    assert (image.source, image.parent, image.layer) == ("commit", base.id, container.layer)
    config = storage.images.config(image)
    assert config.diff_ids == (
        *storage.images.config(base).diff_ids,
        storage.layers.get(container.layer).diff_id,
    )
    assert config.config["Entrypoint"] == ["/run"]
    assert config.config["Env"] == ["A=1", "B=2", "C=3"]
    assert config.config["Labels"] == {"from": "image", "own": "1"}
    assert "Hostname" not in config.config
    assert config.author == "me"
    last = config.history[-1]
    assert (last.author, last.comment, last.created_by) == ("me", "why", "make it")
    assert not last.empty_layer
    assert len(config.history) == len(storage.images.config(base).history) + 1
    assert names_in(storage, container.layer) == [".", "new", "usr", "usr/.wh.a"]
    # Nothing was copied, and the container goes on.
    after = storage.containers.get("one")
    assert storage.layers.get(after.layer).parent == container.layer
    assert read(storage, "one", "new") == "x"
    again = storage.containers.create("done:1")
    assert read(storage, again.id, "new") == "x"
    assert shown(storage.containers.diff(again.id)) == []


def test_a_commit_of_nothing_is_an_empty_layer(storage: Storage) -> None:
    base = base_image(storage)
    container = storage.containers.create("base").id
    for _ in range(2):  # never mounted, and mounted without a change
        depth = storage.layers.get(storage.containers.get(container).layer).depth
        image = storage.containers.commit(container, message="only said")
        config = storage.images.config(image)
        assert config.history[-1].empty_layer
        assert config.history[-1].comment == "only said"
        assert config.diff_ids == storage.images.config(base).diff_ids
        assert image.layer == base.layer
        layer = storage.containers.get(container).layer
        assert storage.layers.get(layer).depth == depth
        with storage.containers.mounted(container):
            pass


def test_each_own_layer_becomes_a_layer(storage: Storage) -> None:
    base = base_image(storage)
    container = storage.containers.create("base").id
    write(storage, container, one="1")
    storage.containers.checkpoint(container)
    write(storage, container, two="2")
    image = storage.containers.commit(container)
    layers = storage.layers.image_layers(image.layer)
    assert [layer.role for layer in layers] == ["", "", ""]
    assert [names_in(storage, layer.id)[1:] for layer in layers[1:]] == [["one"], ["two"]]
    config = storage.images.config(image)
    assert config.diff_ids == tuple(layer.diff_id for layer in layers)
    assert len(config.history) == len(storage.images.config(base).history) + 2


def test_a_commit_of_one_in_use_copies(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base", name="one")
    with storage.containers.mounted("one") as path:
        (path / "new").write_text("x" * 10_000)
        (path / "usr/a").unlink()
        os.link(path / "new", path / "link")
        image = storage.containers.commit("one", "copied")
        (path / "new").write_text("later")
    assert storage.containers.get("one").layer == container.layer
    assert names_in(storage, image.layer or "") == [".", "link", "new", "usr", "usr/.wh.a"]
    again = storage.containers.create("copied")
    assert read(storage, again.id, "new") == "x" * 10_000
    storage.containers.remove("one")
    assert read(storage, again.id, "link") == "x" * 10_000


def test_a_running_container_stands_still_while_it_is_committed(overlay: Storage) -> None:
    events: list[str] = []

    @contextmanager
    def paused(container: Container) -> Iterator[None]:
        events.append(f"pause {container.name}")
        yield
        events.append("go on")

    containers = ContainerStore(overlay.layers, overlay.images, overlay.volumes, paused=paused)
    base_image(overlay)
    container = containers.create("base", name="one")
    write(overlay, "one", f="1")
    with running(overlay, container):
        containers.commit("one", "first")
        assert events == ["pause one", "go on"]
        containers.commit("one", "second", pause=False)
        assert events == ["pause one", "go on"]
    write(overlay, "one", f="2")
    containers.commit("one", "third")
    assert events == ["pause one", "go on"]


def test_nothing_is_sealed_for_a_commit_that_cannot_be(overlay: Storage) -> None:
    base_image(overlay)
    container = overlay.containers.create("base", name="one")
    write(overlay, "one", f="1")
    for arguments in ({"name": "UPPER"}, {"changes": ("FROM x",)}, {"changes": ("CMD",)}):
        with pytest.raises(StoreError):
            overlay.containers.commit("one", **arguments)  # type: ignore[arg-type]
    assert overlay.containers.get("one") == container


def test_what_no_tar_can_say_is_named_and_the_container_goes_on(overlay: Storage) -> None:
    base_image(overlay)
    container = overlay.containers.create("base", name="one")
    with overlay.containers.mounted("one") as path:
        try:
            (path / ".wh.x").touch()
        except OSError:
            pytest.skip("this kernel's overlay has no such names")
    with pytest.raises(UnrepresentableError, match=r"\.wh\.x"):
        overlay.containers.commit("one")
    write(overlay, "one", f="goes on")
    assert read(overlay, "one", "f") == "goes on"
    assert overlay.containers.get("one").layer != container.layer


# Back and forth


def test_back_to_a_checkpoint(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base", name="one")
    write(storage, "one", f="first")
    first = storage.containers.checkpoint("one", "first")
    assert (first.container, first.label) == (container.id, "first")
    write(storage, "one", f="second", g="new")
    second = storage.containers.checkpoint("one")
    write(storage, "one", f=None)
    assert [one.label for one in storage.containers.checkpoints("one")] == ["first", second.label]
    gone = storage.containers.get("one").layer
    storage.containers.rollback("one", second.label)
    storage.layers.close()
    assert (read(storage, "one", "f"), read(storage, "one", "g")) == ("second", "new")
    assert gone not in {layer.id for layer in storage.layers.ls()}
    assert gone not in set(storage.driver_for(storage.driver).layers())
    storage.containers.rollback("one", "first")
    assert (read(storage, "one", "f"), read(storage, "one", "g")) == ("first", None)
    storage.containers.rollback("one", second.label)
    assert read(storage, "one", "g") == "new"
    storage.containers.reset("one")
    assert shown(storage.containers.diff("one")) == []
    assert len(storage.containers.checkpoints("one")) == 2
    storage.containers.rollback("one", "first")
    storage.containers.drop("one", second.label)
    storage.layers.close()
    assert second.layer not in {layer.id for layer in storage.layers.ls()}
    assert read(storage, "one", "f") == "first"
    for label in (second.label, "none"):
        with pytest.raises(NotFoundError, match=f"has no checkpoint '{label}'"):
            storage.containers.rollback("one", label)


def test_a_checkpoint_of_what_was_not_written_to_adds_no_layer(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base", name="one")
    for _ in range(5):
        storage.containers.checkpoint("one")
    assert storage.containers.get("one") == container
    assert [one.label for one in storage.containers.checkpoints("one")] == list("12345")
    storage.containers.fork("one", "two")
    depth = storage.layers.get(container.layer).depth
    assert storage.layers.get(storage.containers.get("two").layer).depth == depth


def test_labels(overlay: Storage) -> None:
    base_image(overlay)
    overlay.containers.create("base", name="one")
    overlay.containers.checkpoint("one", "2")
    assert overlay.containers.checkpoint("one").label == "3"
    with pytest.raises(AlreadyExistsError, match="has a checkpoint 2 already"):
        overlay.containers.checkpoint("one", "2")
    for label in ("", "a b", "-a", "a" * 129):
        with pytest.raises(StoreError, match="is no label"):
            overlay.containers.checkpoint("one", label)


def test_two_forks_go_on_apart(storage: Storage) -> None:
    base_image(storage)
    first = storage.containers.create("base", name="one", config={"Cmd": ["x"]})
    write(storage, "one", f="shared", usr_a=None)
    second = storage.containers.fork("one", "two")
    third = storage.containers.fork("two")
    assert second.config["Cmd"] == ["x"]
    assert second.config["Hostname"] == second.id[:12] != first.config["Hostname"]
    write(storage, "one", f="of one")
    write(storage, "two", f="of two", g="only two")
    assert [read(storage, one, "f") for one in ("one", "two", third.name)] == [
        *("of one", "of two", "shared")
    ]
    assert read(storage, third.name, "g") is None
    assert "D /usr/a" in shown(storage.containers.diff(third.name))
    storage.containers.remove("one")
    assert read(storage, "two", "f") == "of two"
    storage.containers.reset("two")
    assert read(storage, "two", "usr/a") == "1"
    with pytest.raises(AlreadyExistsError):
        storage.containers.fork("two", third.name)


def test_what_is_in_use_is_left_alone(storage: Storage) -> None:
    base_image(storage)
    container = storage.containers.create("base", name="one")
    write(storage, "one", f="1")
    storage.containers.checkpoint("one", "before")
    actions: list[Callable[[], object]] = [
        lambda: storage.containers.rollback("one", "before"),
        lambda: storage.containers.reset("one"),
        lambda: storage.containers.remove("one"),
    ]
    if storage.driver != "btrfs-snapshot":
        actions += [
            lambda: storage.containers.checkpoint("one"),
            lambda: storage.containers.fork("one"),
        ]
    with storage.containers.mounted("one"):
        for action in actions:
            with pytest.raises(ContainerRunningError, match="is mounted at") as caught:
                action()
            assert "container unmount one" in (caught.value.resolution or "")
    with running(storage, container):
        for action in actions:
            with pytest.raises(ContainerRunningError, match="is running") as caught:
                action()
            assert "stop one" in (caught.value.resolution or "")
    assert len(storage.containers.ls()) == 1
    assert storage.containers.prune(dry_run=True) == storage.containers.ls()


def test_a_snapshot_is_taken_of_a_living_container(
    on_filesystem: Callable[[str], Path],
) -> None:
    need("mount")
    directory = on_filesystem("btrfs")
    storage = Storage.open(
        root=directory / "store", run_root=directory / "run", driver="btrfs-snapshot"
    )
    base_image(storage)
    storage.containers.create("base", name="one")
    with storage.containers.mounted("one") as path:
        (path / "f").write_text("then")
        storage.containers.checkpoint("one", "then")
        storage.containers.fork("one", "two")
        (path / "f").write_text("now")
    assert read(storage, "one", "f") == "now"
    assert read(storage, "two", "f") == "then"
    storage.containers.rollback("one", "then")
    assert read(storage, "one", "f") == "then"
    clean(storage)


def test_chains_end_at_their_limit(overlay: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MAX_DEPTH", 6)
    base_image(overlay)
    overlay.containers.create("base", name="one")  # the image, the init layer, the writable one
    for number in range(3):
        write(overlay, "one", f=str(number))
        overlay.containers.checkpoint("one")
    write(overlay, "one", f="last")
    before = overlay.containers.get("one")
    for action in (overlay.containers.checkpoint, overlay.containers.fork):
        with pytest.raises(DepthExceededError, match="would have 7 layers") as caught:
            action("one")
        assert "container export" in (caught.value.resolution or "")
    with pytest.raises(DepthExceededError):
        overlay.containers.commit("one")
    assert overlay.containers.get("one") == before
    assert read(overlay, "one", "f") == "last"
    overlay.containers.rollback("one", "1")
    write(overlay, "one", f="shorter")
    overlay.containers.checkpoint("one")


def test_moves_take_the_same_steps_for_much_as_for_little(overlay: Storage) -> None:
    """What they open and list is counted: they read no content and walk no tree."""
    base_image(overlay)
    counts = []
    for name, number in (("little", 1), ("much", 2000)):
        overlay.containers.create("base", name=name)
        write(overlay, name, **{f"d_f{one}": "x" for one in range(number)})

        def move(name: str = name) -> None:
            overlay.containers.checkpoint(name, "a")
            overlay.containers.fork(name, f"{name}-fork")
            overlay.containers.rollback(name, "a")
            overlay.layers.close()

        counts.append(opened_by(move))
    assert counts[0] == counts[1] > 0


def opened_by(action: Callable[[], object]) -> int:
    """How many files and directories a child opens or lists when it does *action*."""
    there, back = os.pipe()

    def count() -> None:
        seen: list[str] = []
        sys.addaudithook(lambda event, _: seen.append(event))
        action()
        found = [one for one in seen if one in ("open", "os.listdir", "os.scandir")]
        os.write(back, str(len(found)).encode())

    assert succeeded(forked(count))
    os.close(back)
    with open(there) as file:
        return int(file.read())


def test_copies_say_what_they_cost(storage: Storage) -> None:
    base_image(storage, archives.tar(archives.file(b"big", bytes(1 << 20))), "big")
    container = storage.containers.create("big").id
    cost = storage.containers.predicted_cost(container)
    if storage.driver == "vfs-copy":
        assert cost >= 1 << 20
    else:
        assert cost == 0


# Going


def test_removed_is_gone_with_its_checkpoints(storage: Storage) -> None:
    image = base_image(storage)
    container = storage.containers.create("base", name="one")
    write(storage, "one", f="1")
    storage.containers.checkpoint("one", "a")
    write(storage, "one", f="2")
    (Path(storage.containers.directory(container)) / "log.json").write_text("log")
    storage.containers.remove("one")
    assert storage.containers.ls() == []
    assert {layer.id for layer in storage.layers.ls()} == {
        image.layer,
        storage.images.get("base").init,
    }
    assert not os.path.exists(storage.containers.directory(container))
    with pytest.raises(NotFoundError):
        storage.containers.remove("one")
    storage.images.remove(image.id)
    assert storage.layers.ls() == []


def test_force_unmounts_and_kills(overlay: Storage) -> None:
    base_image(overlay)
    killed: list[str] = []
    containers = ContainerStore(
        overlay.layers,
        overlay.images,
        overlay.volumes,
        kill=lambda container: killed.append(container.name),
    )
    containers.create("base", name="one")
    containers.mount("one")
    containers.mount("one")
    containers.remove("one", force=True)
    second = containers.create("base", name="two")
    with running(overlay, second), pytest.raises(ContainerRunningError):
        containers.remove("two", force=True)  # this hook only pretends
    assert killed == ["two"]
    containers.remove("two", force=True)


def test_pruning_leaves_what_is_in_use(overlay: Storage) -> None:
    base_image(overlay)
    for name in ("idle", "mounted", "running"):
        overlay.containers.create("base", name=name)
    overlay.containers.mount("mounted")
    with running(overlay, overlay.containers.get("running")):
        assert [one.name for one in overlay.containers.prune(dry_run=True)] == ["idle"]
        assert len(overlay.containers.ls()) == 3
        assert [one.name for one in overlay.containers.prune()] == ["idle"]
    assert [one.name for one in overlay.containers.ls()] == ["mounted", "running"]


def test_a_container_outlives_its_image(storage: Storage) -> None:
    image = base_image(storage)
    container = storage.containers.create("base", name="one")
    with pytest.raises(InUseError):
        storage.images.remove(image.id)
    storage.images.remove(image.id, force=True)
    assert storage.containers.image_is_gone(container)
    write(storage, "one", usr_a="still here")
    assert "C /usr/a" in shown(storage.containers.diff("one"))
    storage.containers.checkpoint("one", "a")
    made = storage.containers.commit("one", "rescued")
    assert len(storage.images.config(made).diff_ids) == 2
    storage.containers.reset("one")
    assert read(storage, "one", "usr/a") == "1"


def test_a_committed_image_keeps_its_layers_when_the_container_goes(storage: Storage) -> None:
    base_image(storage)
    storage.containers.create("base", name="one")
    write(storage, "one", f="kept")
    image = storage.containers.commit("one", "kept")
    storage.containers.remove("one")
    again = storage.containers.create("kept")
    assert read(storage, again.id, "f") == "kept"
    storage.containers.remove(again.id)
    storage.images.remove(image.id)
    assert image.layer not in {layer.id for layer in storage.layers.ls()}


def test_a_store_that_is_read_only_lists(overlay: Storage) -> None:
    base_image(overlay)
    container = overlay.containers.create("base", name="one")
    with Storage.open(root=overlay.root, run_root=overlay.run_root, read_only=True) as other:
        assert other.containers.ls() == [container]
        assert shown(other.containers.diff("one")) == []
        with pytest.raises(StoreError):
            other.containers.create("base")


def test_a_config_is_json_and_comes_back(overlay: Storage) -> None:
    base_image(overlay)
    config = {"Cmd": ["ü", "\udcff"], "Env": ["A=\n"], "Mounts": [{"Target": "/x"}]}
    container = overlay.containers.create("base", config=config)
    back = overlay.containers.get(container.id).config
    assert (back["Cmd"], back["Mounts"]) == (config["Cmd"], config["Mounts"])
    assert back["Env"] == ["A=\n", "B=2"]
    (text,) = overlay.database.row("SELECT config FROM containers") or ("",)
    assert json.loads(text) == back


def test_times_are_now(overlay: Storage) -> None:
    base_image(overlay)
    before = time.time()
    assert before <= overlay.containers.create("base").created <= time.time()
