"""One layer added, found, mounted and removed, in stores of 10, 1,000 and 10,000 layers.

In one process, with the same small layer in turns in all stores, on tmpfs and on ext4 (in a file,
loop mounted). The stores are filled without waiting for the disk; what is measured waits as it does
by default. The store of 10 layers is the peer. Needs root.
"""

from __future__ import annotations

import argparse
import gc
import io
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filesystems
import pairwise
import report
import small

from storagedrivers.linux import namespace
from storagedrivers.storage import Storage

LIMIT = 1.3

SECTION = "scale"
"""Of docs/performance.md."""

SIZES = (10, 1_000, 10_000)

_PLACES = ("tmpfs", "ext4")

_DISK = 8 << 30  # bytes; the image is sparse
_MEMORY = 2 << 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--repeats", type=int, default=200, help="in each store (%(default)s)")


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Work in all stores in turns, on each filesystem."""
    pairwise.require_root()
    namespace.make_mounts_private()
    comparisons = []
    for place in _PLACES:
        with pairwise.working_directory(options.dir) as directory:
            with _filesystem(place, directory) as filesystem:
                comparisons += _measure_on(place, filesystem, options.repeats)
    return comparisons


def document(comparisons: list[pairwise.Comparison]) -> None:
    """Write the figures down."""
    report.write_table(SECTION, comparisons)


@contextmanager
def _filesystem(place: str, directory: Path) -> Iterator[filesystems.Filesystem]:
    if place == "tmpfs":
        with filesystems.in_memory(directory, _MEMORY) as filesystem:
            yield filesystem
    else:
        with filesystems.on_disk(place, directory, _DISK) as filesystem:
            yield filesystem


def _measure_on(
    place: str, filesystem: filesystems.Filesystem, repeats: int
) -> list[pairwise.Comparison]:
    stores = {size: _filled(filesystem.mountpoint / str(size), size) for size in SIZES}
    filesystem.write_back()
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    gc.disable()
    try:
        for number in range(repeats + 1):
            tar = small.tar(-1 - number)
            for size, store in _rotated(stores, number):
                for operation, seconds in _live(store, tar):
                    times[operation][size].append(seconds)
    finally:
        gc.enable()
        for store in stores.values():
            store.close()
    return [
        pairwise.Comparison(
            name=f"{operation} among {size:,}, {place}",
            peer_name=f"among {SIZES[0]}",
            ours=tuple(taken[size][1:]),
            peer=tuple(taken[SIZES[0]][1:]),
            limit=LIMIT,
        )
        for operation, taken in times.items()
        for size in SIZES[1:]
    ]


def _rotated(stores: dict[int, Storage], number: int) -> list[tuple[int, Storage]]:
    """The stores, another one first each time: the first one pays for what was left to be done."""
    start = number % len(stores)
    items = list(stores.items())
    return items[start:] + items[:start]


def _filled(directory: Path, size: int) -> Storage:
    """A store with layers, a tenth of them above another one."""
    print(f"filling a store with {size} layers", file=sys.stderr)
    store = Storage.open(root=directory / "root", run_root=directory / "run", driver="overlay2")
    base = None
    for number in range(size):
        parent = base if number % 10 == 1 else None
        layer = store.layers.add(io.BytesIO(small.tar(number)), parent=parent, durability="none")
        base = layer.id if number % 10 == 0 else base
    return store


def _live(store: Storage, tar: bytes) -> Iterator[tuple[str, float]]:
    """The life of one layer: what was done, and the seconds that it took."""
    layers = store.layers
    start = time.perf_counter()
    layer = layers.add(io.BytesIO(tar))
    yield "add", time.perf_counter() - start

    start = time.perf_counter()
    for reference in (layer.id, layer.id[:12], str(layer.diff_id), str(layer.chain_id)):
        layers.get(reference)
    yield "find", time.perf_counter() - start

    start = time.perf_counter()
    layers.mount(layer.id)
    yield "mount", time.perf_counter() - start

    start = time.perf_counter()
    layers.unmount(layer.id)
    yield "unmount", time.perf_counter() - start

    start = time.perf_counter()
    layers.remove(layer.id)
    yield "remove", time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
