"""What is known of a host: :class:`HostFacts`, read from a root directory or from JSON.

Parsing is pure and works on a recorded root directory as on ``/``. Only :mod:`.measure` writes: a
scratch directory on the filesystem of the graph root, removed at once.
"""

from storagedrivers.host.facts import Disk, GraphRoot, HostFacts, OsRelease
from storagedrivers.host.read import read_host

__all__ = ["Disk", "GraphRoot", "HostFacts", "OsRelease", "read_host"]
