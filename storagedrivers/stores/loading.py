"""How images come in from archives and layouts.

Nothing is unpacked on the way: a tar is indexed by its headers, and each layer is read where it
lies, once, while it is hashed and unpacked. A layer that is there already is not read at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from storagedrivers.archive.compression import MAGIC_LENGTH, compression_of
from storagedrivers.errors import (
    DepthExceededError,
    DiffError,
    MalformedImageError,
    NotFoundError,
    StorageDriversError,
    StoreError,
)
from storagedrivers.oci.files import ArchiveFiles, DirectoryFiles, Files, Slice, uncompressed
from storagedrivers.oci.found import Found, FoundLayer, find_images
from storagedrivers.oci.platforms import host_platform, parse_platform
from storagedrivers.stores import image_records
from storagedrivers.stores.blobs import Staged
from storagedrivers.stores.images import NewImage, checked_name
from storagedrivers.stores.making import MAX_DEPTH
from storagedrivers.stores.records import Durability

if TYPE_CHECKING:
    from storagedrivers.stores.images import Image, ImageStore
    from storagedrivers.stores.leases import Lease

_MAX_ARCHIVE = 1 << 40  # bytes that a compressed archive may become


class LayerProgress(NamedTuple):
    """How far a layer is.

    Attributes:
        layer: its DiffID, or the name of its file where nobody has said one.
        done: bytes of its file that were read.
        total: how many it has.
        state: ``present``: it was there; ``adding``; ``done``.
    """

    layer: str
    done: int
    total: int
    state: str


Progress = Callable[[LayerProgress], object]


def load(
    store: ImageStore,
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None,
    platform: str | None,
    durability: str | None,
    progress: Progress | None,
) -> list[Image]:
    """See :meth:`ImageStore.load`."""
    given = None if name is None else checked_name(name)
    wanted = host_platform() if platform is None else parse_platform(platform)
    with _opened(store, source) as files:
        found = find_images(files, wanted)
        if given is not None:
            if len(found) > 1:
                raise StoreError(
                    f"{files.name} holds {len(found)} images, and {name!r} can be one's only",
                    resolution="load them with the names that they have, then: image tag",
                )
            found = [found[0]._replace(names=(given,))]
        for one in found:
            _check_depth(one, files)
        with _Loading(store, durability, progress or _ignore) as loading:
            return loading.run(found, files)


def _ignore(_: object) -> None:
    pass


def _check_depth(found: Found, files: Files) -> None:
    if len(found.layers) > MAX_DEPTH:
        raise DepthExceededError(
            f"the image in {files.name} has {len(found.layers)} layers,"
            f" and {MAX_DEPTH} is the limit",
            resolution="have it rebuilt with fewer",
        )


# Where it comes from


@contextmanager
def _opened(store: ImageStore, source: str | os.PathLike[str] | BinaryIO) -> Iterator[Files]:
    """The files of an archive; one that can only be read from front to end is copied first."""
    with ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            name = os.fspath(source)
            if os.path.isdir(name):
                directory = DirectoryFiles(name)
                stack.callback(directory.close)
                yield directory
                return
            stream: BinaryIO = stack.enter_context(open(name, "rb", buffering=0))
        else:
            stream, name = source, "the archive"
        fd, start = _seekable(store, stream, name, stack)
        yield ArchiveFiles(fd, name, offset=start)


def _seekable(store: ImageStore, stream: BinaryIO, name: str, stack: ExitStack) -> tuple[int, int]:
    """An uncompressed tar in a file: its descriptor, and where it begins."""
    start = _place_in_file(stream)
    if start is not None:
        head = os.pread(stream.fileno(), MAGIC_LENGTH, start)
        if compression_of(head) == "none":
            return stream.fileno(), start
    fd = _unnamed_file(store)
    stack.callback(os.close, fd)
    try:
        _copy(stream, fd)
    except DiffError as error:
        raise MalformedImageError(f"{name}: {error}", resolution=error.resolution) from error
    return fd, 0


def _place_in_file(stream: BinaryIO) -> int | None:
    """Where a stream is in a regular file; None where it is none."""
    try:
        fd = stream.fileno()
        return stream.tell() if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:  # among them io.UnsupportedOperation
        return None


def _unnamed_file(store: ImageStore) -> int:
    directory = os.path.join(store.layers.root, "tmp")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, f"archive-{os.urandom(8).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with suppress(FileNotFoundError):  # gc saw it, and took it for one that was left
        os.unlink(path)
    return fd


def _copy(stream: BinaryIO, fd: int) -> None:
    """Write a stream to a file, uncompressed."""
    for piece in uncompressed(stream, limit=_MAX_ARCHIVE):
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


# Images


class _Incoming:
    """A layer's file on its way in; what is read is kept too, where that is wanted."""

    def __init__(self, stream: Slice, kept: Staged | None) -> None:
        self._stream = stream
        self._kept = kept
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._stream.read(size)
        self.count += len(data)
        if self._kept is not None:
            self._kept.write(data)
        return data


class _Loading:
    """The images of one archive on their way in."""

    def __init__(self, store: ImageStore, durability: str | None, progress: Progress) -> None:
        self._store = store
        self._durability = durability
        self._progress = progress
        self._stack = ExitStack()
        self._made: list[str] = []  # layers that were not there

    def __enter__(self) -> _Loading:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stack.close()
        # What was interrupted finds its layers the next time; what failed leaves nothing.
        if kind is not None and issubclass(kind, (StorageDriversError, OSError)):
            for layer in reversed(self._made):
                with suppress(StorageDriversError, OSError):
                    self._store.layers.release(layer)

    def run(self, found: Sequence[Found], files: Files) -> list[Image]:
        """Load them."""
        with self._store.layers.leased() as lease:
            images = self._store.register([self._prepared(one, files, lease) for one in found])
        return list({image.id: image for image in images}.values())

    def _prepared(self, found: Found, files: Files, lease: Lease) -> NewImage:
        kept = tuple(layer for layer in found.layers if _is_kept(layer))
        staged: list[Staged] = []
        layer = self._there(found, lease)
        if layer is None:
            for one in found.layers:
                layer = self._add(one, layer, files, lease, staged)
        else:
            self._bring_to_disk(layer)
            for one in found.layers:
                self._report(one, 0, "present")
        for one in kept:
            if all(one.digest != other.digest for other in staged):
                self._keep(one, files, staged)
        return NewImage(
            found.config.raw,
            layer,
            "load",
            tuple(map(str, found.names)),
            None if found.manifest is None else found.manifest.raw,
            None,
            tuple((one.digest or "", one.place.size) for one in kept),
            tuple(staged),
        )

    def _there(self, found: Found, lease: Lease) -> str | None:
        """The topmost layer of the image, if the image is there; it stays there then."""
        images = image_records.find(self._store.database, "WHERE id = ?", found.config.digest)
        if not images or images[0].layer is None or self._is_quarantined(images[0]):
            return None
        with suppress(NotFoundError):
            lease.take(images[0].layer)
            return images[0].layer
        return None

    def _bring_to_disk(self, layer: str) -> None:
        """What is there may have been loaded with less durability than is asked for now."""
        layers = self._store.layers
        waits = layers.durable(self._durability) is Durability.LAYER
        if waits and not all(one.durable for one in layers.image_layers(layer)):
            layers.sync()

    def _is_quarantined(self, image: Image) -> bool:
        """Whether a layer has lost something: then the image gets new ones."""
        chain = self._store.layers.image_layers(image.layer)
        return image.source == "load" and any(layer.chain_id is None for layer in chain)

    def _add(
        self,
        layer: FoundLayer,
        parent: str | None,
        files: Files,
        lease: Lease,
        staged: list[Staged],
    ) -> str:
        kept = self._stage(layer) if _is_kept(layer) else None
        name = f"{layer.name} in {files.name}"
        with layer.place.opened() as fd:
            if kept is not None and kept.clone(fd, layer.place.offset, layer.place.size):
                incoming = _Incoming(Slice(kept.fd, 0, kept.size, name), None)
            else:
                offset, size = layer.place.offset, layer.place.size
                incoming = _Incoming(Slice(fd, offset, size, name), kept)
            added = self._added(layer, parent, incoming, name, lease)
        if incoming.count:
            self._made.append(added)
        if kept is not None:
            if incoming.count < layer.place.size:  # it was there, and nobody has read the file
                kept.fill(layer.place, name)
            staged.append(kept)
        self._report(layer, layer.place.size, "done" if incoming.count else "present")
        return added

    def _added(
        self,
        layer: FoundLayer,
        parent: str | None,
        incoming: _Incoming,
        name: str,
        lease: Lease,
    ) -> str:
        try:
            return self._store.layers.add(
                cast("BinaryIO", incoming),
                parent=parent,
                diff_id=layer.diff_id,
                digest=layer.digest,
                durability=self._durability,
                progress=lambda done: self._report(layer, done, "adding"),
                held=False,
                lease=lease,
            ).id
        except DiffError as error:
            error.brief = f"{name}: {error.brief}"
            error.args = (error.brief,)
            raise

    def _stage(self, layer: FoundLayer) -> Staged | None:
        """A new file for what is to be kept; None where it is kept already."""
        assert layer.digest is not None
        if self._store.blobs.has(layer.digest, layer.place.size):
            return None
        one = self._store.blobs.stage(layer.digest)
        self._stack.callback(one.drop)
        return one

    def _keep(self, layer: FoundLayer, files: Files, staged: list[Staged]) -> None:
        one = self._stage(layer)
        if one is not None:
            one.fill(layer.place, f"{layer.name} in {files.name}")
            staged.append(one)

    def _report(self, layer: FoundLayer, done: int, state: str) -> None:
        name = layer.diff_id or layer.name
        self._progress(LayerProgress(name, done, layer.place.size, state))


def _is_kept(layer: FoundLayer) -> bool:
    """Whether the file itself is kept: the tar can be made again, compression cannot."""
    return layer.digest is not None and layer.digest != layer.diff_id
