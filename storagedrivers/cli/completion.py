"""Print a completion script, for example: storagedrivers completion bash >
/etc/bash_completion.d/storagedrivers.
"""

from __future__ import annotations

import argparse

from storagedrivers.cli import output
from storagedrivers.config import StorageConfig

SHELLS = ("bash", "zsh", "tcsh")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    import shtab

    from storagedrivers.cli.main import COMMANDS, SHORT, global_options, load, top_parser

    parser = top_parser()
    commands = parser.add_subparsers(dest="command")
    for name, about in COMMANDS.items():
        short = commands.add_parser(name, help=about, parents=[global_options()])
        if name in SHORT:
            noun, verb = SHORT[name]
            load(noun).VERBS[verb][1](short)
        else:
            load(name).configure(short)
    output.line(shtab.complete(parser, shell=arguments.shell))
    return 0
