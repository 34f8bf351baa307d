"""What an engine said when it failed, and the exit code that Docker has for it."""

from __future__ import annotations

import json
import re

from storagedrivers.errors import RuntimeFailedError

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127

_ABSENT = re.compile(
    r"executable file .*not found|no such file or directory|not found in \$PATH", re.IGNORECASE
)
_REFUSED = re.compile(
    r"permission denied|operation not permitted|is a directory|exec format error", re.IGNORECASE
)
# What crun and runc say about the program itself, and not about a mount or a device.
_ABOUT_PROGRAM = re.compile(r"exec|executable", re.IGNORECASE)
_ABOUT_DIRECTORY = re.compile(r"chdir (?:to )?(?:cwd|`)")
PROGRAM = "exec "
"""What unshare's begins with then, and only then."""


class ProcessFailedError(RuntimeFailedError):
    """A process could not be started; ``exit_code`` is 125, 126 or 127."""

    def __init__(self, brief: str, code: int, *, details: str | None = None) -> None:
        super().__init__(brief, details=details, resolution=_REMEDIES.get(code))
        self.exit_code = code  # type: ignore[misc]  # of this one; the class has Docker's usual


_REMEDIES = {
    NOT_EXECUTABLE: "name a program that may be executed, for this machine",
    NOT_FOUND: "name a program that the image has, by its path or one in PATH",
}


def read_errors(path: str) -> str:
    """The engine's last error; nothing where it had none."""
    try:
        with open(path, errors="replace") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict) and fields.get("level") in ("error", "fatal"):
            return str(fields.get("msg", ""))
    return ""


def _is_about_program(engine: str, words: str) -> bool:
    if engine == "unshare":
        return words.startswith(PROGRAM)
    return _ABOUT_PROGRAM.search(words) is not None and not _ABOUT_DIRECTORY.search(words)


def failure(program: str, engine: str, words: str) -> ProcessFailedError:
    """The error for what the engine said about starting *program*."""
    if _is_about_program(engine, words):
        if _ABSENT.search(words):
            return ProcessFailedError(f"{program}: no such program", NOT_FOUND, details=words)
        if _REFUSED.search(words):
            return ProcessFailedError(
                f"{program}: cannot be executed", NOT_EXECUTABLE, details=words
            )
    return ProcessFailedError(f"{engine} could not start {program}", FAILED, details=words)
