"""The contracts of a storage driver, one sentence each: the first line of each method's docstring.

Plain methods that take a :class:`~storagedrivers.testing.rig.Rig` and raise ``AssertionError``:
pytest runs them through :class:`storagedrivers.testing.DriverConformance`, the command ``verify``
without pytest.
"""

from storagedrivers.testing.contracts.content import ContentContracts
from storagedrivers.testing.contracts.crash import CrashContracts
from storagedrivers.testing.contracts.interface import InterfaceContracts
from storagedrivers.testing.contracts.isolation import IsolationContracts
from storagedrivers.testing.contracts.sealing import SealingContracts

__all__ = ["Contracts"]


class Contracts(
    InterfaceContracts, ContentContracts, IsolationContracts, SealingContracts, CrashContracts
):
    """All of them."""
