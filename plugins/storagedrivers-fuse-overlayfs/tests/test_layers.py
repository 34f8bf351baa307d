"""Layers of a store with this driver: what it can hold is what overlay2 makes of the same tars.

Only regular files, directories, symlinks and whiteouts: its other kinds are among the exceptions.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from storagedrivers.linux import namespace
from storagedrivers.storage import Storage
from storagedrivers.stores.check import check
from storagedrivers.testing.trees import differences, read_tree

OLD = 1_000_000_000


def tar(*entries: tuple[str, str]) -> bytes:
    """A tar of (name, content); ``name/`` is a directory, a content ``-> x`` a symlink to x."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.uid, entry.gid = OLD, 7, 8
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
            elif content.startswith("-> "):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[3:]
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return file.getvalue()


BASE = tar(
    ("./", ""),
    ("a/", ""),
    ("a/b/", ""),
    ("a/b/file", "one"),
    ("a/gone", "two"),
    ("a/link", "-> b/file"),
    ("opaque/", ""),
    ("opaque/old", "three"),
    ("replaced", "four"),
)
ABOVE = tar(
    ("a/b/file", "changed"),
    ("a/.wh.gone", ""),
    ("a/new/", ""),
    ("a/new/link", "-> ../link"),
    ("opaque/", ""),
    ("opaque/.wh..wh..opq", ""),
    ("opaque/young", "five"),
    ("replaced/", ""),
    ("replaced/inside", "six"),
)


def test_layers_are_those_of_overlay2(tmp_path: Path) -> None:
    """The same tars give the same tree, the same changes and the same bytes again."""
    if os.geteuid() or not shutil.which("fuse-overlayfs"):
        if "all" in os.environ.get("STORAGEDRIVERS_REQUIRE", ""):
            pytest.fail("CI must have root and fuse-overlayfs", pytrace=False)
        pytest.skip("this needs root and fuse-overlayfs")
    namespace.make_mounts_private()
    seen = []
    for driver in ("fuse-overlayfs", "overlay2"):
        root, run_root = tmp_path / driver, tmp_path / f"{driver}-run"
        with Storage.open(root=root, run_root=run_root, driver=driver) as storage:
            layers = storage.layers
            base = layers.add(io.BytesIO(BASE))
            above = layers.add(io.BytesIO(ABOVE), parent=base.id)
            assert (base.driver, above.driver) == (driver, driver)
            with layers.mounted(above.id) as path:
                tree = read_tree(Path(path))
            out = io.BytesIO()
            layers.export(above.id, out.write)
            assert out.getvalue() == ABOVE
            assert list(check(layers, deep=True)) == []
            seen.append((tree, list(layers.changes(above.id))))
            layers.remove(above.id)
            layers.remove(base.id)
            assert list(storage.driver_for(driver).layers()) == []
    (tree, changes), (expected, expected_changes) = seen
    assert not differences(expected, tree)
    assert changes == expected_changes
