"""What older kernels and filters of container engines answer, simulated at the system calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from capabilities import need

from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.host import read_host
from storagedrivers.linux import btrfs, mount, namespace, syscalls, tree
from storagedrivers.linux.mountinfo import mount_of
from storagedrivers.model import Mount, Reason

Call = Callable[..., Any]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Have a system call fail always."""
    refuse_function(monkeypatch, syscalls, name, number)


def refuse_function(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, number: int
) -> None:
    """Have a function fail always, as its system call would."""

    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, fail)


def answer_fsconfig(monkeypatch: pytest.MonkeyPatch, *, by_fd: int, strings: int | None) -> None:
    """Have fsconfig(2) refuse descriptors with one error, ``lowerdir+`` strings with another."""
    real = syscalls.fsconfig

    def call(fd: int, command: int, key: str | None, value: bytes | None, aux: int = 0) -> None:
        if command == syscalls.FSCONFIG_SET_FD:
            raise OSError(by_fd, os.strerror(by_fd))
        if key == "lowerdir+" and strings is not None:
            raise OSError(strings, os.strerror(strings))
        real(fd, command, key, value, aux)

    monkeypatch.setattr(syscalls, "fsconfig", call)


KERNELS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before 5.2": lambda patch: refuse(patch, "fsopen", errno.ENOSYS),
    "5.2 to 6.4": lambda patch: answer_fsconfig(patch, by_fd=errno.EOPNOTSUPP, strings=None),
    "6.5 to 6.7": lambda patch: answer_fsconfig(patch, by_fd=errno.EBADF, strings=errno.EINVAL),
    "6.8": lambda patch: answer_fsconfig(patch, by_fd=errno.EINVAL, strings=None),
    "6.9 to 6.14": lambda patch: answer_fsconfig(patch, by_fd=errno.EBADF, strings=None),
    "a filter that knows no fsopen": lambda patch: refuse(patch, "fsopen", errno.EPERM),
    "a filter that knows no openat2": lambda patch: refuse(patch, "openat2", errno.EPERM),
    "before 5.6": lambda patch: refuse(patch, "openat2", errno.ENOSYS),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_overlay2_works(kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe says yes and a layer is made, seen and removed, also with a long path."""
    need("root", "mount", "overlay")
    KERNELS[kernel](monkeypatch)
    home = tmp_path / ("long" * 50) / "overlay2"
    home.parent.mkdir()
    host = read_host(home.parent, inventory=False)
    assert host.graph_root.problem == ""
    assert Overlay2.probe(host, home).reason is Reason.OK
    driver = Overlay2(home)
    point = tmp_path / "point"
    point.mkdir()
    driver.create("base", ())
    (home / "base/diff/file").write_bytes(b"below")
    driver.seal("base", ())
    driver.create("top", ("base",))
    with mount.mounted(driver.mounts("top", ("base",), read_only=False), point):
        assert (point / "file").read_bytes() == b"below"
        (point / "file").unlink()
    driver.seal("top", ("base",))
    with mount.mounted(driver.mounts("top", ("base",), read_only=True), point):
        assert os.listdir(point) == []
    for layer in ("top", "base"):
        driver.remove(layer)
    assert list(driver.layers()) == []
    assert os.listdir(home / ".trash") == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_removal_without_openat2_enters_no_mount(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bind mount of the same filesystem inside the tree is not emptied."""
    need("mount")
    refuse(monkeypatch, "openat2", number)
    volume, point = tmp_path / "volume", tmp_path / "tree/a/point"
    volume.mkdir()
    point.mkdir(parents=True)
    (volume / "precious").touch()
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        with mount.mounted((Mount("bind", str(volume), options=("bind",)),), point):
            with pytest.raises(OSError, match=r"cross-device|busy"):
                tree.remove_tree(parent, "tree")
            assert (volume / "precious").exists()
        tree.remove_tree(parent, "tree")
    finally:
        os.close(parent)
    assert os.listdir(tmp_path) == ["volume"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("name", ["open_tree", "mount_setattr"])
def test_read_only_bind_without_the_new_calls(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bind mount is made read-only by mounting it again."""
    need("mount")
    refuse(monkeypatch, name, number)
    source, point = tmp_path / "source", tmp_path / "point"
    source.mkdir()
    point.mkdir()
    with mount.mounted((Mount("bind", str(source), options=("bind", "ro", "nosuid")),), point):
        entry = mount_of(point)
        assert entry is not None
        assert {"ro", "nosuid"} <= set(entry.options)


def test_target_inside_the_mountpoint_cannot_lead_out(tmp_path: Path) -> None:
    """A symlink in the tree, or ``..``, leads to a place in the tree."""
    need("mount")
    outside, top = tmp_path / "outside", tmp_path / "top"
    for directory in (outside / "etc", top / "etc", tmp_path / "source"):
        directory.mkdir(parents=True)
    (tmp_path / "source/file").touch()
    (top / "link").symlink_to("/etc")
    bind = ("bind",)
    for target in ("link", "../../etc", "/etc", "etc"):
        value = Mount("bind", str(tmp_path / "source"), target, bind)
        with mount.mounted((value,), top):
            assert (top / "etc/file").exists()
        assert not (top / "etc/file").exists()
    assert os.listdir(outside / "etc") == []


def test_chroot_at_a_plain_directory_is_told(tmp_path: Path) -> None:
    """Where the root is no mount nothing can be made private, which is a matter of permission."""
    need("root", "mount")
    pid = os.fork()
    if pid == 0:
        os.chroot(tmp_path)
        os.chdir("/")
        try:
            namespace.make_mounts_private()
        except PermissionError:
            os._exit(0)
        except BaseException:
            os._exit(2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_nested_subvolumes_before_their_ioctl(
    on_filesystem: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 4.18 nested subvolumes are found by a search of the root tree: the same ones."""
    need("root", "btrfs")
    top = on_filesystem("btrfs")
    fd = os.open(top, os.O_RDONLY)
    try:
        btrfs.create_subvolume(fd, "outer")
        for number in range(80):  # more than one search returns
            place = top / "outer" / ("" if number % 2 else f"directory{number}/below")
            place.mkdir(parents=True, exist_ok=True)
            place_fd = os.open(place, os.O_RDONLY)
            btrfs.create_subvolume(place_fd, f"nested{number}")
            os.close(place_fd)
        outer = os.open(top / "outer", os.O_RDONLY)
        try:
            by_ioctl = sorted(btrfs.nested_subvolumes(outer))
            refuse_function(monkeypatch, btrfs, "_nested_by_rootref", errno.ENOTTY)
            assert sorted(btrfs.nested_subvolumes(outer)) == by_ioctl
            assert len(by_ioctl) == 80
        finally:
            os.close(outer)
        btrfs.delete_subvolume(fd, "outer")
        assert os.listdir(top) == []
    finally:
        os.close(fd)
