"""vfs-copy: every layer is a whole tree, a copy of the one below. Works anywhere, at a price.

::

    <home>/<layer id>/fs/        the whole tree
    <home>/<layer id>/sealed     there once the layer is read-only

On a filesystem with reflinks the copy shares its contents with the original and costs inodes and
time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.driver import Capability, Mount, ProbeResult, StorageDriver, bind
from storagedrivers.errors import ReadOnlyError
from storagedrivers.linux import copy, holders

if TYPE_CHECKING:
    from storagedrivers.driver import HostFacts


class VfsCopy(StorageDriver):
    """Layers as full copies."""

    name = "vfs-copy"
    aliases = ("vfs",)

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        """Always yes: copying needs nothing but a filesystem."""
        reflink = host.graph_root.reflink
        evidence = {"reflink": {True: "yes", False: "no", None: "unknown"}[reflink]}
        capabilities = {Capability.RENAME_LOWER_DIRECTORY, Capability.SHARED_LOWER_LINKS}
        if reflink:
            capabilities.add(Capability.REFLINK)
            price = "contents are shared by reflink, so a layer costs inodes and time but few bytes"
        else:
            price = "every layer is a full copy of all layers below it"
        return ProbeResult.yes(
            f"copies work on any filesystem; here {price}",
            capabilities=frozenset(capabilities),
            evidence=evidence,
            predicted=host.recorded,
        )

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        """Copy the nearest lower."""
        self.refuse_size(size)
        self.require(*lowers)
        with self.new_layer(layer) as path:
            root = path / "fs"
            root.mkdir(mode=0o755)
            if lowers:
                copy.copy_tree(self._root(lowers[0]), root)
            else:
                root.chmod(0o755)  # whatever the umask

    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        """A bind mount of the tree."""
        self.require(layer, *lowers)
        if not read_only and self._seal_mark(layer).exists():
            raise ReadOnlyError(f"layer {layer} is sealed", resolution="create a layer above it")
        return (bind(self._root(layer), read_only=read_only),)

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        """Mark the layer, once nobody has its tree mounted or open for writing."""
        self.require(layer)
        mark = self._seal_mark(layer)
        if mark.exists():
            return
        self.refuse_if_used(layer, holders.find_writers(self._root(layer)))
        mark.touch(mode=0o400)

    def seal_new(self, layer: str, lowers: Sequence[str]) -> None:
        """Mark the layer."""
        self.require(layer)
        self._seal_mark(layer).touch(mode=0o400)

    def _root(self, layer: str) -> Path:
        return Path(self.directory_in(layer, "fs"))

    def _seal_mark(self, layer: str) -> Path:
        return self.layer_path(layer) / "sealed"
