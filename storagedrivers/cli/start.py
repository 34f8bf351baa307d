"""Start containers that are there; one that runs already goes on."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from storagedrivers.cli import nouns, running
from storagedrivers.errors import ContainerRunningError, StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.runtime import Runtime


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("-a", "--attach", action="store_true", help="show its output, and wait for its end")
    add("-i", "--interactive", action="store_true", help="give it standard input, and wait")
    add("containers", metavar="CONTAINER", nargs="+", help=nouns.REFERENCE)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    if not (arguments.attach or arguments.interactive):
        return running.each(arguments, config, _start)
    if len(arguments.containers) > 1:
        raise StoreError(
            "only one container at a time can be attached to", resolution="start the others before"
        )
    with running.opened_to_run(config) as storage:
        container = storage.containers.get(arguments.containers[0])
        running.check_terminal(
            tty=bool(container.config.get("Tty")), interactive=arguments.interactive
        )
        return storage.runtime.run(container.id, interactive=arguments.interactive)


def _start(runtime: Runtime, reference: str) -> str:
    with suppress(ContainerRunningError):  # as Docker: then there is nothing to do
        runtime.start(reference)
    return reference
