"""A Dockerfile of 20 steps that move files, built by us and by ``docker build``.

Whole processes, in turns, with a daemon that runs already, all on one ext4 (in a file, loop
mounted), on the same Debian image and of the same context: 2,000 files with 50 MB, made from a
fixed seed. Fully cached, then with ``--no-cache``; then five steps that run a command. Ours waits
until what it built has reached the disk, Docker does not. Needs root, dockerd, containerd, and what
``fixtures.py`` needs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from io import BytesIO
from math import inf
from pathlib import Path
from typing import NamedTuple

import filesystems
import fixtures
import pairwise
import peers
import report
from filesystems import Filesystem
from peers import Daemons

from storagedrivers.linux import namespace
from storagedrivers.storage import Storage

SECTION = "build"
"""Of docs/performance.md."""

CHART = "build.svg"

DOCKER = "docker build"

SEED = 20_240_229
FILES = 2_000
BYTES = 50_000_000

_RATIOS = {"vendor": 0.7, "src": 0.2, "assets": 0.1}
"""Where the files are, by number."""

_BUILT = f"""\
FROM {peers.IMAGE}
LABEL org.opencontainers.image.title=shop org.opencontainers.image.version=1.0
ENV APP_HOME=/srv/shop PATH=/srv/shop/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /srv/shop
COPY package.json package-lock.json ./
COPY vendor/ vendor/
ADD libraries.tar.gz /opt/
COPY assets/ public/
COPY --chown=33:33 assets/0* uploads/
ENV LIBRARIES=/opt/libraries
COPY src/ src/
COPY etc/*.conf /etc/shop/
COPY --chown=1000:1000 etc /home/shop/etc
ADD run.sh /usr/local/bin/
WORKDIR /srv/shop/src
EXPOSE 8000
VOLUME /var/lib/shop
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/run.sh"]
CMD ["serve"]
"""

_RUN = f"""\
FROM {peers.IMAGE}
RUN mkdir -p /srv/shop && useradd --system --uid 999 shop
RUN echo shop > /etc/hostname.d && chown -R shop /srv/shop
RUN find /usr/share/doc -name 'copyright' -delete
RUN sed -i s/root/ROOT/ /etc/passwd-
RUN sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo $i > /srv/shop/$i; done'
"""


class _Work(NamedTuple):
    """What is built, and how.

    Attributes:
        file: the Dockerfile in the context.
        options: of the command line, the same for both.
        limit: what the ratio may be.
    """

    file: str
    options: tuple[str, ...]
    limit: float


_WORKS: Mapping[str, _Work] = {
    "20 steps, cached": _Work("Dockerfile", (), 1 / 3),
    "20 steps, not cached": _Work("Dockerfile", ("--no-cache",), 1 / 2),
    "5 RUN steps, not cached": _Work("run.Dockerfile", ("--no-cache",), inf),
}

_ROOM = 20 << 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    fixtures.add_option(parser)
    parser.add_argument("--builds", type=int, default=9, help="of every kind (%(default)s)")


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Build by both in turns."""
    pairwise.require_root()
    peers.require()
    namespace.make_mounts_private()
    with pairwise.working_directory(options.dir) as directory:
        programs = pairwise.programs(options.venv, directory)
        archive = peers.saved_image(options.cache, directory)
        with (
            filesystems.on_disk("ext4", directory, _ROOM) as filesystem,
            peers.daemons(filesystem.mountpoint / "daemons") as daemons,
        ):
            context = filesystem.mountpoint / "context"
            write_context(context)
            trial = _Trial(archive, context, filesystem, programs, daemons)
            return [trial.compare(name, work, options.builds) for name, work in _WORKS.items()]


def document(comparisons: list[pairwise.Comparison]) -> None:
    """Write the figures down."""
    report.write_pairs(SECTION, comparisons, chart=CHART)
    report.write_chart(CHART, "Building a Dockerfile", comparisons)


# What is built


def write_context(top: Path) -> None:
    """Write the context, the same every time."""
    chance = random.Random(SEED)
    names = [
        f"{directory}/{number % 25:02}/{number:04}.{chance.choice(('js', 'py', 'css'))}"
        for directory, ratio in _RATIOS.items()
        for number in range(int(FILES * ratio))
    ]
    weights = [chance.lognormvariate(0, 1.5) for _ in names]  # many small files, a few large ones
    scale = BYTES / sum(weights)
    for name, weight in zip(names, weights, strict=True):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(int(weight * scale)))
    (top / "etc").mkdir()
    for name in ("shop.conf", "log.conf", "README"):
        (top / "etc" / name).write_text(name)
    for name in ("package.json", "package-lock.json", "run.sh"):
        (top / name).write_text("#!/bin/sh\n")
    (top / "libraries.tar.gz").write_bytes(_libraries(chance))
    (top / ".dockerignore").write_text("**/.git\n*.Dockerfile\nDockerfile\n")
    (top / "Dockerfile").write_text(_BUILT)
    (top / "run.Dockerfile").write_text(_RUN)


def _libraries(chance: random.Random) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for number in range(20):
            entry = tarfile.TarInfo(f"libraries/lib{number}.so")
            entry.size, entry.mode = 50_000, 0o755
            archive.addfile(entry, BytesIO(chance.randbytes(entry.size)))
    return buffer.getvalue()


# Both


class _Trial:
    """Both with the same image and context."""

    def __init__(
        self,
        archive: Path,
        context: Path,
        filesystem: Filesystem,
        programs: Path,
        daemons: Daemons,
    ) -> None:
        self._context = context
        self._filesystem = filesystem
        self._daemons = daemons
        root, run_root = filesystem.mountpoint / "root", filesystem.mountpoint / "run"
        self._places = {"root": root, "run_root": run_root}
        self._program = [str(programs / "storagedrivers"), "--root", str(root)]
        self._program += ["--run-root", str(run_root), "build"]
        with Storage.open(**self._places, driver="overlay2") as storage:
            storage.images.load(str(archive))
        daemons.docker("load", "--input", archive)
        self._ids = {side: filesystem.mountpoint / f"id by {side}" for side in ("ours", DOCKER)}

    def compare(self, name: str, work: _Work, rounds: int) -> pairwise.Comparison:
        """Build by both in turns."""
        print(f"building {name}", file=sys.stderr)
        file = self._context / work.file
        words = ("--network", "none", "--file", str(file), *work.options)
        times = pairwise.take_turns(
            {
                "ours": lambda _: self._run("ours", [*self._program, *words]),
                DOCKER: lambda _: self._run(DOCKER, self._daemons.docker_command("build", *words)),
            },
            rounds=rounds,
            before=self._filesystem.write_back,
        )
        return pairwise.Comparison(
            name=name,
            peer_name=DOCKER,
            ours=times["ours"],
            peer=times[DOCKER],
            limit=work.limit,
            faults=self._faults(),
        )

    def _run(self, side: str, command: list[str]) -> None:
        words = [*command, "--iidfile", str(self._ids[side]), str(self._context)]
        environment = {**pairwise.clean_environment(), "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd="/")
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)} failed with {done.returncode}:\n{done.stderr}")

    def _faults(self) -> tuple[str, ...]:
        """What tells the images apart; the tests look closer."""
        ours, theirs = (path.read_text().strip() for path in self._ids.values())
        with Storage.open(**self._places) as storage:
            mine = json.loads(storage.images.config(storage.images.get(ours)).raw)
        known = self._daemons.docker_inspect(theirs)
        if len(mine["rootfs"]["diff_ids"]) != len(known["RootFS"]["Layers"]):
            return ("not the same number of layers",)
        if mine["config"]["Env"] != known["Config"]["Env"]:
            return ("not the same environment",)
        return ()


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
