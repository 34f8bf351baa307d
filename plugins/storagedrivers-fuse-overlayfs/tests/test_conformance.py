"""The kit, with the real program, on every filesystem that can be made here.

The exceptions are what fuse-overlayfs 1.10 does, measured on Linux 6.18; a later version that does
better makes the test fail, so that the list stays true.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest
from storagedrivers.linux import namespace
from storagedrivers.testing import DriverConformance
from storagedrivers.testing.filesystems import loop_filesystem, missing_program

from storagedrivers_fuse_overlayfs import FuseOverlayfs

_FIFO = "changing the owner of a fifo of a lower layer is EIO, and makes an empty file of it"

EXCEPTIONS = {
    "test_deep_trees": "a path that is longer than PATH_MAX is not shown",
    "test_edits": f"{_FIFO}; a directory gets a new time when something below it is copied up",
    "test_lower_hard_links_act_as_declared": (
        "a write shows in every name while it is mounted, and afterwards in one, perhaps another"
    ),
    "test_new_trees": "a directory of a lower layer loses setgid when something is made in it",
    "test_overlays_own_names_mean_nothing": (
        "user.overlay.opaque can be set, is kept under its own name and hides what is below"
    ),
    "test_parent_is_never_changed": f"its script fails: {_FIFO}",
    "test_read_only_views_refuse_writes": f"its script fails: {_FIFO}",
    "test_removing_a_layer_leaves_its_siblings": f"its script fails: {_FIFO}",
    "test_renames": (
        "renaming makes an empty file of a lower fifo, and gives a lower symlink and the directory"
        " of a renamed file new times"
    ),
}

HOLES = {"test_holes_stay_holes": "without reflinks a copy-up writes the holes of a sparse file"}


def need(condition: object, reason: str) -> None:
    """Skip without *condition*; fail where everything must be there."""
    if not condition:
        if "all" in os.environ.get("STORAGEDRIVERS_REQUIRE", ""):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Gives the mountpoint of a filesystem by its name; each is made once, and seen here only."""
    need(os.geteuid() == 0, "the tests do not run as root")
    need(shutil.which("fuse-overlayfs"), "fuse-overlayfs is not installed")
    namespace.make_mounts_private()
    mounted: dict[str, Path] = {}
    with ExitStack() as stack:

        def get(name: str) -> Path:
            need(missing_program(name) is None, f"{missing_program(name)} is not installed")
            if name not in mounted:
                directory = tmp_path_factory.mktemp(name)
                mounted[name] = stack.enter_context(loop_filesystem(name, directory))
            return mounted[name]

        yield get


class OnFilesystem(DriverConformance):
    driver = FuseOverlayfs
    filesystem_name: ClassVar[str]

    @pytest.fixture
    def graph_root(self, filesystem: Callable[[str], Path]) -> Path:
        root = filesystem(self.filesystem_name) / f"test, {os.urandom(4).hex()}\\"
        root.mkdir()
        return root


class TestOnExt4(OnFilesystem):
    filesystem_name = "ext4"
    exceptions: ClassVar[Mapping[str, str]] = {**EXCEPTIONS, **HOLES}


class TestOnXfs(OnFilesystem):
    filesystem_name = "xfs"
    exceptions = EXCEPTIONS


class TestOnBtrfs(OnFilesystem):
    filesystem_name = "btrfs"
    exceptions = EXCEPTIONS


class TestOnTmpfs(OnFilesystem):
    filesystem_name = "tmpfs"
    exceptions: ClassVar[Mapping[str, str]] = {**EXCEPTIONS, **HOLES}
