"""Entry of the program: finds the command, builds its parser only, runs it, turns errors into exit
codes.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from storagedrivers import __version__
from storagedrivers.config import CHOICES, StorageConfig
from storagedrivers.errors import StorageDriversError, did_you_mean

COMMANDS = {
    "detect": "which driver is best here, and why not the others",
    "demo": "layers, images and containers shown on this machine, step by step",
    "facts": "what is known of this host, as JSON",
    "verify": "run the conformance kit for a driver on this host",
    "driver": "the installed drivers",
    "policy": "the orders in which drivers are tried",
    "layer": "layers: add, ls, inspect, export, changes, mount, unmount, rm, create, seal",
    "image": "images: load, save, import, export, ls, inspect, history, tag, rm, prune",
    "container": "containers: create, ls, mount, diff, commit, checkpoint, fork, cp, rm, …",
    "volume": "volumes: create, ls, inspect, rm, prune, export, import, clone, usage",
    "build": "make an image of a Dockerfile",
    "cache": "the build cache: ls, prune",
    "load": "short for image load",
    "save": "short for image save",
    "images": "short for image ls",
    "history": "short for image history",
    "tag": "short for image tag",
    "rmi": "short for image rm",
    "create": "short for container create",
    "diff": "short for container diff",
    "commit": "short for container commit",
    "cp": "short for container cp",
    "rm": "short for container rm",
    "run": "make a container of an image, and run a command in it",
    "start": "start containers that are there",
    "exec": "run one more command in a running container",
    "stop": "end containers: first politely",
    "logs": "what a detached container has written",
    "wait": "wait for containers to end, and print their exit codes",
    "ps": "the containers that run; short for container ls",
    "check": "whether the store is sound; --deep reads every layer",
    "repair": "put right what check finds",
    "gc": "remove what belongs to nothing",
    "df": "what layers, images, volumes and the build cache take",
    "owner": "which layer, image, container or volume a path belongs to",
    "completion": "print a completion script for a shell",
}
"""Each is a module of this package with ``configure(parser)`` and ``run(arguments, config) -> exit
code``, or in :data:`SHORT`.
"""

SHORT = {
    "tag": ("image", "tag"),
    "rmi": ("image", "rm"),
    "create": ("container", "create"),
    "diff": ("container", "diff"),
    "commit": ("container", "commit"),
    "cp": ("container", "cp"),
    "rm": ("container", "rm"),
}
"""Words that stand for a noun and its verb, and for nothing else."""

OWN = {"volume create": "--driver"}
"""Commands with an option that is called as a global one, as Docker's users know it."""

VERBATIM = frozenset({"run", "exec", "container create", *OWN})
"""Commands with a command of the user's at their end, whose options are not ours, or with an option
of :data:`OWN`: from the command on, global options are taken by its own parser, up to there.
"""


class Formatter(argparse.HelpFormatter):
    """Asks for the terminal's width when help is wanted: argparse makes a formatter for each option
    that is added, too.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=78)

    def format_help(self) -> str:
        """The help, in the terminal's width."""
        from shutil import get_terminal_size

        self._width = get_terminal_size().columns - 2
        return super().format_help()


def program() -> NoReturn:
    """Run as a process of its own."""
    # What a start allocates stays until the end: collecting in between only costs milliseconds.
    gc.disable()
    # A terminated program cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _exit)
    code = main()
    sys.stderr.flush()
    # Everything is written and closed: taking the interpreter down costs 4 ms more.
    os._exit(code)


def _exit(number: int, _: object) -> NoReturn:
    # A terminal that goes sends it twice, by the kernel and by the shell: cleaning up goes on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    from storagedrivers.cli import output

    words = list(sys.argv[1:] if argv is None else argv)
    output.prepare()
    try:
        code = _run(words)
        output.flush()
        return code
    except StorageDriversError as error:
        output.error(error)
        return error.exit_code
    except BrokenPipeError:
        output.discard()  # the reader has seen enough
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        output.discard()  # it may be standard output that is full
        output.error(error)
        return 1


def _run(words: list[str]) -> int:
    place = _place_of_command(words)
    if place is None:
        return _without_command(words)
    command = words[place]
    if command not in COMMANDS:
        _usage_error(f"no command is named {command!r}; there are {', '.join(COMMANDS)}", command)
    before, rest = words[:place], words[place + 1 :]
    if command in SHORT:
        command, verb = SHORT[command]
        rest = [verb, *rest]
    if command in VERBATIM or f"{command} {rest[0] if rest else ''}" in VERBATIM:
        known = global_options().parse_args(before)
    else:
        known, rest = global_options().parse_known_args([*before, *rest])
    module = load(command)
    parser = command_parser(command, module)
    # The global options are taken already: their defaults do not come again.
    arguments = parser.parse_args(rest, known)
    config = StorageConfig.load(
        arguments={
            "root": arguments.root,
            "run_root": arguments.run_root,
            "driver": arguments.driver_name,
            "policy": arguments.policy_name,
            "policy_file": arguments.policy_file,
            "fallback": arguments.fallback,
            "log_level": arguments.log_level,
        },
        file=arguments.config,
    )
    if config.log_level.value != "warning":  # which is what logging does by itself
        import logging

        logging.basicConfig(level=(config.log_level.value or "").upper())
    result: int = module.run(arguments, config)
    return result


def _place_of_command(words: Sequence[str]) -> int | None:
    """Which of the words is the command: the first that is no global option or its value."""
    takes_value = False
    for place, word in enumerate(words):
        if takes_value:
            takes_value = False
        elif not word.startswith("-"):
            return place
        else:
            takes_value = word in _WITH_VALUE
    return None


def load(command: str) -> ModuleType:
    """The module of a command."""
    return import_module(f"storagedrivers.cli.{command}")


def command_parser(command: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command, with the global options for its help."""
    parser = argparse.ArgumentParser(
        prog=f"storagedrivers {command}",
        description=module.__doc__,
        parents=[global_options()],
        allow_abbrev=False,
        formatter_class=Formatter,
    )
    module.configure(parser)
    return parser


_GLOBAL: tuple[tuple[str, dict[str, object]], ...] = (
    ("--root", {"metavar": "DIR", "help": "graph root, where the store is"}),
    ("--run-root", {"metavar": "DIR", "help": "where layers are mounted"}),
    ("--driver", {"dest": "driver_name", "metavar": "NAME", "help": "this driver or none"}),
    ("--policy", {"dest": "policy_name", "metavar": "NAME", "help": "the order of drivers"}),
    ("--policy-file", {"metavar": "FILE", "help": "more policies"}),
    ("--fallback", {"choices": CHOICES["fallback"], "help": "what to do when only copying works"}),
    ("--config", {"metavar": "FILE", "help": "configuration file"}),
    ("--log-level", {"choices": CHOICES["log_level"], "help": "what is logged"}),
)
_WITH_VALUE = frozenset(name for name, _ in _GLOBAL)


def global_options(*, suppress: bool = False, without: str = "") -> argparse.ArgumentParser:
    """The options that are taken before or after any command.

    Args:
        suppress: those that are not given set nothing: for the parser of a verb, whose values come
            after those from before the command.
        without: one that is left out.
    """
    parser = argparse.ArgumentParser(
        add_help=False,
        allow_abbrev=False,
        formatter_class=Formatter,
        argument_default=argparse.SUPPRESS if suppress else None,
    )
    group = parser.add_argument_group("global options")
    for name, keywords in _GLOBAL:
        if name == without:
            continue
        group.add_argument(name, **keywords)  # type: ignore[arg-type]
    default = argparse.SUPPRESS if suppress else False
    group.add_argument("--json", action="store_true", default=default, help="print JSON")
    return parser


def top_parser() -> argparse.ArgumentParser:
    """The parser without a command: help and version."""
    lines = "\n".join(f"  {name:<12} {about}" for name, about in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="storagedrivers",
        description="Finds the best way to stack filesystem layers on this host.",
        epilog=f"commands:\n{lines}\n\nstoragedrivers COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[global_options()],
        allow_abbrev=False,
        usage="storagedrivers [options] COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"storagedrivers {__version__}")
    return parser


def _without_command(rest: list[str]) -> int:
    parser = top_parser()
    parser.parse_args(rest)
    parser.print_help(sys.stderr)
    return 2


def _usage_error(message: str, word: str) -> NoReturn:
    hint = did_you_mean(word, COMMANDS)
    top_parser().error(f"{message}; {hint}" if hint else message)
