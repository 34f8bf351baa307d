"""What every union of two lower directories must be able to do, tried by drivers' probes."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def make_lowers(one: Path, two: Path) -> None:
    """Make two lower directories: a file, and a directory that both have."""
    for lower in (one, two):
        (lower / "gone").mkdir(parents=True)
    (one / "gone/child").touch()
    (two / "file").touch()


def delete_and_list(merged: Path) -> str:
    """Delete what the lowers hold, make the directory anew and list; what is wrong, or nothing.

    Mounting is not enough: some filesystems mount, and fail or show deleted names later.
    """
    try:
        (merged / "file").unlink()
        (merged / "gone/child").unlink()
        (merged / "gone").rmdir()
        (merged / "gone").mkdir()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # says nothing about the union
        return f"deleting in it failed: {os.strerror(error.errno or 0)}"
    if os.listdir(merged) != ["gone"] or os.listdir(merged / "gone"):
        return "deleted names stay visible in it"
    return ""
