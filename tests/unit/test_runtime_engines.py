from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from storagedrivers.errors import ContainerError, RuntimeFailedError
from storagedrivers.runtime import engines, outcome, processes
from storagedrivers.runtime.cgroups import Cgroups, read_cgroups
from storagedrivers.runtime.engines import Bundle
from storagedrivers.runtime.signals import signal_number
from storagedrivers.runtime.status import Status, read_status, write_status

# What crun 1.8 and runc 1.1 say.
SAID = [
    ("executable file `x` not found in $PATH: No such file or directory", 127),
    (
        'runc run failed: unable to start container process: exec: "x": executable file not'
        " found in $PATH",
        127,
    ),
    (
        'exec failed: unable to start container process: exec: "/x": stat /x: no such file or'
        " directory",
        127,
    ),
    ("open executable: Permission denied", 126),
    ("open executable: Operation not permitted", 126),
    ('runc run failed: unable to start container process: exec: "/bin": permission denied', 126),
    ("exec container process `/x`: Exec format error", 126),
    ("mount `proc` to `proc`: Operation not permitted", 125),
    ('error mounting "/x" to rootfs: no such file or directory', 125),
]


@pytest.mark.parametrize(("words", "code"), SAID)
def test_exit_codes(words: str, code: int) -> None:
    """What an engine says about the program is 126 or 127, and anything else its own failure."""
    error = outcome.failure("x", "engine", words)
    assert error.exit_code == code
    assert error.details == words
    assert isinstance(error, RuntimeFailedError)


def test_reported_errors(tmp_path: Path) -> None:
    """The last error counts; warnings and what is no document do not."""
    path = tmp_path / "errors.json"
    assert outcome.read_errors(str(path)) == ""
    lines = [
        json.dumps({"level": "error", "msg": "first"}),
        json.dumps({"level": "error", "msg": "second"}),
        json.dumps({"level": "warning", "msg": "third"}),
        "no document",
    ]
    path.write_text("\n".join(lines))
    assert outcome.read_errors(str(path)) == "second"


def _cgroups(top: Path, **files: str) -> Cgroups:
    for name, content in files.items():
        path = top / name.replace("_", ".").replace("-", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_cgroups(str(top))


def test_cgroups_of_version_2(tmp_path: Path) -> None:
    """A real root is used; one that holds processes and is none hands no controllers down."""
    assert _cgroups(tmp_path, cgroup_controllers="cpu\n") == Cgroups(usable=True, mixed=False)
    inner = _cgroups(tmp_path, cgroup_type="domain\n", cgroup_procs="1\n")
    assert inner == Cgroups(usable=False, mixed=False)
    assert _cgroups(tmp_path, cgroup_procs="") == Cgroups(usable=True, mixed=False)


def test_cgroups_of_version_1(tmp_path: Path) -> None:
    """They need a hierarchy for devices; controllers of version 2 beside it are noticed."""
    assert read_cgroups(str(tmp_path)) == Cgroups(usable=False, mixed=False)
    (tmp_path / "devices").mkdir()
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("\n")
    assert read_cgroups(str(tmp_path)) == Cgroups(usable=True, mixed=False)
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    assert read_cgroups(str(tmp_path)) == Cgroups(usable=True, mixed=True)


def test_unknown_engine() -> None:
    """A name that is none gets the nearest one."""
    with pytest.raises(RuntimeFailedError) as caught:
        engines.choose("cron")
    assert caught.value.resolution == "did you mean crun?"


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        (" 9 ", 9),
        (signal.SIGHUP, 1),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-14", signal.SIGRTMAX - 14),
        ("RTMIN", signal.SIGRTMIN),
    ],
)
def test_signals(words: int | str, number: int) -> None:
    """Names with and without their prefix, numbers, and real-time signals."""
    assert signal_number(words) == number


@pytest.mark.parametrize(
    "words", ["", "0", "-1", "99", "SIGNO", "RTMIN-1", "RTMAX+1", "_DFL", "IGN"]
)
def test_no_signals(words: str) -> None:
    """Everything else is refused."""
    with pytest.raises(ContainerError):
        signal_number(words)


def test_pid_of_another_process(tmp_path: Path) -> None:
    """A number that belongs to a later process by now is none."""
    bundle = Bundle("0" * 64, str(tmp_path), str(tmp_path))
    Path(bundle.pid_file).write_text(str(os.getpid()))
    with pytest.raises(RuntimeFailedError):
        engines.read_pid(bundle)
    Path(bundle.birth).write_text(processes.birth(os.getpid()))
    assert engines.read_pid(bundle) == os.getpid()
    Path(bundle.birth).write_text("1")
    with pytest.raises(RuntimeFailedError):
        engines.read_pid(bundle)


def test_status(tmp_path: Path) -> None:
    """It is read back; one that is missing, damaged or of a later version is no obstacle."""
    assert read_status(str(tmp_path)) == Status()
    status = Status(started=1.5, finished=2.5, exit_code=3, engine="crun", error="x")
    write_status(str(tmp_path), status, durable=True)
    assert read_status(str(tmp_path))._replace(boot="") == status
    assert read_status(str(tmp_path)).boot
    (tmp_path / "status.json").write_text('{"exit_code": 4, "later": 1}')
    assert read_status(str(tmp_path)) == Status(exit_code=4)
    (tmp_path / "status.json").write_text('{"exit')
    assert read_status(str(tmp_path)) == Status()
    assert [*tmp_path.iterdir()] == [tmp_path / "status.json"]
