"""``storagedrivers detect --json`` as a whole process, against importing its dependencies.

Both run in a venv of their own with the checkout installed (not editable) and bytecode compiled.
Also says which modules the command imports and never uses.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pairwise

LIMIT = 1.3

PEER = "import stevedore, psutil, distro"

UNUSED = (
    "asyncio",
    "curses",
    "difflib",
    "http",
    "markdown_it",
    "multiprocessing",
    "pdb",
    "pkg_resources",
    "pygments",
    "pytest",
    "rich",
    "shtab",
    "sqlite3",
    "ssl",
    "storagedrivers.archive",
    "storagedrivers.build",
    "storagedrivers.cli.driver",
    "storagedrivers.cli.facts",
    "storagedrivers.oci",
    "storagedrivers.runtime",
    "storagedrivers.storage",
    "storagedrivers.stores",
    "storagedrivers.testing",
    "tarfile",
    "unittest",
    "xml",
)
"""What the command has no use for. What a dependency imports for itself is its own business."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--pairs", type=int, default=40, help="pairs of processes (%(default)s)")


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Run the two processes in turns."""
    with pairwise.working_directory(options.dir) as directory:
        programs = pairwise.programs(options.venv, directory)
        arguments = ["--root", str(directory / "root"), "detect", "--json"]
        ours = [str(programs / "storagedrivers"), *arguments]
        peer = [str(programs / "python"), "-c", PEER]
        times = pairwise.take_turns(
            {"ours": lambda _: _run(ours, directory), "peer": lambda _: _run(peer, directory)},
            rounds=options.pairs,
            warm_up=2,
        )
        imported = _imports([peer[0], "-X", "importtime", *ours], directory)
        needed = _imports([peer[0], "-X", "importtime", *peer[1:]], directory)
    return [
        pairwise.Comparison(
            name="detect --json",
            peer_name=f'python -c "{PEER}"',
            ours=times["ours"],
            peer=times["peer"],
            limit=LIMIT,
            faults=tuple(f"imports {name}, unused" for name in _unused(imported, needed)),
            remarks=_remarks(imported, needed),
        )
    ]


def _run(command: Sequence[str], directory: Path) -> str:
    """Run a command in *directory*, which has nothing to import; its standard error."""
    finished = subprocess.run(
        command,
        cwd=directory,
        env=pairwise.clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    # 3 and 4 say that only copying works, or nothing; they cost the same.
    if finished.returncode not in (0, 3, 4):
        sys.exit(f"{command[0]} failed with {finished.returncode}:\n{finished.stderr}")
    return finished.stderr


def _imports(command: Sequence[str], directory: Path) -> list[str]:
    """The modules that a Python process imports, by ``-X importtime``, in order."""
    told = _run(command, directory)
    lines = [line for line in told.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines[1:]]


def _unused(imported: Sequence[str], needed: Sequence[str]) -> list[str]:
    """The modules of :data:`UNUSED` among *imported*, without what the dependencies bring."""
    return sorted(
        name
        for name in set(imported) - set(needed)
        if any(name == one or name.startswith(f"{one}.") for one in UNUSED)
    )


def _remarks(imported: Sequence[str], needed: Sequence[str]) -> tuple[str, ...]:
    known = set(needed)
    more = [name for name in imported if name not in known]
    others = [name for name in more if name.partition(".")[0] != "storagedrivers"]
    return (
        f"{len(set(imported))} modules, the peer {len(known)}",
        f"{len(more) - len(others)} more of our own",
        f"{len(others)} more of others: {', '.join(others)}",
        f"as user {os.geteuid()}" + (", so mounts were tried" if os.geteuid() == 0 else ""),
    )


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
