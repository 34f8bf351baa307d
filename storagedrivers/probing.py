"""What drivers' probes have in common; plugins import it through :mod:`storagedrivers.driver`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.errors import MountError
from storagedrivers.linux import mount, namespace
from storagedrivers.linux.scratch import scratch_directory
from storagedrivers.model import ProbeResult, Reason

if TYPE_CHECKING:
    from storagedrivers.host import HostFacts


def kernel_obstacle(host: HostFacts, filesystem: str) -> ProbeResult | None:
    """Why *host*'s kernel cannot mount *filesystem* for this process, or None if nothing is in the
    way.

    The checks that every driver on a kernel filesystem starts its probe with.
    """
    if host.system != "Linux":
        return ProbeResult.no(
            Reason.NOT_LINUX,
            f"{filesystem} is a filesystem of Linux, and this is {host.system}",
            predicted=host.recorded,
        )
    if not _is_in_kernel(host, filesystem):
        return ProbeResult.no(
            Reason.NO_KERNEL_SUPPORT,
            f"kernel {host.kernel} has no {filesystem} filesystem and no module for it",
            remedy=f"install a kernel or a module with {filesystem}, then: modprobe {filesystem}",
            predicted=host.recorded,
        )
    if not host.can_mount:
        return ProbeResult.no(
            Reason.NO_PERMISSION,
            "this process may not mount (it has no CAP_SYS_ADMIN), so nothing was tried",
            remedy="run as root, or in a user namespace: unshare --user --map-root-user --mount",
            predicted=True,
        )
    return None


def _is_in_kernel(host: HostFacts, filesystem: str) -> bool:
    if filesystem in host.filesystems or filesystem in (host.loadable or ()):
        return True
    # In a container the modules of the host are not seen; the kernel would load one all the same.
    return host.loadable is None and not host.recorded and mount.is_known(filesystem)


def try_mount(
    host: HostFacts,
    filesystem: str,
    trial: Callable[[Path], str],
    *,
    remedies: Mapping[Reason, str],
    evidence: Mapping[str, str],
) -> ProbeResult | None:
    """Run *trial* beside the graph root, where its mounts are private; why it failed, or None.

    Args:
        host: the live host.
        filesystem: what is mounted, for the sentence.
        trial: gets an empty directory; returns a complaint, or nothing.
        remedies: by reason; some have a usual one.
        evidence: what was measured before.
    """
    try:
        with scratch_directory(host.graph_root.probed) as scratch:
            complaint = namespace.in_private_mount_namespace(lambda: trial(scratch))
    except OSError as error:
        return failed_trial(host, f"mount of {filesystem}", error, remedies, evidence)
    if not complaint:
        return None
    return ProbeResult.no(
        Reason.TRIAL_FAILED,
        f"{filesystem} mounts on {host.graph_root.filesystem}, but {complaint}",
        remedy=remedies.get(Reason.WRONG_BACKING_FS, ""),
        evidence=evidence,
    )


_USUAL_REMEDIES = {
    Reason.NO_PERMISSION: "run as root outside of a container, or give it CAP_SYS_ADMIN",
    Reason.NO_SPACE: "make room on the filesystem of the graph root",
    Reason.READ_ONLY: "mount the filesystem of the graph root read-write",
}


def failed_trial(
    host: HostFacts,
    what: str,
    error: OSError,
    remedies: Mapping[Reason, str],
    evidence: Mapping[str, str],
) -> ProbeResult:
    """What the error of a trial means; *what* was tried, as in "a trial snapshot"."""
    number = error.errno or 0
    reason, message = {
        errno.EPERM: (Reason.NO_PERMISSION, "was not permitted"),
        errno.EACCES: (Reason.NO_PERMISSION, "was not permitted"),
        errno.ENODEV: (
            Reason.NO_KERNEL_SUPPORT,
            f"failed: kernel {host.kernel} could not load its module",
        ),
        errno.EINVAL: (
            Reason.WRONG_BACKING_FS,
            f"was refused by the kernel on {host.graph_root.filesystem or 'this filesystem'}",
        ),
        errno.ENOSPC: (Reason.NO_SPACE, "failed for want of space"),
        errno.EDQUOT: (Reason.NO_SPACE, "failed for want of space"),
        errno.EROFS: (Reason.READ_ONLY, "failed: the filesystem is read-only"),
    }.get(number, (Reason.TRIAL_FAILED, f"failed: {os.strerror(number)}"))
    words = error.details if isinstance(error, MountError) else None
    return ProbeResult.no(
        reason,
        f"a trial {what} {message}",
        remedy=remedies.get(reason) or _USUAL_REMEDIES.get(reason, ""),
        evidence={
            **evidence,
            "errno": errno.errorcode.get(number, ""),
            **({"kernel": words} if words else {}),
        },
    )
