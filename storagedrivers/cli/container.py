"""Containers: an image, and a writable layer on top of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from storagedrivers.cli import container_list, create_options, nouns, outgoing, output
from storagedrivers.cli.nouns import opened
from storagedrivers.config import source_date_epoch
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.storage import Storage
    from storagedrivers.stores.containers import Container

SCHEMA = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    nouns.add_verbs(parser, VERBS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    _, _, action = VERBS[arguments.verb]
    return action(arguments, config)


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help=nouns.REFERENCE)


def _configure_several(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help=nouns.REFERENCE)


def _answer(arguments: argparse.Namespace, container: Container) -> int:
    if arguments.json:
        output.document({"schema": SCHEMA, "id": container.id, "name": container.name})
    else:
        output.line(container.id)
    return 0


# create, rename


def _create(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        container = storage.containers.create(
            arguments.image,
            name=arguments.name,
            config=create_options.config_of(arguments),
            size=create_options.size_of(arguments),
            **create_options.mounts_of(arguments),
        )
        return _answer(arguments, container)


def _configure_rename(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("name", metavar="NAME", help="the new one")


def _rename(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        return _answer(arguments, storage.containers.rename(arguments.container, arguments.name))


# mount, unmount


def _configure_mount(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--read-only", action="store_true", help="nothing can be written")


def _mount(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        path = storage.containers.mount(arguments.container, read_only=arguments.read_only)
    if arguments.json:
        output.document({"schema": SCHEMA, "path": os.fspath(path)})
    else:
        output.line(os.fspath(path))
    return 0


def _unmount(arguments: argparse.Namespace, config: StorageConfig) -> int:
    return _for_each(arguments, config, lambda storage, one: storage.containers.unmount(one.id))


# diff, export, commit, cp


def _diff(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        changes = storage.containers.diff(arguments.container)
        output.changes(changes, schema=SCHEMA if arguments.json else None)
    return 0


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="instead of standard output")


def _export(arguments: argparse.Namespace, config: StorageConfig) -> int:
    if arguments.output is None:
        _standard_output()
    with opened(config, only_reads=True) as storage:
        container = storage.containers.get(arguments.container)
        outgoing.write_tar(
            arguments,
            lambda write: storage.containers.export(container.id, write),
            None,
            label="exporting",
        )
    return 0


def _configure_commit(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", help="for the image")
    add("-a", "--author", metavar="TEXT", default="", help="who made it")
    add("-m", "--message", metavar="TEXT", default="", help="what there is to say about it")
    add(
        "-c",
        "--change",
        metavar="LINE",
        action="append",
        default=[],
        help="a line as in a Dockerfile: 'CMD [\"sh\"]'",
    )
    add("--no-pause", dest="pause", action="store_false", help="let it run on meanwhile")


def _commit(arguments: argparse.Namespace, config: StorageConfig) -> int:
    epoch = source_date_epoch()
    with opened(config) as storage:
        image = storage.containers.commit(
            arguments.container,
            arguments.name,
            author=arguments.author,
            message=arguments.message,
            changes=tuple(arguments.change),
            pause=arguments.pause,
            source_date_epoch=epoch,
        )
        if arguments.json:
            output.document({"schema": SCHEMA, "image": image.id, "names": list(image.names)})
        else:
            output.line(image.id)
    return 0


def _configure_cp(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--archive", action="store_true", help="keep owners")
    add("-L", "--follow-link", action="store_true", help="copy what SOURCE leads to, as a symlink")
    add("source", metavar="SOURCE", help="CONTAINER:PATH, a path here, or - for a tar")
    add("target", metavar="TARGET", help="CONTAINER:PATH, a path here, or - for a tar")


def _cp(arguments: argparse.Namespace, config: StorageConfig) -> int:
    source, target = _split(arguments.source), _split(arguments.target)
    if source is None and target is None:
        raise StoreError(
            f"neither {arguments.source!r} nor {arguments.target!r} is a path in a container",
            resolution="write CONTAINER:PATH; a path here with a colon in it begins with / or .",
        )
    if source is not None and target is not None:
        raise StoreError(
            "both paths are in containers, and files are copied between one and this host only",
            resolution="copy them here first; a path here with a colon in it begins with / or .",
        )
    options = {"archive": arguments.archive, "follow_link": arguments.follow_link}
    with opened(config, only_reads=target is None) as storage:
        if target is not None:
            given = _standard_input() if arguments.source == "-" else arguments.source
            for warning in storage.containers.copy_in(target[0], given, target[1], **options):
                output.warning(warning)
        else:
            assert source is not None
            wanted = _standard_output() if arguments.target == "-" else arguments.target
            storage.containers.copy_out(*source, wanted, **options)
    return 0


def _split(word: str) -> tuple[str, str] | None:
    """Container and path, or None for a path of the host."""
    container, colon, path = word.partition(":")
    if not colon or not container or word.startswith((".", "/")):
        return None
    return container, path or "/"


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise StoreError(
            "standard input is a terminal, and a tar was expected", resolution="write to it"
        )
    return sys.stdin.buffer


def _standard_output() -> Callable[[bytes | memoryview], object]:
    if sys.stdout is None or sys.stdout.isatty():
        raise StoreError(
            "standard output is a terminal, and a tar is no text",
            resolution="send it to a file or a program",
        )
    return sys.stdout.buffer.write


# checkpoint, rollback, reset, fork


def _configure_checkpoint(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("label", metavar="LABEL", nargs="?", help="default: a number")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ls", action="store_true", help="list those that it has")
    group.add_argument("--drop", action="store_true", help="forget the one with this label")


def _checkpoint(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=arguments.ls) as storage:
        containers = storage.containers
        if arguments.ls:
            return _list_checkpoints(arguments, storage)
        if arguments.drop:
            if arguments.label is None:
                raise StoreError("no label was named", resolution="see --ls")
            containers.drop(arguments.container, arguments.label)
            label = arguments.label
        else:
            _warn_of_cost(storage, arguments.container)
            label = containers.checkpoint(arguments.container, arguments.label).label
        if arguments.json:
            identity = containers.get(arguments.container).id
            output.document({"schema": SCHEMA, "container": identity, "label": label})
        else:
            output.line(label)
    return 0


def _list_checkpoints(arguments: argparse.Namespace, storage: Storage) -> int:
    found = storage.containers.checkpoints(arguments.container)
    if arguments.json:
        output.document({"schema": SCHEMA, "checkpoints": [one._asdict() for one in found]})
    else:
        for one in found:
            output.line(one.label)
    return 0


def _warn_of_cost(storage: Storage, reference: str) -> None:
    """Say beforehand what a driver copies that cannot share."""
    if cost := storage.containers.predicted_cost(reference):
        output.warning(
            f"this copies {output.size(cost)}: {storage.driver} has no cheap-fork, as"
            " storagedrivers driver ls says of others"
        )


def _configure_rollback(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("label", metavar="LABEL", help="of a checkpoint")


def _rollback(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        _warn_of_cost(storage, arguments.container)
        return _answer(arguments, storage.containers.rollback(arguments.container, arguments.label))


def _reset(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        _warn_of_cost(storage, arguments.container)
        return _answer(arguments, storage.containers.reset(arguments.container))


def _configure_fork(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("--name", metavar="NAME", help="default: two words that chance chooses")


def _fork(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        _warn_of_cost(storage, arguments.container)
        return _answer(arguments, storage.containers.fork(arguments.container, arguments.name))


# rm, prune


def _configure_rm(parser: argparse.ArgumentParser) -> None:
    _configure_several(parser)
    parser.add_argument(
        "-f", "--force", action="store_true", help="kill it, and unmount it where it is mounted"
    )
    _add_volumes(parser)


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v", "--volumes", action="store_true", help="with its anonymous volumes that no other uses"
    )


def _rm(arguments: argparse.Namespace, config: StorageConfig) -> int:
    return _for_each(
        arguments,
        config,
        lambda storage, one: storage.containers.remove(
            one.id, force=arguments.force, volumes=arguments.volumes
        ),
    )


def _for_each(
    arguments: argparse.Namespace,
    config: StorageConfig,
    action: Callable[[Storage, Container], object],
) -> int:
    """Do it with every container; as Docker's, the answer is what the user wrote."""
    with opened(config) as storage:

        def act(reference: str) -> tuple[str, str, object]:
            container = storage.containers.get(reference)
            return container.id, reference, action(storage, container)

        return nouns.for_each(arguments, "container", act, schema=SCHEMA)


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say which")
    parser.add_argument("-f", "--force", action="store_true", help="taken as Docker's: never asks")
    _add_volumes(parser)


def _prune(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, only_reads=arguments.dry_run) as storage:
        found = storage.containers.prune(dry_run=arguments.dry_run, volumes=arguments.volumes)
        if arguments.json:
            documents = [{"id": one.id, "name": one.name} for one in found]
            output.document({"schema": SCHEMA, "containers": documents})
        else:
            for one in found:
                output.line(one.id)
    return 0


VERBS: nouns.Verbs = {
    "create": ("make a container, and print its id", create_options.configure, _create),
    "ls": ("list the containers", container_list.configure_ls, container_list.ls),
    "inspect": (
        "all that is known of containers",
        container_list.configure_inspect,
        container_list.inspect,
    ),
    "mount": ("mount a container, and print where", _configure_mount, _mount),
    "unmount": ("take mounts back; those that are gone are printed", _configure_several, _unmount),
    "diff": ("print what is different from the image", _configure_one, _diff),
    "commit": ("make an image of a container, and print its id", _configure_commit, _commit),
    "checkpoint": ("keep a state to go back to", _configure_checkpoint, _checkpoint),
    "rollback": ("go back to a checkpoint", _configure_rollback, _rollback),
    "reset": ("go back to the image", _configure_one, _reset),
    "fork": ("make another container that goes on from here", _configure_fork, _fork),
    "cp": ("copy files in or out, as docker cp does", _configure_cp, _cp),
    "export": ("write all that it shows as one tar", _configure_export, _export),
    "rename": ("give it another name", _configure_rename, _rename),
    "rm": ("remove containers", _configure_rm, _rm),
    "prune": ("remove those that neither run nor are mounted", _configure_prune, _prune),
}
