"""What commands share that work on a store: opening it, the parsers of a noun's verbs, documents
for people.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import output
from storagedrivers.errors import StorageDriversError
from storagedrivers.storage import Storage
from storagedrivers.stores.database import can_be_written

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig

Configure = Callable[[argparse.ArgumentParser], object]
Action = Callable[[argparse.Namespace, "StorageConfig"], int]
REFERENCE = "its name, its id, or the beginning of that"
"""What names an image or a container, for help."""

Verbs = Mapping[str, tuple[str, Configure, Action]]
"""By name: what it does, its arguments, the function."""

_NO_ALIASES: Mapping[str, str] = MappingProxyType({})
_EPILOG = "And the global options, such as --json: see storagedrivers --help."


@contextmanager
def opened(
    config: StorageConfig, *, read_only: bool = False, only_reads: bool = False
) -> Iterator[Storage]:
    """The store, and what opening it has to say.

    Args:
        config: the settings.
        read_only: change nothing.
        only_reads: where nothing can be changed, that is no obstacle; else what others have left
            half done is finished.
    """
    if only_reads and config.root.value is not None:
        read_only = not can_be_written(config.root.value)
    with Storage.open(config, read_only=read_only) as storage:
        for warning in storage.warnings:
            output.warning(warning)
        yield storage


def add_verbs(
    parser: argparse.ArgumentParser, verbs: Verbs, aliases: Mapping[str, str] = _NO_ALIASES
) -> None:
    """Add a parser for each verb.

    Args:
        parser: the noun's.
        verbs: by name.
        aliases: more names, which help does not list, to those in *verbs*.
    """
    from storagedrivers.cli.main import OWN, VERBATIM, global_options

    noun = parser.prog.split()[-1]
    # Without a name of its own for the verbs, argparse imports what it formats help with.
    parsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog=parser.prog)
    for name in (*verbs, *aliases):
        about, configure, _ = verbs[aliases.get(name, name)]
        whole = f"{noun} {name}"
        own = global_options(suppress=True, without=OWN.get(whole, ""))
        listed: dict[str, Any] = {} if name in aliases else {"help": about}
        verb = parsers.add_parser(
            name,
            **listed,
            description=f"{about.capitalize()}.",
            epilog=None if whole in VERBATIM else _EPILOG,
            formatter_class=parser.formatter_class,
            allow_abbrev=False,
            # Those of the others are taken before their parsers see anything.
            parents=[own] if whole in VERBATIM else [],
        )
        configure(verb)


def for_each(
    arguments: argparse.Namespace,
    noun: str,
    act: Callable[[str], tuple[str, str, object]],
    *,
    schema: int,
) -> int:
    """Do something with each of the things that were named; one that fails does not keep the
    others.

    Args:
        arguments: those of the verb; they have the references as the noun's plural.
        noun: what they are.
        act: takes a reference; gives the id, what to print, and what was done: False where the
            thing is still mounted, for others.
        schema: the version of the JSON document.

    Returns:
        The exit code.
    """
    documents: list[dict[str, Any]] = []
    for reference in getattr(arguments, f"{noun}s"):
        try:
            identity, shown, done = act(reference)
        except (StorageDriversError, OSError) as error:
            output.error(error)
            documents.append({noun: reference, "done": False, "error": str(error)})
            continue
        if not arguments.json and done is not False:
            output.line(shown)
        documents.append({noun: identity, "done": done is not False, "error": None})
    if arguments.json:
        output.document({"schema": schema, f"{noun}s": documents})
    return 1 if any(one["error"] for one in documents) else 0


def print_documents(documents: Sequence[dict[str, Any]], text: Callable[[str, Any], str]) -> None:
    """Print all that is known of things, a line for each key.

    Args:
        documents: one for each thing.
        text: a value for people, by its key.
    """
    for number, document in enumerate(documents):
        if number:
            output.line()
        for key, value in document.items():
            output.line(f"{key.replace('_', ' ')}: {text(key, value)}")
