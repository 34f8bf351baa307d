"""The page on volumes, followed to the letter: its commands, and the volume driver it shows."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from capabilities import need
from contained import BASE, clean
from programs import environment

from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.storage import Storage

PAGE = (Path(__file__).parents[2] / "docs/volumes.md").read_text("utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[str]:
    """What a reader would type."""
    return re.findall(r"^ {4}(storagedrivers .*)$", text, re.MULTILINE)


class Reader:
    """Someone with a shell, a store, and the page's driver installed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        plugin = directory / "plugin"
        information = plugin / "shelf-1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
        (entry,) = re.findall(r"^shelf = \"(.*)\"$", PAGE, re.MULTILINE)
        (information / "entry_points.txt").write_text(
            f"[storagedrivers.volumes]\nshelf = {entry}\n"
        )
        (code,) = re.findall(r"^```python\n(\"\"\"shelf.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
        (plugin / "shelf.py").write_text(code)
        program = directory / "bin/storagedrivers"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m storagedrivers "$@"\n')
        program.chmod(0o755)
        self._environment = {
            **environment(),
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(plugin),
            "STORAGEDRIVERS_ROOT": str(directory / "root"),
            "STORAGEDRIVERS_RUN_ROOT": str(directory / "run"),
        }

    def types(self, command: str, *, code: int = 0) -> str:
        """What is printed, to both outputs."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory, env=self._environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    need("mount", "overlay")
    made = Reader(tmp_path)
    yield made
    with Storage.open(root=tmp_path / "root", run_root=tmp_path / "run") as storage:
        for container in storage.containers.ls():
            storage.containers.remove(container.id, force=True)
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name, force=True)
    clean(Storage.open(root=tmp_path / "root", run_root=tmp_path / "run"))


def with_image(reader: Reader) -> None:
    root, run_root = reader.directory / "root", reader.directory / "run"
    with Storage.open(root=root, run_root=run_root) as storage:
        storage.images.import_(io.BytesIO(BASE), name="debian", changes=['CMD ["sh"]'])


def test_driver_of_the_page_keeps_its_volumes_elsewhere(reader: Reader) -> None:
    (command,) = commands(section("A volume driver"))
    disk = reader.directory / "disk"
    command = command.replace("/disk", str(disk))
    assert reader.types(command) == "books\n"
    (books,) = disk.iterdir()
    assert books.name.startswith("books-")
    assert "a shelf has one option" in reader.types(
        "storagedrivers volume create --driver shelf other", code=1
    )
    assert "cannot be limited" in reader.types(f"{command}2 --size 10m", code=1)
    with_image(reader)
    reader.types("storagedrivers container create -v books:/etc debian")
    assert (books / "motd").read_text() == "hello\n"  # filled, and nothing stays mounted
    assert not [one for one in read_mountinfo() if one.mountpoint.endswith("books/_data")]
    reader.types("storagedrivers volume export books -o books.tar")
    assert "in use by container" in reader.types("storagedrivers volume rm books", code=1)
    reader.types("storagedrivers container prune && storagedrivers volume rm books")
    assert not books.exists()


def test_without_the_driver_its_volumes_are_still_listed(reader: Reader) -> None:
    reader.types(f"storagedrivers volume create -d shelf -o path={reader.directory}/disk books")
    (reader.directory / "plugin/shelf.py").write_text("raise ImportError('gone')\n")
    assert "shelf   books" in reader.types("storagedrivers volume ls")
    assert "shelf" in reader.types("storagedrivers volume rm books", code=1)
    said = reader.types("storagedrivers volume rm -f books")
    assert "volume books is only forgotten: its driver shelf is not there" in said
    assert said.endswith("\nbooks\n")


def test_commands_about_content_do_what_they_say(reader: Reader) -> None:
    reader.types("storagedrivers volume create db")
    (reader.directory / "root/volumes/db/_data/row").write_text("kept")
    for command in commands(section("Export, import, clone")):
        reader.types(command)
    for name in ("other", "copy"):
        data = reader.directory / "root/volumes" / name / "_data"
        assert (data / "row").read_text() == "kept"


def test_options_of_local_are_taken(reader: Reader) -> None:
    """What is not there is an error when it is used, and not before."""
    names = [
        reader.types(one).strip() for one in commands(section("Options of the driver `local`"))
    ]
    assert names == ["nas", "scratch", "data", "disk"]
    with_image(reader)
    reader.types("storagedrivers container create -v scratch:/etc --name box debian")
    assert "cannot be mounted" in reader.types("storagedrivers volume usage disk", code=1)


def test_the_refusal_is_as_the_page_shows_it(reader: Reader) -> None:
    with_image(reader)
    shown = section("What can be written").split("    $ ")[1].split("\n\n")[0]
    command, *lines = (line.strip() for line in shown.splitlines())
    said = reader.types(command, code=125)
    assert [line.strip() for line in said.splitlines()] == lines


def test_a_plan_changes_nothing(reader: Reader) -> None:
    with_image(reader)
    for command in re.findall(r"^ {4}\$ (.*)$", section("Before it happens"), re.MULTILINE):
        assert "db" in reader.types(command)
    assert reader.types("storagedrivers volume ls -q; storagedrivers container ls -q") == ""
