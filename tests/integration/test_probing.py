"""Probes against real filesystems: what they say is what mounting gives, and nothing stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from capabilities import has, need
from processes import forked, succeeded

from storagedrivers.driver import ProbeResult, StorageDriver, kernel_obstacle
from storagedrivers.drivers.aufs import Aufs
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.host import HostFacts, read_host
from storagedrivers.linux import mount, namespace
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.linux.scratch import scratch_directory
from storagedrivers.model import Mount, Reason
from storagedrivers.testing import run_contracts
from storagedrivers.testing.filesystems import MEGABYTE, loop_filesystem

DRIVERS: tuple[type[StorageDriver], ...] = (Aufs, BtrfsSnapshot, Overlay2, VfsCopy)
FILESYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")
NOBODY = 65534

OnFilesystem = Callable[[str], Path]


@pytest.fixture(autouse=True)
def loops_detached(nothing_left: None, tmp_path: Path) -> Iterator[None]:
    """Wait for loop devices: a mount namespace that ended lets go of its mounts a moment later."""
    yield
    end = time.monotonic() + 5
    while time.monotonic() < end:
        files = []
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                files.append(path.read_text())
        if not any(file.startswith(f"{tmp_path}/") for file in files):
            break
        time.sleep(0.01)


def probe_all(root: Path) -> tuple[HostFacts, dict[str, ProbeResult]]:
    """Facts and answers for a graph root; checks that the disk and the mounts stay as they are."""
    before = (sorted(os.listdir(root)), read_mountinfo())
    host = read_host(root, inventory=False)
    answers = {driver.name: driver.probe(host, root / driver.name) for driver in DRIVERS}
    assert (sorted(os.listdir(root)), read_mountinfo()) == before
    for name, answer in answers.items():
        assert answer.message, name
        assert answer.supported or answer.remedy, f"{name}: {answer.message}"
        assert answer.supported is (answer.reason is Reason.OK)
        assert not answer.predicted, name
    return host, answers


# What mounting gives


def overlay_works(directory: Path) -> bool:
    """Whether an overlay with its upper in *directory* does what a container needs, by mount(8)."""

    def attempt(scratch: Path) -> bool:
        for name in ("lower/directory", "upper", "work", "merged"):
            (scratch / name).mkdir(parents=True)
        (scratch / "lower/directory/file").touch()
        options = ",".join(
            f"{key}={scratch / name}"
            for key, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
        )
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(scratch / "merged")]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        try:
            shutil.rmtree(scratch / "merged/directory")
            (scratch / "merged/directory").mkdir()
        except OSError:
            return False
        return os.listdir(scratch / "merged/directory") == []

    try:
        with scratch_directory(directory) as scratch:
            return namespace.in_private_mount_namespace(lambda: attempt(scratch))
    except OSError:
        return False


def snapshot_works(directory: Path) -> bool:
    """Whether a subvolume in *directory* can be made and snapshotted, by btrfs(8)."""
    need("btrfs")

    def done(*command: object) -> bool:
        words = ["btrfs", "subvolume", *map(str, command)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    try:
        with scratch_directory(directory) as scratch:
            one, two = scratch / "one", scratch / "two"
            return (
                done("create", one)
                and done("snapshot", one, two)
                and done("delete", two)
                and done("delete", one)
            )
    except OSError:
        return False


def assert_true(root: Path) -> dict[str, ProbeResult]:
    """Compare the answers for *root* with what mounting gives."""
    _, answers = probe_all(root)
    assert answers["overlay2"].supported is overlay_works(root), answers["overlay2"].message
    assert answers["btrfs-snapshot"].supported is snapshot_works(root)
    return answers


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_answers_are_what_mounting_gives(kind: str, on_filesystem: OnFilesystem) -> None:
    """On each filesystem a driver says yes exactly where the thing itself works."""
    need("root", "mount", "overlay")
    answers = assert_true(on_filesystem(kind))
    assert answers["overlay2"].supported
    assert answers["btrfs-snapshot"].supported is (kind == "btrfs")
    assert answers["vfs-copy"].supported


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_answer_holds_for_a_graph_root_that_is_not_there_yet(
    kind: str, on_filesystem: OnFilesystem
) -> None:
    """The nearest directory that exists answers for the one to come, which is not made."""
    need("root", "mount", "overlay")
    root = on_filesystem(kind)
    there = {driver.name: driver.probe(read_host(root), root / "x") for driver in DRIVERS}
    later = root / "not/there/yet"
    host = read_host(later)
    assert host.graph_root.probed == str(root)
    for driver in DRIVERS:
        answer = driver.probe(host, later / driver.name)
        assert (answer.supported, answer.reason) == (
            there[driver.name].supported,
            there[driver.name].reason,
        )
    assert os.listdir(root) == []


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_read_only_filesystem(kind: str, tmp_path: Path) -> None:
    """The facts name the problem, and no driver that has to write claims to work."""
    need("root", "mount", "loop", f"mkfs.{kind}")
    with loop_filesystem(kind, tmp_path, size=256 * MEGABYTE) as top:
        mount.mount(Mount(kind, "none", options=("remount", "ro")), top)
        host, answers = probe_all(top)
        assert host.graph_root.problem == Reason.READ_ONLY
        assert host.graph_root.d_type is None  # not measured, and not guessed
        for name in ("overlay2", "btrfs-snapshot"):
            assert not answers[name].supported
        assert "read-only" in answers["overlay2"].message
        mount.mount(Mount(kind, "none", options=("remount", "rw")), top)
        assert assert_true(top)["overlay2"].supported


def _fill(top: Path) -> None:
    """Take every block, those that the filesystem had set aside too."""
    for round_ in range(3):
        with suppress(OSError), (top / f"filler{round_}").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with suppress(OSError):
            for number in range(5000):
                (top / f"small{round_}-{number}").write_bytes(b"x" * 4096)
        with suppress(OSError):
            for number in range(5000):
                (top / f"directory{round_}-{number}").mkdir()
        os.sync()


def test_full_filesystem(tmp_path: Path) -> None:
    """A disk without room is told as that, and not as one that cannot do the thing."""
    need("root", "mount", "loop", "mkfs.ext4")
    with loop_filesystem("ext4", tmp_path, size=64 * MEGABYTE) as top:
        _fill(top)
        host, answers = probe_all(top)
        assert host.graph_root.problem == Reason.NO_SPACE
        assert answers["overlay2"].reason is Reason.NO_SPACE
        assert "room" in answers["overlay2"].remedy
        (top / "filler0").unlink()
        assert assert_true(top)["overlay2"].supported


def test_filesystem_without_inodes(tmp_path: Path) -> None:
    """What ends in the middle of the trial is told as want of space, and leaves nothing."""
    need("root", "mount", "tmpfs", "overlay")
    seen = set()
    for inodes in range(2, 30):
        options = ("size=1m", f"nr_inodes={inodes}")
        with mount.mounted((Mount("tmpfs", "tmpfs", options=options),), tmp_path):
            _, answers = probe_all(tmp_path)
            seen.add(answers["overlay2"].reason)
    # With one inode less than it needs, overlay mounts read-only: a trial that failed.
    assert {Reason.NO_SPACE, Reason.OK} <= seen <= {Reason.NO_SPACE, Reason.OK, Reason.TRIAL_FAILED}


def test_filesystem_without_types_in_directories(tmp_path: Path) -> None:
    """Where overlay would mount and show deleted names the answer is no, with the reason."""
    need("root", "mount", "loop", "overlay", "mkfs.ext4")
    options = ("-O", "^filetype")
    with loop_filesystem("ext4", tmp_path, size=64 * MEGABYTE, options=options) as top:
        host, answers = probe_all(top)
        assert host.graph_root.d_type is False
        assert answers["overlay2"].reason is Reason.NO_D_TYPE
        assert not overlay_works(top)


def test_trial_alone_tells_a_filesystem_without_types(tmp_path: Path) -> None:
    """If the measurement missed it, deleting and listing in the trial does not."""
    need("root", "mount", "loop", "overlay", "mkfs.ext4")
    options = ("-O", "^filetype")
    with loop_filesystem("ext4", tmp_path, size=64 * MEGABYTE, options=options) as top:
        host = read_host(top, inventory=False)
        host = host._replace(graph_root=host.graph_root._replace(d_type=None))
        answer = Overlay2.probe(host, top / "overlay2")
        assert answer.reason is Reason.TRIAL_FAILED
        assert "delet" in answer.message
        assert answer.remedy
        assert not {name for name in os.listdir(top) if name.startswith(".")}


# Stacked filesystems


@contextmanager
def stacked(kind: str, directory: Path) -> Iterator[Path]:
    """An overlay, by the kernel or by a program, as graph root."""
    for name in ("lower", "upper", "work", "merged"):
        (directory / name).mkdir()
    options = (
        f"lowerdir={directory / 'lower'}",
        f"upperdir={directory / 'upper'}",
        f"workdir={directory / 'work'}",
    )
    with mount.mounted((Mount(kind, "overlay", options=options),), directory / "merged"):
        yield directory / "merged"


def test_overlay_on_overlay(tmp_path: Path, on_filesystem: OnFilesystem) -> None:
    """An overlay below is told by its name, with what to do in a container."""
    need("root", "mount", "overlay")
    with stacked("overlay", on_filesystem("ext4")) as root:
        answers = assert_true(root)
        assert answers["overlay2"].reason is Reason.OVERLAY_ON_OVERLAY
        assert answers["vfs-copy"].supported


def test_fuse_overlayfs_below(on_filesystem: OnFilesystem) -> None:
    """On a fuse filesystem overlay2 says what the kernel says."""
    need("root", "mount", "overlay", "fuse", "fuse-overlayfs")
    with stacked("fuse.fuse-overlayfs", on_filesystem("ext4")) as root:
        answers = assert_true(root)
        if not answers["overlay2"].supported:
            assert answers["overlay2"].reason is Reason.WRONG_BACKING_FS
        assert answers["vfs-copy"].supported


def test_tmpfs_on_top_of_an_overlay(on_filesystem: OnFilesystem) -> None:
    """What is mounted over counts, not what lies below it: the remedy for containers works."""
    need("root", "mount", "overlay", "tmpfs")
    with stacked("overlay", on_filesystem("ext4")) as root:
        (root / "volume").mkdir()
        with mount.mounted((Mount("tmpfs", "tmpfs"),), root / "volume"):
            assert assert_true(root / "volume")["overlay2"].supported


# User namespaces and users


def in_user_namespace(code: str, *arguments: object) -> object:
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_PROBE = """
import json, os, sys
from pathlib import Path
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.host import read_host
from storagedrivers.linux import mount
from storagedrivers.model import Mount

root = Path(sys.argv[1])
if len(sys.argv) > 2:
    mount.mount(Mount("tmpfs", "tmpfs"), root)
host = read_host(root, inventory=False)
answers = {d.name: d.probe(host, root / d.name) for d in (BtrfsSnapshot, Overlay2, VfsCopy)}
assert os.listdir(root) == [], os.listdir(root)
print(json.dumps({
    "user_namespace": host.user_namespace,
    "can_mount": host.can_mount,
    "filesystem": host.graph_root.filesystem,
    "answers": {n: [a.supported, a.reason, a.predicted, a.message] for n, a in answers.items()},
}))
"""


@pytest.mark.parametrize("kind", [*FILESYSTEMS, "tmpfs of the namespace"])
def test_user_namespace(kind: str, on_filesystem: OnFilesystem, tmp_path: Path) -> None:
    """In a user namespace overlay2 works on what belongs to the user, and the trial proves it."""
    need("root", "user-namespace", "overlay")
    inside = kind not in FILESYSTEMS
    root = tmp_path / "root" if inside else on_filesystem(kind)
    root.mkdir(exist_ok=True)
    found = in_user_namespace(_PROBE, root, *(["tmpfs"] if inside else []))
    assert isinstance(found, dict)
    assert found["user_namespace"]
    assert found["can_mount"]
    assert found["filesystem"] == ("tmpfs" if inside else kind)
    supported, reason, predicted, message = found["answers"]["overlay2"]
    assert (supported, reason, predicted) == (True, "ok", False), message
    assert found["answers"]["vfs-copy"][0]
    if kind == "btrfs":
        supported, reason, _, message = found["answers"]["btrfs-snapshot"]
        assert supported or reason == "no-permission", message
    else:
        assert found["answers"]["btrfs-snapshot"][1] == "wrong-backing-fs"


_USE_SNAPSHOTS = """
import json, sys
from pathlib import Path
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot

driver = BtrfsSnapshot(Path(sys.argv[1], "btrfs-snapshot"))
try:
    driver.create("base", ())
    driver.seal("base", ())
    driver.create("top", ("base",))
    for layer in ("top", "base"):
        driver.remove(layer)
except OSError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps("works"))
"""


def test_snapshots_in_a_user_namespace_are_as_promised(on_filesystem: OnFilesystem) -> None:
    """Where the probe says yes layers can be made and removed."""
    need("root", "user-namespace", "btrfs")
    root = on_filesystem("btrfs")
    found = in_user_namespace(_PROBE, root)
    assert isinstance(found, dict)
    works = in_user_namespace(_USE_SNAPSHOTS, root)
    assert found["answers"]["btrfs-snapshot"][0] is (works == "works"), (found, works)


def test_user_who_may_not_mount() -> None:
    """Without privilege overlay2 says what is missing, as a prediction, and vfs-copy works."""
    need("root")
    root = Path(tempfile.mkdtemp(prefix="storagedrivers-test-"))
    root.chmod(0o777)

    def action() -> None:
        host = read_host(root, inventory=False)
        assert not host.can_mount
        answer = Overlay2.probe(host, root / "overlay2")
        assert answer.reason is Reason.NO_PERMISSION
        assert answer.predicted
        assert "unshare" in answer.remedy
        assert VfsCopy.probe(host, root / "vfs-copy").supported
        assert os.listdir(root) == []
        assert not mount.is_known("overlay")  # the kernel does not tell

    read_host(root, inventory=False)  # the user may not be able to read what this imports
    try:
        assert succeeded(forked(action, user=NOBODY))
    finally:
        shutil.rmtree(root)


# Probes that are killed


def _dies(driver: type[StorageDriver], host: HostFacts, home: Path, event: str, step: int) -> bool:
    """Whether a child that probes was killed before its *step*-th *event*."""

    def action() -> None:
        left = step

        def hook(name: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if name == event:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        driver.probe(host, home)

    _, status = os.waitpid(forked(action), 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    ("driver", "event"),
    [
        (Overlay2, "os.mkdir"),
        (Overlay2, "os.remove"),
        (Overlay2, "os.rmdir"),
        (BtrfsSnapshot, "fcntl.ioctl"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_killed_probe(driver: type[StorageDriver], event: str, on_filesystem: OnFilesystem) -> None:
    """Nothing stays mounted, only a scratch directory is left, and it is in no one's way."""
    need("root", "mount", "overlay")
    root = on_filesystem("btrfs")
    host, mounts = read_host(root, inventory=False), read_mountinfo()
    step = 0
    while _dies(driver, host, root / driver.name, event, step + 1):
        step += 1
        assert read_mountinfo() == mounts
        left = os.listdir(root)
        assert len(left) <= step
        assert all(name.startswith(".storagedrivers-scratch-") for name in left)
        answer = driver.probe(host, root / driver.name)
        assert answer.supported, answer.message
        assert len(os.listdir(root)) <= len(left)
    assert step >= 3


def test_leftover_of_a_killed_probe_is_a_plain_directory(on_filesystem: OnFilesystem) -> None:
    """It tells by its name whose it was, and can be deleted as it is."""
    need("root", "mount", "overlay")
    root = on_filesystem("ext4")
    host = read_host(root, inventory=False)
    assert _dies(Overlay2, host, root / "overlay2", "os.remove", 1)
    (left,) = os.listdir(root)
    assert left.startswith(".storagedrivers-scratch-")
    shutil.rmtree(root / left)
    assert os.listdir(root) == []


def test_probe_disturbs_no_layer(on_filesystem: OnFilesystem) -> None:
    """Probes run beside a store that is in use."""
    need("root", "mount", "overlay")
    root = on_filesystem("ext4")
    driver = Overlay2(root / "overlay2")
    driver.create("base", ())
    driver.create("top", ("base",))
    (root / "point").mkdir()
    with mount.mounted(driver.mounts("top", ("base",), read_only=False), root / "point"):
        probe_all(root)
        (root / "point/file").touch()
    assert sorted(driver.layers()) == ["base", "top"]


# What the kernel has


def test_known_filesystems() -> None:
    """The kernel is asked for a filesystem by opening one, which mounts nothing."""
    need("root", "mount")
    before = (read_mountinfo(), set(os.listdir("/proc/self/fd")))
    for name in ("overlay", "btrfs", "xfs", "ext4", "tmpfs"):
        if has(name):
            assert mount.is_known(name)
    for name in ("nosuchfs", "", "overlay ", "../overlay", "x" * 200):
        assert not mount.is_known(name)
    assert (read_mountinfo(), set(os.listdir("/proc/self/fd"))) == before


def test_obstacle_without_a_list_of_modules(tmp_path: Path) -> None:
    """In a container, where no modules are seen, the kernel itself is asked; on recorded facts
    nobody is.
    """
    need("root", "mount", "overlay")
    host = read_host(tmp_path, inventory=False)._replace(filesystems=("proc",), loadable=None)
    assert kernel_obstacle(host, "overlay") is None
    missing = kernel_obstacle(host, "nosuchfs")
    assert missing is not None
    assert missing.reason is Reason.NO_KERNEL_SUPPORT
    assert not missing.predicted
    for facts in (host._replace(recorded=True), host._replace(loadable=())):
        obstacle = kernel_obstacle(facts, "overlay")
        assert obstacle is not None
        assert obstacle.reason is Reason.NO_KERNEL_SUPPORT
        assert obstacle.predicted is facts.recorded
    assert kernel_obstacle(host._replace(loadable=("overlay",)), "overlay") is None


def test_drivers_work_where_no_modules_are_seen(on_filesystem: OnFilesystem) -> None:
    """A kernel that has overlay is found to have it without /proc/filesystems saying so."""
    need("root", "mount", "overlay")
    root = on_filesystem("ext4")
    host = read_host(root, inventory=False)._replace(filesystems=(), loadable=None)
    assert Overlay2.probe(host, root / "overlay2").supported
    assert Aufs.probe(host, root / "aufs").reason is Reason.NO_KERNEL_SUPPORT


def test_yes_means_that_layers_work(on_filesystem: OnFilesystem) -> None:
    """On a filesystem that an answer was given for, one of the kit's contracts is kept too."""
    need("root", "mount", "overlay")
    for kind in FILESYSTEMS:
        root = on_filesystem(kind)
        _, answers = probe_all(root)
        for driver in DRIVERS:
            if answers[driver.name].supported:
                (result,) = run_contracts(driver, root, names=["test_every_kind_of_file_survives"])
                assert result.outcome == "kept", result.message
