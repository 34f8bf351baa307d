"""Looks after one run of a container, from its mount to its unmount.

::

    lock ─▶ mount ─▶ hold volumes ─▶ config.json ─▶ engine ─▶ … ─▶ status.json ─▶ let go of volumes
    ─▶ unmount ─▶ unlock ─▶ (remove)

That is done by whoever waits for the container: the program itself, or a monitor where nobody
waits. It holds the lock ``<run root>/containers/<id>/monitor``, which the kernel drops with it: so
a run whose monitor was killed is known, and the next start clears it away.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import (
    ContainerRunningError,
    InUseError,
    NotFoundError,
    RuntimeFailedError,
    StorageDriversError,
    UnmountError,
)
from storagedrivers.linux import namespace
from storagedrivers.runtime import engines, files, mounts, outcome, processes
from storagedrivers.runtime.engines import Bundle
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.spec import Place, command, make_spec
from storagedrivers.runtime.status import LOST, Status, read_status, replace_file, write_status
from storagedrivers.runtime.stdio import Stdio
from storagedrivers.stores import locks, sources
from storagedrivers.stores.container_mounts import mounts_of

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container, ContainerStore

_PAUSE = 0.002  # seconds between two looks for the container's process


def bundle_of(containers: ContainerStore, container: Container) -> Bundle:
    """Where the container's files are. The directory that dies with the boot may not be there."""
    run = containers.run_directory(container)
    return Bundle(container.id, containers.directory(container), run)


def made_bundle(containers: ContainerStore, container: Container) -> Bundle:
    """The same, with both directories; of a container that is removed meanwhile nothing is made.

    Raises:
        NotFoundError: it is gone.
        ReadOnlyError: the store was opened for reading only.
    """
    with containers.locked(container):
        bundle = bundle_of(containers, containers.get(container.id))
        os.makedirs(bundle.run, mode=0o700, exist_ok=True)
        return bundle


def run(
    containers: ContainerStore,
    container: Container,
    stdio: Stdio,
    *,
    started: Callable[[], object] = int,
) -> int:
    """Run the container until it ends; its exit code.

    Args:
        containers: the store.
        container: what is to run.
        stdio: where its input and output go.
        started: is called once its process is there.

    Raises:
        ContainerRunningError: it runs already.
        RuntimeFailedError: it cannot be started. What Docker leaves is left: the container.
    """
    container, lock = _take(containers, container)
    bundle = bundle_of(containers, container)
    remove = bool(container.config.get("AutoRemove"))
    try:
        clear(containers, container)
        session = _Session(containers, container, bundle)
        code = session.run(stdio, started)
    finally:
        lock.release()
        if remove:
            with suppress(NotFoundError, ContainerRunningError):
                containers.remove(container.id)
    return code


def _take(containers: ContainerStore, container: Container) -> tuple[Container, locks.Lock]:
    """The lock of the one who looks after it."""
    with containers.locked(container):
        container = containers.get(container.id)
        lock = locks.try_lock(os.path.join(made_bundle(containers, container).run, "monitor"))
    if lock is None:
        raise ContainerRunningError(
            f"container {container.name} is running",
            resolution=f"stop it first: storagedrivers stop {container.name}",
        )
    return container, lock


def clear(containers: ContainerStore, container: Container) -> None:
    """End what is left of a run whose monitor was killed. The caller has made sure that it is none
    that goes on.
    """
    bundle = bundle_of(containers, container)
    status = read_status(bundle.directory)
    if status.engine and status.finished is None:
        with suppress(RuntimeFailedError):  # an engine that is gone, after the boot as a rule
            engines.choose(status.engine).delete(bundle)
        write_status(
            bundle.directory,
            status._replace(finished=time.time(), exit_code=LOST, error="its monitor was killed"),
        )
        with suppress(NotFoundError):  # it died before it mounted, or with the boot
            containers.unmount(container.id)
    _forget_process(bundle)


def _forget_process(bundle: Bundle) -> None:
    for path in (bundle.birth, bundle.pid_file, bundle.errors):
        with suppress(FileNotFoundError):
            os.unlink(path)
    with suppress(OSError):
        os.rmdir(bundle.stage)


class _Session:
    """One run."""

    def __init__(self, containers: ContainerStore, container: Container, bundle: Bundle) -> None:
        self._containers = containers
        self._container = container
        self._bundle = bundle
        self._program = command(container.config)[0]
        self._engine = engines.choose(container.config.get("Runtime") or None)
        self._status = Status(engine=self._engine.name)
        self._problem = ""

    def run(self, stdio: Stdio, started: Callable[[], object]) -> int:
        bundle = self._bundle
        exit_fd = _new_file(os.path.join(bundle.run, "exit"))
        try:
            write_status(bundle.directory, self._status)
            code = self._run_mounted(stdio, started)
            self._finish(exit_fd, code, self._problem)
        except (StorageDriversError, OSError) as error:
            with suppress(OSError):  # a full disk may be what it is about
                self._finish(exit_fd, getattr(error, "exit_code", outcome.FAILED), str(error))
            raise
        finally:
            os.close(exit_fd)
        return code

    def _run_mounted(self, stdio: Stdio, started: Callable[[], object]) -> int:
        store, wanted = self._containers, mounts_of(self._container)
        with self._mounted() as path, sources.held(store.volumes, wanted) as paths:
            start = self._prepared(path, paths, stdio)
            try:
                return self._run_engine(start, stdio, started)
            finally:
                self._engine.delete(self._bundle)
                _forget_process(self._bundle)

    def _prepared(
        self, path: str, paths: Mapping[str, str], stdio: Stdio
    ) -> Callable[[], subprocess.Popen[bytes]]:
        """What starts the engine, in a mount namespace of its own."""
        bundle, engine, container = self._bundle, self._engine, self._container
        hostname = files.hostname(container)
        own = files.write(bundle.directory, container.config, hostname)
        layers = self._containers.layers
        wanted = mounts.Mounts(container, own, (layers.root, layers.run_root))
        cgroup = engine.cgroup(bundle)
        with Rootfs(path) as rootfs:
            place = Place(hostname, wanted.targets, cgroup, stdio.size)
            document = make_spec(container.config, rootfs, place)
        if wanted.propagation:
            document["linux"]["rootfsPropagation"] = wanted.propagation
        document["hooks"] = engine.hooks(bundle, path)
        where = mounts.Where(
            path,
            bundle.stage,
            document["process"]["cwd"],
            engine.keeps_propagation,
            devices=cgroup is not None,
            needed=(bundle.directory, bundle.run, engine.program),
        )

        def start() -> subprocess.Popen[bytes]:
            os.chdir("/")  # of this thread alone; the directory's mount would be kept, or is gone
            left = mounts.assemble(wanted, paths, where)
            document["mounts"] = mounts.by_depth([*document["mounts"], *left])
            replace_file(bundle.config, json.dumps(document).encode(), mode=0o600)
            return stdio.start(engine.run(bundle, stdio.words))

        return start

    @contextmanager
    def _mounted(self) -> Iterator[str]:
        path = os.fspath(self._containers.mount(self._container.id))
        try:
            yield path
        finally:
            try:
                self._containers.unmount(self._container.id)
            except (InUseError, UnmountError) as error:
                # Somebody else is in there; that changes nothing of how it ended.
                self._problem = str(error)

    def _run_engine(
        self,
        start: Callable[[], subprocess.Popen[bytes]],
        stdio: Stdio,
        started: Callable[[], object],
    ) -> int:
        bundle, engine = self._bundle, self._engine
        child: subprocess.Popen[bytes] | None = None
        early: list[int] = []

        def send(number: int) -> None:
            if child is None:
                early.append(number)
            elif os.path.exists(bundle.birth):
                engine.kill(bundle, number)
            else:  # not there yet: the engine gives up
                child.send_signal(number)

        with processes.forwarded(send):
            child = namespace.in_own_mount_namespace(start)
            try:
                for number in early:
                    send(number)
                self._await_start(child, started)
                stdio.wait(child)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        if words := outcome.read_errors(bundle.errors):
            raise outcome.failure(self._program, engine.name, words)
        return processes.exit_code(child.returncode)

    def _await_start(self, child: subprocess.Popen[bytes], started: Callable[[], object]) -> None:
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
        self._status = self._status._replace(started=time.time(), pid=pid)
        write_status(self._bundle.directory, self._status)
        started()

    def _finish(self, exit_fd: int, code: int, error: str) -> None:
        os.pwrite(exit_fd, b"%d\n" % code, 0)
        status = self._status._replace(finished=time.time(), exit_code=code, error=error, pid=None)
        write_status(self._bundle.directory, status, durable=True)


def _new_file(path: str) -> int:
    """A file that nobody has open, for writing."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _read_number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read() or 0)
    except (FileNotFoundError, ValueError):
        return 0
