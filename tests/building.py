"""RUNs in tests: a store with a layer to begin on, and what a command did."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from contained import shown
from running import rootfs_tar
from stored import clean

from storagedrivers.build.request import Parts
from storagedrivers.build.run_mounts import RunMount, parse
from storagedrivers.build.run_step import RunStep
from storagedrivers.build.running import run
from storagedrivers.storage import Storage


class Ran(NamedTuple):
    """What a RUN came to.

    Attributes:
        out: what it wrote.
        changes: in its layer, as ``container diff`` prints them.
        layer: its id.
    """

    out: str
    changes: list[str]
    layer: str


class Runs:
    """Carries out RUNs, each on the layer that is given, in one lease.

    Attributes:
        base: a layer with busybox, /etc and users.
        bare: one with nothing but busybox.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.base = storage.layers.add(io.BytesIO(rootfs_tar())).id
        self.bare = storage.layers.add(io.BytesIO(_bare_tar())).id
        self.lease = storage.layers.leased()

    def parts(self) -> Parts:
        storage = self.storage
        return Parts(storage.layers, storage.images, storage.containers, storage.build_cache)

    def raw(
        self,
        *words: str,
        on: str | None = None,
        mounts: Sequence[str | RunMount] = (),
        output: Callable[[bytes], object] = len,
        network: str = "none",
        script: tuple[str, str] | None = None,
        stop: Any = None,
        **config: Any,
    ) -> str:
        """Run a program; the id of the layer, which is not sealed."""
        parsed = tuple(parse(one) if isinstance(one, str) else one for one in mounts)
        step = RunStep(on or self.base, config, words, parsed, network, script)
        return run(self.parts(), step, self.lease, output, stop=stop)

    def __call__(self, text: str, **more: Any) -> Ran:
        """Run a text in a shell, and seal the layer."""
        said: list[bytes] = []
        layer = self.raw("/bin/sh", "-c", text, output=said.append, **more)
        self.storage.layers.seal(layer, durability="none")
        changes = shown(self.storage.layers.changes(layer))
        return Ran(b"".join(said).decode(), changes, layer)

    def left(self) -> list[object]:
        """What RUNs have left that is no layer of theirs."""
        storage = self.storage
        storage.layers.close()
        known = {self.base, self.bare}
        known |= {row[0] for row in storage.database.rows("SELECT layer FROM leases")}
        found: list[object] = [one.id for one in storage.layers.ls() if one.id not in known]
        found += storage.database.rows("SELECT name, state FROM containers")
        for root in (storage.root, storage.run_root):
            if (root / "containers").exists():
                found += (root / "containers").iterdir()
        locks = (storage.root / "locks").iterdir()
        found += [one.name for one in locks if not one.name.startswith("lease-")]
        return [*found, *storage.layers.problems, *storage.layers.mounts()]


@contextmanager
def runs(
    directory: Path, driver: str = "overlay2", *, run_root: Path | None = None
) -> Iterator[Runs]:
    """A store; in the end everything in it goes."""
    root, run_root = directory / "root", run_root or directory / "run"
    with Storage.open(root=root, run_root=run_root, driver=driver) as storage:
        made = Runs(storage)
        with made.lease:
            yield made
            assert made.left() == []
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name)
        clean(storage)


def _bare_tar() -> bytes:
    """What busybox needs to run, and no directory that a container has."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(rootfs_tar())) as source,
        tarfile.open(fileobj=buffer, mode="w") as target,
    ):
        for entry in source:
            if entry.name.split("/")[0] not in ("etc", "tmp", "root", "srv"):
                content = source.extractfile(entry) if entry.isreg() else None
                target.addfile(entry, content)
    return buffer.getvalue()
