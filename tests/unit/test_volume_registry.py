"""Installed volume drivers by name: conflicts, failures and near misses."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from storagedrivers import extensions, volume_registry
from storagedrivers.errors import DriverConflictError, DriverLoadError, DriverNotFoundError
from storagedrivers.extensions import Extension
from storagedrivers.volume_driver import VolumeDriver
from storagedrivers.volume_registry import volume_driver, volume_drivers
from storagedrivers.volumes.local import Local

ROOT = Path(__file__).parents[2]


class Ram(VolumeDriver):
    name = "ram"

    def check(self, options: Mapping[str, str], size: int | None, directory: Path) -> None:
        pass


class Nameless(VolumeDriver):
    name = "other"

    def check(self, options: Mapping[str, str], size: int | None, directory: Path) -> None:
        pass


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Extension]:
    """The entry points that are found."""
    found = [Extension("local", "storagedrivers.volumes.local:Local", Local)]
    monkeypatch.setattr(extensions, "load", lambda group: iter(found))
    return found


def test_the_own_driver_needs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for plugins takes most of a start."""

    def search(group: str) -> Any:
        raise AssertionError(f"looked for {group}")

    monkeypatch.setattr(extensions, "load", search)
    assert isinstance(volume_driver("local"), Local)


def test_the_table_is_that_of_the_entry_points() -> None:
    """What is built in is what the package declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["storagedrivers.volumes"] == dict(volume_registry.BUILT_IN)


def test_a_plugin_is_found_by_its_name(installed: list[Extension]) -> None:
    """Beside the own one."""
    installed.append(Extension("ram", "plugin:Ram", Ram))
    assert isinstance(volume_driver("ram"), Ram)
    assert volume_drivers() == {"local": Local, "ram": Ram}


def test_an_unknown_driver_names_those_there_are(installed: list[Extension]) -> None:
    """And the nearest."""
    installed.append(Extension("ram", "plugin:Ram", Ram))
    with pytest.raises(DriverNotFoundError, match="no volume driver is named 'rom'") as caught:
        volume_driver("rom")
    assert caught.value.brief.endswith("there are local, ram")
    assert caught.value.resolution == "did you mean ram?"


def test_the_own_driver_keeps_its_name(installed: list[Extension]) -> None:
    """A plugin that claims it is never asked."""
    installed.insert(0, Extension("local", "evil:Driver", Ram))
    assert isinstance(volume_driver("local"), Local)
    assert volume_drivers() == {"local": Local}


def test_of_two_plugins_with_one_name_neither_is_taken(installed: list[Extension]) -> None:
    """There is no order to trust."""
    installed += [Extension("ram", "one:Ram", Ram), Extension("ram", "two:Ram", Ram)]
    with pytest.raises(DriverConflictError, match="one:Ram and two:Ram both claim the name ram"):
        volume_driver("ram")


@pytest.mark.parametrize(
    ("name", "plugin", "defect"),
    [
        ("ram", object, "it is not a subclass of VolumeDriver"),
        ("ram", Ram(), "it is not a subclass of VolumeDriver"),
        ("ram", VolumeDriver, "it lacks check"),
        ("Ram", Ram, "'Ram' is no name for a driver"),
        ("ram", Nameless, "it calls itself 'other', and its entry point 'ram'"),
    ],
)
def test_what_is_no_driver_is_told(
    installed: list[Extension], name: str, plugin: Any, defect: str
) -> None:
    """When it is asked for; it disturbs nobody else."""
    installed.append(Extension(name, "plugin:Thing", plugin))
    with pytest.raises(DriverLoadError, match=f"plugin:Thing is no volume driver: {defect}"):
        volume_driver(name)
    assert isinstance(volume_driver("local"), Local)


def test_a_plugin_that_does_not_import_is_told(installed: list[Extension]) -> None:
    """With what it raised."""
    installed.append(Extension("ram", "plugin:Ram", DriverLoadError("plugin:Ram does not import")))
    with pytest.raises(DriverLoadError, match="does not import"):
        volume_driver("ram")
