"""overlay2: the kernel's overlay filesystem; a layer's directory is its diff.

::

    <home>/<layer id>/diff/      only this layer's changes, whiteouts as devices 0:0
    <home>/<layer id>/work/      overlay's own; there as long as the layer may be written to
    <home>/l/<short>             symlink to ../<layer id>/diff: short paths for mount(2)

Every mount says ``index=off,redirect_dir=nofollow,metacopy=off``, whatever the module's defaults:
index keeps part of the diff in the work directory, redirects and metacopy make files that mean
nothing by themselves. A redirect that an image brings along is not followed either.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.driver import (
    Capability,
    Changeset,
    Flaw,
    FlawKind,
    Mount,
    ProbeResult,
    Reason,
    StorageDriver,
    Usage,
    WhiteoutFormat,
    bind,
    kernel_obstacle,
    try_mount,
)
from storagedrivers.errors import (
    ReadOnlyError,
    StoreError,
)
from storagedrivers.linux import (
    holders,
    kernel,
    mount,
    namespace,
    overlay,
    syscalls,
    tree,
    trial,
)
from storagedrivers.linux.scratch import scratch_directory
from storagedrivers.model import check_layer_id, is_layer_id

if TYPE_CHECKING:
    from storagedrivers.driver import HostFacts

_PASSING, _PAUSE = 0.5, 0.005  # seconds
_LINKS = "l"
_MODULE = "/sys/module/overlay"
_VOLATILE = (5, 10)  # Linux 5.10 has the mount option
_CAPABILITIES = frozenset({Capability.CHANGESET, Capability.CHEAP_FORK})

_OTHER_FILESYSTEM = "put the graph root on ext4, xfs (ftype=1) or btrfs"

# What only decides for hosts that cannot be tried.
_MULTIPLE_LOWERS = (4, 0)  # Linux 4.0
_RHEL_BACKPORT = 514  # 3.10.0-514.el7: docs.docker.com, OverlayFS storage driver, prerequisites
_USER_NAMESPACE = (5, 11)  # Linux 5.11 lets a user namespace mount overlay
_NO_UPPER = frozenset(
    [
        "9p",
        "afs",
        "aufs",
        "beegfs",
        "ceph",
        "cifs",
        "ecryptfs",
        "erofs",
        "exfat",
        "gpfs",
        "hfsplus",
        "iso9660",
        "lustre",
        "msdos",
        "nfs",
        "nfs4",
        "ntfs",
        "ntfs3",
        "smb3",
        "squashfs",
        "vboxsf",
        "vfat",
    ]
)


class Overlay2(StorageDriver):
    """Layers as the lower and upper directories of overlay mounts."""

    name = "overlay2"
    aliases = ("overlay",)
    max_lowers = 500  # OVL_MAX_STACK in the kernel's fs/overlayfs

    def __init__(self, home: str | os.PathLike[str]) -> None:
        super().__init__(home)
        self._user_namespace = namespace.in_user_namespace()
        self._known_features: tuple[str, ...] | None = None

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        """Mounts two lowers and an upper beside the graph root, deletes in them and lists."""
        if obstacle := kernel_obstacle(host, "overlay") or _backing_obstacle(host):
            return obstacle
        if host.recorded:
            return _age_obstacle(host) or ProbeResult.yes(
                f"kernel {host.kernel} has overlay, and"
                f" {host.graph_root.filesystem or 'the filesystem'} can carry it",
                capabilities=_CAPABILITIES,
                evidence=_evidence(host),
                predicted=True,
            )
        return _trial(host)

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        """Make the directories; the root directory starts as the one below it."""
        self.refuse_size(size)
        self.check_depth(lowers)
        below = [self._diff(lower) for lower in lowers]
        with self.new_layer(layer) as path:
            os.mkdir(f"{path}/work", 0o700)  # first: a layer without it is a sealed one
            self.make_root(f"{path}/diff", below=below[0] if below else None)
            self._make_link(layer)

    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        """An overlay, or a bind mount where one directory is all there is."""
        # Read-only, the layer's own directory is a lower too.
        self.check_depth((layer, *lowers) if read_only and lowers else lowers)
        writable = self._is_writable(layer)
        if not read_only and not writable:
            raise ReadOnlyError(f"layer {layer} is sealed", resolution="create a layer above it")
        if not lowers:
            return (bind(self._diff(layer), read_only=read_only),)
        if read_only:
            options = [f"lowerdir={self._lowerdir((layer, *lowers))}", "ro"]
        else:
            options = [
                f"lowerdir={self._lowerdir(lowers)}",
                f"upperdir={mount.escape(self._diff(layer))}",
                f"workdir={mount.escape(self._work(layer))}",
                *self._volatile(layer, scratch=scratch),
            ]
        return (Mount("overlay", "overlay", options=(*options, *self._features)),)

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        """Prove that no mount uses the directory as its upper, then take the work directory
        away.
        """
        if not self._is_writable(layer):
            return
        diff = self._diff(layer)
        # The kernel knows of overlays only: a base layer is bind mounted.
        in_use = self._is_in_use(diff) if lowers else None
        if in_use is not False:
            users: list[object] = [*holders.find_writers(diff, overlays=bool(lowers))]
            if in_use and not users and self._stays_in_use(diff):
                users = ["the kernel says so, and no process in /proc shows it"]
            self.refuse_if_used(layer, users)
        self._take_work_away(layer)

    def _is_in_use(self, diff: str) -> bool | None:
        with scratch_directory(self.home) as scratch:
            return overlay.is_upper_in_use(diff, scratch)

    def _stays_in_use(self, diff: str) -> bool:
        """Whether an overlay is still there in a moment: that of a process that was killed goes a
        little after it.
        """
        deadline = time.monotonic() + _PASSING
        while self._is_in_use(diff):
            if time.monotonic() >= deadline:
                return True
            time.sleep(_PAUSE)
        return False

    def seal_new(self, layer: str, lowers: Sequence[str]) -> None:
        """Take the work directory away."""
        if self._is_writable(layer):
            self._take_work_away(layer)

    def _take_work_away(self, layer: str) -> None:
        with tree.opened_directory(self.layer_path(layer), follow_symlinks=True) as fd:
            if self._is_scratch(layer):
                syscalls.syncfs(fd)  # its mounts left that out
            tree.remove_tree(fd, "work")

    def remove(self, layer: str) -> None:
        """As for any driver; the short link goes first, since a layer without one can be removed
        again.
        """
        with suppress(FileNotFoundError):
            os.unlink(self._link(layer))
        super().remove(layer)

    def changeset(self, layer: str) -> Changeset:
        """The layer's directory is its changeset."""
        whiteouts = WhiteoutFormat.OVERLAY_USER if self._user_namespace else WhiteoutFormat.OVERLAY
        return Changeset(Path(self._diff(layer)), whiteouts)

    def usage(self, layer: str) -> Usage:
        """What the diff takes; the work directory is the kernel's."""
        return tree.measure_tree(self._diff(layer))

    def status(self) -> Mapping[str, str]:
        """The options that every mount carries."""
        return {
            "Mount options": ",".join(self._features),
            "Layers": str(sum(1 for _ in self.layers())),
        }

    def flaws(self, layer: str, *, writable: bool) -> Iterator[Flaw]:
        """Also the short link, which the next mount would make anew."""
        link = self._link(layer)
        lost = False
        for flaw in super().flaws(layer, writable=writable):
            lost = lost or flaw.kind is FlawKind.LOST
            yield flaw
        if not (lost or self._is_right(link, layer)):
            message = f"its short link {link} is missing or wrong"
            yield Flaw(FlawKind.SMALL, "missing-link", message)

    def mend(self, layer: str) -> None:
        """Make the short link."""
        self._checked_link(layer)

    def strays(self) -> Iterator[str]:
        """Links whose layer is gone."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self.home / _LINKS):
                path = f"{self.home}/{_LINKS}/{name}"
                layer = _linked_layer(path)
                # A layer that is made has its directory before its link; one that is removed loses
                # its link first.
                used = layer and self.layer_path(layer).is_dir() and path == self._link(layer)
                if not used and os.path.lexists(path):
                    yield f"{_LINKS}/{name}"

    @property
    def _features(self) -> tuple[str, ...]:
        if self._known_features is None:
            features = _features(user_namespace=self._user_namespace)
            if not os.path.isdir(_MODULE):
                return features  # a guess, until the module is there to tell
            self._known_features = features
        return self._known_features

    def _volatile(self, layer: str, *, scratch: bool) -> tuple[str, ...]:
        if scratch:
            return ("volatile",) if kernel.version() >= _VOLATILE else ()
        if self._is_scratch(layer):
            raise StoreError(
                f"layer {layer} was mounted as scratch: its files may not be on the disk",
                resolution="mount it as scratch again, or remove it",
            )
        return ()

    def _diff(self, layer: str) -> str:
        return self.directory_in(layer, "diff")

    def _work(self, layer: str) -> str:
        return f"{self.home}/{check_layer_id(layer)}/work"

    def _is_writable(self, layer: str) -> bool:
        self._diff(layer)
        return os.path.isdir(self._work(layer))

    def _is_scratch(self, layer: str) -> bool:
        """Whether the layer was mounted volatile: the kernel leaves a mark."""
        return os.path.lexists(f"{self._work(layer)}/work/incompat/volatile")

    def _lowerdir(self, layers: Sequence[str]) -> str:
        return ":".join(mount.escape(self._checked_link(layer)) for layer in layers)

    def _link(self, layer: str) -> str:
        from hashlib import sha256  # 2 ms that mounting a base layer does not need

        # 64 bits of a hash: the name needs no file that remembers it, and a chance collision fails
        # loudly.
        short = sha256(check_layer_id(layer).encode()).hexdigest()[:16]
        return f"{self.home}/{_LINKS}/{short}"

    def _checked_link(self, layer: str) -> str:
        link = self._link(layer)
        self._diff(layer)
        if self._is_right(link, layer):
            return link
        self._make_link(layer)  # lost in a crash, or the store was copied without links
        return link

    @staticmethod
    def _is_right(link: str, layer: str) -> bool:
        try:
            return os.readlink(link) == f"../{layer}/diff"
        except OSError:  # missing, or no symlink
            return False

    def _make_link(self, layer: str) -> None:
        link = self._link(layer)
        target = f"../{layer}/diff"
        try:
            os.symlink(target, link)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
            self._make_link(layer)
        except FileExistsError:  # a stray one: put the right one in its place
            new = f"{link}.{os.urandom(6).hex()}"
            os.symlink(target, new)
            os.rename(new, link)


def _linked_layer(link: str) -> str:
    """The layer that a short link leads to, or nothing."""
    try:
        parts = os.readlink(link).split("/")
    except OSError:  # no symlink, or gone
        return ""
    return parts[1] if len(parts) == 3 and is_layer_id(parts[1]) else ""


def _features(*, user_namespace: bool) -> tuple[str, ...]:
    """The options of every mount; those only that this kernel's module knows."""
    values = {"index": "off", "redirect_dir": "nofollow", "metacopy": "off"}
    if os.path.isdir(_MODULE):
        # "nofollow" came with the parameter that says what "off" does: Linux 4.15.
        if not os.path.exists(f"{_MODULE}/parameters/redirect_always_follow"):
            values["redirect_dir"] = "off"
        values = {
            name: value
            for name, value in values.items()
            if os.path.exists(f"{_MODULE}/parameters/{name}")
        }
    features = [f"{name}={value}" for name, value in values.items()]
    if user_namespace:
        features.append("userxattr")
    return tuple(features)


# Probing


def _evidence(host: HostFacts) -> dict[str, str]:
    root = host.graph_root
    words = {True: "yes", False: "no", None: "unknown"}
    return {"filesystem": root.filesystem or "unknown", "d_type": words[root.d_type]}


def _backing_obstacle(host: HostFacts) -> ProbeResult | None:
    root = host.graph_root
    where = f"the graph root {root.path} is on {root.filesystem}"

    def no(reason: Reason, message: str, remedy: str) -> ProbeResult:
        return ProbeResult.no(
            reason, message, remedy=remedy, evidence=_evidence(host), predicted=host.recorded
        )

    if root.filesystem == "overlay":
        inside = f" (this is a {host.container} container)" if host.container else ""
        return no(
            Reason.OVERLAY_ON_OVERLAY,
            f"{where}{inside}, and overlay refuses an overlay as its upper layer",
            f"mount a volume or a tmpfs at {root.path}, or choose --root DIR on another filesystem",
        )
    stacked = root.filesystem in _NO_UPPER
    untried = host.recorded and (
        root.filesystem.startswith("fuse")
        # zfs before 2.2 and btrfs before Linux 4.7
        or (root.filesystem == "zfs" and not root.rename_whiteout)
        or (root.filesystem == "btrfs" and root.rename_whiteout is False)
    )
    if stacked or untried:
        return no(
            Reason.WRONG_BACKING_FS,
            f"{where}, which cannot be overlay's upper layer",
            _OTHER_FILESYSTEM,
        )
    if root.d_type is False:
        return no(
            Reason.NO_D_TYPE,
            f"{where} without d_type: deleted files would stay visible",
            "make it anew with types in directories: mkfs.xfs -n ftype=1, mkfs.ext4 -O filetype",
        )
    kind = "user" if host.user_namespace else "trusted"
    if getattr(root, f"{kind}_xattr") is False:
        return no(
            Reason.NO_XATTR,
            f"{where}, which keeps no {kind} extended attributes",
            _OTHER_FILESYSTEM,
        )
    return None


def _age_obstacle(host: HostFacts) -> ProbeResult | None:
    """Kernels that have overlay but not enough of it, by version: asked for recorded hosts only."""
    version = host.kernel_version
    if version < _MULTIPLE_LOWERS and not _has_backport(host.kernel):
        return ProbeResult.no(
            Reason.KERNEL_TOO_OLD,
            f"kernel {host.kernel} stacks two layers only; more need Linux 4.0 (RHEL 3.10.0-514)",
            remedy="upgrade the kernel",
            predicted=True,
        )
    if host.user_namespace and version < _USER_NAMESPACE:
        return ProbeResult.no(
            Reason.KERNEL_TOO_OLD,
            f"kernel {host.kernel} does not let a user namespace mount overlay; Linux 5.11 does",
            remedy="run as root, upgrade the kernel, or install a driver for fuse-overlayfs",
            predicted=True,
        )
    return None


def _has_backport(kernel: str) -> bool:
    base, _, rest = kernel.partition("-")
    build = rest.partition(".")[0]
    if base != "3.10.0" or not build.isdigit() or int(build) < _RHEL_BACKPORT:
        return False
    return ".el7" in kernel or ".vz7" in kernel  # Virtuozzo builds on it


def _trial(host: HostFacts) -> ProbeResult:
    failure = try_mount(
        host,
        "overlay",
        lambda scratch: _try_overlay(scratch, user_namespace=host.user_namespace),
        remedies={
            Reason.NO_KERNEL_SUPPORT: "modprobe overlay",
            Reason.WRONG_BACKING_FS: _OTHER_FILESYSTEM,
            Reason.TRIAL_FAILED: "see the kernel's log: dmesg | grep overlay",
        },
        evidence=_evidence(host),
    )
    return failure or ProbeResult.yes(
        f"a trial overlay of two lower layers on {host.graph_root.filesystem} worked",
        capabilities=_CAPABILITIES,
        evidence=_evidence(host),
    )


def _try_overlay(scratch: Path, *, user_namespace: bool) -> str:
    """Mount, delete and list; what is wrong, or nothing."""
    trial.make_lowers(scratch / "one", scratch / "two")
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir()
    merged = scratch / "merged"
    with suppress(OSError):  # loads the module, so that its parameters tell which options it knows
        mount.mount(Mount("overlay", "overlay"), merged)
    paths = {key: mount.escape(str(scratch / key)) for key in ("one", "two", "upper", "work")}
    options = (
        f"lowerdir={paths['two']}:{paths['one']}",
        f"upperdir={paths['upper']}",
        f"workdir={paths['work']}",
        *_features(user_namespace=user_namespace),
    )
    mount.mount(Mount("overlay", "overlay", options=options), merged)
    return trial.delete_and_list(merged)
