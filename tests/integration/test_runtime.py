"""Containers that really run, with every engine that works on this machine."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from capabilities import need
from running import PATIENCE, busybox_image, container_store, rootfs_tar, usable

from storagedrivers.errors import (
    ContainerError,
    ContainerRunningError,
    NotFoundError,
    ReadOnlyError,
    RuntimeFailedError,
    StoreError,
)
from storagedrivers.oci.config import make_config
from storagedrivers.runtime import Running, engines, executing
from storagedrivers.storage import Storage
from storagedrivers.stores import locks
from storagedrivers.stores.containers import Container

UNTIL_ASKED = "trap 'echo bye; exit 3' TERM; echo hi; echo oops >&2; while :; do sleep 0.05; done"


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


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Runner:
    """Makes containers, and runs them with their output in a log."""

    def __init__(self, storage: Storage, engine: str) -> None:
        self.storage = storage
        self.engine = engine

    def create(self, *words: str, **config: Any) -> Container:
        config = {"Cmd": [*words], "Runtime": self.engine, "Network": "none", **config}
        return self.storage.containers.create("busybox", config=config)

    def start(self, *words: str, **config: Any) -> Container:
        container = self.create(*words, **config)
        self.storage.runtime.start(container.id)
        return container

    def run(self, *words: str, **config: Any) -> Done:
        container = self.start(*words, **config)
        code = self.storage.runtime.wait(container.id)
        return Done(code, self.log(container, "stdout"), self.log(container, "stderr"))

    def log(self, container: Container, stream: str) -> str:
        entries = self.storage.runtime.logs(container.id)
        return "".join(one.text for one in entries if one.stream == stream)

    def wait_for(self, container: Container, text: str) -> None:
        until(lambda: text in self.log(container, "stdout"))


@pytest.fixture
def runner(engine: str, storage: Storage) -> Runner:
    return Runner(storage, engine)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _monitor(storage: Storage, container: Container) -> int:
    path = os.path.join(storage.containers.run_directory(container), "monitor")
    pid = locks.holder(path)
    assert pid is not None
    return pid


# What it sees


def test_isolation(runner: Runner) -> None:
    """Its own processes, host name, network and mounts; the host's are out of reach."""
    done = runner.run(
        "sh",
        "-c",
        "echo pid=$$; hostname; cat /etc/hostname; grep -c : /proc/net/dev;"
        " echo x > /proc/sys/kernel/hostname || echo refused;"
        " test -e /etc/debian_version || echo own root; ls /proc/acpi /sys/firmware",
        Hostname="guest",
    )
    words = done.out.split()
    assert words[:3] == ["pid=1", "guest", "guest"]
    assert int(words[3]) < len(Path("/proc/net/dev").read_text().splitlines()) + 1
    assert "refused" in done.out
    assert "own root" in done.out
    assert Path("/proc/sys/kernel/hostname").read_text() != "guest\n"


def test_loopback(runner: Runner) -> None:
    """Without a network it can still talk to itself."""
    assert runner.run("ping", "-c", "1", "127.0.0.1").code == 0


def test_privileges(runner: Runner) -> None:
    """Docker's capabilities and no more; calls are filtered but where unshare(1) runs it."""
    done = runner.run("cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in done.out.splitlines() if ":\t" in line)
    own = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    full = 0xA80425FB & int(own, 16)
    usual = full & ~(1 << 27)  # without CAP_MKNOD, where no cgroup limits devices
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16)
    assert int(fields["CapEff"], 16) == (usual if runner.engine == "unshare" else full)
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
    assert fields["Seccomp"] == ("0" if runner.engine == "unshare" else "2")
    assert fields["NoNewPrivs"] == "0"


def test_devices_of_the_host(runner: Runner) -> None:
    """A device that it makes itself cannot be opened, nor one of another name for it."""
    script = "mknod /tmp/disk b 1 0; head -c 1 /tmp/disk; echo code=$?"
    done = runner.run("sh", "-c", script)
    assert "code=0" not in done.out
    assert "code=" in done.out


def test_no_namespaces_of_its_own(runner: Runner) -> None:
    """It may neither make namespaces nor mount."""
    done = runner.run("sh", "-c", "unshare -U true || echo one; mount -t tmpfs x /tmp || echo two")
    if runner.engine != "unshare":  # without a filter anyone may make a user namespace
        assert "one" in done.out
    assert "two" in done.out


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("svc", "uid=12(svc) gid=34(svc) groups=34(svc),56(more)"),
        ("12:other", "uid=12(svc) gid=57(other) groups=57(other)"),
        ("999:998", "uid=999 gid=998 groups=998"),
    ],
)
def test_users(runner: Runner, user: str, ids: str) -> None:
    """It runs as the user that is asked for, without capabilities."""
    done = runner.run("sh", "-c", "id; grep CapEff /proc/self/status", User=user)
    assert done.out.split("\n")[0].replace(" groups=34(svc),34(svc)", " groups=34(svc)") == ids
    assert int(done.out.split()[-1], 16) == 0


def test_environment_and_directory(runner: Runner) -> None:
    """Variables, the user's home, and a working directory that is made."""
    done = runner.run("sh", "-c", "env; pwd", Env=["A=b c"], User="svc", WorkingDir="/deep/er")
    lines = done.out.splitlines()
    assert {"A=b c", "HOME=/srv"} <= {*lines}
    assert lines[-1] == "/deep/er"


def test_read_only(runner: Runner) -> None:
    """Nothing can be written but to a tmpfs, which is as closed as it is asked to be."""
    script = (
        "touch /x /etc/hosts; echo > /run/x && echo ok; grep ' /run ' /proc/mounts; ls -ld /run"
    )
    done = runner.run(
        "sh", "-c", script, ReadOnly=True, Tmpfs=["/run:size=1m,mode=0711"], Env=["LC_ALL=C"]
    )
    assert "ok" in done.out
    assert "size=1024k" in done.out
    assert "drwx--x--x" in done.out
    assert done.err.count("Read-only file system") >= 1


def test_host_network(runner: Runner) -> None:
    """On the host's network it has the host's interfaces and name."""
    done = runner.run("sh", "-c", "readlink /proc/self/ns/net; hostname", Network="host")
    assert done.out.splitlines() == [os.readlink("/proc/self/ns/net"), os.uname().nodename]


def test_what_it_writes_stays(runner: Runner) -> None:
    """The next run finds what the last one wrote, and no mount is left in between."""
    container = runner.start("sh", "-c", "cat /kept; echo x >> /kept")
    runner.storage.runtime.wait(container.id)
    assert runner.storage.layers.mounts() == []
    runner.storage.runtime.start(container.id)
    runner.storage.runtime.wait(container.id)
    assert runner.log(container, "stdout") == "x\n"
    changes = {one.path for one in runner.storage.containers.diff(container.id)}
    assert changes == {b"kept"}


# How it ends


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 42"), 42),
        (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137),
    ],
)
def test_exit_codes(runner: Runner, words: tuple[str, ...], code: int) -> None:
    """The exit code is the command's."""
    assert runner.run(*words).code == code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nowhere",), 127),
        (("/bin/nowhere",), 127),
        (("/bin/plain",), 126),
        (("/etc",), 126),
    ],
)
def test_programs_that_cannot_be_run(runner: Runner, words: tuple[str, ...], code: int) -> None:
    """As Docker: 127 where there is none, 126 where it cannot be executed; the container stays."""
    container = runner.create(*words)
    with pytest.raises(RuntimeFailedError) as caught:
        runner.storage.runtime.start(container.id)
    assert caught.value.exit_code == code
    assert words[0] in str(caught.value)
    state = runner.storage.runtime.state(container.id)
    assert (state.running, state.exit_code) == (Running.CREATED, code)
    assert state.error
    assert runner.storage.layers.mounts() == []


def test_no_such_user(runner: Runner) -> None:
    """What is found out before anything is started leaves nothing mounted."""
    container = runner.create("true", User="nobody")
    with pytest.raises(RuntimeFailedError, match="nobody") as caught:
        runner.storage.runtime.start(container.id)
    assert caught.value.exit_code == 125
    assert runner.storage.layers.mounts() == []
    assert not runner.storage.containers.is_running(container)


def test_stop(runner: Runner) -> None:
    """It is asked first; what it says and its exit code are kept."""
    container = runner.start("sh", "-c", UNTIL_ASKED)
    runner.wait_for(container, "hi\n")
    assert runner.storage.runtime.state(container.id).running is Running.RUNNING
    runner.storage.runtime.stop(container.id, timeout=PATIENCE)
    state = runner.storage.runtime.state(container.id)
    assert (state.running, state.exit_code) == (Running.EXITED, 3)
    assert state.started is not None
    assert state.finished is not None
    assert state.started <= state.finished
    assert runner.log(container, "stdout") == "hi\nbye\n"
    assert runner.log(container, "stderr") == "oops\n"
    runner.storage.runtime.stop(container.id)  # again: nothing happens
    assert runner.storage.runtime.wait(container.id) == 3


def test_stop_what_does_not_listen(runner: Runner) -> None:
    """Who ignores the signal is killed."""
    container = runner.start("sleep", "1000")
    runner.storage.runtime.stop(container.id, timeout=0.05)
    assert runner.storage.runtime.state(container.id).exit_code == 137


def test_stop_signal(runner: Runner) -> None:
    """The image says which signal ends it."""
    script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"
    container = runner.start("sh", "-c", script, StopSignal="SIGUSR1")
    runner.wait_for(container, "ready")
    runner.storage.runtime.stop(container.id, timeout=PATIENCE)
    assert runner.storage.runtime.wait(container.id) == 7


def test_stop_signal_that_is_none(runner: Runner) -> None:
    """An image can bring anything: then it is SIGTERM, and a warning."""
    said: list[str] = []
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    container = runner.start("sh", "-c", script, StopSignal="SIGNO")
    runner.wait_for(container, "ready")
    runner.storage.runtime.warn = said.append
    runner.storage.runtime.stop(container.id, timeout=PATIENCE)
    assert runner.storage.runtime.wait(container.id) == 7
    (words,) = said
    assert "'SIGNO'" in words


def test_wait(runner: Runner) -> None:
    """Who waits gets the exit code also of a container that is removed at its end; one that never
    ran has none.
    """
    container = runner.start("sh", "-c", "sleep 0.3; exit 6", AutoRemove=True)
    codes: list[int] = []
    waiters = [
        threading.Thread(target=lambda: codes.append(runner.storage.runtime.wait(container.id)))
        for _ in range(2)
    ]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join(PATIENCE)
    assert codes == [6, 6]
    until(lambda: runner.storage.containers.ls() == [])
    assert runner.storage.runtime.wait(runner.create("true").id) == 0


def test_removed_at_its_end(runner: Runner) -> None:
    """With --rm neither the container nor its files are left, nor after a failed start."""
    runner.storage.runtime.wait(runner.start("true", AutoRemove=True).id)
    container = runner.create("nowhere", AutoRemove=True)
    with pytest.raises(RuntimeFailedError):
        runner.storage.runtime.start(container.id)
    until(lambda: runner.storage.containers.ls() == [])
    for root in (runner.storage.root, runner.storage.run_root):
        assert os.listdir(root / "containers") == []


def test_twice(runner: Runner) -> None:
    """A container runs once at a time, and is not removed meanwhile."""
    container = runner.start("sleep", "1000")
    with pytest.raises(ContainerRunningError):
        runner.storage.runtime.start(container.id)
    with pytest.raises(ContainerRunningError):
        runner.storage.runtime.run(container.id)
    with pytest.raises(ContainerRunningError):
        runner.storage.containers.remove(container.id)
    assert runner.storage.runtime.state(container.id).running is Running.RUNNING


def test_started_at_once_by_many(runner: Runner) -> None:
    """Of several that start it at the same time one succeeds, and the others are told."""
    container = runner.create("sleep", "1000")
    command = (
        "import sys; from storagedrivers.storage import Storage\n"
        "from storagedrivers.errors import ContainerRunningError\n"
        "with Storage.open(root=sys.argv[1], run_root=sys.argv[2]) as storage:\n"
        "    try: storage.runtime.start(sys.argv[3])\n"
        "    except ContainerRunningError: sys.exit(9)\n"
    )
    words = [sys.executable, "-c", command, runner.storage.root, runner.storage.run_root]
    started = [subprocess.Popen([*words, container.id]) for _ in range(4)]
    assert sorted(one.wait(PATIENCE) for one in started) == [0, 9, 9, 9]


def test_start_in_a_store_that_is_only_read(runner: Runner) -> None:
    """Nothing is started that would write."""
    container = runner.create("touch", "/x")
    root, run_root = runner.storage.root, runner.storage.run_root
    with Storage.open(root=root, run_root=run_root, read_only=True) as reader:
        for start in (reader.runtime.start, reader.runtime.run):
            with pytest.raises(ReadOnlyError):
                start(container.id)
    assert runner.storage.runtime.state(container.id).running is Running.CREATED
    assert not os.path.exists(runner.storage.containers.run_directory(container))


def test_status_that_is_no_object(storage: Storage) -> None:
    container = storage.containers.create("busybox")
    path = os.path.join(storage.containers.directory(container), "status.json")
    for words in ("[]", "1", '"x"', "null", "{"):
        Path(path).write_text(words)
        assert storage.runtime.state(container.id).running is Running.CREATED
        assert storage.runtime.wait(container.id) == 0


# When its monitor is killed


def test_killed_monitor(runner: Runner) -> None:
    """It is dead, not running; the next start ends what is left of it."""
    container = runner.start("sleep", "1000")
    pid = runner.storage.runtime.state(container.id).pid
    assert pid is not None
    os.kill(_monitor(runner.storage, container), signal.SIGKILL)
    until(lambda: not runner.storage.containers.is_running(container))
    assert runner.storage.runtime.state(container.id).running is Running.DEAD
    runner.storage.runtime.start(container.id)
    until(lambda: not _is_alive(pid))
    state = runner.storage.runtime.state(container.id)
    assert state.running is Running.RUNNING
    assert state.pid != pid
    assert len(runner.storage.layers.mounts()) == 1


def test_stop_after_a_killed_monitor(runner: Runner) -> None:
    """Stopping ends what is left, unmounts it, and says that nobody saw how it ended."""
    container = runner.start("sleep", "1000")
    pid = runner.storage.runtime.state(container.id).pid
    assert pid is not None
    os.kill(_monitor(runner.storage, container), signal.SIGKILL)
    until(lambda: not runner.storage.containers.is_running(container))
    assert runner.storage.runtime.wait(container.id) == 255
    runner.storage.runtime.stop(container.id)
    until(lambda: not _is_alive(pid))
    assert runner.storage.layers.mounts() == []
    assert runner.storage.runtime.state(container.id).exit_code == 255


def test_forced_removal_after_a_killed_monitor(runner: Runner) -> None:
    """Nothing is left: no process, no mount, no container."""
    container = runner.start("sleep", "1000")
    pid = runner.storage.runtime.state(container.id).pid
    assert pid is not None
    os.kill(_monitor(runner.storage, container), signal.SIGKILL)
    until(lambda: not runner.storage.containers.is_running(container))
    runner.storage.containers.remove(container.id, force=True)
    assert not _is_alive(pid)
    assert runner.storage.layers.mounts() == []
    assert runner.storage.containers.ls() == []


def test_monitor_is_nobodys_child(runner: Runner) -> None:
    """It has a session of its own, a parent that is not this process, and no descriptor of ours."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        container = runner.start("sleep", "1000")
    finally:
        os.close(writer)
    monitor = _monitor(runner.storage, container)
    assert os.getsid(monitor) != os.getsid(0)
    fields = Path(f"/proc/{monitor}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()
    assert os.read(reader, 1) == b""  # nobody has the other end
    os.close(reader)


# What images bring


def _image(storage: Storage, **links: str) -> None:
    """An image ``odd``: that of all tests with symlinks, ``_`` in a name standing for a slash."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(rootfs_tar())) as usual,
        tarfile.open(fileobj=buffer, mode="w") as archive,
    ):
        for entry in usual:
            archive.addfile(entry, usual.extractfile(entry) if entry.isreg() else None)
        for name, target in links.items():
            entry = tarfile.TarInfo(name.replace("_", "/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    storage.images.import_(io.BytesIO(buffer.getvalue()), name="odd")


def _run_odd(runner: Runner, *words: str) -> Done:
    config = {"Cmd": [*words], "Runtime": runner.engine, "Network": "none", "Hostname": "guest"}
    container = runner.storage.containers.create("odd", config=config)
    runner.storage.runtime.start(container.id)
    code = runner.storage.runtime.wait(container.id)
    return Done(code, runner.log(container, "stdout"), runner.log(container, "stderr"))


def test_files_that_are_dangling_symlinks(runner: Runner, tmp_path: Path) -> None:
    """Images of systemd-resolved have such ones; none leads out."""
    outside = tmp_path / "hostname"
    links = {
        "etc_resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
        "etc_hosts": "/run/hosts",
        "etc_hostname": f"../../../../..{outside}",
    }
    _image(runner.storage, **links)
    done = _run_odd(runner, "sh", "-c", "cat /etc/hostname; grep -c localhost /etc/hosts")
    assert done.out.split() == ["guest", "2"]
    done = _run_odd(runner, "cat", "/etc/resolv.conf")
    assert (done.code, done.out) == (0, Path("/etc/resolv.conf").read_text())
    assert not outside.exists()


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_symlinks_in_the_place_of_kernel_filesystems(runner: Runner, name: str) -> None:
    """What is masked would be elsewhere."""
    _image(runner.storage, **{name: "tmp"})
    with pytest.raises(RuntimeFailedError) as caught:
        _run_odd(runner, "true")
    assert caught.value.exit_code == 125
    assert runner.storage.layers.mounts() == []


def test_host_names_of_images(storage: Storage) -> None:
    """They are not taken."""
    config = {"Hostname": "a\nb", "Cmd": ["true"]}
    raw = make_config(
        base=None, diff_ids=[], history=[], config=config, created="2024-01-01T00:00:00Z"
    )
    image = storage.images.add(raw, None, source="load")
    container = storage.containers.create(image.id)
    assert container.config["Hostname"] == container.id[:12]


@pytest.mark.parametrize("name", ["a\nb", "a b", "a/b", "\udc80", "ä", "-a", ".", "a" * 65])
def test_host_names_that_are_none(storage: Storage, name: str) -> None:
    with pytest.raises(StoreError, match="is no host name") as caught:
        storage.containers.create("busybox", config={"Hostname": name})
    assert caught.value.resolution
    assert storage.containers.ls() == []


def test_host_names(storage: Storage) -> None:
    for name in ("a", "A_b.c-d.example", "a" * 64):
        container = storage.containers.create("busybox", config={"Hostname": name})
        assert container.config["Hostname"] == name


@pytest.mark.parametrize(
    "process",
    [
        {"env": ["=x"]},
        {"env": ["A=\ud800"]},
        {"args": ["true", "\0"]},
        {"user": {"uid": 0, "gid": 0, "additionalGids": [*range(65_537)]}},
        {"cwd": "/a\0b"},
        {"cwd": "/exec"},
    ],
)
def test_processes_that_python_or_the_kernel_do_not_take(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, process: dict[str, Any]
) -> None:
    """One sentence; and what is missing is not the program."""
    make = executing.make_process

    def late(*arguments: Any, **options: Any) -> dict[str, Any]:
        return {**make(*arguments, **options), **process}

    monkeypatch.setattr(executing, "make_process", late)
    with usable("unshare"):
        runner = Runner(storage, "unshare")
        container = runner.start("sleep", "1000")
        with pytest.raises(RuntimeFailedError) as caught:
            storage.runtime.exec(container.id, ["/bin/true"])
    assert caught.value.exit_code == 125
    assert caught.value.details
    assert "\n" not in caught.value.details


def test_a_directory_of_the_host_that_is_open(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As working directory it would lead out of the container."""
    command = engines.Unshare.exec
    leak = ["sh", "-c", 'exec 9<"$0"; exec "$@"', os.fspath(tmp_path)]
    monkeypatch.setattr(
        engines.Unshare, "exec", lambda *words, **options: [*leak, *command(*words, **options)]
    )
    with usable("unshare"):
        container = Runner(storage, "unshare").start("sleep", "1000")
        with pytest.raises(RuntimeFailedError) as caught:
            storage.runtime.exec(container.id, ["true"], workdir="/proc/self/fd/9")
    assert caught.value.exit_code == 125
    assert "no directory of the container" in str(caught.value.details)
    assert storage.runtime.exec(container.id, ["true"], workdir="/proc/self/cwd") == 0


# One more process


def test_exec(runner: Runner) -> None:
    """It runs in the same namespaces, as whom and where it is asked; its exit code comes back."""
    container = runner.start("sleep", "1000", Env=["A=1"], WorkingDir="/srv")
    runtime = runner.storage.runtime
    script = (
        'test "$A$B" = 12 && test $(pwd) = /tmp && test $(id -u) = 12 && test $(id -g) = 34'
        " && test $(readlink /proc/self/ns/pid) = $(readlink /proc/self/ns/pid)"
        " && test -d /proc/1 && grep -q sleep /proc/1/cmdline && exit 5"
    )
    words = ["sh", "-c", script]
    assert runtime.exec(container.id, words, env=["B=2"], user="svc", workdir="/tmp") == 5
    assert runtime.exec(container.id, ["sh", "-c", "test $(pwd) = /srv"]) == 0
    assert runtime.exec(container.id, ["sh", "-c", "kill -9 $$"]) == 137


def test_exec_has_no_more_privileges(runner: Runner) -> None:
    """One more process has the capabilities and the filter of the first."""
    container = runner.start("sleep", "1000")
    script = (
        "for f in CapEff CapBnd Seccomp: NoNewPrivs; do"
        ' test "$(grep ^$f /proc/1/status)" = "$(grep ^$f /proc/self/status)" || exit 1; done'
    )
    assert runner.storage.runtime.exec(container.id, ["sh", "-c", script]) == 0


def test_exec_detached(runner: Runner) -> None:
    """It is not waited for."""
    container = runner.start("sleep", "1000")
    script = "sleep 0.2; touch /done"
    assert runner.storage.runtime.exec(container.id, ["sh", "-c", script], detach=True) == 0
    until(lambda: runner.storage.runtime.exec(container.id, ["test", "-e", "/done"]) == 0)


@pytest.mark.parametrize(("program", "code"), [("nowhere", 127), ("/bin/plain", 126)])
def test_exec_of_no_program(runner: Runner, program: str, code: int) -> None:
    """The same exit codes as for a container; the container goes on, and no file is left."""
    container = runner.start("sleep", "1000")
    directory = runner.storage.containers.run_directory(container)
    before = os.listdir(directory)
    with pytest.raises(RuntimeFailedError) as caught:
        runner.storage.runtime.exec(container.id, [program])
    assert caught.value.exit_code == code
    assert os.listdir(directory) == before
    assert runner.storage.runtime.state(container.id).running is Running.RUNNING


def test_exec_in_no_directory(runner: Runner) -> None:
    """That is not the program that is missing."""
    container = runner.start("sleep", "1000")
    with pytest.raises(RuntimeFailedError) as caught:
        runner.storage.runtime.exec(container.id, ["true"], workdir="/exec")
    assert caught.value.exit_code == 125


def test_exec_where_nothing_runs(runner: Runner) -> None:
    """A container that does not run takes no further process, signal or pause."""
    container = runner.create("true")
    with pytest.raises(ContainerError, match="not running"):
        runner.storage.runtime.exec(container.id, ["true"])
    with pytest.raises(ContainerError, match="not running"):
        runner.storage.runtime.kill(container.id)
    assert not os.path.exists(runner.storage.containers.run_directory(container))
    with runner.storage.runtime.paused(container):
        pass
    with pytest.raises(NotFoundError):
        runner.storage.runtime.exec("nothing", ["true"])


# Pausing


def test_paused(runner: Runner) -> None:
    """Nothing of it runs meanwhile, and all of it afterwards."""
    container = runner.start("sh", "-c", "while :; do echo x >>/lines; echo x; sleep 0.01; done")
    runner.wait_for(container, "x\n")
    # Not the log, which what is in the pipe reaches later.
    lines = Path(f"/proc/{runner.storage.runtime.state(container.id).pid}/root/lines")
    with runner.storage.runtime.paused(container):
        before = lines.stat().st_size
        time.sleep(0.2)
        assert lines.stat().st_size == before
        log = runner.log(container, "stdout")
    until(lambda: lines.stat().st_size > before)
    until(lambda: len(runner.log(container, "stdout")) > len(log))


def test_stop_while_paused(runner: Runner) -> None:
    """A container that stands still can be ended."""
    container = runner.start("sleep", "1000")
    with runner.storage.runtime.paused(container):
        runner.storage.runtime.stop(container.id, timeout=0)
    assert runner.storage.runtime.state(container.id).exit_code == 137


def test_commit_while_it_runs(runner: Runner) -> None:
    """A running container is committed paused, and goes on."""
    container = runner.start("sh", "-c", "echo written > /new; echo ready; sleep 1000")
    runner.wait_for(container, "ready")
    image = runner.storage.containers.commit(container.id, "copy")
    assert runner.storage.runtime.exec(container.id, ["true"]) == 0
    with runner.storage.images.mounted(image.id) as path:
        assert (path / "new").read_text() == "written\n"


def test_somebody_in_its_directory(runner: Runner) -> None:
    """Who is in its mount keeps it from being unmounted; how it ended is known all the same."""
    container = runner.start("sh", "-c", "sleep 0.5; exit 4")
    (record,) = runner.storage.layers.mounts()
    with subprocess.Popen(["sleep", "1000"], cwd=record.path) as process:
        assert runner.storage.runtime.wait(container.id) == 4
        process.kill()
    state = runner.storage.runtime.state(container.id)
    assert state.exit_code == 4
    assert "busy" in state.error
    assert runner.storage.containers.unmount(container.id)


# Engines


def test_warning(storage: Storage) -> None:
    """What an engine does not isolate is said, to who asks for it."""
    said: list[str] = []
    storage.runtime.warn = said.append
    with usable("unshare"):
        Runner(storage, "unshare").run("true")
    assert len(said) == 1
    assert "seccomp" in said[0]
