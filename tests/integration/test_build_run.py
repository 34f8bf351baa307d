"""RUN: a command in a container that leaves nothing but what it wrote."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import archives
import pytest
from building import Runs, runs
from capabilities import need
from contained import shown
from running import PATIENCE, usable
from stored import DRIVERS

from storagedrivers.build.run_mounts import RunMount, parse
from storagedrivers.errors import BuildError, RunFailedError, RuntimeFailedError
from storagedrivers.runtime import engines
from storagedrivers.storage import Storage
from storagedrivers.testing.filesystems import loop_filesystem

FILESYSTEMS = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "ext4"}
SOURCE = """
    busybox mkdir -p /app/sub; echo data > /app/file; echo deep > /app/sub/deep
    busybox ln -s /app/file /app/link; busybox ln -s ../../../../../../etc/passwd /app/out
"""


@pytest.fixture
def run(on_filesystem: Callable[[str], Path]) -> Iterator[Runs]:
    need("root", "mount", "overlay")
    with runs(on_filesystem("ext4")) as made:
        yield made


@pytest.fixture(params=DRIVERS)
def anywhere(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Runs]:
    need("root", "mount", "overlay")
    with runs(on_filesystem(FILESYSTEMS[request.param]), request.param) as made:
        yield made


@pytest.fixture(params=["crun", "runc", "unshare"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only this one is there."""
    with usable(request.param):
        monkeypatch.setattr(engines, "ENGINES", (request.param,))
        yield


# What stays, and what does not


def test_changes(anywhere: Runs) -> None:
    """What it changes is the layer's; and nothing is of what was only there to run it, whatever
    the image lacks and whatever is done around that.
    """

    def changes(text: str) -> list[str]:
        return anywhere(text, on=anywhere.bare).changes

    done = anywhere("echo hi; echo x > /new; busybox mkdir /srv/a")
    assert done.out == "hi\n"
    assert done.changes == ["C /", "A /new", "C /srv", "A /srv/a"]
    assert anywhere("cat /etc/hosts; ls /proc /dev /sys").changes == []
    assert changes("cat /etc/hosts /etc/mtab; ls /proc /dev /sys /.dockerenv") == []
    assert changes("busybox mkdir -p /etc/d") == ["A /etc", "A /etc/d"]
    # The time of the directory that held it has changed.
    assert changes("busybox rm /.dockerenv /etc/mtab; true") == ["C /"]
    assert changes("busybox chmod 700 /etc; echo x > /.dockerenv") == ["A /.dockerenv", "A /etc"]
    assert changes("busybox mv /.dockerenv /mark") == ["C /", "A /mark"]


def test_times_of_directories(run: Runs) -> None:
    """Those in which something was made for the run have the time that they had, or that the
    command gave them.
    """
    layer = run("touch -d '2001-02-03 04:05:06 UTC' /; echo x > /etc/x; busybox rm /etc/x").layer
    with run.storage.layers.mounted(layer) as path:
        assert path.stat().st_mtime != 0
        assert (path / "etc").stat().st_mtime > 1_600_000_000
    with run.storage.layers.mounted(run.base) as path:
        before = path.stat()
    layer = run("true").layer
    with run.storage.layers.mounted(layer) as path:
        after = path.stat()
    assert (before.st_mtime_ns, before.st_atime_ns) == (after.st_mtime_ns, after.st_atime_ns)


def test_removes_everything(anywhere: Runs) -> None:
    """All of the image's, also the directories in which something was mounted."""
    done = anywhere("busybox rm -rf /bin /etc /l* /root /srv /tmp /usr 2>&1; true")
    gone = [one for one in done.changes if one[0] == "D" and one.count("/") == 1]
    assert {"D /bin", "D /root", "D /srv", "D /tmp"} <= {*gone}
    assert {one for one in done.changes if one[0] == "A"} == set()
    assert "D /etc/passwd" in done.changes


def test_symlinks_in_the_way(run: Runs) -> None:
    """What is mounted at a symlink's target leaves nothing there, nor above it."""
    link = archives.symlink(b"etc/resolv.conf", b"../run/stub/resolv.conf")
    tar = io.BytesIO(archives.tar(link, archives.symlink(b"etc/hosts", b"nowhere")))
    added = run.storage.layers.add(tar, parent=run.base, held=False, lease=run.lease)
    done = run("cat /etc/resolv.conf > /dev/null; ls -d /run/stub; echo y > /y", on=added.id)
    assert done.out == "/run/stub\n"
    assert done.changes == ["C /", "A /y"]


@pytest.mark.usefixtures("engine")
def test_engines(run: Runs) -> None:
    """With every engine the output is all there, so is the exit code, and there is no trace."""
    done = run("seq 20000; sleep 100 &")
    assert done.out.split() == [*map(str, range(1, 20001))]
    assert done.changes == []
    assert run("true", on=run.bare).changes == []
    with pytest.raises(RunFailedError, match=r"returned a non-zero code: 7$") as caught:
        run("exit 7")
    assert caught.value.exit_code == 7
    for words, code in ((["/nosuch"], 127), (["/bin/plain"], 126), (["nosuch"], 127)):
        with pytest.raises(RuntimeFailedError) as missing:
            run.raw(*words)
        assert missing.value.exit_code == code


def test_config(run: Runs) -> None:
    """User, directory and variables are those of the config; the directory is made, by root."""
    config = {"User": "svc", "WorkingDir": "/a/b", "Env": ["A=b c"]}
    done = run("id -u; pwd; echo $A; touch x 2> /dev/null || ls -ld .", **config)
    assert done.out.splitlines()[:3] == ["12", "/a/b", "b c"]
    assert " root " in done.out
    assert done.changes == ["C /", "A /a", "A /a/b"]
    with pytest.raises(RuntimeFailedError, match="no user 'nobody'"):
        run("true", User="nobody")


def test_network(run: Runs) -> None:
    """Its own with a loopback device, or the host's; its host name is the same each time."""
    own = Path("/proc/net/dev").read_text().count(":")
    assert run("grep -c : /proc/net/dev; hostname").out == "1\nbuild\n"
    assert run("grep -c : /proc/net/dev", network="default").out == "1\n"
    assert run("grep -c : /proc/net/dev; hostname", network="host").out == f"{own}\nbuild\n"


def test_confined(run: Runs) -> None:
    """It can mount nothing, and take no mount away."""
    done = run(
        "mount -t tmpfs x /tmp || echo one; busybox umount /etc/hosts || echo two;"
        " busybox umount -l /proc || echo three; echo x > /proc/sysrq-trigger || echo four"
    )
    assert {"one", "two", "three", "four"} <= {*done.out.split()}
    assert done.changes == []


def test_script(run: Runs) -> None:
    """A heredoc that is a program of its own."""
    said: list[bytes] = []
    layer = run.raw(script=("EOF", "#!/bin/sh\necho $0; echo x > /x\n"), output=said.append)
    run.raw(script=("../../x", "#!/bin/sh\necho $0\n"), output=said.append)
    assert b"".join(said) == b"/dev/pipes/EOF\n/dev/pipes/script\n"
    run.storage.layers.seal(layer)
    assert shown(run.storage.layers.changes(layer)) == ["C /", "A /x"]


# Mounts


@pytest.fixture
def source(run: Runs) -> Callable[[str], RunMount]:
    """Makes mounts of a stage with a few files."""
    layer = run(SOURCE).layer
    return lambda text: parse(f"from=stage,{text}")._replace(layer=layer)


def test_bind(run: Runs, source: Callable[[str], RunMount]) -> None:
    """A path of a stage, read-only or not; what is written to it is lost; links stay inside."""
    text = "cat /x/file /x/sub/deep; echo no > /x/file && cat /x/file"
    with pytest.raises(RunFailedError):
        run(text, mounts=[source("source=/app,target=/x")])
    done = run(text, mounts=[source("source=app,target=/x,rw")])
    assert done.out == "data\ndeep\nno\n"
    assert done.changes == []
    again = [source("source=app,target=x"), source("source=/app/link,target=/new/file")]
    done = run("cat x/file /new/file; ls /new", mounts=again, WorkingDir="/etc")
    assert done.out == "data\ndata\nfile\n"
    assert done.changes == []
    for path in ("/app/nothing", "../../../../proc/self/environ", "/app/file/x"):
        with pytest.raises(BuildError, match="cannot be mounted from stage"):
            run("true", mounts=[source(f"source={path},target=/x")])
    out = run("cat /x", mounts=[source("source=/app/out,target=/x")]).out
    assert out.startswith("root:x:0:0:root:/root:/bin/sh\nsvc:")


def test_bind_of_a_context(run: Runs) -> None:
    """What is put in by the caller; and an origin that has nothing."""

    def fill(root: int) -> None:
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=root))

    mounts = [parse("target=/c")._replace(fill=fill), parse("target=/e,from=empty,rw")]
    done = run("ls /c /e; touch /e/x; touch /c/x || echo no", mounts=mounts)
    assert done.out.split()[:3] == ["/c:", "file", "/e:"]
    assert done.out.split()[-1] == "no"
    assert done.changes == []


def test_cache(run: Runs, source: Callable[[str], RunMount]) -> None:
    """A directory that stays, by its id; it begins empty with a mode and an owner, or with what a
    stage has.
    """
    assert run("echo 1 > /c/n", mounts=["type=cache,target=/c"]).changes == []
    assert run("cat /d/n", mounts=["type=cache,target=/d,id=/c"]).out == "1\n"
    assert run("ls /c", mounts=["type=cache,target=/c,id=other"]).out == ""
    with pytest.raises(RunFailedError):
        run("touch /c/n", mounts=["type=cache,target=/c,ro"])
    own = ["type=cache,target=/c,uid=12,gid=34,mode=700"]
    assert run("ls -ldn /c; touch /c/x", User="svc", mounts=own).out.split()[:4] == [
        *("drwx------", "2", "12", "34")
    ]
    begun = [source("type=cache,target=/c,source=app")]
    assert run("cat /c/file; echo more > /c/file", mounts=begun).out == "data\n"
    assert run("cat /c/file", mounts=begun).out == "more\n"
    volumes = run.storage.volumes.ls()
    assert {one.labels["build-cache"] for one in volumes} == {"/c", "other"}
    assert all(re.fullmatch("build-cache-[0-9a-f]{32}", one.name) for one in volumes)


def test_tmpfs_and_nested(run: Runs) -> None:
    """A tmpfs is empty, and goes; a mount can lie in another."""
    mounts = ["type=tmpfs,target=/srv,size=1m", "type=cache,target=/srv/c"]
    done = run("grep -o size=1024k /proc/mounts; echo x > /srv/c/x; touch /srv/y", mounts=mounts)
    assert done.out == "size=1024k\n"
    assert done.changes == []
    assert run("cat /c/x", mounts=["type=cache,target=/c,id=/srv/c"]).out == "x\n"
    assert run("ls /srv").out == ""


def test_volumes(run: Runs) -> None:
    """What is written below a VOLUME is lost, what the image has is seen; a directory that was
    missing stays.
    """
    layer = run(SOURCE).layer
    volumes = {"/app": {}, "/data/x": {}, "/": {}}
    done = run("cat /app/file; touch /app/new /data/x/new; touch /kept", on=layer, Volumes=volumes)
    assert done.out == "data\n"
    assert done.changes == ["C /", "A /data", "A /data/x", "A /kept"]
    with pytest.raises(RuntimeFailedError, match="file exists /app/file"):
        run("true", on=layer, Volumes={"/app/file": {}})


# Ends


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sleepers(marker: str) -> list[int]:
    """The processes that sleep so long."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[:2] == [b"sleep", marker.encode()]:
            found.append(int(pid))
    return found


def unique() -> str:
    """A number of seconds that no other test sleeps."""
    return f"{1_000_000 + int.from_bytes(os.urandom(3), 'big')}"


@pytest.mark.usefixtures("engine")
def test_stop(run: Runs) -> None:
    """It is killed at once, with all that it has started."""
    stop, seconds = threading.Event(), unique()

    def output(_: bytes) -> None:
        threading.Timer(0.05, stop.set).start()

    began = time.monotonic()
    text = f"sleep {seconds} & echo there; exec sleep {seconds}"
    with pytest.raises(BuildError, match="stopped"):
        run.raw("/bin/sh", "-c", text, output=output, stop=stop)
    assert time.monotonic() - began < 5
    assert sleepers(seconds) == []
    with pytest.raises(BuildError, match="stopped"):
        run.raw("/bin/sh", "-c", "echo x", stop=stop)


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.05])
def test_interrupt(run: Runs, pause: float) -> None:
    """Ctrl-C at any time leaves nothing."""
    seconds = unique()
    timer = threading.Timer(pause, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it may come at once
        timer.start()
        run.raw("/bin/sh", "-c", f"exec sleep {seconds}")
    timer.join()
    assert sleepers(seconds) == []


def test_output_that_fails(run: Runs) -> None:
    """Whoever takes the output may give up."""

    def output(_: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run.raw("/bin/sh", "-c", "echo x; sleep 100", output=output)


def test_killed_from_outside(run: Runs) -> None:
    """By a signal that the kernel or somebody else sends."""
    seconds = unique()

    def output(_: bytes) -> None:
        until(lambda: sleepers(seconds))
        os.kill(sleepers(seconds)[0], signal.SIGKILL)

    with pytest.raises(RunFailedError) as caught:
        run.raw("/bin/sh", "-c", f"echo x; exec sleep {seconds}", output=output)
    assert caught.value.exit_code == 137


KILLED = """
import sys
from building import runs
from pathlib import Path
from storagedrivers.runtime import engines
directory, engine, seconds = sys.argv[1:]
engines.ENGINES = (engine,)
with runs(Path(directory)) as run:
    run(f"sleep {seconds} & echo x > /x; exec sleep {seconds}", Volumes={"/v": {}},
        mounts=["type=cache,target=/c,sharing=locked"])
"""


@contextmanager
def ended(builder: subprocess.Popen[bytes], directory: Path) -> Iterator[None]:
    """Nothing goes on after a test that has failed."""
    try:
        yield
    except BaseException:
        builder.kill()
        builder.wait()
        Storage.open(root=directory / "root", run_root=directory / "run").close()
        raise


@pytest.mark.usefixtures("engine")
def test_builder_killed(on_filesystem: Callable[[str], Path]) -> None:
    """The next who opens the store ends what goes on, and removes what is left; one who opens it
    before that does not touch it, and sees no container.
    """
    directory, seconds = on_filesystem("ext4"), unique()
    words = [sys.executable, "-c", KILLED, str(directory), engines.ENGINES[0], seconds]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, env=environment) as builder, ended(builder, directory):
        until(lambda: len(sleepers(seconds)) == 2)
        with Storage.open(root=directory / "root", run_root=directory / "run") as storage:
            assert storage.containers.ls() == []
            assert storage.database.rows("SELECT state FROM containers") == [("creating",)]
            assert storage.gc(dry_run=True) == []
            assert [*storage.check()] == []
            assert len(sleepers(seconds)) == 2
        builder.kill()
        builder.wait()
    with runs(directory) as run:
        assert run.storage.warnings == ()
        assert sleepers(seconds) == []
        assert run.left() == []
        assert [one for one in run.storage.layers.ls() if one.writable] == []
        assert run("ls /c", mounts=["type=cache,target=/c,sharing=locked"]).out == ""


def test_side_by_side(run: Runs) -> None:
    """From several threads at once, each with its own output and layer."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(4):
                done = run(f"echo {number} > /n; sleep 0.0{number}; cat /n")
                assert done.out == f"{number}\n"
                assert done.changes == ["C /", "A /n"]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize(("sharing", "seen"), [("shared", 2), ("private", 1), ("locked", None)])
def test_sharing(run: Runs, sharing: str, seen: int | None) -> None:
    """Two at a time see one cache, have one each, or the second one waits."""
    mounts = [f"type=cache,target=/c,sharing={sharing}"]
    text = "echo x >> /c/in; cat /c/in"
    found: list[int | None] = []
    stop = threading.Event()

    def meanwhile(_: bytes) -> None:
        """Called as long as the first one runs, and has the cache."""
        timer = threading.Timer(0.2, stop.set)
        if sharing == "locked":
            timer.start()
        try:
            found.append(run(text, mounts=mounts, stop=stop).out.count("x"))
        except BuildError:
            found.append(None)
            timer.join()

    run.raw("/bin/sh", "-c", text, mounts=mounts, output=meanwhile)
    assert found == [seen]
    # The first one is free again.
    assert run(text, mounts=mounts).out.count("x") == (3 if sharing == "shared" else 2)


def test_full_disk(tmp_path: Path) -> None:
    """It fails as its command does, and nothing of it is left."""
    need("root", "mount", "overlay", "tmpfs")
    with loop_filesystem("tmpfs", tmp_path, size=24 << 20) as directory:
        with runs(directory, run_root=tmp_path / "run") as run:
            with pytest.raises(RunFailedError):
                run("dd if=/dev/zero of=/big bs=1M")
            assert run.left() == []
            assert run("echo x > /x").changes == ["C /", "A /x"]
