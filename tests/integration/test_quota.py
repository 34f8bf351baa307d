"""Project quotas, as far as this kernel lets them be tried: projects of xfs, and what quotactl(2)
is told, simulated at the system call.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from capabilities import need

from storagedrivers.errors import VolumeError
from storagedrivers.linux import quota, syscalls, tree
from storagedrivers.model import Volume
from storagedrivers.volumes import sizes
from storagedrivers.volumes.local import Local

MEGABYTE = 1 << 20
_SET_LIMIT, _GET_QUOTA, _PROJECTS = 0x5804, 0x5803, 2


class Quotas:
    """A filesystem's project quotas: limits by project, in bytes."""

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}
        self.taken: set[int] = set()
        self.error = 0

    def quotactl_fd(self, fd: int, command: int, number: int, address: bytearray) -> None:
        os.fstat(fd)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        assert command & 0xFF == _PROJECTS
        assert len(address) == 112, "struct fs_disk_quota of linux/dqblk_xfs.h"
        version, flags, mask, project, hard, soft = struct.unpack_from("=bbHIQQ", address)
        if command >> 8 == _GET_QUOTA:
            if number not in self.limits and number not in self.taken:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            struct.pack_into("=QQQQQ", address, 8, self.limits.get(number, 0) // 512, 0, 0, 0, 8)
            return
        assert command >> 8 == _SET_LIMIT
        assert (version, flags, mask, project) == (1, 2, 0b1100, number)
        assert hard == soft
        self.limits[number] = hard * 512

    def quotactl(self, command: int, special: object, number: int, address: bytearray) -> None:
        assert str(special).startswith("/dev/")
        fd = os.open("/", os.O_RDONLY)
        try:
            self.quotactl_fd(fd, command, number, address)
        finally:
            os.close(fd)


@pytest.fixture
def quotas(monkeypatch: pytest.MonkeyPatch) -> Quotas:
    found = Quotas()
    monkeypatch.setattr(syscalls, "quotactl_fd", found.quotactl_fd)
    return found


@pytest.fixture
def directory(on_filesystem: Callable[[str], Path]) -> Path:
    """A volume's directory on xfs, which has projects whether it has quotas or not."""
    need("root", "xfs", "mkfs.xfs")
    made = on_filesystem("xfs") / "db"
    (made / "_data").mkdir(parents=True)
    return made


def project_of(path: Path) -> int:
    with tree.opened_directory(path) as fd:
        return quota.project_of(fd)


def limited(size: int) -> Volume:
    return Volume("db", "local", 0.0, {}, {}, size)


def test_a_directory_gets_a_project_with_the_limit(quotas: Quotas, directory: Path) -> None:
    """What is made in it is of that project; it goes with the volume."""
    data, volume = directory / "_data", limited(64 * MEGABYTE + 1)
    Local().create(volume, directory)
    assert os.listdir(directory) == ["_data"], "no image is needed"
    project = project_of(data)
    assert project >= 1 << 20
    assert quotas.limits == {project: 64 * MEGABYTE + 512}
    (data / "below").mkdir()
    assert project_of(data / "below") == project
    Local().unlimit(volume, data)
    assert quotas.limits == {project: 0}
    Local().unlimit(volume, directory / "gone")


def test_what_takes_its_place_gets_a_project_of_its_own(quotas: Quotas, directory: Path) -> None:
    """With the same limit."""
    volume = limited(8 * MEGABYTE)
    Local().create(volume, directory)
    (directory / "_import").mkdir()
    Local().limit(volume, directory / "_import")
    projects = {project_of(directory / name) for name in ("_data", "_import")}
    assert len(projects) == 2
    assert quotas.limits == dict.fromkeys(projects, 8 * MEGABYTE)


def test_the_project_of_the_directory_above_is_not_the_volumes(
    quotas: Quotas, directory: Path
) -> None:
    """A graph root that is limited itself keeps its limit."""
    with tree.opened_directory(directory) as fd:
        above = quota.limit_directory(fd, 512 * MEGABYTE)
    (directory / "_import").mkdir()
    assert project_of(directory / "_import") == above
    Local().unlimit(limited(MEGABYTE), directory / "_import")
    assert quotas.limits == {above: 512 * MEGABYTE}


def test_a_project_in_use_is_not_taken(
    quotas: Quotas, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has files and no limit."""
    answers = iter([b"\0\0\0\1", b"\0\0\0\1", b"\0\0\0\2"])
    monkeypatch.setattr(quota.os, "urandom", lambda _: next(answers))
    quotas.taken.add((1 << 20) + 1)
    with tree.opened_directory(directory / "_data") as fd:
        assert quota.limit_directory(fd, MEGABYTE) == (1 << 20) + 2


def test_a_limit_goes_where_the_project_cannot_be_set(quotas: Quotas, tmp_path: Path) -> None:
    """A filesystem without projects: nothing is left of the trial."""
    directory = tmp_path / "db"
    (directory / "_data").mkdir(parents=True)
    with tree.opened_directory(directory / "_data") as fd:
        if quota.project_of(fd):
            pytest.skip("the directory for temporary files has a project")
        with pytest.raises(OSError) as caught:  # noqa: PT011
            _refuse_projects(fd)
    assert caught.value.errno in quota.NO_QUOTAS
    assert set(quotas.limits.values()) <= {0}


def _refuse_projects(fd: int) -> None:
    """On tmpfs, overlay and ext4 without the feature the ioctl fails by itself."""
    quota.limit_directory(fd, MEGABYTE)
    raise OSError(errno.ENOTTY, "this filesystem has projects")


@pytest.mark.parametrize("number", quota.NO_QUOTAS)
def test_without_quotas_the_next_is_tried(quotas: Quotas, directory: Path, number: int) -> None:
    """Not enabled, not permitted, not known to the kernel."""
    need("loop", "ext4", "mkfs.ext4")
    quotas.error = number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(syscalls, "quotactl", quotas.quotactl)  # where quotactl_fd is not known
        Local().create(limited(MEGABYTE), directory)
    assert sorted(os.listdir(directory)) == ["_data", "image"]


def test_another_failure_is_no_reason_to_go_on(quotas: Quotas, directory: Path) -> None:
    """A full disk is told as such."""
    quotas.error = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        Local().create(limited(MEGABYTE), directory)


def test_a_limit_that_cannot_be_had_again_is_told(quotas: Quotas, directory: Path) -> None:
    """Quotas were switched off after the volume was made."""
    Local().create(limited(MEGABYTE), directory)
    (directory / "_import").mkdir()
    quotas.error = errno.ESRCH
    with pytest.raises(VolumeError, match="to 1048576 bytes any more"):
        Local().limit(limited(MEGABYTE), directory / "_import")


def test_older_kernels_are_asked_by_the_device(
    quotas: Quotas, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """quotactl_fd(2) is new in Linux 5.14."""

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(syscalls, "quotactl_fd", unknown)
    other = Quotas()
    monkeypatch.setattr(syscalls, "quotactl", other.quotactl)
    Local().create(limited(MEGABYTE), directory)
    assert other.limits == {project_of(directory / "_data"): MEGABYTE}


def test_the_kernel_takes_the_calls(on_filesystem: Callable[[str], Path]) -> None:
    """Whatever it answers, it is one of the answers that are understood."""
    need("root", "ext4", "mkfs.ext4")
    directory = on_filesystem("ext4") / "db"
    (directory / "_data").mkdir(parents=True)
    with tree.opened_directory(directory / "_data") as fd:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            quota.limit_directory(fd, MEGABYTE)
        assert caught.value.errno in quota.NO_QUOTAS
        command = _SET_LIMIT << 8 | _PROJECTS
        with pytest.raises(OSError) as caught:  # noqa: PT011
            syscalls.quotactl(command, "/dev/null", 1, bytearray(112))
        assert caught.value.errno in quota.NO_QUOTAS
    assert sizes.MINIMUM == MEGABYTE
