"""The values that pass between the parts: frozen, without I/O.

Named tuples rather than dataclasses: a class of those costs half a millisecond at each start of the
command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from storagedrivers.errors import UnsafePathError

# At least two characters, so that a driver may keep one-letter directories of its own beside the
# layers; no dot, so that neither ".." nor a hidden directory can be named.
_LAYER_ID = re.compile(r"[0-9a-z][0-9a-z_-]{1,127}")


def check_layer_id(layer: str) -> str:
    """Return *layer* if it may become a directory's name.

    Raises:
        UnsafePathError: it has other characters than ``[0-9a-z_-]``, or not 2 to 128 of them.
    """
    if not _LAYER_ID.fullmatch(layer):
        raise UnsafePathError(
            f"{layer!r} is not a layer id",
            resolution="use 2 to 128 characters of a-z, 0-9, '_' and '-'",
        )
    return layer


def is_layer_id(name: str) -> bool:
    """Whether *name* could be a layer's directory."""
    return _LAYER_ID.fullmatch(name) is not None


class Mount(NamedTuple):
    """One mount as a value, in containerd's shape; applied by :mod:`storagedrivers.linux.mount`.

    Attributes:
        type: a filesystem of the kernel, ``bind``, or ``fuse.NAME`` / ``fuse3.NAME`` for a program.
        source: a device, a directory (for ``bind``) or a name without meaning.
        target: a path below the mountpoint; empty for the mountpoint itself.
        options: as mount(8) has them after ``-o``, with overlay's own escapes in path options.
    """

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


class Capability(StrEnum):
    """What a driver can do on this host; the conformance kit tests what is declared."""

    CHANGESET = "changeset"
    """A layer's directory holds its whole diff and nothing else."""

    CHEAP_FORK = "cheap-fork"
    """``create`` and ``seal`` cost the same whatever the lowers hold."""

    LIVE_SEAL = "live-seal"
    """A layer can be sealed while it is mounted."""

    SIZE_LIMIT = "size-limit"
    """``create(size=…)`` is enforced."""

    RENAME_LOWER_DIRECTORY = "rename-lower-directory"
    """rename(2) works on a directory of a lower layer; otherwise EXDEV, and ``mv`` copies."""

    SHARED_LOWER_LINKS = "shared-lower-links"
    """Hard links that lie in a lower layer stay together when one name is written to."""

    REFLINK = "reflink"
    """File contents are shared with the lower layer until they are written to."""


class WhiteoutFormat(StrEnum):
    """How a changeset directory says that something of a lower layer is gone."""

    OVERLAY = "overlay"
    """A character device 0:0 of the name; ``trusted.overlay.opaque=y`` on a directory."""

    OVERLAY_USER = "overlay-user"
    """As ``OVERLAY``, with ``user.overlay.opaque``: a user namespace."""

    AUFS = "aufs"
    """A file ``.wh.NAME``; ``.wh..wh..opq`` in a directory. The same names as in an OCI layer."""


class Changeset(NamedTuple):
    """A directory with only one layer's changes."""

    path: Path
    whiteouts: WhiteoutFormat


class ChangeKind(StrEnum):
    """As Docker's ``diff`` writes them."""

    ADDED = "A"
    CHANGED = "C"
    DELETED = "D"


class Change(NamedTuple):
    """One path at which a layer differs from what lies below it.

    Attributes:
        kind: how.
        path: relative to the layer's root, without a slash in front; ``b""`` is the root.
    """

    kind: ChangeKind
    path: bytes


class Limits(NamedTuple):
    """What a tar from outside may hold at most.

    Attributes:
        entries: headers, also those that end up as nothing on disk.
        bytes: of the uncompressed tar.
    """

    entries: int = 4_000_000
    bytes: int = 256 << 30


class Unpacked(NamedTuple):
    """What was learnt of a tar while it went in.

    Attributes:
        diff_id: ``sha256:`` and the hex digest of the uncompressed tar.
        diff_size: bytes of the uncompressed tar.
        digest: of the bytes as they came; None where they were compressed and no one asked for it.
        stored_size: how many came.
        compression: ``none``, ``gzip``, ``zstd``, ``xz`` or ``bzip2``.
        size: bytes of the contents of its regular files.
        inodes: how many the layer makes.
        warnings: what could not be kept, a sentence each.
    """

    diff_id: str
    diff_size: int
    digest: str | None
    stored_size: int
    compression: str
    size: int
    inodes: int
    warnings: tuple[str, ...] = ()


class Volume(NamedTuple):
    """A directory that outlives the containers that use it.

    Attributes:
        name: unique in the store.
        driver: the name of the volume driver that made it.
        created: seconds since the epoch.
        labels: what the user says of it.
        options: what the driver was told.
        size: how much it may hold, in bytes; None without a limit.
        anonymous: it was made for one container, which gave it no name.
        seed: the id of the image whose content it was filled with; None where there was none.
    """

    name: str
    driver: str
    created: float
    labels: Mapping[str, str]
    options: Mapping[str, str]
    size: int | None = None
    anonymous: bool = False
    seed: str | None = None


class Usage(NamedTuple):
    """What a layer itself takes on disk: allocated bytes and inodes, hard links counted once."""

    bytes: int
    inodes: int


class FlawKind(StrEnum):
    """What can be done about a flaw."""

    LOST = "lost"
    """Nothing: content is gone."""

    SMALL = "small"
    """The driver's ``mend`` puts it right."""

    SEALED = "sealed"
    """The layer is sealed where it was to be writable."""

    WRITABLE = "writable"
    """The layer is writable where it was to be sealed."""


class Flaw(NamedTuple):
    """Something wrong with how a layer lies on the disk.

    Attributes:
        kind: what can be done about it.
        code: stable, for scripts: ``missing-directory``, ``missing-link``.
        message: a sentence, without the layer's name.
    """

    kind: FlawKind
    code: str
    message: str


class Reason(StrEnum):
    """Why a driver is or is not usable; stable, for scripts."""

    OK = "ok"
    NOT_LINUX = "not-linux"
    NO_KERNEL_SUPPORT = "no-kernel-support"
    KERNEL_TOO_OLD = "kernel-too-old"
    NO_PERMISSION = "no-permission"
    WRONG_BACKING_FS = "wrong-backing-fs"
    OVERLAY_ON_OVERLAY = "overlay-on-overlay"
    NO_D_TYPE = "no-d-type"
    NO_XATTR = "no-xattr"
    NO_PROGRAM = "no-program"
    UNSUITABLE_PATH = "unsuitable-path"
    NO_SPACE = "no-space"
    READ_ONLY = "read-only"
    NOT_WRITABLE = "not-writable"
    TRIAL_FAILED = "trial-failed"
    LOAD_FAILED = "load-failed"
    NAME_CONFLICT = "name-conflict"
    PROBE_FAILED = "probe-failed"


class ProbeResult(NamedTuple):
    """A driver's answer for one host and one directory.

    Attributes:
        supported: whether the driver works there.
        reason: the code; ``ok`` exactly when supported.
        message: one sentence a user understands.
        remedy: what would make it work; empty where nothing would, or nothing has to.
        capabilities: what it can do there; empty when not supported.
        evidence: what was measured: names to short values.
        predicted: from recorded facts, or for want of privilege: nothing was tried.
    """

    supported: bool
    reason: Reason
    message: str
    remedy: str = ""
    capabilities: frozenset[Capability] = frozenset()
    evidence: Mapping[str, str] = {}
    predicted: bool = False

    @classmethod
    def yes(
        cls,
        message: str,
        *,
        capabilities: frozenset[Capability] = frozenset(),
        evidence: Mapping[str, str] | None = None,
        predicted: bool = False,
    ) -> ProbeResult:
        """The driver works."""
        return cls(
            supported=True,
            reason=Reason.OK,
            message=message,
            capabilities=capabilities,
            evidence=evidence or {},
            predicted=predicted,
        )

    @classmethod
    def no(
        cls,
        reason: Reason,
        message: str,
        *,
        remedy: str = "",
        evidence: Mapping[str, str] | None = None,
        predicted: bool = False,
    ) -> ProbeResult:
        """The driver does not work, for *reason*."""
        return cls(
            supported=False,
            reason=reason,
            message=message,
            remedy=remedy,
            evidence=evidence or {},
            predicted=predicted,
        )


def check_probe_result(answer: object) -> None:
    """Check what a plugin's probe returned.

    Raises:
        TypeError: it is no ProbeResult, or a field is of another type.
    """
    if not isinstance(answer, ProbeResult):
        raise TypeError(f"it returned {answer!r}")
    texts = (answer.message, answer.remedy, *answer.evidence.keys(), *answer.evidence.values())
    if not (
        all(isinstance(text, str) for text in texts)
        and isinstance(answer.reason, Reason)
        and all(isinstance(one, Capability) for one in answer.capabilities)
    ):
        raise TypeError(f"a field of {answer!r} is of another type")
