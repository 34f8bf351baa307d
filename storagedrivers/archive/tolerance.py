"""What a filesystem may make of a tar's metadata without being wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from storagedrivers.archive.expect import Node
from storagedrivers.archive.whiteouts import OVERLAYS_OWN

_WRITTEN = (
    b"opaque",
    b"origin",
    b"impure",
    b"uuid",
    b"upper",
    b"nlink",
    b"protattr",
)  # what the kernel keeps there
_FOREIGN = (b"trusted.SGI_ACL_", b"security.selinux", b"security.SMACK64", b"security.ima")
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")

_SECOND = 1_000_000_000
# What filesystems make of times that they cannot hold, in seconds: ext4 and xfs with and without
# large timestamps.
_CLAMPED = (-(1 << 31), 0, (1 << 31) - 1, (1 << 32) - 1, 15032385535, 16299260424)
_ALWAYS_HELD = range(1 << 31)

_USER, _GROUP, _MASK = 0x02, 0x08, 0x10  # tags of an ACL's entries, <linux/posix_acl.h>
_USER_OBJ, _GROUP_OBJ, _OTHER = 0x01, 0x04, 0x20


class Tolerance(NamedTuple):
    """What a layer need not have, since it could not when its tar came in."""

    attributes: frozenset[bytes] = frozenset()
    any_attribute: bool = False
    devices: bool = False

    @classmethod
    def of(cls, warnings: Sequence[str]) -> Tolerance:
        """Read it from the warnings of :mod:`storagedrivers.archive.metadata`."""
        lost = set()
        for sentence in warnings:
            before, separator, _ = sentence.partition(" was lost: ")
            if separator:
                lost.add(before.rpartition("the attribute ")[2].encode())
        return cls(
            frozenset(lost),
            any_attribute=any(one.startswith("… and ") for one in warnings),
            devices=any("this process may make none" in one for one in warnings),
        )


def is_same_time(expected: int | None, found: int) -> bool:
    """Whether a filesystem may have made *found* of *expected*, both in nanoseconds."""
    if expected is None or expected == found:
        return True
    seconds, rest = divmod(expected, _SECOND)
    found_seconds, found_rest = divmod(found, _SECOND)
    if seconds in _ALWAYS_HELD:
        return seconds == found_seconds and found_rest == 0 and rest != 0  # ext4's small inodes
    return found_seconds in _CLAMPED or seconds == found_seconds


def is_foreign(name: bytes) -> bool:
    """An attribute that no tar brings: of the kernel, or of overlay, which writes some and is led
    astray by others.
    """
    for prefix in OVERLAYS_OWN:
        if name.startswith(prefix):
            return name[len(prefix) :] in _WRITTEN
    return name.startswith(_FOREIGN)


# ACLs: a 4 byte version, then tag, permissions and id of each entry


def _acl(value: bytes) -> list[tuple[int, int, int]]:
    try:
        entries = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]
    except struct.error:
        return []
    return sorted(
        (tag, bits, number if tag in (_USER, _GROUP) else 0) for tag, bits, number in entries
    )


def is_same_attribute(name: bytes, wanted: bytes | None, found: bytes | None) -> bool:
    """Whether the kernel may have made *found* of *wanted*; None is no attribute."""
    if wanted == found:
        return True
    if name not in _ACLS or wanted is None:
        return False
    acl = _acl(wanted)
    if not acl:
        return False
    if found is None:  # one that says no more than the mode is not kept
        return not any(tag in (_USER, _GROUP, _MASK) for tag, _, _ in acl)
    return acl == _acl(found)


def mode_with_acl(node: Node) -> int:
    """Setting an ACL sets the permissions of the mode too."""
    value = (node.xattrs or {}).get(_ACLS[0])
    bits = {tag: bits for tag, bits, _ in _acl(value)} if value else {}
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= bits.keys():
        return node.mode
    group = bits.get(_MASK, bits[_GROUP_OBJ])
    return node.mode & 0o7000 | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]
