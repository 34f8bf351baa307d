"""Reads HostFacts from a root directory: the live ``/``, or a recorded one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from storagedrivers.errors import GraphRootError
from storagedrivers.host.facts import Disk, GraphRoot, HostFacts, OsRelease
from storagedrivers.linux import namespace, syscalls
from storagedrivers.linux.mountinfo import find_mount, mount_of, read_mountinfo

ASKED_FILESYSTEMS = ("aufs", "btrfs", "erofs", "fuse", "overlay", "squashfs", "xfs", "zfs")
"""What is looked up among the modules when the kernel does not have it; a module has the
filesystem's name.
"""


def read_host(
    graph_root: str | os.PathLike[str], *, root: str = "/", inventory: bool = True
) -> HostFacts:
    """Read the facts of the host below *root*, for a store at *graph_root*.

    Only on the live root (``/``) is anything measured: in a scratch directory on the filesystem of
    the graph root, or of its nearest ancestor that exists. A recorded root gives facts marked as
    recorded.

    Args:
        graph_root: where the store is or will be.
        root: the host's root directory.
        inventory: look at memory and disks too; no choice of a driver depends on them.

    Raises:
        GraphRootError: the graph root, or what stands where its ancestor should, is not a
            directory.
        OSError: /proc is there and cannot be read.
    """
    live = os.path.abspath(root) == "/"
    path = os.path.abspath(graph_root)
    if live and not sys.platform.startswith("linux"):
        return _other_system(path)
    base = Path(root)
    kernel = _text(base / "proc/sys/kernel/osrelease").strip()
    filesystems = _filesystems(_text(base / "proc/filesystems"))
    facts = HostFacts(
        machine=os.uname().machine if live else "",
        kernel=kernel,
        os=_os_release(base),
        filesystems=filesystems,
        loadable=_loadable(base / "lib/modules" / kernel, filesystems),
        graph_root=_graph_root(path, base),
        container=_container(base),
        recorded=not live,
    )
    if not live:
        return facts
    facts = _measured(facts)
    return _with_inventory(facts) if inventory else facts


def _other_system(path: str) -> HostFacts:
    import platform

    return HostFacts(
        system=platform.system(),
        machine=platform.machine(),
        kernel=platform.release(),
        os=OsRelease(id=platform.system().lower(), name=platform.platform()),
        graph_root=GraphRoot(path=path, probed=_nearest_directory(path)),
        uid=os.geteuid() if hasattr(os, "geteuid") else 0,
        can_mount=False,
    )


def _measured(facts: HostFacts) -> HostFacts:
    """Add what only the live host can tell."""
    from storagedrivers.host.measure import measure

    root = facts.graph_root
    problem, features = measure(root.probed)
    space = os.statvfs(root.probed)
    return facts._replace(
        graph_root=root._replace(
            problem=problem,
            total_bytes=space.f_blocks * space.f_frsize,
            free_bytes=space.f_bavail * space.f_frsize,
            total_inodes=space.f_files,
            free_inodes=space.f_favail,
            **features,  # type: ignore[arg-type]  # all of them bool or None
        ),
        uid=os.geteuid(),
        user_namespace=namespace.in_user_namespace(),
        can_mount=namespace.has_capability(syscalls.CAP_SYS_ADMIN),
    )


def _with_inventory(facts: HostFacts) -> HostFacts:
    """Add memory and disks."""
    import psutil

    disks = []
    for partition in psutil.disk_partitions():
        try:
            usage = psutil.disk_usage(partition.mountpoint)
        except OSError:
            continue  # unmounted meanwhile, or not for this user
        disks.append(
            Disk(
                device=partition.device,
                mountpoint=partition.mountpoint,
                filesystem=partition.fstype,
                total_bytes=usage.total,
                free_bytes=usage.free,
            )
        )
    return facts._replace(memory_bytes=psutil.virtual_memory().total, disks=tuple(disks))


def _text(path: Path) -> str:
    """A file's text; empty where it is not there, or not for this user (/proc with hidepid)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""


def _filesystems(text: str) -> tuple[str, ...]:
    return tuple(sorted(line.split()[-1] for line in text.splitlines() if line.split()))


def _loadable(modules: Path, present: tuple[str, ...]) -> tuple[str, ...] | None:
    """Filesystems that have a module for this kernel, by modules.dep of depmod(8) if there."""
    index = _text(modules / "modules.dep")
    if not index:
        return None
    missing = (name for name in ASKED_FILESYSTEMS if name not in present)
    return tuple(name for name in missing if f"/{name}.ko" in index)


def _os_release(root: Path) -> OsRelease:
    import distro

    live = str(root) == "/"
    release = distro.LinuxDistribution(
        include_lsb=False, include_uname=False, root_dir=None if live else str(root)
    )
    return OsRelease(
        id=release.id() or "linux",
        id_like=tuple(release.like().split()),
        version=release.version(),
        name=release.name(pretty=True) or "Linux",
    )


def _graph_root(path: str, base: Path) -> GraphRoot:
    live = str(base) == "/"
    probed = _nearest_directory(path) if live else path
    if live:
        entry = mount_of(probed)
    else:
        entry = find_mount(read_mountinfo(str(base / "proc/self/mountinfo")), probed)
    if entry is None:
        return GraphRoot(path=path, probed=probed)
    return GraphRoot(
        path=path,
        probed=probed,
        filesystem=entry.filesystem,
        source=entry.source,
        options=entry.options,
    )


def _nearest_directory(path: str) -> str:
    """*path* without symlinks, or its nearest ancestor that exists."""
    real = os.path.realpath(path)
    while not os.path.lexists(real):
        real = os.path.dirname(real)
    if not os.path.isdir(real):
        raise GraphRootError(
            f"the graph root {path} cannot be a directory: {real} is a file",
            resolution="choose another one with --root DIR, or move the file away",
        )
    return real


def _container(root: Path) -> str:
    """What the process runs in, by the marks that container engines leave."""
    named = _text(root / "run/systemd/container").strip()
    if named:
        return named
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    for field in _text(root / "proc/1/environ").split("\0"):
        if field.startswith("container="):
            return field.partition("=")[2]
    cgroups = _text(root / "proc/1/cgroup")
    for word, name in (("kubepods", "kubernetes"), ("docker", "docker"), ("lxc", "lxc")):
        if f"/{word}" in cgroups:
            return name
    return ""
