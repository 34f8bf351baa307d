"""A container of an image that Docker built does what it does in Docker, and has the same diff."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
from interop.daemons import environment
from interop.making import NAME, Peers
from running import usable

from storagedrivers.storage import Storage

RUNTIMES = ("crun", "runc")

NOT_STARTED = 125

SAME = ("--rm", "--network", "none", "--hostname", "same")

ABOUT = "id; pwd; umask; env | sort; ulimit -c"
DEVICES = "ls -lA /dev | grep -v ' console$' | cut -c1-10,57-; stat -c '%n %t %T %a' /dev/null"
MASKED = "cat /proc/kcore | cut -c1; ls /proc/acpi; ls /sys/firmware"

CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "the image's command": ((), ()),
    "what the image says": ((), ("sh", "-c", ABOUT)),
    "a user with groups": (("--user", "svc"), ("sh", "-c", ABOUT)),
    "variables over the image's": (("--env", "A=c", "--env", "E=f=g"), ("sh", "-c", "env | sort")),
    "an entrypoint": (("--entrypoint", "echo"), ("one", "two words")),
    "devices": ((), ("sh", "-c", DEVICES)),
    "what is hidden": (("--user", "0"), ("sh", "-c", MASKED)),
}


class Outcome(NamedTuple):
    code: int
    printed: str
    said: str


def outcome(command: list[str], home: Peers) -> Outcome:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(home.place("")) | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def in_docker(peers: Peers) -> Callable[[str], Outcome]:
    """What a case finds in Docker, which is asked once."""
    peers.made("docker save")

    @cache
    def find(case: str) -> Outcome:
        options, words = CASES[case]
        return outcome(peers.daemons.docker_command("run", *SAME, *options, NAME, *words), peers)

    return find


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_a_process_finds_what_it_finds_in_docker(
    case: str,
    runtime: str,
    peers: Peers,
    storage: Storage,
    in_docker: Callable[[str], Outcome],
) -> None:
    storage.images.load(str(peers.made("docker save").path))
    options, words = CASES[case]
    places = ("--root", str(storage.root), "--run-root", str(storage.run_root))
    ours = [sys.executable, "-m", "storagedrivers", *places, "run", "--runtime", runtime]
    expected = in_docker(case)
    with usable(runtime):
        found = outcome([*ours, *SAME, *options, NAME, *words], peers)
    printed = found.printed.splitlines()
    if runtime == "crun":  # it makes one name more; the file itself is masked
        printed = [line for line in printed if not line.endswith("core -> /proc/kcore")]
    assert printed == expected.printed.splitlines()
    assert found.code == expected.code, found.said


SCRIPT = """
cd /kinds
echo more >>large; rm small; rm -r directory/below; mkdir -p new/deep; echo x >new/deep/file
rm -r closed; mkdir closed; echo y >closed/new; chmod 700 setuid; chown 5 fifo
ln hard-link a-link; rm dangling; ln -s elsewhere dangling; mv empty moved; chmod 700 odd
rm executable; mkdir executable; touch /top; mkdir /etc/dir
"""


def test_the_diff_is_the_one_that_docker_prints(peers: Peers, storage: Storage) -> None:
    with peers.rootfs.open("rb") as tar:
        storage.images.import_(tar, name="unchanged")
    peers.daemons.docker("import", peers.rootfs, "unchanged")
    options = ("--name", "changed", "--network", "none")
    command = (*options, "unchanged", "sh", "-c", f"set -e{SCRIPT}")
    places = ("--root", str(storage.root), "--run-root", str(storage.run_root))
    ours = [sys.executable, "-m", "storagedrivers", *places, "run", *command]
    found = outcome(ours, peers)
    assert found.code == 0, found.said
    peers.daemons.docker("run", *command)
    theirs = peers.daemons.docker("diff", "changed").decode().splitlines()
    peers.daemons.docker("rm", "changed")
    changes = outcome([*ours[:7], "container", "diff", "changed"], peers)
    assert sorted(changes.printed.splitlines()) == sorted(theirs)
