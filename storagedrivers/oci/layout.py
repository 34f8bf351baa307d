"""OCI image layouts, in a directory or a tar; Docker's archives since version 25 are ones, too.

::

oci-layout                    {"imageLayoutVersion": "1.0.0"}
index.json                    which manifests, or indexes of manifests, there are
blobs/sha256/<hex>            everything, by digest
manifest.json                 Docker's, see :mod:`storagedrivers.oci.docker`; here for its names
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from storagedrivers.errors import MalformedImageError, UnsupportedImageError
from storagedrivers.oci.config import ImageConfig, parse_config
from storagedrivers.oci.docker import names_by_config
from storagedrivers.oci.documents import MAX_DOCUMENT, check_document, parse_document, shown
from storagedrivers.oci.files import Files, Place
from storagedrivers.oci.found import (
    Found,
    FoundLayer,
    check_platform,
    only_fitting,
    other_platforms,
    parse_name,
)
from storagedrivers.oci.manifest import (
    NAME,
    REF_NAME,
    Descriptor,
    Manifest,
    parse_index,
    parse_manifest,
)
from storagedrivers.oci.platforms import Platform, choose
from storagedrivers.oci.reference import Reference

INDEX = "index.json"
VERSION = "oci-layout"

_DEEPEST = 8  # indexes in indexes
_LEFT_OUT = re.compile(r"foreign|nondistributable")


def blob_path(digest: str) -> str:
    """The name of a blob's file."""
    return f"blobs/sha256/{digest.partition(':')[2]}"


def read_layout(files: Files, wanted: Platform) -> list[Found]:
    """The images of a layout that are for the platform; those of one manifest are one.

    Raises:
        MalformedImageError: something in it is no good; names the file.
        UnsupportedImageError: none is for the platform.
    """
    _check_version(files)
    raw = files.read(INDEX, MAX_DOCUMENT)
    entries = parse_index(raw, f"{INDEX} in {files.name}")
    if entries is None:
        raise MalformedImageError(f"{INDEX} in {files.name} is no index")
    found: dict[str, Found] = {}
    where = f"{INDEX} in {files.name}"
    for one in only_fitting(_read_all(files, entries, wanted), where):
        assert one.manifest is not None
        before = found.get(one.manifest.digest)
        names = (*before.names, *one.names) if before else one.names
        found[one.manifest.digest] = one._replace(names=names)
    more = names_by_config(files)
    return [
        one._replace(names=tuple(dict.fromkeys((*one.names, *more.get(one.config.digest, ())))))
        for one in found.values()
    ]


def _check_version(files: Files) -> None:
    if files.find(VERSION) is None:
        return
    file = f"{VERSION} in {files.name}"
    fields = parse_document(files.read(VERSION, MAX_DOCUMENT), file)
    version = fields.text("imageLayoutVersion")
    if not version.startswith("1."):
        raise UnsupportedImageError(f"{file} says version {shown(version)}, and 1 is known")


def _read_all(
    files: Files, entries: Sequence[Descriptor], wanted: Platform
) -> Iterator[Found | UnsupportedImageError]:
    for group in _groups([one for one in entries if one.is_image]):
        try:
            manifest = _chosen(files, group, wanted, files.name)
            config = _config(files, manifest)
            check_platform(config, wanted, files.name)
        except UnsupportedImageError as error:
            yield error
            continue
        names = tuple(one for one in [_name(files, group[0])] if one is not None)
        yield Found(config, manifest, _layers(files, manifest, config), names)


def _groups(entries: Sequence[Descriptor]) -> Iterator[list[Descriptor]]:
    """The entries of each image: those of one name, for several platforms. Without a name, all are
    of one image if each is for another platform, and else each is of its own.
    """
    named: dict[str, list[Descriptor]] = {}
    for one in entries:
        named.setdefault(_text_name(one), []).append(one)
    nameless = named.pop("", [])
    yield from named.values()
    platforms = {one.platform for one in nameless}
    if len(nameless) > 1 and len(platforms) == len(nameless) and None not in platforms:
        yield nameless
    else:
        yield from ([one] for one in nameless)


def _text_name(entry: Descriptor) -> str:
    return entry.annotations.get(NAME) or entry.annotations.get(REF_NAME) or ""


def _name(files: Files, entry: Descriptor) -> Reference | None:
    """A lone word in the other annotation is a tag, and nobody says of what."""
    text = _text_name(entry)
    if not entry.annotations.get(NAME) and not set(text) & set(":/"):
        return None
    return parse_name(text, f"{INDEX} in {files.name}")


def _chosen(
    files: Files, entries: Sequence[Descriptor], wanted: Platform, where: str, depth: int = 0
) -> Manifest:
    """The manifest for the platform, through indexes of indexes."""
    if depth > _DEEPEST:
        raise MalformedImageError(f"{where} is an index in more than {_DEEPEST} others")
    number = choose(wanted, [one.platform for one in entries])
    if number is None:
        raise other_platforms(where, wanted, [one.platform for one in entries])
    descriptor = entries[number]
    raw = _document(files, descriptor)
    file = f"{blob_path(descriptor.digest)} in {files.name}"
    listed = parse_index(raw, file)
    if listed is None:
        return parse_manifest(raw, file)
    return _chosen(files, [one for one in listed if one.is_image], wanted, file, depth + 1)


def _document(files: Files, descriptor: Descriptor) -> bytes:
    name = blob_path(descriptor.digest)
    _sized(files, descriptor)
    raw = files.read(name, MAX_DOCUMENT)
    return check_document(raw, f"{name} in {files.name}", descriptor.digest)


def _config(files: Files, manifest: Manifest) -> ImageConfig:
    raw = _document(files, manifest.config)
    return parse_config(raw, f"{blob_path(manifest.config.digest)} in {files.name}")


def _layers(files: Files, manifest: Manifest, config: ImageConfig) -> tuple[FoundLayer, ...]:
    if len(manifest.layers) != len(config.diff_ids):
        raise MalformedImageError(
            f"{blob_path(manifest.digest)} in {files.name} lists {len(manifest.layers)} layers,"
            f" and its config {len(config.diff_ids)}"
        )
    return tuple(
        FoundLayer(blob_path(one.digest), _layer(files, one), diff_id, one.digest)
        for one, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )


def _layer(files: Files, descriptor: Descriptor) -> Place:
    name = blob_path(descriptor.digest)
    if descriptor.media_type.endswith("+encrypted"):
        raise UnsupportedImageError(
            f"{name} in {files.name} is encrypted",
            resolution="decrypt it: skopeo copy --decryption-key …",
        )
    if _LEFT_OUT.search(descriptor.media_type) and files.find(name) is None:
        raise UnsupportedImageError(
            f"{name} is a layer that is to be got elsewhere, and {files.name} holds it not",
            resolution="have the image saved with all its layers",
        )
    return _sized(files, descriptor)


def _sized(files: Files, descriptor: Descriptor) -> Place:
    name = blob_path(descriptor.digest)
    place = files.place(name)
    if place.size != descriptor.size:
        raise MalformedImageError(
            f"{name} in {files.name} has {place.size} bytes, and {descriptor.size} are announced",
            resolution="get it again, it is incomplete",
        )
    return place
