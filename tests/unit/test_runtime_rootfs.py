from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from storagedrivers.runtime.rootfs import Rootfs


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path / "root"


@pytest.fixture
def rootfs(top: Path) -> Iterator[Rootfs]:
    with Rootfs(top) as rootfs:
        yield rootfs


def _made(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/", ""),
        ("/a/b/c", "/a/b/c"),
        ("a//./b/", "/a/b"),
        ("/../../a/../b", "/b"),
        ("/link/x", "/there/x"),
        ("/out/x", "/outside/x"),
        ("/up/x", "/x"),
    ],
)
def test_directories_are_made_inside(rootfs: Rootfs, top: Path, path: str, real: str) -> None:
    """What is missing is made, also what a symlink names; nothing is made beside the root."""
    (top / "link").symlink_to("there")
    (top / "out").symlink_to("/outside")
    (top / "up").symlink_to("../../../..")
    assert _made(rootfs.make_directory(path)) == f"{top}{real}"
    assert os.listdir(top.parent / "outside") == []


def test_directories_are_readable_for_all(rootfs: Rootfs, top: Path) -> None:
    """A directory that is made has mode 0755, whatever the umask is; others keep theirs."""
    (top / "private").mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        os.close(rootfs.make_directory("/private/new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((top / "private/new").stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "private").stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["/file", "/file/below", "/loop/x"])
def test_directories_that_cannot_be_made(rootfs: Rootfs, top: Path, path: str) -> None:
    """A file in the way, or symlinks in a circle, is an error and no endless walk."""
    (top / "file").touch()
    (top / "loop").symlink_to("/loop")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        rootfs.make_directory(path)


def test_files_are_made(rootfs: Rootfs, top: Path) -> None:
    """A file that something is mounted over is made with its directories, unless it is there."""
    (top / "there").write_text("content")
    assert _made(rootfs.make_file("/etc/new/hosts")) == f"{top}/etc/new/hosts"
    assert _made(rootfs.make_file("/there")) == f"{top}/there"
    assert (top / "there").read_text() == "content"


@pytest.mark.parametrize(
    ("target", "real"),
    [
        ("../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
        ("/outside/file", "/outside/file"),
        ("../../../../outside/file", "/outside/file"),
        ("/etc/next", "/third"),
    ],
)
def test_files_are_made_where_a_symlink_leads(
    rootfs: Rootfs, top: Path, target: str, real: str
) -> None:
    """Images of systemd-resolved have a symlink to what is only there when it runs."""
    (top / "etc").mkdir()
    (top / "etc/next").symlink_to("../third")
    (top / "etc/resolv.conf").symlink_to(target)
    before = os.umask(0o077)
    try:
        assert _made(rootfs.make_file("/etc/resolv.conf")) == f"{top}{real}"
    finally:
        os.umask(before)
    made = (top / real[1:]).stat()
    assert (stat.S_IFMT(made.st_mode), made.st_mode & 0o777) == (stat.S_IFREG, 0o644)
    assert os.listdir(top.parent / "outside") == []


def test_files_that_cannot_be_made(rootfs: Rootfs, top: Path) -> None:
    (top / "loop").symlink_to("/loop")
    with pytest.raises(OSError, match="Too many levels"):
        rootfs.make_file("/loop")


def test_no_descriptor_is_left(rootfs: Rootfs, top: Path) -> None:
    """Walking leaves nothing open, whether it succeeds or not."""
    (top / "link").symlink_to("a/b/../c")
    before = os.listdir("/proc/self/fd")
    os.close(rootfs.make_directory("/link/d/../e"))
    (top / "file").touch()
    (top / "dangling").symlink_to("x/y")
    os.close(rootfs.make_file("/dangling"))
    for path in ("/file/x", "/nowhere"):
        assert rootfs.status(path) is None
        assert rootfs.read(path, limit=1) is None
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/", "/"),
        ("/there", "/there"),
        ("/there/./x//y", "/there/x/y"),
        ("/link", "/there"),
        ("/link/x", "/there/x"),
        ("/link/../x", "/x"),
        ("/none/../../x", "/x"),
        ("/out/x", "/outside/x"),
        ("/up", "/"),
        ("/up/there", "/there"),
        ("/dangling/x", "/none/here/x"),
        ("/file", "/file"),
    ],
)
def test_resolving(rootfs: Rootfs, top: Path, path: str, real: str) -> None:
    """Where a path leads to inside, also if that is missing; nothing is made."""
    (top / "there").mkdir()
    (top / "file").touch()
    (top / "link").symlink_to("there")
    (top / "out").symlink_to("/outside")
    (top / "up").symlink_to("../../../..")
    (top / "dangling").symlink_to("none/here")
    before = sorted(os.listdir(top))
    assert rootfs.resolve(path) == real
    assert sorted(os.listdir(top)) == before


@pytest.mark.parametrize("path", ["/loop", "/loop/x", "/file/x"])
def test_resolving_what_leads_nowhere(rootfs: Rootfs, top: Path, path: str) -> None:
    """A loop and a file with something below it are errors."""
    (top / "loop").symlink_to("loop")
    (top / "file").touch()
    with pytest.raises(OSError, match=r"levels of|Not a directory"):
        rootfs.resolve(path)
