"""Real mounts, real trees: the kernel boundary against the kernel."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from capabilities import need
from processes import child, forked, succeeded

from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.errors import DepthExceededError, MountError, UnmountError
from storagedrivers.linux import copy, holders, mount, namespace, overlay, syscalls, tree
from storagedrivers.linux.mount import escape
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount
from storagedrivers.testing.trees import ACL, differences, populate, read_tree

NOBODY = 65534
FILESYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")

OnFilesystem = Callable[[str], Path]


def is_mounted(path: Path) -> bool:
    return str(path) in {entry.mountpoint for entry in read_mountinfo()}


def open_files() -> set[str]:
    """What this process has open, but for what only looking opens."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(f"{fd} → {os.readlink(f'/proc/self/fd/{fd}')}")
    return {one for one in found if "/proc/" not in one}


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that every user reaches and may write to."""
    directory = Path(tempfile.mkdtemp(prefix="storagedrivers-test-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


# Overlay

MOUNTERS = {
    "fsconfig": mount.mount_overlay_by_fsconfig,
    "options": mount.mount_overlay_by_options,
}
ODD_NAMES = (
    "a:b",
    "a,b",
    "a\\b",
    "\\:,\\",
    "ends in \\",
    "a b",
    " ",
    "new\nline",
    "tab\t",
    "no UTF-8 \udcff\udc80",
    "☃",
    "quote'\"",
    "a=b,lowerdir=x",
    "#hash",
    "%20\\040",
    "-o",
)


def _stack(top: Path, name: str) -> tuple[Mount, Path]:
    """Two lowers, an upper and a work directory, all of one name, below a directory of it."""
    base = top / name
    paths = {key: base / key / name for key in ("one", "two", "upper", "work")}
    for path in paths.values():
        path.mkdir(parents=True)
    (paths["one"] / "from one").write_text("1")
    (paths["two"] / "from two").write_text("2")
    (paths["one"] / "both").write_text("1")
    (paths["two"] / "both").write_text("2")
    merged = base / "merged"
    merged.mkdir()
    options = (
        f"lowerdir={escape(str(paths['two']))}:{escape(str(paths['one']))}",
        f"upperdir={escape(str(paths['upper']))}",
        f"workdir={escape(str(paths['work']))}",
        "index=off",
    )
    return Mount("overlay", "overlay", options=options), merged


@pytest.mark.parametrize("mounter", MOUNTERS)
@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_overlay_of_directories_with_odd_names(mounter: str, name: str, tmp_path: Path) -> None:
    """Names with separators, escapes and bytes that are no text are mounted as what they are."""
    need("root", "mount", "overlay")
    value, merged = _stack(tmp_path, name)
    assert MOUNTERS[mounter](value, merged) is not False
    try:
        assert sorted(os.listdir(merged)) == ["both", "from one", "from two"]
        assert (merged / "both").read_text() == "2"
        (merged / "new").write_text("3")
        (merged / "from one").unlink()
    finally:
        mount.unmount(merged)
    upper = tmp_path / name / "upper" / name
    assert (upper / "new").read_text() == "3"
    assert stat.S_ISCHR((upper / "from one").lstat().st_mode)


def _layers(home: Path, count: int, *, id_length: int = 8) -> tuple[Overlay2, str, list[str]]:
    """A driver with *count* layers, each with a file of its number, and a writable one on top."""
    driver = Overlay2(home)
    lowers: list[str] = []
    for number in range(count):
        layer = f"{number:04}".ljust(id_length, "x")
        driver.create(layer, lowers)
        changeset = driver.changeset(layer)
        (changeset.path / f"file{number}").write_text(str(number))
        lowers.insert(0, layer)
    driver.create("top", lowers)
    return driver, "top", lowers


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("id_length", [8, 128])
def test_128_lowers_of_a_long_graph_root_through_mount(
    read_only: bool, id_length: int, tmp_path: Path
) -> None:
    """A deep image mounts by mount(2), whose options are a page, with a long graph root too."""
    need("root", "mount", "overlay")
    home = tmp_path / ("g" * 120) / ("h" * 120) / "overlay2"
    assert len(str(home)) >= 200
    driver, top, lowers = _layers(home, 128, id_length=id_length)
    (value,) = driver.mounts(top, lowers, read_only=read_only)
    assert len(os.fsencode(",".join(value.options))) > mount.MAX_OPTIONS
    merged = tmp_path / "merged"
    merged.mkdir()
    mount.mount_overlay_by_options(value, merged)
    try:
        assert sorted(os.listdir(merged)) == sorted(f"file{number}" for number in range(128))
        assert os.access(merged, os.W_OK) is not read_only
    finally:
        mount.unmount(merged)


def test_relative_target_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mountpoint relative to the working directory stays it though the paths are made short."""
    need("root", "mount", "overlay")
    driver, top, lowers = _layers(tmp_path / ("g" * 200) / "overlay2", 60)
    (value,) = driver.mounts(top, lowers, read_only=True)
    (tmp_path / "merged").mkdir()
    monkeypatch.chdir(tmp_path)
    mount.mount_overlay_by_options(value, "merged")
    try:
        assert is_mounted(tmp_path / "merged")
        assert Path.cwd() == tmp_path
    finally:
        mount.unmount("merged")


def test_options_that_never_fit_say_so(tmp_path: Path) -> None:
    """Names too long for a page are refused before the kernel could cut them."""
    need("root", "mount", "overlay")
    lowers = [tmp_path / f"{number}{'x' * 200}" for number in range(30)]
    for lower in lowers:
        lower.mkdir()
    merged = tmp_path / "merged"
    merged.mkdir()
    value = Mount("overlay", "overlay", options=(f"lowerdir={':'.join(map(str, lowers))}",))
    with pytest.raises(MountError, match="4095") as caught:
        mount.mount_overlay_by_options(value, merged)
    assert caught.value.errno == errno.E2BIG
    assert caught.value.resolution
    assert not is_mounted(merged)


def test_500_lowers_mount_and_501_do_not(tmp_path: Path) -> None:
    """The kernel's limit is reached through fsconfig(2), and passed by neither driver nor mount."""
    need("root", "mount", "overlay")
    driver, top, lowers = _layers(tmp_path / ("g" * 200) / "overlay2", 500)
    (value,) = driver.mounts(top, lowers, read_only=False)
    merged = tmp_path / "merged"
    merged.mkdir()
    if not mount.mount_overlay_by_fsconfig(value, merged):
        pytest.skip("the kernel has no lowerdir+")
    try:
        assert len(os.listdir(merged)) == 500
    finally:
        mount.unmount(merged)
    more = tmp_path / "one more"
    more.mkdir()
    lowerdir, *rest = value.options
    too_many = value._replace(options=(f"{lowerdir}:{escape(str(more))}", *rest))
    before = open_files()
    with pytest.raises(MountError) as caught:
        mount.mount(too_many, merged)
    assert caught.value.errno == errno.EINVAL
    assert "500" in (caught.value.details or "")
    assert open_files() == before
    with pytest.raises(DepthExceededError):
        driver.mounts(top, [*lowers, "one-more"], read_only=False)
    assert not is_mounted(merged)


def test_refused_overlay_tells_the_kernels_words(tmp_path: Path) -> None:
    """An option that the kernel does not know is named in the details, and nothing stays open."""
    need("root", "mount", "overlay")
    value, merged = _stack(tmp_path, "plain")
    before = open_files()
    with pytest.raises(MountError) as caught:
        mount.mount(value._replace(options=(*value.options, "no_such_option=1")), merged)
    assert caught.value.errno == errno.EINVAL
    assert "no_such_option" in (caught.value.details or "")
    assert open_files() == before


@pytest.mark.parametrize("missing", ["lowerdir", "upperdir", "target"])
def test_overlay_of_a_missing_directory_names_it(missing: str, tmp_path: Path) -> None:
    """When a directory is not there the error is ENOENT."""
    need("root", "mount", "overlay")
    value, merged = _stack(tmp_path, "plain")
    options = tuple(
        one.replace("/plain/", "/gone/", 1) if one.startswith(missing) else one
        for one in value.options
    )
    target = tmp_path / "gone" if missing == "target" else merged
    with pytest.raises(MountError) as caught:
        mount.mount(value._replace(options=options), target)
    assert caught.value.errno == errno.ENOENT
    assert not is_mounted(merged)


# Bind mounts


@pytest.fixture
def bound(tmp_path: Path) -> tuple[Path, Path]:
    """A source with a program in it, and a mountpoint."""
    need("root", "mount")
    source, point = tmp_path / "source", tmp_path / "point"
    source.mkdir()
    point.mkdir()
    shutil.copy("/bin/true", source / "true")
    return source, point


_BIND_FLAGS = {
    "ro": os.ST_RDONLY,
    "nosuid": os.ST_NOSUID,
    "nodev": os.ST_NODEV,
    "noexec": os.ST_NOEXEC,
    "noatime": os.ST_NOATIME,
    "nodiratime": os.ST_NODIRATIME,
}


@pytest.mark.parametrize("option", _BIND_FLAGS)
@pytest.mark.parametrize("bind", ["bind", "rbind"])
def test_bind_mount_has_the_flags_that_were_asked_for(
    option: str, bind: str, bound: tuple[Path, Path]
) -> None:
    """Each option of a bind mount holds for it, and not for its source."""
    source, point = bound
    with mount.mounted([Mount("bind", str(source), options=(bind, option))], point):
        assert os.statvfs(point).f_flag & _BIND_FLAGS[option]
        assert not os.statvfs(source).f_flag & _BIND_FLAGS[option]
        assert (point / "true").exists()
    assert not is_mounted(point)


def test_writable_bind_mount_is_writable(bound: tuple[Path, Path]) -> None:
    """What is written through a bind mount lies in its source."""
    source, point = bound
    with mount.mounted([Mount("bind", str(source), options=("bind", "rw"))], point):
        (point / "new").write_text("x")
    assert (source / "new").read_text() == "x"


def test_read_only_bind_mount_is_never_writable(bound: tuple[Path, Path]) -> None:
    """A write through a read-only bind mount is EROFS, and its source stays writable."""
    source, point = bound
    with mount.mounted([Mount("bind", str(source), options=("bind", "ro"))], point):
        with pytest.raises(OSError, match="Read-only file system"):
            (point / "new").touch()
        (source / "new").touch()


def test_recursive_bind_mount_is_read_only_all_through(bound: tuple[Path, Path]) -> None:
    """A read-only rbind lets nothing through to mounts inside of its source."""
    source, point = bound
    inner = source / "inner"
    inner.mkdir()
    with mount.mounted([Mount("tmpfs", "tmpfs")], inner):
        with mount.mounted([Mount("bind", str(source), options=("rbind", "ro"))], point):
            with pytest.raises(OSError, match="Read-only file system"):
                (point / "inner/new").touch()
            mount.unmount(point / "inner")
        (inner / "new").touch()


@pytest.mark.parametrize("flags", [syscalls.MS_RDONLY, syscalls.MS_NOSUID | syscalls.MS_NOEXEC])
def test_bind_then_remount_does_the_same(flags: int, bound: tuple[Path, Path]) -> None:
    """The way of kernels before 5.12 ends with the same flags."""
    source, point = bound
    plain = syscalls.MS_BIND
    mount._bind_then_remount(str(source), point, flags | plain, plain)
    try:
        assert os.statvfs(point).f_flag & flags == flags
        assert os.statvfs(source).f_flag & flags == 0
    finally:
        mount.unmount(point)


def test_bind_then_remount_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    """A source that is not there leaves no mount behind."""
    need("root", "mount")
    point = tmp_path / "point"
    point.mkdir()
    with pytest.raises(FileNotFoundError):
        mount._bind_then_remount(
            str(tmp_path / "gone"), point, syscalls.MS_RDONLY | syscalls.MS_BIND, syscalls.MS_BIND
        )
    assert not is_mounted(point)


_REMOUNT = """
import os, sys
from storagedrivers.linux import mount, syscalls
flags = syscalls.MS_BIND | syscalls.MS_RDONLY
mount._bind_then_remount(sys.argv[1], sys.argv[2], flags, syscalls.MS_BIND)
found = os.statvfs(sys.argv[2]).f_flag
wanted = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME
assert found & wanted == wanted, found
"""


def test_bind_then_remount_keeps_flags_that_are_locked(bound: tuple[Path, Path]) -> None:
    """In a user namespace the flags of the source cannot be left out, so they are kept."""
    need("user-namespace")
    source, point = bound
    locked = ("nosuid", "nodev", "noexec", "noatime", "mode=755")
    with mount.mounted([Mount("tmpfs", "tmpfs", options=locked)], source):
        done = subprocess.run(
            ["unshare", "-Urm", sys.executable, "-c", _REMOUNT, str(source), str(point)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


# Other mounts, unmounting


def test_options_that_are_no_text_reach_the_kernel(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 in the options of any filesystem are the kernel's to judge."""
    need("root", "mount")
    with pytest.raises(MountError) as caught:
        mount.mount(Mount("tmpfs", "tmpfs", options=("mode=\udcff",)), tmp_path)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Mount("nosuchfs", "none"), errno.ENODEV),
        (Mount("bind", "/no/such/directory", options=("bind", "ro")), errno.ENOENT),
        (Mount("bind", "/no/such/directory"), errno.ENOENT),
        (Mount("ext4", "/no/such/device"), errno.ENOENT),
        (Mount("fuse.no-such-program", "x"), errno.ENOENT),
        (Mount("fuse3.false", "x"), errno.EIO),
    ],
    ids=lambda value: value.type if isinstance(value, Mount) else "",
)
def test_refused_mount_is_a_mount_error(value: Mount, number: int, tmp_path: Path) -> None:
    """What cannot be mounted is told with the kernel's number and the place, and leaves nothing."""
    need("root", "mount")
    with pytest.raises(MountError) as caught:
        mount.mount(value, tmp_path)
    assert caught.value.errno == number
    assert str(tmp_path) in caught.value.brief
    assert isinstance(caught.value, OSError)
    assert not is_mounted(tmp_path)


def test_mounts_are_undone_when_a_later_one_fails(bound: tuple[Path, Path]) -> None:
    """Either all mounts of a list are there, or none."""
    source, point = bound
    (source / "sub").mkdir()
    mounts = [
        Mount("bind", str(source)),
        Mount("tmpfs", "tmpfs", target="sub"),
        Mount("bind", str(source), target="/not/there"),
    ]
    with pytest.raises(MountError) as caught:
        mount.mount_all(mounts, point)
    assert caught.value.errno == errno.ENOENT
    assert not is_mounted(point)
    assert os.listdir(point) == []


def test_mounts_apply_in_order_and_go_in_reverse(bound: tuple[Path, Path]) -> None:
    """A later mount may lie inside of an earlier one."""
    source, point = bound
    (source / "sub").mkdir()
    mounts = [Mount("bind", str(source)), Mount("tmpfs", "tmpfs", target="/sub")]
    with mount.mounted(mounts, point):
        (point / "sub/only here").touch()
        assert is_mounted(point / "sub")
    assert os.listdir(source / "sub") == []
    assert not is_mounted(point)


def test_mount_in_use_is_not_unmounted(bound: tuple[Path, Path]) -> None:
    """What a process has open keeps a mount where it is: EBUSY, with a remedy."""
    source, point = bound
    mount.mount(Mount("bind", str(source)), point)
    with (point / "true").open("rb"):
        with pytest.raises(UnmountError) as caught:
            mount.unmount(point)
        assert caught.value.errno == errno.EBUSY
        assert str(point) in caught.value.brief
        assert caught.value.resolution
        assert is_mounted(point)
    mount.unmount(point)
    assert not is_mounted(point)


def test_mount_that_is_held_for_a_moment_is_unmounted(bound: tuple[Path, Path]) -> None:
    """As by who asks /proc where a descriptor leads: no process shows that, and it passes."""
    source, point = bound
    mount.mount(Mount("bind", str(source)), point)
    ours, theirs = socket.socketpair()
    with ours, theirs, (point / "true").open("rb") as file:
        socket.send_fds(ours, [b"x"], [file.fileno()])
        file.close()
        with pytest.raises(UnmountError, match="busy"):
            mount.unmount(point)
        releasing = threading.Timer(0.1, theirs.close)
        releasing.start()
        mount.unmount(point)
        releasing.join()
    assert not is_mounted(point)


def test_what_is_not_mounted_cannot_be_unmounted(bound: tuple[Path, Path], tmp_path: Path) -> None:
    """Unmounting a plain directory is EINVAL, and a path that is not there ENOENT."""
    _, point = bound
    for path, number in ((point, errno.EINVAL), (tmp_path / "gone", errno.ENOENT)):
        with pytest.raises(UnmountError) as caught:
            mount.unmount(path)
        assert caught.value.errno == number
        assert isinstance(caught.value, OSError)


def test_unmounting_follows_no_symlink(bound: tuple[Path, Path], tmp_path: Path) -> None:
    """A symlink in the place of a mountpoint does not unmount what it points to."""
    source, point = bound
    link = tmp_path / "link"
    link.symlink_to(point)
    with mount.mounted([Mount("bind", str(source))], point):
        with pytest.raises(UnmountError):
            mount.unmount(link)
        assert is_mounted(point)


def test_detached_mount_is_gone_though_it_is_in_use(bound: tuple[Path, Path]) -> None:
    """A lazy unmount takes the mount out of the tree whoever uses it."""
    source, point = bound
    mount.mount(Mount("bind", str(source)), point)
    with (point / "true").open("rb") as file:
        mount.unmount(point, detach=True)
        assert not is_mounted(point)
        assert file.read(1)


# Namespaces


def test_private_namespace_leaves_no_trace(tmp_path: Path) -> None:
    """What is mounted inside is seen inside only, also by threads that run meanwhile."""
    need("root", "mount")
    before = (os.readlink("/proc/self/ns/mnt"), read_mountinfo())
    seen: list[bool] = []

    def work() -> bool:
        mount.mount(Mount("tmpfs", "tmpfs"), tmp_path)
        (tmp_path / "inside").touch()
        other = threading.Thread(target=lambda: seen.append((tmp_path / "inside").exists()))
        other.start()
        other.join()
        return (tmp_path / "inside").exists()

    assert namespace.in_private_mount_namespace(work) is True
    assert os.listdir(tmp_path) == []
    assert (os.readlink("/proc/self/ns/mnt"), read_mountinfo()) == before


def test_private_namespace_hands_on_what_is_raised(tmp_path: Path) -> None:
    """An error inside is raised outside, and the mounts of before it are gone."""
    need("root", "mount")

    def work() -> None:
        mount.mount(Mount("tmpfs", "tmpfs"), tmp_path)
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        namespace.in_private_mount_namespace(work)
    assert not is_mounted(tmp_path)


def test_private_namespace_without_permission_is_an_error(public: Path) -> None:
    """Who may not make a namespace is told so, and the work is not done."""
    need("root")

    def action() -> None:
        with pytest.raises(PermissionError):
            namespace.in_private_mount_namespace(lambda: (public / "done").touch())

    assert succeeded(forked(action, user=NOBODY))
    assert not (public / "done").exists()


def test_directory_of_one_piece_of_work_is_no_one_elses(tmp_path: Path) -> None:
    """The work runs in the directory; the process and its other threads stay where they are."""
    before = Path.cwd()
    seen = []

    def work() -> str:
        Path("relative").touch()
        seen.append(os.readlink(f"/proc/{os.getpid()}/cwd"))
        return os.getcwd()

    assert namespace.in_directory(tmp_path, work) == str(tmp_path)
    assert (tmp_path / "relative").exists()
    assert (Path.cwd(), seen) == (before, [str(before)])
    with pytest.raises(FileNotFoundError):
        namespace.in_directory(tmp_path / "gone", work)


# Who still writes to a tree


@pytest.fixture(params=FILESYSTEMS)
def busy_tree(request: pytest.FixtureRequest, on_filesystem: OnFilesystem) -> tuple[Path, Path]:
    """A tree with files on each filesystem, and a mountpoint beside it."""
    need("root")
    top = on_filesystem(request.param)
    (top / "tree/sub").mkdir(parents=True)
    (top / "tree/sub/file").write_bytes(b"x" * 5000)
    (top / "point").mkdir()
    return top / "tree", top / "point"


def me(pid: int | None = None) -> str:
    return f"process {pid or os.getpid()} "


def test_idle_tree_has_no_writers(busy_tree: tuple[Path, Path]) -> None:
    """Nobody is found where nobody is, though neighbours and ancestors are in use."""
    found, point = busy_tree
    beside = found.with_name("tree2")
    beside.mkdir()
    with mount.mounted([Mount("bind", str(found.parent), options=("bind",))], point):
        with (beside / "file").open("w"), child("import os, sys; os.chdir(sys.argv[1])", beside):
            with (found / "sub/file").open("rb"):
                assert holders.find_writers(found) == []


def test_mount_of_a_tree_counts(busy_tree: tuple[Path, Path]) -> None:
    """A bind mount of the tree, or of a directory inside, is found with its mountpoint."""
    found, point = busy_tree
    for source in (found, found / "sub"):
        with mount.mounted([Mount("bind", str(source))], point):
            assert any(str(point) in str(line) for line in holders.find_writers(found))
    assert holders.find_writers(found) == []


_MOUNT_THERE = """
import sys
from storagedrivers.linux import mount, namespace
from storagedrivers.model import Mount
namespace.make_mounts_private()
mount.mount(Mount("bind", sys.argv[1]), sys.argv[2])
"""


def test_mount_in_another_namespace_counts(busy_tree: tuple[Path, Path]) -> None:
    """A mount that only another process sees is found, with that process."""
    found, point = busy_tree
    with child(_MOUNT_THERE, found, point) as pid:
        lines = [str(one) for one in holders.find_writers(found)]
        assert any("mounted" in line and me(pid) in line for line in lines), lines
        assert not is_mounted(point)
    assert holders.find_writers(found) == []


def test_mount_in_the_namespace_of_a_thread_counts(busy_tree: tuple[Path, Path]) -> None:
    """A thread can have a mount namespace of its own, as this package's trials do."""
    found, point = busy_tree

    def work() -> None:
        mount.mount(Mount("bind", str(found)), point)
        mounted.set()
        asked.wait(10)

    mounted, asked = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: namespace.in_private_mount_namespace(work))
    thread.start()
    try:
        assert mounted.wait(10)
        lines = [str(one) for one in holders.find_writers(found)]
    finally:
        asked.set()
        thread.join()
    assert any("mounted" in line for line in lines)


_MOUNT_AND_CHROOT = """
import os, sys
from storagedrivers.linux import mount, namespace
from storagedrivers.model import Mount
namespace.make_mounts_private()
mount.mount(Mount("bind", sys.argv[1]), sys.argv[2])
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)  # until the parent ends
    os._exit(0)
os.chroot(sys.argv[3])
"""


def test_mount_is_found_behind_a_chroot(busy_tree: tuple[Path, Path], tmp_path: Path) -> None:
    """A namespace whose first process is in a chroot, and sees less, hides no other's mount."""
    found, point = busy_tree
    with child(_MOUNT_AND_CHROOT, found, point, tmp_path):
        assert any("mounted" in str(line) for line in holders.find_writers(found))
    _until(lambda: holders.find_writers(found) == [])


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_descriptor_after_a_lazy_unmount_counts(busy_tree: tuple[Path, Path]) -> None:
    """A file that is open for writing is found though no mount shows it any more."""
    found, point = busy_tree
    mount.mount(Mount("bind", str(found)), point)
    with (point / "sub/file").open("r+b"):
        mount.unmount(point, detach=True)
        lines = [str(one) for one in holders.find_writers(found)]
        assert any("descriptor" in line and me() in line for line in lines), lines
    assert holders.find_writers(found) == []


def test_directory_after_a_lazy_unmount_counts(busy_tree: tuple[Path, Path]) -> None:
    """An open directory is found too: files can be made through it."""
    found, point = busy_tree
    mount.mount(Mount("bind", str(found)), point)
    fd = os.open(point / "sub", os.O_RDONLY)
    try:
        mount.unmount(point, detach=True)
        assert any(
            "descriptor" in str(line) and me() in str(line) for line in holders.find_writers(found)
        )
    finally:
        os.close(fd)


def test_open_file_of_a_plain_tree_counts(busy_tree: tuple[Path, Path]) -> None:
    """A file that is open for writing without any mount is found, one that is only read is not."""
    found, _ = busy_tree
    with (found / "sub/file").open("r+b"):
        assert any(me() in str(line) for line in holders.find_writers(found))
    with (found / "sub/file").open("rb"):
        assert holders.find_writers(found) == []


@pytest.mark.parametrize("lazily", [False, True], ids=["mounted", "unmounted lazily"])
def test_working_directory_counts(lazily: bool, busy_tree: tuple[Path, Path]) -> None:
    """A process that stands in the tree is found with its name, unmounted or not."""
    found, point = busy_tree
    start = point / "sub" if lazily else found / "sub"
    if lazily:
        mount.mount(Mount("bind", str(found)), point)
    with child("import os, sys; os.chdir(sys.argv[1])", start) as pid:
        if lazily:
            mount.unmount(point, detach=True)
        lines = [str(one) for one in holders.find_writers(found)]
        assert any("cwd" in line and me(pid) in line for line in lines), lines
    assert holders.find_writers(found) == []


def test_root_directory_counts(busy_tree: tuple[Path, Path]) -> None:
    """A process whose root is the tree is found."""
    found, _ = busy_tree
    with child("import os, sys; os.chroot(sys.argv[1])", found) as pid:
        assert any(me(pid) in str(line) for line in holders.find_writers(found))


def test_shared_mapping_counts(busy_tree: tuple[Path, Path]) -> None:
    """A writable mapping is found when the descriptor that it was made of is closed."""
    found, _ = busy_tree
    with (found / "sub/file").open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED)
    try:
        os.close(os.open("/dev/null", os.O_RDONLY))
        descriptors = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        held = [
            one for one in descriptors if os.path.exists(one) and found.name in os.readlink(one)
        ]
        for one in held:  # mmap keeps a copy of its own
            os.close(int(one.rpartition("/")[2]))
        lines = [str(one) for one in holders.find_writers(found)]
        assert any("shared memory" in line and me() in line for line in lines), lines
    finally:
        if not held:
            mapping.close()


def test_private_mapping_does_not_count(busy_tree: tuple[Path, Path]) -> None:
    """A mapping whose changes stay in the process, or that cannot be changed, disturbs nobody."""
    found, _ = busy_tree
    with (found / "sub/file").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ):
            assert holders.find_writers(found) == []


@pytest.mark.parametrize(
    "name", ["a b", "new\nline", "no UTF-8 \udcff", "x (deleted)", "back\\slash"]
)
def test_writers_of_a_tree_with_an_odd_name_are_found(name: str, tmp_path: Path) -> None:
    """Names that /proc escapes hide nobody."""
    need("root", "mount")
    found, point = tmp_path / name, tmp_path / "point"
    found.mkdir()
    point.mkdir()
    with mount.mounted([Mount("bind", str(found))], point):
        assert any("mounted" in str(line) for line in holders.find_writers(found))
    with child("import os, sys; os.chdir(sys.argv[1])", found) as pid:
        assert any(me(pid) in str(line) for line in holders.find_writers(found))
    with (found / "file").open("w"):
        assert any(me() in str(line) for line in holders.find_writers(found))
    assert holders.find_writers(found) == []


def test_tree_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """An empty answer means that a tree is idle, never that there is none."""
    with pytest.raises(FileNotFoundError):
        holders.find_writers(tmp_path / "gone")


# Whether an overlay still has its upper


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Mount, Path, Path]:
    """An overlay that is not mounted yet, its mountpoint, and its upper."""
    need("root", "mount", "overlay")
    value, merged = _stack(tmp_path, "stack")
    return value, merged, tmp_path / "stack/upper/stack"


@contextmanager
def _scratch(top: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir=top))
    yield directory
    shutil.rmtree(directory)


def _in_use(upper: Path) -> bool | None:
    with _scratch(upper.parents[2]) as scratch:
        return overlay.is_upper_in_use(upper, scratch)


def test_upper_is_in_use_while_it_is_mounted(stack: tuple[Mount, Path, Path]) -> None:
    """The kernel says yes while the overlay is mounted, no before and after; the upper is not
    changed.
    """
    value, merged, upper = stack
    assert _in_use(upper) is False
    with mount.mounted([value], merged):
        before = read_tree(upper)
        assert _in_use(upper) is True
        assert read_tree(upper) == before
    assert _in_use(upper) is False


def test_upper_is_in_use_after_a_lazy_unmount(stack: tuple[Mount, Path, Path]) -> None:
    """What was unmounted while a file is open is in use until the file is closed."""
    value, merged, upper = stack
    mount.mount(value, merged)
    with (merged / "new").open("w"):
        mount.unmount(merged, detach=True)
        assert _in_use(upper) is True
    _until(lambda: _in_use(upper) is False)


def test_upper_is_in_use_by_another_namespace(stack: tuple[Mount, Path, Path]) -> None:
    """A copy of the mount in another namespace keeps the upper in use."""
    value, merged, upper = stack
    mount.mount(value, merged)
    with child("from storagedrivers.linux import namespace; namespace.make_mounts_private()"):
        mount.unmount(merged)
        assert _in_use(upper) is True
    _until(lambda: _in_use(upper) is False)


def test_asking_leaves_no_file_open(stack: tuple[Mount, Path, Path]) -> None:
    """The question opens directories and closes them, whatever the answer."""
    value, merged, upper = stack
    before = open_files()
    assert _in_use(upper) is False
    with mount.mounted([value], merged):
        assert _in_use(upper) is True
    assert open_files() == before


_ASK = """
import sys
from pathlib import Path
from storagedrivers.linux import overlay
answer = overlay.is_upper_in_use(sys.argv[1], Path(sys.argv[2]))
sys.exit(0 if answer is None else f"the answer is {answer}")
"""


def test_no_verdict_in_a_user_namespace(stack: tuple[Mount, Path, Path]) -> None:
    """Where the kernel turns the check off without saying so, the answer is none at all."""
    need("user-namespace")
    value, merged, upper = stack
    for mounted in (False, True):
        with (
            mount.mounted([value] if mounted else [], merged),
            _scratch(upper.parents[2]) as scratch,
        ):
            done = subprocess.run(
                ["unshare", "-Urm", sys.executable, "-c", _ASK, str(upper), str(scratch)],
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, (mounted, done.stderr)


def test_no_verdict_without_privilege(public: Path) -> None:
    """Who may not mount gets no verdict, and no error."""
    need("root", "overlay")
    (public / "upper").mkdir()

    def action() -> None:
        scratch = public / "scratch"
        scratch.mkdir()
        assert overlay.is_upper_in_use(public / "upper", scratch) is None

    assert succeeded(forked(action, user=NOBODY))


# Removing trees


def remove(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree.remove_tree(parent, path.name)
    finally:
        os.close(parent)


def deepen(path: Path, depth: int, *, name: str = "d") -> None:
    """Make a tree of *depth* levels with a file on each."""
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=fd)
        os.close(os.open(f"file{level}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.mark.parametrize("kind", FILESYSTEMS)
@pytest.mark.parametrize(
    ("depth", "name"), [(3000, "d"), (100, "long" * 50)], ids=["3,000 levels", "> PATH_MAX"]
)
def test_deep_tree_is_removed(
    kind: str, depth: int, name: str, on_filesystem: OnFilesystem
) -> None:
    """No depth is too deep: neither PATH_MAX, nor recursion, nor open files are a limit."""
    top = on_filesystem(kind)
    deepen(top / "tree", depth, name=name)
    before = open_files()
    remove(top / "tree")
    assert os.listdir(top) == []
    assert open_files() == before


def test_removing_takes_anything_and_nothing_twice(tmp_path: Path) -> None:
    """Files, symlinks and directories go; what they point to stays; a second time is no error."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    populate(tmp_path / "tree")
    for name in ("tree", "link", "file", "fifo"):
        remove(tmp_path / name)
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").exists()


def _protect(path: Path, flag: int) -> None:
    from storagedrivers.linux import ioctl

    fd = os.open(path, os.O_RDONLY)
    try:
        ioctl._set_flags(fd, ioctl._flags(fd) | flag)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("flag", [0x10, 0x20], ids=["immutable", "append-only"])
@pytest.mark.parametrize(
    "protected",
    [("a/b/file",), ("a/b",), ("a",), ("",), ("empty",), ("", "a", "a/b", "a/b/file", "empty")],
    ids=["a file", "a leaf", "a directory", "the top", "an empty one", "all"],
)
def test_protected_tree_is_removed(
    kind: str, flag: int, protected: tuple[str, ...], on_filesystem: OnFilesystem
) -> None:
    """What a container made immutable or append-only, with chattr, goes all the same."""
    need("root")
    top = on_filesystem(kind)
    (top / "tree/a/b").mkdir(parents=True)
    (top / "tree/a/b/file").touch()
    (top / "tree/empty").mkdir()
    for path in reversed(protected):
        _protect(top / "tree" / path, flag)
    try:
        remove(top / "tree")
        assert os.listdir(top) == []
    finally:
        subprocess.run(["chattr", "-R", "-i", "-a", str(top)], check=False, capture_output=True)


@pytest.mark.parametrize("mode", [0o000, 0o555, 0o300, 0o600], ids=oct)
@pytest.mark.parametrize(
    "where",
    [("",), ("a",), ("a/b",), ("empty",), ("", "a", "a/b", "empty")],
    ids=["the top", "a directory", "a leaf", "an empty one", "all"],
)
def test_own_directories_without_rights_are_removed_by_their_user(
    mode: int, where: tuple[str, ...], public: Path
) -> None:
    """A user removes a tree whose directories may not be read, written or entered."""
    need("root")

    def action() -> None:
        home = public / "home"
        (home / "tree/a/b").mkdir(parents=True)
        (home / "tree/a/b/file").touch(mode=0o000)
        (home / "tree/empty").mkdir()
        for path in reversed(where):
            (home / "tree" / path).chmod(mode)
        remove(home / "tree")
        assert os.listdir(home) == []

    assert succeeded(forked(action, user=NOBODY))


def test_removing_stops_at_what_is_another_users(public: Path) -> None:
    """What may not be removed is an error, and what lies there stays."""
    need("root")
    (public / "tree/theirs").mkdir(parents=True)
    (public / "tree/theirs/file").touch()

    def action() -> None:
        with pytest.raises(PermissionError):
            remove(public / "tree")

    assert succeeded(forked(action, user=NOBODY))
    assert (public / "tree/theirs/file").exists()


@pytest.mark.parametrize("place", ["tree", "tree/point", "tree/a/point", "tree/a/b/c/point"])
@pytest.mark.parametrize("kind", [None, "tmpfs"], ids=["bind", "tmpfs"])
def test_removing_does_not_cross_a_mount(place: str, kind: str | None, tmp_path: Path) -> None:
    """What is mounted inside stays as it is, the removal says so, and can be finished later."""
    need("root", "mount")
    source, point = tmp_path / "source", tmp_path / place
    source.mkdir()
    point.mkdir(parents=True)
    value = Mount(kind, kind) if kind else Mount("bind", str(source))
    mount.mount(value, point)
    (point / "deep/er").mkdir(parents=True)
    (point / "deep/er/precious").touch()
    for _ in range(3):
        with pytest.raises(OSError, match=r"Invalid cross-device link|resource busy") as caught:
            remove(tmp_path / "tree")
        assert caught.value.errno in (errno.EXDEV, errno.EBUSY)
    # The directories above it may have been moved, and the mountpoint with them.
    (found,) = [one.mountpoint for one in read_mountinfo() if str(tmp_path) in one.mountpoint]
    try:
        assert Path(found, "deep/er/precious").exists()
    finally:
        mount.unmount(found)
    remove(tmp_path / "tree")
    assert sorted(os.listdir(tmp_path)) == ["source"]


def _broad(path: Path) -> None:
    for first in range(5):
        for second in range(5):
            for third in range(3):
                directory = path / f"{first}/{second}/{third}"
                directory.mkdir(parents=True)
                (directory / "file").touch()


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_two_processes_remove_one_tree(kind: str, on_filesystem: OnFilesystem) -> None:
    """Whoever comes first, both succeed, and nothing is left."""
    top = on_filesystem(kind)
    for _ in range(15):
        _broad(top / "tree")
        reader, writer = os.pipe()

        def action(reader: int = reader, writer: int = writer) -> None:
            os.close(writer)
            os.read(reader, 1)
            remove(top / "tree")

        children = [forked(action) for _ in range(2)]
        os.close(reader)
        os.close(writer)  # the start
        assert [succeeded(pid) for pid in children] == [True, True]
        assert os.listdir(top) == []


def test_two_threads_remove_one_tree(tmp_path: Path) -> None:
    """A driver may be used by several threads, so one tree by two of them."""
    failures: list[BaseException] = []

    def work(start: threading.Barrier) -> None:
        try:
            start.wait()
            remove(tmp_path / "tree")
        except BaseException as error:
            failures.append(error)

    for _ in range(30):
        _broad(tmp_path / "tree")
        start = threading.Barrier(2)
        threads = [threading.Thread(target=work, args=(start,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert os.listdir(tmp_path) == []


def test_removal_that_was_killed_is_finished_by_a_process_of_the_same_pid(tmp_path: Path) -> None:
    """In a container the process has the same pid after each start, so names must not repeat."""
    for moment in range(1, 40):
        _broad(tmp_path / "tree")

        def interrupted(moment: int = moment) -> None:
            _raise_at_rename(moment)
            with suppress(KeyboardInterrupt):
                remove(tmp_path / "tree")
            _raise_at_rename(0)
            remove(tmp_path / "tree")

        assert succeeded(forked(interrupted))
        assert os.listdir(tmp_path) == []


_LEFT = [0]
_HOOKED: list[int] = []


def _raise_at_rename(count: int) -> None:
    """In a child that is about to end: interrupt it at its rename number *count*."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and _LEFT[0] > 0:
            _LEFT[0] -= 1
            if _LEFT[0] == 0:
                raise KeyboardInterrupt

    _LEFT[0] = count
    if not _HOOKED:
        _HOOKED.append(1)
        sys.addaudithook(hook)


# Copying trees


@pytest.mark.parametrize("target", FILESYSTEMS)
@pytest.mark.parametrize("source", FILESYSTEMS)
def test_copy_is_the_same_tree(source: str, target: str, on_filesystem: OnFilesystem) -> None:
    """Every kind of file comes out as it went in, on one filesystem and from one to another."""
    need("root")
    one, other = on_filesystem(source) / "one", on_filesystem(target) / "other"
    one.mkdir()
    other.mkdir()
    populate(one)
    one.chmod(0o2751)
    os.chown(one, 7, 8)
    before, files = read_tree(one), open_files()
    copy.copy_tree(one, other)
    assert differences(before, read_tree(other)) == []
    assert read_tree(one) == before
    assert open_files() == files


@pytest.mark.parametrize("target", ["ext4", "btrfs", "tmpfs"])
def test_acls_of_xfs_do_not_become_attributes_elsewhere(
    target: str, on_filesystem: OnFilesystem
) -> None:
    """What xfs shows once more as trusted.SGI_ACL_* is an ACL in the copy, and nothing else."""
    need("root")
    one, other = on_filesystem("xfs") / "one", on_filesystem(target) / "other"
    one.mkdir()
    other.mkdir()
    (one / "file").touch()
    os.setxattr(one / "file", "system.posix_acl_access", ACL)
    copy.copy_tree(one, other)
    assert os.listxattr(other / "file") == ["system.posix_acl_access"]


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_contents_are_shared_where_the_filesystem_can(
    kind: str, on_filesystem: OnFilesystem
) -> None:
    """The answer says whether the copy took space: no on xfs and btrfs, yes on ext4 and tmpfs."""
    top = on_filesystem(kind)
    (top / "one").mkdir()
    (top / "other").mkdir()
    (top / "one/file").write_bytes(os.urandom(1 << 20))
    assert copy.copy_tree(top / "one", top / "other") is (kind in ("xfs", "btrfs"))


@pytest.mark.parametrize("target", FILESYSTEMS)
@pytest.mark.parametrize("source", FILESYSTEMS)
def test_holes_stay_holes(source: str, target: str, on_filesystem: OnFilesystem) -> None:
    """A sparse file costs its data only, wherever its holes are, and reads the same."""
    one, other = on_filesystem(source) / "one", on_filesystem(target) / "other"
    one.mkdir()
    other.mkdir()
    big = 64 << 20
    places = {
        "start": [0],
        "middle": [big // 2],
        "end": [big - 4096],
        "many": range(0, big, 8 << 20),
    }
    for name, offsets in {**places, "none": []}.items():
        with (one / name).open("wb") as file:
            file.truncate(big)
            for offset in offsets:
                file.seek(offset)
                file.write(b"data" * 1024)
    copy.copy_tree(one, other)
    for path in one.iterdir():
        copied = other / path.name
        assert copied.stat().st_size == big
        assert copied.stat().st_blocks * 512 <= (1 << 20), path.name
        assert copied.read_bytes() == path.read_bytes()


def test_hard_links_stay_together_across_directories(tmp_path: Path) -> None:
    """Names of one file in many directories, of any depth, are names of one file in the copy."""
    one, other = tmp_path / "one", tmp_path / "other"
    deepen(one, 60, name="d" * 100)
    other.mkdir()
    fd, directories = os.open(one, os.O_RDONLY), 0
    first = os.open("first", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(first)
    top = os.dup(fd)
    while True:
        os.link("first", f"link{directories}", src_dir_fd=top, dst_dir_fd=fd)
        directories += 1
        try:
            below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        except FileNotFoundError:
            break
        os.close(fd)
        fd = below
    os.close(fd)
    os.close(top)
    copy.copy_tree(one, other)
    assert (other / "first").stat().st_nlink == (one / "first").stat().st_nlink == directories + 1
    assert (other / "first").stat().st_ino != (one / "first").stat().st_ino
    remove(one)
    remove(other)


def test_copy_of_thousands_of_linked_and_plain_files(tmp_path: Path) -> None:
    """Two threads at work mix nothing up."""
    one, other = tmp_path / "one", tmp_path / "other"
    other.mkdir()
    for number in range(60):
        directory = one / f"{number % 7}/{number}"
        directory.mkdir(parents=True)
        for file in range(20):
            (directory / str(file)).write_text(f"{number}/{file}")
        if number:
            (directory / "link").hardlink_to(one / f"{(number - 1) % 7}/{number - 1}/0")
    copy.copy_tree(one, other)
    assert differences(read_tree(one), read_tree(other)) == []


def test_acl_that_the_target_inherited_does_not_stay(tmp_path: Path) -> None:
    """A default ACL above the graph root does not become part of a layer."""
    need("root")
    one = tmp_path / "one"
    one.mkdir()
    populate(one)
    before = read_tree(one)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", ACL)
    except OSError:
        pytest.skip("the filesystem has no ACLs")
    other = tmp_path / "other"
    other.mkdir()
    copy.copy_tree(one, other)
    assert differences(before, read_tree(other)) == []


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_full_filesystem_stops_a_copy(on_filesystem: OnFilesystem, tmp_path: Path) -> None:
    """A copy that finds no room raises ENOSPC, and leaves no file open and no thread."""
    need("root", "mount")
    one, small = on_filesystem("ext4"), tmp_path / "small"
    small.mkdir()
    for number in range(20):
        (one / f"{number}/sub").mkdir(parents=True)
        (one / f"{number}/file").write_bytes(os.urandom(200_000))
        (one / f"{number}/sub/file").write_bytes(os.urandom(200_000))
    before = (open_files(), _threads())
    with mount.mounted([Mount("tmpfs", "tmpfs", options=("size=1m",))], small):
        with pytest.raises(OSError, match="No space left"):
            copy.copy_tree(one, small)
        assert (open_files(), _threads()) == before


def test_filesystem_without_inodes_stops_a_copy(
    on_filesystem: OnFilesystem, tmp_path: Path
) -> None:
    """A copy that can make no more files raises, and leaves no file open."""
    need("root", "mount")
    one, small = on_filesystem("ext4"), tmp_path / "small"
    small.mkdir()
    for number in range(30):
        (one / f"{number}/sub/deeper").mkdir(parents=True)
    before = open_files()
    with mount.mounted([Mount("tmpfs", "tmpfs", options=("nr_inodes=40",))], small):
        with pytest.raises(OSError, match="No space left"):
            copy.copy_tree(one, small)
        assert open_files() == before


def test_attributes_that_the_target_refuses_stop_a_copy(
    on_filesystem: OnFilesystem, tmp_path: Path
) -> None:
    """An attribute is not lost in silence; and each directory that fails for it is closed."""
    need("root", "mount")
    one, bare = on_filesystem("ext4"), tmp_path / "bare"
    bare.mkdir()
    for number in range(30):
        directory = one / f"{number}/sub/deeper"
        directory.mkdir(parents=True)
        for path in (directory, *directory.parents[:2]):
            os.setxattr(path, "user.note", b"kept")

    def action() -> None:
        before = open_files()
        with pytest.raises(OSError, match="not supported"):
            copy.copy_tree(one, bare)
        assert open_files() == before

    with mount.mounted([Mount("ramfs", "ramfs")], bare):
        assert succeeded(forked(action))  # in a child, whose leaks end with it


def test_unreadable_file_stops_a_copy(public: Path) -> None:
    """What may not be read is an error, and leaves no file open."""
    need("root")

    def action() -> None:
        one, other = public / "one", public / "other"
        for number in range(20):
            (one / f"{number}").mkdir(parents=True)
            (one / f"{number}/secret").touch(mode=0)
        other.mkdir()
        before = open_files()
        with pytest.raises(PermissionError):
            copy.copy_tree(one, other)
        assert open_files() == before

    assert succeeded(forked(action, user=NOBODY))


def test_user_copies_own_tree(public: Path) -> None:
    """Without privileges everything that a user can have is copied, read-only directories too."""
    need("root")

    def action() -> None:
        one, other = public / "one", public / "other"
        one.mkdir()
        other.mkdir()
        populate(one)
        for path in one.rglob("*"):  # what the user cannot read cannot be copied
            if not path.is_symlink() and not os.access(path, os.R_OK):
                path.chmod(0o400 if path.is_file() else 0o500)
        (one / "directory").chmod(0o555)
        copy.copy_tree(one, other)
        lines = differences(read_tree(one), read_tree(other))
        (one / "directory").chmod(0o755)
        (other / "directory").chmod(0o755)
        assert lines == []

    assert succeeded(forked(action, user=NOBODY))


def test_copy_of_what_is_no_directory_is_an_error(tmp_path: Path) -> None:
    """A missing source or target is told, and nothing stays open."""
    (tmp_path / "one").mkdir()
    (tmp_path / "file").touch()
    before = open_files()
    for source, target in (("gone", "one"), ("one", "gone"), ("file", "one"), ("one", "file")):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            copy.copy_tree(tmp_path / source, tmp_path / target)
    assert open_files() == before


def test_copy_refuses_a_target_that_holds_something(tmp_path: Path) -> None:
    """Files of the target are never overwritten or followed."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "file").write_text("new")
    (tmp_path / "outside").write_text("old")
    (other / "file").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError):
        copy.copy_tree(one, other)
    assert (tmp_path / "outside").read_text() == "old"


def test_modes_of_a_copy_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """The copy has the source's modes under any umask."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    populate(one)
    before = os.umask(0o777)
    try:
        other.mkdir()
        other.chmod(0o700)
        copy.copy_tree(one, other)
    finally:
        os.umask(before)
    assert differences(read_tree(one), read_tree(other)) == []
