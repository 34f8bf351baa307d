"""Containers with volumes and other mounts: made, found, shared, forked, removed."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from capabilities import need
from contained import clean, shown
from processes import forked, succeeded

from storagedrivers.errors import (
    AlreadyExistsError,
    InUseError,
    InvalidMountError,
    NotFoundError,
    StorageDriversError,
    VolumeError,
)
from storagedrivers.model import Volume
from storagedrivers.mounts.spec import MountSpec, MountType
from storagedrivers.storage import Storage
from storagedrivers.stores import mount_requests
from storagedrivers.stores.container_mounts import ContainerMount, as_json, from_json, mounts_of
from storagedrivers.stores.containers import Container
from storagedrivers.stores.plans import PlannedMount

IMAGE = archives.tar(
    archives.directory(b"etc/"),
    archives.file(b"etc/passwd", b"svc:x:12:34::/:/bin/sh\n"),
    archives.directory(b"data/", mode=0o750, uid=12, gid=34),
    archives.file(b"data/a", b"1"),
    archives.directory(b"data/sub/"),
    archives.file(b"data/sub/b", b"22"),
    archives.directory(b"tmp/", mode=0o1777),
    archives.file(b"file", b"333"),
    archives.symlink(b"out", b"../../../../../../etc"),
    archives.symlink(b"nowhere", b"gone"),
)
DATA = ["a", "sub", "sub/b"]
IN_MEMORY = "volume-opt=type=tmpfs,volume-opt=device=tmpfs"


@pytest.fixture(params=["overlay2", "btrfs-snapshot", "vfs-copy"])
def any_storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Storage]:
    need("mount", *(("overlay",) if request.param == "overlay2" else ()))
    filesystems = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "xfs"}
    yield from _opened(on_filesystem(filesystems[request.param]), request.param)


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    """For what is the same under every driver."""
    need("mount", "overlay")
    yield from _opened(on_filesystem("ext4"), "overlay2")


def _opened(directory: Path, driver: str) -> Iterator[Storage]:
    storage = Storage.open(root=directory / "store", run_root=directory / "run", driver=driver)
    image(storage)
    yield storage
    for container in storage.containers.ls():
        storage.containers.remove(container.id)
    for volume in storage.volumes.ls():
        storage.volumes.remove(volume.name)
    storage.volumes.recover()  # after an error of the disk, locks are left for the next who opens
    assert not os.path.exists(storage.volumes.home) or os.listdir(storage.volumes.home) == []
    clean(storage)


def image(storage: Storage, *changes: str, name: str = "base", data: bytes = IMAGE) -> str:
    return storage.images.import_(io.BytesIO(data), name=name, changes=changes).id


def content(storage: Storage, volume: str) -> list[str]:
    """The paths in a volume."""
    with storage.volumes.used(volume) as data:
        return sorted(str(one.relative_to(data)) for one in data.rglob("*"))


def volumes_of(container: Container) -> dict[str, str]:
    """The names of a container's volumes, by target."""
    return {mount.target: mount.name for mount in mounts_of(container) if mount.name}


def names(storage: Storage) -> list[str]:
    """The names of all volumes, ``*`` for an anonymous one."""
    return sorted("*" if one.anonymous else one.name for one in storage.volumes.ls())


def only(storage: Storage, *mounts: MountSpec | str, **more: object) -> PlannedMount:
    """What is planned for the only mount, or the last one."""
    return storage.containers.plan("base", mounts=mounts, **more).mounts[-1]  # type: ignore[arg-type]


# What a container keeps


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("db:/x", {"Type": "volume", "Name": "db", "Destination": "/x"}),
        (
            "db:/x:ro,z",
            {"Type": "volume", "Name": "db", "Destination": "/x", "Mode": "ro,z", "RW": False},
        ),
        (
            "/tmp:/x:rshared",
            {
                "Type": "bind",
                "Source": "/tmp",
                "Destination": "/x",
                "Mode": "rshared",
                "Propagation": "rshared",
                "CreateSource": True,
            },
        ),
        (
            "type=bind,src=/tmp,dst=/x,bind-recursive=disabled",
            {"Type": "bind", "Source": "/tmp", "Destination": "/x", "Recursive": "disabled"},
        ),
        (
            "readonly,source=db,target=/x,volume-subpath=a/b,volume-nocopy",
            {
                "Type": "volume",
                "Name": "db",
                "Destination": "/x",
                "RW": False,
                "NoCopy": True,
                "Subpath": "a/b",
            },
        ),
        (
            "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=0700",
            {"Type": "tmpfs", "Destination": "/x", "TmpfsSize": 1 << 20, "TmpfsMode": 0o700},
        ),
    ],
)
def test_the_config_says_what_was_asked_for(
    storage: Storage, text: str, kept: dict[str, object]
) -> None:
    """In either of Docker's forms; and a mount that was read is the one that was written."""
    container = storage.containers.create("base", mounts=[text])
    assert container.config["Mounts"] == [kept]
    assert container == storage.containers.get(container.id)
    assert [*map(as_json, mounts_of(container))] == [kept]
    assert str(storage.root) not in json.dumps(container.config)


def test_a_mount_survives_its_json() -> None:
    mount = ContainerMount(
        *("bind", "/x", "", "/host", True, "ro,Z", "rslave", "readonly"),
        create_source=True,
    )
    assert from_json(json.loads(json.dumps(as_json(mount)))) == mount


def test_a_spec_is_as_good_as_a_text(storage: Storage) -> None:
    spec = MountSpec(MountType.VOLUME, "/x/../y/", source="db", labels=(("a", "b"),))
    container = storage.containers.create("base", mounts=[spec])
    assert volumes_of(container) == {"/y": "db"}
    assert storage.volumes.get("db").labels == {"a": "b"}
    with pytest.raises(InvalidMountError, match="destination can't be '/'"):
        storage.containers.create("base", mounts=[spec._replace(target="/x/..")])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/x", "volume"),
        ("db:/x", "volume"),
        ("/a=b:/x", "bind"),
        ("./a,type=bind:/x", "bind"),
        ("type=bind,source=/a,target=/x", "bind"),
        ("TYPE=tmpfs,target=/x", "tmpfs"),
        ("ro,source=db,target=/x", "volume"),
        ('"target=/x","source=db"', "volume"),
    ],
)
def test_which_form_a_text_has(text: str, kind: str) -> None:
    assert mount_requests.parse(text).type == kind


# Volumes of images


def test_a_volume_of_the_image_is_filled(any_storage: Storage) -> None:
    """With owner and mode, and it belongs to this container alone."""
    made = image(any_storage, "VOLUME /data /new", name="own")
    one, two = (any_storage.containers.create("own") for _ in range(2))
    mine, theirs = volumes_of(one), volumes_of(two)
    assert [*mine] == ["/data", "/new"]
    assert not {*mine.values()} & {*theirs.values()}
    for found in (mine, theirs):
        assert content(any_storage, found["/data"]) == DATA
        assert content(any_storage, found["/new"]) == []
        status = os.stat(any_storage.volumes.data(found["/data"]))
        assert (status.st_uid, status.st_gid, status.st_mode) == (12, 34, 0o40750)
        volume = any_storage.volumes.get(found["/data"])
        assert (volume.anonymous, volume.seed, len(volume.name)) == (True, made, 64)
    assert any_storage.volumes.users(mine["/data"]) == [one.name]


def test_the_last_who_says_something_is_heard(storage: Storage) -> None:
    """A mount of the user takes the place of another container's, and that one of the image's."""
    image(storage, "VOLUME /data /more", name="own")
    storage.containers.create("base", name="other", mounts=["shared:/data", "shared:/x"])
    made = storage.containers.create(
        "own", mounts=["mine:/x", "/nested/x", "/nested"], volumes_from=["other"]
    )
    found = volumes_of(made)
    assert (found["/data"], found["/x"]) == ("shared", "mine")
    targets = [one.target for one in mounts_of(made)]
    assert targets.index("/nested") < targets.index("/nested/x")
    assert sorted(found) == ["/data", "/more", "/nested", "/nested/x", "/x"]
    assert storage.containers.create("own", tmpfs=["/data"]).config["Tmpfs"] == ["/data"]
    again = storage.containers.create("own", config={"Tmpfs": ["/data"]}, tmpfs=["/more"])
    assert (again.config["Tmpfs"], again.config["Mounts"]) == (["/data", "/more"], [])


def test_where_the_image_has_a_file(storage: Storage) -> None:
    for mount in ("/file", "db:/file"):
        with pytest.raises(InvalidMountError) as error:
            storage.containers.create("base", mounts=[mount])
        assert str(error.value) == "cannot mount volume over existing file, file exists /file"
    with pytest.raises(InvalidMountError, match="has a file above it"):
        storage.containers.create("base", mounts=["db:/file/below"])
    assert (storage.containers.ls(), names(storage)) == ([], [])


# Filling


@pytest.mark.parametrize("target", ["/out", "/nowhere", "/data/../../../../etc"])
def test_nothing_outside_of_the_image_is_copied(storage: Storage, target: str) -> None:
    """Links and dots lead to what the image itself has there, if anything."""
    container = storage.containers.create("base", mounts=[f"db:{target}"])
    found = content(storage, "db")
    assert ("passwd" in found) == ("etc" in target or target == "/out")
    assert "shadow" not in found
    assert volumes_of(container)[os.path.normpath(target)] == "db"


def test_one_is_filled_once(storage: Storage) -> None:
    """What it holds stays, also a hidden file alone, and it remembers the first image."""
    first = image(storage, "LABEL a=1", name="first")
    storage.containers.create("first", mounts=["db:/data"])
    assert storage.volumes.get("db").seed == first
    Path(storage.volumes.data("db"), "a").write_text("mine")
    second = image(storage, "LABEL a=2", name="second")
    storage.containers.create("second", mounts=["db:/data"])
    assert Path(storage.volumes.data("db"), "a").read_text() == "mine"
    (warning,) = storage.containers.plan("second", mounts=["db:/data"]).mounts[0].warnings
    assert "content of image first:latest," in warning
    assert "that of second:latest" in warning
    assert storage.containers.plan("first", mounts=["db:/data"]).mounts[0].warnings == ()
    storage.images.import_(io.BytesIO(IMAGE), name="first")  # the other one has none any more
    (warning,) = storage.containers.plan(second, mounts=["db:/data"]).mounts[0].warnings
    assert f"content of image {first[7:19]}," in warning
    storage.volumes.create("hidden")
    Path(storage.volumes.data("hidden"), ".keep").touch()
    storage.containers.create("base", mounts=["hidden:/data"])
    assert content(storage, "hidden") == [".keep"]


def test_one_at_two_places(storage: Storage) -> None:
    """It gets the content of the first place that has any; a second name is a use, too."""
    wish = ["db:/tmp", "db:/data", "db:/etc"]
    plan = storage.containers.plan("base", mounts=wish)
    assert [(one.creates, one.fills) for one in plan.mounts] == [
        ("volume", True),
        ("", True),
        ("", False),
    ]
    container = storage.containers.create("base", mounts=wish)
    assert content(storage, "db") == DATA
    assert storage.database.rows("SELECT target FROM container_volumes ORDER BY target") == [
        ("/data",),
        ("/etc",),
        ("/tmp",),
    ]
    assert storage.volumes.users("db") == [container.name]


def test_one_that_forgets_is_not_filled(storage: Storage) -> None:
    """A tmpfs is gone when nobody uses it; so nothing would be left of what was copied."""
    planned = only(storage, f"source=db,target=/data,{IN_MEMORY}")
    assert (planned.creates, planned.filled, planned.owner) == ("volume", None, None)
    storage.containers.create("base", mounts=[f"source=db,target=/data,{IN_MEMORY}"])
    assert (content(storage, "db"), storage.volumes.get("db").seed) == ([], None)


def test_a_directory_of_the_host_keeps_its_owner(storage: Storage, tmp_path: Path) -> None:
    """Also where it is a volume and gets content; one that has some gets none."""
    for name, own in (("empty", None), ("full", "own")):
        directory = tmp_path / name
        directory.mkdir(mode=0o711)
        os.chmod(directory, 0o711)
        if own is not None:
            (directory / own).touch()
        options = f"volume-opt=type=none,volume-opt=o=bind,volume-opt=device={directory}"
        planned = only(storage, f"source={name},target=/data,{options}")
        assert planned.fills == (own is None)
        storage.containers.create("base", mounts=[f"source={name},target=/data,{options}"])
        assert content(storage, name) == (DATA if own is None else [own])
        status = os.stat(directory)
        assert (status.st_uid, status.st_mode) == (0, 0o40711)


def test_one_with_a_size(storage: Storage) -> None:
    """It is filled in its own filesystem; what it cannot take leaves nothing."""
    need("loop")
    mount = "source=db,target=/data,volume-opt=size=32m"
    container = storage.containers.create("base", mounts=[mount])
    assert (
        content(storage, "db") == ["a", "lost+found", "sub", "sub/b"]
        or content(storage, "db") == DATA
    )
    assert storage.volumes.get("db").size == 32 << 20
    large = archives.tar(archives.directory(b"data/"), archives.file(b"data/l", bytes(48 << 20)))
    image(storage, name="large", data=large)
    with pytest.raises(OSError, match="No space left"):
        storage.containers.create("large", mounts=[mount.replace("db", "small")])
    assert names(storage) == ["db"]
    assert storage.containers.ls() == [container]


# What fails leaves nothing


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"name": "taken"}, AlreadyExistsError, "taken"),
        ({"size": 1 << 30}, StorageDriversError, "size|limit"),
        ({"volumes_from": ["nobody"]}, NotFoundError, "nobody"),
        ({"volumes_from": [""]}, InvalidMountError, "cannot be an empty string"),
        ({"tmpfs": ["relative"]}, InvalidMountError, "must be absolute"),
        ({"mounts": ["new:/x", "other:/x"]}, InvalidMountError, "Duplicate mount point: /x"),
        (
            {"mounts": ["new:/x", "type=bind,source=/no/such,target=/y"]},
            InvalidMountError,
            "bind source path does not exist: /no/such",
        ),
        ({"mounts": ["new:/x", "source=y_,target=/y,volume-opt=a=b"]}, VolumeError, "invalid opt"),
        ({"mounts": ["new:/x", "y:/y"]}, StorageDriversError, "too short"),
        (
            {"mounts": ["new:/x", "source=yy,target=/y,volume-driver=nobodys"]},
            StorageDriversError,
            "no volume driver",
        ),
    ],
)
def test_a_container_that_cannot_be_made(
    storage: Storage, more: dict[str, object], error: type[Exception], words: str
) -> None:
    """Neither it nor a volume is left; and the plan said so."""
    storage.containers.create("base", name="taken")
    wish = {"mounts": ["new:/data", "/etc"], **more}
    for _ in range(2):
        with pytest.raises(error, match=words):
            storage.containers.create("base", **wish)  # type: ignore[arg-type]
    assert names(storage) == []
    assert len(storage.containers.ls()) == 1
    assert os.listdir(storage.root / "locks") == []
    if not {"name", "size"} & {*more}:
        with pytest.raises(error, match=words):
            storage.containers.plan("base", **wish)  # type: ignore[arg-type]


def test_a_volume_of_another_driver(storage: Storage) -> None:
    storage.volumes.create("db")
    for use in (storage.containers.plan, storage.containers.create):
        with pytest.raises(AlreadyExistsError, match="of the driver local"):
            use("base", mounts=["source=db,target=/x,volume-driver=other"])
    storage.containers.create("base", mounts=["source=db,target=/x,volume-driver=local"])


def test_many_want_the_same_new_volume(storage: Storage) -> None:
    """One of them makes and fills it, and all of them use it."""

    def run() -> None:
        with Storage.open(root=storage.root, run_root=storage.run_root) as own:
            own.containers.create("base", mounts=["db:/data", "more:/etc"])

    children = [forked(run) for _ in range(6)]
    assert all([*map(succeeded, children)])
    assert names(storage) == ["db", "more"]
    assert content(storage, "db") == DATA
    assert len(storage.volumes.users("db")) == len(storage.containers.ls()) == 6


def test_nobody_takes_a_volume_away_meanwhile(storage: Storage) -> None:
    """While containers come and go with it, others prune: one that is used is never taken."""

    def prune() -> None:
        with Storage.open(root=storage.root, run_root=storage.run_root) as own:
            for _ in range(60):
                own.volumes.prune(all=True)

    child = forked(prune)
    for number in range(30):
        made = storage.containers.create("base", mounts=["db:/data", "/data/x"])
        for name in volumes_of(made).values():
            assert os.path.isdir(storage.volumes.data(name)), number
        storage.containers.remove(made.id, volumes=bool(number % 2))
    assert succeeded(child)


# Others' mounts


def test_volumes_from(storage: Storage) -> None:
    """All mounts of another container but for its tmpfs; ``ro`` makes none writable."""
    source = storage.containers.create(
        "base",
        name="source",
        mounts=["db:/db:ro", "/data", "/tmp:/host:rslave", "type=tmpfs,target=/tmp"],
    )
    plan = storage.containers.plan("base", volumes_from=["source:rw"])
    (warning,) = plan.warnings
    assert "tmpfs /tmp of container source" in warning
    assert [one.creates for one in plan.mounts] == ["", "", ""]
    for mode, expected in ((":rw", {"/db": True}), (":ro", dict.fromkeys(("/db", "/data"), True))):
        made = storage.containers.create("base", volumes_from=[f"{source.id[:12]}{mode}"])
        assert volumes_of(made) == volumes_of(source)
        read_only = {one.target: one.read_only for one in mounts_of(made) if one.name}
        assert read_only == {"/db": True, "/data": False, **expected}
        (host,) = (one for one in mounts_of(made) if one.type == "bind")
        assert (host.source, host.propagation) == ("/tmp", "rslave")
    third = storage.containers.create("base", volumes_from=[made.name])
    assert volumes_of(third) == volumes_of(source)


def test_nothing_is_copied_for_the_sake_of_others(storage: Storage) -> None:
    storage.containers.create("base", name="source", mounts=["type=volume,src=db,dst=/new"])
    image(storage, name="other", data=archives.tar(archives.file(b"new/x", b"")))
    planned = storage.containers.plan("other", volumes_from=["source"]).mounts[0]
    assert (planned.fills, planned.hidden) == (False, (1, 0))
    storage.containers.create("other", volumes_from=["source"])
    assert content(storage, "db") == []


# Removing


def test_which_volumes_go_with_a_container(storage: Storage) -> None:
    """Those that nobody named and nobody else uses, if that is asked for."""
    wish = ["db:/db", "/data"]
    storage.containers.create("base", name="one", mounts=wish)
    storage.containers.remove("one")
    assert names(storage) == ["*", "db"]
    storage.containers.create("base", name="two", mounts=wish)
    storage.containers.create("base", name="three", volumes_from=["two"])
    storage.containers.remove("two", volumes=True)
    assert names(storage) == ["*", "*", "db"]
    with pytest.raises(InUseError) as error:
        storage.volumes.remove("db")
    assert error.value.holders == ("three",)
    storage.containers.remove("three", volumes=True)
    assert names(storage) == ["*", "db"]  # that of the first one
    storage.containers.create("base", config={"AutoRemove": True}, mounts=wish)
    storage.containers.prune()
    assert names(storage) == ["*", "db"]
    for volumes in (False, True):
        storage.containers.create("base", mounts=wish)
        storage.containers.prune(volumes=volumes)
        assert names(storage) == ["*", "*", "db"]
    assert [one.anonymous for one in storage.volumes.prune()] == [True, True]


def test_an_anonymous_volume_that_someone_else_uses_stays(storage: Storage) -> None:
    container = storage.containers.create("base", mounts=[f"target=/x,{IN_MEMORY}"])
    (name,) = volumes_of(container).values()
    with storage.volumes.used(name):
        storage.containers.remove(container.id, volumes=True)
        assert names(storage) == ["*"]
    assert storage.volumes.users(name) == []


# Forks, commits


def test_a_fork_shares_what_has_a_name(any_storage: Storage) -> None:
    """And gets clones of the others, on which both go their own ways."""
    image(any_storage, "VOLUME /data", name="own")
    one = any_storage.containers.create("own", name="one", mounts=["db:/db", "/tmp:/host"])
    mine = volumes_of(one)["/data"]
    Path(any_storage.volumes.data(mine), "a").write_text("before")
    two = any_storage.containers.fork("one", "two")
    theirs = volumes_of(two)["/data"]
    assert mine != theirs
    assert mounts_of(two)[1:] == mounts_of(one)[1:]
    assert any_storage.volumes.users("db") == ["one", "two"]
    assert any_storage.volumes.users(theirs) == ["two"]
    assert any_storage.volumes.get(theirs).anonymous
    Path(any_storage.volumes.data(mine), "a").write_text("after")
    assert content(any_storage, theirs) == DATA
    assert Path(any_storage.volumes.data(theirs), "a").read_text() == "before"
    assert os.stat(any_storage.volumes.data(theirs)).st_uid == 12
    any_storage.containers.remove("two", volumes=True)
    assert names(any_storage) == ["*", "db"]


def test_a_fork_that_fails_leaves_no_clone(storage: Storage) -> None:
    storage.containers.create("base", name="one", mounts=["/data"])
    with pytest.raises(AlreadyExistsError):
        storage.containers.fork("one", "one")
    shutil.rmtree(storage.root / "volumes")
    with pytest.raises(OSError, match="No such file"):
        storage.containers.fork("one", "two")
    assert names(storage) == ["*"]
    assert [one.name for one in storage.containers.ls()] == ["one"]
    os.makedirs(storage.volumes.data(storage.volumes.ls()[0].name))


def test_a_commit_has_no_volume(storage: Storage) -> None:
    """Neither what is in it nor that it is there, but for those of the image."""
    image(storage, "VOLUME /more", name="own")
    container = storage.containers.create("own", mounts=["db:/data", "/new"])
    Path(storage.volumes.data("db"), "a").write_text("changed")
    made = storage.containers.commit(container.id, "done")
    config = storage.images.config(made).config
    assert config["Volumes"] == {"/more": {}}
    assert "Mounts" not in config
    assert shown(storage.containers.diff(container.id)) == []
    assert made.layer == storage.images.get("own").layer or made.layer is not None
    assert sorted(volumes_of(storage.containers.create("done"))) == ["/more"]
    storage.containers.remove(storage.containers.ls()[-1].id)
    storage.images.untag("done")


# Plans


def test_what_a_plan_warns_of(storage: Storage, tmp_path: Path) -> None:
    file, directory = tmp_path / "file", tmp_path / "directory"
    file.touch()
    directory.mkdir()
    (tmp_path / "dangling").symlink_to("gone")
    storage.volumes.create("db")
    expected = {
        f"{file}:/x": ["is a single file"],
        f"{file}:/data": ["is a single file"],
        f"{directory}:/file": [],
        f"{directory}:/x:Z": ["Z "],
        f"{storage.root}/volumes:/x": ["belongs to the store itself"],
        "db:/data": [],
        "type=tmpfs,target=/data": [],
        "/data": [],
    }
    for mount, words in expected.items():
        warnings = only(storage, mount).warnings
        assert len(warnings) == len(words), warnings
        for warning, word in zip(warnings, words, strict=True):
            assert word in warning


def test_what_a_plan_knows_to_fail(storage: Storage, tmp_path: Path) -> None:
    """A plan says so, and each of the others can start."""
    file, directory = tmp_path / "file", tmp_path / "directory"
    file.touch()
    (directory / "sub").mkdir(parents=True)
    (directory / "link").symlink_to("sub")
    storage.volumes.create("db")
    Path(storage.volumes.data("db"), "inside").touch()
    covers = "cannot cover a directory: name a file as the target"
    over_file = "cannot cover a file: name a directory as the target"
    source = f"type=bind,source={directory},target=/x"
    expected = {
        (f"{file}:/data",): covers,
        (f"{directory}:/file",): over_file,
        (f"{file}:/file",): None,
        (f"{directory}:/file/below",): "/file/below in the container: there is a file above it",
        ("type=tmpfs,target=/file/below",): "there is a file above it",
        ("type=tmpfs,target=/file",): over_file,
        ("source=db,target=/x,volume-subpath=a",): "subpath 'a' of volume db cannot be opened",
        ("source=new,target=/x,volume-subpath=a",): "subpath 'a' is not in volume new",
        ("source=db,target=/data,volume-subpath=inside",): covers,
        ("source=db,target=/file,volume-subpath=inside",): None,
        (f"{source},bind-propagation=rshared",): "it is not a shared mount: make it one",
        (f"{source}/no/such,bind-propagation=rslave,bind-create-src",): "shared or slave mount",
        (f"{file}/no/such:/x",): f"{file} is no directory",
        (f"{directory}:/x:ro", "db:/x/new"): "/x/new is not there to be mounted at, and /x is",
        (f"{directory}:/x:ro", "db:/x/sub"): None,
        (f"{directory}:/x:ro", "db:/x/link"): None,
        (f"{directory}:/x", f"{file}:/x/sub"): covers,
        (f"{directory}:/data", f"{file}:/data/sub"): covers,
        ("db:/x:ro", "more:/x/new"): "/x is read-only: make it in what is mounted at /x",
        ("db:/x", "more:/x/inside"): over_file,
        ("db:/x", "more:/x/new"): None,
        ("new:/data:ro", "more:/data/sub"): None,
        ("db:/data", f"{file}:/data/sub"): None,
    }
    for mounts, words in expected.items():
        plan = storage.containers.plan("base", mounts=mounts)
        problems = [*plan.problems, *(text for one in plan.mounts for text in one.problems)]
        assert len(problems) == (words is not None), (mounts, problems)
        assert plan.can_start == (words is None)
        assert words is None or words in problems[0]


@pytest.mark.parametrize(
    ("tmpfs", "problem"),
    [
        ("/t:size=big", "the tmpfs option 'size' in '/t:size=big' cannot be 'big': it is a number"),
        (
            "/t:sizes=1m",
            "the tmpfs option 'sizes=1m' in '/t:sizes=1m' is unknown: did you mean size?",
        ),
        ("/file", "the directory that is to be mounted at /file cannot cover a file"),
        ("/t:size=10%,mode=700,uid=7,ro,rw", ""),
    ],
)
def test_a_plan_looks_at_the_options_of_a_tmpfs(storage: Storage, tmpfs: str, problem: str) -> None:
    plan = storage.containers.plan("base", tmpfs=[tmpfs])
    (mount,) = plan.mounts
    assert [one[: len(problem)] for one in mount.problems] == ([problem] if problem else [])
    assert not mount.read_only
    assert [*plan.lines()][-1].startswith("  problem: " if problem else "  belongs to 0:0, mode")
    nested = storage.containers.plan("base", mounts=["db:/t/x"], tmpfs=["/t:ro"])
    assert "/t is read-only" in nested.mounts[1].problems[0]


@pytest.mark.parametrize(
    ("mount", "problem"),
    [
        ("new:/proc", "nothing but the kernel's own can be mounted at /proc"),
        ("type=tmpfs,target=/proc", "nothing but the kernel's own"),
        ("/proc:/proc", None),
        ("new:/proc/sys", "nothing can be mounted at /proc/sys: it is inside of /proc"),
        ("FILE:/proc/cpuinfo", None),
        ("DIR:/proc/cpuinfo", "it is inside of /proc|cannot cover a file"),
        ("FILE:/proc/cmdline", "it is inside of /proc"),
        ("type=tmpfs,target=/proc/none", "this kernel has no such name"),
        ("new:/dev", "has no devices"),
        ("DIR:/dev", "has no devices"),
        ("/dev:/dev", None),
        ("type=tmpfs,target=/dev", None),
        ("FILE:/dev", "cannot cover a directory"),
        ("new:/dev/null", "cannot cover a file"),
        ("new:/dev/new", None),
        ("new:/sys", None),
        ("new:/sys:ro", "is read-only, and has no directory for /sys/fs/cgroup"),
        ("new:/sys/none", "this kernel has no such name"),
        ("FILE:/sys/kernel", "cannot cover a directory"),
        ("new:/sys/kernel", None),
    ],
)
def test_where_the_kernel_has_its_own(
    storage: Storage, tmp_path: Path, mount: str, problem: str | None
) -> None:
    """What no engine can do is known beforehand."""
    (tmp_path / "file").touch()
    text = mount.replace("FILE", f"{tmp_path}/file").replace("DIR", str(tmp_path))
    problems = only(storage, text).problems
    assert len(problems) == (problem is not None), problems
    assert problem is None or any(one in problems[0] for one in problem.split("|"))


def test_what_is_no_list_of_mounts(storage: Storage) -> None:
    """A mistake of the program that calls is said as one; a text is not read letter by letter."""
    wrong: list[tuple[dict[str, object], str]] = [
        ({"mounts": "db:/x"}, r"mounts is a list, and not 'db:/x': write mounts=\['db:/x'\]"),
        ({"mounts": MountSpec(MountType.VOLUME, "/x", "db")}, "mounts is a list"),
        ({"mounts": [("db", "/x")]}, r"\('db', '/x'\) in mounts is not a MountSpec, or a text"),
        ({"mounts": [Path("/x")]}, "in mounts is not a MountSpec"),
        ({"tmpfs": "/x"}, "tmpfs is a list"),
        ({"tmpfs": [7]}, "7 in tmpfs is not a text"),
        ({"volumes_from": "box"}, "volumes_from is a list"),
        ({"mounts": 7}, "mounts is a list"),
    ]
    for wish, words in wrong:
        for use in (storage.containers.plan, storage.containers.create):
            with pytest.raises(TypeError, match=words):
                use("base", **wish)  # type: ignore[arg-type]
    assert (names(storage), storage.containers.ls()) == ([], [])
    assert only(storage, *(one for one in ("db:/x",))).target == "/x"


def test_what_a_plan_says_of_the_user(storage: Storage) -> None:
    """Who cannot write is told so; one whom the image does not know cannot be started at all."""

    def planned(mount: str, user: str) -> PlannedMount:
        return only(storage, mount, config={"User": user})

    (warning,) = planned("db:/new", "svc").warnings
    assert warning == "user svc cannot write to it: it belongs to 0:0, mode 0755"
    assert planned("db:/data", "svc").warnings == ()
    assert planned("db:/data", "1000:34").writable is False
    assert planned("db:/new:ro", "svc").warnings == ()
    unknown = storage.containers.plan("base", mounts=["db:/x"], config={"User": "nobody"})
    assert unknown.mounts[0].writable is None
    assert unknown.warnings == ()
    assert "no user 'nobody': name one that it has" in unknown.problems[0]
    assert not unknown.can_start
    assert storage.containers.plan(None, mounts=["db:/x"]).mounts[0].writable is True


def test_mounts_below_mounts(storage: Storage, tmp_path: Path) -> None:
    """Their mountpoints are made on the host, and cannot be where that is read-only."""
    (tmp_path / "there").mkdir()
    below = only(storage, f"{tmp_path}:/x", "db:/x/new")
    assert below.warnings == (
        f"it makes {tmp_path}/new on the host, to be mounted at; that stays there",
    )
    assert only(storage, f"{tmp_path}:/x", "db:/x/there").warnings == ()
    assert only(storage, "db:/x", "more:/x/new").warnings == ()


def test_a_plan_for_people(storage: Storage, tmp_path: Path) -> None:
    mounts = ["db:/data:ro", f"{tmp_path}/new:/etc", "/more", "type=tmpfs,target=/tmp"]
    lines = [*storage.containers.plan("base", mounts=mounts, config={"User": "12"}).lines()]
    assert lines == [
        "/more: an anonymous volume, writable",
        "  makes a new volume",
        "  belongs to 0:0, mode 0755",
        "  warning: user 12 cannot write to it: it belongs to 0:0, mode 0755",
        "/data: volume db, read-only",
        "  makes the volume db",
        "  copies 3 entries (3 bytes) of the image into it",
        "  belongs to 12:34, mode 0750",
        f"/etc: {tmp_path}/new of the host, writable",
        f"  makes the directory {tmp_path}/new when it starts",
        "  hides 5 entries (23 bytes) of the image",
        "  belongs to 0:0, mode 0755",
        "  warning: user 12 cannot write to it: it belongs to 0:0, mode 0755",
        "/tmp: a tmpfs, writable",
        "  belongs to 0:0, mode 1777",
    ]
    assert [*storage.containers.plan("base").lines()] == ["nothing is mounted"]


def test_a_plan_in_a_store_that_is_only_read(storage: Storage) -> None:
    storage.volumes.create("db")
    opened = Storage.open(root=storage.root, run_root=storage.run_root, read_only=True)
    with opened as reader:
        plan = reader.containers.plan("base", mounts=["db:/data", "new:/data/x"])
        assert [one.creates for one in plan.mounts] == ["", "volume"]
        assert plan.mounts[0].filled == (3, 3)


def test_an_empty_root_has_nothing_to_copy(storage: Storage) -> None:
    container = storage.containers.create(None, mounts=["db:/data"])
    assert volumes_of(container) == {"/data": "db"}
    assert storage.volumes.get("db") == Volume(
        "db", "local", storage.volumes.get("db").created, {}, {}
    )
