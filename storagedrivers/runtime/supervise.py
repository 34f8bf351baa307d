"""Looks after one run of a container, from its mount to its unmount.

::

    lock ─▶ mount ─▶ hold volumes ─▶ config.json ─▶ engine ─▶ … ─▶ status.json ─▶ let go of volumes
    ─▶ unmount ─▶ unlock ─▶ (remove)

That is done by whoever waits for the container: the program itself, or a monitor where nobody
waits. It holds the lock ``<run root>/containers/<id>/monitor``, which the kernel drops with it: so
a run whose monitor was killed is known, and the next start clears it away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
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
from storagedrivers.runtime import engines, outcome, processes
from storagedrivers.runtime.engines import Bundle
from storagedrivers.runtime.launching import Launch, forget_process
from storagedrivers.runtime.spec import command
from storagedrivers.runtime.status import LOST, Status, read_status, write_status
from storagedrivers.runtime.stdio import Stdio
from storagedrivers.stores import locks, sources
from storagedrivers.stores.container_mounts import mounts_of

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container, ContainerStore


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
            engine = engines.choose(status.engine)
            if os.path.isdir(bundle.rootfs):  # of a build: it may not even be started
                processes.end_all(engine.running(bundle))
            engine.delete(bundle)
        write_status(
            bundle.directory,
            status._replace(finished=time.time(), exit_code=LOST, error="its monitor was killed"),
        )
        with suppress(NotFoundError):  # it died before it mounted, or with the boot
            containers.unmount(container.id)
    forget_process(bundle)


class _Session:
    """One run."""

    def __init__(self, containers: ContainerStore, container: Container, bundle: Bundle) -> None:
        self._containers = containers
        self._container = container
        self._bundle = bundle
        command(container.config)  # before anything is mounted
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
        store, container = self._containers, self._container
        roots = (store.layers.root, store.layers.run_root)
        launch = Launch(container, self._bundle, self._engine, roots)

        def noted(pid: int) -> None:
            self._status = self._status._replace(started=time.time(), pid=pid)
            write_status(self._bundle.directory, self._status)
            started()

        with self._mounted() as path, sources.held(store.volumes, mounts_of(container)) as paths:
            start = launch.prepared(path, paths, stdio)
            try:
                return launch.run(start, stdio, noted)
            finally:
                launch.forget()

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

    def _finish(self, exit_fd: int, code: int, error: str) -> None:
        os.pwrite(exit_fd, b"%d\n" % code, 0)
        status = self._status._replace(finished=time.time(), exit_code=code, error=error, pid=None)
        write_status(self._bundle.directory, status, durable=True)


def _new_file(path: str) -> int:
    """A file that nobody has open, for writing."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
