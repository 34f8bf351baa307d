"""Finds the installed drivers: entry points of the group ``storagedrivers.drivers``, through
stevedore.

Two things of stevedore are changed here. Its cache of entry points is not used: a file planted in a
cache directory would choose what root imports. And duplicate names are refused before anything is
chosen, where stevedore lets the last one win.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import Any, NamedTuple

from stevedore.extension import Extension, ExtensionManager

from storagedrivers.driver import StorageDriver
from storagedrivers.errors import (
    DriverConflictError,
    DriverLoadError,
    DriverNotFoundError,
    did_you_mean,
)
from storagedrivers.model import Reason

GROUP = "storagedrivers.drivers"

_OWN = "storagedrivers.drivers."
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


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
            return cls(_Manager().registered())

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


class _Manager(ExtensionManager[Any]):
    """stevedore's manager without its cache; collects what fails instead of logging it."""

    def __init__(self) -> None:
        self._failed: list[Registered] = []
        super().__init__(GROUP, on_load_failure_callback=self._record)

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return list(importlib.metadata.entry_points(group=GROUP))

    def _load_one_plugin(
        self, ep: importlib.metadata.EntryPoint, *args: Any
    ) -> Extension[Any] | None:
        try:
            return super()._load_one_plugin(ep, *args)
        except (KeyboardInterrupt, MemoryError):
            raise
        except (
            BaseException
        ) as error:  # stevedore lets AssertionError and SystemExit of an import through
            raise DriverLoadError(
                f"the plugin {ep.value} does not import: {type(error).__name__}: {error}",
                resolution="repair or uninstall it",
            ) from error

    def _record(
        self, manager: Any, ep: importlib.metadata.EntryPoint, error: BaseException
    ) -> None:
        assert isinstance(error, DriverLoadError)
        self._failed.append(Registered(ep.name, ep.value, failure=error))

    def registered(self) -> Iterator[Registered]:
        yield from self._failed
        for extension in self.extensions:
            source, plugin = extension.entry_point_target, extension.plugin
            if defect := _defect(extension.name, plugin):
                failure = DriverLoadError(
                    f"{source} is no driver: {defect}", resolution="repair or uninstall it"
                )
                yield Registered(extension.name, source, failure=failure)
            else:
                yield Registered(extension.name, source, driver=plugin)


def _defect(name: str, plugin: object) -> str | None:
    """What keeps an imported object from being a driver."""
    if not (isinstance(plugin, type) and issubclass(plugin, StorageDriver)):
        return "it is not a subclass of StorageDriver"
    if plugin.__abstractmethods__:
        return f"it lacks {', '.join(sorted(plugin.__abstractmethods__))}"
    if not _is_name(name):
        return f"{name!r} is no name for a driver (words of a-z and 0-9, joined by '-')"
    if getattr(plugin, "name", None) != name:
        return f"it calls itself {getattr(plugin, 'name', None)!r}, and its entry point {name!r}"
    aliases = plugin.aliases
    if not (isinstance(aliases, tuple) and all(map(_is_name, aliases))):
        return f"its aliases are {aliases!r}, which is no tuple of names"
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
