"""One more process in a container that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.runtime import files, outcome, processes
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.spec import make_process
from storagedrivers.runtime.status import replace_file
from storagedrivers.runtime.stdio import Attached, AttachedTerminal, Stdio

if TYPE_CHECKING:
    from storagedrivers.runtime.engines import Bundle, Engine
    from storagedrivers.stores.containers import Container


class Process(NamedTuple):
    """What to run, and how; see :meth:`storagedrivers.runtime.Runtime.exec`."""

    words: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    workdir: str
    tty: bool
    interactive: bool
    detach: bool


def execute(engine: Engine, bundle: Bundle, container: Container, what: Process) -> int:
    """Run it; its exit code.

    Raises:
        RuntimeFailedError: it cannot be started.
    """
    name = os.path.join(bundle.run, f"exec-{os.urandom(8).hex()}")
    process, errors = f"{name}.json", f"{name}.errors"
    try:
        with attached(engine, bundle, interactive=what.interactive, tty=what.tty) as stdio:
            _write(container, bundle, what, process, stdio.size)
            command = engine.exec(bundle, process, stdio.words, errors=errors, detach=what.detach)
            code = _run(command, stdio)
        if failure := outcome.read_errors(errors):
            raise outcome.failure(what.words[0], engine.name, failure)
        return code
    finally:
        for path in (process, errors):
            with suppress(FileNotFoundError):
                os.unlink(path)


def attached(engine: Engine, bundle: Bundle, *, interactive: bool, tty: bool) -> Stdio:
    """This process's own standard input and output for a container's process."""
    if tty:
        return AttachedTerminal(engine.terminal(bundle), interactive=interactive)
    return Attached(interactive=interactive)


def _write(
    container: Container, bundle: Bundle, what: Process, path: str, size: tuple[int, int] | None
) -> None:
    """The document that describes the process; it has no more privileges than the first one."""
    config = {
        **container.config,
        "Env": [*(container.config.get("Env") or ()), *what.env],
        "User": what.user or container.config.get("User"),
        "WorkingDir": what.workdir or container.config.get("WorkingDir"),
        "Entrypoint": None,
        "Cmd": [*what.words],
        "Tty": what.tty,
    }
    with open(bundle.config) as file:
        running = json.load(file)
    with Rootfs(running["root"]["path"]) as rootfs:
        hostname = files.hostname(container)
        process = make_process(config, rootfs, hostname=hostname, size=size, make_directory=False)
    bounding = running["process"]["capabilities"]["bounding"]
    for kind, names in process["capabilities"].items():
        process["capabilities"][kind] = [name for name in names if name in bounding]
    replace_file(path, json.dumps(process).encode(), mode=0o600)


def _run(command: Sequence[str], stdio: Stdio) -> int:
    child = stdio.start(command)
    with processes.forwarded(child.send_signal):
        try:
            stdio.wait(child)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    return processes.exit_code(child.returncode)
