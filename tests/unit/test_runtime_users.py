from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import GROUP, PASSWD

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.users import User, find_user


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A root filesystem, with a secret beside it."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text(PASSWD)
    (tmp_path / "root/etc/group").write_text(GROUP)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/passwd").write_text("leak:x:99:99::/:/bin/sh\n")
    return tmp_path / "root"


@pytest.fixture
def rootfs(top: Path) -> Iterator[Rootfs]:
    with Rootfs(top) as rootfs:
        yield rootfs


@pytest.mark.parametrize(
    ("words", "user"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("svc", User(12, 34, (34, 56), "/srv")),
        ("12", User(12, 34, (34, 56), "/srv")),
        ("svc:other", User(12, 57, (57,), "/srv")),
        ("svc:99", User(12, 99, (99,), "/srv")),
        ("homeless", User(13, 34, (34, 56, 57), "")),
        ("4242", User(4242, 0, (0,), "/")),
        ("4242:more", User(4242, 56, (56,), "/")),
        (":more", User(0, 56, (56,), "/root")),
    ],
)
def test_users(rootfs: Rootfs, words: str, user: User) -> None:
    """Names and numbers as Docker takes them; a named group takes the supplementary ones away."""
    assert find_user(rootfs, words) == user


@pytest.mark.parametrize(
    "words",
    ["nobody", "svc:nobody", "-1", "+0", "1_0", "١", "2147483648", "9" * 30, "0:2147483648"],
)
def test_unknown(rootfs: Rootfs, words: str) -> None:
    """What the image does not know, and what no id can be, is refused with a remedy."""
    with pytest.raises(RuntimeFailedError) as caught:
        find_user(rootfs, words)
    assert caught.value.exit_code == 125
    assert caught.value.resolution


def test_damaged_lines_are_none(top: Path) -> None:
    """A line without numbers is passed over; one that lacks fields at its end is not."""
    (top / "etc/passwd").write_bytes(b"svc:x:abc:1::/:\n\xff\xfe\n\n:x:1:1\n# svc\nsvc:x:5:6\r\n")
    (top / "etc/group").write_text("more:x:y:svc\nlate:x:7:svc")
    with Rootfs(top) as rootfs:
        assert find_user(rootfs, "svc") == User(5, 6, (6, 7), "")


@pytest.mark.parametrize("target", ["../../secret/passwd", "/secret/passwd", "/etc/nowhere"])
def test_links_stay_inside(top: Path, target: str) -> None:
    """A symlink out of the root filesystem leads to what it names inside, where nothing is."""
    (top / "etc/passwd").unlink()
    (top / "etc/passwd").symlink_to(target)
    with Rootfs(top) as rootfs, pytest.raises(RuntimeFailedError):
        find_user(rootfs, "leak")


def test_links_are_followed_inside(top: Path) -> None:
    """A symlink to another file of the image is as good as the file, absolute or not."""
    (top / "usr").mkdir()
    os.rename(top / "etc/passwd", top / "usr/passwd")
    (top / "etc/passwd").symlink_to("/../../usr/../usr/passwd")
    with Rootfs(top) as rootfs:
        assert find_user(rootfs, "svc").uid == 12


def test_what_is_no_file(top: Path) -> None:
    """A fifo would keep its reader waiting, a loop of symlinks has no end: neither is read."""
    (top / "etc/passwd").unlink()
    os.mkfifo(top / "etc/passwd")
    (top / "etc/group").unlink()
    (top / "etc/group").symlink_to("group")
    with Rootfs(top) as rootfs:
        assert find_user(rootfs, "12") == User(12, 0, (0,), "/")


def test_huge_files(top: Path) -> None:
    """A file without end would fill the memory: it is refused."""
    with open(top / "etc/passwd", "wb") as file:
        file.truncate(1 << 40)
    with Rootfs(top) as rootfs, pytest.raises(RuntimeFailedError, match="longer than"):
        find_user(rootfs, "svc")


def test_a_home_with_a_nul(top: Path) -> None:
    """No variable can have one."""
    (top / "etc/passwd").write_bytes(b"svc:x:5:6::/a\0b:/bin/sh\n")
    with Rootfs(top) as rootfs, pytest.raises(RuntimeFailedError, match="NUL"):
        find_user(rootfs, "svc")


def test_more_groups_than_a_process_can_have(top: Path) -> None:
    lines = "".join(f"g:x:{number}:svc\n" for number in range(1000, 1000 + 65_536))
    (top / "etc/group").write_text(lines)
    with Rootfs(top) as rootfs:
        with pytest.raises(RuntimeFailedError, match="65536 is the limit"):
            find_user(rootfs, "svc")
        assert find_user(rootfs, "svc:7").groups == (7,)
