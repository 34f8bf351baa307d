"""fuse-overlayfs: overlay in user space, where the kernel does not let this user have its own.

::

    <home>/<layer id>/diff/      what this layer changes, with fuse-overlayfs's own marks
    <home>/<layer id>/work/      the program's own; there as long as the layer may be written to

Every mount has a server: a process that lives from the mount until shortly after the unmount, and
has the layers' directories open meanwhile. :meth:`FuseOverlayfs.seal` waits for its end.

The diff is not offered as a changeset. A deletion is marked as overlay does it, by a character
device 0:0, but an opaque directory in three ways at once: by an attribute
(``trusted.overlay.opaque``, in a user namespace ``user.fuseoverlayfs.opaque``), by a file
``.wh..wh..opq`` and by a device ``.wh..opq``. No format of whiteouts that there is says all that.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from storagedrivers.driver import (
    Capability,
    HostFacts,
    Mount,
    ProbeResult,
    Reason,
    StorageDriver,
    Usage,
    bind,
    kernel_obstacle,
    try_mount,
)
from storagedrivers.errors import ReadOnlyError
from storagedrivers.linux import holders, mount, tree, trial
from storagedrivers.linux.mountinfo import read_mountinfo

__all__ = ["FuseOverlayfs"]

_PROGRAM = "fuse-overlayfs"
_TYPE = f"fuse3.{_PROGRAM}"
_DEVICE = "/dev/fuse"
_ORIGIN = "user.fuseoverlayfs.origin"
_CAPABILITIES = frozenset({Capability.CHEAP_FORK})
_USER_NAMESPACE = (4, 18)  # Linux 4.18 lets a user namespace mount fuse

# Seconds. A server that knew 100,000 files, all copied up, needed less than 0.3 to end.
_PATIENCE = 3.0


class FuseOverlayfs(StorageDriver):
    """Layers as the lower and upper directories of fuse-overlayfs."""

    name = "fuse-overlayfs"
    max_lowers = 500  # their paths are one argument of a program: 128 KiB, MAX_ARG_STRLEN

    # Measured with 1.10 on Linux 6.18.
    exceptions: ClassVar[Mapping[str, str]] = {
        "test_deep_trees": "a path that is longer than PATH_MAX is not shown",
        "test_holes_stay_holes": "without reflinks a copy-up writes the holes of a sparse file",
        "test_lower_hard_links_act_as_declared": (
            "a write shows in every name while mounted, and afterwards in one, perhaps another"
        ),
        "test_overlays_own_names_mean_nothing": (
            "user.overlay.opaque can be set, is kept under its own name and hides what is below"
        ),
        "test_setgid_directories": "a lower directory loses setgid when something is made in it",
        "test_special_files": (
            "changing a fifo of a lower layer is EIO, and it becomes an empty file by its rename"
        ),
        "test_times_of_what_is_not_changed": (
            "a directory gets a new time when something below it is copied up, a lower symlink"
            " when it is renamed"
        ),
    }

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        """Mounts two lowers and an upper beside the graph root, deletes in them and lists."""
        if obstacle := kernel_obstacle(host, "fuse") or _path_obstacle(host, home):
            return obstacle
        if host.recorded:
            return _age_obstacle(host) or _prediction(host)
        return _program_obstacle() or _device_obstacle(host) or _trial(host)

    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        """Make the directories; the root directory starts as the one below it."""
        self.refuse_size(size)
        self.check_depth(lowers)
        below = [self._diff(lower) for lower in lowers]
        with self.new_layer(layer) as path:
            (path / "work").mkdir(mode=0o700)  # first: a layer without it is a sealed one
            self.make_root(f"{path}/diff", below=below[0] if below else None)

    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        """A fuse mount, or a bind mount where one directory is all there is."""
        self.check_depth(lowers)
        diff, below = self._diff(layer), [self._diff(lower) for lower in lowers]
        if not read_only and not self._is_writable(layer):
            raise ReadOnlyError(f"layer {layer} is sealed", resolution="create a layer above it")
        if not lowers:
            return (bind(diff, read_only=read_only),)
        if read_only:
            options = [_lowerdir([diff, *below]), "ro"]
        else:
            options = [
                *_writable(below, diff, self._work(layer)),
                *(["volatile"] if scratch else []),
            ]
        # fuse mounts have "nodev", which overlay has not. In a user namespace it stays.
        return (Mount(_TYPE, _PROGRAM, options=(*options, "dev")),)

    def seal(self, layer: str, lowers: Sequence[str]) -> None:
        """Prove that neither a server nor another process has the diff; then it gets its last
        touch, and the work directory goes.

        The proof is /proc, which shows servers of other users to root only.
        """
        diff = self._diff(layer)
        if not self._is_writable(layer):
            return
        self.refuse_if_used(layer, _users(diff))
        if lowers:
            _forget_origins(diff)
        with tree.opened_directory(self.layer_path(layer), follow_symlinks=True) as fd:
            tree.remove_tree(fd, "work")

    def usage(self, layer: str) -> Usage:
        """What the diff takes; the work directory is the program's."""
        return tree.measure_tree(self._diff(layer))

    def status(self) -> Mapping[str, str]:
        """Where the program is, and how many layers there are."""
        return {
            "Program": shutil.which(_PROGRAM) or "not installed",
            "Layers": str(sum(1 for _ in self.layers())),
        }

    def _diff(self, layer: str) -> str:
        return self.directory_in(layer, "diff")

    def _work(self, layer: str) -> str:
        return f"{self.layer_path(layer)}/work"

    def _is_writable(self, layer: str) -> bool:
        return os.path.isdir(self._work(layer))


# Options. libfuse splits them at commas, and takes one backslash away. The program then splits
# every path at colons, those of the upper too; up to version 1.14 nothing escapes a colon.


def _writable(lowers: Iterable[str], upper: str, work: str) -> tuple[str, ...]:
    return _lowerdir(lowers), f"upperdir={_escape(upper)}", f"workdir={_escape(work)}"


def _lowerdir(paths: Iterable[str]) -> str:
    return "lowerdir=" + ":".join(map(_escape, paths))


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,")


# Sealing


def _users(diff: str) -> list[holders.Holder]:
    """Who may still write to *diff*; servers that are about to end are not."""
    users = holders.find_writers(diff)
    servers = list(_servers(diff)) if users else []
    if servers and not any(map(_is_mounted, servers)):
        _wait_for_end(servers)
        users = holders.find_writers(diff)
    return users


def _servers(directory: str) -> Iterator[int]:
    """The processes of fuse-overlayfs that have *directory* open."""
    status = os.stat(directory)
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if _command(pid) == _PROGRAM and _has_open(pid, status):
                yield pid


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    descriptors = f"/proc/{pid}/fd"
    for fd in os.listdir(descriptors):
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.path.samestat(os.stat(f"{descriptors}/{fd}"), wanted):
                return True
    return False


def _is_mounted(pid: int) -> bool:
    """Whether the server's mount is where it was made; if not, it may still be elsewhere."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        entries = read_mountinfo(f"/proc/{pid}/mountinfo")
    except OSError:
        return False
    mountpoint = os.path.realpath(os.fsdecode(words[-2]))
    return any(one.mountpoint == mountpoint and one.source == _PROGRAM for one in entries)


def _wait_for_end(pids: Iterable[int]) -> None:
    """Return when the processes have ended, or had the time that a server needs for it."""
    deadline = time.monotonic() + _PATIENCE
    for pid in pids:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            finally:
                os.close(fd)


def _forget_origins(diff: str) -> None:
    """Take the notes away that say which lower file a copied one was.

    The program gives both one inode number, and then takes them for hard links: of a lower file
    with several names, the first one that is looked up would decide what all of them show.
    """
    top = os.open(diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pending = [""]
        while pending:
            directory = pending.pop()
            names = _forget_origins_in(top, directory)
            pending += [f"{directory}/{name}" if directory else name for name in names]
    finally:
        os.close(top)


def _forget_origins_in(top: int, directory: str) -> list[str]:
    """Do it for the files of one directory; the names of those below."""
    fd = tree.open_below(top, directory)
    directories = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    _remove_attribute(f"/proc/self/fd/{fd}/{entry.name}", _ORIGIN)
    finally:
        os.close(fd)
    return directories


def _remove_attribute(path: str, attribute: str) -> None:
    try:
        os.removexattr(path, attribute, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


# Probing


def _evidence(host: HostFacts) -> dict[str, str]:
    return {"filesystem": host.graph_root.filesystem or "unknown"}


def _path_obstacle(host: HostFacts, home: Path) -> ProbeResult | None:
    path = str(home) if host.recorded else os.path.realpath(home)
    if ":" not in path:
        return None
    return ProbeResult.no(
        Reason.UNSUITABLE_PATH,
        f"{_PROGRAM} takes a colon for the end of a path, and there is one in {path}",
        remedy="choose a graph root without a colon in its path: --root DIR",
        predicted=host.recorded,
    )


def _age_obstacle(host: HostFacts) -> ProbeResult | None:
    if not host.user_namespace or host.kernel_version >= _USER_NAMESPACE:
        return None
    return ProbeResult.no(
        Reason.KERNEL_TOO_OLD,
        f"kernel {host.kernel} does not let a user namespace mount fuse; Linux 4.18 does",
        remedy="run as root, or upgrade the kernel",
        predicted=True,
    )


def _prediction(host: HostFacts) -> ProbeResult:
    return ProbeResult.yes(
        f"kernel {host.kernel} has fuse; it works if the program {_PROGRAM} is installed there",
        capabilities=_CAPABILITIES,
        evidence=_evidence(host),
        predicted=True,
    )


def _program_obstacle() -> ProbeResult | None:
    if shutil.which(_PROGRAM):
        return None
    return ProbeResult.no(
        Reason.NO_PROGRAM,
        f"the program {_PROGRAM} is not installed",
        remedy=f"install the package of that name, such as with: apt install {_PROGRAM}",
    )


def _device_obstacle(host: HostFacts) -> ProbeResult | None:
    if os.access(_DEVICE, os.R_OK | os.W_OK):
        return None
    if os.path.exists(_DEVICE):
        message, remedy = f"this user may not open {_DEVICE}", f"as root: chmod 666 {_DEVICE}"
    elif host.container:
        message = f"this {host.container} container has no {_DEVICE}"
        remedy = f"start the container with --device {_DEVICE}"
    else:
        message, remedy = f"there is no {_DEVICE}", "as root: modprobe fuse"
    return ProbeResult.no(Reason.NO_PERMISSION, message, remedy=remedy, evidence=_evidence(host))


def _trial(host: HostFacts) -> ProbeResult:
    failure = try_mount(
        host,
        _PROGRAM,
        _try_mount,
        remedies={
            Reason.NO_PERMISSION: f"in a container: --device {_DEVICE} --cap-add SYS_ADMIN",
            Reason.WRONG_BACKING_FS: "put the graph root on ext4, xfs, btrfs or tmpfs",
            Reason.TRIAL_FAILED: f"see what the program says: {_PROGRAM} -f -d -o OPTIONS DIR",
        },
        evidence=_evidence(host),
    )
    return failure or ProbeResult.yes(
        f"a trial mount of two lower layers on {host.graph_root.filesystem} worked",
        capabilities=_CAPABILITIES,
        evidence=_evidence(host),
    )


def _try_mount(scratch: Path) -> str:
    """Mount, delete and list, then see the server end; what is wrong, or nothing."""
    one, two, upper, work, merged = (
        scratch / name for name in ("one", "two", "upper", "work", "merged")
    )
    trial.make_lowers(one, two)
    for directory in (upper, work, merged):
        directory.mkdir()
    options = _writable((str(two), str(one)), str(upper), str(work))
    with mount.mounted((Mount(_TYPE, _PROGRAM, options=options),), merged):
        servers = list(_servers(str(upper)))
        complaint = trial.delete_and_list(merged)
    # A server keeps the private mount namespace, and what it has open in the scratch directory.
    _wait_for_end(servers)
    return complaint
