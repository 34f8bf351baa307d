"""The examples of the Python API and of the manual do what they say, as root and as any user.

In those of the stores' methods, ``storage`` is an open store with one ``layer``, made of the file
``tar``; ``root`` is its graph root.
"""

from __future__ import annotations

import doctest
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from capabilities import need
from stored import release

from storagedrivers.storage import Storage
from storagedrivers.stores.images import ImageStore
from storagedrivers.stores.layers import LayerStore

_PROJECT = Path(__file__).parents[2]
_FOUND = {
    one.name: one
    for cls in (Storage, LayerStore, ImageStore)
    for one in doctest.DocTestFinder(exclude_empty=True).find(cls, cls.__name__)
    if one.examples
}
_MOUNTING = {"LayerStore.mounted"}


def _write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, text in (("etc", None), ("etc/motd", b"hello\n")):
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid = os.getuid(), os.getgid()
            if text is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))


@pytest.fixture
def names(tmp_path: Path) -> Iterator[dict[str, Any]]:
    tar = tmp_path / "layer.tar"
    _write_tar(tar)
    with Storage.open(root=tmp_path / "root", run_root=tmp_path / "run") as storage:
        with tar.open("rb") as file:
            layer = storage.layers.add(file)
        yield {
            "Storage": Storage, "io": io, "os": os,
            "storage": storage, "layer": layer, "tar": tar, "root": storage.root,
        }  # fmt: skip
        release(storage.run_root)


def test_the_methods_that_matter_have_an_example() -> None:
    storage = {"", ".open", ".temporary", ".check", ".repair", ".gc", ".df", ".owner"}
    layers = {"", ".mounted", ".changes", ".export"}
    images = {"", ".load"}
    assert set(_FOUND) == {
        *(f"Storage{one}" for one in storage),
        *(f"LayerStore{one}" for one in layers),
        *(f"ImageStore{one}" for one in images),
    }


@pytest.mark.parametrize("name", _FOUND)
def test_docstring(name: str, names: dict[str, Any]) -> None:
    if name in _MOUNTING:
        need("mount")
    test = _FOUND[name]
    test.globs = dict(names)
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("layers.py", ["A fstab", "D hosts", "C motd", "True"]),
        ("containers.py", ["hello", "C etc", "C etc/motd", "2 layers"]),
        (
            "build.py",
            [
                "hello: built /library/",
                "hello: built /application/",
                "hello: 2 layers",
                "clock: cached /library/",
                "clock: built /application/",
                "clock: 2 layers",
                "hello: cached /library/",
                "hello: built /application/",
                "hello: 2 layers",
            ],
        ),
        (
            "volumes.py",
            [
                "/data: volume db, writable",
                "  makes the volume db",
                "  copies 1 entry (10 bytes) of the image into it",
                f"  belongs to {os.getuid()}:{os.getgid()}, mode 0755",
                "schema",
                "used by first",
                "kept",
                "copy db restored",
                "copy",
            ],
        ),
    ],
)
def test_program(name: str, lines: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, _PROJECT / "examples" / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines


def _commands_of_manual() -> str:
    """The commands in the section on layers, as the manual has them."""
    section = (_PROJECT / "docs" / "cli.md").read_text().split("\n## layer\n")[1].split("\n## ")[0]
    return "".join(re.findall(r"^ {4}(.*\n)", section, re.MULTILINE))


def test_commands_of_the_manual(tmp_path: Path) -> None:
    need("mount", "overlay")
    _write_tar(tmp_path / "rootfs.tar.gz")
    with tarfile.open(tmp_path / "changes.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("etc/hostname"))
    program = tmp_path / "storagedrivers"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m storagedrivers "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STORAGEDRIVERS_ROOT": str(tmp_path / "root"),
        "STORAGEDRIVERS_RUN_ROOT": str(tmp_path / "run"),
    }
    done = subprocess.run(
        ["bash", "-e"],
        cwd=tmp_path, env=environment, input=_commands_of_manual(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    release(tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    changes, ids = done.stdout.splitlines()[:2], done.stdout.splitlines()[2:]
    assert changes == ["C /etc", "C /etc/motd"]
    assert len(ids) == 3  # of unmount and seal, and the DiffID
    with tarfile.open(tmp_path / "top.tar") as archive:
        assert archive.getnames() == ["etc", "etc/motd"]
