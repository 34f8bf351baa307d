"""Processes: children that are waited for, and all those of one process namespace."""

from __future__ import annotations

import errno
import os
import signal
import time
from _thread import allocate_lock  # of threading, which costs a start more than a millisecond
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from storagedrivers.errors import RuntimeFailedError

if TYPE_CHECKING:
    import subprocess

_GONE = (FileNotFoundError, ProcessLookupError)
_LONGEST_STOP = 5.0  # seconds
_PAUSE = 0.002

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""What a container's process gets from who waits for it."""


_spawning = allocate_lock()  # of the process: so are its descriptors


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program, as ``subprocess.Popen`` does, in a process group of its own."""
    import subprocess

    with _spawning:
        return subprocess.Popen(command, process_group=0, **options)


def await_spawning() -> None:
    """Return when no child of another thread still has open what was closed before: a child has all
    descriptors until it executes its program.
    """
    with _spawning:
        pass


def run(command: Sequence[str]) -> str:
    """Run a program that only does something; what it complains about, or nothing if it did it."""
    import subprocess

    null = subprocess.DEVNULL
    with spawn(command, stdin=null, stdout=null, stderr=subprocess.PIPE) as child:
        _, said = child.communicate()
    if not child.returncode:
        return ""
    return said.decode(errors="replace").strip() or f"exit status {child.returncode}"


def exit_code(status: int) -> int:
    """What a shell calls the end of a child: its code, or 128 and the signal that ended it."""
    return 128 - status if status < 0 else status


@contextmanager
def forwarded(send: Callable[[int], object]) -> Iterator[None]:
    """Have signals of this process handed on for the length of a ``with`` block.

    Nothing happens in other threads than the main one, where Python takes no signals.
    """

    def handle(number: int, _: Any) -> None:
        send(number)

    with ExitStack() as stack:
        with suppress(ValueError):  # not the main thread
            for one in FORWARDED:
                stack.callback(signal.signal, one, signal.signal(one, handle) or signal.SIG_DFL)
        yield


def birth(pid: int) -> str:
    """When a process was started, in ticks since the boot.

    Raises:
        FileNotFoundError: there is none.
    """
    return _fields(f"/proc/{pid}/stat")[19]


def parent(pid: int) -> int:
    """The process that waits for *pid* in the same mount namespace; 0 where there is none."""
    with suppress(*_GONE, PermissionError):  # some hosts protect process 1 from root, too
        found = int(_fields(f"/proc/{pid}/stat")[1])
        if os.path.samefile(f"/proc/{pid}/ns/mnt", f"/proc/{found}/ns/mnt"):
            return found
    return 0


def parent_with(pid: int, program: str) -> int:
    """The process that waits for *pid*, if it executes *program*; else 0."""
    with suppress(*_GONE, PermissionError):
        found = int(_fields(f"/proc/{pid}/stat")[1])
        if os.path.samefile(f"/proc/{found}/exe", program):
            return found
    return 0


def end(pid: int, *others: int) -> None:
    """Send SIGKILL to a process, and wait until it and *others*, which end with it, are gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    await_end(pid, *others)


def await_end(*pids: int) -> None:
    """Wait until processes that are ending are gone, with all that they had."""
    deadline = time.monotonic() + _LONGEST_STOP
    while any(map(_is_there, pids)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def started_with(*words: str) -> list[int]:
    """The processes whose command has all of these words."""
    wanted = {os.fsencode(word) for word in words}
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(*_GONE), open(f"/proc/{name}/cmdline", "rb") as file:
            if wanted <= {*file.read().split(b"\0")}:
                found.append(int(name))
    return found


def end_all(pids: Sequence[int]) -> None:
    """Send SIGKILL to processes and to all that they have started, and wait until they are gone."""
    doomed = [*dict.fromkeys((*pids, *_descendants(pids)))]
    for one in doomed:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    await_end(*doomed)


def _descendants(pids: Sequence[int]) -> list[int]:
    if not pids:
        return []
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(*_GONE):
            children.setdefault(int(_fields(f"/proc/{name}/stat")[1]), []).append(int(name))
    found = [*pids]
    for one in found:  # which grows meanwhile
        found += children.get(one, [])
    return found[len(pids) :]


def _is_there(pid: int) -> bool:
    """Whether a process has not ended; a zombie has given up all that it had."""
    try:
        return _fields(f"/proc/{pid}/stat")[0] not in "ZX"
    except _GONE:
        return False


def is_first_of_namespace(pid: int) -> bool:
    """Whether *pid* is process 1 of a namespace below this one."""
    try:
        with open(f"/proc/{pid}/status") as file:
            line = next((line for line in file if line.startswith("NSpid:")), "")
    except OSError:
        return False
    numbers = line.split()[1:]
    return len(numbers) > 1 and numbers[-1] == "1"


def stop_all(pid: int) -> None:
    """Send SIGSTOP to every process in the namespace of *pid*, until none is left that runs.

    Raises:
        RuntimeFailedError: new ones come as fast as they are stopped.
    """
    deadline = time.monotonic() + _LONGEST_STOP
    while running := [one for one in _members(pid) if not _is_stopped(one)]:
        for one in running:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        if time.monotonic() > deadline:
            continue_all(pid)
            raise RuntimeFailedError(
                f"the processes of process {pid}'s namespace cannot be stopped",
                resolution="stop the container instead",
            )


def continue_all(pid: int) -> None:
    """Send SIGCONT to every process in the namespace of *pid*."""
    for one in _members(pid):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGCONT)


def _members(pid: int) -> list[int]:
    try:
        namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino
    except _GONE:
        return []
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(*_GONE, PermissionError):
            if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                found.append(int(name))
    return found


def _is_stopped(pid: int) -> bool:
    """Whether every thread is stopped, or the process has ended."""
    try:
        return all(_state(pid, thread) in "TtZX" for thread in os.listdir(f"/proc/{pid}/task"))
    except _GONE:
        return True


def _state(pid: int, thread: str) -> str:
    return _fields(f"/proc/{pid}/task/{thread}/stat")[0]


def _fields(path: str) -> list[str]:
    """Those of proc_pid_stat(5) from the third on: the second may have blanks in it."""
    try:
        with open(path, "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except ProcessLookupError as error:  # it ended between the two
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
