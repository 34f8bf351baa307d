"""What containers have mounted, with every engine that works on this machine."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from mounted import MountRunner, at, bind, host_tree, mounted, shared_mount, tmpfs, volume
from running import (
    PATIENCE,
    busybox_image,
    command_line,
    container_store,
    remove_containers,
    usable,
)
from stored import clean

from storagedrivers.errors import InvalidMountError, NotFoundError, RuntimeFailedError
from storagedrivers.linux import syscalls
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.storage import Storage
from storagedrivers.stores import locks, sources


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    need("root", "mount", "overlay")
    with container_store(on_filesystem("ext4")) as storage:
        busybox_image(storage)
        yield storage


@pytest.fixture(params=["crun", "runc", "unshare"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with usable(request.param):
        yield request.param


@pytest.fixture
def runner(engine: str, storage: Storage) -> MountRunner:
    return MountRunner(storage, engine)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    with host_tree(tmp_path / "host") as directory:
        yield directory


# What it sees


def test_volume(runner: MountRunner) -> None:
    """What one container writes to a volume the next one finds, and the layer knows nothing."""
    runner.storage.volumes.create("db")
    script = "cat /var/lib/db/x; echo kept >> /var/lib/db/x; touch /gone"
    assert runner.run(script, volume("db", "/var/lib/db")).out == ""
    container = runner.create(script, volume("db", "/var/lib/db", read_only=True))
    runner.storage.runtime.start(container.id)
    runner.storage.runtime.wait(container.id)
    assert runner.log(container, "stdout") == "kept\n"
    assert "Read-only" in runner.log(container, "stderr")
    data = Path(runner.storage.volumes.data("db"))
    assert (data / "x").read_text() == "kept\n"
    changed = {one.path for one in runner.storage.containers.diff(container.id)}
    assert b"gone" in changed
    assert b"var/lib/db/x" not in changed


@pytest.mark.parametrize(
    ("read_only", "recursive", "below", "options"),
    [
        (False, "", True, ("rw", "rw")),
        (True, "", True, ("ro", "ro")),
        (True, "enabled", True, ("ro", "ro")),
        (True, "readonly", True, ("ro", "ro")),
        (True, "writable", True, ("ro", "rw")),
        (True, "disabled", False, ("ro", "")),
        (False, "disabled", False, ("rw", "")),
    ],
)
def test_binds(
    runner: MountRunner,
    host: Path,
    *,
    read_only: bool,
    recursive: str,
    below: bool,
    options: tuple[str, str],
) -> None:
    """A directory of the host, with what is mounted in it or without, read-only or not."""
    seen = runner.seen(bind(host, "/data", read_only=read_only, recursive=recursive))
    assert options[0] in at(seen, "/data").options
    assert ("/data/sub" in {one.target for one in seen}) == below
    if below:
        assert options[1] in at(seen, "/data/sub").options
    assert all(not one.spreads for one in seen if one.target.startswith("/data"))


@pytest.mark.parametrize("target", ["/data", "/dev/data"])
@pytest.mark.parametrize(
    ("propagation", "spreads"),
    [
        ("", set()),
        ("private", set()),
        ("rprivate", set()),
        ("slave", {"master"}),
        ("rslave", {"master"}),
        ("shared", {"shared"}),
        ("rshared", {"shared"}),
    ],
)
def test_propagation(
    runner: MountRunner, host: Path, propagation: str, spreads: set[str], target: str
) -> None:
    """Mounts spread as they are asked to, whoever makes them."""
    seen = runner.seen(bind(host / "shared", target, propagation=propagation))
    assert at(seen, target).spreads == spreads


def test_mounts_that_come_later(runner: MountRunner, host: Path) -> None:
    """What the host mounts arrives in a slave, and not in what is private."""
    (host / "shared/later").mkdir()
    script = "echo ready; while ! test -e /slave/later/now; do sleep 0.02; done; ls /private/later"
    container = runner.create(
        script,
        bind(host / "shared", "/slave", propagation="rslave"),
        bind(host / "shared", "/private"),
    )
    runner.storage.runtime.start(container.id)
    with mounted(host / "shared/later") as later:
        (later / "now").touch()
        assert runner.storage.runtime.wait(container.id) == 0
    assert runner.log(container, "stdout") == "ready\n"


@pytest.mark.parametrize("propagation", ["rslave", "rshared"])
def test_no_mount_that_spreads(runner: MountRunner, host: Path, propagation: str) -> None:
    """What cannot spread is not asked to: Docker's words."""
    container = runner.create("true", bind(host / "sub", "/x", propagation=propagation))
    with pytest.raises(InvalidMountError, match=f"is mounted on {host}/sub but it is not a shared"):
        runner.storage.runtime.start(container.id)
    assert runner.storage.layers.mounts() == []


def test_the_directory_above_the_store(runner: MountRunner) -> None:
    """As Docker's with its own: what is unmounted there goes away in the container, too."""
    top = runner.storage.root.parent
    with shared_mount(top):
        seen = runner.seen(bind(top, "/above"), bind(runner.storage.root / "containers", "/in"))
    assert at(seen, "/above").spreads == {"master"}
    assert at(seen, "/in").spreads == set()


def test_files(runner: MountRunner, host: Path) -> None:
    """A file is mounted on a file, which is made where there is none; over the container's own."""
    done = runner.run(
        "cat /etc/hosts /new/here /dev/there; ls -l /dev/there; cat /etc/hostname",
        bind(host / "file", "/etc/hosts"),
        bind(host / "file", "/new/here"),
        bind(host / "file", "/dev/there", read_only=True),
        Hostname="guest",
    )
    assert done.out.count("of the host\n") == 3
    assert done.out.splitlines()[-1] == "guest"


def test_kernel_filesystems(runner: MountRunner, host: Path) -> None:
    """What lies in /dev is mounted after /dev; another /dev/shm is there instead of the usual."""
    seen = runner.seen(
        bind(host, "/dev/data"),
        tmpfs("/dev/data/sub/x"),
        bind(host, "/dev/closed", read_only=True),
        tmpfs("/dev/shm", tmpfs_size=1 << 20),
    )
    assert "ro" in at(seen, "/dev/closed").options
    assert [one.more for one in seen if one.target == "/dev/shm"] == [at(seen, "/dev/shm").more]
    assert "size=1024k" in at(seen, "/dev/shm").more
    assert at(seen, "/dev/data/sub/x").filesystem == "tmpfs"


def test_devices_of_the_host(runner: MountRunner) -> None:
    """The host's /dev stays as it is."""
    before = {name: os.lstat(f"/dev/{name}").st_mode for name in os.listdir("/dev")}
    link = os.readlink("/dev/fd")
    done = runner.run("ls /dev; ls /dev/pts | head -1", bind("/dev", "/dev"))
    assert {"null", "fd", "pts"} <= {*done.out.split()}
    assert {name: os.lstat(f"/dev/{name}").st_mode for name in before} == before
    assert os.readlink("/dev/fd") == link


def test_tmpfs(runner: MountRunner) -> None:
    """Size and mode are as asked for, and else as Docker has them; both kinds are one."""
    seen = runner.seen(
        tmpfs("/a", tmpfs_size=65536, tmpfs_mode=0o700),
        tmpfs("/b", read_only=True),
        tmpfs("/srv"),
        Tmpfs=["/c:size=1m,exec", "/a:size=2m"],
    )
    assert {"size=64k", "mode=700"} <= at(seen, "/a").more
    assert [one.target for one in seen].count("/a") == 1
    assert {"ro", "nosuid", "nodev", "noexec"} <= at(seen, "/b").options
    assert "noexec" not in at(seen, "/c").options
    assert "mode=755" in at(seen, "/srv").more  # of the image's directory
    assert not [one for one in at(seen, "/b").more if one.startswith("mode")]  # 1777


def test_order(runner: MountRunner, host: Path) -> None:
    """What lies deeper is mounted later, in whatever order it was asked for."""
    runner.storage.volumes.create("vol")
    done = runner.run(
        "cat /a/b/file; touch /a/b/v/x /a/b/v/t/y; grep -c ' /a' /proc/self/mountinfo; ls /a/b/v",
        tmpfs("/a/b/v/t"),
        volume("vol", "/a/b/v"),
        bind(host, "/a/b", recursive="disabled"),
        tmpfs("/a"),
    )
    assert done.out.split() == ["of", "the", "host", "4", "t", "x"]
    assert os.listdir(host / "v") == []  # as with Docker, its target stays on the host
    assert sorted(os.listdir(runner.storage.volumes.data("vol"))) == ["t", "x"]


def test_read_only_root(runner: MountRunner, host: Path) -> None:
    """Targets are made below a root that is read-only, and volumes can be written to."""
    runner.storage.volumes.create("vol")
    done = runner.run(
        "touch /x; touch /new/deep/x /new/deep/t/y && echo ok",
        volume("vol", "/new/deep"),
        tmpfs("/new/deep/t"),
        bind(host / "file", "/file/of/host"),
        ReadOnly=True,
    )
    assert done.out == "ok\n"
    assert done.err.count("Read-only") == 1


def test_below_a_read_only_mount(runner: MountRunner, host: Path) -> None:
    """Nothing can be made in it, which is said."""
    container = runner.create("true", bind(host, "/a", read_only=True), tmpfs("/a/new"))
    with pytest.raises(RuntimeFailedError, match="at /a/new in the container: Read-only") as caught:
        runner.storage.runtime.start(container.id)
    assert caught.value.exit_code == 125


@pytest.mark.parametrize(
    ("what", "target", "said"),
    [
        ("file", "/bin", "the file that is to be mounted at /bin cannot cover a directory"),
        ("", "/etc/passwd", "the directory that is .* at /etc/passwd cannot cover a file"),
        ("sub", "/etc/passwd/x", "at /etc/passwd/x in the container: there is a file above it"),
        ("", "/dev/data/file", "the directory that is .* at /dev/data/file cannot cover a file"),
    ],
)
def test_files_and_directories(
    runner: MountRunner, host: Path, what: str, target: str, said: str
) -> None:
    """A file does not cover a directory, nor the other way round."""
    container = runner.create("true", bind(host, "/dev/data"), bind(host / what, target))
    with pytest.raises(RuntimeFailedError, match=said) as caught:
        runner.storage.runtime.start(container.id)
    assert caught.value.resolution
    assert runner.storage.layers.mounts() == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/proc", "nothing but the kernel's own can be mounted at /proc"),
        ("/proc/sys", "nothing can be mounted at /proc/sys: it is inside of /proc"),
        ("/dev", "what is to be mounted at /dev has no devices"),
        ("/dev/null", "the directory .* at /dev/null cannot cover a file"),
        ("/sys", "is read-only, and has no directory for /sys/fs/cgroup"),
        ("/sys/none", "this kernel has no such name"),
        ("/sys/kernel/notes", "the directory .* at /sys/kernel/notes cannot cover a file"),
    ],
)
def test_where_the_kernel_has_its_own(runner: MountRunner, target: str, said: str) -> None:
    """What no engine can do all of them refuse in one sentence."""
    runner.storage.volumes.create("vol")
    container = runner.create("true", volume("vol", target, read_only=True))
    with pytest.raises(RuntimeFailedError, match=said) as caught:
        runner.storage.runtime.start(container.id)
    assert (caught.value.exit_code, caught.value.details) == (125, None)
    assert caught.value.resolution
    assert runner.storage.layers.mounts() == []


def test_in_the_place_of_what_the_kernel_has(runner: MountRunner, host: Path) -> None:
    """What every engine can do is left to it."""
    runner.storage.volumes.create("vol")
    done = runner.run(
        "cat /proc/uptime; ls /sys /sys/kernel | grep -x -e fs -e new; echo > /dev/null && ls /dev",
        bind(host / "file", "/proc/uptime"),
        tmpfs("/sys"),
        volume("vol", "/sys/kernel/new"),
        Tmpfs=["/dev:size=1m"],
    )
    assert done.code == 0, done.err
    assert done.out.startswith("of the host\n")
    assert {"new", "null", "zero"} <= {*done.out.split()}


def test_options_of_a_tmpfs(runner: MountRunner) -> None:
    """One that is none is an error with what it may be."""
    container = runner.create("true", Tmpfs=["/t:size=big"])
    with pytest.raises(RuntimeFailedError, match="'size' in '/t:size=big' cannot be") as caught:
        runner.storage.runtime.start(container.id)
    assert "size=64m" in (caught.value.resolution or "")


def test_below_a_shared_mount(runner: MountRunner, host: Path) -> None:
    """What would be mounted on the host too is refused; the container's own files stay away."""
    shared = bind(host / "shared", "/etc", propagation="rshared")
    (host / "shared/hosts").write_text("mine\n")
    assert runner.run("cat /etc/hosts", shared).out == "mine\n"
    container = runner.create("true", shared, tmpfs("/etc/x"))
    with pytest.raises(RuntimeFailedError, match="would be mounted on the host"):
        runner.storage.runtime.start(container.id)
    below = f"{host}/shared/"
    assert not [one for one in read_mountinfo() if one.mountpoint.startswith(below)]


def test_working_directory_in_a_volume(runner: MountRunner) -> None:
    """It is made where the process will look for it."""
    runner.storage.volumes.create("vol")
    done = runner.run("pwd; touch here", volume("vol", "/work"), WorkingDir="/work/deep/er")
    assert done.out == "/work/deep/er\n"
    assert Path(runner.storage.volumes.data("vol"), "deep/er/here").exists()


def test_symlinks_in_the_image(runner: MountRunner, host: Path) -> None:
    """A target through a symlink is the one in the container."""
    container = runner.create("cat /run/file; ls /tmp/outside", bind(host, "/var/run"))
    outside = host / "sub"
    with runner.storage.containers.mounted(container.id) as root:
        (root / "var").mkdir(exist_ok=True)
        (root / "run").mkdir(exist_ok=True)
        (root / "var/run").symlink_to("/run")
    runner.storage.runtime.start(container.id)
    assert runner.storage.runtime.wait(container.id) == 1  # of ls
    assert runner.log(container, "stdout") == "of the host\n"
    assert os.listdir(outside) == []


# Sources


def test_missing_source(runner: MountRunner, tmp_path: Path) -> None:
    """It is made where that was asked for, and said; else it is an error, and nothing is made."""
    missing = tmp_path / "a/b"
    said: list[str] = []
    runner.storage.runtime.warn = said.append
    container = runner.create("true", bind(missing, "/x"))
    words = f"bind source path does not exist: {missing}$"
    with pytest.raises(InvalidMountError, match=words) as caught:
        runner.storage.runtime.start(container.id)
    assert f"-v {missing}:/x, or bind-create-src" in (caught.value.resolution or "")
    assert not missing.parent.exists()
    before = os.umask(0o077)
    try:
        assert runner.run("ls -ld /x", bind(missing, "/x", create_source=True)).code == 0
    finally:
        os.umask(before)
    status = missing.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 0)
    assert len([one for one in said if str(missing) in one]) == 1


def test_missing_source_behind_a_symlink(runner: MountRunner, tmp_path: Path) -> None:
    """A symlink that leads nowhere stays, as with Docker."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    container = runner.create("true", bind(tmp_path / "link", "/x", create_source=True))
    with pytest.raises(InvalidMountError, match="error while creating mount source path"):
        runner.storage.runtime.start(container.id)
    assert not (tmp_path / "nowhere").exists()


def test_the_host_keeps_owner_and_mode(runner: MountRunner, tmp_path: Path) -> None:
    """What is there is mounted as it is."""
    (tmp_path / "own").mkdir(mode=0o750)
    os.chown(tmp_path / "own", 12, 34)
    mounts = (bind(tmp_path / "own", "/srv", create_source=True), tmpfs("/tmp/x"))
    assert runner.run("true", *mounts).code == 0
    status = (tmp_path / "own").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 12, 34)


def test_subpath(runner: MountRunner) -> None:
    """A part of a volume, a file too; what leads out of it is refused."""
    runner.storage.volumes.create("vol")
    data = Path(runner.storage.volumes.data("vol"))
    (data / "a/b").mkdir(parents=True)
    (data / "a/b/file").write_text("deep\n")
    (data / "in").symlink_to("a/b")
    (data / "out").symlink_to("../../..")
    (data / "abs").symlink_to("/etc")
    done = runner.run(
        "cat /x/file /y /z/file",
        volume("vol", "/x", subpath="a/b"),
        volume("vol", "/y", subpath="a/b/file"),
        volume("vol", "/z", subpath="in"),
    )
    assert done.out == "deep\n" * 3
    for subpath in ("out", "abs", "a/../../x", "out/x"):
        container = runner.create("true", volume("vol", "/x", subpath=subpath))
        with pytest.raises(InvalidMountError, match="leads out of volume vol"):
            runner.storage.runtime.start(container.id)
    container = runner.create("true", volume("vol", "/x", subpath="none"))
    with pytest.raises(InvalidMountError, match="No such file"):
        runner.storage.runtime.start(container.id)


def test_subpath_on_older_kernels(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before openat2(2) no symlink is followed at all."""

    def missing(*_: object, **__: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(syscalls, "openat2", missing)
    storage.volumes.create("vol")
    data = Path(storage.volumes.data("vol"))
    (data / "a/b").mkdir(parents=True)
    (data / "link").symlink_to("a")
    paths = {"vol": str(data)}
    fd = sources.opened(volume("vol", "/x", subpath="a/b"), paths)
    assert os.readlink(f"/proc/self/fd/{fd}") == str(data / "a/b")
    os.close(fd)
    for subpath in ("link", "link/b", "../vol", "/a"):
        with pytest.raises(InvalidMountError):
            sources.opened(volume("vol", "/x", subpath=subpath), paths)


def test_old_kernels(runner: MountRunner, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.12 mounts get their attributes one by one."""

    def missing(*_: object, **__: object) -> int:
        raise OSError(38, "Function not implemented")

    for name in ("mount_setattr", "open_tree", "openat2"):
        monkeypatch.setattr(syscalls, name, missing)
    out = host / "out"
    container = runner.create(
        "cat /proc/self/mountinfo > /out", bind(out, "/out"), bind(host, "/data", read_only=True)
    )
    out.touch()
    assert runner.storage.runtime.run(container.id) == 0  # in this process
    line = next(one for one in out.read_text().splitlines() if " /data " in one)
    assert " ro," in line


def test_volume_that_is_gone(runner: MountRunner) -> None:
    """It is said which."""
    container = runner.create("true", volume("none", "/x"))
    with pytest.raises(NotFoundError, match="none"):
        runner.storage.runtime.start(container.id)
    assert runner.storage.layers.mounts() == []


# What is left


def _engine_process(storage: Storage, container: str) -> int:
    """Who started the container's first process."""
    pid = storage.runtime.state(container).pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def test_others_can_go(runner: MountRunner, host: Path) -> None:
    """What other containers have mounted is not kept by one that runs longer."""
    runner.storage.volumes.create("vol")
    first = runner.create("sleep 1000", volume("vol", "/v"))
    second = runner.create("sleep 1000", bind(host, "/host"))
    runner.storage.runtime.start(first.id)
    runner.storage.runtime.start(second.id)
    path = f"/proc/{_engine_process(runner.storage, second.id)}/mountinfo"
    points = [one.mountpoint for one in read_mountinfo(path)]
    assert not [one for one in points if first.layer in one]
    assert str(host / "sub") not in points
    runner.storage.runtime.end(first)
    runner.storage.containers.remove(first.id)
    assert runner.storage.layers.problems == []
    runner.storage.runtime.end(second)


def test_nothing_is_left_of_what_is_killed(runner: MountRunner, host: Path) -> None:
    """Neither the monitor's end nor the engine's leaves a mount on the host."""
    before = {one.mountpoint for one in read_mountinfo()}
    runner.storage.volumes.create("vol")
    container = runner.create(
        "sleep 1000", bind(host, "/dev/data"), volume("vol", "/v"), bind(host / "file", "/f")
    )
    runner.storage.runtime.start(container.id)
    here = {one.mountpoint for one in read_mountinfo()} - before
    root = str(runner.storage.run_root / "mounts")
    assert {one for one in here if not one.startswith(root)} == set()
    pid = _engine_process(runner.storage, container.id)
    os.kill(_monitor(runner.storage, container.id), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while runner.storage.containers.is_running(container):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    runner.storage.runtime.stop(container.id)
    assert {one.mountpoint for one in read_mountinfo()} - before <= {root}
    assert runner.storage.layers.mounts() == []
    assert runner.run("cat /v/x || echo again", volume("vol", "/v")).out == "again\n"


def _monitor(storage: Storage, container: str) -> int:
    directory = storage.containers.run_directory(storage.containers.get(container))
    pid = locks.holder(os.path.join(directory, "monitor"))
    assert pid is not None
    return pid


@pytest.fixture
def shared_host() -> Iterator[None]:
    """All that is mounted is shared, as where systemd runs; in the namespace of the tests alone."""
    _spread_all(syscalls.MS_SHARED)
    yield
    _spread_all(syscalls.MS_PRIVATE)


def _spread_all(how: int) -> None:
    syscalls.mount(None, "/", None, how | syscalls.MS_REC, None)


@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
@pytest.mark.usefixtures("shared_host")
def test_a_host_that_shares(engine: str, driver: str, host: Path, tmp_path: Path) -> None:
    """Nothing that a container has mounted is seen on the host, and nothing is unmounted there."""
    need("root", "mount", "overlay")
    options = {"root": tmp_path / "root", "run_root": tmp_path / "run", "driver": driver}
    with Storage.open(**options) as storage:
        busybox_image(storage)
        storage.volumes.create("vol")
        runner = MountRunner(storage, engine)
        before = {one.mountpoint for one in read_mountinfo()}
        container = runner.create(
            "ls /a/file /all/etc/passwd; while ! test -e /v/end; do sleep 0.02; done",
            bind(host, "/a"),
            tmpfs("/a/sub/t"),
            bind(host, "/b", propagation="rshared"),
            bind(host, "/dev/c"),
            bind("/", "/all"),
            volume("vol", "/v"),
        )
        storage.runtime.start(container.id)
        now = {one.mountpoint for one in read_mountinfo()}
        assert now >= before
        assert all(one.startswith(str(storage.run_root / "mounts")) for one in now - before)
        Path(storage.volumes.data("vol"), "end").touch()
        assert storage.runtime.wait(container.id) == 0
        assert len(runner.log(container, "stdout").split()) == 2
        storage.containers.copy_in(container.id, host / "file", "/v/copied")
        after = {one.mountpoint for one in read_mountinfo()} - before
        assert after <= {str(storage.run_root / "mounts")}
        remove_containers(storage)
        storage.volumes.remove("vol")
        clean(storage)


def test_volumes_that_are_mounted(runner: MountRunner) -> None:
    """Such a volume is mounted as long as a container uses it."""
    storage = runner.storage
    storage.volumes.create("memory", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    data = storage.volumes.data("memory")
    script = "grep ' /v ' /proc/mounts; while test -e /v/go; do sleep 0.02; done"
    with storage.volumes.used("memory") as path:
        (path / "go").touch()
        containers = [runner.create(script, volume("memory", "/v")) for _ in range(2)]
        for one in containers:
            storage.runtime.start(one.id)
    for one in containers:
        assert data in {entry.mountpoint for entry in read_mountinfo()}
        assert storage.containers.is_running(one)
    os.unlink(f"{data}/go")
    for one in containers:
        assert storage.runtime.wait(one.id) == 0
        assert "size=1024k" in runner.log(one, "stdout")
    assert data not in {entry.mountpoint for entry in read_mountinfo()}


def test_volumes_without_a_cgroup(storage: Storage) -> None:
    """Where nothing limits devices none of a volume can be opened: it may be the host's disk."""
    with usable("unshare"):
        runner = MountRunner(storage, "unshare")
        storage.volumes.create("vol")
        data = Path(storage.volumes.data("vol"))
        os.mknod(data / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        assert runner.run("echo x > /v/null", volume("vol", "/v")).code != 0


def test_a_program_as_the_user_has_it(runner: MountRunner, host: Path) -> None:
    """The foreground: its output is the program's, and a source that is made is a warning."""
    container = runner.create("cat /a/file; ls /b", bind(host, "/a"))
    words = [*command_line(runner.storage), "start", "--attach", container.id]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "of the host\n"
    assert done.returncode == 1  # of ls
