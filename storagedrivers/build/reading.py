"""What COPY reads. (The lead's stand-in until COPY's own is there: to be replaced.)"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storagedrivers.build.context import Context
from storagedrivers.dockerfile.instructions import Instruction
from storagedrivers.errors import BuildError
from storagedrivers.linux import rooted
from storagedrivers.linux.rooted import Root
from storagedrivers.stores.transfer import TreeCopy


class Prepared:
    def __init__(self, sources: list[tuple[int, str]], target: str, facts: dict[str, tuple[str | int, ...]]) -> None:
        self._sources, self._target, self.facts = sources, target, facts
        self.digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
        self.source = f"file:{self.digest}"

    def apply(self, root: int) -> None:
        copy = TreeCopy((0, 0))
        for fd, path in self._sources:
            with Root(f"/proc/self/fd/{root}") as top:
                source = rooted.open_in(fd, path, os.O_PATH)
                if os.path.isdir(f"/proc/self/fd/{source}"):
                    goal = top.make_directory(self._target)
                    above = os.open(f"/proc/self/fd/{source}", os.O_RDONLY)
                    copy.tree(above, goal, new=False)
                else:
                    name = posixpath.basename(path) if self._target.endswith("/") else posixpath.basename(self._target)
                    directory = self._target if self._target.endswith("/") else posixpath.dirname(self._target)
                    goal = top.make_directory(directory or "/")
                    above = rooted.open_in(fd, posixpath.dirname(path) or ".", os.O_RDONLY)
                    copy.file(above, posixpath.basename(path), goal, name)
                for one in (source, goal, above):
                    os.close(one)


@contextmanager
def prepared(
    instruction: Instruction, *, context: Context, stage_root: int | None, base_root: int | None, workdir: str
) -> Iterator[Prepared]:
    *sources, target = instruction.arguments
    if target.endswith(("/", "/.")) or target == ".":
        target = target.rstrip(".").rstrip("/") + "/"
    slash = "/" if target.endswith("/") or len(sources) > 1 else ""
    target = posixpath.normpath(posixpath.join(workdir, target)) .rstrip("/") + slash or "/"
    fd = context.root_fd if stage_root is None else stage_root
    found, facts = [], {}
    for one in sources:
        path = posixpath.normpath("/" + one).lstrip("/") or "."
        top = Path(f"/proc/self/fd/{fd}") / path
        if not top.exists():
            raise BuildError(f"COPY failed: {one} is not in the context")
        found.append((fd, path))
        for at in [top, *(sorted(top.rglob("*")) if top.is_dir() else ())]:
            status = at.lstat()
            digest = hashlib.sha256(at.read_bytes()).hexdigest() if at.is_file() else ""
            facts[str(at.relative_to(Path(f"/proc/self/fd/{fd}")))] = ("f", status.st_mode & 0o7777, 0, 0, status.st_size if digest else 0, digest)
    yield Prepared(found, target, facts)
