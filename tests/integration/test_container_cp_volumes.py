"""Files go in and out of what a container has mounted, whether it runs or was never started."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from mounted import MountRunner, bind, mounted, tmpfs, volume
from running import busybox_image, remove_containers
from stored import DRIVERS, clean

from storagedrivers.errors import ContainerError, InvalidMountError, NotFoundError
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.storage import Storage
from storagedrivers.stores.containers import Container


@pytest.fixture(params=["overlay2", "vfs-copy"])
def storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Storage]:
    need("root", "mount", "overlay")
    assert request.param in DRIVERS
    directory = on_filesystem("ext4")
    with Storage.open(
        root=directory / "root", run_root=directory / "run", driver=request.param
    ) as storage:
        busybox_image(storage)
        storage.volumes.create("vol")
        yield storage
        remove_containers(storage)
        storage.volumes.remove("vol")
        clean(storage)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "host/dir").mkdir(parents=True)
    (tmp_path / "host/file").write_text("of the host")
    (tmp_path / "host/link").symlink_to("/v/through-link")
    return tmp_path / "host"


@pytest.fixture(params=["at rest", "mounted", "running"])
def container(request: pytest.FixtureRequest, storage: Storage, host: Path) -> Iterator[Container]:
    made = MountRunner(storage, "").create(
        "sleep 1000",
        volume("vol", "/v"),
        bind(host, "/new/host"),
        bind(host, "/closed", read_only=True),
        bind(host / "file", "/new/file"),
        volume("vol", "/new/host/dir"),
        tmpfs("/t"),
        Runtime=None,
    )
    if request.param == "running":
        storage.runtime.start(made.id)
    if request.param != "mounted":
        yield made
        return
    with storage.containers.mounted(made.id):
        yield made


def test_in_and_out(storage: Storage, container: Container, host: Path, tmp_path: Path) -> None:
    """What is copied below a target is in the volume, and comes out of it."""
    data = Path(storage.volumes.data("vol"))
    before = len(read_mountinfo())
    storage.containers.copy_in(container.id, host / "file", "/v/copied")
    storage.containers.copy_in(container.id, host / "file", "/new/host/made")
    storage.containers.copy_in(container.id, host / "file", "/new/host/dir/nested")
    storage.containers.copy_in(container.id, host / "file", "/new/host/link")
    assert sorted(os.listdir(data)) == ["copied", "nested", "through-link"]
    assert (host / "made").read_text() == "of the host"
    storage.containers.copy_out(container.id, "/v/copied", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "of the host"
    storage.containers.copy_out(container.id, "/new", tmp_path / "all")
    found = {str(one.relative_to(tmp_path / "all")) for one in (tmp_path / "all").rglob("*")}
    assert {"file", "host/made", "host/dir/nested", "host/link"} <= found
    assert len(read_mountinfo()) == before
    assert b"v/copied" not in {one.path for one in storage.containers.diff(container.id)}


def test_tars(storage: Storage, container: Container) -> None:
    """The same as a tar, of which one is made and one unpacked."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("host/dir/in-tar")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    buffer.seek(0)
    storage.containers.copy_in(container.id, buffer, "/new")
    assert Path(storage.volumes.data("vol"), "in-tar").read_bytes() == b"abc"
    out = io.BytesIO()
    storage.containers.copy_out(container.id, "/new/host", out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        names = archive.getnames()
        assert {"host/dir/in-tar", "host/file", "host/link"} <= {*names}


def test_read_only(storage: Storage, container: Container, host: Path, tmp_path: Path) -> None:
    """What the container may not write to is not written to; it can be read."""
    with pytest.raises(ContainerError, match="is read-only"):
        storage.containers.copy_in(container.id, host / "file", "/closed/more")
    with pytest.raises(ContainerError, match="is read-only"):
        storage.containers.copy_in(container.id, io.BytesIO(_tar()), "/closed")
    assert sorted(os.listdir(host)) == ["dir", "file", "link"]
    storage.containers.copy_out(container.id, "/closed/file", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "of the host"


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("more"))
    return buffer.getvalue()


def test_an_export_has_no_volumes(storage: Storage, container: Container, host: Path) -> None:
    """As with Docker: it is what its layers hold."""
    storage.containers.copy_in(container.id, host / "file", "/v/copied")
    out = io.BytesIO()
    storage.containers.export(container.id, out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert "v/copied" not in archive.getnames()
        assert not [one for one in archive.getnames() if "of the host" in one]


def test_what_is_in_a_tmpfs(storage: Storage, tmp_path: Path) -> None:
    """Only processes of the container see it; what is mounted in it, and beside it, is copied."""
    (tmp_path / "file").write_text("x")
    made = MountRunner(storage, "").create(
        "sleep 1000",
        *(tmpfs("/t"), volume("vol", "/v"), volume("vol", "/t/vol")),
        Runtime=None,
        Tmpfs=["/more/:size=1m"],
    )
    _refuse_all(storage, made, tmp_path, "copy to another place")
    with pytest.raises(NotFoundError):  # the image's, as long as nothing hides it
        storage.containers.copy_out(made.id, "/t/new", tmp_path)

    storage.runtime.start(made.id)
    Path(storage.volumes.data("vol"), "link").symlink_to("/t")
    _refuse_all(storage, made, tmp_path, f"storagedrivers exec -i {made.name} tar -x -C /")
    for path in (*IN_TMPFS, "/v/link/new"):
        with pytest.raises(ContainerError, match=r"is in the tmpfs at /") as caught:
            storage.containers.copy_out(made.id, path, tmp_path / "out")
        assert f"storagedrivers exec {made.name} tar -c {path}" in str(caught.value.resolution)
    with pytest.raises(ContainerError, match=r"is in the tmpfs at /t"):
        storage.containers.copy_in(made.id, tmp_path / "file", "/v/link")

    storage.containers.copy_out(made.id, "/v/link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "/t"
    storage.containers.copy_in(made.id, tmp_path / "file", "/t/vol/new")
    storage.containers.copy_in(made.id, tmp_path / "file", "/tx")
    storage.containers.copy_out(made.id, "/v/link/vol/new", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "x"
    with storage.containers.opened(made.id) as root:
        assert "new" not in os.listdir(f"/proc/self/fd/{root}/t")


IN_TMPFS = ("/t/new", "/t/", "/t/../t", "/more/new", "/more")


def _refuse_all(storage: Storage, container: Container, directory: Path, advice: str) -> None:
    for path in IN_TMPFS:
        for source in (directory / "file", io.BytesIO(_tar())):
            with pytest.raises(ContainerError, match="is in the tmpfs at /") as caught:
                storage.containers.copy_in(container.id, source, path)
            assert advice in str(caught.value.resolution)


def test_hard_links_across_mounts(storage: Storage, tmp_path: Path) -> None:
    """Names of one file that come to lie in different filesystems are two files."""
    (tmp_path / "from/b").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    (tmp_path / "from/a").write_text("x")
    os.link(tmp_path / "from/a", tmp_path / "from/b/a")
    with mounted(tmp_path / "to"):
        made = MountRunner(storage, "").create("true", bind(tmp_path / "to", "/x/b"))
        storage.containers.copy_in(made.id, f"{tmp_path}/from/.", "/x")
        assert (tmp_path / "to/a").read_text() == "x"


def test_sources_that_are_missing(storage: Storage, tmp_path: Path) -> None:
    """One is made where starting would make it; else it is said what is missing."""
    runner = MountRunner(storage, "")
    (tmp_path / "file").write_text("x")
    made = runner.create("true", bind(tmp_path / "a/b", "/x", create_source=True))
    storage.containers.copy_in(made.id, tmp_path / "file", "/x")
    assert (tmp_path / "a/b/file").read_text() == "x"
    broken = runner.create("true", bind(tmp_path / "none", "/x"))
    with pytest.raises(InvalidMountError, match="bind source path does not exist"):
        storage.containers.copy_in(broken.id, tmp_path / "file", "/x")
