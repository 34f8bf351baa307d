"""What comes of a mount, and what becomes of volumes: Docker does the same as this program."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from interop.daemons import Daemons
from interop.making import Peers
from mount_outcomes import CASES, Case, check_entries, count, image_tar, prepare, script, seen
from running import command_line, usable

from storagedrivers.storage import Storage

Image = Callable[[Case], str]


@pytest.fixture(scope="session")
def images(peers: Peers) -> Image:
    """The image of the table, imported once for each VOLUME."""
    made: dict[str, str] = {}

    def get(case: Case) -> str:
        change = f"VOLUME {case.text}" if case.option == "VOLUME" else "WORKDIR /"
        if change not in made:
            words = ("import", "--change", change, "-")
            made[change] = peers.daemons.docker(*words, data=image_tar()).decode().strip()
        return made[change]

    return get


@pytest.fixture
def daemons(peers: Peers) -> Iterator[Daemons]:
    """Docker, without containers and volumes, of this test or of others before it."""
    _clear(peers.daemons)
    yield peers.daemons
    _clear(peers.daemons)


def _clear(daemons: Daemons) -> None:
    for kind in (("container", "rm", "--volumes", "--force"), ("volume", "rm")):
        names = daemons.docker(kind[0], "ls", *_every(kind[0]), "--quiet").decode().split()
        if names:
            daemons.docker(*kind, *names)


def _every(kind: str) -> tuple[str, ...]:
    return ("--all",) if kind == "container" else ()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A path of the host."""
    return tmp_path / "host"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_docker_does_the_same(daemons: Daemons, images: Image, host: Path, case: Case) -> None:
    """What is made, copied, hidden; whose it is; who can write to it."""
    volumes = daemons.directory / "docker/volumes"
    if case.names_volume and case.before != "missing":
        daemons.docker("volume", "create", "data")
        prepare(volumes / "data/_data", case.before)
    elif not case.names_volume:
        prepare(host, case.before)
    option = [] if case.option == "VOLUME" else [case.option, case.text.replace("HOST", str(host))]
    words = ("create", "--network", "none", "--user", case.user, *option)
    command = ("sh", "-c", script(case.target))
    container = daemons.docker(*words, images(case), *command).decode().strip()

    names = daemons.docker("volume", "ls", "--quiet").decode().split()
    assert len(names) == (case.outcome.creates == "volume" or case.names_volume)
    copied = sum(count(volumes / name / "_data") for name in names)
    assert copied == (case.outcome.copies or 0)
    assert host.exists() == (not case.names_volume and case.before != "missing")

    done = subprocess.run(
        daemons.docker_command("start", "--attach", container),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    found = seen(done.stdout.decode())
    assert (found.owner, found.writes) == (case.outcome.owner, case.outcome.writes)
    check_entries(case, found)
    if case.outcome.creates == "directory":
        assert (os.stat(host).st_uid, os.stat(host).st_mode & 0o7777) == (0, 0o755)


# Commands side by side; NONE, FULL and BARE are images without a VOLUME and with one

STORIES = {
    "filled again when it is empty": [
        "run --rm -v data:/full NONE ls /full",
        "run --rm -v data:/x NONE busybox rm -r /x/a /x/sub",
        "run --rm -v data:/full NONE ls -a /full",
        "run --rm -v data:/x NONE busybox rm -r /x/a /x/sub",
        "run --rm -v data:/x NONE touch /x/.hidden",
        "run --rm -v data:/full NONE ls -a /full",
    ],
    "what a container leaves": [
        "run --name one -v /scratch -v data:/data FULL true",
        "volume ls -q",
        "container rm one",
        "volume ls -q",
        "run --name one -v /scratch -v data:/data FULL true",
        "container rm -v one",
        "volume ls -q",
        "run --rm -v /scratch -v more:/data FULL true",
        "volume ls -q",
        "volume rm data more",
        "volume ls -q",
    ],
    "volumes of another": [
        "create --name one -v data:/data:ro -v /full NONE true",
        "run --rm --volumes-from one NONE ls /full",
        "run --rm --volumes-from one NONE touch /full/new",
        "run --rm --volumes-from one NONE ls /full",
        "run --rm --volumes-from one NONE touch /data/new",
        "run --rm --volumes-from one:rw NONE touch /data/new",
        "run --rm --volumes-from one:ro NONE touch /full/newer",
        "create --name two --volumes-from one NONE ls /full",
        "volume rm data",
        "container rm -v one",
        "volume ls -q",
        "start -a two",
        "container rm -v two",
        "volume ls -q",
        "run --rm --volumes-from nobody NONE true",
    ],
    "who has the last word": [
        "run --rm -v data:/full FULL ls /full",
        "create --name one --tmpfs /full FULL true",
        "create --name two -v data:/full -v /full FULL true",
        "create --name three -v data:/full -v data:/full NONE true",
        "create --name four --volumes-from two -v other:/full FULL true",
        "volume ls -q",
        "create -v data:/full -v other:/full NONE true",
        "create --mount type=bind,source=/no/such,target=/x NONE true",
    ],
    "at two places": [
        "run --rm -v data:/new -v data:/full NONE ls /new /full",
        "run --rm -v data:/a/b -v other:/a NONE ls /a /a/b",
        "run --rm -v data:/link/x NONE ls /full",
        "run --rm -v data:/x NONE ls /x",
    ],
    "where a file is": [
        "create -v /file NONE true",
        "create -v /file/below NONE true",
        "volume ls -q",
    ],
}


class Side:
    """One of both programs."""

    def __init__(self, command: list[str], images: dict[str, str]) -> None:
        self._command = command
        self._images = images

    def do(self, line: str) -> tuple[bool, str]:
        """Whether it succeeded, and what it printed, without what chance chose."""
        words = [self._images.get(word, word) for word in line.split()]
        if words[0] in ("run", "create"):
            words[1:1] = ["--network", "none"]
        if words[0] == "create" and "storagedrivers" in self._command:
            words.insert(0, "container")
        done = subprocess.run(
            [*self._command, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        text = done.stdout + (done.stderr if line.startswith("create") else "")
        return done.returncode == 0, self._plain(text)

    @staticmethod
    def _plain(text: str) -> str:
        lines = text.splitlines()
        found = [re.sub("[0-9a-f]{64}", "*", line) for line in lines]
        return "\n".join(sorted(found))


@pytest.fixture
def both(daemons: Daemons, images: Image, storage: Storage) -> Iterator[tuple[Side, Side]]:
    """This program and Docker, with the same images."""
    changes = {"NONE": (), "FULL": ("VOLUME /full",)}
    for name, lines in changes.items():
        made = io.BytesIO(image_tar())
        storage.images.import_(made, name=name.lower(), changes=lines)
    cases = {"NONE": CASES[0], "FULL": next(one for one in CASES if one.option == "VOLUME")}
    assert cases["FULL"].text == "/full"
    with usable("runc"):
        yield (
            Side(command_line(storage), {name: name.lower() for name in changes}),
            Side(daemons.docker_command(), {name: images(case) for name, case in cases.items()}),
        )
    for container in storage.containers.ls():
        storage.containers.remove(container.id)
    for volume in storage.volumes.ls():
        storage.volumes.remove(volume.name)


@pytest.mark.parametrize("story", STORIES)
def test_the_same_commands(both: tuple[Side, Side], story: str) -> None:
    """Both succeed and fail in the same places, and print the same; also what is wrong."""
    ours, dockers = both
    for line in STORIES[story]:
        mine, theirs = ours.do(line), dockers.do(line)
        assert mine[0] == theirs[0], (line, mine, theirs)
        if mine[0]:
            assert mine == theirs, line
        elif line.startswith("create") and "lstat" not in theirs[1]:
            assert _sentence(theirs[1]) in mine[1], line


def _sentence(text: str) -> str:
    """What Docker says is wrong, with paths as they are in the container."""
    return re.sub(r"\S+/merged", "", text.partition("from daemon: ")[2].splitlines()[0])
