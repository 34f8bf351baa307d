"""The same commands in a container of Docker's and in one of ours see and give the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from interop.making import Peers
from running import busybox_image, command_line, rootfs_tar, usable

from storagedrivers.storage import Storage

Run = Callable[..., tuple[int, str]]

STATUS = "^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups)"


@pytest.fixture(params=["crun", "runc"])
def ours(request: pytest.FixtureRequest, storage: Storage) -> Run:
    """Runs an image of ours; the exit code, and what it printed."""
    engine = request.param
    busybox_image(storage)

    def run(*words: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        command = [*command_line(storage), "run", "--rm", "--runtime", engine, *options]
        with usable(engine):
            return _done([*command, "busybox", *words])

    return run


@pytest.fixture
def dockers(peers: Peers) -> Run:
    """The same with Docker."""
    image = peers.daemons.docker("import", "-", data=rootfs_tar()).decode().strip()

    def run(*words: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        network = () if "--network" in options else ("--network", "none")
        command = peers.daemons.docker_command("run", "--rm", *network, *options)
        return _done([*command, image, *words])

    return run


def _done(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("user", ["", "svc", "12:other", ":34", "homeless", "1234:99"])
def test_users_and_privileges(ours: Run, dockers: Run, user: str) -> None:
    """Ids, groups, capabilities, the filter, and the home of each user."""
    options = ("--user", user) if user else ()
    script = f"id; grep -E '{STATUS}' /proc/self/status; echo $HOME $PATH $(pwd)"
    assert ours("sh", "-c", script, options=options) == dockers("sh", "-c", script, options=options)


def test_environment(ours: Run, dockers: Run) -> None:
    """The variables, and a working directory with its owner and mode."""
    options = ("-e", "A=b c", "-e", "PATH=/bin:/x", "--hostname", "guest", "--workdir", "/a/b")
    script = (
        "env | grep -v SHLVL; ls -ld /a /a/b | head -c 40; hostname; cat /etc/hostname /etc/hosts"
    )
    mine, theirs = (run("sh", "-c", script, options=options) for run in (ours, dockers))
    assert sorted(mine[1].splitlines()) == sorted(theirs[1].splitlines())


@pytest.mark.parametrize(
    "options", [(), ("--read-only",), ("--tmpfs", "/tmp"), ("--tmpfs", "/t:size=1m,exec")]
)
def test_mounts(ours: Run, dockers: Run, options: tuple[str, ...]) -> None:
    """What is mounted where, of what kind, and whether it can be written to or run from."""
    mine, theirs = (run("cat", "/proc/mounts", options=options)[1] for run in (ours, dockers))
    found, expected = _mounts(mine), _mounts(theirs)
    # What Docker of this age does not hide yet.
    for point in ("/proc/interrupts", "/sys/devices/virtual/powercap"):
        found.pop(point, None)
        expected.pop(point, None)
    assert found == expected


def _mounts(text: str) -> dict[str, set[str]]:
    """The flags of each mount, but for cgroups, which each engine mounts in its own way; and of
    what hides a file, whether it is there.
    """
    found = {}
    for line in text.splitlines():
        _, point, kind, options = line.split()[:4]
        if point.startswith("/sys/fs/cgroup"):
            continue
        hides = point.startswith(("/proc/", "/sys/")) and kind in ("tmpfs", "devtmpfs")
        # crun leaves noexec and so on out where the whole of /proc has them.
        below = point.startswith("/proc/")
        flags = {"ro", "rw"} if below else {"ro", "rw", "nosuid", "nodev", "noexec"}
        found[point] = set() if hides else {*options.split(",")} & flags
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("true",),
        ("sh", "-c", "exit 42"),
        ("sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"),
        ("nowhere",),
        ("/bin/nowhere",),
        ("/etc/passwd",),
        ("/etc",),
    ],
)
def test_exit_codes(ours: Run, dockers: Run, words: tuple[str, ...]) -> None:
    """The command's own, 126 and 127."""
    assert ours(*words) == dockers(*words)


@pytest.mark.parametrize(
    "options", [("--user", "nobody"), ("--workdir", "relative"), ("--workdir", "/etc/passwd")]
)
def test_what_cannot_be_run(ours: Run, dockers: Run, options: tuple[str, ...]) -> None:
    """125 for what goes wrong before there is a process."""
    assert ours("true", options=options) == dockers("true", options=options) == (125, "")


@pytest.mark.parametrize(
    "script",
    [
        "unshare -U true",
        "unshare -n true",
        "mount -t tmpfs x /tmp",
        "mknod /tmp/null c 1 3 && echo x > /tmp/null",
        "mknod /tmp/disk b 7 0 && head -c 1 /tmp/disk",
        "chroot / true",
        "hostname other",
        "echo 1 > /proc/sys/kernel/sysrq",
        "touch /sys/x",
        "date -s 2001-01-01",
        "ping -c 1 127.0.0.1",
    ],
)
def test_what_is_allowed(ours: Run, dockers: Run, script: str) -> None:
    """What a process of root may do, and what not."""
    assert ours("sh", "-c", script)[0] == dockers("sh", "-c", script)[0]
