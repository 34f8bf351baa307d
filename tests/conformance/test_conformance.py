"""The kit, for every driver of the package on every filesystem that it works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from capabilities import need

from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.testing import DriverConformance


class OnFilesystem(DriverConformance):
    filesystem_name: str

    @pytest.fixture
    def graph_root(self, on_filesystem: Callable[[str], Path]) -> Path:
        need("root", *(["overlay"] if self.driver is Overlay2 else []))
        return on_filesystem(self.filesystem_name)


class TestOverlay2OnExt4(OnFilesystem):
    driver = Overlay2
    filesystem_name = "ext4"


class TestOverlay2OnXfs(OnFilesystem):
    driver = Overlay2
    filesystem_name = "xfs"


class TestOverlay2OnBtrfs(OnFilesystem):
    driver = Overlay2
    filesystem_name = "btrfs"


class TestOverlay2OnTmpfs(OnFilesystem):
    driver = Overlay2
    filesystem_name = "tmpfs"


class TestBtrfsSnapshot(OnFilesystem):
    driver = BtrfsSnapshot
    filesystem_name = "btrfs"


class TestVfsCopyOnExt4(OnFilesystem):
    driver = VfsCopy
    filesystem_name = "ext4"


class TestVfsCopyOnXfs(OnFilesystem):
    driver = VfsCopy
    filesystem_name = "xfs"


class TestVfsCopyOnBtrfs(OnFilesystem):
    driver = VfsCopy
    filesystem_name = "btrfs"


class TestVfsCopyOnTmpfs(OnFilesystem):
    driver = VfsCopy
    filesystem_name = "tmpfs"


class TestVfsCopyHere(DriverConformance):
    """Wherever the tests run, also without privileges."""

    driver = VfsCopy
