"""Volumes as they will be when a mount's turn comes, while a plan is made."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.model import Volume
from storagedrivers.stores import volume_mounting
from storagedrivers.stores.plans import Owner

if TYPE_CHECKING:
    from storagedrivers.mounts.spec import MountSpec
    from storagedrivers.stores.volumes import VolumeStore

NEW = 0o755
"""The mode of a data directory, and of a directory of the host that is made."""


class KnownVolume:
    """A volume as it will be when the next mount's turn comes.

    Attributes:
        volume: as it is now; None where it has to be made.
        planned: it was part of a mount before.
        full: whether it will hold something; None where nobody has looked.
        owner: of its data directory, where the plan gives it one.
        path: where its files can be looked at; empty where there are none, None where the image's
            will be there.
    """

    def __init__(self, store: VolumeStore, spec: MountSpec, volume: Volume | None) -> None:
        self._store = store
        self.volume = volume
        self.planned = False
        self.full: bool | None = None
        self.owner = None if volume is not None else Owner(os.geteuid(), os.getegid(), NEW)
        self.path: str | None = "" if volume is None else store.data(volume.name)
        described = volume or volume_of(spec, spec.source or "anonymous")
        self.driver = described.driver
        if volume is None:
            _check(store, described)
        self.mounts = volume_mounting.mounts_of(store, described)

    @property
    def keeps(self) -> bool:
        """Whether what is copied into it is there the next time that it is mounted."""
        return not self.mounts or any(one.type != "tmpfs" for one in self.mounts)

    @property
    def is_the_hosts(self) -> bool:
        """Whether it shows a directory of the host, which keeps its owner and mode."""
        return any({one.type, *one.options} & {"bind", "rbind"} for one in self.mounts)

    def is_full(self) -> bool:
        """Whether it holds something."""
        if self.full is None:
            if self.volume is not None:
                self.full = not self._store.is_empty(self.volume.name)
            elif self.is_the_hosts:
                self.full = _is_full(self.mounts[0].source)
            else:
                self.full = False
        return self.full


def volume_of(spec: MountSpec, name: str) -> Volume:
    """The volume that is made for a mount."""
    driver = spec.driver or "local"
    labels, options = dict(spec.labels), dict(spec.options)
    return Volume(name, driver, time.time(), labels, options, anonymous=spec.is_anonymous)


def _check(store: VolumeStore, new: Volume) -> None:
    """Have its driver refuse what it would refuse when the volume is made."""
    driver = store.driver_for(new.driver)
    home = store.home if os.path.isdir(store.home) else store.layers.root
    driver.check(new.options, driver.size(new.options), Path(home))


def _is_full(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:  # whoever mounts it says what is wrong
        return True
