"""A build's context. (The lead's stand-in until COPY's own is there: to be replaced.)"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.build.ignore import Ignore
from storagedrivers.linux import rooted, tree

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore


class Context:
    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        lines = []
        if os.path.exists(f"/proc/self/fd/{root_fd}/.dockerignore"):
            lines = self.dockerfile(".dockerignore").decode().splitlines()
        self.ignore = Ignore(lines)

    def dockerfile(self, name: str) -> bytes:
        with open(rooted.open_in(self.root_fd, name, os.O_RDONLY), "rb") as file:
            return file.read()


@contextmanager
def opened(source: str | os.PathLike[str] | BinaryIO, layers: LayerStore) -> Iterator[Context]:
    assert isinstance(source, str | os.PathLike)
    with tree.opened_directory(source, follow_symlinks=True) as fd:
        yield Context(fd)
