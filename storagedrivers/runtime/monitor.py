"""Monitors: processes that look after containers when nobody else waits for them.

A monitor is a program of its own, started anew: it shares no descriptor, lock or connection with
the process that wanted the container, and nothing of its life.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from storagedrivers.errors import (
    ContainerRunningError,
    InvalidMountError,
    NotFoundError,
    RuntimeFailedError,
    StorageDriversError,
    VolumeError,
)
from storagedrivers.runtime import engines, supervise
from storagedrivers.runtime.outcome import ProcessFailedError
from storagedrivers.runtime.stdio import Logged, LoggedTerminal, Stdio

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container, ContainerStore

MODULE = "storagedrivers.cli.monitor"
"""The program; it opens the store, which nothing here can."""


def launch(container: Container, root: str, run_root: str) -> None:
    """Start a monitor, and wait until the container's process is there.

    Raises:
        ContainerRunningError, NotFoundError, RuntimeFailedError, InvalidMountError, VolumeError:
            what the monitor met.
    """
    reader, writer = os.pipe()
    words = [sys.executable, "-P", "-m", MODULE, root, run_root, container.id, str(writer)]
    try:
        with open(reader, "rb") as answer:
            try:
                # A session of its own: the end of this one's terminal is not its end.
                child = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(writer,),
                    cwd="/",
                    start_new_session=True,
                )
            finally:
                os.close(writer)
            with child:
                _, complaint = child.communicate()  # it forks, and this is its first process
                said = answer.read()
    except OSError as error:
        raise RuntimeFailedError(f"no monitor can be started: {error.strerror}") from error
    if not said:
        raise RuntimeFailedError(
            f"the monitor of container {container.name} ended before it did anything",
            details=complaint.decode(errors="replace").strip() or None,
        )
    _raise_what(json.loads(said))


_ERRORS: dict[str, type[StorageDriversError]] = {
    one.__name__: one
    for one in (
        *(ContainerRunningError, NotFoundError, RuntimeFailedError),
        *(InvalidMountError, VolumeError),
    )
}


def _raise_what(answer: dict[str, str | int | None]) -> None:
    if "brief" not in answer:
        return
    brief, details = str(answer["brief"]), answer["details"]
    resolution = None if answer["resolution"] is None else str(answer["resolution"])
    code = int(answer["exit_code"] or 0)
    kind = _ERRORS.get(str(answer["kind"]))
    if kind is None:
        error: StorageDriversError = ProcessFailedError(brief, code)
    else:
        error = kind(brief, resolution=resolution)
    error.details = None if details is None else str(details)
    error.resolution = resolution
    raise error


def detach() -> None:
    """Leave the process that started this one: a second one goes on, which is nobody's child."""
    if os.fork():
        os._exit(0)
    # Only now: what the first one had to say is heard until it ends.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def look_after(open_store: Callable[[], ContainerStore], identity: str, answer_fd: int) -> None:
    """Run a container until it ends, and say on *answer_fd* whether it could be started."""
    with open(answer_fd, "wb") as file:

        def answer(**words: object) -> None:
            if not file.closed:
                file.write(json.dumps(words).encode())
                file.close()

        try:
            containers = open_store()
            container = containers.get(identity)
            with _logged(containers, container) as stdio:
                supervise.run(containers, container, stdio, started=answer)
            answer()
        except StorageDriversError as error:
            answer(
                kind=type(error).__name__,
                brief=error.brief,
                details=error.details,
                resolution=error.resolution,
                exit_code=error.exit_code,
            )
        except Exception as error:  # nobody else would ever hear of it
            answer(
                kind=RuntimeFailedError.__name__,
                brief=f"the monitor failed: {error}",
                details=traceback.format_exc(),
                resolution=None,
                exit_code=RuntimeFailedError.exit_code,
            )


def _logged(containers: ContainerStore, container: Container) -> Stdio:
    bundle = supervise.made_bundle(containers, container)
    path = os.path.join(bundle.directory, "log.json")
    if container.config.get("Tty"):
        engine = engines.choose(container.config.get("Runtime") or None)
        return LoggedTerminal(engine.terminal(bundle), path)
    return Logged(path, keep_input=bool(container.config.get("OpenStdin")))
