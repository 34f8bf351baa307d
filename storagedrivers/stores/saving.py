"""How images go out: with all that they are made of, or flat."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from storagedrivers.errors import AlreadyExistsError, CorruptStoreError, StoreError
from storagedrivers.oci import reference as references
from storagedrivers.oci.config import ImageConfig
from storagedrivers.oci.manifest import Descriptor, Manifest, parse_manifest
from storagedrivers.oci.write import (
    DirectorySink,
    Outgoing,
    OutgoingLayer,
    TarSink,
    make_manifest,
    write_images,
)
from storagedrivers.stores import content

if TYPE_CHECKING:
    from storagedrivers.stores.image_records import Image
    from storagedrivers.stores.images import ImageStore
    from storagedrivers.stores.records import Layer

Write = Callable[[bytes | memoryview], object]

FORMS = ("docker", "oci")


def save(store: ImageStore, wanted: Sequence[str], write: Write, *, form: str) -> None:
    """See :meth:`ImageStore.save`."""
    if form not in FORMS:
        raise StoreError(
            f"there is no form {form!r} of an archive", resolution=f"forms are {', '.join(FORMS)}"
        )
    with ExitStack() as stack:
        write_images(_outgoing(store, wanted, stack), TarSink(write), docker=form == "docker")


def save_layout(store: ImageStore, wanted: Sequence[str], directory: str) -> None:
    """See :meth:`ImageStore.save_layout`."""
    with ExitStack() as stack:
        images = _outgoing(store, wanted, stack)
        made = not os.path.isdir(directory)
        if made:
            os.mkdir(directory)
        elif os.listdir(directory):
            raise AlreadyExistsError(
                f"the directory {directory} is not empty", resolution="name a new one"
            )
        try:
            write_images(images, DirectorySink(directory), docker=False)
        except BaseException:
            _empty(directory, made=made)
            raise


def _empty(directory: str, *, made: bool) -> None:
    """Take back what was written."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    if made:
        os.rmdir(directory)


def _outgoing(store: ImageStore, wanted: Sequence[str], stack: ExitStack) -> list[Outgoing]:
    """The images, each once with the names by which it was asked for; they stay until the end."""
    found: dict[str, tuple[Image, list[str]]] = {}
    for one in wanted:
        image, name = store.find(one)
        _, names = found.setdefault(image.id, (image, []))
        if name is not None and name not in names:
            names.append(name)
    if not store.database.read_only:
        lease = stack.enter_context(store.layers.leased())
        for image, _ in found.values():
            if image.layer is not None:
                lease.take(image.layer)
    return [_one(store, image, names) for image, names in found.values()]


def _one(store: ImageStore, image: Image, names: Sequence[str]) -> Outgoing:
    config = store.config(image)
    layers = store.layers.image_layers(image.layer)
    if len(layers) != len(config.diff_ids):
        raise CorruptStoreError(
            f"image {image.id} has {len(layers)} layers, and its config names"
            f" {len(config.diff_ids)}",
            resolution="load it again: storagedrivers image load",
        )
    manifest = _manifest(store, image, config, layers)
    return Outgoing(
        config,
        manifest,
        tuple(
            OutgoingLayer(
                one.digest, one.size, _producer(store, one.digest, layer), _plain(store, one, layer)
            )
            for one, layer in zip(manifest.layers, layers, strict=True)
        ),
        tuple(references.parse(name) for name in names),
    )


def _manifest(
    store: ImageStore, image: Image, config: ImageConfig, layers: Sequence[Layer]
) -> Manifest:
    if image.manifest is not None:
        raw = store.blobs.read(image.manifest)
        return parse_manifest(raw, f"the manifest of image {image.id}")
    sizes = []
    for layer, diff_id in zip(layers, config.diff_ids, strict=True):
        if layer.diff_size is None or layer.diff_id != diff_id:
            raise CorruptStoreError(
                f"layer {layer.id} is {layer.diff_id}, and image {image.id} needs {diff_id}"
            )
        sizes.append((diff_id, layer.diff_size))
    return make_manifest(config, sizes)


def _producer(store: ImageStore, digest: str, layer: Layer) -> Callable[[Write], object]:
    """What writes a layer's file: the tar that came in, or the compressed one that was kept."""
    if digest == layer.diff_id:
        return partial(store.layers.export, layer.id)
    return partial(store.blobs.copy, digest)


def _plain(store: ImageStore, one: Descriptor, layer: Layer) -> OutgoingLayer | None:
    """The tar of a layer whose file Docker before 23 cannot read: it knows no zstd."""
    if not one.media_type.endswith("zstd"):
        return None
    assert layer.diff_id is not None
    assert layer.diff_size is not None
    produce = partial(store.layers.export, layer.id)
    return OutgoingLayer(layer.diff_id, layer.diff_size, produce)


def export(store: ImageStore, image: Image, write: Write) -> None:
    """See :meth:`ImageStore.export`."""
    from storagedrivers.archive.pack import pack
    from storagedrivers.archive.writer import TarWriter

    if image.layer is None:
        TarWriter(write).finish()
        return
    with content.view(store.layers, image.layer) as fd:
        pack(fd, None, None, write)
