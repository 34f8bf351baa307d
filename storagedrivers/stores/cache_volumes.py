"""The volumes in which RUNs keep something from build to build: ``--mount=type=cache``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import InUseError, LockTimeoutError, NotFoundError, StorageDriversError
from storagedrivers.stores import volume_records, volume_removal

if TYPE_CHECKING:
    from storagedrivers.stores.volumes import VolumeStore

PREFIX = "build-cache-"
"""What the names of such volumes begin with."""

LABEL = "build-cache"
"""The label that such volumes have; its value is the cache's id."""


class CacheVolume(NamedTuple):
    """What RUNs keep in one volume.

    Attributes:
        name: of the volume.
        id: of the cache, as the Dockerfile has it.
        size: bytes of its files on the disk.
        created: when it was made, in seconds since the epoch.
        used: when a build had it last.
        busy: a build has it.
    """

    name: str
    id: str
    size: int
    created: float
    used: float
    busy: bool


def find(volumes: VolumeStore) -> list[CacheVolume]:
    """All of them, by name; their files are counted."""
    found = []
    for volume in volume_records.find(volumes.database):
        if volume.name.startswith(PREFIX) and LABEL in volume.labels:
            with suppress(OSError, StorageDriversError):  # somebody was faster
                found.append(
                    CacheVolume(
                        volume.name,
                        volume.labels[LABEL],
                        volumes.usage(volume.name).bytes,
                        volume.created,
                        os.stat(volumes.directory(volume.name)).st_mtime,
                        volume_removal.is_used(volumes, volume),
                    )
                )
    return found


def remove(volumes: VolumeStore, found: Iterable[CacheVolume]) -> list[CacheVolume]:
    """Remove those that no build has; which those were."""
    removed = []
    for one in found:
        with suppress(NotFoundError, InUseError, LockTimeoutError):
            volume_removal.remove(volumes, volumes.get(one.name), timeout=0)
            removed.append(one)
    return removed
