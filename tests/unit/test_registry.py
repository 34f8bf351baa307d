"""Installed drivers by name and alias: conflicts, failures and near misses."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from storagedrivers import registry
from storagedrivers.driver import StorageDriver
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.errors import (
    DriverConflictError,
    DriverLoadError,
    DriverNotFoundError,
    did_you_mean,
)
from storagedrivers.model import Reason
from storagedrivers.registry import Registered, Registry


def _driver(name: str, *aliases: str) -> type[StorageDriver]:
    return type(name.title(), (VfsCopy,), {"name": name, "aliases": aliases})


def _plugin(name: str, *aliases: str, source: str = "") -> Registered:
    return Registered(name, source or f"plugin_{name}:Driver", _driver(name, *aliases))


def _own(driver: type[StorageDriver]) -> Registered:
    return Registered(driver.name, f"{driver.__module__}:{driver.__name__}", driver)


def _broken(name: str) -> Registered:
    return Registered(name, f"plugin_{name}:Driver", failure=DriverLoadError("does not import"))


def _failed(registry: Registry) -> dict[str, Reason]:
    return {entry.source: entry.reason for entry in registry if entry.failure}


def test_driver_is_found_by_name_and_by_alias() -> None:
    """Docker's and Podman's names lead to the same driver."""
    registry = Registry([_own(Overlay2), _own(VfsCopy)])
    assert registry.drivers() == {"overlay2": Overlay2, "vfs-copy": VfsCopy}
    assert registry.get("overlay2") is registry.get("overlay") is Overlay2
    assert registry.get("vfs-copy") is registry.get("vfs") is VfsCopy


@pytest.mark.parametrize(
    ("name", "near"), [("ovrlay2", "overlay2"), ("vsf", "vfs"), ("VFS-copy", "vfs-copy")]
)
def test_unknown_driver_names_those_there_are_and_the_nearest(name: str, near: str) -> None:
    """A typing mistake is answered with the name or alias that was meant."""
    with pytest.raises(DriverNotFoundError) as caught:
        Registry([_own(Overlay2), _own(VfsCopy)]).get(name)
    assert name in caught.value.brief
    assert "overlay2, vfs-copy" in caught.value.brief
    assert near in (caught.value.resolution or "")


def test_nothing_near_is_suggested_where_nothing_is_near() -> None:
    """A name like no other gets no suggestion."""
    assert did_you_mean("zzz", ["overlay2", "vfs-copy"]) is None
    assert did_you_mean("overlay", []) is None


@pytest.mark.parametrize("plugin_first", [True, False])
def test_own_driver_keeps_its_name_against_a_plugin(plugin_first: bool) -> None:
    """A plugin that claims the name of a driver of the package is refused, in whatever order."""
    entries = [_own(Overlay2), _plugin("overlay2", source="evil:Driver")]
    registry = Registry(reversed(entries) if plugin_first else entries)
    assert registry.get("overlay2") is Overlay2
    assert registry.drivers() == {"overlay2": Overlay2}
    assert _failed(registry) == {"evil:Driver": Reason.NAME_CONFLICT}


def test_own_driver_keeps_its_alias_against_a_plugin() -> None:
    """A plugin that calls itself by an alias of the package's is refused."""
    registry = Registry([_plugin("vfs"), _own(VfsCopy)])
    assert registry.get("vfs") is VfsCopy
    assert _failed(registry) == {"plugin_vfs:Driver": Reason.NAME_CONFLICT}


def test_plugin_with_the_packages_name_as_alias_is_refused() -> None:
    """A name of the package's cannot be taken by way of an alias."""
    registry = Registry([_plugin("evil", "overlay2"), _own(Overlay2)])
    assert registry.get("overlay2") is Overlay2
    assert _failed(registry) == {"plugin_evil:Driver": Reason.NAME_CONFLICT}
    with pytest.raises(DriverConflictError, match="evil"):
        registry.get("evil")


def test_two_plugins_of_one_name_are_both_refused() -> None:
    """Which of two is meant is not decided by chance."""
    registry = Registry([_plugin("zfs", source="one:Zfs"), _plugin("zfs", source="two:Zfs")])
    assert registry.drivers() == {}
    assert _failed(registry) == {"one:Zfs": Reason.NAME_CONFLICT, "two:Zfs": Reason.NAME_CONFLICT}
    with pytest.raises(DriverConflictError) as caught:
        registry.get("zfs")
    assert caught.value.resolution


def test_alias_that_another_plugin_has_is_refused() -> None:
    """Of two plugins with one alias, one keeps it, and the other is told which has it."""
    registry = Registry([_plugin("bravo", "common"), _plugin("alpha", "common")])
    assert registry.get("common").name == "alpha"
    (failed,) = [entry for entry in registry if entry.failure]
    assert failed.name == "bravo"
    assert "plugin_alpha:Driver" in str(failed.failure)


def test_name_of_one_plugin_is_no_alias_of_another() -> None:
    """A plugin cannot take another plugin's own name away by an alias, in whatever order."""
    for entries in (
        [_plugin("alpha", "bravo"), _plugin("bravo")],
        [_plugin("bravo"), _plugin("alpha", "bravo")],
    ):
        registry = Registry(entries)
        assert registry.get("bravo").name == "bravo"
        assert _failed(registry) == {"plugin_alpha:Driver": Reason.NAME_CONFLICT}


def test_alias_that_repeats_the_own_name_is_no_conflict() -> None:
    """A driver may name itself twice."""
    registry = Registry([_plugin("zfs", "zfs", "zpool")])
    assert registry.get("zpool") is registry.get("zfs")
    assert not _failed(registry)


def test_failures_are_kept_and_disturb_no_one() -> None:
    """A plugin that did not load stays in the list, and asking for it tells why."""
    registry = Registry([_broken("zfs"), _own(Overlay2)])
    assert list(registry.drivers()) == ["overlay2"]
    assert _failed(registry) == {"plugin_zfs:Driver": Reason.LOAD_FAILED}
    with pytest.raises(DriverLoadError, match="does not import"):
        registry.get("zfs")


def test_failed_plugin_takes_no_name_from_a_driver_that_works() -> None:
    """A broken plugin of the name ``overlay2`` does not hide the package's own."""
    registry = Registry([_broken("overlay2"), _own(Overlay2)])
    assert registry.get("overlay2") is Overlay2
    assert len(list(registry)) == 2


def test_discovered_drivers_are_the_packages() -> None:
    """The four drivers are found through their entry points, under their names and aliases."""
    registry = Registry.discover()
    names = {"overlay2": "overlay", "btrfs-snapshot": "btrfs", "vfs-copy": "vfs", "aufs": "aufs"}
    for name, alias in names.items():
        assert registry.get(name).name == name
        assert registry.get(alias) is registry.get(name)
        assert registry.get(name).__module__.startswith("storagedrivers.drivers.")


# Plugins as they come: distributions of their own, found by entry point

_GOOD = """
from storagedrivers.drivers.vfs_copy import VfsCopy

class Driver(VfsCopy):
    name = {name!r}
    aliases = ()
"""

_BAD = {
    "raises": "raise RuntimeError('no libzfs here')",
    "asserts": "assert False, 'never'",
    "exits": "raise SystemExit(7)",
    "interrupted by its own": "import nowhere_to_be_found",
    "syntax error": "def (",
    "no class": "Driver = 5",
    "no driver": "class Driver: pass",
    "an instance": _GOOD + "\nDriver = Driver('/nowhere')",
    "no such object": "Other = 5",
    "lacks methods": (
        "from storagedrivers.driver import StorageDriver\n"
        "class Driver(StorageDriver):\n    name = {name!r}"
    ),
    "another name": _GOOD + "\nDriver.name = 'other'",
    "no name": _GOOD + "\nDriver.name = None",
    "aliases no sequence": _GOOD + "\nDriver.aliases = None",
    "aliases a text": _GOOD + "\nDriver.aliases = 'overlay2'",
    "aliases of numbers": _GOOD + "\nDriver.aliases = (5, None)",
    "aliases of lists": _GOOD + "\nDriver.aliases = ([],)",
}

_REPORT = """
from storagedrivers.registry import Registry
for entry in Registry.discover():
    print(entry.name, entry.source, entry.driver is not None, entry.reason if entry.failure else "")
"""


def _install(directory: Path, name: str, code: str, *, value: str = "") -> None:
    """A distribution with one entry point, as an installer leaves it."""
    module = f"plugin_{abs(hash((name, code))):x}"
    (directory / f"{module}.py").write_text(code.replace("{name!r}", repr(name)))
    info = directory / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[storagedrivers.drivers]\n{name} = {value or f'{module}:Driver'}\n"
    )


def _discovered(directory: Path, **more: Any) -> dict[str, list[str]]:
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    done = subprocess.run(
        [sys.executable, "-c", _REPORT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    return found


def test_good_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """A package of its own with an entry point is all that a driver needs."""
    _install(tmp_path, "zfs", _GOOD)
    (entry,) = _discovered(tmp_path)["zfs"]
    assert "True" in entry


@pytest.mark.parametrize("defect", _BAD)
def test_bad_plugin_is_rejected_and_everything_else_works(defect: str, tmp_path: Path) -> None:
    """A plugin that does not import, or is no driver, is listed with its failure."""
    _install(tmp_path, "zfs", _BAD[defect])
    _install(tmp_path, "good", _GOOD)
    found = _discovered(tmp_path)
    (entry,) = found["zfs"]
    assert "False load-failed" in entry
    for name in ("good", "overlay2", "btrfs-snapshot", "vfs-copy", "aufs"):
        (entry,) = found[name]
        assert "True" in entry


@pytest.mark.parametrize("value", ["5:5", "a b c", "plugin:", ":", "plugin:Driver:x", "os:path.x"])
def test_malformed_entry_point_is_rejected(value: str, tmp_path: Path) -> None:
    """An entry point that names no object does not keep the others from being found."""
    _install(tmp_path, "zfs", _GOOD, value=value)
    found = _discovered(tmp_path)
    assert all("False" in entry for entry in found.get("zfs", []))
    assert "True" in found["overlay2"][0]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "Zfs", "-zfs", "zfs-", "zf..s", "*", "z_fs"])
def test_name_that_must_not_become_a_directory_is_rejected(name: str, tmp_path: Path) -> None:
    """A driver's name becomes a path below the graph root, so it is words of a-z and 0-9 only."""
    _install(tmp_path, name, _GOOD)
    (entry,) = _discovered(tmp_path)[name]
    assert "False load-failed" in entry


def test_plugin_that_claims_a_taken_name_is_rejected(tmp_path: Path) -> None:
    """A plugin that calls itself overlay2 does not become what root runs."""
    _install(tmp_path, "overlay2", _GOOD)
    entries = _discovered(tmp_path)["overlay2"]
    assert sorted("name-conflict" in entry for entry in entries) == [False, True]
    assert any(
        entry.startswith("storagedrivers.drivers.overlay2:Overlay2 True") for entry in entries
    )


def test_cache_of_entry_points_is_not_read(tmp_path: Path) -> None:
    """A cache directory full of lies changes nothing, and none is written."""
    cache = tmp_path / "cache"
    cache.mkdir()
    _install(tmp_path, "zfs", _GOOD)
    before = _discovered(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(cache)}
    subprocess.run(
        [sys.executable, "-c", _REPORT], env=environment, check=True, capture_output=True
    )
    assert list(cache.rglob("*")) == []
    assert _discovered(tmp_path) == before


def test_the_table_of_built_in_drivers_is_what_is_installed() -> None:
    """A store opens with the table, and detection with the entry points."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"][registry.GROUP] == dict(registry.BUILT_IN)


def test_a_driver_is_found_by_name_without_looking_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {name: registry.driver_class(name) for name in registry.BUILT_IN}
    assert {name: driver.name for name, driver in found.items()} == {name: name for name in found}
    assert registry.driver_class("overlay") is found["overlay2"]
    monkeypatch.setattr(Registry, "discover", lambda: pytest.fail("it looked for others"))
    assert registry.driver_class("vfs-copy") is found["vfs-copy"]


def test_a_driver_that_is_not_installed_has_no_class() -> None:
    with pytest.raises(DriverNotFoundError, match="no driver is named 'overlay3'"):
        registry.driver_class("overlay3")
