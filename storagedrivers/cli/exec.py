"""Run one more process in a container that runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagedrivers.cli import create_options, nouns, running

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; those after CONTAINER are the command's."""
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="do not wait for it; its output is lost")
    add("-e", "--env", metavar="A=B", action="append", help="a variable; A alone: as it is here")
    add("--env-file", metavar="FILE", action="append", help="variables, a line each")
    add("-i", "--interactive", action="store_true", help="give it standard input")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("-u", "--user", metavar="USER[:GROUP]", default="", help="names or numbers")
    add("-w", "--workdir", metavar="DIR", default="", help="working directory")
    add("container", metavar="CONTAINER", help=nouns.REFERENCE)
    # Its first word by itself: without it nothing could be run.
    add("program", metavar="COMMAND", help="with its arguments")
    add("rest", metavar="", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    if not arguments.detach:
        running.check_terminal(tty=arguments.tty, interactive=arguments.interactive)
    with running.opened_to_run(config) as storage:
        return storage.runtime.exec(
            arguments.container,
            [arguments.program, *arguments.rest],
            env=[*create_options.environment(arguments)],
            user=arguments.user,
            workdir=arguments.workdir,
            tty=arguments.tty,
            interactive=arguments.interactive,
            detach=arguments.detach,
        )
