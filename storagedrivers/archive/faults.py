"""Whose fault it is that an entry of a tar cannot be made."""

from __future__ import annotations

import errno
import os

from storagedrivers.archive.header import Entry
from storagedrivers.errors import DiffError, MalformedDiffError
from storagedrivers.linux import namespace

_ENTRYS_FAULT = frozenset(
    (
        *(errno.EINVAL, errno.ENAMETOOLONG, errno.EOVERFLOW),
        *(errno.ERANGE, errno.EMLINK, errno.EFBIG),
    )
)


def fault_of(entry: Entry, error: Exception) -> DiffError | None:
    """The error that names the entry; None where it is named already, or not at fault."""
    if isinstance(error, DiffError):
        if error.entry is not None:
            return None
        return type(error)(error.brief, entry=entry.name, resolution=error.resolution)
    if isinstance(error, ValueError | OverflowError):
        return MalformedDiffError(str(error), entry=entry.name)
    return _fault_of_call(entry, error) if isinstance(error, OSError) else None


def _fault_of_call(entry: Entry, error: OSError) -> DiffError | None:
    """What the entry asks for that cannot be; None where it is not the entry's fault."""
    owned = entry.uid or entry.gid
    if error.errno == errno.EINVAL and owned and namespace.in_user_namespace():
        return DiffError(
            f"its owner {entry.uid}:{entry.gid} is not mapped in this user namespace",
            entry=entry.name,
            resolution="run as root, or map the owners of the layer, which unshare --map-auto"
            " does where /etc/subuid and /etc/subgid give this user some",
        )
    if error.errno in _ENTRYS_FAULT:
        return MalformedDiffError(f"it cannot be made: {error.strerror}", entry=entry.name)
    if error.errno == errno.EPERM and os.geteuid() != 0:
        return DiffError(
            f"this user may not make it with owner {entry.uid}:{entry.gid}",
            entry=entry.name,
            resolution="run as root, or in a user namespace that maps the owners of the layer",
        )
    return None
