"""Docker's archives, as ``docker save`` wrote them until version 24, and many others do.

::

manifest.json                 [{"Config": FILE, "RepoTags": [NAME…], "Layers": [FILE…]}…]
<hex>.json                    a config
<id>/layer.tar, <hex>.tar     a layer; or a link to one
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from storagedrivers.errors import UnsupportedImageError
from storagedrivers.oci.config import ImageConfig, parse_config
from storagedrivers.oci.documents import MAX_DOCUMENT, Fields, check_document, parse_list
from storagedrivers.oci.files import Files
from storagedrivers.oci.found import Found, FoundLayer, check_platform, only_fitting, parse_name
from storagedrivers.oci.platforms import Platform
from storagedrivers.oci.reference import Reference

MANIFEST = "manifest.json"

_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?(?:sha256[:-])?([0-9a-f]{64})(?:\.json)?")


def read_docker_archive(files: Files, wanted: Platform) -> list[Found]:
    """The images of an archive.

    Raises:
        MalformedImageError: something in it is no good; names the file.
        UnsupportedImageError: none is for the platform.
    """
    return only_fitting(_read_all(files, wanted), f"{MANIFEST} in {files.name}")


def _read_all(files: Files, wanted: Platform) -> Iterator[Found | UnsupportedImageError]:
    for fields in _entries(files):
        config = _config(files, fields)
        try:
            check_platform(config, wanted, files.name)
        except UnsupportedImageError as error:
            yield error
            continue
        yield Found(config, None, _layers(files, fields, config), _names(files, fields))


def _entries(files: Files) -> list[Fields]:
    return parse_list(files.read(MANIFEST, MAX_DOCUMENT), f"{MANIFEST} in {files.name}")


def _config(files: Files, fields: Fields) -> ImageConfig:
    name = fields.text("Config")
    if not name:
        raise fields.malformed("Config", "is missing")
    raw = files.read(name, MAX_DOCUMENT)
    file = f"{name} in {files.name}"
    if by_digest := _NAMED_BY_DIGEST.fullmatch(name):
        check_document(raw, file, f"sha256:{by_digest[1]}")
    return parse_config(raw, file)


def _layers(files: Files, fields: Fields, config: ImageConfig) -> tuple[FoundLayer, ...]:
    names = fields.texts("Layers")
    if len(names) != len(config.diff_ids):
        raise fields.malformed(
            "Layers", f"lists {len(names)} layers, and the config {len(config.diff_ids)}"
        )
    return tuple(
        FoundLayer(name, files.place(name), diff_id, None)
        for name, diff_id in zip(names, config.diff_ids, strict=True)
    )


def _names(files: Files, fields: Fields) -> tuple[Reference, ...]:
    where = f"{MANIFEST} in {files.name}"
    names = (parse_name(text, where) for text in fields.texts("RepoTags"))
    return tuple(name for name in names if name is not None)


def names_by_config(files: Files) -> dict[str, tuple[Reference, ...]]:
    """The names that ``manifest.json`` gives, by the digest of the config; none without the file.

    Raises:
        MalformedImageError: it is no good.
    """
    if files.find(MANIFEST) is None:
        return {}
    return {_digest(files, fields): _names(files, fields) for fields in _entries(files)}


def _digest(files: Files, fields: Fields) -> str:
    by_digest = _NAMED_BY_DIGEST.fullmatch(fields.text("Config"))
    return f"sha256:{by_digest[1]}" if by_digest else _config(files, fields).digest
