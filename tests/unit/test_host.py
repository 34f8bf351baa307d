"""Host facts: recorded roots, mountinfo, the JSON document, the live host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hosts.recorded import HOSTS, host_names, host_root, load_host
from hypothesis import given, settings
from hypothesis import strategies as st

from storagedrivers.errors import ConfigError, GraphRootError
from storagedrivers.host import Disk, GraphRoot, HostFacts, OsRelease, read_host
from storagedrivers.linux.mountinfo import (
    MountEntry,
    find_mount,
    is_below,
    parse_mountinfo,
    read_mountinfo,
)
from storagedrivers.model import Reason

DRIVERS = {"aufs", "btrfs-snapshot", "overlay2", "vfs-copy"}
POLICIES = {
    "os",
    "docker-1.12",
    "docker-17.05",
    "docker-19.03",
    "docker-20.10",
    "docker-23",
    "docker-29",
}

# Recorded hosts


def test_there_are_enough_recorded_hosts() -> None:
    """The recorded hosts are at least 35, each in a directory with a host.toml."""
    directories = {path.name for path in HOSTS.iterdir() if (path / "root").is_dir()}

    assert set(host_names()) == directories
    assert len(directories) >= 35


@pytest.mark.parametrize("name", host_names())
def test_recorded_host_is_complete(name: str) -> None:
    """A recorded host gives facts from files alone, and says what every policy must choose."""
    facts, document = load_host(name)

    assert facts.recorded
    assert facts.system == "Linux"
    assert facts.kernel_version >= (2, 6)
    assert {"proc", "sysfs", "tmpfs"} <= set(facts.filesystems)
    assert not set(facts.loadable or ()) & set(facts.filesystems)
    assert facts.graph_root.filesystem
    assert facts.graph_root.probed == facts.graph_root.path
    assert document["description"].strip() == document["description"] != ""
    assert set(document) <= {"description", "facts", "graph_root", "expected", "rejected"}
    assert set(document["expected"]) == POLICIES


@pytest.mark.parametrize("name", host_names())
def test_recorded_host_does_not_contradict_itself(name: str) -> None:
    """No policy must choose a driver that is rejected, and reasons are those of the model."""
    _, document = load_host(name)
    rejected = document.get("rejected", {})

    assert set(rejected) < DRIVERS
    assert "vfs-copy" not in rejected
    assert all(Reason(reason) is not Reason.OK for reason in rejected.values())
    assert set(document["expected"].values()) <= DRIVERS - set(rejected)


@pytest.mark.parametrize("name", host_names())
def test_recorded_host_survives_json(name: str) -> None:
    """The facts of a recorded host are the same after a round through JSON."""
    facts, _ = load_host(name)

    assert HostFacts.from_json(facts.to_json()) == facts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("ubuntu-14.04", ("ubuntu", "debian", "14.04", "Ubuntu 14.04.6 LTS")),
        ("debian-7", ("debian", "", "7", "Debian GNU/Linux 7 (wheezy)")),
        ("raspbian-10", ("raspbian", "debian", "10", "Raspbian GNU/Linux 10 (buster)")),
        ("linuxmint-19.3", ("linuxmint", "ubuntu", "19.3", "Linux Mint 19.3")),
        ("rocky-9", ("rocky", "rhel centos fedora", "9.4", "Rocky Linux 9.4 (Blue Onyx)")),
        ("sles-12", ("sles", "", "12.5", "SUSE Linux Enterprise Server 12 SP5")),
        (
            "opensuse-tumbleweed",
            ("opensuse-tumbleweed", "opensuse suse", "20240823", "openSUSE Tumbleweed"),
        ),
        ("amazon-2023", ("amzn", "fedora", "2023", "Amazon Linux 2023")),
        ("alpine-3.19", ("alpine", "", "3.19.1", "Alpine Linux v3.19")),
        ("fedora-40", ("fedora", "", "40", "Fedora Linux 40 (Workstation Edition)")),
    ],
)
def test_distribution_is_read_from_os_release(host: str, expected: tuple[str, ...]) -> None:
    """Id, likenesses, version and name are those of the recorded os-release."""
    identifier, like, version, name = expected

    assert load_host(host)[0].os == OsRelease(
        id=identifier, id_like=tuple(like.split()), version=version, name=name
    )


def test_derived_ids_are_normalised() -> None:
    """Oracle Linux is "oracle" and openSUSE Leap "opensuse", whatever os-release calls them."""
    assert load_host("oracle-7")[0].os.id == "oracle"
    assert load_host("opensuse-leap-15.5")[0].os.id == "opensuse"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rhel-6", ("rhel", "6.10", "Red Hat Enterprise Linux Server 6.10 (Santiago)")),
        ("centos-6", ("centos", "6.10", "CentOS 6.10 (Final)")),
        ("oracle-6", ("oracle", "6.8", "Oracle Linux Server 6.8")),
    ],
)
def test_distribution_without_os_release(name: str, expected: tuple[str, str, str]) -> None:
    """Where there is no os-release, the distribution's own release file tells."""
    release = load_host(name)[0].os

    assert (release.id, release.version, release.name) == expected
    assert not (host_root(name) / "etc/os-release").exists()


def test_rolling_distribution_has_no_version() -> None:
    """A distribution without releases has an empty version."""
    release = load_host("arch")[0].os

    assert (release.id, release.version) == ("arch", "")


def test_unknown_distribution() -> None:
    """A host that does not say its distribution is "linux", and not the one the tests run on."""
    assert load_host("unknown")[0].os == OsRelease()


def test_os_release_below_usr_lib(tmp_path: Path) -> None:
    """An os-release that stands in /usr/lib only is found too."""
    release = tmp_path / "usr/lib/os-release"
    release.parent.mkdir(parents=True)
    release.write_text('ID=flatcar\nID_LIKE=coreos\nVERSION_ID=3815.2.0\nPRETTY_NAME="Flatcar"\n')

    assert read_host("/var", root=str(tmp_path)).os == OsRelease(
        id="flatcar", id_like=("coreos",), version="3815.2.0", name="Flatcar"
    )


@pytest.mark.parametrize(
    ("name", "kernel", "version"),
    [
        ("rhel-6", "2.6.32-754.35.1.el6.x86_64", (2, 6)),
        ("centos-7.3", "3.10.0-514.26.2.el7.x86_64", (3, 10)),
        ("raspbian-10", "5.10.103-v7l+", (5, 10)),
        ("arch", "6.9.3-arch1-1", (6, 9)),
        ("wsl2-9p", "5.15.146.1-microsoft-standard-WSL2", (5, 15)),
    ],
)
def test_kernel_is_read(name: str, kernel: str, version: tuple[int, int]) -> None:
    """The kernel's release is read without the line's end, and its version from that."""
    facts, _ = load_host(name)

    assert (facts.kernel, facts.kernel_version) == (kernel, version)


@pytest.mark.parametrize(
    ("kernel", "version"),
    [
        ("6.1.0-18-amd64", (6, 1)),
        ("6.1-rc3", (6, 1)),
        ("5.10+", (5, 10)),
        ("4.19", (4, 19)),
        ("3.10.0-1160.el7.x86_64", (3, 10)),
        ("6", (0, 0)),
        ("", (0, 0)),
        ("6.", (0, 0)),
        (".6", (0, 0)),
        ("linux-6.1", (0, 0)),
        ("6.x.1", (0, 0)),
    ],
)
def test_kernel_version_of_odd_releases(kernel: str, version: tuple[int, int]) -> None:
    """A version is the two leading numbers, and (0, 0) where there are none."""
    assert HostFacts(kernel=kernel).kernel_version == version


def test_filesystems_of_the_kernel() -> None:
    """Filesystems with and without "nodev" are listed, sorted."""
    filesystems = load_host("ubuntu-18.04-without-aufs")[0].filesystems

    assert {"ext4", "overlay", "squashfs", "proc"} <= set(filesystems)
    assert "nodev" not in filesystems
    assert list(filesystems) == sorted(filesystems)


@pytest.mark.parametrize(
    ("name", "loadable"),
    [
        ("ubuntu-18.04", ("aufs", "btrfs", "overlay", "xfs")),
        ("ubuntu-18.04-without-aufs", ("btrfs", "xfs")),
        ("debian-7", ("aufs", "btrfs", "fuse", "squashfs", "xfs")),
        ("debian-9-aufs-dkms", ("btrfs", "fuse", "squashfs", "xfs")),  # aufs is loaded
        ("devuan-3-aufs-dkms", ("aufs", "btrfs", "overlay", "squashfs", "xfs")),
        ("rhel-7", ("btrfs", "fuse", "overlay", "squashfs")),  # *.ko.xz
        ("alpine-3.19", ("btrfs", "fuse", "overlay", "squashfs", "xfs")),  # *.ko.gz
        ("arch", ("btrfs", "erofs", "overlay", "squashfs", "xfs")),  # *.ko.zst
        ("docker-container", None),  # the host's modules are not seen in it
        ("unknown", None),
    ],
)
def test_loadable_filesystems(name: str, loadable: tuple[str, ...] | None) -> None:
    """A filesystem is loadable if the kernel lacks it and has a module, compressed or not."""
    assert load_host(name)[0].loadable == loadable


def test_overlayfs_is_not_overlay() -> None:
    """The module overlayfs.ko of Ubuntu 14.04, in a directory overlayfs, is no overlay."""
    facts, _ = load_host("ubuntu-14.04")

    assert "overlayfs.ko" in next(host_root("ubuntu-14.04").rglob("modules.dep")).read_text()
    assert "overlay" not in {*(facts.loadable or ()), *facts.filesystems}


def test_modules_of_another_kernel_do_not_count(tmp_path: Path) -> None:
    """Only the modules of the running kernel can be loaded; without theirs nothing is known."""
    for path, text in {
        "proc/sys/kernel/osrelease": "6.1.0-21-amd64\n",
        "proc/filesystems": "nodev\tproc\n\text4\n",
        "lib/modules/6.1.0-20-amd64/modules.dep": "kernel/fs/overlayfs/overlay.ko:\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert read_host("/var", root=str(tmp_path)).loadable is None


@pytest.mark.parametrize(
    ("name", "filesystem", "source"),
    [
        ("centos-7.3", "xfs", "/dev/mapper/centos-root"),
        ("ubuntu-16.04-nfs", "nfs", "filer:/export/hosts/web1"),
        ("rhel-8-nfs4", "nfs4", "filer.example.org:/exports/web1"),
        ("ubuntu-22.04-zfs-2.1", "zfs", "rpool/ROOT/ubuntu_4k2h1z/var/lib"),
        ("debian-12", "xfs", "/dev/sdb"),  # at "/srv/container store"
        ("debian-12-mergerfs", "fuse.mergerfs", "1:2"),
        ("sles-12-xfs", "xfs", "/dev/sdb1"),  # below /var, a mount of its own
        ("docker-container", "overlay", "overlay"),
        ("docker-container-with-volume", "ext4", "/dev/sda1"),
        ("wsl2-9p", "9p", "C:\\"),
        ("fedora-40-rootless-tmpfs", "tmpfs", "tmpfs"),
    ],
)
def test_filesystem_of_the_graph_root(name: str, filesystem: str, source: str) -> None:
    """The graph root is on the innermost mount above it, also where names are escaped."""
    root = load_host(name)[0].graph_root

    assert (root.filesystem, root.source) == (filesystem, source)


def test_options_of_the_graph_root() -> None:
    """The options are the mount's and then the superblock's, each once."""
    assert load_host("ubuntu-18.04")[0].graph_root.options == (
        "rw",
        "relatime",
        "errors=remount-ro",
        "data=ordered",
    )


def test_neighbour_with_the_same_beginning_does_not_count() -> None:
    """A store at /var/lib/storagedrivers2 is not on what is mounted at /var/lib/storagedrivers."""
    root = str(host_root("almalinux-9"))

    assert read_host("/var/lib/storagedrivers/x", root=root).graph_root.filesystem == "ext4"
    assert read_host("/var/lib/storagedrivers2", root=root).graph_root.filesystem == "xfs"


def test_graph_root_is_made_absolute_and_normal() -> None:
    """Dots in the path of the graph root do not lead to another mount."""
    root = read_host("/srv/../var/lib/./storagedrivers/", root=str(host_root("almalinux-9")))

    assert root.graph_root.path == "/var/lib/storagedrivers"
    assert root.graph_root.filesystem == "ext4"


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("docker-container", "docker"),  # .dockerenv
        ("podman-container-rootless", "podman"),  # run/.containerenv, before proc/1/environ
        ("debian-8-lxc-unprivileged", "lxc"),  # proc/1/environ
        ("kubernetes-pod", "kubernetes"),  # proc/1/cgroup
        ("nspawn-container", "systemd-nspawn"),  # run/systemd/container
        ("debian-12", ""),
    ],
)
def test_container_by_its_marks(name: str, container: str) -> None:
    """A container is known by the marks of its engine, a host by their absence."""
    assert load_host(name)[0].container == container


@pytest.mark.parametrize("word", ["docker", "lxc", "kubepods"])
def test_container_by_its_control_group(tmp_path: Path, word: str) -> None:
    """Where no other mark is left, the control group of the first process tells."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text(f"2:cpu:/{word}/0123\n1:name=systemd:/{word}/0123\n")

    assert read_host("/", root=str(tmp_path)).container == {"kubepods": "kubernetes"}.get(
        word, word
    )


def test_empty_root(tmp_path: Path) -> None:
    """A root directory with nothing in it gives facts that say so."""
    facts = read_host("/var/lib/store", root=str(tmp_path))

    assert facts == HostFacts(
        loadable=None,
        graph_root=GraphRoot(path="/var/lib/store", probed="/var/lib/store"),
        recorded=True,
    )


def test_recorded_root_is_not_written_to(tmp_path: Path) -> None:
    """Reading a recorded root measures nothing, not even where its graph root exists here."""
    (tmp_path / "store").mkdir()
    before = tmp_path.stat().st_mtime_ns, (tmp_path / "store").stat().st_mtime_ns

    facts = read_host(tmp_path / "store", root=str(tmp_path))

    assert facts.graph_root.d_type is facts.graph_root.total_bytes is None
    assert (tmp_path.stat().st_mtime_ns, (tmp_path / "store").stat().st_mtime_ns) == before


# mountinfo


def _entries(*lines: str) -> list[MountEntry]:
    return list(parse_mountinfo(line + "\n" for line in lines))


ROOT = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro"


def test_line_of_mountinfo() -> None:
    """Every field of a line is taken, and optional fields are passed over."""
    (entry,) = _entries(
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 unbindable - ext3 /dev/root rw,x=1"
    )

    assert entry == MountEntry(
        mount_id=36,
        device="98:0",
        root="/mnt1",
        mountpoint="/mnt2",
        filesystem="ext3",
        source="/dev/root",
        options=("rw", "noatime", "x=1"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "22 1 254:1 / / rw,relatime shared:1 ext4 /dev/vda1 rw",  # no separator
        "22 1 254:1 / - ext4 /dev/vda1 rw",  # too few fields before it
        "22 1 254:1 / / rw - ext4 /dev/vda1",  # and after it
        "x 1 254:1 / / rw - ext4 /dev/vda1 rw",
        " - ext4 /dev/vda1 rw",
    ],
)
def test_malformed_lines_are_passed_over(line: str) -> None:
    """A line of another form hides no other line."""
    assert [entry.mount_id for entry in _entries(line, ROOT, line)] == [22]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"/media/My\040Passport", "/media/My Passport"),
        (r"/a\011b", "/a\tb"),
        (r"/a\012b", "/a\nb"),
        (r"/a\134b", r"/a\b"),
        (r"/a\134040b", r"/a\040b"),  # an escaped backslash begins no other escape
        (r"/a\043b", "/a#b"),
        ("/café", "/café"),
        (r"/café\040noir", "/café noir"),
        (r"/a\04", r"/a\04"),  # no escape
    ],
)
def test_octal_escapes(written: str, meant: str) -> None:
    """Names stand in mountinfo with octal escapes, in every field that is a name."""
    (entry,) = _entries(f"22 1 0:1 {written} {written} rw - tmpfs {written} rw")

    assert (entry.root, entry.mountpoint, entry.source) == (meant, meant, meant)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """A mountpoint with bytes that are no UTF-8 is found by the name that os functions give it."""
    file = tmp_path / "mountinfo"
    file.write_bytes(b"22 1 0:1 / / rw - ext4 a rw\n23 22 0:2 / /d\xe9p\\040t rw - xfs b rw\n")

    entry = find_mount(read_mountinfo(str(file)), os.fsdecode(b"/d\xe9p t/layers"))

    assert entry is not None
    assert entry.filesystem == "xfs"


def test_empty_source() -> None:
    """A mount whose source is an empty string is a mount like any other."""
    (entry,) = _entries("22 1 0:1 / /run rw -  tmpfs", "23 1 0:1 / /run rw - tmpfs  rw")

    assert (entry.mount_id, entry.filesystem, entry.source) == (23, "tmpfs", "")


def test_innermost_mount_is_found() -> None:
    """A path is on the mount whose mountpoint is nearest above it, in whatever order they stand."""
    entries = _entries(
        "3 2 0:3 / /a/b rw - xfs three rw",
        "1 0 0:1 / / rw - ext4 one rw",
        "2 1 0:2 / /a rw - tmpfs two rw",
    )
    found = {
        path: find_mount(entries, path) for path in ("/", "/a", "/a/b", "/a/b/c", "/ab", "/a/bc")
    }

    assert {path: entry and entry.mount_id for path, entry in found.items()} == {
        "/": 1,
        "/a": 2,
        "/a/b": 3,
        "/a/b/c": 3,
        "/ab": 1,
        "/a/bc": 2,
    }


def test_last_mount_is_on_top() -> None:
    """Of several mounts at one mountpoint, the last one counts."""
    entries = _entries(
        ROOT, "30 22 0:30 / /mnt rw - autofs systemd-1 rw", "31 30 0:31 / /mnt rw - nfs4 filer:/ rw"
    )
    entry = find_mount(entries, "/mnt/store")

    assert entry is not None
    assert entry.filesystem == "nfs4"


def test_no_mount_is_found() -> None:
    """Without a mount above the path there is none."""
    assert find_mount([], "/") is None
    assert find_mount(_entries("2 1 0:2 / /a rw - tmpfs two rw"), "/b") is None


@pytest.mark.parametrize(
    ("path", "directory", "below"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/ab", "/a", False),
        ("/", "/a", False),
        ("/a", "/", True),
        ("/", "/", True),
    ],
)
def test_is_below(path: str, directory: str, *, below: bool) -> None:
    """A directory holds itself and what lies in it, not its neighbours."""
    assert is_below(path, directory) is below


def test_mountinfo_that_is_not_there(tmp_path: Path) -> None:
    """A host without /proc has no mounts, which is no error."""
    assert read_mountinfo(str(tmp_path / "mountinfo")) == []


# The JSON document

_text = st.text(max_size=20)
_texts = st.lists(_text, max_size=4).map(tuple)
_number = st.none() | st.integers(0, 1 << 62)
_flag = st.none() | st.booleans()
_roots = st.builds(
    GraphRoot,
    path=_text,
    probed=_text,
    filesystem=_text,
    source=_text,
    options=_texts,
    problem=st.sampled_from(["", "read-only", "not-writable", "no-space"]),
    **dict.fromkeys(
        ("d_type", "trusted_xattr", "user_xattr", "reflink", "o_tmpfile", "rename_whiteout"), _flag
    ),
    **dict.fromkeys(("total_bytes", "free_bytes", "total_inodes", "free_inodes"), _number),
)
_disks = st.builds(
    Disk,
    device=_text,
    mountpoint=_text,
    filesystem=_text,
    total_bytes=st.integers(0),
    free_bytes=st.integers(0),
)
_facts = st.builds(
    HostFacts,
    system=_text,
    machine=_text,
    kernel=_text,
    os=st.builds(OsRelease, id=_text, id_like=_texts, version=_text, name=_text),
    filesystems=_texts,
    loadable=_texts,
    graph_root=_roots,
    uid=st.integers(0, (1 << 32) - 1),
    user_namespace=st.booleans(),
    can_mount=st.booleans(),
    container=_text,
    memory_bytes=_number,
    disks=st.lists(_disks, max_size=3).map(tuple),
    recorded=st.just(True),
)


@settings(deadline=None)
@given(_facts)
def test_facts_survive_json(facts: HostFacts) -> None:
    """Any facts are the same after a round through JSON."""
    assert HostFacts.from_json(facts.to_json()) == facts


@settings(deadline=None)
@given(st.text())
def test_any_kernel_has_a_version(kernel: str) -> None:
    """Whatever a kernel calls itself, asking for its version raises nothing."""
    assert len(HostFacts(kernel=kernel).kernel_version) == 2


def test_names_with_odd_bytes_survive_json() -> None:
    """A path with bytes that are no UTF-8 stays the same path, in a document that is ASCII."""
    facts = HostFacts(graph_root=GraphRoot(path=os.fsdecode(b"/srv/d\xe9p\xf4t")), recorded=True)
    document = facts.to_json()

    assert document.isascii()
    assert HostFacts.from_json(document) == facts


def test_document_is_for_people_and_programs() -> None:
    """The document begins with its schema, ends its last line, and does not say "recorded"."""
    document = HostFacts(recorded=True).to_json()

    assert document.startswith('{\n  "schema": 1,\n')
    assert document.endswith("}\n")
    assert "recorded" not in json.loads(document)


def test_missing_keys_take_their_defaults() -> None:
    """A host described by hand needs only what matters."""
    text = '{"schema": 1, "kernel": "6.1.0", "graph_root": {"filesystem": "xfs"}}'

    assert HostFacts.from_json(text) == HostFacts(
        kernel="6.1.0", graph_root=GraphRoot(filesystem="xfs"), recorded=True
    )


def _refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        HostFacts.from_json(text, file="host.json")
    assert caught.value.file == "host.json"
    assert str(caught.value).startswith("host.json")
    return caught.value


BY_HAND = """\
{
  "schema": 1,
  "kernel": "6.1.0",
  "os": {
    "id": "debian",
    "version": "12"
  },
  "graph_root": {
    "path": "/srv/store",
    "d_type": true,
    "total_bytes": 1000
  },
  "filesystems": [
    "ext4"
  ],
  "memory_bytes": null,
  "uid": 0
}
"""


def test_described_by_hand() -> None:
    """The document that the following tests spoil is a good one."""
    assert HostFacts.from_json(BY_HAND, file="host.json").graph_root.path == "/srv/store"


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "brief"),
    [
        ('"kernel"', '"release"', 3, "release", "unknown key"),
        ('"version"', '"release"', 6, "os.release", "unknown key"),
        ('"path"', '"paths"', 9, "graph_root.paths", "unknown key"),
        ('"uid": 0', '"recorded": true', 17, "recorded", "unknown key"),
        ('"6.1.0"', "6.1", 3, "kernel", "must be str, not float"),
        ('"6.1.0"', "null", 3, "kernel", "must be str, not null"),
        ('"12"', "12", 6, "os.version", "must be str, not int"),
        ("true", '"yes"', 10, "graph_root.d_type", "must be bool or null, not str"),
        ("true", "1", 10, "graph_root.d_type", "must be bool or null, not int"),
        ("1000", "true", 11, "graph_root.total_bytes", "must be int or null, not bool"),
        ("1000", "1e3", 11, "graph_root.total_bytes", "must be int or null, not float"),
        ('[\n    "ext4"\n  ]', '"ext4"', 13, "filesystems", "must be a list, not str"),
        ('"ext4"', "4", 13, "filesystems.0", "must be str, not int"),
        ('"uid": 0', '"uid": false', 17, "uid", "must be int, not bool"),
        ('"uid": 0', '"disks": {}', 17, "disks", "must be a list, not dict"),
        ('"uid": 0', '"disks": ["/dev/sda"]', 17, "disks.0", "must be an object, not str"),
        (
            '{\n    "id": "debian",\n    "version": "12"\n  }',
            '"debian"',
            4,
            "os",
            "must be an object, not str",
        ),
    ],
)
def test_wrong_document_says_where(old: str, new: str, line: int, key: str, brief: str) -> None:
    """An unknown key or a value of a wrong type is named with file, line and key."""
    assert old in BY_HAND
    error = _refusal(BY_HAND.replace(old, new, 1))

    assert (error.line, error.key) == (line, key)
    assert str(error) == f"host.json, line {line}, key {key!r}: {brief}"


def test_key_of_the_same_name_elsewhere_does_not_mislead() -> None:
    """The line is that of the key below its own parent."""
    text = '{\n"schema": 1,\n"os": {"id": "debian",\n"name": "x"},\n"graph_root": {\n"id": 1}\n}'
    error = _refusal(text)

    assert (error.line, error.key) == (6, "graph_root.id")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("{", 1),
        ('{\n  "schema": 1,\n  "kernel": 6.1.0\n}\n', 3),
        ('{\n  "schema": 1\n  "uid": 0\n}\n', 3),
        ("{'schema': 1}", 1),
    ],
)
def test_bad_json_says_where(text: str, line: int) -> None:
    """What is no JSON is refused with file and line, and without a key."""
    error = _refusal(text)

    assert (error.line, error.key) == (line, None)
    assert "not valid JSON" in error.brief


@pytest.mark.parametrize("text", ["[]", "null", '"host"', "1"])
def test_other_json_is_refused(text: str) -> None:
    """A JSON document that is no object is no host."""
    error = _refusal(text)

    assert (error.line, str(error)) == (1, "host.json, line 1: not a JSON object")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", None),
        ('{"kernel": "6.1.0"}', None),
        ('{\n"kernel": "6.1.0",\n"schema": 2}', 3),
        ('{\n"schema": null}', 2),
        ('{\n"schema": "1"}', 2),
    ],
)
def test_other_schema_is_refused(text: str, line: int | None) -> None:
    """A document without the schema, or with another, is refused with the way to a new one."""
    error = _refusal(text)

    assert (error.line, error.key) == (line, "schema")
    assert "storagedrivers facts" in (error.resolution or "")


# The live host


def test_live_host_leaves_nothing_behind(tmp_path: Path) -> None:
    """Measuring happens in a scratch directory at the graph root, which is taken away."""
    before = os.listdir(tmp_path)

    facts = read_host(tmp_path)

    assert os.listdir(tmp_path) == before == []
    assert not facts.recorded
    assert facts.kernel == os.uname().release
    assert facts.uid == os.geteuid()
    assert facts.graph_root.problem == ""
    assert facts.graph_root.d_type is True
    assert (facts.graph_root.total_bytes or 0) > (facts.graph_root.free_bytes or 0) > 0


def test_live_host_survives_json(tmp_path: Path) -> None:
    """What the command "facts" prints here can be read anywhere."""
    facts = read_host(tmp_path)
    read = HostFacts.from_json(facts.to_json())

    assert read.recorded
    assert read != facts  # which are not recorded
    assert read.to_json() == facts.to_json()


def test_graph_root_that_is_not_there_yet(tmp_path: Path) -> None:
    """The nearest ancestor that exists is probed, and the graph root is not made."""
    root = read_host(tmp_path / "a/b/c").graph_root

    assert (root.path, root.probed) == (str(tmp_path / "a/b/c"), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_graph_root_behind_a_symlink(tmp_path: Path) -> None:
    """A symlink in the path is followed for the probe, and kept in the path."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to("disk")
    root = read_host(tmp_path / "store/layers").graph_root

    assert (root.path, root.probed) == (str(tmp_path / "store/layers"), str(tmp_path / "disk"))


@pytest.mark.parametrize("below", ["", "store", "store/layers"])
def test_graph_root_that_is_a_file(tmp_path: Path, below: str) -> None:
    """A file at the graph root, or above it, is refused with a remedy and stays as it is."""
    file = tmp_path / "file"
    file.write_text("mine")

    with pytest.raises(GraphRootError) as caught:
        read_host(file / below)

    assert str(file) in str(caught.value)
    assert "--root" in (caught.value.resolution or "")
    assert file.read_text() == "mine"


def test_relative_graph_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken from the working directory."""
    monkeypatch.chdir(tmp_path)

    assert read_host("store").graph_root.path == str(tmp_path / "store")
