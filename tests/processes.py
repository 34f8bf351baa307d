"""Child processes of tests."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable


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
