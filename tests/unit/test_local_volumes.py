"""What the volume driver ``local`` makes of Docker's options, and which it refuses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from storagedrivers.errors import StorageDriversError, VolumeError
from storagedrivers.model import Mount, Volume
from storagedrivers.volumes import sizes
from storagedrivers.volumes.local import Local

MEGABYTE = 1 << 20


def options(kind: str, device: str, o: str | None = None, **more: str) -> dict[str, str]:
    return {"type": kind, "device": device, **({} if o is None else {"o": o}), **more}


def volume(given: dict[str, str], size: int | None = None) -> Volume:
    return Volume("db", "local", 0.0, {}, given, size)


def shown(given: dict[str, str], size: int | None = None) -> tuple[str, str, str]:
    (one,) = Local().mounts(volume(given, size), Path("/nowhere"))
    return one.type, one.source, ",".join(one.options)


@pytest.mark.parametrize(
    ("given", "brief"),
    [
        ({"x": "1"}, 'invalid option: "x"'),
        ({"Type": "tmpfs"}, 'invalid option: "Type"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"type": "tmpfs", "device": ""}, 'missing required option: "device"'),
        ({"device": "/dev/x"}, 'missing required option: "type"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"o": "ro", "type": "ext4"}, 'missing required option: "device"'),
        ({"o": "ro", "device": "/dev/x"}, 'missing required option: "type"'),
    ],
)
def test_options_that_are_none_in_dockers_words(given: dict[str, str], brief: str) -> None:
    """One that there is not, or that lacks another."""
    with pytest.raises(VolumeError) as caught:
        Local().check(given, None, Path("/"))
    assert caught.value.brief == brief
    assert caught.value.resolution


@pytest.mark.parametrize(
    "kind", ["fuse", "fuse.sshfs", "fuse./bin/sh", "../x", "a b", "-x", "Ext4"]
)
def test_a_type_that_would_run_a_program_is_refused(kind: str) -> None:
    """Nothing but a filesystem of the kernel is mounted for a volume."""
    with pytest.raises(VolumeError, match="is no filesystem that the driver local can mount"):
        Local().check(options(kind, "/dev/x"), None, Path("/"))


@pytest.mark.parametrize("word", ["shared", "rshared", "slave", "rslave", "private", "unbindable"])
def test_propagation_is_no_option_of_a_volume(word: str) -> None:
    """It says where it belongs."""
    with pytest.raises(VolumeError, match=f"the option {word} belongs to a container") as caught:
        Local().check(options("none", "/data", f"bind,{word}"), None, Path("/"))
    assert f"--volume NAME:/PATH:{word}" in (caught.value.resolution or "")


@pytest.mark.parametrize(
    ("given", "size", "brief"),
    [
        (options("none", "data", "bind"), None, "'data' of a bind mount is no absolute path"),
        (options("bind", "./data"), None, "is no absolute path"),
        (options("none", "/data", "bind"), 9 * MEGABYTE, "nothing can limit"),
        (options("nfs", "host:/data"), 9 * MEGABYTE, "nothing can limit"),
        (options("tmpfs", "tmpfs", "size=5m"), 9 * MEGABYTE, "the size is given twice"),
        (
            options("tmpfs", "tmpfs"),
            9,
            "a volume of 9 bytes is too small: the smallest has 1048576",
        ),
        ({}, 0, "is too small"),
        ({}, MEGABYTE - 1, "is too small"),
        ({}, 1 << 60, "no volume can have"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    given: dict[str, str], size: int | None, brief: str
) -> None:
    """A size is never ignored."""
    with pytest.raises(VolumeError, match=brief):
        Local().check(given, size, Path("/"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        options("tmpfs", "tmpfs", "size=5m,uid=1000"),
        options("none", "/data", "bind"),
        options("nfs4", ":/data", "addr=10.0.0.1,rw"),
        options("ext4", "/dev/sdb1", ""),
        options("cifs", "//host/share", "username=a,password=b"),
        {"size": "5m"},
    ],
)
def test_dockers_options_are_taken(given: dict[str, str]) -> None:
    """Nothing is looked at on the host: it may be there only when the volume is used."""
    Local().check(given, Local().size(given), Path("/"))


def test_size_as_an_option() -> None:
    """As people write them."""
    assert Local().size({}) is None
    assert Local().size({"size": "64m"}) == Local().size({"size": "64MiB"}) == 64 * MEGABYTE
    with pytest.raises(StorageDriversError, match="'huge' is no size"):
        Local().size({"size": "huge"})
    sizes.check(sizes.MINIMUM)


@pytest.mark.parametrize(
    ("given", "mount"),
    [
        (options("none", "/data", "bind"), ("bind", "/data", "bind")),
        (options("none", "/data", "rbind,ro"), ("bind", "/data", "rbind,ro")),
        (options("bind", "/data", "ro"), ("bind", "/data", "ro,bind")),
        (options("tmpfs", "tmpfs"), ("tmpfs", "tmpfs", "")),
        (
            options("tmpfs", "tmpfs", "size=5m,defaults,,mode=700"),
            ("tmpfs", "tmpfs", "size=5m,mode=700"),
        ),
        (options("ext4", "/dev/x", "ro,noexec,exec,rw"), ("ext4", "/dev/x", "")),
        (options("ext4", "/dev/x", "exec,noexec,sync"), ("ext4", "/dev/x", "noexec,sync")),
        (options("ext4", "/dev/x", "noatime,nosuid,suid"), ("ext4", "/dev/x", "noatime")),
        (options("overlay", "overlay", "lowerdir=/a:/b"), ("overlay", "overlay", "lowerdir=/a:/b")),
    ],
)
def test_mounts_are_what_the_options_say(
    given: dict[str, str], mount: tuple[str, str, str]
) -> None:
    """Words that change nothing are left out, and of opposites the last counts."""
    assert shown(given) == mount


def test_a_size_becomes_an_option_of_a_tmpfs() -> None:
    """In bytes."""
    assert (
        shown(options("tmpfs", "tmpfs", "uid=5"), 3 * MEGABYTE)[2] == f"uid=5,size={3 * MEGABYTE}"
    )


def test_a_file_gets_a_loop_device(tmp_path: Path) -> None:
    """And a bind of a file does not."""
    file = tmp_path / "disk"
    file.touch()
    assert shown(options("ext4", str(file), "ro")) == ("ext4", str(file), "ro,loop")
    assert shown(options("none", str(file), "bind")) == ("bind", str(file), "bind")


def test_a_volume_with_an_image_is_mounted_from_it(tmp_path: Path) -> None:
    """Others are not mounted at all."""
    limited = volume({}, MEGABYTE)
    assert Local().mounts(volume({}), tmp_path) == ()
    assert Local().mounts(limited, tmp_path) == ()
    (tmp_path / "image").touch()
    assert Local().mounts(volume({}), tmp_path) == ()
    assert Local().mounts(limited, tmp_path) == (
        Mount("ext4", str(tmp_path / "image"), options=("loop",)),
    )


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"nas": "192.0.2.7", "192.0.2.9": "192.0.2.9", "2001:db8::1": "2001:db8::1"}

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (options("nfs", ":/data", "addr=nas,rw,nolock"), "addr=192.0.2.7,nolock"),
        (options("nfs", ":/data", "vers=4,addr=192.0.2.9"), "vers=4,addr=192.0.2.9"),
        (options("nfs", "nas:/data"), "addr=192.0.2.7"),
        (options("nfs4", "nas:/data", "soft"), "soft,addr=192.0.2.7"),
        (options("nfs", "[2001:db8::1]:/data"), "addr=2001:db8::1"),
        (options("nfs", ":/data", "soft"), "soft"),
        (options("cifs", "//nas/share", "username=a"), "username=a,addr=192.0.2.7"),
        (options("cifs", "//nas/share", "addr=192.0.2.9"), "addr=192.0.2.9"),
    ],
)
def test_hosts_become_addresses(resolver: None, given: dict[str, str], words: str) -> None:
    """When the volume is mounted: the kernel resolves no names."""
    assert shown(given) == (given["type"], given["device"], words)


def test_a_host_without_an_address_is_told(resolver: None) -> None:
    """By name, of the option or of the device."""
    for given in (options("nfs", ":/data", "addr=gone"), options("nfs", "gone:/data")):
        with pytest.raises(VolumeError, match="the host 'gone' has no address") as caught:
            shown(given)
        assert "Name or service not known" in (caught.value.details or "")
