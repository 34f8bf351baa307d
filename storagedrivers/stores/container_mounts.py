"""The mounts of a container, as its config keeps them: made of specs, and read again.

``config["Mounts"]`` is a list in the order in which they are mounted. Each is an object with the
keys ``Type``, ``Destination`` and those of :data:`_KEYS` that say something; what is left out is
as by default. No path of the store is among them, so a moved store opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from storagedrivers.mounts.spec import MountSpec
    from storagedrivers.stores.container_records import Container

VOLUME, BIND, TMPFS = "volume", "bind", "tmpfs"


class ContainerMount(NamedTuple):
    """One mount of a container.

    Attributes:
        type: ``volume``, ``bind`` or ``tmpfs``.
        target: the absolute path in the container.
        name: of a volume.
        source: of a bind: the path of the host.
        read_only: nothing can be written through it.
        mode: the words of ``-v`` as they were given.
        propagation: of a bind: ``rslave`` and so on; empty for the default.
        recursive: of a bind: ``disabled``, ``writable``, ``readonly``; empty for the default.
        no_copy: the image's content was not to come into the volume.
        subpath: what of the volume is mounted; empty for all.
        driver: of a volume, as it was asked for.
        create_source: of a bind: a directory of the host that is missing is made.
        tmpfs_size: bytes.
        tmpfs_mode: of its root directory.
    """

    type: str
    target: str
    name: str = ""
    source: str = ""
    read_only: bool = False
    mode: str = ""
    propagation: str = ""
    recursive: str = ""
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""
    create_source: bool = False
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None


_KEYS = {
    "type": "Type",
    "target": "Destination",
    "name": "Name",
    "source": "Source",
    "mode": "Mode",
    "propagation": "Propagation",
    "recursive": "Recursive",
    "no_copy": "NoCopy",
    "subpath": "Subpath",
    "driver": "Driver",
    "create_source": "CreateSource",
    "tmpfs_size": "TmpfsSize",
    "tmpfs_mode": "TmpfsMode",
}
"""Attributes to keys. ``RW`` is the opposite of ``read_only``, and is there where it is false."""


def mounts_of(container: Container) -> list[ContainerMount]:
    """The mounts of a container, in the order in which they are mounted; not those of its
    ``Tmpfs``.
    """
    return list(map(from_json, container.config.get("Mounts") or ()))


def from_json(value: Mapping[str, Any]) -> ContainerMount:
    """The mount that an object of a config describes."""
    known = {name: value[key] for name, key in _KEYS.items() if key in value}
    return ContainerMount(**known, read_only=not value.get("RW", True))


def as_json(mount: ContainerMount) -> dict[str, Any]:
    """The object for a config."""
    found = {key: getattr(mount, name) for name, key in _KEYS.items()}
    kept = {
        key: value for key, value in found.items() if value not in ("", None) and value is not False
    }
    return {**kept, "RW": False} if mount.read_only else kept


def from_spec(spec: MountSpec, name: str = "") -> ContainerMount:
    """The mount that a spec asks for.

    Args:
        name: the volume's.
    """
    return ContainerMount(
        type=str(spec.type),
        target=spec.target,
        name=name,
        source=spec.source if spec.type == BIND else "",
        read_only=spec.read_only,
        mode=spec.mode,
        propagation=spec.propagation,
        recursive=spec.recursive,
        no_copy=spec.no_copy and spec.type == VOLUME,
        subpath=spec.subpath,
        driver=spec.driver,
        create_source=spec.create_source,
        tmpfs_size=spec.tmpfs_size,
        tmpfs_mode=spec.tmpfs_mode,
    )
