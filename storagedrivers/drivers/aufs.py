"""aufs: the union filesystem of older Ubuntu and Debian kernels; a layer's directory is its diff.

::

    <home>/<layer id>/diff/      only this layer's changes, whiteouts as files ``.wh.NAME``
    <home>/<layer id>/sealed     there once the layer is read-only

Every mount says ``noplink``. With pseudo-links, hard links of a lower layer stay together while the
mount lives; but what is written through the second name then stands in the diff under the first
alone, and the next mount shows the second as it was. Docker ran ``auplink MOUNT flush`` before each
unmount for that: a walk of the whole tree, by a program that need not be installed. Without
pseudo-links such links part at the first write, as they do on overlay, and the directory is the
whole diff at any moment.

aufs keeps files of its own in a writable layer: see :data:`OWN_NAMES` and :func:`is_own_name`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from storagedrivers.driver import (
    Capability,
    Changeset,
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
    DriverUnsupportedError,
    MountError,
    ReadOnlyError,
)
from storagedrivers.linux import aufs, holders, mount, namespace, tree, trial
from storagedrivers.linux.mountinfo import find_mount, read_mountinfo
from storagedrivers.linux.scratch import scratch_directory

if TYPE_CHECKING:
    from storagedrivers.driver import HostFacts

OWN_NAMES = (".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk")
"""What aufs keeps in the root of a writable branch: the file that every whiteout is a hard link to,
files that are deleted and still open, pseudo-links. They outlive the unmount, and a read-only
branch needs none of them."""

_MAX_BRANCHES = 127  # the 128th is ENOSPC

# One call parses a page of options: 84 where each takes 48 bytes, and a longer ``br=`` crashes the
# kernel. Less than half of that leaves room for the other options, and for kernels where an option
# takes more; 127 branches are four calls.
_BRANCHES_PER_CALL = 32

_SEPARATORS = ":,="  # aufs has no escape for them in a branch's path
_PLAIN_ROOT = "choose a graph root without these characters, with --root DIR"

# Where the table of inode numbers (xino) may be made: it works on tmpfs and ext4, and neither on
# btrfs and xfs nor on a stacked filesystem. /run is small, so it comes second.
_XINO_DIRECTORIES = ("/dev/shm", "/run")

_CAPABILITIES = frozenset({Capability.CHANGESET, Capability.CHEAP_FORK})

_ELSEWHERE = "put the graph root on ext4 or xfs"
_OUTSIDE = "mount a volume or a tmpfs at the graph root, or choose --root DIR on another filesystem"

# Backing filesystems with what to do instead. The kernel refuses stacked ones; Docker refused
# btrfs, whose snapshots do better.
_REFUSED = {
    "aufs": _OUTSIDE,
    "btrfs": f"use btrfs-snapshot, or {_ELSEWHERE}",
    "ecryptfs": _ELSEWHERE,
    "overlay": _OUTSIDE,
}

_LAST_UBUNTU = (5, 8)  # the kernel of 20.10
_SPLIT_PACKAGES = (4, 15)  # of 18.04: linux-modules-extra; before, linux-image-extra

# What only decides for hosts that cannot be tried; one described by hand may not say.
_KNOWN_TO_WORK = ("", "ext2", "ext3", "ext4", "f2fs", "jfs", "reiserfs", "tmpfs", "xfs")


class Aufs(StorageDriver):
    """Layers as the branches of aufs mounts."""

    name = "aufs"
    max_lowers = _MAX_BRANCHES - 1

    sysfs: ClassVar[Path] = aufs.SYSFS

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        """Mounts three branches beside the graph root in two calls, deletes in them and lists."""
        obstacle = _kernel_obstacle(host) or _path_obstacle(host, home) or _backing_obstacle(host)
        if obstacle:
            return obstacle
        if host.recorded:
            return ProbeResult.yes(
                f"kernel {host.kernel} has aufs, and"
                f" {host.graph_root.filesystem or 'the filesystem'} can carry it",
                capabilities=_CAPABILITIES,
                evidence=_evidence(host),
                predicted=True,
            )
        return _trial(host)

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        """Make the directory; the root directory starts as the one below it.

        Raises:
            DriverUnsupportedError: also where the home's path cannot be part of a mount.
        """
        self.refuse_size(size)
        self._check_limits(lowers)
        below = [self._diff(lower) for lower in lowers]
        with self.new_layer(layer) as path:
            self.make_root(f"{path}/diff", below=below[0] if below else None)

    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        """An aufs in as many calls as it takes, or a bind mount of the only directory there is.

        Raises:
            DriverUnsupportedError: the home's path cannot be part of a mount.
        """
        self._check_limits(lowers)
        diff = self._diff(layer)
        if not read_only and self._seal_mark(layer).exists():
            raise ReadOnlyError(f"layer {layer} is sealed", resolution="create a layer above it")
        if not lowers:
            return (bind(diff, read_only=read_only),)
        # The first branch is writable unless it says otherwise. In one that is plain ``ro``, aufs
        # does not look for whiteouts.
        branches = [f"{diff}={'ro+wh' if read_only else 'rw'}"]
        branches += [f"{self._diff(lower)}=ro+wh" for lower in lowers]
        xino = _xino_options(self._xino_directory, layer, read_only=read_only)
        settings = _settings(xino, dirperm1=self._dirperm1)
        return plan_mounts(branches, settings, read_only=read_only)

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        """Prove that neither an aufs nor a process writes to the directory; tidy and mark it."""
        diff = self._diff(layer)
        mark = self._seal_mark(layer)
        if mark.exists():
            return
        mounts = aufs.find_writing_mounts(self.sysfs, diff)
        self.refuse_if_used(layer, [*mounts, *holders.find_writers(diff)])
        _remove_own_files(diff)
        mark.touch(mode=0o400)

    def changeset(self, layer: str) -> Changeset:
        """The layer's directory is its changeset, but for what :func:`is_own_name` knows."""
        return Changeset(Path(self._diff(layer)), WhiteoutFormat.AUFS)

    def usage(self, layer: str) -> Usage:
        """What the diff takes, without aufs's own files."""
        diff = self._diff(layer)
        whole = tree.measure_tree(diff)
        own = list(_own_inodes(diff))
        return Usage(
            bytes=whole.bytes - sum(status.st_blocks for status in own) * 512,
            inodes=whole.inodes - len(own),
        )

    def status(self) -> Mapping[str, str]:
        """What the mount plans depend on here."""
        return {
            "dirperm1": "yes" if self._dirperm1 else "no",
            "xino": self._xino_directory or "left to aufs",
            "Layers": str(sum(1 for _ in self.layers())),
        }

    def _check_limits(self, lowers: Sequence[str]) -> None:
        self.check_depth(lowers)
        if complaint := _separator_complaint(self.home):
            raise DriverUnsupportedError(complaint, resolution=_PLAIN_ROOT)

    # Asked of the kernel once; a property, so that it is asked only where a mount is wanted.

    @cached_property
    def _dirperm1(self) -> bool:
        try:
            with scratch_directory(self.home) as scratch:
                return namespace.in_private_mount_namespace(lambda: _takes_dirperm1(scratch))
        except OSError:
            return False  # who may not mount gets a plan all the same

    @cached_property
    def _xino_directory(self) -> str:
        return _find_xino_directory()

    def _diff(self, layer: str) -> str:
        return self.directory_in(layer, "diff")

    def _seal_mark(self, layer: str) -> Path:
        return self.layer_path(layer) / "sealed"


def is_own_name(name: str) -> bool:
    """Whether *name*, in any directory of a layer, is aufs's own and never part of a diff.

    Besides :data:`OWN_NAMES`, a crash leaves ``.wh..wh.NAME.HEX``: a directory on its way out.
    ``.wh..wh..opq``, which makes a directory opaque, is part of the diff.
    """
    return name.startswith(".wh..wh.") and name != ".wh..wh..opq"


# Mount plans


def plan_mounts(
    branches: Sequence[str],
    settings: Sequence[str],
    *,
    read_only: bool,
    per_call: int = _BRANCHES_PER_CALL,
) -> tuple[Mount, ...]:
    """A mount of the first branches, and remounts that append the others; for mount(2) only.

    Args:
        branches: ``PATH=PERMISSIONS``, the topmost first.
        settings: the options of the first call besides the branches.
        read_only: mount without write access.
        per_call: how many branches one call has at most.

    Raises:
        DriverUnsupportedError: one branch alone is too long for the options of a call.
    """
    # A remount replaces the flags of the mount, so it has to repeat them.
    flags = ("ro",) if read_only else ()
    limit = mount.MAX_OPTIONS + 1  # what is counted has a byte of separator too many, in front
    room = limit - _length(",".join(("br=", *settings)))
    done = _count_fitting(branches[:per_call], room, separator=":")
    first = f"br={':'.join(branches[:done])}"
    mounts = [Mount("aufs", "none", options=(first, *settings, *flags))]
    while done < len(branches):
        batch = branches[done : done + per_call]
        batch = batch[: _count_fitting(batch, limit, separator=",append:")]
        appends = (f"append:{branch}" for branch in batch)
        mounts.append(Mount("aufs", "none", options=("remount", *flags, *appends)))
        done += len(batch)
    return tuple(mounts)


def _count_fitting(branches: Sequence[str], room: int, *, separator: str) -> int:
    """How many of the leading branches fit into *room* bytes, with a separator before each."""
    for count, branch in enumerate(branches):
        room -= _length(separator + branch)
        if room < 0:
            if count:
                return count
            raise DriverUnsupportedError(
                f"the path of a layer takes {_length(branch)} bytes, and mount(2) has"
                f" {mount.MAX_OPTIONS} for all options of aufs",
                details=branch,
                resolution="choose a shorter graph root with --root DIR",
            )
    return len(branches)


def _length(text: str) -> int:
    return len(os.fsencode(text))


def _settings(xino: Sequence[str], *, dirperm1: bool) -> tuple[str, ...]:
    """The options of every mount.

    ``dio`` lets files be opened with O_DIRECT, as databases do. ``dirperm1`` asks the topmost
    branch alone for a directory's permissions: without it a chmod does not open what a lower layer
    closed.
    """
    return ("dio", "noplink", *xino, *(("dirperm1",) if dirperm1 else ()))


def _xino_options(directory: str, name: str, *, read_only: bool) -> tuple[str, ...]:
    """Where the xino file is made; *directory* is empty where no place is known."""
    if directory:
        # aufs makes the file with O_EXCL and unlinks it once open. With one name for all, as Docker
        # had it, mounts of two processes can meet, and anyone's file of that name is in the way.
        return (f"xino={directory}/.storagedrivers-{name}.xino",)
    # aufs then takes the writable branch, which does on ext4 and tmpfs; without one, /tmp.
    return ("noxino",) if read_only else ()


def _find_xino_directory() -> str:
    """The first of the usual directories that is on a writable tmpfs, or an empty string."""
    mounts = read_mountinfo()
    for directory in _XINO_DIRECTORIES:
        entry = find_mount(mounts, os.path.realpath(directory))
        if entry and entry.filesystem == "tmpfs" and "ro" not in entry.options:
            return directory
    return ""


def _separator_complaint(path: str | os.PathLike[str]) -> str:
    """Why *path* cannot be a branch, or nothing."""
    text = os.fspath(path)
    if not any(character in text for character in _SEPARATORS):
        return ""
    return f"aufs takes no ':', ',' or '=' in a path, and there is one in {text}"


# aufs's own files


def _own_inodes(diff: str) -> Iterator[os.stat_result]:
    """What only :data:`OWN_NAMES` lead to: what has another link is a whiteout or a file."""
    for name in OWN_NAMES:
        path = f"{diff}/{name}"
        with suppress(FileNotFoundError):
            found = [os.lstat(path)]
            if stat.S_ISDIR(found[0].st_mode):
                with os.scandir(path) as entries:
                    found += [entry.stat(follow_symlinks=False) for entry in entries]
            yield from (one for one in found if stat.S_ISDIR(one.st_mode) or one.st_nlink == 1)


def _remove_own_files(diff: str) -> None:
    """Remove what aufs left in the root of a layer that it will never write to again.

    Whiteouts are links to ``.wh..wh.aufs``, so they lose nothing with that name.
    """
    with tree.opened_directory(diff, follow_symlinks=True) as fd:
        status = os.fstat(fd)
        for name in OWN_NAMES:
            tree.remove_tree(fd, name)
        # The diff did not change, so its root keeps its time.
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


# Probing


def _evidence(host: HostFacts) -> dict[str, str]:
    return {"filesystem": host.graph_root.filesystem or "unknown"}


def _kernel_obstacle(host: HostFacts) -> ProbeResult | None:
    """The obstacles of any filesystem, with remedies for one that most kernels never had."""
    obstacle = kernel_obstacle(host, "aufs")
    if obstacle and obstacle.reason is Reason.NO_KERNEL_SUPPORT:
        return obstacle._replace(remedy=_kernel_remedy(host))
    if obstacle and obstacle.reason is Reason.NO_PERMISSION:
        return obstacle._replace(remedy="run as root, outside of a user namespace")
    if obstacle is None and host.user_namespace:
        return ProbeResult.no(
            Reason.NO_PERMISSION,
            "aufs cannot be mounted in a user namespace",
            remedy="use overlay2 there, or run as root outside of it",
            predicted=host.recorded,
        )
    return obstacle


def _kernel_remedy(host: HostFacts) -> str:
    """What to do without aufs; the kernel is named, since the facts may be another host's."""
    ubuntu = "ubuntu" in (host.os.id, *host.os.id_like)
    if ubuntu and host.kernel_version <= _LAST_UBUNTU:
        flavour = "modules" if host.kernel_version >= _SPLIT_PACKAGES else "image"
        return f"install linux-{flavour}-extra-{host.kernel}, then: modprobe aufs"
    return (
        "use overlay2: mainline Linux never had aufs, Ubuntu's kernels had it up to 20.10 and"
        " Debian's up to 8"
    )


def _path_obstacle(host: HostFacts, home: Path) -> ProbeResult | None:
    # The trial's branches lie in the probed directory, which is the real path.
    paths = (str(home),) if host.recorded else (str(home), host.graph_root.probed)
    complaint = next(filter(None, map(_separator_complaint, paths)), "")
    if not complaint:
        return None
    return ProbeResult.no(
        Reason.UNSUITABLE_PATH,
        complaint,
        remedy=_PLAIN_ROOT,
        evidence=_evidence(host),
        predicted=host.recorded,
    )


def _backing_obstacle(host: HostFacts) -> ProbeResult | None:
    root = host.graph_root
    if root.filesystem in _REFUSED:
        inside = f" (this is a {host.container} container)" if host.container else ""
        why = f"{inside}, which cannot be a writable branch of aufs"
    elif host.recorded and root.filesystem not in _KNOWN_TO_WORK:
        why = ", and only a trial on the host could tell whether aufs can write to that"
    else:
        return None
    return ProbeResult.no(
        Reason.WRONG_BACKING_FS,
        f"the graph root {root.path} is on {root.filesystem}{why}",
        remedy=_REFUSED.get(root.filesystem, _ELSEWHERE),
        evidence=_evidence(host),
        predicted=host.recorded,
    )


def _trial(host: HostFacts) -> ProbeResult:
    found: list[bool] = []

    def trial(scratch: Path) -> str:
        found.append(_takes_dirperm1(scratch))
        return _try_aufs(scratch, dirperm1=found[0])

    failure = try_mount(
        host,
        "aufs",
        trial,
        remedies={
            Reason.NO_KERNEL_SUPPORT: _kernel_remedy(host),
            Reason.WRONG_BACKING_FS: f"{_ELSEWHERE}; for aufs's reason: dmesg | grep aufs",
            Reason.TRIAL_FAILED: "see the kernel's log: dmesg | grep aufs",
        },
        evidence=_evidence(host),
    )
    return failure or ProbeResult.yes(
        f"a trial aufs of three branches on {host.graph_root.filesystem} worked",
        capabilities=_CAPABILITIES,
        evidence={**_evidence(host), "dirperm1": "yes" if found[0] else "no"},
    )


def _try_aufs(scratch: Path, *, dirperm1: bool) -> str:
    """Mount in two calls, delete and list; what is wrong, or nothing."""
    trial.make_lowers(scratch / "one", scratch / "two")
    for name in ("one/hidden", "two/.wh.hidden"):
        (scratch / name).touch()
    for name in ("upper", "merged"):
        (scratch / name).mkdir()
    xino = _xino_options(_find_xino_directory(), scratch.name, read_only=False)
    plan = plan_mounts(
        (f"{scratch}/upper=rw", f"{scratch}/two=ro+wh", f"{scratch}/one=ro+wh"),
        _settings(xino, dirperm1=dirperm1),
        read_only=False,
        per_call=2,
    )
    # Unmounted here rather than with the namespace: aufs finishes its work before the branches go.
    with mount.mounted(plan, scratch / "merged"):
        return trial.delete_and_list(scratch / "merged")


def _takes_dirperm1(scratch: Path) -> bool:
    """Whether aufs takes the option (older ones say EINVAL); only a mount can tell."""
    branch, union = scratch / "branch", scratch / "union"
    branch.mkdir()
    union.mkdir()
    # Read-only and without xino: it mounts on any filesystem and writes nothing.
    options = (f"br={branch}=ro", "noxino", "dirperm1", "ro")
    try:
        with mount.mounted((Mount("aufs", "none", options=options),), union):
            return True
    except MountError:
        return False
