"""What the commands share that deal with the processes of containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from storagedrivers.cli import output
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StorageDriversError

if TYPE_CHECKING:
    import argparse

    from storagedrivers.config import StorageConfig
    from storagedrivers.runtime import Runtime
    from storagedrivers.storage import Storage

SCHEMA = 1


@contextmanager
def opened_to_run(config: StorageConfig) -> Iterator[Storage]:
    """The store; what a runtime does not isolate is a warning."""
    with opened(config) as storage:
        storage.runtime.warn = output.warning
        yield storage


def each(
    arguments: argparse.Namespace,
    config: StorageConfig,
    action: Callable[[Runtime, str], object],
    *,
    exit_codes: bool = False,
) -> int:
    """Do it with every container; one that fails does not keep the others.

    Args:
        arguments: what the user wrote, ``containers`` and ``json`` of it.
        config: the settings.
        action: what it returns is printed.
        exit_codes: it returns exit codes, which the document has, too.

    Returns:
        The exit code of the program.
    """
    key, failed = ("exit_code", None) if exit_codes else ("done", False)
    documents = []
    with opened_to_run(config) as storage:
        for reference in arguments.containers:
            try:
                identity = storage.containers.get(reference).id
                answer = action(storage.runtime, reference)
            except (StorageDriversError, OSError) as error:
                output.error(error)
                documents.append({"container": reference, key: failed, "error": str(error)})
                continue
            if not arguments.json:
                output.line(str(answer))
            value = answer if exit_codes else True
            documents.append({"container": identity, key: value, "error": None})
    if arguments.json:
        output.document({"schema": SCHEMA, "containers": documents})
    return 1 if any(one["error"] is not None for one in documents) else 0


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
