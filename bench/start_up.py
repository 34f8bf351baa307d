"""Commands on an existing store as whole processes, against ``python -c pass`` of the same venv.

The store has a chain of three small layers. Each mount is taken back before the next one, outside
of the time. Needs root.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import filesystems
import pairwise
import report
import small

from storagedrivers.linux import namespace

LIMIT = 5.0

SECTION = "start-up"
"""Of docs/performance.md."""

PEER = "python -c pass"

LAYERS = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--starts", type=int, default=40, help="of each command (%(default)s)")


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Run the commands in turns."""
    pairwise.require_root()
    namespace.make_mounts_private()
    with (
        pairwise.working_directory(options.dir) as directory,
        # Its end takes away what is mounted below the run root.
        filesystems.in_memory(directory, 1 << 20) as run,
    ):
        programs = pairwise.programs(options.venv, directory)
        program = [str(programs / "storagedrivers"), "--root", str(directory / "root")]
        program += ["--run-root", str(run.mountpoint), "layer"]
        top = _fill(program, directory)
        commands = {
            "layer ls": [*program, "ls"],
            "layer mount": [*program, "mount", top],
            PEER: [str(programs / "python"), "-c", "pass"],
        }

        def unmount(name: str) -> None:
            if name == "layer mount":
                _run([*program, "unmount", top])

        times = pairwise.take_turns(
            {name: partial(_start, words) for name, words in commands.items()},
            rounds=options.starts,
            warm_up=2,
            after=unmount,
        )
    return [
        pairwise.Comparison(
            name=f"storagedrivers {name}",
            peer_name=PEER,
            ours=times[name],
            peer=times[PEER],
            limit=LIMIT,
        )
        for name in commands
        if name != PEER
    ]


def document(comparisons: list[pairwise.Comparison]) -> None:
    """Write the figures down."""
    report.write_table(SECTION, comparisons)


def _fill(program: list[str], directory: Path) -> str:
    """Add a chain of layers; the id of the topmost."""
    top = ""
    for number in range(LAYERS):
        tar = directory / f"{number}.tar"
        tar.write_bytes(small.tar(number))
        below = ["--parent", top] if top else []
        top = _run([*program, "add", str(tar), *below]).strip()
    return top


def _start(command: list[str], _: int) -> None:
    _run(command)


def _run(command: list[str]) -> str:
    # In an empty working directory python has nothing of ours to import.
    finished = subprocess.run(
        command, env=pairwise.clean_environment(), stdout=subprocess.PIPE, text=True, cwd=os.sep
    )
    if finished.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {finished.returncode}")
    return finished.stdout


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
