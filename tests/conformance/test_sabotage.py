"""A kit that passes everything proves nothing: every sabotaged driver fails it, by the contract's
name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from capabilities import need
from conformance.sabotage import SABOTAGED

from storagedrivers.driver import StorageDriver
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.testing import Outcome, run_contracts
from storagedrivers.testing.contracts import Contracts


@pytest.mark.parametrize(
    ("driver", "contracts"), SABOTAGED, ids=lambda value: getattr(value, "__name__", "")
)
def test_sabotaged_driver_fails(
    driver: type[StorageDriver], contracts: tuple[str, ...], on_filesystem: Callable[[str], Path]
) -> None:
    """The contract that the defect breaks says so."""
    need("root", "overlay")
    directory = on_filesystem("btrfs" if issubclass(driver, BtrfsSnapshot) else "ext4")
    results = list(run_contracts(driver, directory, names=contracts))
    assert [one.outcome for one in results] == [Outcome.BROKEN] * len(contracts), results


def test_enough_are_sabotaged() -> None:
    """At least 15 drivers are sabotaged, and between them they break most of the contracts."""
    broken = {name for _, contracts in SABOTAGED for name in contracts}
    assert len(SABOTAGED) >= 15
    assert all(hasattr(Contracts, name) for name in broken)
