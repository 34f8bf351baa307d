"""What may differ between a tar and the tree made of it; and how numbers and names are shown."""

from __future__ import annotations

import stat
import struct

import pytest

from storagedrivers.archive.expect import Node
from storagedrivers.archive.metadata import Metadata
from storagedrivers.archive.tolerance import (
    Tolerance,
    is_foreign,
    is_same_attribute,
    is_same_time,
    mode_with_acl,
)
from storagedrivers.cli import output

SECOND = 1_000_000_000
ACCESS = b"system.posix_acl_access"
UNDEFINED = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        (5 * SECOND + 7, 5 * SECOND + 7, True),
        (None, 12, True),
        (5 * SECOND + 7, 5 * SECOND, True),  # ext4 with small inodes keeps seconds
        (5 * SECOND + 7, 5 * SECOND + 8, False),
        (5 * SECOND, 6 * SECOND, False),
        (0, SECOND, False),
        (2**35 * SECOND, 15032385535 * SECOND, True),  # ext4
        (2**35 * SECOND, 16299260424 * SECOND, True),  # xfs
        (2**35 * SECOND, 2**35 * SECOND, True),  # btrfs, tmpfs
        (2**35 * SECOND, 77 * SECOND, False),
        (-(2**33) * SECOND, -(2**31) * SECOND, True),
        (-5 * SECOND, -6 * SECOND, False),
    ],
)
def test_times_that_a_filesystem_cannot_hold(expected: int | None, found: int, same: bool) -> None:
    assert is_same_time(expected, found) is same


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


MINIMAL = acl((1, 6, UNDEFINED), (4, 4, UNDEFINED), (32, 4, UNDEFINED))
NAMED = acl((1, 6, UNDEFINED), (2, 7, 5), (4, 4, UNDEFINED), (16, 7, UNDEFINED), (32, 0, 0))


def test_acls_are_compared_by_what_they_say() -> None:
    assert is_same_attribute(ACCESS, MINIMAL, None)  # the mode says as much
    assert not is_same_attribute(ACCESS, NAMED, None)
    again = acl((1, 6, 0), (2, 7, 5), (4, 4, 0), (16, 7, 0), (32, 0, UNDEFINED))
    assert is_same_attribute(ACCESS, NAMED, again)
    other = acl((1, 6, 0), (2, 7, 6), (4, 4, 0), (16, 7, 0), (32, 0, 0))
    assert not is_same_attribute(ACCESS, NAMED, other)
    assert not is_same_attribute(ACCESS, None, NAMED)
    assert not is_same_attribute(b"user.x", b"1", b"2")
    assert not is_same_attribute(ACCESS, b"short", b"other")


@pytest.mark.parametrize(
    ("value", "mode"), [(None, 0o4640), (MINIMAL, 0o4644), (NAMED, 0o4670), (b"broken", 0o4640)]
)
def test_an_acl_sets_the_mode(value: bytes | None, mode: int) -> None:
    xattrs = None if value is None else {ACCESS: value}
    assert mode_with_acl(Node(stat.S_IFREG, Metadata(0o4640, 0, 0, 0, xattrs))) == mode


def test_attributes_that_no_tar_brings() -> None:
    for name in (b"trusted.overlay.opaque", b"user.overlay.origin", b"security.selinux"):
        assert is_foreign(name)
    for name in (b"trusted.overlay.redirect", b"user.overlay.metacopy", b"user.x", b"trusted.x"):
        assert not is_foreign(name)


def test_what_could_not_be_kept_is_not_missed() -> None:
    found = Tolerance.of(
        [
            "'f': the attribute user.x was lost: Operation not supported",
            "'d': a device was left out: this process may make none",
        ]
    )
    assert found == (frozenset({b"user.x"}), False, True)
    assert Tolerance.of(["… and 3 more warnings"]).any_attribute
    assert Tolerance.of([]) == Tolerance()


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (150 << 20, "150 MiB"),
        (1536 << 20, "1.5 GiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_sizes_for_people(count: int | None, shown: str) -> None:
    assert output.size(count) == shown


def test_durations_for_people() -> None:
    assert [output.duration(one) for one in (0.4, 59, 60, 7200, 200_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "2 h",
        "2 d",
    ]


def test_names_of_any_bytes_are_one_line_and_can_be_told_apart() -> None:
    names = {b"a", b"\xff", b"\\xff", b"a\nb", "ü".encode(), b"\x1b[31m", b"a\\nb", b"\x00"}
    shown = {output.visible(name) for name in names}
    assert len(shown) == len(names)
    assert all(one.isprintable() for one in shown)
    assert output.visible("ü\n".encode() + b"\xff\\") == "ü\\n\\xff\\\\"
