"""What became of a container's process; nothing is run to know it, and little is imported."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.runtime.status import read_status

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container, ContainerStore


class Running(StrEnum):
    """What became of a container's process."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    DEAD = "dead"
    """Its monitor was killed; what may be left of it is ended by the next stop or start."""


class State(NamedTuple):
    """What is known of a container's process.

    Attributes:
        running: what became of it.
        exit_code: of the last run; None where there was none, or it goes on.
        started: seconds since 1970, or None.
        finished: seconds since 1970, or None.
        pid: the process's id on the host, or None.
        engine: what ran it: ``crun``, ``runc``, ``unshare``, or nothing yet.
        error: why it could not be started, or nothing.
    """

    running: Running
    exit_code: int | None
    started: float | None
    finished: float | None
    pid: int | None
    engine: str
    error: str


def state_of(containers: ContainerStore, container: Container) -> State:
    """The state of a container."""
    # In this order: a run that ends in between has left its status.
    running = containers.is_running(container)
    status = read_status(containers.directory(container))
    if running:
        what = Running.RUNNING
    elif status.engine and status.finished is None:
        what = Running.DEAD
    else:
        what = Running.EXITED if status.started is not None else Running.CREATED
    return State(
        running=what,
        exit_code=None if running else status.exit_code,
        started=status.started,
        finished=None if running else status.finished,
        pid=status.pid if running else None,
        engine=status.engine,
        error=status.error,
    )
