"""What is known of a container's last run: ``status.json``, and the file that waiters have open.

::

    <graph root>/containers/<id>/status.json    survives the boot
    <run root>/containers/<id>/monitor          the lock of who looks after the running container
    <run root>/containers/<id>/exit             empty, then the exit code; read by who has opened it
                                                before a container with --rm is removed
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any, NamedTuple

from storagedrivers.stores.mounts import boot_id

LOST = 255
"""The exit code of a run whose end nobody saw: its monitor was killed, or the machine stopped."""


class Status(NamedTuple):
    """A container's last run.

    Attributes:
        started: when its process was started, in seconds since 1970; None where it never was.
        finished: when it ended; None as long as it runs.
        exit_code: the process's, or 125, 126, 127 where it could not be started.
        pid: its id on the host.
        engine: what ran it.
        error: why it could not be started, or what went wrong at its end.
        boot: the boot in which that was.
    """

    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    pid: int | None = None
    engine: str = ""
    error: str = ""
    boot: str = ""


def read_status(directory: str) -> Status:
    """The status of the container with this directory; an empty one where it never ran."""
    try:
        with open(os.path.join(directory, "status.json"), "rb") as file:
            values: Any = json.load(file)
    except (OSError, ValueError):
        return Status()
    if not isinstance(values, dict):
        return Status()
    known = {key: value for key, value in values.items() if key in Status._fields}
    return Status(**known)


def write_status(directory: str, status: Status, *, durable: bool = False) -> None:
    """Replace the status.

    Args:
        directory: the container's.
        status: the new one; the boot is filled in.
        durable: it is on the disk when this returns.
    """
    document = json.dumps({**status._asdict(), "boot": boot_id()}).encode()
    replace_file(os.path.join(directory, "status.json"), document, mode=0o600, durable=durable)
    if not durable:
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: str, content: bytes, *, mode: int, durable: bool = False) -> None:
    """Write a file under another name, and give it its name once it is whole."""
    temporary = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)  # whatever the umask is
            file.write(content)
            file.flush()
            if durable:
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
