"""Files of an archive by name: found by the headers of the tar, read where they lie."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storagedrivers.errors import MalformedImageError
from storagedrivers.oci.files import ArchiveFiles, DirectoryFiles, Slice, check_name, uncompressed


@contextmanager
def opened(path: Path, data: bytes, *, offset: int = 0) -> Iterator[ArchiveFiles]:
    path.write_bytes(data)
    with path.open("rb") as file:
        yield ArchiveFiles(file.fileno(), "ARCHIVE", offset=offset)


def archive(
    files: dict[str, bytes], *, form: int = tarfile.PAX_FORMAT, links: dict[str, str] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            one = tarfile.TarInfo(name)
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
        for name, target in (links or {}).items():
            one = tarfile.TarInfo(name)
            one.type, one.linkname = tarfile.LNKTYPE, target
            tar.addfile(one)
    return buffer.getvalue()


LONG = "d/" * 60 + "n" * 150


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_every_kind(tmp_path: Path, form: int) -> None:
    data = archive(
        {"./a": b"1", "dir//b": b"22", LONG: b"333", "a": b"4444"}, form=form, links={"c": LONG}
    )
    with opened(tmp_path / "x.tar", data) as files:
        assert files.read("a", 10) == b"4444"  # the last one counts
        assert files.read("./a", 10) == b"4444"
        assert files.read("dir/b", 10) == b"22"
        assert files.read(LONG, 10) == files.read("c", 10) == b"333"
        assert files.find("nothing") is None
        with pytest.raises(MalformedImageError, match="ARCHIVE holds no nothing"):
            files.read("nothing", 10)
        with pytest.raises(MalformedImageError, match="has 4 bytes, and 3 are let in"):
            files.read("a", 3)


def test_an_archive_in_the_middle_of_a_file(tmp_path: Path) -> None:
    data = b"before" + archive({"a": b"1"})
    with opened(tmp_path / "x", data, offset=6) as files:
        assert files.read("a", 1) == b"1"


def test_an_archive_without_an_end_marker(tmp_path: Path) -> None:
    with opened(tmp_path / "x", archive({"a": b"1"})[:1024]) as files:
        assert files.read("a", 1) == b"1"


def test_only_headers_are_read(tmp_path: Path) -> None:
    """What lies in a hole is found, and costs nothing."""
    one = tarfile.TarInfo("large")
    one.size = 1 << 40
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(one.tobuf())
        file.seek(one.size, os.SEEK_CUR)
        file.write(archive({"a": b"1"}))
    with path.open("rb") as file:
        files = ArchiveFiles(file.fileno(), "x")
        assert files.read("a", 1) == b"1"
        assert files.place("large").size == 1 << 40


def test_a_slice_is_a_stream() -> None:
    fd = os.memfd_create("x")
    os.write(fd, b"0123456789")
    part = Slice(fd, 2, 5, "x")
    assert (part.readable(), part.read(2), part.read(), part.read()) == (True, b"23", b"456", b"")
    buffer = bytearray(4)
    assert Slice(fd, 2, 3, "x").readinto(buffer) == 3
    assert buffer == b"234\0"
    with pytest.raises(MalformedImageError, match="x breaks off"):
        Slice(fd, 8, 5, "x").readall()
    os.close(fd)


def test_more_than_may_come_out() -> None:
    assert b"".join(uncompressed(io.BytesIO(b"x" * 20), limit=20)) == b"x" * 20
    with pytest.raises(MalformedImageError, match="more than 19 bytes"):
        list(uncompressed(io.BytesIO(b"x" * 20), limit=19))


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"1")
    (tmp_path / "link").symlink_to("d/f")
    files = DirectoryFiles(str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    assert files.read("d/f", 1) == b"1"
    assert files.find("d/nothing") is files.find("d/f/g") is files.find("n" * 500) is None
    for name, words in (("link", "leads out"), ("d", "no regular file")):
        with pytest.raises(MalformedImageError, match=words):
            files.find(name)
    assert len(os.listdir("/proc/self/fd")) == before
    files.close()


@pytest.mark.parametrize("name", ["", ".", "/", "/a", "..", "a/..", "../a", "a\0b", "\ud800"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(MalformedImageError, match="HERE speaks of a file"):
        check_name(name, "HERE")
