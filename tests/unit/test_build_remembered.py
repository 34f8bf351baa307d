"""Digests of contexts that are kept from build to build."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from storagedrivers.build import remembered
from storagedrivers.build.items import Stamp, stamp_of

DIGEST = "ab" * 32


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("text")
    return directory


def kept(root: Path, context: Path, add: dict[Stamp, str] | None = None) -> dict[Stamp, str]:
    """What is known of a context; *add* is remembered."""
    fd = os.open(context, os.O_RDONLY)
    try:
        with remembered.digests(str(root), fd) as digests:
            found = dict(digests)
            digests.update(add or {})
    finally:
        os.close(fd)
    return found


def settled(path: Path) -> Stamp:
    """A stamp of a file, as if it had changed a minute ago."""
    device, inode, size, *_ = stamp_of(path.stat())
    ago = time.time_ns() - 60_000_000_000
    return device, inode, size, ago, ago


def test_digests_are_there_in_the_next_build(tmp_path: Path, context: Path) -> None:
    one = {settled(context / "file"): DIGEST}
    assert kept(tmp_path, context, one) == {}
    assert kept(tmp_path, context) == one


def test_what_has_just_changed_is_not_remembered(tmp_path: Path, context: Path) -> None:
    kept(tmp_path, context, {stamp_of((context / "file").stat()): DIGEST})
    assert kept(tmp_path, context) == {}


def test_files_of_other_filesystems_are_not_remembered(tmp_path: Path, context: Path) -> None:
    device, *rest = settled(context / "file")
    kept(tmp_path, context, {(device + 1, *rest): DIGEST})  # type: ignore[dict-item]
    assert kept(tmp_path, context) == {}


def test_contexts_do_not_see_each_other(tmp_path: Path, context: Path) -> None:
    kept(tmp_path, context, {settled(context / "file"): DIGEST})
    other = tmp_path / "other"
    other.mkdir()
    assert kept(tmp_path, other) == {}


@pytest.mark.parametrize("damage", [b"", b"x", bytes(96)])
def test_damage_counts_as_nothing(tmp_path: Path, context: Path, damage: bytes) -> None:
    """What a power loss leaves is not believed, and is written again."""
    one = {settled(context / "file"): DIGEST}
    kept(tmp_path, context, one)
    (file,) = (tmp_path / "contexts").iterdir()
    file.write_bytes(damage)
    assert kept(tmp_path, context, one) == {}
    assert kept(tmp_path, context) == one


def test_a_bit_that_flips_is_noticed(tmp_path: Path, context: Path) -> None:
    kept(tmp_path, context, {settled(context / "file"): DIGEST})
    (file,) = (tmp_path / "contexts").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert kept(tmp_path, context) == {}


def test_only_the_last_contexts_stay(tmp_path: Path) -> None:
    for number in range(40):
        directory = tmp_path / f"context-{number}"
        directory.mkdir()
        (directory / "file").write_text("")
        kept(tmp_path, directory, {settled(directory / "file"): DIGEST})
    assert len([*(tmp_path / "contexts").iterdir()]) == 32


def test_a_store_that_cannot_be_written_to_is_no_error(tmp_path: Path, context: Path) -> None:
    (tmp_path / "contexts").write_text("in the way")
    kept(tmp_path, context, {settled(context / "file"): DIGEST})
    assert kept(tmp_path, context) == {}
