"""Files that images need besides their layers: configs, manifests, compressed layers, by digest.

::

    <graph root>/images/sha256/<hex>   0600, named by the digest of what is in it

They are staged in ``tmp/``, where their lock says that someone is at it, and get their names under
the lock ``images``, together with the rows ``image_blobs``; whoever removes images holds it too. So
a file without a row is one that a killed process has left, and the next who needs it replaces it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import CorruptStoreError, DigestMismatchError, NotFoundError
from storagedrivers.linux import ioctl, syscalls
from storagedrivers.oci.files import PIECE, Place, Slice
from storagedrivers.stores.content import blob_path

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore

_DAMAGED = "remove the image, and load it again"
_NEEDED = "SELECT 1 FROM image_blobs WHERE digest = ?"


class Staged:
    """A file on its way to be a blob; removed at the end unless it got its name.

    Args:
        directory: where to stage it.
        digest: that it is to have.
    """

    def __init__(self, directory: str, digest: str) -> None:
        self.digest = digest
        self.size = 0
        self.path, self.fd = _new_locked(directory)

    def write(self, data: bytes) -> None:
        """The next bytes."""
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def clone(self, fd: int, offset: int, size: int) -> bool:
        """Share all bytes of a whole file, where the filesystem can."""
        if offset or os.fstat(fd).st_size != size:
            return False
        try:
            ioctl.clone_file(fd, self.fd)
        except OSError:
            return False
        self.size = size
        return True

    def fill(self, place: Place, name: str) -> None:
        """Copy and check a file that nobody has checked.

        Raises:
            DigestMismatchError: it is another one.
        """
        self._empty()
        with place.opened() as fd:
            cloned = self.clone(fd, place.offset, place.size)
            stream = (
                Slice(self.fd, 0, self.size, name)
                if cloned
                else Slice(fd, place.offset, place.size, name)
            )
            hasher = hashlib.sha256()
            while piece := stream.read(PIECE):
                hasher.update(piece)
                if not cloned:
                    self.write(piece)
        found = f"sha256:{hasher.hexdigest()}"
        if found != self.digest:
            raise DigestMismatchError(
                f"{name} is {found}, and {self.digest} was expected",
                expected=self.digest,
                found=found,
            )

    def _empty(self) -> None:
        self.size = 0
        os.lseek(self.fd, 0, os.SEEK_SET)
        os.ftruncate(self.fd, 0)

    def sync(self) -> None:
        """Bring it to the disk."""
        os.fsync(self.fd)

    def drop(self) -> None:
        """Close it; without a name of its own it is gone."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.fd)


def _new_locked(directory: str) -> tuple[str, int]:
    """A new file, and the file itself, locked."""
    while True:
        path = os.path.join(directory, f"blob-{os.urandom(8).hex()}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            syscalls.flock(fd, syscalls.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return path, fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # gc saw it before it was locked, and took it for one that was left


class Blobs:
    """The files of the images of one store."""

    def __init__(self, layers: LayerStore) -> None:
        self._layers = layers
        self._directory = os.path.join(layers.root, "images", "sha256")
        self._staging = os.path.join(layers.root, "tmp")

    def path(self, digest: str) -> str:
        """The file of a blob."""
        return blob_path(self._layers.root, digest)

    def read(self, digest: str) -> bytes:
        """All of a small one, checked.

        Raises:
            CorruptStoreError: it is gone, or another one.
        """
        parts: list[bytes] = []
        self.copy(digest, parts.append)
        return b"".join(parts)

    def copy(self, digest: str, write: Callable[[bytes], object]) -> None:
        """Write all of one, checked while it is read.

        Raises:
            CorruptStoreError: it is gone, or another one.
        """
        hasher = hashlib.sha256()
        with self.opened(digest) as fd:
            while piece := os.read(fd, PIECE):
                hasher.update(piece)
                write(piece)
        found = f"sha256:{hasher.hexdigest()}"
        if found != digest:
            raise CorruptStoreError(
                f"the file {self.path(digest)} is damaged: its digest is {found}",
                resolution=_DAMAGED,
            )

    @contextmanager
    def opened(self, digest: str) -> Iterator[int]:
        """One, open for reading.

        Raises:
            CorruptStoreError: it is gone.
            NotFoundError: as it should be, since the image is gone.
        """
        path = self.path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if self._layers.database.row(_NEEDED, digest) is None:
                raise NotFoundError(
                    f"{digest} went with an image that was removed meanwhile",
                    resolution="storagedrivers image ls lists those there are",
                ) from error
            raise CorruptStoreError(f"the file {path} is gone", resolution=_DAMAGED) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def has(self, digest: str, size: int) -> bool:
        """Whether an image has it already."""
        if not self._layers.database.row(_NEEDED, digest):
            return False
        try:
            return os.stat(self.path(digest), follow_symlinks=False).st_size == size
        except FileNotFoundError:
            return False

    def stage(self, digest: str) -> Staged:
        """Begin a new one."""
        os.makedirs(self._staging, mode=0o700, exist_ok=True)
        return Staged(self._staging, digest)

    def place(self, staged: Iterable[Staged]) -> None:
        """Give them their names; they are on the disk, and whoever calls holds the lock."""
        if not os.path.isdir(self._directory):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            _sync(os.path.dirname(self._directory))
        for one in staged:
            os.rename(one.path, self.path(one.digest))
        _sync(self._directory)

    def remove_unused(self, digests: Iterable[str]) -> None:
        """Remove those that no image needs any more; whoever calls holds the lock."""
        for digest in digests:
            if not self._layers.database.row(_NEEDED, digest):
                with suppress(FileNotFoundError):
                    os.unlink(self.path(digest))


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def forget(connection: sqlite3.Connection, image: str) -> list[str]:
    """Within a transaction: an image needs no file any more; returns which it needed."""
    rows = connection.execute("SELECT digest FROM image_blobs WHERE image = ?", (image,)).fetchall()
    connection.execute("DELETE FROM image_blobs WHERE image = ?", (image,))
    return [row[0] for row in rows]
