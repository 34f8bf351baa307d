"""Images: a config, a stack of layers that others share, and names.

::

    <graph root>/storagedrivers.db       the rows; what a row says is true
    <graph root>/images/sha256/<hex>     see :mod:`storagedrivers.stores.blobs`

An image's id is the digest of its config. Its row, its names and its files come in one transaction,
when all of its layers are there: there is no half image. A name belongs to one image; the one that
had it before stays, without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from storagedrivers.errors import InvalidReferenceError, NotFoundError, StoreError
from storagedrivers.oci import reference as references
from storagedrivers.stores import image_records as records
from storagedrivers.stores.image_records import Image

if TYPE_CHECKING:
    from storagedrivers.oci.config import ImageConfig
    from storagedrivers.stores.blobs import Blobs, Staged
    from storagedrivers.stores.history import HistoryEntry
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.loading import LayerProgress
    from storagedrivers.stores.untagging import Removed

__all__ = ["Image", "ImageStore"]

Write = Callable[[bytes | memoryview], object]


class NewImage(NamedTuple):
    """An image whose layers are there, and which is to get a row.

    Attributes:
        config: its config.
        layer: the id of its topmost layer, or None where it has none.
        source: ``load``, ``import``, ``commit`` or ``build``.
        names: canonical.
        manifest: its manifest, or None.
        parent: the id of the image that it was made of, or None.
        kept: digests and sizes of the compressed layers that its manifest names.
        staged: those of them that are new.
    """

    config: bytes
    layer: str | None
    source: str
    names: tuple[str, ...] = ()
    manifest: bytes | None = None
    parent: str | None = None
    kept: tuple[tuple[str, int], ...] = ()
    staged: tuple[Staged, ...] = ()


class ImageStore:
    """The images of one store.

    A reference to an image is a name (``debian``, ``debian:12``, ``debian@sha256:…`` with the
    digest of its manifest), its id, or the beginning of that.

    Example:
        >>> with tar.open("rb") as file:
        ...     image = storage.images.import_(file, name="motd:1", changes=['CMD ["sh"]'])
        >>> image.names
        ('docker.io/library/motd:1',)
        >>> storage.images.config(image).config
        {'Cmd': ['sh']}
        >>> storage.images.remove("motd:1").deleted == (image.id,)
        True

    Args:
        layers: the layers of the store.
        additional: graph roots of others; what is not found here is looked for there.
    """

    def __init__(self, layers: LayerStore, *, additional: Sequence[str] = ()) -> None:
        self.layers = layers
        self.additional = tuple(additional)
        self.database = layers.database
        self._blobs: Blobs | None = None

    @property
    def blobs(self) -> Blobs:
        """The files of the images."""
        if self._blobs is None:
            from storagedrivers.stores.blobs import Blobs

            self._blobs = Blobs(self.layers)
        return self._blobs

    # Finding

    def ls(self) -> list[Image]:
        """The images, the newest first."""
        return records.find(self.database, "ORDER BY number DESC")

    def available(self) -> dict[Image, int]:
        """The images of the additional stores that are not images of this one yet, each with its
        :meth:`size`.
        """
        from storagedrivers.stores.borrowing import available

        return available(self)

    def get(self, reference: str) -> Image:
        """The image that *reference* means.

        Raises:
            NotFoundError: none, or several; then they are named.
        """
        return self.find(reference)[0]

    def find(self, reference: str) -> tuple[Image, str | None]:
        """The image that *reference* means, and the canonical name where it is one.

        Raises:
            NotFoundError: none, or several; then they are named.
        """
        try:
            return records.find_one(self.database, reference)
        except NotFoundError:
            if not self.additional or self.database.read_only:
                raise
            from storagedrivers.stores.borrowing import borrow

            if (image := borrow(self, reference)) is None:
                raise
            try:
                return records.find_one(self.database, reference)
            except NotFoundError:  # the digest of a manifest that stayed where it was
                return image, None

    def config(self, image: Image) -> ImageConfig:
        """The config of an image.

        Raises:
            CorruptStoreError: it is damaged.
        """
        from storagedrivers.oci.config import parse_config

        return parse_config(self.blobs.read(image.id), f"the config of image {image.id}")

    def size(self, image: Image) -> int:
        """Bytes of the contents of all of its layers, also those that others share."""
        return self.sizes([image])[image.id]

    def sizes(self, images: Iterable[Image]) -> dict[str, int]:
        """:meth:`size` of each, by its id."""
        return records.sizes(self.database, images)

    def history(self, reference: str) -> list[HistoryEntry]:
        """How an image came to be, the newest first."""
        from storagedrivers.stores.history import history

        return history(self, self.get(reference))

    # Adding

    def load(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        name: str | None = None,
        platform: str | None = None,
        durability: str | None = None,
        progress: Callable[[LayerProgress], object] | None = None,
    ) -> list[Image]:
        """Load the images of an archive: of Docker, of any version, or an OCI layout.

        What was loaded until it is interrupted is not loaded again the next time. What an error
        ends leaves nothing.

        Example:
            >>> with tar.open("rb") as file:
            ...     image = storage.images.import_(file, name="motd:1")
            >>> out = io.BytesIO()
            >>> storage.images.save(["motd:1"], out.write)
            >>> _ = storage.images.remove("motd:1")
            >>> storage.images.load(io.BytesIO(out.getvalue()))[0].id == image.id
            True

        Args:
            source: a file, plain or compressed, a directory with an OCI layout, or a stream. A
                stream that is no file of its own is copied to one without a name first.
            name: given to the one image that it holds, instead of the names in it.
            platform: for which, ``linux/arm64``; by default this host's.
            durability: ``layer`` or ``none``, instead of the store's: whether its layers have
                reached the disk at the end.
            progress: is told of each layer.

        Raises:
            MalformedImageError: it is no good; names the file in it.
            UnsupportedImageError: there is none for the platform, or it is of schema 1.
            DiffError: a layer is no good.
        """
        from storagedrivers.stores.loading import load

        return load(
            self, source, name=name, platform=platform, durability=durability, progress=progress
        )

    def import_(
        self,
        stream: BinaryIO,
        *,
        name: str | None = None,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Image:
        """Make an image with one layer of the tar of a root filesystem.

        Args:
            stream: the tar, plain or compressed.
            name: for the image.
            changes: lines of a Dockerfile for its config: ``CMD ["sh"]``.
            message: a comment in its history.
            platform: that it is for; by default this host's.
            progress: gets the number of bytes read so far.

        Raises:
            DiffError: the tar is no good.
        """
        from storagedrivers.stores.importing import import_

        return import_(
            self,
            stream,
            name=name,
            changes=changes,
            message=message,
            platform=platform,
            progress=progress,
        )

    def add(
        self,
        config: bytes,
        layer: str | None,
        *,
        source: str,
        name: str | None = None,
        manifest: bytes | None = None,
        parent: str | None = None,
        lease: Lease | None = None,
        blobs: Sequence[tuple[str, int]] = (),
    ) -> Image:
        """Make an image of layers that are there. One that is there with the same id stays as it
        is, and gets the name.

        Args:
            config: its config.
            layer: the id of the topmost layer, or None.
            source: ``load``, ``import``, ``commit`` or ``build``.
            name: for the image.
            manifest: its manifest.
            parent: the id of the image it was made of.
            lease: has the layers until then; who has none may lose them to others in between.
            blobs: digests and sizes of files that are there and that the manifest names.

        Raises:
            NotFoundError: the layer is gone.
            MalformedImageError: the config is none, or does not fit the layers.
        """
        if lease is not None and layer is not None:
            lease.take(layer)
        names = () if name is None else (str(checked_name(name)),)
        new = NewImage(config, layer, source, names, manifest, parent, tuple(blobs))
        self._check_layers(new)
        return self.register([new])[0]

    def _check_layers(self, new: NewImage) -> None:
        from storagedrivers.oci.config import parse_config

        wanted = parse_config(new.config).diff_ids
        found = tuple(layer.diff_id for layer in self.layers.image_layers(new.layer))
        if found != wanted:
            raise StoreError(
                f"the config names {len(wanted)} DiffIDs, which are not those of the"
                f" {len(found)} layers up to {new.layer}"
            )

    def register(self, images: Sequence[NewImage]) -> list[Image]:
        """Make the rows, names and files of all of them at once."""
        from storagedrivers.stores.registering import register

        return [records.by_id(self.database, one) for one in register(self, images)]

    # Names

    def tag(self, reference: str, name: str) -> Image:
        """Give an image one more name; the image that had it loses it.

        Raises:
            InvalidReferenceError: it is no name, or has a digest.
            NotFoundError: there is no such image.
        """
        text = str(checked_name(name))
        image = self.get(reference)
        with self.database.transaction() as connection:
            records.require(connection, image.id)
            records.give_name(connection, text, image.id)
        return self.get(image.id)

    def untag(self, name: str) -> None:
        """Take a name away; the image stays.

        Raises:
            NotFoundError: no image has it.
        """
        text = str(checked_name(name))
        with self.database.transaction() as connection:
            records.take_name(connection, text)

    # Removing

    def remove(self, reference: str, *, force: bool = False, prune: bool = True) -> Removed:
        """Take a name away; with the last one, or by its id, the image goes. Its layers go where
        no one else has them.

        Args:
            reference: what to remove.
            force: also an image that containers use, or by its id one with several names.
            prune: also the images without names that it was built of.

        Raises:
            InUseError: it is used; names by whom.
        """
        from storagedrivers.stores.untagging import remove

        return remove(self, reference, force=force, prune=prune)

    def prune(self, *, all: bool = False, dry_run: bool = False) -> Removed:  # noqa: A002
        """Remove the images without names that no container uses.

        Args:
            all: those with names too.
            dry_run: only say which.
        """
        from storagedrivers.stores.untagging import prune

        return prune(self, everything=all, dry_run=dry_run)

    # Content

    def save(self, references: Sequence[str], write: Write, *, form: str = "docker") -> None:
        """Write images as one tar; the same images give the same bytes.

        Args:
            references: which. One that is a name is saved with it.
            write: takes the tar.
            form: ``docker``, which every version of it loads, and is an OCI layout besides; or
                ``oci``, an OCI layout only.

        Raises:
            CorruptStoreError: what the store holds is not what the image stands for.
        """
        from storagedrivers.stores.saving import save

        save(self, references, write, form=form)

    def save_layout(self, references: Sequence[str], directory: str | os.PathLike[str]) -> None:
        """Write images as an OCI layout, into a new or empty directory.

        Raises:
            AlreadyExistsError: the directory is not empty.
        """
        from storagedrivers.stores.saving import save_layout

        save_layout(self, references, os.fspath(directory))

    def export(self, reference: str, write: Write) -> None:
        """Write all that an image shows as one flat tar, without its history and config."""
        from storagedrivers.stores.saving import export

        export(self, self.get(reference), write)

    @contextmanager
    def mounted(self, reference: str) -> Iterator[Path]:
        """Have an image mounted, read-only, for the length of a ``with`` block.

        Raises:
            StoreError: it has no layers, so there is nothing to mount.
        """
        image = self.get(reference)
        if image.layer is None:
            raise StoreError(f"image {image.id} has no layers, so there is nothing to mount")
        with self.layers.mounted(image.layer) as path:
            yield path


def checked_name(name: str) -> references.Reference:
    """The name, if an image can be given it.

    Raises:
        InvalidReferenceError: it cannot.
    """
    found = references.parse(name)
    if found.digest is not None:
        raise InvalidReferenceError(
            f"{name!r} has a digest, which cannot be given", resolution="leave @sha256:… out"
        )
    if found.familiar_repository == "sha256":
        raise InvalidReferenceError(
            f"{name!r} as a name would be read as an id", resolution="choose another repository"
        )
    return found
