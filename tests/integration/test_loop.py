"""Loop devices: one for each file, and none that stays."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from capabilities import need
from processes import forked

from storagedrivers.linux import ioctl, loop, mount
from storagedrivers.linux.loop import loop_device
from storagedrivers.model import Mount


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    need("mount", "loop", "ext4", "mkfs.ext4")
    file = tmp_path / "loop-test.img"
    file.touch()
    os.truncate(file, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(file)], check=True)
    yield file
    assert attached(file) == []


def attached(file: Path) -> list[str]:
    """The loop devices of a file."""
    return [*loop._devices(file.name)]


def test_a_file_has_one_device(image: Path) -> None:
    """Whoever attaches it as well gets the same; it goes with the last."""
    with loop_device(image) as first:
        with loop_device(image) as second:
            assert first == second
        assert [f"/dev/{name}" for name in attached(image)] == [first]


def test_another_file_of_the_name_has_another(image: Path, tmp_path: Path) -> None:
    """Files are told apart by their inodes."""
    other = tmp_path / "other" / image.name
    other.parent.mkdir()
    other.touch()
    os.truncate(other, 1 << 20)
    with loop_device(image) as first, loop_device(other) as second:
        assert first != second


def test_a_part_of_a_file_is_another_device(image: Path) -> None:
    """One with an offset shows other bytes."""
    command = ["losetup", "--find", "--show", "--offset", "4096", str(image)]
    part = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with loop_device(image) as whole:
            assert whole != part
    finally:
        subprocess.run(["losetup", "--detach", part], check=True)


def test_a_mount_keeps_it_and_its_end_takes_it(image: Path, tmp_path: Path) -> None:
    """No one has to remember it."""
    point = tmp_path / "point"
    point.mkdir()
    with loop_device(image) as device:
        mount.mount(Mount("ext4", device), point)
    try:
        assert [f"/dev/{name}" for name in attached(image)] == [device]
        with loop_device(image) as again:
            assert again == device
    finally:
        mount.unmount(point)


def test_a_killed_process_leaves_none(image: Path) -> None:
    """It is detached with its last descriptor, from the first moment on."""

    def die() -> None:
        with loop_device(image):
            os._exit(7)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(die), 0)[1]) == 7


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTTY])
def test_before_linux_5_8(image: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Without LOOP_CONFIGURE it takes two steps."""
    real, requests = ioctl.ioctl, []

    def older(fd: int, request: int, argument: int | bytearray = 0) -> int:
        requests.append(request)
        if request == loop._CONFIGURE:
            raise OSError(number, os.strerror(number))
        return real(fd, request, argument)

    monkeypatch.setattr(ioctl, "ioctl", older)
    with loop_device(image) as device:
        assert os.path.exists(device)
    assert loop._SET_FD in requests
    assert loop._SET_STATUS64 in requests


def test_a_device_that_another_process_takes_is_not_waited_for(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the choice and the attachment; then the next free one is taken."""
    real, refused = ioctl.ioctl, []

    def busy_once(fd: int, request: int, argument: int | bytearray = 0) -> int:
        if request == loop._CONFIGURE and not refused:
            refused.append(request)
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(fd, request, argument)

    monkeypatch.setattr(ioctl, "ioctl", busy_once)
    with loop_device(image) as device:
        assert os.path.exists(device)
    assert refused
