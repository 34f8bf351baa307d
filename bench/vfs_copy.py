"""Copying a tree of 7,000 files and 200 MB, against ``cp -a --reflink=auto``, on ext4 and on xfs.

Each copy goes into a new directory of a filesystem made for the purpose (in a file, loop mounted),
on which nothing is deleted meanwhile. Before each one everything is written back, and earlier
copies are dropped from the page cache. Needs root, mkfs.ext4 and mkfs.xfs.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import filesystems
import pairwise

from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.linux import copy, namespace

LIMIT = 1.5

FILES = 7_000
BYTES = 200_000_000
DIRECTORIES = 700
LINKS = 140  # of the files, second names of others
SYMLINKS = 300  # beside them
SEED = 20_240_229


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--copies", type=int, default=9, help="pairs of copies (%(default)s)")
    parser.add_argument(
        "--filesystem", choices=[*filesystems.MAKE, "both"], default="both", help="(%(default)s)"
    )


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Copy by turns on each filesystem."""
    pairwise.require_root()
    namespace.make_mounts_private()
    kinds = list(filesystems.MAKE) if options.filesystem == "both" else [options.filesystem]
    comparisons = []
    for kind in kinds:
        with pairwise.working_directory(options.dir) as directory:
            size = 2 * BYTES + 4 * BYTES * (options.copies + 1)
            with filesystems.on_disk(kind, directory, size) as filesystem:
                comparisons += _on_filesystem(kind, filesystem, options.copies)
    return comparisons


def _on_filesystem(
    kind: str, filesystem: filesystems.Filesystem, copies: int
) -> list[pairwise.Comparison]:
    driver = VfsCopy(filesystem.mountpoint / "vfs-copy")
    driver.create("base", ())
    source = Path(driver.home, "base", "fs")
    make_tree(source)
    last: list[Path] = []

    def ours(number: int) -> None:
        target = filesystem.mountpoint / f"ours-{number}"
        target.mkdir()
        copy.copy_tree(source, target)
        last.append(target)

    def peer(number: int) -> None:
        target = filesystem.mountpoint / f"peer-{number}"
        subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
        last.append(target)

    def driver_create(number: int) -> None:
        driver.create(f"copy-{number}", ("base",))
        last.append(Path(driver.home, f"copy-{number}"))

    def settle() -> None:
        filesystem.write_back()
        while last:
            filesystems.forget_tree(last.pop())

    times = pairwise.take_turns(
        {"copy_tree": ours, "peer": peer, "VfsCopy.create": driver_create},
        rounds=copies,
        before=settle,
    )
    return [
        pairwise.Comparison(
            name=f"{name} on {kind}",
            peer_name="cp -a --reflink=auto",
            ours=times[name],
            peer=times["peer"],
            limit=LIMIT,
        )
        for name in ("copy_tree", "VfsCopy.create")
    ]


# The tree


def make_tree(root: Path) -> None:
    """Fill *root*: the same tree each time, with what an image of an operating system has."""
    dice = random.Random(SEED)
    directories = _directories(dice, root)
    files = []
    for number, size in enumerate(_sizes(dice)):
        path = dice.choice(directories) / f"file-{number}"
        path.write_bytes(dice.randbytes(size))
        path.chmod(dice.choice((0o644, 0o644, 0o644, 0o755, 0o600)))
        files.append(path)
    for number in range(LINKS):
        os.link(dice.choice(files), dice.choice(directories) / f"link-{number}")
    for number in range(SYMLINKS):
        target = os.path.relpath(dice.choice(files), root)
        (dice.choice(directories) / f"symlink-{number}").symlink_to(f"/{target}")
    _decorate(dice, directories, files)


def _directories(dice: random.Random, root: Path) -> list[Path]:
    """Make the directories: each below a random earlier one, no deeper than eight."""
    directories = [root]
    while len(directories) < DIRECTORIES:
        parent = dice.choice(directories)
        if len(parent.relative_to(root).parts) < 8:
            directory = parent / f"directory-{len(directories)}"
            directory.mkdir()
            directories.append(directory)
    return directories


def _sizes(dice: random.Random) -> list[int]:
    """Sizes that sum up to BYTES: half of them below 5 kB, a few of megabytes, some empty."""
    count = FILES - LINKS
    raw = [0.0 if dice.random() < 0.02 else dice.lognormvariate(8.3, 1.9) for _ in range(count)]
    scale = BYTES / sum(raw)
    ends = [round(end * scale) for end in accumulate(raw)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _decorate(dice: random.Random, directories: list[Path], files: list[Path]) -> None:
    """Owners, attributes, a file capability, times."""
    for path in dice.sample(files, len(files) // 10):
        os.chown(path, dice.randrange(1, 1000), dice.randrange(1, 1000))
    for path in (*dice.sample(files, len(files) // 30), *dice.sample(directories, 20)):
        os.setxattr(path, "user.origin", dice.randbytes(24))
    # cap_net_raw=ep: version 2 of struct vfs_cap_data, with the bit "effective".
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(files[0], "security.capability", capability)
    for path in (*files, *directories):
        when = 1_600_000_000_000_000_000 + dice.randrange(10**17)
        os.utime(path, ns=(when, when))


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
