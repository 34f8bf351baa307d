"""List the installed drivers, or look at one."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from storagedrivers.cli import output
from storagedrivers.cli.detect import add_facts_option, host_facts
from storagedrivers.config import StorageConfig
from storagedrivers.registry import Registry
from storagedrivers.selector import probe_entry


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs.add_parser("ls", help="all of them, those that failed to load too")
    inspector = verbs.add_parser(
        "inspect", help="one driver: what it is, and its answer for this host"
    )
    inspector.add_argument("name", metavar="DRIVER")
    add_facts_option(inspector)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    registry = Registry.discover()
    if arguments.verb == "ls":
        _list(registry, as_json=arguments.json)
    else:
        _inspect(registry, arguments, config)
    return 0


def _list(registry: Registry, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "driver": entry.name,
            "aliases": list(entry.driver.aliases) if entry.driver else [],
            "source": entry.source,
            "loaded": entry.driver is not None,
            "message": entry.failure.brief if entry.failure else _summary(entry.driver),
        }
        for entry in sorted(registry, key=lambda entry: entry.name)
    ]
    if as_json:
        output.document({"schema": 1, "drivers": rows})
        return
    output.table(
        ("DRIVER", "ALIASES", "SOURCE", "ABOUT"),
        [(row["driver"], ", ".join(row["aliases"]), row["source"], row["message"]) for row in rows],
    )


def _inspect(registry: Registry, arguments: argparse.Namespace, config: StorageConfig) -> None:
    entry = registry.find(arguments.name)
    driver = entry.driver
    assert driver is not None
    host = host_facts(arguments, config)
    probe = probe_entry(entry, host)
    home = Path(host.graph_root.path) / driver.name
    inspected: dict[str, Any] = {
        "driver": driver.name,
        "about": _summary(driver),
        "aliases": list(driver.aliases),
        "source": entry.source,
        "max_lowers": driver.max_lowers,
        "home": str(home),
        "supported": probe.supported,
        "reason": probe.reason.value,
        "message": probe.message,
        "remedy": probe.remedy,
        "capabilities": sorted(probe.capabilities),
        "evidence": dict(probe.evidence),
        "predicted": probe.predicted,
        "status": {} if host.recorded or not home.is_dir() else dict(driver(home).status()),
    }
    if arguments.json:
        output.document({"schema": 1, **inspected})
        return
    for key, value in inspected.items():
        output.line(f"{key.replace('_', ' ')}: {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


def _summary(driver: type | None) -> str:
    """The first sentence of the driver's module or class."""
    document = inspect.getdoc(driver) or ""
    return document.partition("\n")[0].rstrip(".")
