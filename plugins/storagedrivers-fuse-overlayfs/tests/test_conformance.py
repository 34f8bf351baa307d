"""The kit, with the real program, on every filesystem that can be made here.

The exceptions are what fuse-overlayfs 1.10 does, measured on Linux 6.18; a later version that does
better makes the test fail, so that the list stays true.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest
from storagedrivers.linux import namespace
from storagedrivers.testing import DriverConformance
from storagedrivers.testing.filesystems import loop_filesystem, missing_program

from storagedrivers_fuse_overlayfs import FuseOverlayfs

HOLES = "test_holes_stay_holes"
"""Kept where contents are shared by reflink."""

WITH_REFLINKS = {name: reason for name, reason in FuseOverlayfs.exceptions.items() if name != HOLES}


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
    exceptions = FuseOverlayfs.exceptions


class TestOnXfs(OnFilesystem):
    filesystem_name = "xfs"
    exceptions = WITH_REFLINKS


class TestOnBtrfs(OnFilesystem):
    filesystem_name = "btrfs"
    exceptions = WITH_REFLINKS


class TestOnTmpfs(OnFilesystem):
    filesystem_name = "tmpfs"
    exceptions = FuseOverlayfs.exceptions
