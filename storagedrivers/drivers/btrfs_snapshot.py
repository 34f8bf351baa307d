"""btrfs-snapshot: every layer is a subvolume, a snapshot of the one below.

::

    <home>/<layer id>/fs         a subvolume that may be written to
    <home>/<layer id>/sealed     a read-only snapshot of it, once it is sealed; then fs is gone

Sealing takes a read-only snapshot instead of setting the flag on the subvolume: a descriptor that
was opened for writing before goes on writing to a subvolume that was made read-only (seen on Linux
6.18).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.driver import (
    Capability,
    Flaw,
    FlawKind,
    Mount,
    ProbeResult,
    Reason,
    StorageDriver,
    bind,
    failed_trial,
    kernel_obstacle,
)
from storagedrivers.errors import (
    DriverUnsupportedError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
)
from storagedrivers.linux import btrfs, holders, tree
from storagedrivers.linux.scratch import scratch_directory

if TYPE_CHECKING:
    from storagedrivers.driver import HostFacts

_CAPABILITIES = frozenset(
    {
        Capability.CHEAP_FORK,
        Capability.REFLINK,
        Capability.RENAME_LOWER_DIRECTORY,
        Capability.SHARED_LOWER_LINKS,
    }
)


class BtrfsSnapshot(StorageDriver):
    """Layers as snapshots."""

    name = "btrfs-snapshot"
    aliases = ("btrfs",)

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        """Needs a graph root on btrfs; makes, snapshots and deletes a subvolume there."""
        if obstacle := kernel_obstacle(host, "btrfs"):
            return obstacle
        filesystem = host.graph_root.filesystem
        if filesystem != "btrfs":
            return ProbeResult.no(
                Reason.WRONG_BACKING_FS,
                f"the graph root {host.graph_root.path} is on"
                f" {filesystem or 'an unknown filesystem'}, and snapshots need btrfs",
                remedy="put the graph root on a btrfs filesystem",
                evidence={"filesystem": filesystem},
                predicted=host.recorded,
            )
        if host.recorded:
            return ProbeResult.yes(
                "the graph root is on btrfs", capabilities=_CAPABILITIES, predicted=True
            )
        return cls._trial(host)

    @classmethod
    def _trial(cls, host: HostFacts) -> ProbeResult:
        try:
            with (
                scratch_directory(host.graph_root.probed) as scratch,
                tree.opened_directory(scratch) as fd,
            ):
                btrfs.create_subvolume(fd, "a")
                try:
                    limited = cls._can_limit(scratch / "a")
                    with tree.opened_directory(scratch / "a") as source:
                        btrfs.create_snapshot(source, fd, "b", read_only=True)
                    btrfs.delete_subvolume(fd, "b")
                finally:
                    btrfs.delete_subvolume(fd, "a")
        except OSError as error:
            remedies = {
                Reason.NO_PERMISSION: "mount it with user_subvol_rm_allowed, or run as root",
                Reason.TRIAL_FAILED: "look at the kernel's log: dmesg | grep -i btrfs",
            }
            return failed_trial(host, "snapshot", error, remedies, {"filesystem": "btrfs"})
        return ProbeResult.yes(
            "the graph root is on btrfs, and a trial snapshot was made and deleted",
            capabilities=_CAPABILITIES | ({Capability.SIZE_LIMIT} if limited else set()),
            evidence={"quotas": "enabled" if limited else "not enabled"},
        )

    @staticmethod
    def _can_limit(subvolume: Path) -> bool:
        with tree.opened_directory(subvolume) as fd:
            number = btrfs.subvolume_id(fd)
            try:
                btrfs.limit_size(fd, 1 << 40)
            except OSError as error:
                if error.errno in btrfs.QUOTAS_OFF:
                    return False
                raise
            btrfs.delete_qgroup(fd, number)
            return True

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        """Snapshot the nearest lower, or make an empty subvolume."""
        self.require(*lowers)
        with self.new_layer(layer) as path, tree.opened_directory(path) as fd:
            if lowers:
                with tree.opened_directory(self._root(lowers[0])) as source:
                    btrfs.create_snapshot(source, fd, "fs", read_only=False)
            else:
                btrfs.create_subvolume(fd, "fs")
                os.chmod("fs", 0o755, dir_fd=fd)
            if size is not None:
                self._limit(path / "fs", size)

    @staticmethod
    def _limit(subvolume: Path, size: int) -> None:
        try:
            with tree.opened_directory(subvolume) as fd:
                btrfs.limit_size(fd, size)
        except OSError as error:
            if error.errno not in btrfs.QUOTAS_OFF:
                raise
            raise DriverUnsupportedError(
                "the size of a layer cannot be limited: quotas are not enabled on this btrfs",
                resolution="enable them for the filesystem: btrfs quota enable PATH",
            ) from error

    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        """A bind mount of the subvolume."""
        self.require(layer, *lowers)
        root = self._root(layer)
        if not read_only and root.name == "sealed":
            raise ReadOnlyError(f"layer {layer} is sealed", resolution="create a layer above it")
        return (bind(root, read_only=read_only),)

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        """Replace the subvolume by a read-only snapshot of itself.

        Raises:
            StoreError: it holds subvolumes of its own, which a snapshot would leave out.
        """
        self._seal(layer, prove=True)

    def seal_new(self, layer: str, lowers: Sequence[str]) -> None:
        """As :meth:`seal`, without looking for who writes to it."""
        self._seal(layer, prove=False)

    def _seal(self, layer: str, *, prove: bool) -> None:
        self._root(layer)
        path = self.layer_path(layer)
        with tree.opened_directory(path) as fd:
            if not (path / "sealed").exists():
                if prove:
                    # The snapshot could not change any more, but writes after it would be lost.
                    self.refuse_if_used(layer, holders.find_writers(path / "fs"))
                with tree.opened_directory(path / "fs") as source:
                    self._refuse_nested(layer, source)
                    btrfs.create_snapshot(source, fd, "sealed", read_only=True)
            with tree.opened_directory(path / "sealed") as sealed, suppress(OSError):
                btrfs.limit_size(sealed, None)  # layers above would inherit it
            self._delete_subvolume(fd, "fs")  # also what a crash between the two steps left

    def flaws(self, layer: str, *, writable: bool) -> Iterator[Flaw]:
        """Also the writable subvolume, where sealing was killed before it deleted that."""
        yield from super().flaws(layer, writable=writable)
        path = self.layer_path(layer)
        if not writable and (path / "sealed").is_dir() and (path / "fs").is_dir():
            message = "its writable subvolume is still there beside the sealed one"
            yield Flaw(FlawKind.SMALL, "half-sealed", message)

    def mend(self, layer: str) -> None:
        """Finish the sealing."""
        if (self.layer_path(layer) / "sealed").is_dir():
            self.seal(layer, ())

    @staticmethod
    def _refuse_nested(layer: str, subvolume_fd: int) -> None:
        try:
            nested = btrfs.nested_subvolumes(subvolume_fd)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            nested = [("…", "(a path too long to be told)")]
        if nested:
            names = ", ".join("/" + os.path.join(*one) for one in nested[:5])
            raise StoreError(
                f"layer {layer} holds {len(nested)} btrfs subvolumes of its own, and a snapshot"
                f" would leave them out: {names}",
                resolution="delete them in the container, or copy them to plain directories",
            )

    def delete(self, parent_fd: int, name: str) -> None:
        """Delete the subvolumes, then the directory. Their space returns when the kernel's cleaner
        runs.
        """
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        except FileNotFoundError:
            return
        try:
            for subvolume in ("fs", "sealed"):
                self._delete_subvolume(fd, subvolume)
        finally:
            os.close(fd)
        tree.remove_tree(parent_fd, name)

    @staticmethod
    def _delete_subvolume(fd: int, name: str) -> None:
        try:
            with tree.opened_directory(name, dir_fd=fd) as subvolume:
                if os.fstat(subvolume).st_ino != btrfs.ROOT_INODE:
                    return
                number = btrfs.subvolume_id(subvolume)
            btrfs.delete_subvolume(fd, name)
        except FileNotFoundError:
            return  # another process was faster
        btrfs.delete_qgroup(fd, number)

    def status(self) -> Mapping[str, str]:
        """How many layers are sealed and how many are not."""
        sealed = sum((self.layer_path(layer) / "sealed").exists() for layer in self.layers())
        return {"Sealed layers": str(sealed), "Layers": str(sum(1 for _ in self.layers()))}

    def _root(self, layer: str) -> Path:
        path = self.layer_path(layer)
        for name in ("sealed", "fs"):
            if (path / name).is_dir():
                return path / name
        raise NotFoundError(f"{self.name} has no layer {layer}")
