"""Run the conformance kit for a driver: its contracts, on this host, on the filesystem of the graph
root.

Everything happens in a scratch directory that is removed, and in a mount namespace of its own. Exit
codes: 0 all contracts that could be tried are kept, 1 one is broken or the driver does not work
here.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from storagedrivers.cli import output
from storagedrivers.cli.detect import choose
from storagedrivers.config import StorageConfig
from storagedrivers.errors import DriverUnsupportedError
from storagedrivers.host import read_host
from storagedrivers.linux import namespace
from storagedrivers.registry import Registry
from storagedrivers.selector import probe_entry


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the driver."""
    parser.add_argument(
        "name", metavar="DRIVER", nargs="?", help="default: the one that detect chooses"
    )


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    from pathlib import Path

    from storagedrivers.testing import Outcome, run_contracts

    assert config.root.value is not None
    registry = Registry.discover()
    host = read_host(config.root.value, inventory=False)
    if arguments.name:
        entry = registry.find(arguments.name)
        answer = probe_entry(entry, host)
    else:
        selection = choose(registry, host, config)
        entry = registry.find(selection.require())
        answer = next(one.probe for one in selection.candidates if one.source == entry.source)
    driver = entry.driver
    assert driver is not None
    if not answer.supported:
        raise DriverUnsupportedError(
            f"{driver.name} does not work here: {answer.message}", resolution=answer.remedy or None
        )
    if host.can_mount:
        namespace.make_mounts_private()
    output.note(f"{driver.name} in {host.graph_root.probed} on {host.graph_root.filesystem}")
    results = []
    for result in run_contracts(driver, Path(host.graph_root.probed)):
        results.append(result)
        if not arguments.json:
            output.line(f"{result.outcome:<15} {result.sentence}")
            for line in result.message.splitlines():
                output.line(f"{'':<15} {line}")
    counts = {outcome: sum(one.outcome is outcome for one in results) for outcome in Outcome}
    if arguments.json:
        document = {
            "schema": 1,
            "driver": driver.name,
            "contracts": [asdict(one) for one in results],
        }
        output.document(document)
    else:
        output.line()
        output.line(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts[Outcome.BROKEN] else 0
