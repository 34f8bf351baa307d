"""What a later entry of the same tar replaces: inodes that come again, holes, time and memory."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import archives
import pytest
from capabilities import need

from storagedrivers.archive.expect import expect
from storagedrivers.archive.kept import PAYLOAD_SUFFIX, reassemble
from storagedrivers.archive.places import _OPEN_DIRECTORIES
from storagedrivers.archive.unpack import unpack
from storagedrivers.errors import DiffLimitError, MalformedDiffError
from storagedrivers.linux.tree import opened_directory
from storagedrivers.model import WhiteoutFormat


class Place:
    """A layer, a lower below it, and the kept headers."""

    def __init__(self, root: Path) -> None:
        self.layer, self.lower, self.kept = root / "layer", root / "lower", root / "kept"
        self.layer.mkdir(parents=True)
        self.lower.mkdir()

    @contextmanager
    def opened(self) -> Iterator[tuple[int, int]]:
        with opened_directory(self.layer) as layer, opened_directory(self.lower) as lower:
            yield layer, lower

    def add(self, data: bytes) -> None:
        """Unpack, see that the tar comes back, and that the tree is what its headers say."""
        with self.opened() as (layer, lower):
            result = unpack(
                io.BytesIO(data),
                layer,
                lower_fd=lower,
                whiteouts=WhiteoutFormat.OVERLAY,
                kept=str(self.kept),
            )
            digest = hashlib.sha256()
            reassemble(str(self.kept), layer, digest.update)
            assert result.diff_id == f"sha256:{digest.hexdigest()}"
            nodes = expect(str(self.kept), lower).nodes
        found = {os.path.relpath(path, self.layer) for path in self.layer.rglob("*")}
        assert {os.fsdecode(path) for path in nodes if path} == found


@pytest.fixture
def place(on_filesystem: Callable[[str], Path]) -> Place:
    """On ext4, which gives the next file the inode number of the one that was removed last."""
    need("root", "mount")
    return Place(on_filesystem("ext4") / f"replaced-{os.urandom(6).hex()}")


def test_an_inode_number_that_comes_again_is_no_copy(place: Place) -> None:
    """The copy of a lower file is gone with its last name, whatever gets its number."""
    (place.lower / "below").write_text("below")
    place.add(archives.tar(archives.hard_link(b"x", b"below"), archives.file(b"x", b"new")))
    assert [path.name for path in place.layer.iterdir()] == ["x"]
    assert (place.layer / "x").read_text() == "new"


def test_a_copy_is_made_again_when_its_last_name_is_gone(place: Place) -> None:
    (place.lower / "below").write_text("below")
    place.add(
        archives.tar(
            archives.directory(b"d/"),
            archives.hard_link(b"d/x", b"below"),
            archives.file(b"d", b"a file in its place"),
            archives.file(b"takes the number", b"new"),
            archives.hard_link(b"y", b"below"),
            archives.hard_link(b"z", b"y"),
            archives.file(b"y", b"new"),
        )
    )
    assert (place.layer / "z").read_text() == (place.layer / "below").read_text() == "below"
    assert (place.layer / "z").samefile(place.layer / "below")
    assert (place.layer / "y").read_text() == "new"


def test_a_hole_that_is_replaced_has_no_payload(place: Place) -> None:
    """Else its zeros would come back in the place of the next payload of the same path."""
    place.add(
        archives.tar(
            archives.old_gnu_sparse(b"a", [], b"", 1024),
            archives.file(b"a", b"content"),
            archives.file(b"a", b"more"),
        )
    )


def test_holes_of_what_is_replaced_take_no_room(place: Place) -> None:
    size = 1 << 40
    place.add(
        archives.tar(
            archives.old_gnu_sparse(b"a", [(0, 1), (size - 1, 1)], b"xy", size),
            archives.file(b"a", b"content"),
            archives.file(b"a", b"more"),
        )
    )
    status = os.stat(str(place.kept) + PAYLOAD_SUFFIX)
    assert status.st_size > size
    assert status.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("seconds", [b"99999999999999999999", b"-99999999999999999999"])
@pytest.mark.parametrize("kind", ["directory", "hard link"])
def test_a_time_that_no_kernel_has(place: Place, seconds: bytes, kind: str) -> None:
    """Directories get their times at the end: it is said before, with the entry's name."""
    last = archives.directory(b"d/x")
    if kind == "hard link":
        last = archives.hard_link(b"d/x", b"f")
    with pytest.raises(MalformedDiffError, match=r"d/x.*its time is"):
        place.add(archives.tar(archives.file(b"f"), archives.pax({b"mtime": seconds}), last))


def test_long_paths_of_many_directories_are_refused(place: Place) -> None:
    """One entry implies thousands of directories; each path is remembered."""
    deep = b"/".join([b"n" * 250] * 1500)
    with pytest.raises(DiffLimitError, match="paths and attributes of its directories"):
        place.add(archives.tar(archives.gnu_long(deep + b"/f"), archives.file(b"x")))


def test_symlinks_up_a_deep_tree_keep_few_directories_open(place: Place) -> None:
    deep, up = b"/".join([b"d"] * 1300), b"/".join([b".."] * 1299)
    most = 0

    def count(_: int) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))

    before = len(os.listdir("/proc/self/fd"))
    parts = [
        archives.gnu_long(deep + b"/s")
        + archives.gnu_long(up, link=True)
        + archives.symlink(b"x", b"y"),
        archives.gnu_long(deep + b"/s/new/f") + archives.file(b"x", bytes(8 << 20)),
    ]
    with place.opened() as (layer, _):
        unpack(io.BytesIO(archives.tar(*parts)), layer, progress=count)
    assert (place.layer / "d" / "new" / "f").stat().st_size == 8 << 20
    assert most - before < _OPEN_DIRECTORIES + 10


def test_directories_that_are_replaced_over_and_over_take_linear_time(place: Place) -> None:
    """What is expected of a tar is worked out in no more than a few times what unpacking takes."""
    count = 8000
    pair = archives.directory(b"d") + archives.file(b"d")
    files = [archives.file(b"f%d" % number) for number in range(count)]
    begin = time.process_time()
    with place.opened() as (layer, _):
        unpack(io.BytesIO(archives.tar(*files, pair * (count // 2))), layer, kept=str(place.kept))
    unpacked = time.process_time()
    nodes = expect(str(place.kept), None).nodes
    assert len(nodes) == count + 2
    assert time.process_time() - unpacked < 2 * (unpacked - begin)
