"""The aufs driver without an aufs: its mount plans as values, its layers on disk, its answers."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from storagedrivers.driver import HostFacts, ProbeResult
from storagedrivers.drivers import aufs
from storagedrivers.drivers.aufs import Aufs
from storagedrivers.errors import (
    AlreadyExistsError,
    DepthExceededError,
    DriverUnsupportedError,
    InUseError,
    MountError,
    NotFoundError,
    ReadOnlyError,
)
from storagedrivers.host.facts import GraphRoot, OsRelease
from storagedrivers.linux import aufs as linux_aufs
from storagedrivers.linux import holders, namespace
from storagedrivers.linux import mount as linux_mount
from storagedrivers.linux.mountinfo import parse_mountinfo
from storagedrivers.model import Capability, Mount, Reason, Usage, WhiteoutFormat

_CALL_ITEMS = 84  # measured: what one mount call parses, branches and other options together
_FLAGS = {"ro", "rw", "remount"}  # become flags of mount(2), no options

_LONG = "x" * 200


def _driver(home: Path, *, dirperm1: bool = True, xino: str = "/dev/shm") -> Aufs:
    """A driver that asks no kernel: what it would find out is given."""
    driver = Aufs(home)
    vars(driver).update(_dirperm1=dirperm1, _xino_directory=xino)
    return driver


@pytest.fixture
def driver(tmp_path: Path) -> Aufs:
    """A driver with an empty home."""
    return _driver(tmp_path / "aufs")


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree in the place of /sys/fs/aufs."""
    tree = tmp_path / "sysfs"
    tree.mkdir()
    monkeypatch.setattr(Aufs, "sysfs", tree)
    return tree


def _stack(driver: Aufs, count: int) -> tuple[str, list[str]]:
    """A layer above *count* others, all created; the nearest lower first."""
    lowers: list[str] = []
    for number in range(count):
        driver.create(f"layer-{number:03}", lowers)
        lowers.insert(0, f"layer-{number:03}")
    driver.create("top", lowers)
    return "top", lowers


def _data(mount: Mount) -> bytes:
    """The options as mount(2) gets them."""
    return os.fsencode(",".join(option for option in mount.options if option not in _FLAGS))


def _items(mount: Mount) -> int:
    """What aufs counts in one call."""
    options = [option for option in mount.options if option not in _FLAGS]
    return sum(len(one.split(":")) if one.startswith("br=") else 1 for one in options)


def _branches(mounts: tuple[Mount, ...]) -> list[str]:
    """The branches of a plan, in the order in which aufs gets them."""
    found = mounts[0].options[0].removeprefix("br=").split(":")
    for mount in mounts[1:]:
        found += [one.removeprefix("append:") for one in mount.options if one.startswith("append:")]
    return found


def _make_superblock(sysfs: Path, name: str, *branches: str) -> None:
    """What the kernel shows of a mounted aufs."""
    (sysfs / name).mkdir()
    for number, branch in enumerate(branches):
        (sysfs / name / f"br{number}").write_bytes(os.fsencode(branch) + b"\n")
        (sysfs / name / f"brid{number}").write_text(f"{number}\n")
    (sysfs / name / "xi_path").write_text("/dev/shm/x\n")


def _leave_own_files(diff: Path) -> None:
    """What a mount of aufs and its crash leave in a writable branch, with one whiteout."""
    (diff / ".wh..wh.aufs").touch(mode=0o444)
    os.link(diff / ".wh..wh.aufs", diff / ".wh.gone")
    for name in (".wh..wh.orph", ".wh..wh.plnk"):
        (diff / name).mkdir(mode=0o700)
    (diff / ".wh..wh.orph" / "orphan").write_bytes(b"x" * 10_000)
    (diff / "file").write_bytes(b"y" * 10_000)
    os.link(diff / "file", diff / ".wh..wh.plnk" / "12.34")


# Mount plans


@pytest.mark.parametrize("home", ["short", _LONG])
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("count", [1, 2, 40, 84, 85, 126])
def test_plan_keeps_the_limits(tmp_path: Path, count: int, read_only: bool, home: str) -> None:
    """Whatever depth and path, every branch is there once, in order, within aufs's limits."""
    driver = _driver(tmp_path / home)
    layer, lowers = _stack(driver, count)
    mounts = driver.mounts(layer, lowers, read_only=read_only)
    top = "ro+wh" if read_only else "rw"
    assert _branches(mounts) == [
        f"{tmp_path}/{home}/top/diff={top}",
        *(f"{tmp_path}/{home}/{lower}/diff=ro+wh" for lower in lowers),
    ]
    assert {(mount.type, mount.source, mount.target) for mount in mounts} == {("aufs", "none", "")}
    assert all(len(_data(mount)) <= 4095 for mount in mounts)
    assert all(_items(mount) <= _CALL_ITEMS // 2 for mount in mounts)


def test_first_mount_has_the_settings_and_the_others_only_append(driver: Aufs) -> None:
    """Options are set once; each further call is a remount that does nothing but append."""
    first, *rest = driver.mounts(*_stack(driver, 126), read_only=False)
    xino = "xino=/dev/shm/.storagedrivers-top.xino"
    assert first.options[1:] == ("dio", "noplink", xino, "dirperm1")
    assert rest
    for mount in rest:
        assert mount.options[0] == "remount"
        assert all(option.startswith("append:") for option in mount.options[1:])


def test_read_only_plan_says_ro_in_every_call(driver: Aufs) -> None:
    """A remount sets a mount's flags anew, so none may leave out ro."""
    mounts = driver.mounts(*_stack(driver, 126), read_only=True)
    assert len(mounts) > 1
    assert all("ro" in mount.options for mount in mounts)


def test_long_paths_take_more_calls(tmp_path: Path) -> None:
    """The bytes of the options bound a call before the number of branches does."""
    short = _driver(tmp_path / "s")
    long = _driver(tmp_path / _LONG)
    few = short.mounts(*_stack(short, 126), read_only=False)
    many = long.mounts(*_stack(long, 126), read_only=False)
    assert len(few) == 4
    assert len(many) > len(few)


def test_calls_are_filled_to_the_last_byte() -> None:
    """Options of exactly 4095 bytes make one call, one byte more makes two."""
    fixed = len("br=/a=rw:/b=ro+wh,")
    for length, first in ((4095 - fixed, 2), (4096 - fixed, 1)):
        mounts = aufs.plan_mounts(["/a=rw", "/b=ro+wh"], ["x" * length], read_only=False)
        assert _items(mounts[0]) == first + 1
        assert len(_branches(mounts)) == 2
    fixed = len("append:/b=ro+wh,append:=ro+wh")
    for length, calls in ((4095 - fixed, 1), (4096 - fixed, 2)):
        branches = ["/a=rw", "/b=ro+wh", f"{'x' * length}=ro+wh"]
        _, *appends = aufs.plan_mounts(branches, ["x" * 4080], read_only=False)
        assert len(appends) == calls
        assert max(len(_data(mount)) for mount in appends) <= 4095


def test_options_are_counted_in_bytes(tmp_path: Path) -> None:
    """A path of letters with two bytes each has twice the length for mount(2)."""
    driver = _driver(tmp_path / ("ä" * 100))
    mounts = driver.mounts(*_stack(driver, 100), read_only=False)
    assert all(len(_data(mount)) <= 4095 for mount in mounts)
    assert len(_branches(mounts)) == 101


@pytest.mark.parametrize("position", [0, 1])
def test_a_path_too_long_for_any_call_is_refused(position: int) -> None:
    """One branch that does not fit into the options alone is an error with a remedy, never cut."""
    branches = ["/a=rw", "/b=ro+wh"]
    branches[position] = f"/{'x' * 4090}=ro+wh"
    with pytest.raises(DriverUnsupportedError) as caught:
        aufs.plan_mounts(branches, ["dio"], read_only=False)
    assert "4095" in caught.value.brief
    assert caught.value.resolution


@pytest.mark.parametrize("read_only", [False, True])
def test_a_layer_without_lowers_is_bind_mounted(driver: Aufs, read_only: bool) -> None:
    """One directory needs no union."""
    driver.create("base", [])
    (mount,) = driver.mounts("base", [], read_only=read_only)
    option = "ro" if read_only else "rw"
    assert mount == Mount("bind", f"{driver.home}/base/diff", options=("bind", option))


def test_dirperm1_only_where_the_kernel_takes_it(tmp_path: Path) -> None:
    """An option that the kernel does not know would fail the mount."""
    driver = _driver(tmp_path, dirperm1=False)
    (mount,) = driver.mounts(*_stack(driver, 1), read_only=False)
    assert "dirperm1" not in mount.options


@pytest.mark.parametrize(("read_only", "expected"), [(False, set()), (True, {"noxino", "ro"})])
def test_xino_without_a_tmpfs(tmp_path: Path, read_only: bool, expected: set[str]) -> None:
    """The kernel puts the file on the writable branch itself; without one it does without."""
    driver = _driver(tmp_path, xino="")
    (mount,) = driver.mounts(*_stack(driver, 1), read_only=read_only)
    assert set(mount.options[1:]) == {"dio", "noplink", "dirperm1", *expected}


def test_two_layers_have_two_xino_files(driver: Aufs) -> None:
    """Mounts at the same moment must not meet in one name, which aufs creates exclusively."""
    for layer in ("base", "one", "two"):
        driver.create(layer, [] if layer == "base" else ["base"])
    plans = [driver.mounts(layer, ["base"], read_only=False) for layer in ("one", "two")]
    xino = {option for plan in plans for option in plan[0].options if option.startswith("xino=")}
    assert len(xino) == 2


def test_plans_are_the_same_every_time(driver: Aufs) -> None:
    """A plan is a value: who asks twice gets the same, scratch or not."""
    layer, lowers = _stack(driver, 50)
    plan = driver.mounts(layer, lowers, read_only=False)
    assert plan == driver.mounts(layer, lowers, read_only=False)
    assert plan == driver.mounts(layer, lowers, read_only=False, scratch=True)


def test_a_driver_without_the_right_to_mount_plans_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question for dirperm1 is asked of the kernel once, and a refusal is a no."""
    asked = []

    def refuse(work: object) -> bool:
        asked.append(work)
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(namespace, "in_private_mount_namespace", refuse)
    driver = Aufs(tmp_path)
    layer, lowers = _stack(driver, 1)
    for _ in range(2):
        (mount,) = driver.mounts(layer, lowers, read_only=False)
        assert "dirperm1" not in mount.options
    assert len(asked) == 1
    assert sorted(os.listdir(tmp_path)) == ["layer-000", "top"]


def test_more_than_127_branches_are_refused(driver: Aufs) -> None:
    """The 128th branch would fail in the kernel, after the others are mounted."""
    layer, lowers = _stack(driver, 126)
    with pytest.raises(DepthExceededError):
        driver.create("beyond", [layer, *lowers])
    with pytest.raises(DepthExceededError):
        driver.mounts(layer, [*lowers, "layer-999"], read_only=True)
    assert "beyond" not in set(driver.layers())


@pytest.mark.parametrize("character", [":", ",", "="])
def test_separators_in_the_path_are_refused(tmp_path: Path, character: str) -> None:
    """There is no escape for them, so the layer is not even created."""
    driver = _driver(tmp_path / f"a{character}b")
    with pytest.raises(DriverUnsupportedError, match="path") as caught:
        driver.create("base", [])
    assert "--root" in (caught.value.resolution or "")
    with pytest.raises(DriverUnsupportedError):
        driver.mounts("base", [], read_only=True)
    assert not driver.home.exists()


def test_other_odd_characters_stay_raw(tmp_path: Path) -> None:
    """Blanks, quotes and backslashes need no escape, and must not get one."""
    driver = _driver(tmp_path / 'a b\n"c"\\d')
    mounts = driver.mounts(*_stack(driver, 1), read_only=False)
    assert _branches(mounts)[0] == f"{driver.home}/top/diff=rw"


# Layers on disk


def test_create_takes_the_root_directory_from_below(driver: Aufs) -> None:
    """The merged root shows the topmost branch's metadata: a new layer starts with the same."""
    driver.create("base", [])
    diff = driver.home / "base/diff"
    assert diff.stat().st_mode & 0o7777 == 0o755
    diff.chmod(0o1770)
    os.utime(diff, ns=(10**18, 10**18))
    driver.create("next", ["base"])
    status = (driver.home / "next/diff").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o1770, 10**18)
    assert sorted(driver.layers()) == ["base", "next"]


def test_create_refuses_what_it_cannot_make(driver: Aufs) -> None:
    """An id that is taken, a lower that is not there and a size each have their error."""
    driver.create("base", [])
    with pytest.raises(AlreadyExistsError):
        driver.create("base", [])
    with pytest.raises(NotFoundError):
        driver.create("next", ["nothing"])
    with pytest.raises(DriverUnsupportedError):
        driver.create("next", ["base"], size=1)
    assert list(driver.layers()) == ["base"]


def test_what_is_not_there_is_not_found(driver: Aufs) -> None:
    """Every method that reads a layer says which one is missing."""
    driver.create("base", [])
    calls = (
        lambda: driver.mounts("nothing", [], read_only=True),
        lambda: driver.mounts("base", ["nothing"], read_only=True),
        lambda: driver.seal("nothing", []),
        lambda: driver.changeset("nothing"),
        lambda: driver.usage("nothing"),
    )
    for call in calls:
        with pytest.raises(NotFoundError, match="nothing"):
            call()


def test_changeset_is_the_diff_directory(driver: Aufs) -> None:
    """The layer's directory holds its changes, with whiteouts as in an OCI layer."""
    driver.create("base", [])
    changeset = driver.changeset("base")
    assert changeset.path == driver.home / "base/diff"
    assert changeset.whiteouts is WhiteoutFormat.AUFS


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (".wh..wh.aufs", True),
        (".wh..wh.orph", True),
        (".wh..wh.plnk", True),
        (".wh..wh.dir.00a1", True),
        (".wh..wh..opq", False),
        (".wh.file", False),
        (".wh..hidden", False),
        ("file", False),
    ],
)
def test_own_names(name: str, own: bool) -> None:
    """Own files are told from whiteouts and the opaque mark by name, in any directory."""
    assert aufs.is_own_name(name) is own


def test_usage_leaves_out_aufs_own_files(driver: Aufs) -> None:
    """The layer takes what its diff takes; its whiteouts count, as one inode."""
    driver.create("base", [])
    diff = driver.home / "base/diff"
    empty = driver.usage("base")
    assert empty.inodes == 1
    (diff / ".wh..wh.aufs").touch()
    (diff / ".wh..wh.orph").mkdir()
    assert driver.usage("base") == empty
    (diff / ".wh..wh.aufs").unlink()
    (diff / ".wh..wh.orph").rmdir()
    _leave_own_files(diff)
    blocks = (diff / "file").stat().st_blocks
    assert driver.usage("base") == Usage(bytes=empty.bytes + blocks * 512, inodes=3)


def test_seal_removes_aufs_own_files(driver: Aufs, sysfs: Path) -> None:
    """A sealed layer holds its diff alone; the root keeps its time."""
    driver.create("base", [])
    driver.create("next", ["base"])
    diff = driver.home / "next/diff"
    _leave_own_files(diff)
    os.utime(diff, ns=(10**18, 10**18))
    usage = driver.usage("next")
    driver.seal("next", ["base"])
    assert sorted(os.listdir(diff)) == [".wh.gone", "file"]
    assert (diff / "file").read_bytes() == b"y" * 10_000
    assert diff.stat().st_mtime_ns == 10**18
    assert driver.usage("next") == usage


def test_a_sealed_layer_cannot_be_mounted_writable(driver: Aufs, sysfs: Path) -> None:
    """Sealing is for good and idempotent; reading goes on."""
    layer, lowers = _stack(driver, 1)
    driver.seal(layer, lowers)
    driver.seal(layer, lowers)
    with pytest.raises(ReadOnlyError):
        driver.mounts(layer, lowers, read_only=False)
    assert driver.mounts(layer, lowers, read_only=True)


def test_remove_leaves_nothing(driver: Aufs, sysfs: Path) -> None:
    """A layer is gone with all it held, sealed or not, and removing it again is no error."""
    layer, lowers = _stack(driver, 1)
    _leave_own_files(driver.home / layer / "diff")
    driver.seal(lowers[0], [])
    for _ in range(2):
        driver.remove(layer)
        driver.remove(lowers[0])
    assert list(driver.layers()) == []
    assert os.listdir(driver.home / ".trash") == []


# In use


@pytest.mark.parametrize("permissions", ["rw", "rw+nolwh"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_writable_branch_is_in_use(
    driver: Aufs, sysfs: Path, permissions: str, number: int
) -> None:
    """No mount of the directory shows in /proc, so the kernel's list of branches decides."""
    driver.create("base", [])
    branches = ["/nowhere=rw", "/nowhere=ro+wh", "/nowhere=ro"]
    branches[number] = f"{driver.home}/base/diff={permissions}"
    _make_superblock(sysfs, "si_12ab34", *branches)
    with pytest.raises(InUseError) as caught:
        driver.seal("base", [])
    assert "si=12ab34" in caught.value.holders[0]
    assert not (driver.home / "base/sealed").exists()


def test_a_read_only_branch_is_not_in_use(driver: Aufs, sysfs: Path) -> None:
    """Who reads the layer, or writes to another, does not keep it from being sealed."""
    driver.create("base", [])
    driver.create("other", ["base"])
    home = driver.home
    _make_superblock(sysfs, "si_1", f"{home}/other/diff=rw", f"{home}/base/diff=ro+wh")
    driver.seal("base", [])
    with pytest.raises(InUseError):
        driver.seal("other", ["base"])


def test_a_branch_is_known_by_any_of_its_paths(tmp_path: Path, sysfs: Path) -> None:
    """The kernel shows the real path with blanks in octal, the driver may come by a symlink."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to("a b")
    driver = _driver(tmp_path / "link/aufs")
    driver.create("base", [])
    shown = str(tmp_path / "a b/aufs/base/diff").replace("\\", r"\134").replace(" ", r"\040")
    _make_superblock(sysfs, "si_1", f"{shown}=rw")
    with pytest.raises(InUseError):
        driver.seal("base", [])


def test_a_superblock_that_does_not_tell_counts_as_in_use(
    driver: Aufs, sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its branches there is no proof; that is said, after some patience."""
    monkeypatch.setattr(linux_aufs, "_PAUSE", 0)
    driver.create("base", [])
    _make_superblock(sysfs, "si_1")
    with pytest.raises(InUseError, match="in use") as caught:
        driver.seal("base", [])
    assert caught.value.holders[0].startswith("perhaps")


def test_a_superblock_that_is_busy_is_asked_again(driver: Aufs, sysfs: Path) -> None:
    """A mount in the making shows no branches for a moment, and is no reason to fail."""
    driver.create("base", [])
    _make_superblock(sysfs, "si_1")
    late = threading.Timer(0.05, (sysfs / "si_1/br0").write_text, ["/nowhere=rw\n"])
    late.start()
    driver.seal("base", [])
    late.join()


def test_processes_keep_a_layer_from_being_sealed(
    driver: Aufs, sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base layer is bind mounted, so there /proc decides, as for copies."""
    driver.create("base", [])
    monkeypatch.setattr(holders, "find_writers", lambda path: [f"cwd of process 1 in {path}"])
    with pytest.raises(InUseError) as caught:
        driver.seal("base", [])
    assert caught.value.holders == (f"cwd of process 1 in {driver.home}/base/diff",)


def test_a_kernel_without_aufs_has_no_superblocks(driver: Aufs, sysfs: Path) -> None:
    """There, and beside sysfs files that are none, a layer can be sealed."""
    (sysfs / "config").write_text("CONFIG_AUFS_FS=m\n")
    assert linux_aufs.find_writing_mounts(sysfs, str(driver.home)) == []
    assert linux_aufs.find_writing_mounts(sysfs / "gone", str(driver.home)) == []


# Probing


def _probe(filesystem: str = "ext4", home: str = "/srv/aufs", **facts: object) -> ProbeResult:
    """The answer for a recorded host that has aufs unless *facts* say otherwise."""
    known = {
        "kernel": "4.4.0-210-generic",
        "os": OsRelease(id="ubuntu", version="16.04"),
        "filesystems": ("aufs", "ext4"),
        "graph_root": GraphRoot(path="/srv", probed="/srv", filesystem=filesystem),
        "recorded": True,
    }
    return Aufs.probe(HostFacts(**{**known, **facts}), Path(home))  # type: ignore[arg-type]


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "tmpfs", ""])
def test_probe_predicts_a_yes(filesystem: str) -> None:
    """A recorded host with aufs and a plain filesystem is a yes, marked as predicted."""
    result = _probe(filesystem)
    assert (result.supported, result.reason, result.predicted) == (True, Reason.OK, True)
    assert result.capabilities == {Capability.CHANGESET, Capability.CHEAP_FORK}


def test_probe_takes_a_module_for_a_yes() -> None:
    """The kernel loads the module by itself when something is mounted."""
    assert _probe(filesystems=("ext4",), loadable=("aufs",)).supported


@pytest.mark.parametrize(
    ("release", "kernel", "remedy"),
    [
        (OsRelease(id="debian", version="12"), "6.1.0-18-amd64", "use overlay2: mainline"),
        (OsRelease(id="ubuntu", version="24.04"), "6.8.0-31-generic", "use overlay2: mainline"),
        (
            OsRelease(id="ubuntu", version="18.04"),
            "4.15.0-213-generic",
            "install linux-modules-extra-4.15.0-213-generic, then: modprobe aufs",
        ),
        (
            OsRelease(id="linuxmint", id_like=("ubuntu",), version="18"),
            "4.4.0-210-generic",
            "install linux-image-extra-4.4.0-210-generic, then: modprobe aufs",
        ),
    ],
)
def test_probe_says_what_to_do_without_aufs(release: OsRelease, kernel: str, remedy: str) -> None:
    """Most kernels never had aufs: then it is overlay2, and a package where there is one."""
    result = _probe(filesystems=("ext4", "overlay"), os=release, kernel=kernel)
    assert (result.supported, result.reason) == (False, Reason.NO_KERNEL_SUPPORT)
    assert kernel in result.message
    assert result.remedy.startswith(remedy)
    assert not result.capabilities


@pytest.mark.parametrize(
    ("filesystem", "word"),
    [
        ("overlay", "volume"),
        ("aufs", "volume"),
        ("ecryptfs", "ext4"),
        ("btrfs", "btrfs-snapshot"),
        ("nfs4", "ext4"),
        ("fuse.sshfs", "ext4"),
        ("zfs", "ext4"),
    ],
)
def test_probe_refuses_backing_filesystems(filesystem: str, word: str) -> None:
    """Stacked filesystems, btrfs and, untried, network ones are refused with a way out."""
    result = _probe(filesystem)
    assert result.reason is Reason.WRONG_BACKING_FS
    assert filesystem in result.message
    assert word in result.remedy
    assert result.predicted
    assert result.evidence == {"filesystem": filesystem}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"user_namespace": True}, Reason.NO_PERMISSION),
        ({"can_mount": False}, Reason.NO_PERMISSION),
        ({"user_namespace": True, "filesystems": ()}, Reason.NO_KERNEL_SUPPORT),
        ({"system": "Darwin"}, Reason.NOT_LINUX),
        ({"home": "/srv/a:b"}, Reason.UNSUITABLE_PATH),
        ({"home": "/srv/a,b"}, Reason.UNSUITABLE_PATH),
        ({"home": "/srv/a=b"}, Reason.UNSUITABLE_PATH),
    ],
)
def test_probe_refuses_hosts(facts: dict[str, object], reason: Reason) -> None:
    """Each obstacle has its reason, and none of the remedies leads into a user namespace."""
    result = _probe(**facts)  # type: ignore[arg-type]
    assert (result.supported, result.reason) == (False, reason)
    assert "unshare" not in result.remedy


def test_probe_names_the_container() -> None:
    """In a container the graph root is on the container's own root more often than not."""
    assert "docker" in _probe("overlay", container="docker").message


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EPERM, Reason.NO_PERMISSION),
        (errno.ENODEV, Reason.NO_KERNEL_SUPPORT),
        (errno.EINVAL, Reason.WRONG_BACKING_FS),
        (errno.EIO, Reason.TRIAL_FAILED),
    ],
)
def test_a_failed_trial_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
) -> None:
    """What the kernel says to a live trial is translated, and the trial leaves no trace."""

    def fail(mount: Mount, target: Path) -> None:
        raise MountError("refused", errno=number)

    monkeypatch.setattr(linux_mount, "mount", fail)
    result = _live_probe(tmp_path, monkeypatch)
    assert (result.reason, result.predicted) == (reason, False)
    assert result.evidence["errno"] == errno.errorcode[number]
    assert result.remedy
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("works", "reason"), [(True, Reason.OK), (False, Reason.TRIAL_FAILED)])
def test_a_trial_looks_at_what_it_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool, reason: Reason
) -> None:
    """A mount that succeeds is not enough: what was deleted in it has to be gone."""
    plans = []

    def pretend(mount: Mount, target: Path) -> None:
        plans.append(mount)
        if mount.options[0] == "remount":
            (target / "gone").mkdir()
            (target / "gone/child").touch()
            (target / "file").touch()
            if not works:
                (target / "hidden").touch()

    monkeypatch.setattr(linux_mount, "mount", pretend)
    monkeypatch.setattr(linux_mount, "unmount", lambda target, *, detach: None)
    result = _live_probe(tmp_path, monkeypatch)
    assert result.reason is reason
    assert (result.evidence.get("dirperm1") == "yes") is works
    assert [mount.options[0] == "remount" for mount in plans] == [False, False, True]
    assert all(len(_data(mount)) <= 4095 for mount in plans)
    assert os.listdir(tmp_path) == []


def test_a_live_probe_refuses_the_real_path_too(tmp_path: Path) -> None:
    """The trial mounts in the directory behind the graph root's symlinks."""
    root = GraphRoot(path="/srv", probed=str(tmp_path / "a:b"), filesystem="ext4")
    result = _probe(graph_root=root, recorded=False)
    assert result.reason is Reason.UNSUITABLE_PATH


def _live_probe(directory: Path, monkeypatch: pytest.MonkeyPatch) -> ProbeResult:
    """A probe that tries, in this mount namespace: what it mounts is up to the test."""
    monkeypatch.setattr(namespace, "in_private_mount_namespace", lambda work: work())
    root = GraphRoot(path=str(directory), probed=str(directory), filesystem="ext4")
    return _probe(graph_root=root, recorded=False)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("tmpfs shm rw", "tmpfs run rw", "shm"),
        ("overlay shm rw", "tmpfs run rw", "run"),
        ("tmpfs shm ro", "tmpfs run rw", "run"),
        ("overlay shm rw", "ext4 /dev/sda2 rw", ""),
    ],
)
def test_xino_goes_to_the_first_tmpfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str, expected: str
) -> None:
    """Another filesystem and a read-only tmpfs at the usual places are passed over."""
    base = os.path.realpath(tmp_path)
    lines = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
        f"2 1 0:5 / {base}/shm rw - {first}",
        f"3 1 0:6 / {base}/run rw - {second}",
    )
    monkeypatch.setattr(aufs, "read_mountinfo", lambda: list(parse_mountinfo(lines)))
    monkeypatch.setattr(aufs, "_XINO_DIRECTORIES", (f"{base}/shm", f"{base}/run"))
    assert Aufs(tmp_path).status()["xino"] == (f"{base}/{expected}" if expected else "left to aufs")
