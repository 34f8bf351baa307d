"""Runtime: starts the processes of containers, and deals with those that run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import ContainerError, RuntimeFailedError
from storagedrivers.runtime.state import Running, State, state_of
from storagedrivers.runtime.status import LOST, read_status

if TYPE_CHECKING:
    from storagedrivers.runtime.engines import Bundle, Engine
    from storagedrivers.runtime.logs import Entry
    from storagedrivers.stores.containers import Container, ContainerStore

__all__ = ["Running", "Runtime", "State"]

STOP_TIMEOUT = 10.0
"""Seconds between the polite signal and SIGKILL."""

_LONGEST_KILL = 20.0  # seconds from SIGKILL to the end of the monitor
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05


class Runtime:
    """Runs containers of one store.

    Args:
        containers: the store.

    Attributes:
        warn: takes what the engine of a container that is started does not isolate, and what an
            image asks for in vain; by default nobody does.
    """

    def __init__(self, containers: ContainerStore) -> None:
        self._containers = containers
        self.warn: Callable[[str], object] | None = None

    # Starting

    def run(self, reference: str, *, interactive: bool = False) -> int:
        """Start a container with this process's output as its own, and wait for its end.

        With a ``Tty`` it gets a terminal, shown in this process's. Signals of this process go to
        the container's first process meanwhile, if this is the main thread.

        Args:
            reference: the container's name, id or the beginning of that.
            interactive: this process's standard input is the container's.

        Returns:
            The exit code of its first process; 128 and the signal that ended it.

        Raises:
            ContainerRunningError: it runs already.
            RuntimeFailedError: it cannot be started; ``exit_code`` is 125, or 126 where the program
                cannot be executed, or 127 where there is none.
            InvalidMountError, VolumeError: what is to be mounted is not there, or cannot be.
            ReadOnlyError: the store was opened for reading only.
        """
        from storagedrivers.runtime import executing, supervise

        container = self._containers.get(reference)
        engine = self._engine_of(container)
        bundle = supervise.made_bundle(self._containers, container)
        self._make_sources(container)
        tty = bool(container.config.get("Tty"))
        with executing.attached(engine, bundle, interactive=interactive, tty=tty) as stdio:
            return supervise.run(self._containers, container, stdio)

    def start(self, reference: str) -> None:
        """Start a container, and leave it to a monitor, which outlives this process.

        Its output goes to its log.

        Raises:
            ContainerRunningError, RuntimeFailedError, InvalidMountError, VolumeError,
                ReadOnlyError: as :meth:`run`.
        """
        from storagedrivers.runtime import monitor, supervise

        container = self._containers.get(reference)
        # The monitor opens the store for itself: what this one was opened for must not be lost.
        supervise.made_bundle(self._containers, container)
        self._engine_of(container)
        self._make_sources(container)
        layers = self._containers.layers
        monitor.launch(container, os.fspath(layers.root), os.fspath(layers.run_root))

    def _make_sources(self, container: Container) -> None:
        if container.config.get("Mounts"):
            from storagedrivers.stores import container_mounts, sources

            sources.make_missing(container_mounts.mounts_of(container), self.warn)

    def _engine_of(self, container: Container) -> Engine:
        """The one that a container is started with; its warning is given."""
        from storagedrivers.runtime import engines

        engine = engines.choose(container.config.get("Runtime") or None)
        if engine.warning and self.warn is not None:
            self.warn(engine.warning)
        return engine

    # One more process

    def exec(
        self,
        reference: str,
        words: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        tty: bool = False,
        interactive: bool = False,
        detach: bool = False,
    ) -> int:
        """Run one more process in a running container; its exit code, or 0 at once if detached.

        Args:
            reference: the container.
            words: the program and its arguments.
            env: ``NAME=VALUE``, in addition to the container's.
            user: instead of the container's.
            workdir: instead of the container's.
            tty: it gets a terminal.
            interactive: this process's standard input is its own.
            detach: do not wait for it; its output is lost.

        Raises:
            ContainerError: the container does not run.
            RuntimeFailedError: the process cannot be started.
        """
        from storagedrivers.runtime import executing

        what = executing.Process(
            tuple(words), tuple(env), user, workdir, tty and not detach, interactive, detach
        )
        container = self._containers.get(reference)
        engine, bundle = self._running(container)
        return executing.execute(engine, bundle, container, what)

    # Ending

    def kill(self, reference: str, number: int | str = signal.SIGKILL) -> None:
        """Send a signal to the container's first process.

        Args:
            reference: the container.
            number: the signal, or its name.

        Raises:
            ContainerError: it does not run.
        """
        from storagedrivers.runtime.signals import signal_number

        engine, bundle = self._running(self._containers.get(reference))
        engine.kill(bundle, signal_number(number))

    def stop(self, reference: str, *, timeout: float = STOP_TIMEOUT) -> None:
        """End a container: its StopSignal (SIGTERM), and SIGKILL after *timeout* seconds.

        A StopSignal that is none is a warning. What is left of one whose monitor was killed is
        cleared away. Nothing happens where it does not run.

        Raises:
            RuntimeFailedError: it does not end.
        """
        container = self._containers.get(reference)
        if self._containers.is_running(container):
            self._kill(container, self._stop_signal(container))
            if self._has_ended(container, timeout):
                return
        self.end(container)

    def _stop_signal(self, container: Container) -> int:
        from storagedrivers.runtime.signals import signal_number

        wanted = container.config.get("StopSignal")
        try:
            return signal_number(wanted or signal.SIGTERM)
        except ContainerError:  # of an image: nobody can do anything about it now
            if self.warn is not None:
                self.warn(
                    f"the StopSignal of container {container.name}, {wanted!r}, is no signal:"
                    " SIGTERM is sent instead"
                )
            return signal.SIGTERM

    def end(self, container: Container) -> None:
        """End a container at once, and clear away what is left of one whose monitor was killed.

        Raises:
            RuntimeFailedError: it does not end.
        """
        from storagedrivers.runtime import supervise

        if not self._containers.is_running(container):
            with self._containers.locked(container):
                if not self._containers.is_running(container):
                    supervise.clear(self._containers, container)
            return
        self._kill(container, signal.SIGKILL)
        if not self._has_ended(container, _LONGEST_KILL):
            raise RuntimeFailedError(
                f"container {container.name} does not end, not even by SIGKILL",
                resolution="see what its processes wait for: dmesg, /proc/PID/stack",
            )

    def _kill(self, container: Container, number: int) -> None:
        """Send a signal, unless it has ended meanwhile."""
        with suppress(ContainerError):
            engine, bundle = self._running(container)
            engine.thaw(bundle)  # somebody who was killed may have left it paused
            engine.kill(bundle, number)

    def wait(self, reference: str) -> int:
        """Wait until a container has ended; its exit code, 0 where it never ran."""
        container = self._containers.get(reference)
        directory = self._containers.run_directory(container)
        with suppress(FileNotFoundError), open(os.path.join(directory, "exit")) as file:
            self._await_unlocked(container)
            # It can be read when the container is gone.
            return int(file.read() or LOST)
        return read_status(self._containers.directory(container)).exit_code or 0

    def _await_unlocked(self, container: Container) -> None:
        from storagedrivers.linux import syscalls

        lock = os.path.join(self._containers.run_directory(container), "monitor")
        with suppress(FileNotFoundError):
            fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.flock(fd, syscalls.LOCK_SH)
            finally:
                os.close(fd)

    def _has_ended(self, container: Container, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while self._containers.is_running(container):
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return True

    # Looking

    def state(self, reference: str) -> State:
        """What became of a container's process; no program is run for that."""
        return self.state_of(self._containers.get(reference))

    def state_of(self, container: Container) -> State:
        """The same, of a container that was looked up."""
        return state_of(self._containers, container)

    def logs(
        self,
        reference: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
    ) -> Iterator[Entry]:
        """What a container wrote when it ran detached, the oldest first.

        Args:
            reference: the container.
            follow: go on until it has ended.
            tail: only so many of the lines that are there.
            since: only later ones, in seconds since 1970.
        """
        from storagedrivers.runtime.logs import read_log

        container = self._containers.get(reference)
        path = os.path.join(self._containers.directory(container), "log.json")
        more = (lambda: self._containers.is_running(container)) if follow else None
        return read_log(path, tail=tail, since=since, follow=more)

    @contextmanager
    def paused(self, container: Container) -> Iterator[None]:
        """Have a container's processes stand still for the length of a ``with`` block.

        Nothing happens where it does not run.

        Raises:
            RuntimeFailedError: they cannot be stopped.
        """
        if not self._containers.is_running(container):
            yield
            return
        engine, bundle = self._running(container)
        try:
            engine.freeze(bundle)
            yield
        finally:
            with suppress(RuntimeFailedError):  # it was killed meanwhile
                engine.thaw(bundle)

    def _running(self, container: Container) -> tuple[Engine, Bundle]:
        """What a container runs with.

        Raises:
            ContainerError: it does not run.
        """
        from storagedrivers.runtime import engines, supervise

        bundle = supervise.bundle_of(self._containers, container)
        deadline = time.monotonic() + _LONGEST_KILL
        # Between the lock and the process there is a mount and the start of a program.
        while self._containers.is_running(container) and time.monotonic() < deadline:
            if os.path.exists(bundle.birth):
                return engines.choose(read_status(bundle.directory).engine), bundle
            time.sleep(_FIRST_PAUSE)
        raise ContainerError(
            f"container {container.name} is not running",
            resolution=f"start it: storagedrivers start {container.name}",
        )
