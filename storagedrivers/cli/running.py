"""What the commands share that deal with the processes of containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from storagedrivers.cli import output
from storagedrivers.cli.layer import opened
from storagedrivers.errors import StorageDriversError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.runtime import Runtime
    from storagedrivers.storage import Storage

REFERENCE = "its name, its id, or the beginning of that"


@contextmanager
def opened_to_run(config: StorageConfig) -> Iterator[Storage]:
    """The store; what a runtime does not isolate is a warning."""
    with opened(config) as storage:
        storage.runtime.warn = output.warning
        yield storage


def each(
    config: StorageConfig, references: Sequence[str], action: Callable[[Runtime, str], object]
) -> int:
    """Do it with every container; one that fails does not keep the others.

    Args:
        config: the settings.
        references: the containers.
        action: what it returns is printed.

    Returns:
        The exit code of the program.
    """
    code = 0
    with opened_to_run(config) as storage:
        for reference in references:
            try:
                answer = action(storage.runtime, reference)
            except (StorageDriversError, OSError) as error:
                output.error(error)
                code = 1
                continue
            output.line(str(answer))
    return code


def check_terminal(*, tty: bool, interactive: bool) -> None:
    """Refuse to give a terminal to what reads from something else.

    Raises:
        StorageDriversError: standard input is no terminal.
    """
    import os

    if tty and interactive and not os.isatty(0):
        raise StorageDriversError(
            "standard input is no terminal, and -it asks for one",
            resolution="leave -t out to read from a pipe or a file",
        )
