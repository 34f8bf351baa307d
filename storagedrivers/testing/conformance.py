"""The contracts as a pytest class that a driver's tests derive from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from storagedrivers.driver import StorageDriver
from storagedrivers.testing.contracts import Contracts
from storagedrivers.testing.rig import Rig


class DriverConformance(Contracts):
    """Derive, name the class ``Test…`` and set ``driver``.

    Class attributes:
        driver: the driver's class.
        exceptions: contracts that it is known not to keep here, by method name, with the reason;
            ``driver.exceptions`` or some of them. They must fail: one that is kept after all is
            reported, so that the list stays true.
    """

    driver: ClassVar[type[StorageDriver]]
    exceptions: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def graph_root(self, tmp_path: Path) -> Path:
        """An empty directory on the filesystem to test on; override it for others."""
        return tmp_path

    @pytest.fixture
    def rig(self, request: pytest.FixtureRequest, graph_root: Path) -> Iterator[Rig]:
        """The driver on the graph root."""
        if reason := self.exceptions.get(request.node.originalname):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
        with Rig(self.driver, graph_root) as rig:
            yield rig
