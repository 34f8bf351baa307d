"""Say what is wrong with the store. Changes nothing, and may run while the store is used.

Exit codes: 0 nothing is wrong, 1 something is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import output
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.check import Finding


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_deep_option(parser)


def add_deep_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--deep``."""
    parser.add_argument(
        "--deep", action="store_true", help="read every layer and compare it with its tar"
    )


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    with Storage.open(config, read_only=True) as storage:
        findings = []
        for finding in find(storage, arguments):
            findings.append(finding)
            if not arguments.json:
                output.line(text_of(finding))
                output.line(f"  → {finding.action}")
    if arguments.json:
        documents = [document_of(one) for one in findings]
        output.document({"schema": 1, "findings": documents})
    elif not findings:
        output.note("nothing is wrong")
    return 1 if findings else 0


def find(storage: Storage, arguments: argparse.Namespace) -> Iterator[Finding]:
    """What is wrong, found with a bar that says how far the search is."""
    from storagedrivers.stores.check import check

    quiet = arguments.json or not arguments.deep
    with output.progress("checking", None, quiet=quiet, counts_bytes=False) as bar:
        yield from check(storage.layers, deep=arguments.deep, progress=bar)


def text_of(finding: Finding) -> str:
    """A finding on one line."""
    place = output.visible(finding.path.encode("utf-8", "surrogateescape"))
    layer = f" layer {finding.layer}" if finding.layer else ""
    return f"{finding.severity}: {finding.code}:{layer} {place}: {finding.message}"


def document_of(finding: Finding) -> dict[str, Any]:
    """A finding, as the JSON documents have it."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "layer": finding.layer or None,
        "path": finding.path,
        "message": finding.message,
        "action": finding.action,
    }
