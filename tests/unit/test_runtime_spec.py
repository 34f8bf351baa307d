from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import GROUP, PASSWD

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.linux import syscalls
from storagedrivers.runtime import files
from storagedrivers.runtime.mounts import Mounts, Wanted
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.spec import PATH, Place, make_process, make_spec
from storagedrivers.runtime.tmpfs import tmpfs_flags, tmpfs_mount
from storagedrivers.stores.containers import Container

PLACE = Place("host", frozenset(), "/storagedrivers-id")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    (tmp_path / "cache").mkdir(mode=0o750)
    return tmp_path


@pytest.fixture
def rootfs(top: Path) -> Iterator[Rootfs]:
    with Rootfs(top) as rootfs:
        yield rootfs


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "args"),
    [
        (None, ["a", "b"], ["a", "b"]),
        (["e", "1"], ["a"], ["e", "1", "a"]),
        (["e"], None, ["e"]),
        ("old", [], ["old"]),
    ],
)
def test_commands(rootfs: Rootfs, entrypoint: Any, cmd: Any, args: list[str]) -> None:
    """The command comes after the entry point; an old image has one of text alone."""
    spec = make_spec({"Entrypoint": entrypoint, "Cmd": cmd}, rootfs, PLACE)
    assert spec["process"]["args"] == args


def test_environment(rootfs: Rootfs) -> None:
    """PATH, HOSTNAME and HOME have defaults, TERM with a terminal; a name alone takes one out."""
    config = {"Cmd": ["x"], "Env": ["A=1", "HOSTNAME", "B=b=c", "A=2"], "User": "svc", "Tty": True}
    process = make_process(config, rootfs, hostname="host")
    assert process["env"] == [f"PATH={PATH}", "TERM=xterm", "A=2", "B=b=c", "HOME=/srv"]
    assert process["terminal"] is True


def test_own_values_stay(rootfs: Rootfs) -> None:
    """What the image sets itself is not replaced by a default."""
    config = {"Cmd": ["x"], "Env": ["PATH=/own", "HOME=/mine"]}
    env = make_process(config, rootfs, hostname="host")["env"]
    assert env == ["PATH=/own", "HOSTNAME=host", "HOME=/mine"]


def test_working_directory(rootfs: Rootfs, top: Path) -> None:
    """It is made where it is missing, as root, whoever the user is."""
    spec = make_spec({"Cmd": ["x"], "WorkingDir": "/w/./x", "User": "svc"}, rootfs, PLACE)
    assert spec["process"]["cwd"] == "/w/x"
    status = (top / "w/x").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, os.geteuid())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"Cmd": []},
        {"Cmd": ["x"], "WorkingDir": "relative"},
        {"Cmd": ["x"], "WorkingDir": "/etc/passwd/x"},
        {"Cmd": ["x\0y"]},
        {"Cmd": ["x", 1]},
        {"Cmd": {"a": "b"}},
        {"Cmd": ["x"], "Env": [None]},
        {"Cmd": ["x"], "Env": ["=x"]},
        {"Cmd": ["x"], "Env": ["A=\ud800"]},
        {"Cmd": ["\ud800"]},
        {"Cmd": ["x"], "User": ["root"]},
    ],
)
def test_no_good(rootfs: Rootfs, config: dict[str, Any]) -> None:
    """What an image or a user gives is checked: a sentence, a remedy and Docker's exit code."""
    with pytest.raises(RuntimeFailedError) as caught:
        make_spec(config, rootfs, PLACE)
    assert caught.value.resolution
    assert caught.value.exit_code == 125


def test_users_have_no_capabilities(rootfs: Rootfs) -> None:
    """A process of root has those of the bounding set, another one none."""
    root = make_process({"Cmd": ["x"]}, rootfs, hostname="")["capabilities"]
    user = make_process({"Cmd": ["x"], "User": "svc"}, rootfs, hostname="")["capabilities"]
    assert root["effective"] == root["permitted"] == root["bounding"] == user["bounding"]
    assert not set(user) & {"effective", "permitted", "ambient", "inheritable"}
    assert not set(root) & {"ambient", "inheritable"}


def test_without_cgroup_no_device_is_made(rootfs: Rootfs) -> None:
    """Only a cgroup keeps a device from being the host's disk: without one none can be made."""
    limited = make_spec({"Cmd": ["x"]}, rootfs, PLACE)
    free = make_spec({"Cmd": ["x"]}, rootfs, PLACE._replace(cgroup=None))
    assert limited["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert "resources" not in free["linux"]
    assert "cgroupsPath" not in free["linux"]
    assert not [sets for sets in free["process"]["capabilities"].values() if "CAP_MKNOD" in sets]


@pytest.mark.parametrize("network", ["none", "host", None])
def test_networks(rootfs: Rootfs, network: str | None) -> None:
    """Only who asks for the host's network gets it; in one of its own, low ports are free."""
    linux = make_spec({"Cmd": ["x"], "Network": network}, rootfs, PLACE)["linux"]
    kinds = {one["type"] for one in linux["namespaces"]}
    assert kinds >= {"mount", "uts", "pid", "ipc"}
    assert ("network" in kinds) == ("sysctl" in linux) == (network != "host")


def test_read_only(rootfs: Rootfs) -> None:
    """A read-only container cannot write to the files of its own that are mounted, either."""
    assert make_spec({"Cmd": ["x"], "ReadOnly": True}, rootfs, PLACE)["root"]["readonly"] is True
    wanted = _mounts({"ReadOnly": True, "Tmpfs": ["/run"]})
    assert wanted["/etc/hosts"].read_only
    assert not wanted["/run"].read_only


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("/run", ["noexec", "nosuid", "nodev"]),
        ("/cache", ["noexec", "nosuid", "nodev", "mode=750"]),
        ("/cache:mode=1777", ["noexec", "nosuid", "nodev", "mode=1777"]),
        ("/run:exec,size=64m,size=1g", ["nosuid", "nodev", "exec", "size=1g"]),
    ],
)
def test_tmpfs(rootfs: Rootfs, words: str, options: list[str]) -> None:
    """Defaults are closed, what is asked for wins, and the directory below lends its mode."""
    mount = tmpfs_mount(words, rootfs, words.partition(":")[0])
    assert mount["options"] == [*options, "rprivate"]


def test_tmpfs_for_the_kernel() -> None:
    """Flags are bits, and what is a default anyway has none."""
    options = ["nosuid", "exec", "dev", "ro", "size=1m", "mode=711", "rprivate"]
    assert tmpfs_flags(options) == (syscalls.MS_NOSUID | syscalls.MS_RDONLY, b"size=1m,mode=711")


@pytest.mark.parametrize("words", ["relatime", "/", "//", "/x/..", "/x:size=lots", "/x:context=a"])
def test_no_tmpfs(words: str) -> None:
    """What a user gives is checked: a sentence, a remedy and Docker's exit code."""
    with pytest.raises(RuntimeFailedError) as caught:
        tmpfs_mount(words)
    assert caught.value.resolution
    assert caught.value.exit_code == 125


def test_in_place_of_a_mount(rootfs: Rootfs) -> None:
    """What is mounted where the kernel's filesystems would be replaces them, and with /dev all that
    would be in it.
    """
    usual = _targets(make_spec({"Cmd": ["x"]}, rootfs, PLACE))
    place = PLACE._replace(taken=frozenset({"/dev/shm", "/sys"}))
    assert usual - _targets(make_spec({"Cmd": ["x"]}, rootfs, place)) == {"/dev/shm", "/sys"}
    place = PLACE._replace(taken=frozenset({"/dev"}))
    left = _targets(make_spec({"Cmd": ["x"]}, rootfs, place))
    assert usual - left == {one for one in usual if one.startswith("/dev")}


def _targets(spec: dict[str, Any]) -> set[str]:
    return {one["destination"] for one in spec["mounts"]}


def _mounts(config: dict[str, Any]) -> dict[str, Wanted]:
    container = Container("id", "name", None, "", "", 0.0, config, None)
    wanted = Mounts(container, {"/etc/hosts": "/store/hosts"}, ["/var/lib/store"]).wanted
    return {one.target: one for one in wanted}


def _bind(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Destination": target, **more}


def test_order_of_mounts() -> None:
    """What lies deeper is mounted later; what was asked for is there instead of the usual."""
    mounts = [_bind("/s", "/a/b/c"), _bind("/s", "/etc/hosts"), _bind("/s", "/a")]
    found = _mounts({"Tmpfs": ["/a/b", "/t"], "Mounts": mounts})
    assert [*found] == ["/t", "/a", "/etc/hosts", "/a/b", "/a/b/c"]
    assert found["/etc/hosts"].mount is not None


@pytest.mark.parametrize(
    ("source", "given", "found"),
    [
        ("/srv", "", "rprivate"),
        ("/", "", "rslave"),
        ("/var/lib", "", "rslave"),
        ("/var/lib/store", "", "rslave"),
        ("/var/lib/store/volumes", "", "rprivate"),
        ("/var/lib/storeroom", "", "rprivate"),
        ("/", "private", "private"),
        ("/srv", "rshared", "rshared"),
    ],
)
def test_propagation(source: str, given: str, found: str) -> None:
    """Nothing spreads by itself, but from above the store: what is unmounted there has to go."""
    one = _mounts({"Mounts": [_bind(source, "/x", Propagation=given)]})["/x"]
    assert one.propagation == found


def test_files(tmp_path: Path) -> None:
    """Each container has files of its own; on the host's network its names are the host's."""
    mounted = files.write(str(tmp_path), {"Network": "none"}, "me")
    assert {*mounted} == {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
    assert Path(mounted["/etc/hostname"]).read_text() == "me\n"
    assert "127.0.0.1\tlocalhost\n" in Path(mounted["/etc/hosts"]).read_text()
    assert stat.S_IMODE(os.stat(mounted["/etc/hosts"]).st_mode) == 0o644
    mounted = files.write(str(tmp_path), {"Network": "host"}, "me")
    assert Path(mounted["/etc/hosts"]).read_bytes() == Path("/etc/hosts").read_bytes()
