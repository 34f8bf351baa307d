"""The torture layer under every driver: one tree, the same bytes back, one canonical diff."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import archives
import pytest
import torture
from capabilities import need

from storagedrivers.archive.kept import reassemble
from storagedrivers.archive.pack import pack
from storagedrivers.archive.unpack import unpack
from storagedrivers.driver import StorageDriver
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.linux.mount import open_view
from storagedrivers.linux.tree import opened_directory
from storagedrivers.model import Unpacked, WhiteoutFormat
from storagedrivers.testing.rig import Layer, Rig
from storagedrivers.testing.trees import Tree, differences

DRIVERS: Mapping[str, tuple[type[StorageDriver], str]] = {
    "overlay2 on ext4": (Overlay2, "ext4"),
    "overlay2 on xfs": (Overlay2, "xfs"),
    "btrfs-snapshot": (BtrfsSnapshot, "btrfs"),
    "vfs-copy on ext4": (VfsCopy, "ext4"),
    "vfs-copy on xfs": (VfsCopy, "xfs"),
}


class Digest:
    """A writer that keeps nothing but the digest and the length."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self._hash.update(data)

    def __str__(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class Bench:
    """A driver with layers that were made of tars."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        self.rig = rig
        self.directory = directory

    def add(self, data: bytes, below: Layer | None = None) -> tuple[Layer, Unpacked]:
        """A sealed layer of a tar."""
        layer = self.rig.create(below)
        with self.opened(layer) as (target, lower, whiteouts):
            result = unpack(
                io.BytesIO(data),
                target,
                lower_fd=lower,
                whiteouts=whiteouts,
                kept=self.kept(layer),
            )
        self.rig.driver.seal(layer.id, layer.lowers)
        return layer, result

    def kept(self, layer: Layer) -> str:
        return str(self.directory / layer.id)

    @contextmanager
    def opened(
        self, layer: Layer, *, read_only: bool = False
    ) -> Iterator[tuple[int, int | None, WhiteoutFormat | None]]:
        """The directory of a layer's changes, or its tree; and the tree below."""
        driver = self.rig.driver
        changeset = driver.changeset(layer.id)
        with ExitStack() as stack:
            if changeset is not None:
                target = stack.enter_context(opened_directory(changeset.path))
            else:
                target = open_view(driver.mounts(layer.id, layer.lowers, read_only=read_only))
                stack.callback(os.close, target)
            lower = None
            if layer.lowers:
                below = driver.mounts(layer.lowers[0], layer.lowers[1:], read_only=True)
                lower = open_view(below)
                stack.callback(os.close, lower)
            yield target, lower, changeset.whiteouts if changeset else None

    def reassembled(self, layer: Layer) -> str:
        """The digest of the tar that comes back, from the changeset or the tree."""
        found = Digest()
        with self.opened(layer, read_only=True) as (tree, _, _):
            reassemble(self.kept(layer), tree, found.write)
        return str(found)

    def packed(self, layer: Layer) -> bytes:
        """The canonical diff."""
        out = io.BytesIO()
        with self.opened(layer, read_only=True) as (tree, lower, whiteouts):
            pack(tree, lower, whiteouts, out.write)
        return out.getvalue()


@pytest.fixture(scope="module")
def new_bench(
    made_filesystems: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Bench]]:
    need("root", "mount", "overlay")
    with ExitStack() as stack:

        def make(name: str) -> Bench:
            driver, filesystem = DRIVERS[name]
            root = made_filesystems(filesystem) / f"torture-{os.urandom(6).hex()}"
            root.mkdir()
            rig = stack.enter_context(Rig(driver, root))
            return Bench(rig, tmp_path_factory.mktemp("kept"))

        yield make


class Made(NamedTuple):
    """What one driver makes of the torture layer."""

    bench: Bench
    parent: Layer
    layer: Layer
    result: Unpacked
    below: Tree
    tree: Tree


@pytest.fixture(scope="module")
def made(new_bench: Callable[[str], Bench]) -> Callable[[str], Made]:
    """Each driver makes it once."""
    found: dict[str, Made] = {}

    def get(name: str) -> Made:
        if name not in found:
            bench = new_bench(name)
            parent, _ = bench.add(torture.parent_tar())
            below = bench.rig.tree(parent)
            layer, result = bench.add(torture.layer_tar(), parent)
            found[name] = Made(bench, parent, layer, result, below, bench.rig.tree(layer))
        return found[name]

    return get


@pytest.fixture(params=DRIVERS)
def one(request: pytest.FixtureRequest, made: Callable[[str], Made]) -> Made:
    return made(request.param)


def test_two_hundred_cases() -> None:
    """There are as many, each with a name of its own."""
    names = [case.name for case in torture.CASES]
    assert len(names) == len(set(names)) >= 200


def _by_case(lines: list[str]) -> str:
    return f"{len(lines)} differences:\n" + "\n".join(lines[:60])


def test_the_tree_is_as_expected(one: Made) -> None:
    """Every case shows what it should, and nothing else."""
    lines = differences(torture.expected_tree(), one.tree)
    assert not lines, _by_case(lines)


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "vfs-copy on ext4"])
def test_the_tree_is_the_same_under_every_driver(made: Callable[[str], Made], name: str) -> None:
    """Whatever is expected: drivers agree on the merged tree."""
    model = made("vfs-copy on ext4")
    other = made(name)
    lines = differences(model.below, other.below) + differences(model.tree, other.tree)
    assert not lines, _by_case(lines)


def test_the_lower_is_untouched(one: Made) -> None:
    """The layer below shows what it showed before."""
    assert not differences(one.below, one.bench.rig.tree(one.parent))


def test_the_tar_comes_back(one: Made) -> None:
    """Byte for byte, parent and layer."""
    for layer, data in (
        (one.parent, torture.parent_tar()),
        (one.layer, torture.layer_tar()),
    ):
        assert one.bench.reassembled(layer) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_what_unpacking_learnt(one: Made) -> None:
    """Digests and sizes are those of the tar; what could not be kept has a warning each."""
    data = torture.layer_tar()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (one.result.diff_id, one.result.digest) == (digest, digest)
    assert (one.result.diff_size, one.result.stored_size) == (len(data), len(data))
    assert one.result.compression == "none"
    text = "\n".join(one.result.warnings)
    assert "0:0" in text
    assert "overlay" in text


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "vfs-copy on ext4"])
def test_one_canonical_diff(made: Callable[[str], Made], name: str) -> None:
    """Packed anew, parent and layer are the same bytes under every driver."""
    model, other = made("vfs-copy on ext4"), made(name)
    for which in ("parent", "layer"):
        expected = model.bench.packed(getattr(model, which))
        found = other.bench.packed(getattr(other, which))
        assert _digest(found) == _digest(expected), (
            f"the {which}: {_first_difference(expected, found)}"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first_difference(one: bytes, other: bytes) -> str:
    """For whoever has to find it: the blocks at the first difference."""
    at = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    at -= at % archives.BLOCK
    return f"at {at}: {one[at : at + 160]!r} and {other[at : at + 160]!r}"


def test_a_packed_diff_makes_the_same_tree(one: Made) -> None:
    """A canonical diff above the same parent shows what the layer shows."""
    bench = one.bench
    again, _ = bench.add(bench.packed(one.layer), one.parent)
    lines = differences(_without_links_across_layers(one), bench.rig.tree(again))
    assert not lines, _by_case(lines)
    assert bench.packed(again) == bench.packed(one.layer)


def _without_links_across_layers(one: Made) -> Tree:
    """A canonical diff names nothing that did not change: a new name of such a file is a file."""

    def is_unchanged(path: bytes) -> bool:
        below = one.below.get(path)
        return below is not None and replace(below, links=()) == replace(one.tree[path], links=())

    tree = {}
    for path, node in one.tree.items():
        links = tuple(name for name in node.links if not is_unchanged(name))
        tree[path] = replace(node, links=links if path in links and len(links) > 1 else ())
    return tree


def test_no_attribute_of_overlay_is_kept(one: Made) -> None:
    """What images bring as overlay's own attributes is on no disk."""
    changeset = one.bench.rig.driver.changeset(one.layer.id)
    with ExitStack() as stack:
        if changeset is not None:
            top = changeset.path
        else:
            top = stack.enter_context(one.bench.rig.view(one.layer))
        for directory, names, files in os.walk(os.fsencode(top)):
            for name in (*names, *files):
                for attribute in os.listxattr(os.path.join(directory, name), follow_symlinks=False):
                    if ".overlay." in attribute:
                        assert (attribute, changeset is None) == ("trusted.overlay.opaque", False)


# Cases that need a layer of their own


ROOTS = {
    "opaque root": ([archives.file(b".wh..wh..opq")], []),
    "opaque root in the middle": (
        [archives.file(b"new"), archives.file(b".wh..wh..opq"), archives.file(b"file", b"2")],
        [b"file", b"new"],
    ),
    "whiteouts of everything": (
        [archives.file(b".wh." + name) for name in (b"dir", b"file", b"link")],
        [],
    ),
    "whiteout in the root": ([archives.file(b".wh.file")], [b"dir", b"dir/f", b"link"]),
    "nothing": ([], [b"dir", b"dir/f", b"file", b"link"]),
    "new root metadata alone": (
        [archives.directory(b"./", mode=0o700, uid=5)],
        [b"dir", b"dir/f", b"file", b"link"],
    ),
}


@pytest.mark.parametrize("driver", [name for name in DRIVERS if "xfs" not in name])
@pytest.mark.parametrize("case", ROOTS)
def test_roots(new_bench: Callable[[str], Bench], driver: str, case: str) -> None:
    """A whole tree that changes at its root."""
    parts, names = ROOTS[case]
    bench = new_bench(driver)
    root = archives.directory(b"./", mode=0o711, uid=1, mtime=torture.OLD)
    parent, _ = bench.add(
        archives.tar(
            root,
            archives.directory(b"dir/"),
            archives.file(b"dir/f", b"1"),
            archives.file(b"file", b"1"),
            archives.symlink(b"link", b"dir"),
        )
    )
    data = archives.tar(*parts)
    layer, _ = bench.add(data, parent)
    tree = bench.rig.tree(layer)
    assert sorted(tree) == sorted([b".", *names])
    expected = (0o700, 5, archives.TIME) if "metadata" in case else (0o711, 1, torture.OLD)
    assert (tree[b"."].mode, tree[b"."].uid, tree[b"."].mtime_ns // 10**9) == expected
    assert bench.reassembled(layer) == f"sha256:{_digest(data)}"
    again, _ = bench.add(bench.packed(layer), parent)
    assert not differences(tree, bench.rig.tree(again))


@pytest.mark.parametrize("driver", [name for name in DRIVERS if "xfs" not in name])
def test_four_gigabytes_that_are_a_hole(new_bench: Callable[[str], Bench], driver: str) -> None:
    """Sparse files of more than 4 GiB take no room, in any of the formats."""
    bench = new_bench(driver)
    size = (4 << 30) + 4096
    parts, payload = [(0, 512), (size - 512, 512)], b"a" * 512 + b"z" * 512
    data = archives.tar(
        archives.old_gnu_sparse(b"gnu", parts, payload, size),
        archives.pax_sparse_00(b"pax00", parts, payload, size),
        archives.pax_sparse_01(b"pax01", parts, payload, size),
        archives.pax_sparse_10(b"pax10", parts, payload, size),
        archives.pax_sparse_10(b"hole", [], b"", size),
    )
    layer, result = bench.add(data)
    with bench.rig.view(layer) as top:
        for name in ("gnu", "pax00", "pax01", "pax10", "hole"):
            status = os.stat(top / name)
            assert status.st_size == size
            assert status.st_blocks * 512 < 1 << 20
            with (top / name).open("rb") as file:
                file.seek(size - 513)
                assert file.read() == (b"\0" + b"z" * 512 if name != "hole" else bytes(513))
    assert result.size == 5 * size
    assert bench.reassembled(layer) == f"sha256:{_digest(data)}"


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2"])
def test_compressed(new_bench: Callable[[str], Bench], compression: str) -> None:
    """However the torture layer is compressed, it is the same layer."""
    data = torture.parent_tar()
    packed = archives.compressed(data, compression)
    bench = new_bench("overlay2 on ext4")
    plain, first = bench.add(data)
    layer, result = bench.add(packed)
    assert result.compression == compression
    assert (result.diff_id, result.diff_size) == (first.diff_id, first.diff_size)
    assert (result.digest, result.stored_size) == (None, len(packed))  # no one asked for it
    assert not differences(bench.rig.tree(plain), bench.rig.tree(layer))
    assert bench.reassembled(layer) == first.diff_id
