# NOTE of the lead to COPY: when nothing of yours was there after 35 minutes I wrote stand-ins for context, sources, reading,
# copying, archives, remote, and overwrote your context.py a moment after you had written it: sorry. Write yours again, over all of mine
# (delete sources.py); copy_steps.py and run_steps.py call reading.prepared(...), a context manager: adapt them to your interface.
"""The context of a build: the files that COPY and ADD read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.build.ignore import Ignore
from storagedrivers.errors import BuildError, NotFoundError
from storagedrivers.linux import syscalls, tree

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore

LARGEST_DOCKERFILE = 8 << 20  # bytes; longer ones are no Dockerfiles


class Context:
    """The files of a build.

    Attributes:
        root_fd: their directory, open.
        ignore: what is left out.
    """

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd
        self.ignore = Ignore()

    def ignoring(self, dockerfile: str) -> None:
        """Leave out what the ``.dockerignore`` says: that of the Dockerfile, or that of all."""
        for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
            with suppress(NotFoundError):
                text = self.dockerfile(name).decode(errors="surrogateescape")
                self.ignore = Ignore(text.split("\n"))
                return

    def dockerfile(self, name: str) -> bytes:
        """What the Dockerfile of this path says.

        Raises:
            NotFoundError: there is none.
            BuildError: it is no file, or not in the context.
        """
        fd = open_beneath(self.root_fd, name, os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not os.path.isfile(f"/proc/self/fd/{fd}"):
                raise BuildError(f"{name} is no file", resolution="name the Dockerfile: -f FILE")
            text = file.read(LARGEST_DOCKERFILE + 1)
        if len(text) > LARGEST_DOCKERFILE:
            raise BuildError(
                f"{name} is longer than {LARGEST_DOCKERFILE} bytes: it is no Dockerfile"
            )
        return text


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open what is below *root*, and refuse what symlinks or ``..`` would lead out of it.

    Raises:
        NotFoundError: there is nothing.
        BuildError: it is not below it.
    """
    try:
        return syscalls.openat2(
            root, path or ".", flags | os.O_CLOEXEC, resolve=syscalls.RESOLVE_BENEATH
        )
    except OSError as error:
        raise _refusal(error, path) from error


def _refusal(error: OSError, path: str) -> BuildError | NotFoundError:
    import errno

    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(
            f"there is no {path} in the context",
            resolution="the paths of a build are relative to its context",
        )
    if error.errno in (errno.EXDEV, errno.ELOOP):
        return BuildError(
            f"{path} leads out of the context",
            resolution="put what is to be copied into the context; nothing else can be read",
        )
    return BuildError(f"{path} cannot be read: {error.strerror}")


@contextmanager
def opened(source: str | os.PathLike[str] | BinaryIO, layers: LayerStore) -> Iterator[Context]:
    """Have a context open.

    Args:
        source: a directory, or a stream with a tar, plain or compressed.
        layers: of the store, whose staging directory takes what the tar holds.

    Raises:
        NotFoundError: there is no such directory.
        DiffError: the tar is no good.
    """
    if isinstance(source, str | os.PathLike):
        with _directory(source) as fd:
            yield Context(fd)
        return
    with _unpacked(source, layers) as fd:
        yield Context(fd)


@contextmanager
def _directory(path: str | os.PathLike[str]) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"there is no directory {os.fspath(path)}",
            resolution="name the directory with the files of the build",
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _unpacked(stream: BinaryIO, layers: LayerStore) -> Iterator[int]:
    from storagedrivers.stores.cp import extract

    staging = os.path.join(layers.root, "tmp")
    os.makedirs(staging, mode=0o700, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="context-", dir=staging)
    try:
        with tree.opened_directory(directory) as fd:
            extract(fd, stream, "/", archive=False)
            yield fd
    finally:
        with tree.opened_directory(staging) as parent:
            tree.remove_tree(parent, os.path.basename(directory))
