"""Say which driver is best here, and for every other one why it is not.

Exit codes: 0 layers are shared, 3 they can only be copied, 4 nothing works.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from storagedrivers.cli import output
from storagedrivers.config import KEYS, StorageConfig
from storagedrivers.errors import ConfigError
from storagedrivers.host import HostFacts, read_host
from storagedrivers.policy import find_policy, load_policies
from storagedrivers.registry import Registry
from storagedrivers.selector import (
    Candidate,
    Fallback,
    Selection,
    prior_drivers,
    probe_all,
    select,
)

SCHEMA = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_facts_option(parser)
    parser.add_argument(
        "--explain", action="store_true", help="show the order, the settings and what was measured"
    )


def add_facts_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--facts``, for commands that can look at another host."""
    parser.add_argument(
        "--facts",
        metavar="FILE",
        help="a host recorded with 'storagedrivers facts', or - for standard input",
    )


def host_facts(arguments: argparse.Namespace, config: StorageConfig) -> HostFacts:
    """The recorded host that was named, else this one.

    Raises:
        ConfigError: the file is malformed or cannot be read.
    """
    if arguments.facts is None:
        assert config.root.value is not None
        return read_host(config.root.value, inventory=False)
    if config.root.source == "argument":
        output.warning("--root is ignored: the facts are of another graph root")
    try:
        if arguments.facts == "-":
            text = sys.stdin.buffer.read().decode("utf-8")
        else:
            text = Path(arguments.facts).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=arguments.facts) from error
    return HostFacts.from_json(text, file=arguments.facts)


def choose(registry: Registry, host: HostFacts, config: StorageConfig) -> Selection:
    """Choose a driver by the settings.

    Raises:
        StorageDriversError: there is no such driver or policy.
    """
    policy = find_policy(load_policies(config.policy_file.value), config.policy.value or "")
    requested = registry.get(config.driver.value).name if config.driver.value else None
    names = {entry.name for entry in registry}  # those that failed to load have layers too
    return select(
        probe_all(registry, host),
        policy=policy,
        host=host,
        requested=requested,
        prior=() if host.recorded else prior_drivers(host.graph_root.path, names),
        fallback=Fallback(config.fallback.value or Fallback.WARN),
    )


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    registry = Registry.discover()
    host = host_facts(arguments, config)
    selection = choose(registry, host, config)
    if arguments.json:
        output.document(as_document(selection, host))
    else:
        _print(selection, host)
        if arguments.explain:
            _explain(selection, host, config)
    for warning in selection.warnings:
        output.warning(warning)
    if selection.refusal is not None:
        output.error(selection.refusal)
    return selection.quality.exit_code


def as_document(selection: Selection, host: HostFacts) -> dict[str, Any]:
    """The JSON document; its schema is ``docs/schemas/detect.json``."""
    return {
        "schema": SCHEMA,
        "chosen": selection.chosen,
        "quality": selection.quality.value,
        "why": selection.why,
        "policy": selection.policy,
        "root": host.graph_root.path,
        "filesystem": host.graph_root.filesystem,
        "prior": list(selection.prior),
        "warnings": list(selection.warnings),
        "candidates": [
            {
                "driver": candidate.driver,
                "supported": candidate.probe.supported,
                "reason": candidate.probe.reason.value,
                "message": candidate.probe.message,
                "remedy": candidate.probe.remedy,
                "capabilities": sorted(candidate.probe.capabilities),
                "predicted": candidate.probe.predicted,
                "evidence": dict(candidate.probe.evidence),
                "source": candidate.source,
            }
            for candidate in selection.candidates
        ],
    }


def _print(selection: Selection, host: HostFacts) -> None:
    root = host.graph_root
    where = f"{root.path} on {root.filesystem or 'an unknown filesystem'}"
    missing = (
        ""
        if root.probed == root.path or host.recorded
        else f" (not there yet; tried in {root.probed})"
    )
    output.line(f"{host.os.name}, kernel {host.kernel}; graph root {where}{missing}")
    output.line(f"{selection.chosen or 'no driver'}: {selection.why}")
    output.line()
    chosen = [one.driver == selection.chosen for one in selection.candidates]
    output.table(
        ("", "DRIVER", "REASON", "WHY"),
        [_row(one, selection.chosen) for one in selection.candidates],
        marked=chosen.index(True) if True in chosen else None,
    )


def _row(candidate: Candidate, chosen: str | None) -> tuple[str, str, str, str]:
    probe = candidate.probe
    message = probe.message + (" (predicted, not tried)" if probe.predicted else "")
    if probe.supported and chosen not in (None, candidate.driver):
        message += f"; {chosen} comes first"
    remedy = f"\n→ {probe.remedy}" if probe.remedy else ""
    mark = "*" if candidate.driver == chosen and probe.supported else ""
    return mark, candidate.driver, probe.reason.value, message + remedy


def _explain(selection: Selection, host: HostFacts, config: StorageConfig) -> None:
    policy = find_policy(load_policies(config.policy_file.value), selection.policy)
    rule = policy.rule_for(host.os)
    output.line()
    output.line(f"policy {policy.name}: {policy.description}")
    if rule:
        output.line(f"  rule {rule.name}: {rule.because}")
    output.line(f"  order {', '.join(policy.order_for(host.os))}")
    output.line("settings")
    for key in KEYS:
        setting = getattr(config, key)
        if setting.value is not None:
            output.line(f"  {key} = {setting.value} ({setting.source})")
    output.line("measured")
    for candidate in selection.candidates:
        evidence = ", ".join(f"{key} {value}" for key, value in candidate.probe.evidence.items())
        abilities = ", ".join(sorted(candidate.probe.capabilities))
        output.line(f"  {candidate.driver}: {evidence or 'nothing'}")
        if abilities:
            output.line(f"    can {abilities}")
