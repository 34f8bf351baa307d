"""Make a container and run it: the program's exit code is that of its command."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import create_options, output, running
from storagedrivers.errors import RuntimeFailedError, StorageDriversError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig

SCHEMA = 1

RUNTIMES = ("crun", "runc", "unshare")

_NO_NEW_PRIVILEGES = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; those after IMAGE are the command's."""
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="print its id, and let it run")
    add("--runtime", choices=RUNTIMES, help="default: the first that works here")
    add(
        "--security-opt",
        action="append",
        default=[],
        choices=_NO_NEW_PRIVILEGES,
        metavar="OPTION",
        help="no-new-privileges: setuid programs give nothing",
    )
    add("--pull", choices=("never", "missing"), help="nothing is pulled anyway")
    create_options.configure(parser)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    try:
        return _run(arguments, config)
    except (StorageDriversError, OSError) as error:
        output.error(error)
        # As Docker: what comes from here is no exit code of the command's.
        return getattr(error, "exit_code", 1) if _is_of_process(error) else 125


def _is_of_process(error: Exception) -> bool:
    return isinstance(error, RuntimeFailedError)


def _run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    if not arguments.detach:
        running.check_terminal(tty=arguments.tty, interactive=arguments.interactive)
    with running.opened_to_run(config) as storage:
        container = storage.containers.create(
            arguments.image,
            name=arguments.name,
            config={**create_options.config_of(arguments), **_more(arguments)},
            size=create_options.size_of(arguments),
        )
        try:
            if not arguments.detach:
                return storage.runtime.run(container.id, interactive=arguments.interactive)
            storage.runtime.start(container.id)
        except StorageDriversError:
            if arguments.rm:
                with suppress(StorageDriversError):
                    storage.containers.remove(container.id)
            raise
    if arguments.json:
        output.document({"schema": SCHEMA, "id": container.id, "name": container.name})
    else:
        output.line(container.id)
    return 0


def _more(arguments: argparse.Namespace) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if arguments.runtime:
        more["Runtime"] = arguments.runtime
    if arguments.security_opt:
        more["NoNewPrivileges"] = True
    return more
