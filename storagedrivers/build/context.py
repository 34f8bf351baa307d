"""The files that a build is given: those of a directory, or of a tar on a stream.

They belong to whoever asked for the build, and may change meanwhile: whatever is read is opened
below the directory that was opened at first, and no symlink leads out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.build import patterns, remembered
from storagedrivers.build.ignore import Ignore
from storagedrivers.errors import BuildError, NotFoundError, did_you_mean
from storagedrivers.linux import rooted, tree

if TYPE_CHECKING:
    from storagedrivers.build.items import Stamp
    from storagedrivers.stores.layers import LayerStore

_IGNORE = ".dockerignore"
LARGEST = 8 << 20
"""Bytes of a Dockerfile or a ``.dockerignore``; longer ones are none."""


class Context:
    """The files of a build.

    Attributes:
        root_fd: their directory, open.
        ignore: what is left out.
        digests: of what files hold, so that each is read once.
    """

    def __init__(
        self,
        root_fd: int,
        layers: LayerStore,
        digests: dict[Stamp, str],
        *,
        path: str,
        is_tar: bool,
    ) -> None:
        self.root_fd = root_fd
        self.ignore = Ignore()
        self.digests = digests
        self._layers = layers
        self._path = path
        self._is_tar = is_tar

    def ignoring(self, dockerfile: str) -> None:
        """Leave out what the ``.dockerignore`` says: that of the Dockerfile, or that of all.

        Of a tar only these two files are left out, if they are named: as with Docker, whoever made
        it has seen to the others.

        Raises:
            BuildError: a line of it is no pattern, or it is there and no file.
        """
        for name in (f"{dockerfile}{_IGNORE}", _IGNORE):
            text = self._read(name)
            if text is not None:
                lines = os.fsdecode(text.removeprefix(b"\xef\xbb\xbf")).split("\n")
                self.ignore = Ignore(lines)
                break
            self._check_missing(name)
        if self._is_tar:
            named = [one for one in (dockerfile, _IGNORE) if self.ignore.hides(one)]
            self.ignore = Ignore(f"/{patterns.escaped(one)}" for one in named)

    def dockerfile(self, name: str) -> bytes:
        """What the Dockerfile of this path says.

        Raises:
            NotFoundError: there is none.
            BuildError: it cannot be read, or is too long for one.
        """
        text = self._read(name)
        if text is not None:
            return text
        known = [one for one in os.listdir(self.root_fd) if "ockerfile" in one]
        raise NotFoundError(
            f"there is no file {name} in the build context {self._path}",
            resolution=did_you_mean(name, known) or "name the Dockerfile: --file PATH",
        )

    @contextmanager
    def scratch(self) -> Iterator[int]:
        """Have a file without a name, for what is downloaded."""
        directory = os.path.join(self._layers.root, "tmp")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        path = os.path.join(directory, f"fetched-{os.urandom(8).hex()}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(path)
            yield fd
        finally:
            os.close(fd)

    def _check_missing(self, path: str) -> None:
        """See that a path at which no file was found is not there at all.

        Raises:
            BuildError: it is; nobody who has a ``.dockerignore`` wants everything copied.
        """
        directory, name = os.path.split(path)
        try:
            parent = rooted.open_in(self.root_fd, directory, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        finally:
            os.close(parent)
        what = "is no regular file"
        if stat.S_ISLNK(mode):
            what = "is a symlink that leads to no regular file in the context"
        raise BuildError(
            f"{path} of the build context {what}",
            resolution="make it a regular file, or remove it",
        )

    def _read(self, path: str) -> bytes | None:
        """The content of a regular file; None where there is none."""
        try:
            handle = rooted.open_in(self.root_fd, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BuildError(f"{path} of the build context: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            # Opened for reading only once it is known what it is.
            with open(f"/proc/self/fd/{handle}", "rb") as file:
                text = file.read(LARGEST + 1)
        finally:
            os.close(handle)
        if len(text) > LARGEST:
            raise BuildError(
                f"{path} of the build context is longer than {LARGEST} bytes",
                resolution="name another Dockerfile: --file PATH",
            )
        return text


@contextmanager
def opened(source: str | os.PathLike[str] | BinaryIO, layers: LayerStore) -> Iterator[Context]:
    """Have a context open.

    Args:
        source: a directory, or a stream with a tar, plain or compressed.
        layers: of the store that is built in, where the tar is unpacked.

    Raises:
        NotFoundError: there is no such directory.
        DiffError: the tar is no good; names the entry.
    """
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        with _directory(path) as fd, remembered.digests(layers.root, fd) as digests:
            yield Context(fd, layers, digests, path=path, is_tar=False)
        return
    with _unpacked(source, layers) as fd:
        yield Context(fd, layers, {}, path="on standard input", is_tar=True)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"there is no directory {path}",
            resolution="name the directory that has the files of the build",
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _unpacked(stream: BinaryIO, layers: LayerStore) -> Iterator[int]:
    """Have the files of a tar in a directory of the store, for the length of a ``with`` block."""
    from storagedrivers.linux.scratch import scratch_directory
    from storagedrivers.stores.transfer import Extraction

    with scratch_directory(layers.root) as directory, tree.opened_directory(directory) as fd:
        Extraction(fd, b"", (0, 0)).run(stream)
        yield fd
