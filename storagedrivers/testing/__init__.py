"""The conformance kit: what every driver promises, as tests that ship with the package.

A plugin's tests derive from it, with pytest::

    from storagedrivers.testing import DriverConformance
    from my_package import MyDriver

    class TestMyDriver(DriverConformance):
        driver = MyDriver

``storagedrivers verify NAME --root DIR`` runs the same contracts on a user's own host, without
pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storagedrivers.testing.rig import Layer, NotApplicable, Rig
from storagedrivers.testing.runner import Outcome, Result, run_contracts

if TYPE_CHECKING:
    from storagedrivers.testing.conformance import DriverConformance

__all__ = [
    "DriverConformance",
    "Layer",
    "NotApplicable",
    "Outcome",
    "Result",
    "Rig",
    "run_contracts",
]


def __getattr__(name: str) -> Any:
    if name == "DriverConformance":  # pytest is needed for this one only
        from storagedrivers.testing.conformance import DriverConformance

        return DriverConformance
    raise AttributeError(f"module 'storagedrivers.testing' has no attribute {name!r}")
