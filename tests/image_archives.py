"""Archives of images for tests, made byte by byte: Docker's forms and OCI layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from storagedrivers.oci.platforms import host_platform

OCI = "application/vnd.oci.image"
HERE = host_platform()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()  # as nobody else writes it


class Made(NamedTuple):
    """An image: its config, and its layers as tars and as they lie in an archive."""

    config: bytes
    layers: tuple[bytes, ...]
    files: tuple[bytes, ...]

    @property
    def id(self) -> str:
        return digest(self.config)

    @property
    def diff_ids(self) -> list[str]:
        return list(map(digest, self.layers))

    @property
    def manifest(self) -> bytes:
        return as_json(
            {
                "schemaVersion": 2,
                "config": descriptor(f"{OCI}.config.v1+json", self.config),
                "layers": [descriptor(f"{OCI}.layer.v1.tar", file) for file in self.files],
            }
        )

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return (self.config, self.manifest, *self.files)


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def image(*layers: bytes, files: tuple[bytes, ...] | None = None, **config: Any) -> Made:
    """An image of tars; *config* is merged into its config."""
    value = {
        "architecture": HERE.architecture,
        "os": "linux",
        "created": "2024-02-03T04:05:06.7Z",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": list(map(digest, layers))},
        "history": [{"created_by": f"step {number}"} for number in range(len(layers))],
        **config,
    }
    return Made(as_json(value), layers, layers if files is None else files)


def entry(made: Made, name: str | None = None, **more: Any) -> dict[str, Any]:
    """What an index says of an image."""
    if name is not None:
        more["annotations"] = {"io.containerd.image.name": name}
    return descriptor(f"{OCI}.manifest.v1+json", made.manifest, **more)


def index(*entries: dict[str, Any]) -> bytes:
    return as_json({"schemaVersion": 2, "manifests": list(entries)})


def layout(entries: list[dict[str, Any]], *blobs: bytes) -> dict[str, bytes]:
    """The files of an OCI layout."""
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": index(*entries),
        **{f"blobs/sha256/{digest(blob)[7:]}": blob for blob in blobs},
    }


def layout_of(made: Made, name: str | None = None) -> dict[str, bytes]:
    """The layout with one image."""
    return layout([entry(made, name)], *made.blobs)


def docker(made: Made, *names: str) -> dict[str, bytes]:
    """The files of an archive as Docker wrote it until version 24."""
    config = f"{made.id[7:]}.json"
    layers = {f"{number:064x}/layer.tar": file for number, file in enumerate(made.files)}
    listed = [{"Config": config, "RepoTags": list(names) or None, "Layers": list(layers)}]
    return {config: made.config, **layers, "manifest.json": as_json(listed)}


def tar(files: dict[str, bytes | str]) -> bytes:
    """A tar of files; a text is where a symlink leads."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            one = tarfile.TarInfo(name)
            if isinstance(data, str):
                one.type, one.linkname = tarfile.SYMTYPE, data
                archive.addfile(one)
            else:
                one.size = len(data)
                archive.addfile(one, io.BytesIO(data))
    return buffer.getvalue()


def write(files: dict[str, bytes], path: Path) -> Path:
    """Write an archive to a file, or a layout to a directory if the path has no suffix."""
    if path.suffix:
        path.write_bytes(tar(dict(files)))
        return path
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def read(data: bytes) -> dict[str, bytes]:
    """The files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            one.name: archive.extractfile(one).read()  # type: ignore[union-attr]
            for one in archive
            if one.isfile()
        }
