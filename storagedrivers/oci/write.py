"""Writes images: as a tar that Docker of any version and all that know OCI layouts read, or as an
OCI layout. The same images give the same bytes: no time, no order of chance.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from storagedrivers.archive.header import BLOCK
from storagedrivers.archive.writer import DIRECTORY, REGULAR, Header, encode
from storagedrivers.errors import CorruptStoreError
from storagedrivers.oci.config import ImageConfig
from storagedrivers.oci.docker import MANIFEST
from storagedrivers.oci.documents import digest_of, write_document
from storagedrivers.oci.layout import INDEX, VERSION, blob_path
from storagedrivers.oci.manifest import (
    NAME,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Manifest,
    parse_manifest,
)
from storagedrivers.oci.reference import Reference

Write = Callable[[bytes | memoryview], object]
Produce = Callable[[Write], object]


class OutgoingLayer(NamedTuple):
    """A layer that is to be written.

    Attributes:
        digest: of its file.
        size: of its file.
        produce: writes the file.
        plain: the same without its compression, where not every Docker knows that.
    """

    digest: str
    size: int
    produce: Produce
    plain: OutgoingLayer | None = None


class Outgoing(NamedTuple):
    """An image that is to be written.

    Attributes:
        config: its config.
        manifest: its manifest.
        layers: the bottom one first.
        names: that it gets.
    """

    config: ImageConfig
    manifest: Manifest
    layers: tuple[OutgoingLayer, ...]
    names: tuple[Reference, ...]


def make_manifest(config: ImageConfig, layers: Sequence[tuple[str, int]]) -> Manifest:
    """A manifest of layers that are not compressed.

    Args:
        config: the config.
        layers: their digests and sizes.
    """
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(OCI_CONFIG, config.digest, len(config.raw)),
        "layers": [_descriptor(OCI_LAYER, digest, size) for digest, size in layers],
    }
    return parse_manifest(write_document(value), "the manifest")


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


class Sink(ABC):
    """Where files go."""

    @abstractmethod
    def put(self, name: str, size: int, produce: Produce) -> None:
        """Write a file that has *size* bytes."""

    @abstractmethod
    def directory(self, name: str) -> None:
        """Make a directory."""

    def document(self, name: str, data: bytes) -> None:
        """Write a file that is at hand."""
        self.put(name, len(data), lambda write: write(data))

    @abstractmethod
    def finish(self) -> None:
        """Everything is written."""


class TarSink(Sink):
    """A tar."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def put(self, name: str, size: int, produce: Produce) -> None:
        """See :meth:`Sink.put`."""
        self._write(encode(Header(name.encode(), REGULAR, 0o644, size=size)))
        counted = _Counted(self._write)
        produce(counted)
        counted.check(name, size)
        self._write(bytes(-size % BLOCK))

    def directory(self, name: str) -> None:
        """See :meth:`Sink.directory`."""
        self._write(encode(Header(name.encode() + b"/", DIRECTORY, 0o755)))

    def finish(self) -> None:
        """See :meth:`Sink.finish`."""
        self._write(bytes(2 * BLOCK))


class DirectorySink(Sink):
    """A directory that is there and empty."""

    def __init__(self, path: str) -> None:
        self._path = path

    def put(self, name: str, size: int, produce: Produce) -> None:
        """See :meth:`Sink.put`."""
        with open(os.path.join(self._path, name), "xb", buffering=0) as file:

            def write(data: bytes | memoryview) -> None:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]

            counted = _Counted(write)
            produce(counted)
            counted.check(name, size)

    def directory(self, name: str) -> None:
        """See :meth:`Sink.directory`."""
        os.mkdir(os.path.join(self._path, name), 0o755)

    def finish(self) -> None:
        """See :meth:`Sink.finish`."""


class _Counted:
    """Says when a file gets another length than was announced."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._count = 0

    def __call__(self, data: bytes | memoryview) -> None:
        self._count += len(data)
        self._write(data)

    def check(self, name: str, size: int) -> None:
        if self._count != size:
            raise CorruptStoreError(
                f"{name} got {self._count} bytes, and its size is {size}",
                resolution="storagedrivers check --deep says what changed",
            )


def write_images(images: Sequence[Outgoing], sink: Sink, *, docker: bool) -> None:
    """Write images, what they have in common once.

    Args:
        images: which.
        sink: where.
        docker: also what Docker before 25 reads.
    """
    sink.document(VERSION, write_document({"imageLayoutVersion": "1.0.0"}))
    sink.document(INDEX, write_document(_index(images)))
    if docker:
        sink.document(MANIFEST, write_document([_docker_entry(image) for image in images]))
        sink.document("repositories", write_document(_repositories(images)))
    sink.directory("blobs")
    sink.directory("blobs/sha256")
    written: set[str] = set()
    for image in images:
        for data in (image.manifest.raw, image.config.raw):
            if (digest := digest_of(data)) not in written:
                written.add(digest)
                sink.document(blob_path(digest), data)
        plain = [layer.plain for layer in image.layers if docker and layer.plain]
        for layer in (*image.layers, *plain):
            if layer.digest not in written:
                written.add(layer.digest)
                sink.put(blob_path(layer.digest), layer.size, layer.produce)
    sink.finish()


def _index(images: Sequence[Outgoing]) -> dict[str, Any]:
    entries = []
    for image in images:
        entry = _descriptor(
            image.manifest.media_type, image.manifest.digest, len(image.manifest.raw)
        )
        config = image.config
        entry["platform"] = {"architecture": config.architecture, "os": config.os}
        if config.variant:
            entry["platform"]["variant"] = config.variant
        entries += [{**entry, "annotations": _annotations(name)} for name in image.names] or [entry]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}


def _annotations(name: Reference) -> dict[str, str]:
    return {NAME: str(name), REF_NAME: name.tag or ""}


def _docker_entry(image: Outgoing) -> dict[str, Any]:
    return {
        "Config": blob_path(image.config.digest),
        "RepoTags": [name.familiar for name in image.names] or None,
        "Layers": [blob_path((layer.plain or layer).digest) for layer in image.layers],
    }


def _repositories(images: Sequence[Outgoing]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for image in images:
        for name in image.names:
            top = image.layers[-1].digest if image.layers else image.config.digest
            tags = found.setdefault(name.familiar_repository, {})
            tags[name.tag or ""] = top.partition(":")[2]
    return found
