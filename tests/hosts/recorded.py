"""Recorded hosts: what was read from them, and the driver that each policy must choose there.

See README.md beside this file for what a host's directory holds.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from storagedrivers.host import HostFacts, read_host

HOSTS = Path(__file__).parent
DEFAULT_GRAPH_ROOT = "/var/lib/storagedrivers"


def host_names() -> list[str]:
    """The names of all recorded hosts, sorted."""
    return sorted(path.parent.name for path in HOSTS.glob("*/host.toml"))


def host_root(name: str) -> Path:
    """The recorded root directory of a host."""
    return HOSTS / name / "root"


def load_host(name: str) -> tuple[HostFacts, dict[str, Any]]:
    """A host's facts, and its ``host.toml`` with the tables ``expected`` and ``rejected``.

    What cannot be read from files, the host.toml adds: ``facts`` and ``graph_root``.

    Raises:
        ConfigError: there is no such fact, or it has another type.
    """
    file = HOSTS / name / "host.toml"
    document = tomllib.loads(file.read_text("utf-8"))
    measured = dict(document.get("graph_root", {}))
    graph_root = measured.pop("path", DEFAULT_GRAPH_ROOT)
    facts = json.loads(read_host(graph_root, root=str(host_root(name))).to_json())
    facts["graph_root"].update(measured)
    facts.update(document.get("facts", {}))
    return HostFacts.from_json(json.dumps(facts), file=str(file)), document
