"""List the policies, or show one: in which order drivers are tried."""

from __future__ import annotations

import argparse
from typing import Any

from storagedrivers.cli import output
from storagedrivers.cli.detect import add_facts_option, host_facts
from storagedrivers.config import StorageConfig
from storagedrivers.policy import Policy, find_policy, load_policies


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs.add_parser("ls", help="all of them")
    shower = verbs.add_parser("show", help="one policy, and what it means for this host")
    shower.add_argument("name", metavar="POLICY")
    add_facts_option(shower)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    policies = load_policies(config.policy_file.value)
    if arguments.verb == "ls":
        rows = [(one.name, one.description, ", ".join(one.order)) for one in policies.values()]
        if arguments.json:
            documents = [_document(one) for one in policies.values()]
            output.document({"schema": 1, "policies": documents})
        else:
            output.table(("POLICY", "ABOUT", "ORDER"), rows)
        return 0
    policy = find_policy(policies, arguments.name)
    host = host_facts(arguments, config)
    rule = policy.rule_for(host.os)
    if arguments.json:
        output.document({"schema": 1, **_document(policy), "here": list(policy.order_for(host.os))})
        return 0
    output.line(f"{policy.name}: {policy.description}")
    output.line(f"order: {', '.join(policy.order)}")
    for one in policy.rules:
        output.line(f"{one.name}: {', '.join(one.order)} ({one.because})")
    output.line(f"on {host.os.name}: {rule.name if rule else 'the general order'}")
    return 0


def _document(policy: Policy) -> dict[str, Any]:
    return {**policy._asdict(), "rules": [rule._asdict() for rule in policy.rules]}
