"""Manifests and indexes: which blobs an image is made of. Pure, from bytes to values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from storagedrivers.errors import UnsupportedImageError
from storagedrivers.oci.documents import Fields, digest_of, parse_document, shown
from storagedrivers.oci.platforms import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_INDEXES = (OCI_INDEX, DOCKER_LIST)
_MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_ATTESTATION = "vnd.docker.reference.type"


class Descriptor(NamedTuple):
    """What a manifest or an index says of a blob.

    Attributes:
        media_type: what it is.
        digest: of its bytes.
        size: how many those are.
        platform: whom the image is for, if said.
        annotations: names to texts.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = {}

    @property
    def is_image(self) -> bool:
        """It is a list of manifests, a manifest, or says nothing of what it is; no attestation."""
        return (
            self.media_type in (*_INDEXES, *_MANIFESTS, "") or self.media_type.startswith(_SCHEMA_1)
        ) and _ATTESTATION not in self.annotations


class Manifest(NamedTuple):
    """One image's blobs.

    Attributes:
        raw: its bytes.
        digest: of those.
        media_type: OCI's or Docker's.
        config: the config.
        layers: the bottom one first.
    """

    raw: bytes
    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def parse_index(raw: bytes, file: str) -> tuple[Descriptor, ...] | None:
    """The entries of an index; None where *raw* is a manifest.

    Raises:
        MalformedImageError: it is neither.
    """
    fields = parse_document(raw, file)
    if not fields.has("manifests") or fields.text("mediaType") in _MANIFESTS:
        return None
    return tuple(map(_descriptor, fields.objects("manifests")))


def parse_manifest(raw: bytes, file: str) -> Manifest:
    """The manifest that *raw* is.

    Raises:
        MalformedImageError: it is none.
        UnsupportedImageError: it is one of schema 1, or no image's.
    """
    fields = parse_document(raw, file)
    if fields.value.get("schemaVersion") == 1 or fields.text("mediaType").startswith(_SCHEMA_1):
        raise UnsupportedImageError(
            f"{file} is a manifest of schema 1, which says no digest of a config",
            resolution="convert it: skopeo copy --format v2s2 …, or push it with a newer Docker",
        )
    if not fields.has("config"):
        raise fields.malformed("config", "is missing")
    config = _descriptor(fields.object("config"))
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG, ""):
        raise UnsupportedImageError(
            f"{file} is no image's: its config is {shown(config.media_type)}",
            resolution="name an archive of an image",
        )
    return Manifest(
        raw=raw,
        digest=digest_of(raw),
        media_type=fields.text("mediaType") or OCI_MANIFEST,
        config=config,
        layers=tuple(map(_descriptor, fields.objects("layers"))),
    )


def _descriptor(fields: Fields) -> Descriptor:
    platform = None
    if fields.has("platform"):
        one = fields.object("platform")
        platform = Platform(one.text("os"), one.text("architecture"), one.text("variant"))
    annotations = fields.object("annotations")
    return Descriptor(
        media_type=fields.text("mediaType"),
        digest=fields.digest("digest"),
        size=fields.number("size"),
        platform=platform,
        annotations={key: annotations.text(key) for key in annotations.value},
    )
