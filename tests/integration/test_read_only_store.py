"""A store on a filesystem that is mounted read-only: everything can be had that is in it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import archives
import pytest
from capabilities import need
from contained import base_image
from running import command_line
from stored import DRIVERS, clean

from storagedrivers.errors import ReadOnlyError, VolumeError
from storagedrivers.linux import mount
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores.database import Database


class Rescue(NamedTuple):
    """A store that nothing can be written to.

    Attributes:
        words: those that run the program on it.
        diff_id: of the image's only layer.
        layer: that layer.
    """

    words: list[str]
    root: Path
    run_root: Path
    diff_id: str
    layer: str

    def run(self, *words: str, code: int = 0) -> bytes:
        """What a command prints."""
        done = subprocess.run([*self.words, *words], capture_output=True, check=False)
        assert done.returncode == code, done.stderr.decode()
        return done.stderr if code else done.stdout

    def tar(self, *words: str) -> dict[str, bytes]:
        """The files of a tar that a command writes."""
        with tarfile.open(fileobj=io.BytesIO(self.run(*words))) as archive:
            return {
                one.name.removeprefix("./"): file.read()
                for one in archive
                if one.isreg() and (file := archive.extractfile(one)) is not None
            }


@pytest.fixture(params=DRIVERS)
def rescue(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path], tmp_path: Path
) -> Iterator[Rescue]:
    need("root", "mount", "overlay")
    top = on_filesystem("btrfs" if request.param == "btrfs-snapshot" else "ext4")
    with Storage.open(root=top / "root", run_root=top / "run", driver=request.param) as made:
        image = base_image(made)
        made.volumes.create("mem", options={"type": "tmpfs", "device": "tmpfs"})
        box = made.containers.create("base", name="box", mounts=["vol:/data"])
        for path in ("/etc/new", "/data/kept"):
            tar = archives.tar(archives.file(os.path.basename(path).encode(), path.encode()))
            made.containers.copy_in(box.id, io.BytesIO(tar), os.path.dirname(path))
        layer = made.layers.get(str(image.layer))
    point, run_root = tmp_path / "point", tmp_path / "run"
    point.mkdir()
    with mount.mounted([Mount("bind", str(top), options=("bind", "ro"))], point):
        words = command_line(made)
        words[-3], words[-1] = str(point / "root"), str(run_root)
        yield Rescue(words, point / "root", run_root, str(layer.diff_id), layer.id)
    with Storage.open(root=top / "root", run_root=top / "run") as made:
        made.containers.remove("box")
        for name in ("mem", "vol"):
            made.volumes.remove(name)
        made.images.remove("base")
        clean(made)


def test_everything_can_be_had(rescue: Rescue, tmp_path: Path) -> None:
    assert rescue.tar("volume", "export", "vol") == {"kept": b"/data/kept"}
    usage = json.loads(rescue.run("--json", "volume", "usage", "vol"))
    assert usage["volumes"][0]["bytes"] >= len("/data/kept")

    exported = rescue.tar("container", "export", "box")
    assert (exported["etc/new"], exported["etc/motd"]) == (b"/etc/new", b"hello\n")
    assert b"A /etc/new" in rescue.run("container", "diff", "box")
    for path in ("/etc/new", "/data/kept"):
        rescue.run("cp", f"box:{path}", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == path

    assert "manifest.json" in rescue.tar("save", "base")
    assert "index.json" in rescue.tar("image", "save", "base", "--form", "oci")
    rescue.run("save", "base", "--form", "layout", "-o", str(tmp_path / "layout"))
    assert (tmp_path / "layout/index.json").exists()
    assert rescue.tar("image", "export", "base")["etc/motd"] == b"hello\n"
    file = tmp_path / "layer"
    assert rescue.run("layer", "export", rescue.layer, "-o", str(file)).decode().strip() == (
        rescue.diff_id
    )
    assert file.exists()


def test_everything_can_be_looked_at(rescue: Rescue) -> None:
    for words in ("images", "container ls", "volume ls", "df", "check", "volume inspect mem"):
        rescue.run(*words.split())
    for words in ("container prune --dry-run", "volume prune --dry-run", "gc --dry-run"):
        rescue.run(*words.split())
    plan = rescue.run("run", "--dry-run", "-v", "new:/etc", "-v", "vol:/data", "base").decode()
    assert "makes the volume new" in plan


@pytest.mark.parametrize(
    "words",
    ["volume create more", "run base true", "start box", "cp /etc/passwd box:/", "rm box"],
)
def test_what_changes_something_is_refused(rescue: Rescue, words: str) -> None:
    code = 125 if words.startswith("run") else 1
    said = rescue.run(*words.split(), code=code).decode()
    assert f"the store at {rescue.root} cannot be changed: its filesystem is read-only" in said


def test_what_has_to_be_mounted_is_refused(rescue: Rescue) -> None:
    said = rescue.run("volume", "export", "mem", code=1).decode()
    assert "volume mem is seen only when it is mounted" in said
    with Storage.open(root=rescue.root, run_root=rescue.run_root, read_only=True) as storage:
        with pytest.raises(VolumeError, match="cannot be changed"), storage.volumes.used("mem"):
            pass
        with storage.volumes.used("vol") as path:
            assert os.listdir(path) == ["kept"]
        with pytest.raises(ReadOnlyError, match="its filesystem is read-only"):
            storage.volumes.remove("vol")


@pytest.mark.parametrize("lost", [[], ["-shm"]], ids=["all files", "without -shm"])
def test_what_a_crash_left_in_the_log_is_read(tmp_path: Path, lost: list[str]) -> None:
    need("root", "mount")
    for name in ("made", "crashed", "point"):
        (tmp_path / name).mkdir()
    writer = Database(tmp_path / "made", create=True)
    writer.set_meta(driver="vfs-copy")
    for suffix in {"", "-wal", "-shm"} - {*lost}:
        shutil.copy(f"{writer.path}{suffix}", tmp_path / "crashed")
    writer.close()
    bound = Mount("bind", str(tmp_path / "crashed"), options=("bind", "ro"))
    with mount.mounted([bound], tmp_path / "point"):
        reader = Database(tmp_path / "point", read_only=True)
        assert reader.meta("driver") == "vfs-copy"
        with pytest.raises(ReadOnlyError, match="its filesystem is read-only"):
            reader.set_meta(key="value")
        with pytest.raises(ReadOnlyError):
            reader.rows("DELETE FROM meta")
        reader.close()


def test_where_there_is_no_store_none_is_made(tmp_path: Path) -> None:
    """By commands that only read."""
    program = [sys.executable, "-m", "storagedrivers"]
    places = [f"--root={tmp_path}/root", f"--run-root={tmp_path}/run"]
    for command in ("volume export a1", "container export a1", "save a1", "run --dry-run a1"):
        words = [*program, *places, *command.split()]
        done = subprocess.run(words, capture_output=True, check=False)
        assert b"holds no store" in done.stderr
    assert os.listdir(tmp_path) == []
