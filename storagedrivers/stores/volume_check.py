"""Says what is wrong with volumes, and puts it right: the part of
:mod:`storagedrivers.stores.check` and :mod:`storagedrivers.stores.repair` that is about them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.linux import tree
from storagedrivers.stores import container_records
from storagedrivers.stores import volume_records as records
from storagedrivers.stores.check import Finding, Remedy, Severity
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.model import Volume
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.volumes import VolumeStore


def find(store: LayerStore) -> Iterator[Finding]:
    """Volumes whose directories are lost, and containers whose volumes are."""
    for volume in records.find(store.database):
        path = os.path.join(store.root, "volumes", volume.name, DATA)
        if not os.path.isdir(path) and records.find(store.database, "name = ?", volume.name):
            yield Finding(
                "missing-volume-directory",
                Severity.ERROR,
                "",
                path,
                f"the directory of volume {volume.name} is missing, with what it held",
                "storagedrivers repair --yes makes an empty one; then import what was exported",
                Remedy.ANEW,
                volume,
            )
    yield from _without_volume(store)


def make_anew(volumes: VolumeStore, volume: Volume) -> None:
    """Make the directory of a volume that has lost it: it is empty, and can be mounted."""
    from storagedrivers.stores import volume_making

    data = volumes.data(volume.name)
    with volumes.locked(volume.name):
        if os.path.isdir(data):
            return
        volumes.get(volume.name)
        if not os.path.isdir(directory := volumes.directory(volume.name)):
            os.makedirs(volumes.home, mode=0o700, exist_ok=True)
            volume_making.lay(volumes, volume)
            return
        with tree.opened_directory(directory) as fd:  # its driver's files may be all there is
            volume_making.make_data(fd, DATA)
            volumes.driver_for(volume.driver).limit(volume, Path(data))
            os.fsync(fd)


def _without_volume(store: LayerStore) -> Iterator[Finding]:
    query = "WHERE state = 'ready' ORDER BY number"
    for container in container_records.find(store.database, query):
        for one in container.config.get("Mounts") or ():
            name = str(one.get("Name") or "")
            if one.get("Type") != "volume" or records.state(store.database, name) is not None:
                continue
            if container_records.find(store.database, "WHERE id = ?", container.id):
                yield Finding(
                    "missing-volume",
                    Severity.ERROR,
                    "",
                    os.path.join(store.root, "volumes", name),
                    f"container {container.name} uses the volume {name}, which is gone",
                    f"storagedrivers volume create {name}",
                    Remedy.NONE,
                )
