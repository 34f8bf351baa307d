"""Plugins as users install them: built, installed, found by their entry points; good and bad."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from capabilities import has, lack

PROJECT = Path(__file__).resolve().parents[2]
PLUGIN = PROJECT / "plugins/storagedrivers-fuse-overlayfs"
OWN = {"aufs", "btrfs-snapshot", "overlay2", "vfs-copy"}


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the built wheels."""

    directory: Path

    @property
    def python(self) -> str:
        return str(self.directory / "bin/python")

    @property
    def packages(self) -> Path:
        return next(self.directory.glob("lib/python*/site-packages"))

    def run(
        self, *words: str, path: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed program; *path* is where more plugins are."""
        return self.run_as_is(
            str(self.directory / "bin/storagedrivers"), *words, path=path, **environment
        )

    def run_as_is(
        self, *command: str, path: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        more = {"PYTHONPATH": str(path)} if path else {}
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            **more,
            **environment,
        }
        return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)

    def json(self, *words: str, path: Path | None = None, **environment: str) -> Any:
        """What the program prints as JSON."""
        result = self.run(*words, "--json", path=path, **environment)
        assert result.returncode in (0, 3, 4), result.stderr
        return json.loads(result.stdout)


def build(target: Path, sources: Sequence[Path]) -> list[str]:
    """Build wheels without a network."""
    if importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("pip") is None:
        if "all" in os.environ.get("STORAGEDRIVERS_REQUIRE", "").split(","):
            pytest.fail("CI must have hatchling and pip", pytrace=False)
        lack("build", "hatchling and pip are not installed")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(map(str, target.glob("*.whl")))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The package and the plugin, built and installed; what they depend on is the tests' own."""
    directory = tmp_path_factory.mktemp("plugin")
    wheels = build(directory / "wheels", [PROJECT, PLUGIN])
    venv.create(directory / "venv", symlinks=True)
    installed = Installation(directory / "venv")
    command = [sys.executable, "-m", "pip", "--python", installed.python, "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--no-compile", *wheels]
    subprocess.run(command, check=True, capture_output=True)
    dependencies = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (installed.packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return installed


def listed(installation: Installation, path: Path | None = None, **environment: str) -> list[Any]:
    document = installation.json("driver", "ls", path=path, **environment)
    rows: list[Any] = document["drivers"]
    return rows


def loaded(rows: list[Any]) -> set[str]:
    return {row["driver"] for row in rows if row["loaded"]}


# A good one


def test_what_is_tested_is_what_was_built(installation: Installation) -> None:
    """The package is imported from the virtual environment, not from the working tree."""
    modules = "storagedrivers, storagedrivers_fuse_overlayfs"
    code = f"import {modules}; print(*(one.__file__ for one in ({modules})))"
    result = installation.run_as_is(installation.python, "-P", "-c", code)
    first, second = map(Path, result.stdout.split())
    assert first.is_relative_to(installation.packages)
    assert second.is_relative_to(installation.packages)


def test_plugin_is_found(installation: Installation) -> None:
    """An installed plugin is listed beside the package's own drivers, with where it comes from."""
    rows = {row["driver"]: row for row in listed(installation)}
    assert rows.keys() >= {*OWN, "fuse-overlayfs"}
    assert rows["fuse-overlayfs"]["loaded"]
    assert rows["fuse-overlayfs"]["source"] == "storagedrivers_fuse_overlayfs:FuseOverlayfs"


def test_plugin_is_found_by_its_entry_point_only(installation: Installation) -> None:
    """Without its entry point the same package, still importable, is no plugin."""
    (entry_points,) = installation.packages.glob("storagedrivers_fuse*.dist-info/entry_points.txt")
    aside = entry_points.with_suffix(".aside")
    entry_points.rename(aside)
    try:
        assert loaded(listed(installation)) == OWN
    finally:
        aside.rename(entry_points)


def test_plugin_is_typed_and_licensed(installation: Installation) -> None:
    """The plugin's wheel has the marker of its types and its license."""
    assert (installation.packages / "storagedrivers_fuse_overlayfs/py.typed").is_file()
    assert list(
        installation.packages.glob("storagedrivers_fuse_overlayfs-*.dist-info/licenses/LICENSE")
    )


def test_plugin_can_be_asked_for(installation: Installation, tmp_path: Path) -> None:
    """``detect --driver`` takes the plugin where it works, and says elsewhere why it does not."""
    result = installation.run(
        "detect", "--driver", "fuse-overlayfs", "--json", "--root", str(tmp_path / "root")
    )
    found = json.loads(result.stdout)
    (answer,) = [one for one in found["candidates"] if one["driver"] == "fuse-overlayfs"]
    if has("mount") and has("fuse") and has("fuse-overlayfs"):
        assert answer["supported"], answer["message"]
    if answer["supported"]:
        assert (result.returncode, found["chosen"]) == (0, "fuse-overlayfs")
    else:
        assert (result.returncode, found["chosen"]) == (4, None)
        assert answer["reason"] in (
            "no-program",
            "no-permission",
            "no-kernel-support",
            "trial-failed",
        )


def test_plugin_is_part_of_the_default_order(installation: Installation, tmp_path: Path) -> None:
    """The policy's ``*`` stands for it: it is tried before copies, after drivers that are named."""
    order = [
        one["driver"]
        for one in installation.json("detect", "--root", str(tmp_path / "root"))["candidates"]
    ]
    assert order.index("overlay2") < order.index("fuse-overlayfs") < order.index("vfs-copy")


# Bad ones

GOOD = """
from storagedrivers.driver import ProbeResult, StorageDriver

class Driver(StorageDriver):
    name = {name!r}
    aliases = {aliases!r}

    @classmethod
    def probe(cls, host, home):
        {probe}

    def create(self, layer, lowers, *, size=None): ...
    def mounts(self, layer, lowers, *, read_only, scratch=False): ...
"""


def driver(
    name: str, *, aliases: object = (), probe: str = "return ProbeResult.yes('works')"
) -> str:
    return GOOD.format(name=name, aliases=aliases, probe=probe)


def plant(directory: Path, distribution: str, name: str, source: str) -> Path:
    """Put a plugin into *directory* as an installer would, without building it."""
    module = distribution.replace("-", "_")
    (directory / f"{module}.py").write_text(source)
    metadata = directory / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        f"[storagedrivers.drivers]\n{name} = {module}:Driver\n"
    )
    return directory


BAD_PLUGINS = {
    "import-error": ("bad", "raise ImportError('libmissing.so')", "load-failed", "libmissing.so"),
    "assertion": ("bad", "assert 1 > 2, 'arithmetic'", "load-failed", "arithmetic"),
    "exit": ("bad", "import sys\nsys.exit(5)", "load-failed", "SystemExit"),
    "syntax": ("bad", "class Driver(:", "load-failed", "SyntaxError"),
    "no-such-object": ("bad", "", "load-failed", "Driver"),
    "lacks-a-method": (
        "bad",
        driver("bad").replace("def create", "def make"),
        "load-failed",
        "it lacks create",
    ),
    "no-class": ("bad", "def Driver(home): ...", "load-failed", "not a subclass of StorageDriver"),
    "other-class": ("bad", "class Driver: name = 'bad'", "load-failed", "not a subclass"),
    "other-name": ("bad", driver("good"), "load-failed", "calls itself 'good'"),
    "claims-a-name": ("overlay2", driver("overlay2"), "name-conflict", "claims a name"),
    "claims-an-alias": ("bad", driver("bad", aliases=("vfs",)), "name-conflict", "claims a name"),
    "is-named-as-an-alias": ("vfs", driver("vfs"), "name-conflict", "claims a name"),
    "probe-raises": ("bad", driver("bad", probe="1 / 0"), "probe-failed", "ZeroDivisionError"),
}


@pytest.mark.parametrize(
    ("name", "source", "reason", "words"), BAD_PLUGINS.values(), ids=BAD_PLUGINS.keys()
)
def test_bad_plugin_is_refused_and_nothing_else(
    installation: Installation, tmp_path: Path, name: str, source: str, reason: str, words: str
) -> None:
    """A plugin that cannot be used is listed with the reason; the others answer as before."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plant(plugins, "bad-plugin", name, source)
    root = str(tmp_path / "root")
    before = installation.json("detect", "--root", root)
    after = installation.json("detect", "--root", root, path=plugins)
    (bad,) = [one for one in after["candidates"] if one["source"] == "bad_plugin:Driver"]
    assert (bad["driver"], bad["supported"], bad["reason"]) == (name, False, reason)
    assert words in bad["message"]
    assert bad["remedy"]
    assert after["chosen"] == before["chosen"]
    others = [one["driver"] for one in after["candidates"] if one is not bad]
    assert others == [one["driver"] for one in before["candidates"]]


def test_bad_plugin_is_listed(installation: Installation, tmp_path: Path) -> None:
    """``driver ls`` names a plugin that does not load, with the reason, and loads the others."""
    plant(tmp_path, "bad-plugin", "bad", "raise ImportError('libmissing.so')")
    rows = listed(installation, tmp_path)
    (bad,) = [row for row in rows if row["driver"] == "bad"]
    assert not bad["loaded"]
    assert "libmissing.so" in bad["message"]
    assert loaded(rows) == {*OWN, "fuse-overlayfs"}


def test_bad_plugin_that_is_asked_for_is_an_error(
    installation: Installation, tmp_path: Path
) -> None:
    """Who asks for a plugin that does not load gets its failure, not another driver."""
    plant(tmp_path, "bad-plugin", "bad", "raise ImportError('libmissing.so')")
    root = str(tmp_path / "root")
    result = installation.run("detect", "--driver", "bad", "--root", root, path=tmp_path)
    assert result.returncode == 1
    assert "libmissing.so" in result.stderr


def test_two_plugins_of_one_name_are_both_refused(
    installation: Installation, tmp_path: Path
) -> None:
    """Which of two plugins a name means is not left to the order of installation."""
    for distribution in ("one-plugin", "two-plugin"):
        plant(tmp_path, distribution, "twin", driver("twin"))
    found = installation.json("detect", "--root", str(tmp_path / "root"), path=tmp_path)
    twins = [one for one in found["candidates"] if one["driver"] == "twin"]
    assert [one["reason"] for one in twins] == ["name-conflict", "name-conflict"]
    assert {one["source"] for one in twins} == {"one_plugin:Driver", "two_plugin:Driver"}
    assert loaded(listed(installation, tmp_path)) == {*OWN, "fuse-overlayfs"}


def test_all_bad_plugins_at_once(installation: Installation, tmp_path: Path) -> None:
    """However many plugins are bad, the package's own drivers load."""
    for kind, (name, source, _, _) in BAD_PLUGINS.items():
        plant(tmp_path, f"plugin-{kind}", name, source)
    rows = listed(installation, tmp_path)
    assert loaded(rows) >= OWN
    assert len(rows) == len(OWN) + 1 + len(BAD_PLUGINS)


# stevedore's cache

PLANT = """
import json, os, sys
sys.path[0] = os.path.join(sys.prefix, "bin")  # as it is for the installed program
from stevedore import ExtensionManager, _cache
digest, paths = _cache._hash_settings_for_path(tuple(sys.path))
entry = ["evil", "evil:Driver", "storagedrivers.drivers"]
document = {"groups": {"storagedrivers.drivers": [entry]}, "sys.executable": sys.executable,
            "sys.prefix": sys.prefix, "path_values": paths}
os.makedirs(_cache._get_cache_dir())
with open(os.path.join(_cache._get_cache_dir(), digest), "w") as file:
    json.dump(document, file)
manager = ExtensionManager("storagedrivers.drivers", on_load_failure_callback=lambda *_: None)
print(*manager.names())
"""


def test_planted_cache_changes_nothing(installation: Installation, tmp_path: Path) -> None:
    """A file in stevedore's cache directory decides neither on drivers nor on what is imported."""
    code, cache, trace = tmp_path / "code", tmp_path / "cache", tmp_path / "trace"
    code.mkdir()
    (code / "evil.py").write_text(f"open({str(trace)!r}, 'w')\n" + driver("evil"))
    cached = {"XDG_CACHE_HOME": str(cache)}
    planted = installation.run_as_is(installation.python, "-c", PLANT, path=code, **cached)
    assert planted.stdout.split() == ["evil"], planted.stderr  # stevedore by itself takes it
    trace.unlink()
    before = listed(installation, code)
    after = listed(installation, code, **cached)
    assert after == before
    assert loaded(after) == {*OWN, "fuse-overlayfs"}
    assert not trace.exists(), "the planted module was imported"
    assert len(list((cache / "python-entrypoints").iterdir())) == 1, "the cache was written to"
