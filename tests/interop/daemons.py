"""dockerd and containerd, started in a directory and in namespaces of their own.

They have a mount namespace, so that nothing they mount is seen elsewhere, with a ``/run`` that
nobody else has; and a process namespace, which ends with all that they started. They end when their
standard input is closed: so they do not outlive whoever started them, however that ended.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 30.0
"""Seconds that a daemon may take to start or to end."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the distribution's programs are, and no others."""

_NAMESPACES = (
    *("unshare", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)

_SCRIPT = """
cd "$1"
mount -t tmpfs -o mode=755 tmpfs /run
containerd --config containerd.toml </dev/null >containerd.log 2>&1 &
containerd=$!
dockerd --config-file docker.json </dev/null >docker.log 2>&1 &
docker=$!
read -r _
kill $docker; wait $docker
kill $containerd; wait $containerd
"""

# Docker's own file, and containerd's, by https://docs.docker.com/reference/cli/dockerd/ and
# containerd-config.toml(5).
_CONTAINERD = """\
version = 2
root = "{0}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/containerd.sock"
[ttrpc]
  address = "/run/containerd.ttrpc"
"""


class Daemons:
    """Both daemons, running, and how to talk to them.

    Attributes:
        directory: theirs; what Docker keeps is in ``docker``, and containerd's in ``containerd``.
    """

    def __init__(self, directory: Path, pid: int, cgroup: str) -> None:
        self.directory = directory
        self._pid = pid
        self._cgroup = cgroup

    @property
    def docker_socket(self) -> Path:
        """Where dockerd listens."""
        return self.directory / "docker.sock"

    def docker_command(self, *words: str | Path) -> list[str]:
        """A command line of Docker's client."""
        client = shutil.which("docker", path=PATH) or "docker"
        return [client, "--host", f"unix://{self.docker_socket}", *map(str, words)]

    def ctr_command(self, *words: str | Path) -> list[str]:
        """A command line of containerd's client.

        It runs beside the daemon: client and daemon meet in pipes below /run.
        """
        beside = ("nsenter", "--mount", "--pid", "--target", str(self._pid))
        return [*beside, "ctr", "--address", f"{self.directory}/containerd.sock", *map(str, words)]

    def docker(self, *words: str | Path, data: bytes | None = None) -> bytes:
        """Run Docker's client; what it printed."""
        return run(self.docker_command(*words), self.directory, data=data)

    def ctr(self, *words: str | Path, data: bytes | None = None) -> bytes:
        """Run containerd's client; what it printed."""
        return run(self.ctr_command(*words), self.directory, data=data)

    def docker_run(self, image: str, *words: str) -> str:
        """What a container of Docker prints."""
        options = ("--rm", "--network", "none", "--cgroup-parent", self._cgroup)
        return self.docker("run", *options, image, *words).decode()

    def ctr_run(self, image: str, *words: str) -> str:
        """What a container of containerd prints."""
        name = f"test-{os.urandom(4).hex()}"
        return self.ctr("run", "--rm", "--cgroup", self._cgroup, image, name, *words).decode()

    def docker_inspect(self, reference: str) -> dict[str, Any]:
        """What Docker knows of an image or a container."""
        (found,) = json.loads(self.docker("inspect", reference))
        return dict(found)

    def connection(self) -> http.client.HTTPConnection:
        """A connection to dockerd that is kept."""
        return _UnixConnection(self.docker_socket)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(os.fspath(self._path))


@contextmanager
def started(directory: Path) -> Iterator[Daemons]:
    """Have both daemons run; *directory* exists, on a filesystem that overlay can write to."""
    cgroup = f"/storagedrivers-{os.urandom(4).hex()}"
    _configure(directory, cgroup)
    process = subprocess.Popen(
        [*_NAMESPACES, "sh", "-c", _SCRIPT, "sh", directory],
        stdin=subprocess.PIPE,
        env=environment(directory),
        start_new_session=True,
    )
    assert process.stdin
    try:
        _wait_until_ready(directory, process)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Daemons(directory, int(child), cgroup)
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()  # and with it all of the process namespace, where that was not the end
            process.wait()
        _remove_cgroups(cgroup)


def _configure(directory: Path, cgroup: str) -> None:
    docker = {
        "bridge": "none",
        "cgroup-parent": cgroup,
        "containerd": f"{directory}/containerd.sock",
        "data-root": f"{directory}/docker",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "exec-root": "/run/docker",  # with sockets, whose paths end at 107 bytes
        "hosts": [f"unix://{directory}/docker.sock"],
        "iptables": False,
        "ip6tables": False,
        "pidfile": f"{directory}/docker.pid",
        "storage-driver": "overlay2",
    }
    (directory / "docker.json").write_text(json.dumps(docker))
    (directory / "containerd.toml").write_text(_CONTAINERD.format(directory))
    (directory / "home").mkdir()


def _wait_until_ready(directory: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not _is_ready(directory / "docker.sock"):
        if process.poll() is not None or time.monotonic() > end:
            logs = [(directory / name).read_text() for name in ("containerd.log", "docker.log")]
            raise RuntimeError("dockerd or containerd did not start:\n" + "\n".join(logs))
        time.sleep(0.02)


def _is_ready(docker_socket: Path) -> bool:
    """Whether dockerd answers, which it does when containerd runs and all is set up."""
    connection = _UnixConnection(docker_socket)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _remove_cgroups(name: str) -> None:
    # Of both versions; a directory of cgroups is empty for rmdir(2) when no group is in it.
    mounted = Path("/sys/fs/cgroup")
    for top in (mounted / name[1:], *mounted.glob(f"*{name}")):
        for directory, _, _ in os.walk(top, topdown=False):
            with suppress(FileNotFoundError):
                os.rmdir(directory)


def environment(home: Path) -> dict[str, str]:
    """For programs that must not see the user's settings."""
    return {
        "DOCKER_BUILDKIT": "0",
        "HOME": f"{home}/home",
        "LC_ALL": "C.UTF-8",
        "PATH": PATH,
        "TMPDIR": os.fspath(home),
        "XDG_RUNTIME_DIR": f"{home}/home",
    }


def run(command: Sequence[str], home: Path, *, data: bytes | None = None) -> bytes:
    """Run a program to its end; what it printed.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    done = subprocess.run(
        command,
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        env=environment(home),
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace")
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{said}")
    return done.stdout
