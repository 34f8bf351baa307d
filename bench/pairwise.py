"""What the benchmarks share: pairwise timing, the verdict, a fresh venv, the entry point.

A benchmark is a module with ``configure(parser)`` and ``measure(options) -> comparisons``, and
``document(comparisons)`` where ``--write-docs`` writes its figures down. It runs the same work done
by us and by a peer in turns (ours, peer, ours, peer, …), so that a machine that slows down slows
both down. Nothing here knows what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout, which is what gets installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Times of the same work by us and by a peer, in the order they were taken.

    Attributes:
        name: what was done.
        peer_name: who did it beside us.
        ours: seconds.
        peer: seconds, one for each of ours.
        limit: what the ratio of medians may be; infinite where nothing is demanded.
        faults: what is wrong besides the time; any is a miss.
        remarks: what a reader may want to know.
    """

    name: str
    peer_name: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    limit: float = inf
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return median(self.ours) / median(self.peer)

    @property
    def ratio_of_minima(self) -> float:
        """Of the best times: what is left when the machine disturbs nothing."""
        return min(self.ours) / min(self.peer)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the ratios of single pairs."""
        ratios = [one / other for one, other in zip(self.ours, self.peer, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        return low, high

    @property
    def passed(self) -> bool:
        """Whether the limit is kept and nothing else is wrong."""
        return self.ratio <= self.limit and not self.faults

    def as_document(self) -> dict[str, Any]:
        """For ``--json``; times in seconds."""
        return {
            "name": self.name,
            "peer": self.peer_name,
            "pairs": len(self.ours),
            "ours_median": median(self.ours),
            "peer_median": median(self.peer),
            "ours_min": min(self.ours),
            "peer_min": min(self.peer),
            "ratio": self.ratio,
            "ratio_of_minima": self.ratio_of_minima,
            "quartiles": list(self.quartiles),
            "limit": self.limit if isfinite(self.limit) else None,
            "passed": self.passed,
            "faults": list(self.faults),
            "remarks": list(self.remarks),
        }


class Benchmark(Protocol):
    """What a benchmark's module has."""

    __doc__: str | None

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of its own."""

    def measure(self, options: argparse.Namespace) -> list[Comparison]:
        """Do the work."""


# Timing


def take_turns(
    contenders: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    before: Callable[[], object] = lambda: None,
    after: Callable[[str], object] = lambda _: None,
) -> dict[str, tuple[float, ...]]:
    """Time each contender once a round, always in the same order.

    Args:
        contenders: by name; each is told the number of the round, which is never given twice.
        rounds: how many are timed.
        warm_up: how many go before them.
        before: done before each run, outside of the time.
        after: done after each run with the contender's name, outside of the time.

    Returns:
        Seconds of every round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, work in contenders.items():
            before()
            start = time.perf_counter()
            work(number)
            times[name].append(time.perf_counter() - start)
            after(name)
    return {name: tuple(taken[warm_up:]) for name, taken in times.items()}


# Places to work in


@contextmanager
def working_directory(parent: str | None) -> Iterator[Path]:
    """A new directory below *parent* (or the system's place for such), removed at the end."""
    with tempfile.TemporaryDirectory(prefix="storagedrivers-bench-", dir=parent) as name:
        yield Path(name).resolve()


def clean_environment() -> dict[str, str]:
    """The environment without what changes how Python starts, such as PYTHONDONTWRITEBYTECODE."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def programs(venv_directory: Path | None, directory: Path) -> Path:
    """The ``bin`` of a venv: of the one that is there, or of a new one below *directory*."""
    return venv_directory.resolve() / "bin" if venv_directory else make_venv(directory / "venv")


def make_venv(directory: Path) -> Path:
    """Make a venv with this checkout installed as users get it, bytecode compiled; its ``bin``."""
    venv.create(directory, with_pip=True)
    binaries = directory / "bin"
    packages = next(directory.glob("lib/python*/site-packages"))
    for words in (["pip", "install", "--quiet", str(PROJECT)], ["compileall", "-q", str(packages)]):
        subprocess.run(
            [str(binaries / "python"), "-m", *words],
            env=clean_environment(),
            check=True,
            stdout=sys.stderr,
        )
    return binaries


# The program


def run(benchmarks: Sequence[Benchmark], description: str | None) -> int:
    """Run benchmarks as a program; returns its exit code: 1 where a limit is missed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", help="work below this directory, on the filesystem to measure")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.add_argument(
        "--venv", type=Path, help="a venv that has the project installed, instead of a new one"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="put the figures into docs/performance.md"
    )
    for benchmark in benchmarks:
        benchmark.configure(parser)
    options = parser.parse_args()
    comparisons = []
    for benchmark in benchmarks:
        measured = benchmark.measure(options)
        comparisons += measured
        if options.write_docs and hasattr(benchmark, "document"):
            benchmark.document(measured)
    if options.json:
        print(json.dumps(_document(comparisons), indent=2))
    else:
        _print_table(comparisons)
    return 0 if all(one.passed for one in comparisons) else 1


def require_root() -> None:
    """End the program where mounts are not to be had."""
    if os.geteuid() != 0:
        sys.exit("this benchmark mounts, so it must be run as root")


def _document(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "schema": 1,
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "processors": os.cpu_count(),
        "passed": all(one.passed for one in comparisons),
        "comparisons": [one.as_document() for one in comparisons],
    }


_COLUMNS = ("what", "ours", "peer", "ratio", "middle half", "of minima", "limit", "verdict")


def _print_table(comparisons: Sequence[Comparison]) -> None:
    rows = [_COLUMNS, *map(_row, comparisons)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    for one in comparisons:
        print(f"\n{one.name}: {len(one.ours)} pairs, against {one.peer_name}")
        for text in (*(f"FAULT: {fault}" for fault in one.faults), *one.remarks):
            print(f"  {text}")


def _row(one: Comparison) -> tuple[str, ...]:
    low, high = one.quartiles
    return (
        one.name,
        duration(median(one.ours)),
        duration(median(one.peer)),
        number(one.ratio),
        f"{number(low)}–{number(high)}",
        number(one.ratio_of_minima),
        limit_text(one.limit),
        "ok" if one.passed else "MISSED",
    )


def limit_text(limit: float) -> str:
    """A limit, or a dash for none."""
    return number(limit) if isfinite(limit) else "–"


def number(ratio: float) -> str:
    """Two digits behind the point, or the first two that are not zero."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def duration(seconds: float) -> str:
    """Three digits with a unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
