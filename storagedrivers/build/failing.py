"""Where in a Dockerfile a build failed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from storagedrivers.dockerfile.faults import printable
from storagedrivers.errors import BuildError

if TYPE_CHECKING:
    from storagedrivers.dockerfile.instructions import Dockerfile, Instruction
    from storagedrivers.errors import StorageDriversError

_AROUND = 2  # lines before and behind
_MOST = 12  # lines of the instruction itself
_WIDEST = 100  # characters of a line


def locate(error: StorageDriversError, dockerfile: Dockerfile, instruction: Instruction) -> None:
    """Have an error say where it happened; one that comes from another stage says so already."""
    where = f"{dockerfile.name}:\n"
    if getattr(error, "line", 0) or not instruction.line or where in (error.details or ""):
        return
    if isinstance(error, BuildError):
        error.line = instruction.line
    lines = excerpt(dockerfile, instruction)
    error.details = f"{error.details}\n{lines}" if error.details else lines


def failure(error: OSError) -> BuildError:
    """What the kernel refused a step, told with its remedy."""
    words = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    remedy = None
    if error.errno == errno.ENOSPC:
        remedy = "make room where the store is: storagedrivers cache prune, storagedrivers gc"
    elif error.errno in (errno.EPERM, errno.EACCES):
        remedy = (
            "only root gives files to others: build as root, or below unshare --user"
            " --map-root-user --mount, or give them to yourself: --chown=UID:GID"
        )
    return BuildError(f"the step failed: {words}", resolution=remedy)


def excerpt(dockerfile: Dockerfile, instruction: Instruction) -> str:
    """The lines of an instruction and around it, with their numbers; its own are marked."""
    first, last = instruction.line, min(instruction.last_line, instruction.line + _MOST - 1)
    begin, end = max(first - _AROUND, 1), min(last + _AROUND, len(dockerfile.lines))
    width = len(str(end))
    shown = [f"{dockerfile.name}:"]
    for number in range(begin, end + 1):
        mark = "→" if first <= number <= last else " "
        text = printable(dockerfile.lines[number - 1].rstrip("\r\n").expandtabs(4))
        cut = text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"
        shown.append(f"{mark} {number:>{width}} | {cut}".rstrip())
    return "\n".join(shown)
