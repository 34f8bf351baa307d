"""Loads the objects that entry points name, through stevedore; the only importer of it.

stevedore's cache of entry points is not used: a file planted in a cache directory would choose what
root imports.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from stevedore import extension

from storagedrivers.errors import DriverLoadError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Extension(NamedTuple):
    """One entry point: its name, the object's ``module:attribute``, and the object or why there is
    none.
    """

    name: str
    source: str
    plugin: Any


def load(group: str) -> Iterator[Extension]:
    """Import what the entry points of *group* name. One that cannot be imported does not disturb
    the others.
    """
    manager = _Manager(group)
    yield from manager.failed
    for one in manager.extensions:
        yield Extension(one.name, one.entry_point_target, one.plugin)


def defect(name: str, plugin: object, base: type) -> str | None:
    """What keeps an imported object from being a driver; None where nothing does.

    Args:
        name: the entry point's.
        plugin: the object.
        base: what drivers of its kind are subclasses of.
    """
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        return f"it is not a subclass of {base.__name__}"
    abstract: frozenset[str] = getattr(plugin, "__abstractmethods__", frozenset())
    if abstract:
        return f"it lacks {', '.join(sorted(abstract))}"
    if not is_name(name):
        return f"{name!r} is no name for a driver (words of a-z and 0-9, joined by '-')"
    if getattr(plugin, "name", None) != name:
        return f"it calls itself {getattr(plugin, 'name', None)!r}, and its entry point {name!r}"
    return None


def is_name(value: object) -> bool:
    """Whether a driver can have this name."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


class _Manager(extension.ExtensionManager[Any]):
    """stevedore's manager without its cache; collects what fails instead of logging it."""

    def __init__(self, group: str) -> None:
        self._group = group
        self.failed: list[Extension] = []
        super().__init__(group, on_load_failure_callback=self._record)

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return list(importlib.metadata.entry_points(group=self._group))

    def _load_one_plugin(
        self, ep: importlib.metadata.EntryPoint, *args: Any
    ) -> extension.Extension[Any] | None:
        try:
            return super()._load_one_plugin(ep, *args)
        except (KeyboardInterrupt, MemoryError):
            raise
        # stevedore lets AssertionError and SystemExit of an import through.
        except BaseException as error:
            raise DriverLoadError(
                f"the plugin {ep.value} does not import: {type(error).__name__}: {error}",
                resolution="repair or uninstall it",
            ) from error

    def _record(
        self, manager: Any, ep: importlib.metadata.EntryPoint, error: BaseException
    ) -> None:
        assert isinstance(error, DriverLoadError)
        self.failed.append(Extension(ep.name, ep.value, error))
