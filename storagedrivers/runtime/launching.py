"""Starts a container's first process, in a mount namespace of its own, and waits for its end."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from storagedrivers.linux import namespace
from storagedrivers.runtime import files, mounts, outcome, processes
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.spec import Place, command, make_spec
from storagedrivers.runtime.status import replace_file

if TYPE_CHECKING:
    from storagedrivers.linux.rooted import Notes
    from storagedrivers.runtime.engines import Bundle, Engine
    from storagedrivers.runtime.mounts import Wanted
    from storagedrivers.runtime.stdio import Stdio
    from storagedrivers.stores.containers import Container

_PAUSE = 0.002  # seconds between two looks for the container's process

Start = Callable[[], "subprocess.Popen[bytes]"]
"""Starts an engine; called in a thread with a mount namespace."""


class Launch:
    """One process that is to be started.

    Args:
        container: what is to run, and how.
        bundle: its files.
        engine: what runs it.
        roots: the directories of the store.
    """

    def __init__(
        self, container: Container, bundle: Bundle, engine: Engine, roots: Sequence[str]
    ) -> None:
        self._container = container
        self._bundle = bundle
        self._engine = engine
        self._roots = roots

    def prepared(
        self,
        path: str,
        paths: Mapping[str, str],
        stdio: Stdio,
        *,
        more: Sequence[Wanted] = (),
        notes: Notes | None = None,
        ready: Callable[[], object] = int,
    ) -> Start:
        """What starts the engine, in a mount namespace of its own.

        Args:
            path: where the root filesystem is mounted.
            paths: where the files of its volumes are.
            stdio: where its input and output go.
            more: what is mounted besides.
            notes: is told what is made for mounts; then the working directory is left to *ready*.
            ready: is called when all is mounted.
        """
        bundle, engine, container = self._bundle, self._engine, self._container
        hostname = files.hostname(container)
        own = files.write(bundle.directory, container.config, hostname)
        wanted = mounts.Mounts(container, own, self._roots, more)
        cgroup = engine.cgroup(bundle)
        with Rootfs(path) as rootfs:
            place = Place(hostname, wanted.targets, cgroup, stdio.size)
            document = make_spec(container.config, rootfs, place, make_directory=notes is None)
        if wanted.propagation:
            document["linux"]["rootfsPropagation"] = wanted.propagation
        document["hooks"] = engine.hooks(bundle, path)
        where = mounts.Where(
            path,
            bundle.stage,
            document["process"]["cwd"] if notes is None else "/",
            engine.keeps_propagation,
            devices=cgroup is not None,
            needed=(bundle.directory, bundle.run, engine.program),
            notes=notes,
        )

        def start() -> subprocess.Popen[bytes]:
            os.chdir("/")  # of this thread alone; the directory's mount would be kept, or is gone
            left = mounts.assemble(wanted, paths, where)
            ready()
            document["mounts"] = mounts.by_depth([*document["mounts"], *left])
            replace_file(bundle.config, json.dumps(document).encode(), mode=0o600)
            return stdio.start(engine.run(bundle, stdio.words))

        return start

    def run(
        self,
        start: Start,
        stdio: Stdio,
        started: Callable[[int], object] = int,
        *,
        forward: bool = True,
    ) -> int:
        """Start it, and wait for its end; its exit code.

        Args:
            start: what :meth:`prepared` gave.
            stdio: the same as there.
            started: gets the id of the process once it is there.
            forward: signals of this process go to it meanwhile, if this is the main thread.

        Raises:
            RuntimeFailedError: it cannot be started.
        """
        bundle, engine = self._bundle, self._engine
        children: list[subprocess.Popen[bytes]] = []
        early: list[int] = []

        def send(number: int) -> None:
            if not children:
                early.append(number)
            elif os.path.exists(bundle.birth):
                engine.kill(bundle, number)
            else:  # not there yet: the engine gives up
                children[0].send_signal(number)

        with processes.forwarded(send) if forward else nullcontext():
            try:
                namespace.in_own_mount_namespace(lambda: children.append(start()))
                for number in early:
                    send(number)
                self._await_start(children[0], started)
                stdio.wait(children[0])
            finally:
                for child in children:
                    if child.poll() is None:
                        processes.end_all([child.pid])
                        child.wait()
        if words := outcome.read_errors(bundle.errors):
            raise outcome.failure(command(self._container.config)[0], engine.name, words)
        return processes.exit_code(children[0].returncode)

    def _await_start(
        self, child: subprocess.Popen[bytes], started: Callable[[int], object]
    ) -> None:
        """Wait until the container has a process, or the engine has ended."""
        while not (pid := _read_number(self._bundle.pid_file)):
            if child.poll() is not None:
                return
            time.sleep(_PAUSE)
        try:
            birth = processes.birth(pid)
        except FileNotFoundError:  # it was quick
            birth = ""
        replace_file(self._bundle.birth, birth.encode(), mode=0o600)
        started(pid)

    def forget(self) -> None:
        """End what is left of it."""
        self._engine.delete(self._bundle)
        forget_process(self._bundle)


def forget_process(bundle: Bundle) -> None:
    """Delete the files that say which process it was."""
    for path in (bundle.birth, bundle.pid_file, bundle.errors):
        with suppress(FileNotFoundError):
            os.unlink(path)
    with suppress(OSError):
        os.rmdir(bundle.stage)


def _read_number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read() or 0)
    except (FileNotFoundError, ValueError):
        return 0
