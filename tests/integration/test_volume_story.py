"""A database and its data: what dies with a container and what outlives it, on the command line.

Each step is a process of its own, as a user types it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from running import busybox_image, command_line, container_store, usable

from storagedrivers.storage import Storage

Run = Callable[..., str]

WRITE = ("sh", "-c", "echo row >> /var/lib/mysql/table; cat /var/lib/mysql/table")
READ = ("sh", "-c", "cat /var/lib/mysql/table 2>/dev/null || echo nothing")


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    need("root", "mount", "overlay", "busybox")
    with container_store(on_filesystem("ext4")) as storage:
        busybox_image(storage)
        yield storage


@pytest.fixture
def command(storage: Storage) -> Run:
    """Runs the program; what it printed."""

    def run(*words: str, fails: bool = False) -> str:
        done = subprocess.run(
            [*command_line(storage), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(params=["unshare", "runc", "crun"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with usable(request.param):
        yield request.param


def test_the_story(storage: Storage, command: Run, tmp_path: Path, engine: str) -> None:
    """The writable layer is gone with its container; a volume and a path of the host are not."""

    def run(*words: str) -> str:
        return command("run", "--rm", "--runtime", engine, *words)

    own = (
        "busybox",
        "sh",
        "-c",
        "busybox mkdir -p /var/lib/mysql && echo row > /var/lib/mysql/table",
    )
    run(*own)
    assert run("busybox", *READ) == "nothing\n"
    assert command("volume", "ls", "--quiet") == ""

    use = ("-v", "vol:/var/lib/mysql", "busybox")
    assert run(*use, *WRITE) == "row\n"
    assert command("volume", "ls", "--quiet") == "vol\n"
    assert run(*use, *READ) == "row\n"
    assert run(*use, *WRITE) == "row\nrow\n"
    assert (storage.root / "volumes/vol/_data/table").read_text() == "row\nrow\n"

    data = tmp_path / "data/mysql"
    use = ("--mount", f"type=bind,source={data},target=/var/lib/mysql", "busybox")
    refused = command("run", "--rm", *use, *READ, fails=True)
    assert f"bind source path does not exist: {data}" in refused
    data.mkdir(parents=True)
    assert run(*use, *WRITE) == "row\n"
    assert run(*use, *READ) == "row\n"
    assert (data / "table").read_text() == "row\n"
    assert os.listdir(storage.root / "containers") == []
    assert [volume.name for volume in storage.volumes.ls()] == ["vol"]


def test_two_containers_share_one(storage: Storage, command: Run) -> None:
    """One writes while the other one reads; neither it nor its volume can be removed meanwhile."""
    loop = "while :; do test -e /data/from-other && exit 7; sleep 0.01; done"
    command("run", "--detach", "--name", "one", "-v", "vol:/data", "busybox", "sh", "-c", loop)
    command("run", "--rm", "--volumes-from", "one", "busybox", "touch", "/data/from-other")
    assert command("wait", "one") == "7\n"
    assert "in use by container one" in command("volume", "rm", "vol", fails=True)
    command("container", "rm", "one")
    command("volume", "rm", "vol")
    assert storage.volumes.ls() == []


def test_first_use_brings_the_images_content(storage: Storage, command: Run) -> None:
    """And only that one: what an update of the image brings does not touch what is there."""
    command(
        "run", "--name", "made", "busybox", "sh", "-c", "busybox mkdir /db && echo 1 > /db/version"
    )
    command("container", "commit", "--change", "VOLUME /db", "made", "db:1")
    command("container", "rm", "made")
    look = ("sh", "-c", "cat /db/version")
    (said,) = json.loads(command("run", "--dry-run", "--json", "-v", "vol:/db", "db:1", *look))[
        "mounts"
    ]
    assert (said["creates"], said["filled"]["entries"]) == ("volume", 1)
    assert command("run", "--rm", "-v", "vol:/db", "db:1", *look) == "1\n"
    again = ("sh", "-c", "echo 2 > /db/version; cat /db/version")
    assert command("run", "--rm", "-v", "vol:/db", "db:1", *again) == "2\n"
    assert command("run", "--rm", "-v", "vol:/db", "db:1", *look) == "2\n"
    assert command("run", "--rm", "db:1", *look) == "1\n"
    assert command("volume", "ls", "--quiet") == "vol\n"


def test_what_goes_with_a_container(storage: Storage, command: Run) -> None:
    """A volume without a name stays behind, unless somebody says that it is to go."""
    use = ("run", "--name", "one", "-v", "/scratch", "busybox", "touch", "/scratch/x")
    for option, left in ((), 1), (("--volumes",), 1):
        command(*use)
        command("container", "rm", *option, "one")
        assert len(storage.volumes.ls()) == left
    command("run", "--rm", "-v", "/scratch", "busybox", "touch", "/scratch/x")
    (volume,) = storage.volumes.ls()
    assert (Path(storage.volumes.data(volume.name)) / "x").exists()
    assert command("volume", "prune").split() != []
    assert storage.volumes.ls() == []
