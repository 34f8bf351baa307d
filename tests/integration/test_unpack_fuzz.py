"""Archives that nobody thought of: seeds with bytes changed, and entries in any order.

Whatever the bytes: unpacking ends well or in a typed error, nothing outside changes, nothing stays
open, and what went in comes out again byte for byte. And for entries in any order the two ways to
apply a layer, as a changeset above the lower and into a whole tree, show the same.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import archives
import pytest
from capabilities import need
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storagedrivers.archive.kept import reassemble
from storagedrivers.archive.pack import pack
from storagedrivers.archive.unpack import unpack
from storagedrivers.errors import DiffError
from storagedrivers.linux import copy
from storagedrivers.linux.tree import opened_directory
from storagedrivers.model import Changeset, Limits, WhiteoutFormat
from storagedrivers.testing.changesets import lay_over
from storagedrivers.testing.trees import Tree, differences, read_tree

SEEDS = sorted((Path(__file__).parents[1] / "corpus").glob("*.seed"))
LIMITS = Limits(entries=500, bytes=4 << 20)
FUZZING = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Place(NamedTuple):
    top: Path
    lower: Path

    def fresh(self) -> Path:
        layer = self.top / "store/layer"
        shutil.rmtree(layer, ignore_errors=True)
        layer.mkdir()
        return layer


@pytest.fixture(scope="module")
def place(made_filesystems: Callable[[str], Path]) -> Iterator[Place]:
    """Sentinels, a lower, and room for a layer."""
    need("root")
    top = made_filesystems("tmpfs") / f"fuzz-{os.urandom(6).hex()}"
    lower = top / "store/lower"
    lower.mkdir(parents=True)
    for directory in ("outside", "store/sibling"):
        (top / directory).mkdir()
        (top / directory / "a").write_bytes(b"untouched")
    (top / "a").write_bytes(b"untouched")
    data = archives.tar(
        archives.directory(b"a/", mode=0o711, mtime=5),
        archives.file(b"a/a", b"1", mtime=6),
        archives.directory(b"a/b/", mtime=7),
        archives.file(b"a/b/c", b"2", mtime=8),
        archives.symlink(b"b", b"a", mtime=9),
        archives.file(b"c", b"3", mode=0o4755, mtime=10),
        archives.symlink(b"out", b"../../outside", mtime=11),
    )
    with opened_directory(lower) as fd:
        unpack(io.BytesIO(data), fd)
    yield Place(top, lower)
    shutil.rmtree(top, ignore_errors=True)


def _outside(place: Place) -> dict[str, Tree]:
    found = {name: read_tree(place.top / name) for name in ("outside", "store/sibling")}
    found["lower"] = read_tree(place.lower)
    found["names"] = {name.encode(): read_tree(place.top)[b"a"] for name in os.listdir(place.top)}
    return found


def _apply(place: Place, data: bytes, mode: str) -> tuple[Path, bool]:
    """Unpack into a fresh layer and check what holds for every archive; whether it went in.

    Args:
        mode: ``tree``, ``base``, or the format of a changeset.
    """
    layer = place.fresh()
    kept = place.top / "store/kept"
    for path in place.top.glob("store/kept*"):
        path.unlink()
    if mode == "tree":
        copy.copy_tree(place.lower, layer)
    elif mode != "base":
        copy.copy_root_metadata(place.lower, layer)  # as drivers do
    before = _outside(place)
    descriptors, threads = os.listdir("/proc/self/fd"), threading.enumerate()
    whole = False
    with opened_directory(layer) as target, opened_directory(place.lower) as lower:
        try:
            result = unpack(
                io.BytesIO(data),
                target,
                lower_fd=None if mode == "base" else lower,
                whiteouts=None if mode in ("base", "tree") else WhiteoutFormat(mode),
                kept=str(kept),
                limits=LIMITS,
            )
            whole = True
        except DiffError as error:
            error.__traceback__ = None
        if whole and result.compression == "none":
            out = io.BytesIO()
            reassemble(str(kept), target, out.write)
            assert out.getvalue() == data, "another tar comes back"
    assert os.listdir("/proc/self/fd") == descriptors
    assert threading.enumerate() == threads
    assert _outside(place) == before
    return layer, whole


def _packed(place: Place, layer: Path, mode: str) -> bytes:
    out = io.BytesIO()
    with opened_directory(layer) as upper, opened_directory(place.lower) as lower:
        pack(upper, lower, None if mode == "tree" else WhiteoutFormat(mode), out.write)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["overlay", "aufs", "tree", "base"])
def test_seeds(place: Place, mode: str) -> None:
    """The corpus as it is."""
    assert len(SEEDS) >= 50
    for seed in SEEDS:
        _apply(place, seed.read_bytes(), mode)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A seed, or two in a row, with bytes changed, cut out or put in; checksums often mended."""
    data = bytearray(draw(st.sampled_from(SEEDS)).read_bytes())
    if draw(st.booleans()):
        data = data.rstrip(b"\0")
        data += bytes(-len(data) % archives.BLOCK) + draw(st.sampled_from(SEEDS)).read_bytes()
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(("set", "field", "cut", "block", "end")))
        if how == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == "field":
            start, length = draw(st.sampled_from(_FIELDS))
            at += start - at % archives.BLOCK
            value = draw(st.sampled_from(_VALUES) | st.binary(max_size=length))
            data[at : at + length] = value[:length].ljust(length, b"\0")
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 600))]
        elif how == "block":
            at -= at % archives.BLOCK
            data[at:at] = data[at : at + archives.BLOCK]
        else:
            del data[at:]
    return _mended(bytes(data)) if draw(st.booleans()) else bytes(data)


_FIELDS = ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (329, 8))
_VALUES = (
    *(b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"\0"),
    *(b"../a", b"/a", b"a/..", b".", b"", b"a/b/c", b".wh.a", b".wh..wh..opq", b".wh..", b"out/a"),
    *(b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"00000000010\0", b"0000644\0"),
)


def _mended(data: bytes) -> bytes:
    """With right checksums wherever a header could be, so that the damage gets past them."""
    blocks = []
    for at in range(0, len(data), archives.BLOCK):
        block = data[at : at + archives.BLOCK]
        is_header = len(block) == archives.BLOCK and block[257:262] == b"ustar"
        blocks.append(archives.with_checksum(block) if is_header else block)
    return b"".join(blocks)


@FUZZING
@given(data=_damaged(), mode=st.sampled_from(("overlay", "aufs", "tree", "base")))
def test_damaged_seeds(place: Place, data: bytes, mode: str) -> None:
    """No damage does more than an error."""
    _apply(place, data, mode)


@FUZZING
@given(
    data=_damaged(),
    compression=st.sampled_from(("gzip", "zstd", "xz", "bzip2")),
    flip=st.integers(0, 1 << 20),
)
def test_damaged_streams(place: Place, data: bytes, compression: str, flip: int) -> None:
    """Nor does damage to a compressed stream."""
    packed = bytearray(archives.compressed(data, compression))
    packed[flip % len(packed)] ^= 1 << flip % 8
    _apply(place, bytes(packed), "base")


@FUZZING
@given(data=st.binary(max_size=2000))
@example(data=b"")
@example(data=b"\x1f\x8b")
@example(data=bytes(511))
@example(data=bytes(513))
def test_noise(place: Place, data: bytes) -> None:
    """Bytes that are no archive at all."""
    _apply(place, data, "base")


# Entries in any order

_NAMES = st.lists(
    st.sampled_from((b"a", b"b", b"c", b"a", b"b", b"new", b"out", b".", b"..")),
    min_size=1,
    max_size=3,
).map(b"/".join)
_GOOD_NAMES = st.lists(st.sampled_from((b"a", b"b", b"c", b"new")), min_size=1, max_size=3).map(
    b"/".join
)
_TARGETS = st.one_of(_GOOD_NAMES, _GOOD_NAMES.map(b"/".__add__), st.just(b"../b"), _NAMES)


@st.composite
def _entry(draw: st.DrawFn) -> bytes:
    name = draw(_GOOD_NAMES)
    time = draw(st.integers(100, 104))
    kind = draw(
        st.sampled_from(("file", "directory", "symlink", "link", "whiteout", "opaque", "fifo"))
    )
    directory, base = os.path.split(name)
    if kind == "file":
        content = draw(st.sampled_from((b"", b"x", b"yy")))
        return archives.file(name, content, mtime=time, mode=draw(st.sampled_from((0o644, 0o4711))))
    if kind == "directory":
        return archives.directory(name + b"/", mtime=time, uid=draw(st.integers(0, 1)))
    if kind == "symlink":
        return archives.symlink(name, draw(_TARGETS), mtime=time)
    if kind == "link":
        return archives.hard_link(name, draw(_GOOD_NAMES), mtime=time)
    if kind == "fifo":
        return archives.fifo(name, mtime=time)
    mark = b".wh." + base if kind == "whiteout" else b".wh..wh..opq"
    return archives.file(os.path.join(directory, mark), mtime=time)


@settings(FUZZING, max_examples=300)
@given(
    parts=st.lists(_entry(), min_size=1, max_size=7),
    mode=st.sampled_from(("overlay", "overlay-user", "aufs")),
)
# A name that takes the place of its target's directory.
@example(parts=[archives.hard_link(b"a", b"a/a")], mode="overlay")
def test_a_changeset_shows_what_a_tree_shows(place: Place, parts: list[bytes], mode: str) -> None:
    """Both ways to apply a layer make the same of it, or refuse it both; so do their diffs."""
    data = archives.tar(*parts)
    layer, whole = _apply(place, data, mode)
    if whole:
        laid = lay_over(read_tree(place.lower), Changeset(layer, WhiteoutFormat(mode)))
        diff = _packed(place, layer, mode)
    layer, also_whole = _apply(place, data, "tree")
    assert whole == also_whole
    if whole:
        tree = read_tree(layer)
        assert differences(tree, laid) == []
        assert _packed(place, layer, "tree") == diff
        again, _ = _apply(place, diff, "tree")
        assert differences(tree, read_tree(again), ignoring=("links",)) == []
