"""The page for authors of drivers, followed to the letter: its files, its kit, its size."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from capabilities import lack

from storagedrivers.testing.runner import contract_names

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs/writing-a-driver.md"
_FILE = re.compile(
    r"^\*\*`(?P<name>[^`]+)`\*\*\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


def files() -> dict[str, str]:
    """The files that the page shows, by name."""
    return {found["name"]: found["text"] for found in _FILE.finditer(PAGE.read_text("utf-8"))}


def run(*command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would, without what the tests have in their environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, with the page's files; the driver is installed in ``venv`` beside it."""
    if importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("pip") is None:
        if "all" in os.environ.get("STORAGEDRIVERS_REQUIRE", "").split(","):
            pytest.fail("CI must have hatchling and pip", pytrace=False)
        lack("build", "hatchling and pip are not installed")
    top = tmp_path_factory.mktemp("author")
    folder = top / "folder"
    folder.mkdir()
    for name, text in files().items():
        (folder / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(top / "wheels")]
    subprocess.run([*build, str(PROJECT), str(folder)], check=True, capture_output=True)
    venv.create(top / "venv", symlinks=True)
    install = [*pip, "--python", str(top / "venv/bin/python"), "install", *offline]
    wheels = map(str, (top / "wheels").glob("*.whl"))
    subprocess.run([*install, *wheels], check=True, capture_output=True)
    (packages,) = (top / "venv").glob("lib/python*/site-packages")
    dependencies = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return folder


def test_page_has_the_whole_package() -> None:
    """The page shows every file of the package."""
    assert files().keys() == {"pyproject.toml", "whole_copy.py", "test_whole_copy.py"}


def test_package_is_small() -> None:
    """From an empty folder to a passing kit it takes less than 100 lines."""
    lines = [line for text in files().values() for line in text.splitlines() if line.strip()]
    assert len(lines) < 100, f"{len(lines)} lines"
    assert max(map(len, lines)) <= 100


def test_driver_is_seen(folder: Path) -> None:
    """Once installed, the driver is listed and answers in ``detect``."""
    program = str(folder.parent / "venv/bin/storagedrivers")
    listed = run(program, "driver", "ls", "--json", directory=folder)
    rows = {row["driver"]: row for row in json.loads(listed.stdout)["drivers"]}
    assert rows["whole-copy"]["source"] == "whole_copy:WholeCopy"
    assert rows["whole-copy"]["loaded"]
    root = str(folder.parent / "root")
    words = ("detect", "--driver", "whole-copy", "--json", "--root", root)
    found = json.loads(run(program, *words, directory=folder).stdout)
    assert (found["chosen"], found["quality"]) == ("whole-copy", "copying")


def test_driver_keeps_every_contract(folder: Path) -> None:
    """The page's test passes: no contract fails, and none is skipped where the tests may mount."""
    python, report = str(folder.parent / "venv/bin/python"), folder.parent / "report.xml"
    options = ("-q", "-p", "no:cacheprovider", f"--junitxml={report}")
    result = run(python, "-m", "pytest", *options, directory=folder)
    assert result.returncode == 0, result.stdout
    cases = list(ET.parse(report).iter("testcase"))
    assert {case.get("name") for case in cases} == set(contract_names())
    if os.geteuid() == 0:
        assert not [case.get("name") for case in cases if len(case)]
