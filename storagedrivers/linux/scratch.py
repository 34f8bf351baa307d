"""A directory for a moment: to try something on a filesystem and leave no trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storagedrivers.linux import tree

SCRATCH = ".storagedrivers-scratch-"
"""What their names begin with; the process's id follows."""


@contextmanager
def scratch_directory(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a directory (0700) with a name of its own below *parent*, and remove it with all it
    holds.

    Raises:
        OSError: it cannot be made there (EACCES, EROFS, ENOSPC, …).
    """
    name = f"{SCRATCH}{os.getpid()}-{os.urandom(6).hex()}"
    with tree.opened_directory(parent, follow_symlinks=True) as parent_fd:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
        try:
            yield Path(parent, name)
        finally:
            tree.remove_tree(parent_fd, name)


def remove_scratch_of(process: int, parent: str | os.PathLike[str]) -> None:
    """Remove what *process*, which was killed, has left below *parent*.

    Raises:
        OSError: something cannot be removed.
    """
    prefix = f"{SCRATCH}{process}-"
    try:
        with tree.opened_directory(parent, follow_symlinks=True) as parent_fd:
            for name in os.listdir(parent_fd):
                if name.startswith(prefix):
                    tree.remove_tree(parent_fd, name)
    except FileNotFoundError:
        return
