"""Symlinks that an image has on the way to what is mounted or copied."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from capabilities import need
from contained import base_image
from stored import clean

from storagedrivers.linux import mount, rooted, syscalls
from storagedrivers.linux.rooted import Root
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores.transfer import open_in_root

IMAGE = archives.tar(
    archives.directory(b"var/"),
    archives.directory(b"opt/app-1/data/"),
    archives.file(b"opt/app-1/data/file", b"content"),
    archives.directory(b"usr/share/"),
    archives.symlink(b"usr/share/app", b"../../opt/app-1"),
    archives.symlink(b"var/app", b"/usr/share/app"),
)
TARGETS = (
    *("/../etc", "../etc", "/etc/../etc", "/../../etc", "../../../etc", "/etc/..", "/..", ".."),
    *("/./etc", "/../nope", "etc/../../../etc", "/../file", "/file/..", "/../own/own", "", "own"),
)


@pytest.fixture(params=["vfs-copy", "overlay2"])
def storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Storage]:
    need("root", "mount", "overlay")
    top = on_filesystem("ext4")
    made = Storage.open(root=top / "root", run_root=top / "run", driver=request.param)
    base_image(made, IMAGE, "app")
    yield made
    for container in made.containers.ls():
        made.containers.remove(container.id)
    for volume in made.volumes.ls():
        made.volumes.remove(volume.name)
    made.images.remove("app")
    clean(made)


def test_absolute_ones_before_relative_ones(storage: Storage, tmp_path: Path) -> None:
    """The kernel gives up on them (EAGAIN) where nothing is mounted in a namespace."""
    target = "/var/app/data"
    plan = storage.containers.plan("app", mounts=[f"data:{target}"])
    assert plan.mounts[0].filled is not None
    assert plan.mounts[0].filled.entries == 1
    made = storage.containers.create("app", mounts=[f"data:{target}"])
    assert Path(storage.volumes.data("data"), "file").read_text() == "content"

    other = storage.containers.create("app")
    (tmp_path / "new").write_text("new")
    for container in (made, other):
        storage.containers.copy_out(container.id, f"{target}/file", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "content"
        storage.containers.copy_in(container.id, tmp_path / "new", f"{target}/new")
        tar = io.BytesIO(archives.tar(archives.file(b"of/tar", b"tar")))
        storage.containers.copy_in(container.id, tar, target)
        storage.containers.copy_out(container.id, f"{target}/of/tar", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "tar"
    assert sorted(os.listdir(storage.volumes.data("data"))) == ["file", "new", "of"]
    with storage.containers.opened(other.id) as root:
        assert os.stat("opt/app-1/data/new", dir_fd=root).st_size == 3


def test_a_plan_says_what_is_not_seen(storage: Storage) -> None:
    """Two targets that a symlink makes one place."""
    targets = ("/var/app/data", "/opt/app-1/data", "/opt/app-1/data/more", "/opt/app-1/datum")
    mounts = [f"data{number}:{target}" for number, target in enumerate(targets)]
    planned = storage.containers.plan("app", mounts=mounts).mounts
    said = {one.target: one.warnings for one in planned}
    assert said == {
        **dict.fromkeys(targets, ()),
        targets[0]: (
            f"nothing of it is seen: by a symlink of the image it lies under {targets[1]}",
        ),
    }


def test_a_plan_says_what_a_volume_does_not_get(storage: Storage) -> None:
    """Labels and options are those that it was made with."""
    storage.volumes.create("old", labels={"a": "1", "b": "2"})
    for more, is_other in (
        ("", False),
        (",volume-label=a=1", False),
        (",volume-label=a=2", True),
        (",volume-label=c=1", True),
        (",volume-label=a=1,volume-opt=type=tmpfs,volume-opt=device=tmpfs", True),
    ):
        plan = storage.containers.plan("app", mounts=[f"type=volume,source=old,target=/x{more}"])
        said = "there is a volume old already, with other labels or options: it stays as it is"
        assert plan.mounts[0].warnings == ((said,) if is_other else ())
        plan = storage.containers.plan("app", mounts=[f"type=volume,source=new,target=/x{more}"])
        assert plan.mounts[0].warnings == ()


@pytest.mark.parametrize("flags", [os.O_PATH, os.O_RDONLY | os.O_DIRECTORY])
@pytest.mark.parametrize("missing", [None, errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("view", ["detached", "plain"])
def test_all_ways_lead_where_the_kernel_would_go(
    tmp_path: Path, flags: int, missing: int | None, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has no openat2(2), or a filter forbids it; never out of the root."""
    need("root", "mount")
    (tmp_path / "etc").mkdir()
    (tmp_path / "file").touch()
    for number, target in enumerate(TARGETS):
        (tmp_path / f"l{number}").symlink_to(target or tmp_path)
    (tmp_path / "own").symlink_to(".")
    names = [f"l{number}" for number in range(len(TARGETS))]
    paths = [*names, *(f"{name}/../etc" for name in names), *(f"/own/{name}/." for name in names)]
    expected = [kernel(tmp_path, path, flags) for path in paths]

    def refuse(*_: object, **__: object) -> int:
        assert missing is not None
        raise OSError(missing, os.strerror(missing))

    if missing is not None:
        monkeypatch.setattr(syscalls, "openat2", refuse)
    if view == "plain":
        root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    else:
        root = mount.open_view([Mount("bind", str(tmp_path), options=("bind",))])
    try:
        found = [outcome(lambda path=path: open_in_root(root, path, flags)) for path in paths]
    finally:
        os.close(root)
    assert dict(zip(paths, found, strict=True)) == dict(zip(paths, expected, strict=True))
    assert len({*found}) >= 4  # directories, the file, errors


def kernel(top: Path, path: str, flags: int) -> tuple[int, int] | str:
    """What openat2(2) says to a path where it can."""
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        resolve = syscalls.RESOLVE_IN_ROOT
        found: tuple[int, int] | str = "EAGAIN"
        while found == "EAGAIN":  # another process has renamed or mounted something
            found = outcome(lambda: syscalls.openat2(root, path, flags, resolve=resolve))
        return found
    finally:
        os.close(root)


def outcome(opens: Callable[[], int]) -> tuple[int, int] | str:
    """Which file it is, or the name of the error."""
    try:
        fd = opens()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino
    finally:
        os.close(fd)


def test_ways_are_walked_only_where_the_kernel_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else it says is final."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/loop").symlink_to("loop")

    def never(*_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(rooted, "_walked", never)
    with Root(tmp_path) as root:
        for path in ("", "a", "/a/b"):  # without '..', for which others can make it give up
            os.close(open_in_root(root.fileno(), path))
        for path, error in (("a/none", errno.ENOENT), ("a/loop/b", errno.ELOOP)):
            with pytest.raises(OSError, match=os.strerror(error)) as caught:
                open_in_root(root.fileno(), path)
            assert caught.value.errno == error
