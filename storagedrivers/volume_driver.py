"""The interface of a volume driver; the one module that a plugin must import.

A volume driver knows where the files of a volume come from. The framework keeps the rows, the locks
and the counts, makes the directories, mounts and unmounts; a driver says how, as values. It is told
everything each time and keeps nothing, so one object serves all stores and threads.

::

    <graph root>/volumes/<name>/          the volume's *directory*
    <graph root>/volumes/<name>/_data     its files, or where they are mounted while it is in use
    <graph root>/volumes/<name>/…         what else the driver keeps there, by :meth:`create`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from storagedrivers.errors import VolumeError
from storagedrivers.model import Mount, Volume

__all__ = ["DATA", "Mount", "Volume", "VolumeDriver", "VolumeError"]

DATA = "_data"
"""The data directory in that of a volume."""

LOOP = "loop"
"""An option of a mount: its source is a file, and gets a loop device."""


class VolumeDriver(ABC):
    """One way of having a volume's files.

    Class attributes:
        name: the entry point's name.
    """

    name: ClassVar[str]

    @abstractmethod
    def check(self, options: Mapping[str, str], size: int | None, directory: Path) -> None:
        """Refuse what cannot be made, before anything is.

        Args:
            options: what the user says; names to values.
            size: how much the volume may hold, in bytes.
            directory: the one that will hold the volume's; it exists.

        Raises:
            VolumeError: an option that there is not, or that lacks another; a size that nothing can
                enforce. It is never ignored.
        """

    def size(self, options: Mapping[str, str]) -> int | None:
        """The size in bytes that the options ask for; the framework keeps it as the volume's.

        Raises:
            VolumeError: what they say is no size.
        """
        return None

    def create(self, volume: Volume, directory: Path) -> None:  # noqa: B027
        """Make what the volume needs beside the empty ``_data`` that is there.

        What is in *directory* when this fails, or is killed, goes with it; :meth:`remove` is called
        for the rest, so it must know what is this volume's and what was there before.
        """

    def beside(self, volume: Volume, directory: Path) -> bool:
        """Make in another *directory*, which is empty, the file that :meth:`mounts` mounts with the
        option ``loop``: new content is brought into it, and then it takes the place of the one
        :meth:`create` made.

        Returns:
            Whether it could; else the old one gets the new content, and needs room for both.
        """
        return False

    def mounts(self, volume: Volume, directory: Path) -> tuple[Mount, ...]:
        """How to see the files at ``_data`` while the volume is in use: mounts to be applied in
        order. None where they lie there. Mounts nothing.

        A mount with the option ``loop`` has a file as its source, which gets a loop device.

        Raises:
            VolumeError: it cannot be mounted now: a name that does not resolve.
        """
        return ()

    def limit(self, volume: Volume, data: Path) -> None:  # noqa: B027
        """Limit *data* to the volume's size: a new and empty directory beside ``_data``, whose
        place it takes once it has content.
        """

    def unlimit(self, volume: Volume, data: Path) -> None:  # noqa: B027
        """Undo :meth:`limit`: *data*, which may be ``_data`` itself, is about to be deleted.
        Idempotent; it need not be there.
        """

    def remove(self, volume: Volume, directory: Path) -> None:  # noqa: B027
        """Let go of what lies outside of *directory*, which the framework deletes. Idempotent; the
        volume is mounted nowhere, and may be one that :meth:`create` has not finished.
        """
