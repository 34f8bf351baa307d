"""Containers of a Debian image: made, committed, kept and gone back to, by us and by Docker.

We work in this process; Docker by its command line, and where it is said by HTTP on a connection
that is kept. All on one ext4 (in a file, loop mounted). What is written to a container is random,
written through its mount, and on the disk before anything is timed. Then 1,000 containers of one
image on ext4 and on btrfs, with a small file in each. Needs root, dockerd, containerd, and what
``fixtures.py`` needs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path

import filesystems
import fixtures
import pairwise
import peers
import report
from filesystems import Filesystem
from peers import Daemons

from storagedrivers.linux import btrfs, namespace
from storagedrivers.storage import Storage

SECTION = "containers"
"""Of docs/performance.md."""

CHART = "containers.svg"

CLIENT, HTTP, COMMIT = "docker create", "docker create, HTTP", "docker commit"

CREATE = 1 / 10
COMMITTED = 1 / 5
KEPT = 1 / 100
SAME = 1.3
"""Limits: create and commit beside Docker's; keeping and going back beside its commit; what must
not depend on size or number.
"""

SMALL = 1024  # bytes

MANY = 1_000

DISK = {"overlay2": 60_000_000 // MANY, "btrfs-snapshot": 160 * 1024}
"""Bytes that a container with a small file may take."""

_BARE = 100  # snapshots beside which containers on btrfs are measured
_ON = {"overlay2": "ext4", "btrfs-snapshot": "btrfs"}

_ENDS = 10  # the first and the last so many are compared


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    fixtures.add_option(parser)
    parser.add_argument("--creates", type=int, default=40, help="of a container (%(default)s)")
    parser.add_argument("--commits", type=int, default=7, help="of a container (%(default)s)")
    parser.add_argument(
        "--written", type=int, default=1 << 30, help="bytes, in a container (%(default)s)"
    )


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Work beside Docker, then alone on many containers."""
    pairwise.require_root()
    peers.require()
    namespace.make_mounts_private()
    comparisons = []
    with pairwise.working_directory(options.dir) as directory:
        archive = peers.saved_image(options.cache, directory)
        with _filesystem("ext4", directory, 16 * options.written + (8 << 30)) as filesystem:
            with (
                peers.daemons(filesystem.mountpoint / "daemons") as daemons,
                _opened(filesystem.mountpoint, "overlay2", archive) as storage,
            ):
                daemons.docker("load", "--input", archive)
                written = _write_random(directory / "random", options.written)
                trial = _Trial(storage, daemons, filesystem, written)
                comparisons += trial.create(options.creates)
                comparisons += trial.keep(options.commits)
        for driver, kind in _ON.items():
            with _filesystem(kind, directory, 8 << 30) as filesystem:
                comparisons += _many(archive, driver, filesystem)
    return comparisons


def document(comparisons: list[pairwise.Comparison]) -> None:
    """Write the figures down."""
    notes = [f"With {text} on the disk." for one in comparisons for text in one.remarks]
    report.write_pairs(SECTION, comparisons, chart=CHART, notes=notes)
    shown = [
        replace(one, peer_name="Docker") for one in comparisons if one.peer_name in (CLIENT, COMMIT)
    ]
    report.write_chart(CHART, "Containers, one with 1 GiB written to it", shown)


@contextmanager
def _filesystem(kind: str, parent: Path, size: int) -> Iterator[Filesystem]:
    directory = parent / f"{kind}-{os.urandom(4).hex()}"
    directory.mkdir()
    with filesystems.on_disk(kind, directory, size) as filesystem:
        yield filesystem


def _opened(directory: Path, driver: str, archive: Path) -> Storage:
    storage = Storage.open(root=directory / "root", run_root=directory / "run", driver=driver)
    storage.images.load(str(archive))
    return storage


def _write_random(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(size - start, 1 << 20)))
    return path


# Beside Docker


class _Trial:
    """Both with the same image, on one filesystem."""

    def __init__(
        self, storage: Storage, daemons: Daemons, filesystem: Filesystem, written: Path
    ) -> None:
        self._storage = storage
        self._daemons = daemons
        self._filesystem = filesystem
        self._written = written
        self._size = written.stat().st_size

    def create(self, rounds: int) -> list[pairwise.Comparison]:
        """Containers with nothing in them."""
        connection = self._daemons.connection()
        times = pairwise.take_turns(
            {
                "ours": lambda _: self._storage.containers.create(peers.IMAGE),
                CLIENT: lambda _: self._daemons.docker("create", "--network", "none", peers.IMAGE),
                HTTP: lambda _: peers.create_by_http(connection, peers.IMAGE),
            },
            rounds=rounds,
            before=self._filesystem.write_back,
        )
        connection.close()
        for container in self._storage.containers.ls():
            self._storage.containers.remove(container.id)
        return [
            pairwise.Comparison(
                name="create a container",
                peer_name=peer,
                ours=times["ours"],
                peer=times[peer],
                limit=limit,
            )
            for peer, limit in ((CLIENT, CREATE), (HTTP, inf))
        ]

    def keep(self, rounds: int) -> list[pairwise.Comparison]:
        """Containers with much and with little in them, kept in every way."""
        ways: dict[str, Callable[[int], float]] = {
            "commit": self._commit,
            "checkpoint": self._checkpoint,
            "rollback": self._rollback,
            "fork": self._fork,
        }
        times: dict[tuple[str, int], list[float]] = defaultdict(list)
        theirs = []
        for number in range(rounds + 1):
            print(f"keeping what was written, round {number}", file=sys.stderr)
            for way, work in ways.items():
                for size in (self._size, SMALL):
                    times[way, size].append(work(size))
            theirs.append(self._commit_by_docker())
        found = []
        for way in ways:
            much, little = (tuple(times[way, size][1:]) for size in (self._size, SMALL))
            name = f"{way}, {self._size >> 20} MiB written"
            limit = COMMITTED if way == "commit" else KEPT
            found.append(
                pairwise.Comparison(
                    name=name, peer_name=COMMIT, ours=much, peer=tuple(theirs[1:]), limit=limit
                )
            )
            if way != "commit":
                found.append(
                    pairwise.Comparison(
                        name=name, peer_name="1 KiB written", ours=much, peer=little, limit=SAME
                    )
                )
        return found

    def _commit(self, size: int) -> float:
        container = self._containing(size)
        return self._timed(lambda: self._storage.containers.commit(container, "committed"))

    def _checkpoint(self, size: int) -> float:
        container = self._containing(size)
        return self._timed(lambda: self._storage.containers.checkpoint(container, "kept"))

    def _rollback(self, size: int) -> float:
        container = self._storage.containers.create(peers.IMAGE).id
        self._storage.containers.checkpoint(container, "kept")
        self._write(container, size)
        return self._timed(lambda: self._storage.containers.rollback(container, "kept"))

    def _fork(self, size: int) -> float:
        container = self._containing(size)
        return self._timed(lambda: self._storage.containers.fork(container))

    def _containing(self, size: int) -> str:
        container = self._storage.containers.create(peers.IMAGE).id
        self._write(container, size)
        return container

    def _write(self, container: str, size: int) -> None:
        with self._storage.containers.mounted(container) as root:
            with self._written.open("rb") as source, (root / "data").open("wb") as target:
                while target.tell() < size and (
                    data := source.read(min(1 << 20, size - target.tell()))
                ):
                    target.write(data)

    def _timed(self, work: Callable[[], object]) -> float:
        self._filesystem.write_back()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        for container in self._storage.containers.ls():
            self._storage.containers.remove(container.id)
        for image in self._storage.images.ls():
            if "docker.io/library/committed:latest" in image.names:
                self._storage.images.remove(image.id)
        return seconds

    def _commit_by_docker(self) -> float:
        run = self._daemons.docker_command("run", "--interactive", "--network", "none")
        with self._written.open("rb") as source:
            words = ("--name", "written", peers.IMAGE, "sh", "-c", "cat >/data")
            subprocess.run([*run, *words], stdin=source, check=True)
        self._filesystem.write_back()
        start = time.perf_counter()
        self._daemons.docker("commit", "written", "committed")
        seconds = time.perf_counter() - start
        self._daemons.docker("rm", "written")
        self._daemons.docker("rmi", "committed")
        return seconds


# Alone


def _many(archive: Path, driver: str, filesystem: Filesystem) -> Iterator[pairwise.Comparison]:
    """Make many containers; the last ones beside the first ones.

    To btrfs a snapshot costs the more, the more there are of one subvolume already, whoever makes
    it: there the last ones are beside as many bare snapshots of the same subvolume.
    """
    print(f"making {MANY} containers with {driver}", file=sys.stderr)
    times = []
    with _opened(filesystem.mountpoint, driver, archive) as storage:
        storage.containers.create(peers.IMAGE)  # and with it what all containers share
        before = _used(filesystem)
        made = []
        for _ in range(MANY):
            start = time.perf_counter()
            made.append(storage.containers.create(peers.IMAGE))
            times.append(time.perf_counter() - start)
        for container in made:
            with storage.containers.mounted(container.id) as root:
                (root / "etc/small").write_text("a small file\n")
        each = (_used(filesystem) - before) / MANY
        remarks = [f"{driver} a container with a small file in it takes {each / 1000:.1f} kB"]
        beside = ("the first ones", times[:_ENDS], SAME)
        if driver == "btrfs-snapshot":
            below = storage.layers.get(made[0].layer).parent
            source = storage.root / driver / str(below) / "sealed"
            bare, bytes_ = _bare_snapshots(source, filesystem)
            beside = ("bare snapshots", bare, inf)
            remarks.append(f"bare snapshots one with such a file takes {bytes_ / 1000:.1f} kB")
    yield pairwise.Comparison(
        name=f"create the last {_ENDS} of {MANY:,}, {driver}",
        peer_name=beside[0],
        ours=tuple(times[-_ENDS:]),
        peer=tuple(beside[1]),
        limit=beside[2],
        faults=(f"more than {DISK[driver] / 1000:.0f} kB each",) if each > DISK[driver] else (),
        remarks=tuple(remarks),
    )


def _bare_snapshots(source: Path, filesystem: Filesystem) -> tuple[list[float], float]:
    """The same by the system call alone: seconds of each, and bytes with a small file in it.

    None of them is left.
    """
    source_fd, parent_fd = (os.open(path, os.O_RDONLY) for path in (source, filesystem.mountpoint))
    before = _used(filesystem)
    times = []
    for number in range(_BARE):
        start = time.perf_counter()
        btrfs.create_snapshot(source_fd, parent_fd, f"bare-{number}", read_only=False)
        times.append(time.perf_counter() - start)
    for number in range(_BARE):
        (filesystem.mountpoint / f"bare-{number}/etc/small").write_text("a small file\n")
    each = (_used(filesystem) - before) / _BARE
    for number in range(_BARE):
        btrfs.delete_subvolume(parent_fd, f"bare-{number}")
    os.close(source_fd)
    os.close(parent_fd)
    return times[:_ENDS], each


def _used(filesystem: Filesystem) -> int:
    """Bytes in use; on btrfs with the second copies of its metadata."""
    filesystem.write_back()
    at = filesystem.mountpoint
    if filesystem.kind == "btrfs":
        words = ["btrfs", "filesystem", "df", "-b", str(at)]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        kinds = re.findall(r"^\w+, (\w+): total=\d+, used=(\d+)", shown, re.M)
        return sum(int(used) * (2 if profile == "DUP" else 1) for profile, used in kinds)
    status = os.statvfs(at)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
