"""A container that shares a volume exchanges directories for symlinks while another one is started:
nothing outside is mounted, made or written, whatever it hits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from capabilities import need
from mounted import MountRunner, bind, tmpfs, volume
from processes import child
from running import busybox_image, container_store, usable

from storagedrivers.errors import InvalidMountError, RuntimeFailedError, StorageDriversError
from storagedrivers.linux import stage
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.storage import Storage

TRIES = {"crun": 450, "runc": 450, "unshare": 100}  # Python takes its time

# Holds the directory that it exchanges open, as it must never touch what is outside itself.
SWAPPER = """
import contextlib, itertools, os, sys, threading
from storagedrivers.linux import syscalls
data, links = sys.argv[1], sys.argv[2:]
real = os.open(f"{data}/a", os.O_RDONLY | os.O_DIRECTORY)

def swap():
    for number in itertools.count():
        for link in links:
            syscalls.renameat2(f"{data}/a", f"{data}/{link}", 2)  # RENAME_EXCHANGE
            syscalls.renameat2(f"{data}/a", f"{data}/{link}", 2)
        for name in ("b", "new") if number % 300 == 0 else ():
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=real)
        os.makedirs(f"/proc/self/fd/{real}/b", exist_ok=True)

threading.Thread(target=swap, daemon=True).start()
"""


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    need("root", "mount", "overlay")
    with container_store(on_filesystem("ext4")) as storage:
        busybox_image(storage)
        yield storage


@pytest.fixture(params=["crun", "runc", "unshare"])
def runner(request: pytest.FixtureRequest, storage: Storage) -> Iterator[MountRunner]:
    with usable(request.param):
        yield MountRunner(storage, request.param)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that nobody has given to a container."""
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "outside/secret").touch()
    (tmp_path / "outside/b/secret").touch()
    return tmp_path / "outside"


@contextmanager
def swapped(storage: Storage, outside: Path) -> Iterator[None]:
    """Have ``a`` in the volume be exchanged for symlinks all the time."""
    data = Path(storage.volumes.data("shared"))
    (data / "a/b").mkdir(parents=True)
    (data / "absolute").symlink_to(outside)
    (data / "climbing").symlink_to(os.path.relpath(outside, data))
    with child(SWAPPER, data, "absolute", "climbing"):
        yield


def _tree(directory: Path) -> dict[str, int]:
    return {str(one): one.stat().st_mtime_ns for one in (directory, *directory.rglob("*"))}


@pytest.mark.usefixtures("capfd")
def test_targets_and_subpaths(runner: MountRunner, outside: Path) -> None:
    """Targets in a volume, those that are there and those that are made, and parts of it."""
    storage = runner.storage
    storage.volumes.create("shared")
    storage.volumes.create("other")
    before = _tree(outside)
    container = runner.create(
        "touch /v/a/b/x /sub/x; ls /v/a/b /sub | grep secret && exit 99; exit 0",
        volume("shared", "/v"),
        volume("other", "/v/a/b"),
        tmpfs("/v/a/new"),
        bind(outside / "secret", "/v/a/file", read_only=True),
        volume("shared", "/sub", subpath="a/b"),
    )
    tries, started = TRIES[runner.engine], 0
    with swapped(storage, outside):
        for _ in range(tries):
            with suppress(InvalidMountError, RuntimeFailedError):
                assert storage.runtime.run(container.id) == 0, "it saw what is outside"
                started += 1
    assert tries / 20 < started < tries
    assert _tree(outside) == before
    assert not [one for one in read_mountinfo() if one.mountpoint.startswith(str(outside))]


def test_sources_of_the_host(
    runner: MountRunner, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is what is mounted, if its path becomes another one in this moment."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "mine").touch()

    class Stage(stage.Stage):
        def __init__(self, root: str) -> None:  # the first that happens once all are open
            source.rename(tmp_path / "moved")
            source.symlink_to(outside)
            super().__init__(root)

    monkeypatch.setattr(stage, "Stage", Stage)
    container = runner.create(
        "test -e /x/mine && test -e /dev/x/mine",
        *(bind(source, target) for target in ("/x", "/dev/x")),
    )
    assert runner.storage.runtime.run(container.id) == 0


def test_copying_into_a_volume(storage: Storage, outside: Path, tmp_path: Path) -> None:
    """Files that are copied into a container stay in it and its volumes."""
    storage.volumes.create("shared")
    container = MountRunner(storage, "").create("true", volume("shared", "/v"), tmpfs("/t"))
    before = _tree(outside)
    (tmp_path / "file").write_text("x")
    with swapped(storage, outside):
        for _ in range(100):
            with suppress(StorageDriversError, OSError):
                storage.containers.copy_in(container.id, tmp_path / "file", "/v/a/b/file")
    assert _tree(outside) == before
