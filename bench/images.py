"""A Debian image that Docker saved, loaded by us, by ``docker load`` and by ``ctr image import``.

Whole processes, in turns, each time into a store that has nothing in it, all on one filesystem:
tmpfs, and ext4 (in a file, loop mounted). The peers do not wait until what they unpacked has
reached the disk; ours does, unless it is told not to: on ext4 it is measured both ways. Then, in
one process, the same archive a second time under another name: its peer is the first time. Needs
root, dockerd, containerd, and what ``fixtures.py`` needs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import filesystems
import fixtures
import layers
import pairwise
import peers
import report
from filesystems import Filesystem

from storagedrivers.linux import namespace
from storagedrivers.storage import Storage

SECTION = "images"
"""Of docs/performance.md."""

CHART = "images.svg"

OURS, NOT_WAITING = "ours", "ours, not waiting"

DOCKER, CONTAINERD = "docker load", "ctr image import"

LOAD, AGAIN = "load a Debian image", "load it again, another name"

FIRST, SECOND = "the first time", "the second time"

LIMITS: Mapping[str, float] = {DOCKER: 1 / 4, CONTAINERD: 1 / 4, FIRST: 0.05}

_WAYS: Mapping[str, tuple[str, ...]] = {OURS: (), NOT_WAITING: ("--durability", "none")}

_PLACES = ("tmpfs", "ext4")

_ROOM = 2 << 30  # bytes that a round needs: five copies, of which two are the peers' archives


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    fixtures.add_option(parser)
    parser.add_argument("--loads", type=int, default=5, help="of the image (%(default)s)")


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Load the image by all in turns."""
    pairwise.require_root()
    peers.require()
    namespace.make_mounts_private()
    comparisons = []
    with pairwise.working_directory(options.dir) as directory:
        programs = pairwise.programs(options.venv, directory)
        for place in _PLACES:
            with _filesystem(place, directory, options.loads) as filesystem:
                archive = peers.saved_image(options.cache, filesystem.mountpoint)
                trial = _Trial(archive, place, filesystem, programs)
                for number in range(options.loads + 1):
                    print(f"loading on {place}, round {number}", file=sys.stderr)
                    trial.load_by_all(number)
                    trial.load_twice(number)
                comparisons += trial.comparisons()
    return comparisons


@contextmanager
def _filesystem(place: str, parent: Path, rounds: int) -> Iterator[Filesystem]:
    directory = parent / place
    directory.mkdir()
    if place == "tmpfs":
        with filesystems.in_memory(directory, _ROOM * 3) as filesystem:
            yield filesystem
    else:
        with filesystems.on_disk(place, directory, _ROOM * (rounds + 3)) as filesystem:
            yield filesystem


def document(comparisons: list[pairwise.Comparison]) -> None:
    """Write the figures down."""
    report.write_pairs(SECTION, comparisons, chart=CHART)
    loads = [one for one in comparisons if one.name.startswith(LOAD)]
    report.write_chart(CHART, "A Debian image, saved by Docker", loads)


class _Trial:
    """Loads one archive, on one filesystem. On a disk what was loaded stays: see ``layers.py``."""

    def __init__(self, archive: Path, place: str, filesystem: Filesystem, programs: Path) -> None:
        self._archive = archive
        self._place = place
        self._filesystem = filesystem
        self._program = str(programs / "storagedrivers")
        self._times: dict[str, list[float]] = defaultdict(list)
        self._memory = 0
        self._faults: set[str] = set()
        self._ways = {OURS: ()} if place == "tmpfs" else _WAYS

    def load_by_all(self, number: int) -> None:
        """One round."""
        at = self._filesystem.mountpoint / str(number)
        with peers.daemons(at / "daemons") as daemons:
            load = ("image", "load", "--input", str(self._archive))
            found = set()
            for way, (side, words) in enumerate(self._ways.items()):
                self._timed(side, [*self._ours(at / f"ours-{way}"), *load, *words])
                found.add(self._printed(side).read_text().strip())
            self._timed(DOCKER, daemons.docker_command("load", "--input", self._archive))
            found.add(daemons.docker_inspect(peers.IMAGE)["Id"])
            self._timed(CONTAINERD, daemons.ctr_command("image", "import", self._archive))
            if len(found) != 1:
                self._faults.add("the sides see different images")
        self._forget(at)

    def _ours(self, at: Path) -> list[str]:
        """Our command, with a store that is made already, as the daemons run already."""
        places = ("--root", str(at / "root"), "--run-root", str(at / "run"), "--driver", "overlay2")
        Storage.open(root=at / "root", run_root=at / "run", driver="overlay2").close()
        return [self._program, *places]

    def _timed(self, side: str, command: list[str]) -> None:
        self._filesystem.write_back()
        finished = layers.run_process(command, self._printed(side))
        self._times[side].append(finished.seconds)
        if side in self._ways:
            self._memory = max(self._memory, finished.memory)

    def _printed(self, side: str) -> Path:
        return self._filesystem.mountpoint / f"printed by {side}"

    def _forget(self, directory: Path) -> None:
        if self._place == "tmpfs":
            shutil.rmtree(directory)

    def load_twice(self, number: int) -> None:
        """Under two names, in this process."""
        at = self._filesystem.mountpoint / f"twice-{number}"
        with Storage.open(root=at / "root", run_root=at / "run", driver="overlay2") as storage:
            self._filesystem.write_back()
            for turn, name in ((FIRST, None), (SECOND, "another/name:tag")):
                start = time.perf_counter()
                (image,) = storage.images.load(str(self._archive), name=name)
                self._times[turn].append(time.perf_counter() - start)
            if len(storage.images.get(image.id).names) != 2:
                self._faults.add("the image has not both names")
        self._forget(at)

    def comparisons(self) -> list[pairwise.Comparison]:
        """What was measured, but for the first round."""
        if self._memory >= layers.MEMORY:
            self._faults.add(f"{self._memory / 1e6:.0f} MB in memory")
        loads = [
            (LOAD if side == OURS else f"{LOAD}, not waiting for the disk", side, peer)
            for side in self._ways
            for peer in (DOCKER, CONTAINERD)
        ]
        return [
            pairwise.Comparison(
                name=f"{name}, {self._place}",
                peer_name=peer,
                ours=tuple(self._times[ours][1:]),
                peer=tuple(self._times[peer][1:]),
                limit=LIMITS[peer],
                faults=tuple(sorted(self._faults)),
                remarks=(f"{self._memory / 1e6:.0f} MB in memory at most",),
            )
            for name, ours, peer in (*loads, (AGAIN, SECOND, FIRST))
        ]


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
