"""The same layer added, exported, compared and removed by us, by containers-storage, by GNU tar.

Whole processes, in turns, on tmpfs and on ext4 (in a file, loop mounted). The layers are those of
``fixtures.py``: a Debian root filesystem and 50,000 small files. What is exported must be, byte for
byte, what was added, and what is compared must name the same paths. Needs root, containers-storage,
tar, and what the fixtures need. ``--write-docs`` puts the figures and a chart into ``docs/``.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import NamedTuple

import filesystems
import fixtures
import pairwise
import report
import small
from filesystems import Filesystem
from fixtures import Fixture

from storagedrivers.linux import namespace

SECTION = "layers"
"""Of docs/performance.md."""

CHART = "layers.svg"

MEMORY = 100_000_000
"""Bytes that one of our processes may have in memory."""

OURS, THEIRS, TAR = "ours", "containers-storage", "GNU tar"

LIMITS: Mapping[tuple[str, str], float] = {
    ("add debian.tar, tmpfs", THEIRS): 1 / 6,
    ("add debian.tar, tmpfs", TAR): 2.5,
    ("add debian.tar.gz, tmpfs", THEIRS): 1 / 5,
    ("add debian.tar.gz, tmpfs", TAR): 1 / 1.5,
    ("export debian, tmpfs", THEIRS): 1 / 2,
}

_PLACES = ("tmpfs", "ext4")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    fixtures.add_option(parser)
    parser.add_argument("--rounds", type=int, default=9, help="of every layer (%(default)s)")
    parser.add_argument(
        "--layer", choices=[*fixtures.NAMES, "all"], default="all", help="which (%(default)s)"
    )
    parser.add_argument(
        "--place", choices=[*_PLACES, "all"], default="all", help="where (%(default)s)"
    )


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Take every layer through its life on every filesystem."""
    pairwise.require_root()
    layers = fixtures.NAMES if options.layer == "all" else (options.layer,)
    made = [fixtures.fixture(name, options.cache) for name in layers]
    namespace.make_mounts_private()
    comparisons = []
    with pairwise.working_directory(options.dir) as directory:
        programs = pairwise.programs(options.venv, directory)
        for place in _PLACES if options.place == "all" else (options.place,):
            for layer in made:
                print(f"measuring {layer.name} on {place}", file=sys.stderr)
                with _filesystem(place, directory, layer, options.rounds) as filesystem:
                    trial = _Trial(layer, place, filesystem, options.rounds)
                    comparisons += trial.run(programs)
    return comparisons


def document(comparisons: Sequence[pairwise.Comparison]) -> None:
    """Write the figures down."""
    report.write_table(SECTION, comparisons, chart=CHART)
    shown = [one for one in comparisons if "debian" in one.name]
    report.write_chart(CHART, "A Debian root filesystem as a layer", shown)


@contextmanager
def _filesystem(place: str, parent: Path, layer: Fixture, rounds: int) -> Iterator[Filesystem]:
    # On disk all copies stay to the end (see _Trial.run), and a file takes whole blocks.
    one, copies = layer.size + 4096 * layer.entries, 8 * (rounds + 1)
    directory = parent / f"{layer.name}-{place}"
    directory.mkdir()
    if place == "tmpfs":
        with filesystems.in_memory(directory, 8 * one) as filesystem:
            yield filesystem
    else:
        inodes = copies * (layer.entries + 1000)
        with filesystems.on_disk(place, directory, copies * one, inodes=inodes) as filesystem:
            yield filesystem


# Those who are compared


class _Side:
    """Says which commands do the work. Layers are named by who adds them, say ``3-tar.gz``."""

    name: str

    def add(self, layer: str, tar: Path) -> list[str]:
        """Add a layer."""
        raise NotImplementedError

    def remove(self, layer: str) -> list[str]:
        """Remove it."""
        raise NotImplementedError

    def tree(self, layer: str) -> Path:
        """Where its files are, afterwards."""
        raise NotImplementedError

    def export(self, layer: str) -> list[str] | None:
        """Write it to standard output as it came, if this side can."""

    def changes(self, layer: str) -> list[str] | None:
        """Print its changes, if this side can."""

    def prepare(self, layer: str) -> None:
        """What adding needs, outside of the time."""

    def added(self, layer: str, printed: str) -> None:
        """Take note of what adding printed."""


class _Ours(_Side):
    """``storagedrivers``, with DiffIDs verified.

    Every layer in a store of its own, which has another one already: a store takes the same layer
    only once.
    """

    name = OURS

    def __init__(self, directory: Path, programs: Path, plain: Path) -> None:
        self._directory = directory
        self._program = str(programs / "storagedrivers")
        self._diff_id = digest(plain)
        self._ids: dict[str, str] = {}

    def prepare(self, layer: str) -> None:
        self._root(layer).mkdir(parents=True)
        tar = self._root(layer) / "first.tar"
        tar.write_bytes(small.tar(0))
        command = self._command(layer, "add", str(tar))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def add(self, layer: str, tar: Path) -> list[str]:
        return self._command(layer, "add", str(tar), "--diff-id", self._diff_id)

    def added(self, layer: str, printed: str) -> None:
        self._ids[layer] = printed.strip()

    def tree(self, layer: str) -> Path:
        return next(self._root(layer).glob(f"store/*/{self._ids[layer]}"))

    def export(self, layer: str) -> list[str]:
        return self._command(layer, "export", self._ids[layer])

    def changes(self, layer: str) -> list[str]:
        return self._command(layer, "changes", self._ids[layer])

    def remove(self, layer: str) -> list[str]:
        return self._command(layer, "rm", self._ids[layer])

    def _root(self, layer: str) -> Path:
        return self._directory / layer

    def _command(self, layer: str, *words: str) -> list[str]:
        root = self._root(layer)
        options = ("--root", str(root / "store"), "--run-root", str(root / "run"))
        return [self._program, *options, "layer", *words]


class _ContainersStorage(_Side):
    """``containers-storage`` with overlay, in directories of its own."""

    name = THEIRS

    def __init__(self, directory: Path) -> None:
        self._graph = directory / "graph"
        self._command = ["containers-storage", "--storage-driver", "overlay"]
        self._command += ["--graph", str(self._graph), "--run", str(directory / "run")]

    def prepare(self, layer: str) -> None:
        command = [*self._command, "create-layer", "--id", layer]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def add(self, layer: str, tar: Path) -> list[str]:
        return [*self._command, "applydiff", "-f", str(tar), layer]

    def tree(self, layer: str) -> Path:
        return self._graph / "overlay" / layer

    def export(self, layer: str) -> list[str]:
        return [*self._command, "diff", "-u", layer]

    def changes(self, layer: str) -> list[str]:
        return [*self._command, "changes", layer]

    def remove(self, layer: str) -> list[str]:
        return [*self._command, "delete-layer", layer]


class _Tar(_Side):
    """GNU tar into a new directory; ``rm -rf`` removes it."""

    name = TAR

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self, layer: str) -> None:
        self.tree(layer).mkdir(parents=True)

    def add(self, layer: str, tar: Path) -> list[str]:
        how = "-xpzf" if tar.suffix == ".gz" else "-xpf"
        return [*fixtures.TAR, "-C", str(self.tree(layer)), how, str(tar)]

    def tree(self, layer: str) -> Path:
        return self._directory / layer

    def export(self, layer: str) -> list[str]:
        return [*fixtures.TAR, "--sort=name", "-C", str(self.tree(layer)), "-cf", "-", "."]

    def remove(self, layer: str) -> list[str]:
        return ["rm", "-rf", str(self.tree(layer))]


# One layer on one filesystem


class _Finished(NamedTuple):
    seconds: float
    memory: int  # bytes, at most


class _Trial:
    """Takes one layer, on one filesystem, through all that is measured."""

    def __init__(self, layer: Fixture, place: str, filesystem: Filesystem, rounds: int) -> None:
        self._layer = layer
        self._place = place
        self._filesystem = filesystem
        self._rounds = range(rounds + 1)  # the first one warms up
        self._times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._memory: dict[str, int] = defaultdict(int)
        self._faults: dict[str, set[str]] = defaultdict(set)
        self._sides: tuple[_Side, ...] = ()

    def run(self, programs: Path) -> list[pairwise.Comparison]:
        """Measure.

        On a disk layers are removed only after the last one was added: ext4 is slow for minutes
        where many inodes were deleted. In memory each round gives back what it took.
        """
        at = self._filesystem.mountpoint
        self._sides = (
            _Ours(at / OURS, programs, self._layer.plain),
            _ContainersStorage(at / THEIRS),
            _Tar(at / "tar"),
        )
        tars = (self._layer.plain, self._layer.gzip)
        for number in self._rounds:
            for tar in tars:
                self._add_and_look(f"{number}-{tar.suffix[1:]}", tar)
                if self._place == "tmpfs":
                    self._remove(f"{number}-{tar.suffix[1:]}", tar)
            if self._place != "tmpfs":
                self._forget(number, tars)
        if self._place != "tmpfs":
            for number in self._rounds:
                for tar in tars:
                    self._remove(f"{number}-{tar.suffix[1:]}", tar)
        return list(self._comparisons())

    def _add_and_look(self, layer: str, tar: Path) -> None:
        what = f"add {self._layer.name}{tar.name.removeprefix('layer')}"
        for side in self._sides:
            side.prepare(layer)
            printed = self._timed(what, side, side.add(layer, tar))
            side.added(layer, printed.read_text())
        if tar != self._layer.plain:
            return
        for side in self._sides:
            if command := side.export(layer):
                out = self._timed(f"export {self._layer.name}", side, command)
                # GNU tar keeps no headers: it writes a tar of its own.
                if side.name != TAR and not filecmp.cmp(out, tar, shallow=False):
                    self._faults[f"export {self._layer.name}"].add(f"not as it came: {side.name}")
        self._compare(layer)

    def _compare(self, layer: str) -> None:
        what = f"changes of {self._layer.name}"
        found = {}
        for side in self._sides:
            if command := side.changes(layer):
                lines = self._timed(what, side, command).read_text().splitlines()
                found[side.name] = {line.split(" ", 1)[1].strip('"') for line in lines} - {"/"}
        if found[OURS] != found[THEIRS]:
            few = sorted(found[OURS] ^ found[THEIRS])[:3]
            self._faults[what].add(f"the sides name different paths, such as {few}")

    def _remove(self, layer: str, tar: Path) -> None:
        for side in self._sides:
            command = side.remove(layer)
            if tar == self._layer.plain:
                self._timed(f"remove {self._layer.name}", side, command)
            else:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _forget(self, number: int, tars: Sequence[Path]) -> None:
        self._filesystem.write_back()
        for side in self._sides:
            for tar in tars:
                filesystems.forget_tree(side.tree(f"{number}-{tar.suffix[1:]}"))

    def _timed(self, what: str, side: _Side, command: Sequence[str]) -> Path:
        """Run a command on a filesystem with nothing left to write; the file with its output."""
        self._filesystem.write_back()
        out = self._filesystem.mountpoint / f"printed-{side.name}"
        out.unlink(missing_ok=True)
        finished = run_process(command, out)
        self._times[what][side.name].append(finished.seconds)
        if side.name == OURS:
            self._memory[what] = max(self._memory[what], finished.memory)
        return out

    def _comparisons(self) -> Iterator[pairwise.Comparison]:
        for what, times in self._times.items():
            name = f"{what}, {self._place}"
            faults = set(self._faults[what])
            if self._memory[what] >= MEMORY:
                faults.add(f"{self._memory[what] / 1e6:.0f} MB in memory")
            for peer in (side.name for side in self._sides if side.name in times):
                if peer != OURS:
                    yield pairwise.Comparison(
                        name=name,
                        peer_name=peer,
                        ours=tuple(times[OURS][1:]),
                        peer=tuple(times[peer][1:]),
                        limit=LIMITS.get((name, peer), inf),
                        faults=tuple(sorted(faults)),
                        remarks=(f"{self._memory[what] / 1e6:.0f} MB in memory at most",),
                    )


def run_process(command: Sequence[str], output: Path) -> _Finished:
    """Run a command to its end, standard output going to a file.

    ``ru_maxrss`` of a child counts this process too, as it was when the child was started: it is
    kept small.
    """
    with output.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, env=pairwise.clean_environment()
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    return _Finished(seconds, usage.ru_maxrss * 1024)


def digest(path: Path) -> str:
    """The DiffID of a plain tar."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
