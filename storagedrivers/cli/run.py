"""Make a container and run it: the program's exit code is that of its command."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import create_options, output, running
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import RuntimeFailedError, StorageDriversError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.planning import Plan

SCHEMA = 1

RUNTIMES = ("crun", "runc", "unshare")

_NO_NEW_PRIVILEGES = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; those after IMAGE are the command's."""
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="print its id, and let it run")
    add(
        "--dry-run",
        action="store_true",
        help="only say what its mounts would create, copy and hide, and whether it can start;"
        " nothing is made",
    )
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
    if arguments.dry_run:
        return _show_plan(arguments, config)
    if not arguments.detach:
        running.check_terminal(tty=arguments.tty, interactive=arguments.interactive)
    with running.opened_to_run(config) as storage:
        container = storage.containers.create(
            arguments.image,
            name=arguments.name,
            config={**create_options.config_of(arguments), **_more(arguments)},
            size=create_options.size_of(arguments),
            **create_options.mounts_of(arguments),
        )
        try:
            if not arguments.detach:
                return storage.runtime.run(container.id, interactive=arguments.interactive)
            storage.runtime.start(container.id)
        except StorageDriversError:
            if arguments.rm:
                with suppress(StorageDriversError):
                    storage.containers.remove(container.id, volumes=True)
            raise
    if arguments.json:
        output.document({"schema": SCHEMA, "id": container.id, "name": container.name})
    else:
        output.line(container.id)
    return 0


def _show_plan(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Say what would be done: by the plan that making the container carries out.

    Where it would not start, the exit code is that of a run that does not.
    """
    # Where it can be written, the files that each container of an image finds besides it are made
    # for the first: they count.
    with opened(config, only_reads=True) as storage:
        plan = storage.containers.plan(
            arguments.image,
            config=create_options.config_of(arguments),
            **create_options.mounts_of(arguments),
        )
    if arguments.json:
        output.document({"schema": SCHEMA, **_document(plan)})
    else:
        for line in plan.lines():
            output.line(line)
    return 0 if plan.can_start else RuntimeFailedError.exit_code


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "image": plan.image,
        "mounts": [
            {
                "type": one.kind,
                "source": one.source,
                "target": one.target,
                "read_only": one.read_only,
                "creates": one.creates,
                "filled": one.filled and one.filled._asdict(),
                "hidden": one.hidden and one.hidden._asdict(),
                "owner": one.owner and {**one.owner._asdict(), "mode": f"{one.owner.mode:04o}"},
                "warnings": list(one.warnings),
                "problems": list(one.problems),
            }
            for one in plan.mounts
        ],
        "warnings": list(plan.warnings),
        "problems": list(plan.problems),
    }


def _more(arguments: argparse.Namespace) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if arguments.runtime:
        more["Runtime"] = arguments.runtime
    if arguments.security_opt:
        more["NoNewPrivileges"] = True
    return more
