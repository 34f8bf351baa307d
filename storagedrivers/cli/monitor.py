"""The program of a monitor, which looks after a container that runs detached.

::

    python -m storagedrivers.cli.monitor ROOT RUN_ROOT CONTAINER FD

It says on the descriptor FD whether the container could be started; see
:mod:`storagedrivers.runtime.monitor`.
"""

from __future__ import annotations

import gc
import os
import sys

from storagedrivers.runtime import monitor
from storagedrivers.storage import Storage


def main(root: str, run_root: str, container: str, answer_fd: str) -> None:
    """Look after a container until it ends."""
    gc.disable()  # it allocates next to nothing
    monitor.detach()
    monitor.look_after(
        lambda: Storage.open(root=root, run_root=run_root).containers, container, int(answer_fd)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
