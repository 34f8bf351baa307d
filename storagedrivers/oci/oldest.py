"""The archives of Docker before version 1.10, which know no config and no DiffIDs.

::

    repositories                  {NAME: {TAG: ID}}
    <id>/json                     what one step has added, with the id of the one before it
    <id>/layer.tar                its layer

Their configs are made here, as Docker makes them; the layers are read once more for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from storagedrivers.errors import DiffError, MalformedImageError, UnsupportedImageError
from storagedrivers.oci.config import parse_config
from storagedrivers.oci.documents import MAX_DOCUMENT, Fields, parse_document, write_document
from storagedrivers.oci.files import Files, Slice, uncompressed
from storagedrivers.oci.found import Found, FoundLayer, check_platform, only_fitting, parse_name
from storagedrivers.oci.platforms import Platform
from storagedrivers.oci.reference import Reference

_REPOSITORIES = "repositories"
_ID = re.compile(r"[0-9a-f]{64}")
_DEEPEST = 128  # steps
_MAX_LAYER = 256 << 30  # bytes, uncompressed
_LEFT_OUT = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")


def read_oldest_archive(files: Files, wanted: Platform) -> list[Found]:
    """The images of an archive.

    Raises:
        MalformedImageError: something in it is no good; names the file.
        UnsupportedImageError: none is for the platform.
    """
    return only_fitting(_read_all(files, wanted), f"{_REPOSITORIES} in {files.name}")


def _read_all(files: Files, wanted: Platform) -> Iterator[Found | UnsupportedImageError]:
    diff_ids: dict[str, str] = {}  # images of one archive have layers in common
    for image, names in _names(files).items():
        described = dict([*_steps(files, image)][::-1])
        steps = [*described]
        for step in steps:
            if step not in diff_ids:
                diff_ids[step] = _diff_id(files, f"{step}/layer.tar")
        config = parse_config(_made_config(described, diff_ids), f"{image}/json in {files.name}")
        try:
            check_platform(config, wanted, files.name)
        except UnsupportedImageError as error:
            yield error
            continue
        layers = (_layer(files, f"{step}/layer.tar", diff_ids[step]) for step in steps)
        yield Found(config, None, tuple(layers), names)


def _layer(files: Files, name: str, diff_id: str) -> FoundLayer:
    return FoundLayer(name, files.place(name), diff_id, None)


def _names(files: Files) -> dict[str, tuple[Reference, ...]]:
    """The names of each image, by the id of its last step."""
    where = f"{_REPOSITORIES} in {files.name}"
    fields = parse_document(files.read(_REPOSITORIES, MAX_DOCUMENT), where)
    found: dict[str, tuple[Reference, ...]] = {}
    for repository in fields.value:
        tags = fields.object(repository)
        for tag in tags.value:
            image = _checked_id(tags.text(tag), where)
            name = parse_name(f"{repository}:{tag}", where)
            found[image] = (*found.get(image, ()), *([name] if name else []))
    return found


def _checked_id(text: str, where: str) -> str:
    if not _ID.fullmatch(text):
        raise MalformedImageError(f"{where}: {text[:100]!r} is no id")
    return text


def _step(files: Files, step: str) -> Fields:
    name = f"{step}/json"
    return parse_document(files.read(name, MAX_DOCUMENT), f"{name} in {files.name}")


def _steps(files: Files, image: str) -> Iterator[tuple[str, Fields]]:
    """From the last one to the first."""
    step = image
    for _ in range(_DEEPEST):
        fields = _step(files, step)
        yield step, fields
        parent = fields.text("parent")
        if not parent:
            return
        step = _checked_id(parent, f"{step}/json in {files.name}")
    raise MalformedImageError(f"{image} in {files.name} has more than {_DEEPEST} steps")


def _made_config(steps: dict[str, Fields], diff_ids: dict[str, str]) -> bytes:
    value: dict[str, Any] = {}
    history = []
    for fields in steps.values():
        value = {key: one for key, one in fields.value.items() if key not in _LEFT_OUT}
        history.append(_history(fields))
    value["rootfs"] = {"type": "layers", "diff_ids": [diff_ids[step] for step in steps]}
    value["history"] = history
    return write_document(value)


def _history(fields: Fields) -> dict[str, str]:
    entry = {
        "created": fields.text("created"),
        "created_by": " ".join(fields.object("container_config").texts("Cmd")),
        "author": fields.text("author"),
        "comment": fields.text("comment"),
    }
    return {key: value for key, value in entry.items() if value}


def _diff_id(files: Files, name: str) -> str:
    """The digest of a layer's tar, uncompressed."""
    hasher = hashlib.sha256()
    place = files.place(name)
    try:
        with place.opened() as fd:
            stream = Slice(fd, place.offset, place.size, f"{name} in {files.name}")
            for piece in uncompressed(stream, limit=_MAX_LAYER):
                hasher.update(piece)
    except DiffError as error:
        raise MalformedImageError(f"{name} in {files.name}: {error}") from error
    return f"sha256:{hasher.hexdigest()}"
