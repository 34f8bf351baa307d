"""Drivers with one defect each, and the contracts that must catch it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storagedrivers.driver import (
    Capability,
    Changeset,
    HostFacts,
    Mount,
    ProbeResult,
    Reason,
    StorageDriver,
    Usage,
)
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.errors import StorageDriversError
from storagedrivers.linux import mount
from storagedrivers.model import check_layer_id

SABOTAGED: list[tuple[type[StorageDriver], tuple[str, ...]]] = []


def caught_by(*contracts: str) -> Callable[[type[StorageDriver]], type[StorageDriver]]:
    """Enter a driver with the contracts that it must break."""

    def enter(driver: type[StorageDriver]) -> type[StorageDriver]:
        SABOTAGED.append((driver, contracts))
        return driver

    return enter


class _Retouched(VfsCopy):
    """vfs-copy whose new layers lose something on the way up."""

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        super().create(layer, lowers, size=size)
        if lowers:
            self.retouch(self.layer_path(layer) / "fs")

    def retouch(self, root: Path) -> None:
        raise NotImplementedError

    @staticmethod
    def files(root: Path) -> Iterator[Path]:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path


@caught_by("test_child_starts_as_its_parent", "test_content_passes_through_layers")
class LosesAttributes(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in self.files(root):
            for name in os.listxattr(path):
                if name.startswith("user."):
                    os.removexattr(path, name)


@caught_by("test_child_starts_as_its_parent")
class LosesCapabilities(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in self.files(root):
            if "security.capability" in os.listxattr(path):
                os.removexattr(path, "security.capability")


@caught_by("test_child_starts_as_its_parent")
class LosesOwners(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in root.rglob("*"):
            status = path.lstat()
            if status.st_uid or status.st_gid:
                os.chown(path, 0, 0, follow_symlinks=False)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


@caught_by("test_child_starts_as_its_parent")
class LosesSetuid(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in self.files(root):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o777)


@caught_by("test_child_starts_as_its_parent")
class RoundsTimesToSeconds(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in self.files(root):
            seconds = int(path.stat().st_mtime)
            os.utime(path, (seconds, seconds))


@caught_by("test_child_starts_as_its_parent", "test_content_passes_through_layers")
class SplitsHardLinks(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in self.files(root):
            if path.stat().st_nlink > 1:
                shutil.copy2(path, path.with_name("copy"))
                path.with_name("copy").rename(path)


@caught_by("test_holes_stay_holes")
class FillsHoles(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in self.files(root):
            content = path.read_bytes()
            path.write_bytes(content)


@caught_by("test_child_starts_as_its_parent")
class LosesDevices(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in root.rglob("*"):
            if stat.S_ISCHR(path.lstat().st_mode):
                path.unlink()


@caught_by("test_child_starts_as_its_parent")
class LosesRootMetadata(_Retouched):
    def retouch(self, root: Path) -> None:
        root.chmod(0o755)


@caught_by("test_child_starts_as_its_parent")
class LosesOddNames(_Retouched):
    def retouch(self, root: Path) -> None:
        for path in list(root.rglob("*")):
            if any("\udc80" <= character <= "\udcff" for character in path.name):
                path.rename(path.with_name("renamed"))


@caught_by("test_siblings_do_not_see_each_other")
class SharesByHardLinks(VfsCopy):
    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        super().create(layer, (), size=size)
        if lowers:
            target = self.layer_path(layer) / "fs"
            shutil.rmtree(target)
            source = self.layer_path(lowers[0]) / "fs"
            shutil.copytree(source, target, symlinks=True, copy_function=os.link, ignore=_unusual)


def _unusual(directory: str, names: list[str]) -> list[str]:
    """Names that copytree cannot handle: neither files nor directories."""
    return [
        name
        for name in names
        if not stat.S_ISREG(mode := os.lstat(os.path.join(directory, name)).st_mode)
        and not stat.S_ISDIR(mode)
    ]


@caught_by("test_sealed_layer_is_not_writable", "test_late_writers_change_nothing")
class NeverSeals(VfsCopy):
    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        self.require(layer)


@caught_by("test_mounted_layer_is_not_sealed", "test_late_writers_change_nothing")
class SealsBlindly(VfsCopy):
    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        self.require(layer)
        (self.layer_path(layer) / "sealed").touch()


@caught_by("test_late_writers_change_nothing")
class SealsOverlayBlindly(Overlay2):
    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        self.require(layer)
        shutil.rmtree(self.layer_path(layer) / "work", ignore_errors=True)


@caught_by("test_read_only_views_refuse_writes")
class MountsAlwaysWritable(VfsCopy):
    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        super().mounts(layer, lowers, read_only=read_only)
        return (Mount("bind", str(self.layer_path(layer) / "fs"), options=("bind", "rw")),)


@caught_by("test_remove_leaves_nothing")
class LeavesFiles(VfsCopy):
    def remove(self, layer: str) -> None:
        path = self.layer_path(layer)
        if path.exists():
            path.rename(path.with_name(f"old-{layer}"))

    def layers(self) -> Iterator[str]:
        return (layer for layer in super().layers() if not layer.startswith("old-"))


@caught_by("test_remove_is_idempotent")
class FailsToRemoveTwice(VfsCopy):
    def remove(self, layer: str) -> None:
        self.require(layer)
        super().remove(layer)


@caught_by("test_killed_remove_is_finished_by_the_next")
class RemovesWithoutTrash(VfsCopy):
    """Deletes where the layer lies, its mark of being whole first: a kill leaves half a layer."""

    def remove(self, layer: str) -> None:
        path = self.layer_path(layer)
        trash = self.home / f"gone-{layer}"
        if path.exists():
            path.rename(trash)
            shutil.rmtree(trash)

    def layers(self) -> Iterator[str]:
        return (layer for layer in super().layers() if not layer.startswith("gone-"))


@caught_by("test_killed_create_can_be_removed")
class LeavesStagingBehind(VfsCopy):
    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        staging = self.home / f"staging-{layer}"
        staging.mkdir(parents=True, exist_ok=True)
        super().create(layer, lowers, size=size)
        staging.rmdir()


@caught_by("test_killed_seal_can_be_repeated")
class SealsInTwoPlaces(VfsCopy):
    """Moves the tree away and back: killed between, the layer is empty."""

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        super().seal(layer, lowers)
        root = self.layer_path(layer) / "fs"
        if root.is_dir():
            root.rename(root.with_name("fs.sealed"))
            root.mkdir()
            root.rmdir()
            root.with_name("fs.sealed").rename(root)


@caught_by("test_taken_id_is_refused")
class Overwrites(VfsCopy):
    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        self.remove(layer)
        super().create(layer, lowers, size=size)


@caught_by("test_missing_lower_is_refused")
class TakesAnyLower(VfsCopy):
    def require(self, *layers: str) -> None:
        super().require(*layers[:1])

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        present = [lower for lower in lowers if self.layer_path(lower).exists()]
        super().create(layer, present, size=size)


@caught_by("test_unsafe_ids_are_refused")
class TakesAnyId(VfsCopy):
    def layer_path(self, layer: str) -> Path:
        try:
            return self.home / check_layer_id(layer)
        except StorageDriversError:
            return self.home / (os.path.basename(layer.strip(".\0")).lower() or "other")


@caught_by("test_layers_lists_what_is_there")
class ListsTooMuch(VfsCopy):
    def layers(self) -> Iterator[str]:
        yield from super().layers()
        yield "phantom"


@caught_by("test_size_is_enforced_or_refused")
class IgnoresSize(VfsCopy):
    def refuse_size(self, size: int | None) -> None:
        """Say nothing."""


@caught_by("test_usage_grows_with_content")
class CountsNothing(VfsCopy):
    def usage(self, layer: str) -> Usage:
        self.require(layer)
        return Usage(bytes=0, inodes=0)


@caught_by("test_probe_leaves_no_trace")
class LeavesTraces(VfsCopy):
    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        home.mkdir(exist_ok=True)
        (home / f"probed-{os.urandom(4).hex()}").touch()
        return super().probe(host, home)


@caught_by("test_probe_answers_in_full")
class ContradictsItself(VfsCopy):
    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        answer = super().probe(host, home)
        return ProbeResult(supported=True, reason=Reason.NO_PERMISSION, message=answer.message)


@caught_by("test_mounts_are_values")
class MountsByItself(VfsCopy):
    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        values = super().mounts(layer, lowers, read_only=read_only)
        mount.mount_all(values, self.layer_path(layer) / "fs")
        return values


@caught_by("test_nothing_stays_mounted")
class LeavesMounts(VfsCopy):
    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        super().create(layer, lowers, size=size)
        path = str(self.layer_path(layer))
        mount.mount(Mount("bind", path), path)


@caught_by("test_new_layer_is_empty", "test_deleted_directory_comes_back_empty")
class StackedUpsideDown(Overlay2):
    """A new layer begins with a file, and an overlay forgets that a directory was replaced."""

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        super().create(layer, lowers, size=size)
        (self.layer_path(layer) / "diff/.keep").touch()

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        super().seal(layer, lowers)
        for path in (self.layer_path(layer) / "diff").rglob("*"):
            if path.is_dir() and "trusted.overlay.opaque" in os.listxattr(path):
                os.removexattr(path, "trusted.overlay.opaque")


@caught_by("test_deletions")
class DropsWhiteouts(Overlay2):
    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        super().seal(layer, lowers)
        for path in (self.layer_path(layer) / "diff").rglob("*"):
            status = path.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                path.unlink()


@caught_by("test_order_of_layers")
class ReversesLowers(Overlay2):
    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        return super().mounts(layer, tuple(reversed(lowers)), read_only=read_only, scratch=scratch)


@caught_by("test_content_passes_through_layers", "test_deep_chain")
class SeesOneLowerOnly(Overlay2):
    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        return super().mounts(layer, lowers[:1], read_only=read_only, scratch=scratch)


@caught_by("test_changeset_is_the_diff")
class WrongChangeset(Overlay2):
    def changeset(self, layer: str) -> Changeset:
        right = super().changeset(layer)
        return Changeset(self.layer_path(layer), right.whiteouts)


@caught_by("test_lower_hard_links_act_as_declared", "test_lower_directories_rename_as_declared")
class PromisesTooMuch(Overlay2):
    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        answer = super().probe(host, home)
        more = {Capability.SHARED_LOWER_LINKS, Capability.RENAME_LOWER_DIRECTORY}
        return ProbeResult.yes(answer.message, capabilities=answer.capabilities | more)


@caught_by("test_too_deep_is_refused")
class KnowsNoLimit(Overlay2):
    def check_depth(self, directories: Sequence[str]) -> None:
        """Let any number through."""


@caught_by("test_parent_is_never_changed", "test_siblings_do_not_see_each_other")
class WritesToItsParent(VfsCopy):
    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        super().mounts(layer, lowers, read_only=read_only)
        root = self.layer_path(lowers[0] if lowers else layer) / "fs"
        return (Mount("bind", str(root), options=("bind", "ro" if read_only else "rw")),)


@caught_by("test_late_writers_change_nothing")
class SealsByFlag(BtrfsSnapshot):
    """Sets the read-only flag on the living subvolume, which does not stop open descriptors."""

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        from storagedrivers.linux import ioctl

        fd = os.open(self.layer_path(layer) / "fs", os.O_RDONLY)
        ioctl.ioctl(fd, 0x4008941A, bytearray((2).to_bytes(8, "little")))
        os.close(fd)
