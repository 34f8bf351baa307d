"""Finds the installed drivers: entry points of the group ``storagedrivers.drivers``, through
stevedore.

Duplicate names are refused before anything is chosen, where stevedore lets the last one win. A
store that knows which driver it has need not look for all: its own drivers are in a table here too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from storagedrivers.driver import StorageDriver
from storagedrivers.errors import (
    DriverConflictError,
    DriverLoadError,
    DriverNotFoundError,
    did_you_mean,
)
from storagedrivers.model import Reason

if TYPE_CHECKING:
    from storagedrivers.extensions import Extension

GROUP = "storagedrivers.drivers"

BUILT_IN = MappingProxyType(
    {
        "aufs": "storagedrivers.drivers.aufs:Aufs",
        "btrfs-snapshot": "storagedrivers.drivers.btrfs_snapshot:BtrfsSnapshot",
        "overlay2": "storagedrivers.drivers.overlay2:Overlay2",
        "vfs-copy": "storagedrivers.drivers.vfs_copy:VfsCopy",
    }
)
"""The entry points of this package, by name. Names of its own are never another's, so looking for
plugins could not change what they mean.
"""

_OWN = "storagedrivers.drivers."


class Registered(NamedTuple):
    """One entry point: a driver, or why it is none.

    Attributes:
        name: the entry point's.
        source: the object it names, ``module:class``.
        driver: the class, or None.
        failure: why there is no class, or None.
    """

    name: str
    source: str
    driver: type[StorageDriver] | None = None
    failure: DriverLoadError | None = None

    @property
    def reason(self) -> Reason:
        """The reason code of a failure."""
        conflict = isinstance(self.failure, DriverConflictError)
        return Reason.NAME_CONFLICT if conflict else Reason.LOAD_FAILED


def driver_class(name: str) -> type[StorageDriver]:
    """The driver with this name or alias; one of this package is imported without looking for
    others, which takes most of the time of a start.

    Raises:
        DriverNotFoundError, DriverLoadError: as :meth:`Registry.get` does.
    """
    if name not in BUILT_IN:
        return Registry.discover().get(name)
    module, _, attribute = BUILT_IN[name].partition(":")
    driver: type[StorageDriver] = getattr(import_module(module), attribute)
    return driver


class Registry:
    """The installed drivers, by name and alias; those that failed to load are kept with their
    failure.
    """

    def __init__(self, entries: Iterable[Registered]) -> None:
        self._entries = tuple(_without_conflicts(entries))

    @classmethod
    def discover(cls) -> Registry:
        """Import every installed driver. A plugin that cannot be imported does not disturb the
        others.
        """
        with redirect_stdout(sys.stderr):  # a plugin that prints must not spoil the answer
            from storagedrivers.extensions import load

            return cls(_registered(load(GROUP)))

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._entries)

    def drivers(self) -> dict[str, type[StorageDriver]]:
        """The drivers that loaded, by name."""
        return {entry.name: entry.driver for entry in self._entries if entry.driver}

    def get(self, name: str) -> type[StorageDriver]:
        """The driver with this name or alias.

        Raises:
            DriverNotFoundError: there is none; says which there are, and the nearest.
            DriverLoadError: there is one, and it did not load.
        """
        driver = self.find(name).driver
        assert driver is not None
        return driver

    def find(self, name: str) -> Registered:
        """The entry of the driver with this name or alias, one that loaded.

        Raises:
            DriverNotFoundError, DriverLoadError: as :meth:`get` does.
        """
        for entry in self._entries:
            if name in _names(entry):
                return entry
        for entry in self._entries:
            if entry.name == name and entry.failure:
                raise entry.failure
        drivers = self.drivers()
        known = [*drivers, *(alias for driver in drivers.values() for alias in driver.aliases)]
        raise DriverNotFoundError(
            f"no driver is named {name!r}; there are {', '.join(sorted(drivers))}",
            resolution=did_you_mean(name, known),
        )


def _without_conflicts(entries: Iterable[Registered]) -> Iterator[Registered]:
    """Refuse what claims a name of another; this package's own drivers keep theirs.

    Of two plugins with one name there is no order to trust: neither is taken.
    """
    ordered = sorted(entries, key=lambda one: (not _is_own(one), one.name, one.source))
    working = [one for one in ordered if one.driver]
    owners: dict[str, Registered] = {}
    for entry in filter(_is_own, working):
        owners.update(dict.fromkeys(_names(entry), entry))
    for entry in working:
        owners.setdefault(entry.name, entry)
    for entry in ordered:
        rival = _rival(entry, working, owners)
        if rival is None:
            yield entry
        else:
            yield Registered(entry.name, entry.source, failure=_conflict(entry, rival))


def _rival(
    entry: Registered, working: Iterable[Registered], owners: dict[str, Registered]
) -> Registered | None:
    """Who else has a name of *entry*; if no one, *entry* takes its aliases."""
    namesakes = (one for one in working if one.name == entry.name and one is not entry)
    rival = next(namesakes, None)
    if rival is not None and entry.driver and not _is_own(entry):
        return rival
    owned = (owners.setdefault(name, entry) for name in _names(entry))
    return next((owner for owner in owned if owner is not entry), None)


def _names(entry: Registered) -> tuple[str, ...]:
    return (entry.name, *entry.driver.aliases) if entry.driver else ()


def _is_own(entry: Registered) -> bool:
    return entry.source.startswith(_OWN)


def _conflict(entry: Registered, rival: Registered) -> DriverConflictError:
    return DriverConflictError(
        f"{entry.source} ({entry.name}) claims a name of {rival.source} ({rival.name})",
        resolution="uninstall one of them",
    )


def _registered(extensions: Iterable[Extension]) -> Iterator[Registered]:
    for name, source, plugin in extensions:
        if isinstance(plugin, DriverLoadError):
            yield Registered(name, source, failure=plugin)
        elif defect := _defect(name, plugin):
            failure = DriverLoadError(
                f"{source} is no driver: {defect}", resolution="repair or uninstall it"
            )
            yield Registered(name, source, failure=failure)
        else:
            yield Registered(name, source, driver=plugin)


def _defect(name: str, plugin: Any) -> str | None:
    """What keeps an imported object from being a driver."""
    from storagedrivers.extensions import defect, is_name

    if found := defect(name, plugin, StorageDriver):
        return found
    aliases = plugin.aliases
    if not (isinstance(aliases, tuple) and all(map(is_name, aliases))):
        return f"its aliases are {aliases!r}, which is no tuple of names"
    return None
