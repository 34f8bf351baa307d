"""Finds the installed volume drivers: entry points of the group ``storagedrivers.volumes``, through
stevedore.

The driver of this package is in a table here too, so that who uses no other need not look for any.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from storagedrivers.errors import (
    DriverConflictError,
    DriverLoadError,
    DriverNotFoundError,
    did_you_mean,
)

if TYPE_CHECKING:
    from storagedrivers.extensions import Extension
    from storagedrivers.volume_driver import VolumeDriver

GROUP = "storagedrivers.volumes"

BUILT_IN = MappingProxyType({"local": "storagedrivers.volumes.local:Local"})
"""The entry points of this package, by name. Names of its own are never another's."""


def volume_driver(name: str) -> VolumeDriver:
    """The driver with this name.

    Raises:
        DriverNotFoundError: there is none; says which there are, and the nearest.
        DriverLoadError: there is one, and it did not load; or two of them.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        own: type[VolumeDriver] = getattr(import_module(module), attribute)
        return own()
    found = _installed()
    if name not in found:
        known = sorted({*BUILT_IN, *found})
        raise DriverNotFoundError(
            f"no volume driver is named {name!r}; there are {', '.join(known)}",
            resolution=did_you_mean(name, known) or "install the package that has it",
        )
    driver = found[name]
    if isinstance(driver, DriverLoadError):
        raise driver
    return driver()


def volume_drivers() -> dict[str, type[VolumeDriver] | DriverLoadError]:
    """The installed drivers by name, each a class, or why there is none."""
    own: dict[str, type[VolumeDriver] | DriverLoadError] = {
        name: type(volume_driver(name)) for name in BUILT_IN
    }
    return own | _installed()


def _installed() -> dict[str, type[VolumeDriver] | DriverLoadError]:
    """Those of other packages."""
    with redirect_stdout(sys.stderr):  # a plugin that prints must not spoil the answer
        from storagedrivers.extensions import load

        extensions = [*load(GROUP)]
    found: dict[str, type[VolumeDriver] | DriverLoadError] = {}
    sources: dict[str, str] = {}
    for one in extensions:
        if one.name in BUILT_IN:
            continue  # this package's, or one that would take its place
        if one.name in found:
            # Of two plugins with one name there is no order to trust: neither is taken.
            found[one.name] = DriverConflictError(
                f"{sources[one.name]} and {one.source} both claim the name {one.name}",
                resolution="uninstall one of them",
            )
        else:
            found[one.name], sources[one.name] = _driver(one), one.source
    return found


def _driver(extension: Extension) -> type[VolumeDriver] | DriverLoadError:
    from storagedrivers.extensions import defect
    from storagedrivers.volume_driver import VolumeDriver

    plugin = extension.plugin
    if isinstance(plugin, DriverLoadError):
        return plugin
    if found := defect(extension.name, plugin, VolumeDriver):
        return DriverLoadError(
            f"{extension.source} is no volume driver: {found}",
            resolution="repair or uninstall it",
        )
    driver: type[VolumeDriver] = plugin
    return driver
