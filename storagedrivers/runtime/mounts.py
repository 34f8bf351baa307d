"""The mounts of a container but for the kernel's own, put together where only its engine sees them.

::

    thread with a mount namespace: sources ─▶ stage ─▶ targets in the root filesystem ─▶ the engine

The engine is started from there, and takes the root filesystem with all that is mounted in it. So
every engine gets the same, no source or target is looked up twice, and nothing is left of them when
the engine has ended or was killed. Two kinds are left to the engine, which finds their sources on
the stage: what lies below ``/proc``, ``/dev`` or ``/sys``, where it mounts something first; and
what spreads, for an engine that makes all private which it takes along.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.linux import stage, syscalls, tree
from storagedrivers.linux.mountinfo import is_below
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.tmpfs import tmpfs_flags, tmpfs_mount, tmpfs_target
from storagedrivers.stores import mount_problems, sources
from storagedrivers.stores.container_mounts import ContainerMount, mounts_of

if TYPE_CHECKING:
    from storagedrivers.linux.rooted import Notes
    from storagedrivers.stores.containers import Container

_NEEDED = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/gnu"),
    *("/proc", "/sys", "/dev"),
)
"""Where programs and what they are made of may lie."""


class Wanted(NamedTuple):
    """One mount that is to be made.

    Attributes:
        target: where, absolute and normal.
        propagation: how it spreads.
        mount: what, if it is a volume or comes from the host.
        tmpfs: or the words of a tmpfs.
        file: or a file of the container's own, or what else is at a path that nobody exchanges.
        read_only: nothing can be written through it.
    """

    target: str
    propagation: str
    mount: ContainerMount | None = None
    tmpfs: str = ""
    file: str = ""
    read_only: bool = False


class Mounts:
    """All mounts of one container.

    Args:
        container: whose.
        files: those of its own that are mounted over the image's, by their targets.
        roots: the directories of the store: what is bound from above them has to let go of what is
            unmounted there.
        more: what is mounted besides.
    """

    def __init__(
        self,
        container: Container,
        files: Mapping[str, str],
        roots: Sequence[str] = (),
        more: Sequence[Wanted] = (),
    ) -> None:
        config = container.config
        asked = [_wanted(one, roots) for one in mounts_of(container)]
        tmpfs = [Wanted(tmpfs_target(one), "rprivate", tmpfs=one) for one in _tmpfs_words(config)]
        by_target = {
            path: Wanted(path, "rprivate", file=file, read_only=bool(config.get("ReadOnly")))
            for path, file in files.items()
        }
        # Of two at one place the later one would hide the other.
        by_target |= {one.target: one for one in (*tmpfs, *asked, *more)}
        self.wanted = sorted(by_target.values(), key=lambda one: one.target.count("/"))

    @property
    def targets(self) -> frozenset[str]:
        """Where something is mounted."""
        return frozenset(one.target for one in self.wanted)

    @property
    def propagation(self) -> str:
        """How the root filesystem has to spread, for what is in it; empty for not at all."""
        words = {one.propagation for one in self.wanted}
        if words & {"shared", "rshared"}:
            return "shared"
        return "rslave" if words & {"slave", "rslave"} else ""


def _wanted(mount: ContainerMount, roots: Sequence[str]) -> Wanted:
    target = f"/{os.path.normpath(mount.target).lstrip('/')}"
    if mount.type == "tmpfs":
        return Wanted(target, "rprivate", tmpfs=_words_of(mount))
    propagation = mount.propagation or "rprivate"
    if not mount.propagation and mount.type == "bind":
        source = os.path.normpath(mount.source)
        if any(is_below(os.path.realpath(root), source) for root in roots):
            propagation = "rslave"
    return Wanted(target, propagation, mount=mount, read_only=mount.read_only)


def _words_of(mount: ContainerMount) -> str:
    options = ["ro"] if mount.read_only else []
    if mount.tmpfs_size is not None:
        options.append(f"size={mount.tmpfs_size}")
    if mount.tmpfs_mode is not None:
        options.append(f"mode={mount.tmpfs_mode & 0o7777:o}")
    return f"{mount.target}:{','.join(options)}"


def _tmpfs_words(config: Mapping[str, Any]) -> Sequence[str]:
    value = config.get("Tmpfs") or ()
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise RuntimeFailedError(
            "the container's Tmpfs is no list of texts",
            resolution="give it another one; the image itself may be damaged",
        )
    return value


def by_depth(mounts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mounts of config.json in their order: what lies deeper is mounted later."""
    return sorted(mounts, key=lambda one: str(one["destination"]).count("/"))


# Where the engine is to be started


class Where(NamedTuple):
    """What :func:`assemble` has to know of the container.

    Attributes:
        rootfs: where it is mounted.
        stage: an empty directory, or none yet, which no one else uses.
        directory: the working directory of its process.
        spreads: the engine keeps how mounts spread that it takes along.
        devices: a cgroup limits them.
        needed: what else the engine uses.
        notes: is told what is made in the root filesystem for mounts.
    """

    rootfs: str
    stage: str
    directory: str = "/"
    spreads: bool = True
    devices: bool = True
    needed: tuple[str, ...] = ()
    notes: Notes | None = None


def assemble(mounts: Mounts, paths: Mapping[str, str], where: Where) -> list[dict[str, Any]]:
    """Have all mounts in the root filesystem; the calling thread has a mount namespace for it.

    Args:
        mounts: those of the container.
        paths: where the files of its volumes are.
        where: the directories.

    Returns:
        What is left to the engine, as ``mounts`` in config.json has it.

    Raises:
        InvalidMountError: a source is not there, or cannot spread as it should.
        RuntimeFailedError: a target cannot be made, or the kernel refused.
        OSError: no permission to mount.
    """
    with ExitStack() as stack:
        opened = [_source(one, paths, stack) for one in mounts.wanted]
        # A container that sees all of the host would keep what others have mounted.
        stage.hide(os.path.dirname(where.rootfs))
        staged = stage.Stage(where.rootfs)
        for number, (one, fd) in enumerate(zip(mounts.wanted, opened, strict=True)):
            if fd is not None:
                _prepare(staged, str(number), one, fd, where)
        os.makedirs(where.stage, mode=0o700, exist_ok=True)
        staged.move(where.stage)
        rootfs = stack.enter_context(Rootfs(where.rootfs, where.notes))
        placing = _Placing(rootfs, where)
        for number, one in enumerate(mounts.wanted):
            placing.place(one, os.path.join(where.stage, str(number)))
        with suppress(OSError):  # as the engine will see, too
            os.close(rootfs.make_directory(where.directory))
    stage.let_go(
        [*_NEEDED, *filter(os.path.isabs, sys.path), where.rootfs, where.stage, *where.needed]
    )
    return placing.left


def _source(one: Wanted, paths: Mapping[str, str], stack: ExitStack) -> int | None:
    if one.tmpfs:
        return None
    if one.mount is None:
        fd = os.open(one.file, os.O_PATH | os.O_CLOEXEC)
    else:
        fd = sources.opened(one.mount, paths)
    stack.callback(os.close, fd)
    if one.mount is not None:
        sources.check_spreading(one.mount, fd)
    return fd


def _prepare(staged: stage.Stage, name: str, one: Wanted, fd: int, where: Where) -> None:
    try:
        _stage(staged, name, one, fd, where)
    except OSError as error:
        raise RuntimeFailedError(
            f"what is to be mounted at {one.target} cannot be: {os.strerror(error.errno or 0)}",
            details=str(error),
        ) from error


def _stage(staged: stage.Stage, name: str, one: Wanted, fd: int, where: Where) -> None:
    mount = one.mount
    recursive = mount.recursive if mount is not None else ""
    point = staged.bind(fd, name, recursive=recursive != "disabled")
    stage.set_propagation(point, one.propagation)
    if one.read_only:
        deep = recursive not in ("disabled", "writable")
        if not stage.set_read_only(point, recursive=deep) and recursive == "readonly":
            raise RuntimeFailedError(
                f"what is mounted below {one.target} cannot be made read-only by this kernel",
                resolution="Linux 5.12 can; or leave bind-recursive=readonly out",
            )
    if _is_closed(one, where):
        stage.set_no_devices(point)


def _is_closed(one: Wanted, where: Where) -> bool:
    """Whether no cgroup keeps a device that lies in a volume from being the host's disk."""
    return not where.devices and (one.mount is None or bool(one.mount.name))


class _Placing:
    """The way of mounts from the stage to their targets.

    Attributes:
        left: what the engine has to mount.
    """

    def __init__(self, rootfs: Rootfs, where: Where) -> None:
        self._rootfs = rootfs
        self._where = where
        self._own = tree.mount_id(rootfs.fileno())
        self._staged: dict[str, str] = {}
        self.left: list[dict[str, Any]] = []

    def place(self, one: Wanted, point: str) -> None:
        """Mount one, or leave it to the engine.

        Args:
            one: what is wanted; those above it come first.
            point: where it was staged, but for a tmpfs.
        """
        try:
            self._place(one, point)
        except OSError as error:
            raise RuntimeFailedError(
                f"nothing can be mounted at {one.target} in the container:"
                f" {os.strerror(error.errno or 0)}",
                resolution="choose another target, or make it in the image or the volume",
            ) from error

    def _place(self, one: Wanted, point: str) -> None:
        target = self._resolved(one.target)
        above = [path for path in self._staged if is_below(target, path)]
        if above:  # in what the engine will mount there, and with it
            top = max(above, key=len)
            with Rootfs(self._staged[top]) as root:
                self._mount(root, os.path.relpath(target, top), one, point)
        elif mount_problems.is_kernels(target):
            self._refuse_impossible(one, target, point)
            self._leave(one, target, point)
        elif not self._where.spreads and one.propagation in sources.SPREADING:
            os.close(_made(self._rootfs, target, one.target, is_directory=os.path.isdir(point)))
            self._leave(one, target, point)
        else:
            self._mount(self._rootfs, target, one, point)

    def _resolved(self, target: str) -> str:
        try:
            return self._rootfs.resolve(target)
        except NotADirectoryError as error:
            raise mount_problems.file_above(target) from error

    def _refuse_impossible(self, one: Wanted, target: str, point: str) -> None:
        if any(is_below(target, other["destination"]) for other in self.left):
            return
        if one.tmpfs:
            read_only = "ro" in tmpfs_mount(one.tmpfs)["options"]
            shown = mount_problems.Shown(path="", is_tmpfs=True, read_only=read_only)
        else:
            shown = mount_problems.Shown(os.path.isdir(point), point, read_only=one.read_only)
        problem = mount_problems.at_kernels(target, shown)
        if problem is not None:
            raise problem

    def _leave(self, one: Wanted, target: str, point: str) -> None:
        if one.tmpfs:
            self.left.append({**tmpfs_mount(one.tmpfs), "destination": target})
            return
        if os.path.isdir(point):
            self._staged[target] = point
        mount = one.mount
        kind = "bind" if mount is not None and mount.recursive == "disabled" else "rbind"
        options = [kind, one.propagation]
        # It has them already, and an engine may take them off.
        options += ["ro"] if one.read_only else []
        options += ["nodev"] if _is_closed(one, self._where) else []
        self.left.append(
            {"destination": target, "type": "bind", "source": point, "options": options}
        )

    def _mount(self, root: Rootfs, target: str, one: Wanted, point: str) -> None:
        # It has the mode of what it covers, if that was there.
        words = tmpfs_mount(one.tmpfs, root, target)["options"] if one.tmpfs else ()
        is_directory = bool(one.tmpfs) or os.path.isdir(point)
        fd = _made(root, target, one.target, is_directory=is_directory)
        try:
            if tree.mount_id(fd) != self._own and "shared" in stage.spreads(fd):
                if not one.file:
                    raise mount_problems.seen_outside(one.target)
                return  # who mounts a directory of the host there has one of his own
            if one.tmpfs:
                flags, options = tmpfs_flags(words)
                syscalls.mount("tmpfs", f"/proc/self/fd/{fd}", "tmpfs", flags, options)
            else:
                stage.place(point, fd)
        finally:
            os.close(fd)


def _made(root: Rootfs, path: str, target: str, *, is_directory: bool) -> int:
    """What is at *path*, open; made where it is missing. Errors name the *target*."""
    try:
        fd = root.make_directory(path) if is_directory else root.make_file(path)
    except NotADirectoryError as error:
        if root.status(path) is None:
            raise mount_problems.file_above(target) from error
        raise mount_problems.misfit(target, is_directory=True) from error
    if not is_directory and stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise mount_problems.misfit(target, is_directory=False)
    return fd
