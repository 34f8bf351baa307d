"""Tars of other programs: the tree that GNU tar makes of each, and the same bytes back."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from capabilities import need

from storagedrivers.archive.compression import zstd_module
from storagedrivers.archive.kept import reassemble
from storagedrivers.archive.unpack import unpack
from storagedrivers.linux.tree import opened_directory
from storagedrivers.model import Unpacked
from storagedrivers.testing.trees import differences, read_tree

GNU = ("v7", "oldgnu", "gnu", "ustar", "posix")
BSD = ("ustar", "pax", "gnutar", "v7")
PYTHON = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
SPARSE = (("gnu", "0.0"), ("oldgnu", "0.0"), ("posix", "0.0"), ("posix", "0.1"), ("posix", "1.0"))

MEMBER = 4096  # bytes of the tar in each member of a stream of many
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstd_module().compress(data),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that every format can hold: short names, small owners, whole seconds."""
    need("root")
    root = tmp_path_factory.mktemp("original") / "tree"
    (root / "setgid" / "deep").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o700)
    for name, size in (("one", 1), ("block", 512), ("odd", 100_001), ("nothing", 0)):
        (root / "setgid" / name).write_bytes(random.Random(size).randbytes(size))
    os.link(root / "setgid" / "odd", root / "setgid" / "deep" / "second name")
    (root / "symlink").symlink_to("setgid/odd")
    (root / "dangling").symlink_to("/nowhere/at all")
    os.mkfifo(root / "fifo", 0o640)
    os.mkdir(root / "n\xe4me \\ with\nall".encode("latin-1").decode(errors="surrogateescape"))
    os.chown(root / "setgid" / "one", 1234, 5678)
    os.chmod(root / "setgid" / "one", 0o4751)
    os.chown(root / "setgid", 0, 4321)
    os.chmod(root / "setgid", 0o3775)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, (10**9, 10**9 + number), follow_symlinks=False)
    os.utime(root, (10**9, 10**9))
    return root


@pytest.fixture(scope="module")
def rich(original: Path) -> Path:
    """With what only the younger formats hold: long names and targets, fractions of seconds."""
    root = original.with_name("rich")
    subprocess.run(["cp", "-a", original, root], check=True)
    below = root / ("d" * 120) / ("e" * 200)
    below.mkdir(parents=True)
    (below / ("f" * 255)).write_text("content")
    os.link(below / ("f" * 255), below / "link")
    (below / "symlink").symlink_to("t" * 300)
    os.chown(below, 3_000_000, 3_000_001)  # more than seven octal digits
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 10**18 + number * 10**9 + 123_456_789), follow_symlinks=False)
    return root


def run(*command: str | Path, **options: object) -> bytes:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command, check=True, capture_output=True, env=environment, **options
    ).stdout  # type: ignore[call-overload,no-any-return]


def unpacked(data: bytes, target: Path) -> Unpacked:
    """Unpack, and see that the tar comes back."""
    target.mkdir()
    kept = str(target) + ".kept"
    with opened_directory(target) as fd:
        result = unpack(io.BytesIO(data), fd, kept=kept)
        digest = hashlib.sha256()
        reassemble(kept, fd, digest.update)
    assert result.diff_id == f"sha256:{digest.hexdigest()}"
    return result


def check(data: bytes, tmp_path: Path, *, root: bool = True) -> None:
    """Unpack as we do and as GNU tar does, and compare.

    Args:
        data: the tar.
        tmp_path: for the trees.
        root: the tar has an entry for the root, so that its time counts.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    unpacked(data, ours)
    theirs.mkdir()
    owners = ("--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*")
    # Else tar gives directories their times too early where what is in them comes late in the tar,
    # and of two symlinks at one path keeps the first where that leads out.
    order = ("--delay-directory-restore", "--absolute-names")
    run("tar", "-xp", *owners, *order, "-C", theirs, input=data)
    if not root:
        for top in (ours, theirs):
            os.utime(top, (0, 0))
    assert not differences(read_tree(theirs), read_tree(ours))


@pytest.mark.parametrize("blocks", [1, 20, 333])
@pytest.mark.parametrize("format_", GNU)
def test_gnu_tar(original: Path, tmp_path: Path, format_: str, blocks: int) -> None:
    left_out = ("--exclude=./fifo",) if format_ == "v7" else ()  # which has no type for it
    command = ("tar", "-c", f"--format={format_}", f"-b{blocks}", *left_out)
    check(run(*command, "-C", original, "."), tmp_path)


@pytest.mark.parametrize("format_", ["gnu", "posix"])
def test_gnu_tar_with_long_names(rich: Path, tmp_path: Path, format_: str) -> None:
    check(run("tar", "-c", f"--format={format_}", "-C", rich, "."), tmp_path)


@pytest.mark.parametrize("format_", ["gnu", "posix"])
def test_gnu_tar_with_label_and_dumped_directories(
    rich: Path, tmp_path: Path, format_: str
) -> None:
    command = ("tar", "-c", f"--format={format_}", "-V", "a label", "-g", tmp_path / "snapshot")
    check(run(*command, "-C", rich, "."), tmp_path)


@pytest.mark.parametrize(("format_", "version"), SPARSE)
def test_gnu_tar_with_holes(tmp_path: Path, format_: str, version: str) -> None:
    need("root")
    root = tmp_path / "tree"
    root.mkdir()
    for name, parts, size in (
        ("hole", 0, 1 << 20),
        ("data behind a hole", 1, 1 << 20),
        ("many parts", 60, 60 << 16),
        ("beyond 8 GiB", 2, 9 << 30),
        ("s" * 150, 3, 1 << 20),
    ):
        with open(root / name, "wb") as file:
            for part in range(parts):
                file.seek((part + 1) * size // (parts + 1) & ~0xFFFF)
                file.write(random.Random(part).randbytes(5000))
            file.truncate(size)
    options = (f"--format={format_}", "--sparse", f"--sparse-version={version}")
    data = run("tar", "-c", *options, "-C", root, ".")
    assert len(data) < 2 << 20
    unpacked(data, tmp_path / "ours")
    for path in root.iterdir():
        other = tmp_path / "ours" / path.name
        assert other.stat().st_size == path.stat().st_size
        assert other.stat().st_blocks < 4000
        if path.stat().st_size < 1 << 30:
            assert other.read_bytes() == path.read_bytes()


def test_gnu_tar_that_was_appended_to(tmp_path: Path) -> None:
    need("root")
    archive = tmp_path / "archive.tar"
    tree = tmp_path / "tree"
    tree.mkdir()
    with open(tree / "file", "wb") as file:  # nothing but a hole: no payload to keep of it
        file.truncate(1 << 20)
    run("tar", "-cf", archive, "--sparse", "-C", tree, "file")
    for content in ("first", "second, longer", ""):
        (tree / "file").write_text(content)
        run("tar", "-rf", archive, "--sparse", "-C", tree, "file")
    check(archive.read_bytes(), tmp_path, root=False)


def test_one_tar_behind_another(original: Path, tmp_path: Path) -> None:
    """What follows the end marker is no entry, and comes back too."""
    one = run("tar", "-c", "-C", original, "setgid")
    other = run("tar", "-c", "-C", original, "empty", "symlink")
    check(one + other, tmp_path, root=False)


def test_tars_joined_by_gnu_tar(original: Path, rich: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    run("tar", "-cf", one, "--format=posix", "-C", original, ".")
    run("tar", "-cf", other, "--format=gnu", "-C", rich, ".")
    run("tar", "-Af", one, other)
    check(one.read_bytes(), tmp_path)


def test_gnu_tar_with_attributes(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    run("cp", "-a", original, root)
    os.setxattr(root / "setgid" / "odd", "user.name", b"\0value\n=")
    os.setxattr(root / "setgid", "trusted.empty", b"")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(root / "setgid" / "one", "security.capability", capability)
    options = ("--format=posix", "--xattrs", "--xattrs-include=*")
    check(run("tar", "-c", *options, "-C", root, "."), tmp_path)


@pytest.mark.parametrize("format_", BSD)
def test_bsdtar(original: Path, tmp_path: Path, format_: str) -> None:
    need("bsdtar")
    check(run("bsdtar", "-cf", "-", "--format", format_, "-C", original, "."), tmp_path)


@pytest.mark.parametrize("format_", ["pax", "gnutar"])
def test_bsdtar_with_long_names(rich: Path, tmp_path: Path, format_: str) -> None:
    need("bsdtar")
    check(run("bsdtar", "-cf", "-", "--format", format_, "-C", rich, "."), tmp_path)


def test_bsdtar_with_holes(tmp_path: Path) -> None:
    """PAX 1.0, with an attribute's and times' records in front."""
    need("root", "bsdtar")
    root = tmp_path / "tree"
    root.mkdir()
    with open(root / "sparse", "wb") as file:
        for offset in (1 << 20, 3 << 20, 9 << 20):
            file.seek(offset)
            file.write(b"data")
        file.truncate(20 << 20)
    os.setxattr(root / "sparse", "user.name", b"value")
    data = run("bsdtar", "-cf", "-", "--format", "pax", "-C", root, ".")
    assert len(data) < 1 << 20
    check(data, tmp_path)


@pytest.mark.parametrize("tree", ["original", "rich"])
def test_busybox(request: pytest.FixtureRequest, tmp_path: Path, tree: str) -> None:
    need("busybox")
    root = request.getfixturevalue(tree)
    check(run("busybox", "tar", "-cf", "-", "-C", root, "."), tmp_path)


@pytest.mark.parametrize("format_", PYTHON)
def test_python(original: Path, tmp_path: Path, format_: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=PYTHON[format_], errors="surrogateescape"
    ) as tar:
        tar.add(original, ".")
    check(buffer.getvalue(), tmp_path)


@pytest.mark.parametrize("members", ["one", "many"])
@pytest.mark.parametrize("compression", COMPRESSORS)
def test_compressed(original: Path, tmp_path: Path, compression: str, members: str) -> None:
    data = run("tar", "-c", "-C", original, ".")
    step = MEMBER if members == "many" else len(data)
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    stored = b"".join(map(COMPRESSORS[compression], pieces))
    result = unpacked(stored, tmp_path / "ours")
    assert result.compression == compression
    assert result.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_pigz(original: Path, tmp_path: Path) -> None:
    need("pigz")
    data = run("tar", "-c", "-C", original, ".")
    result = unpacked(run("pigz", "-p2", "-b32", "-i", "-c", input=data), tmp_path / "ours")
    assert result.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
