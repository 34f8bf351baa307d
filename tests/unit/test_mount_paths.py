"""Paths that no mount can have are refused before anything is looked up."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from storagedrivers.errors import InvalidMountError
from storagedrivers.mounts.merge import image_volumes
from storagedrivers.mounts.mount_flag import parse_mount
from storagedrivers.mounts.spec import MountSpec, MountType, check_target, checked
from storagedrivers.mounts.tmpfs_flag import tmpfs_target
from storagedrivers.mounts.volume_flag import parse_volume

BYTES = os.fsdecode(b"/y\xff")
FORMS: dict[str, Callable[[str], object]] = {
    "a target": check_target,
    "-v": lambda path: parse_volume(f"name:{path}"),
    "--mount": lambda path: parse_mount(f"target={path}"),
    "--tmpfs": tmpfs_target,
    "of an image": lambda path: image_volumes({path: {}}),
    "a source": lambda path: checked(MountSpec(MountType.BIND, "/x", path)),
}
LONG = "is too long"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/a\ud800", "is not UTF-8"),
        (f"/a/{'n' * 256}/b", LONG),
        (f"/{'é' * 128}", LONG),
        ("/n" * 2048, LONG),
    ],
    ids=["surrogate", "name", "name in UTF-8", "path"],
)
def test_no_such_path_can_be(form: str, path: str, error: str) -> None:
    with pytest.raises(InvalidMountError, match=error):
        FORMS[form](path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", [f"/a/{'n' * 255}", f"/{'é' * 127}", f"{'/n' * 2047}"])
def test_the_longest_can(form: str, path: str) -> None:
    FORMS[form](path)


@pytest.mark.parametrize("form", FORMS.keys() - {"a source"})
def test_targets_are_utf_8(form: str) -> None:
    with pytest.raises(InvalidMountError, match="is not UTF-8"):
        FORMS[form](BYTES)


def test_sources_are_any_bytes() -> None:
    """The host may have such names."""
    assert parse_volume(f"{BYTES}:/x").source == BYTES
