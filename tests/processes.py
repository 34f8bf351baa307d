"""Child processes of tests."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


def forked(action: Callable[[], object], *, user: int | None = None) -> int:
    """Start a child that runs *action* and exits with 0, or prints a traceback and exits with 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking where there are threads: the child uses none
        pid = os.fork()
    if pid:
        return pid
    try:
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def succeeded(pid: int) -> bool:
    """Whether a child ended with 0; waits for it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@contextmanager
def child(code: str, *arguments: object, prefix: Sequence[str] = ()) -> Iterator[int]:
    """A Python process that runs *code* and then waits until it is told to end; gives its pid."""
    words = [*prefix, sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"]
    with subprocess.Popen(
        [*words, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.stdin.write("\n")
            process.stdin.close()
