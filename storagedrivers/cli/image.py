"""Images: a config, and layers that others share."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from storagedrivers.cli import history, images, load, nouns, outgoing, output, save
from storagedrivers.cli.images import document_of
from storagedrivers.cli.nouns import opened
from storagedrivers.errors import StorageDriversError
from storagedrivers.oci import reference as references

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.storage import Storage
    from storagedrivers.stores.image_records import Image
    from storagedrivers.stores.untagging import Removed

SCHEMA = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    nouns.add_verbs(parser, VERBS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    _, _, action = VERBS[arguments.verb]
    return action(arguments, config)


# import, export


def _configure_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tar", metavar="TAR", help="plain or compressed; - for standard input")
    parser.add_argument("name", metavar="NAME", nargs="?", help="for the image")
    parser.add_argument(
        "-c",
        "--change",
        metavar="LINE",
        action="append",
        default=[],
        help="a line of a Dockerfile for its config: 'CMD [\"sh\"]'",
    )
    parser.add_argument("-m", "--message", default="", help="a comment in its history")
    parser.add_argument("--platform", metavar="OS/ARCH", help="that it is for")


def _import(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with (
        load.incoming(arguments.tar, "image import") as source,
        opened(config) as storage,
    ):
        if isinstance(source, str):
            with open(source, "rb", buffering=0) as file:
                image = _imported(arguments, storage, file, os.fstat(file.fileno()).st_size)
        else:
            image = _imported(arguments, storage, source, None)
        for warning in storage.layers.get(image.layer or "").warnings:
            output.warning(warning)
    _answer(arguments, image)
    return 0


def _imported(
    arguments: argparse.Namespace, storage: Storage, stream: Any, total: int | None
) -> Image:
    with output.progress("importing", total, quiet=arguments.json) as progress:
        return storage.images.import_(
            stream,
            name=arguments.name,
            changes=arguments.change,
            message=arguments.message,
            platform=arguments.platform,
            progress=progress,
        )


def _answer(arguments: argparse.Namespace, image: Image) -> None:
    if arguments.json:
        output.document({"schema": SCHEMA, **document_of(image)})
    else:
        output.line(image.id)


def _configure_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help=nouns.REFERENCE)


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="instead of standard output")


def _export(arguments: argparse.Namespace, config: StorageConfig) -> int:
    outgoing.refuse_terminal(arguments.output)
    with opened(config, read_only=True) as storage:
        image = storage.images.get(arguments.image)
        outgoing.write_tar(
            arguments,
            lambda write: storage.images.export(image.id, write),
            storage.images.size(image),
        )
    return 0


# inspect


def _configure_several(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=nouns.REFERENCE)


def _inspect(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=True) as storage:
        documents = [
            _inspected(storage, storage.images.get(reference)) for reference in arguments.images
        ]
    if arguments.json:
        output.document({"schema": SCHEMA, "images": documents})
        return 0
    nouns.print_documents(documents, _text)
    return 0


def _inspected(storage: Storage, image: Image) -> dict[str, Any]:
    config = storage.images.config(image)
    layers = storage.layers.image_layers(image.layer)
    return {
        **document_of(image),
        "size": storage.images.size(image),
        "architecture": config.architecture,
        "os": config.os,
        "variant": config.variant,
        "author": config.author,
        "config": dict(config.config),
        "layers": [
            {"id": one.id, "diff_id": one.diff_id, "size": one.size, "driver": one.driver}
            for one in layers
        ],
    }


def _text(key: str, value: Any) -> str:
    if key in ("created", "added") and value is not None:
        return images.at(value)
    if key == "size":
        return f"{value} ({output.size(value)})"
    if key == "config":
        import json

        return json.dumps(value)
    if key == "layers":
        return "".join(
            f"\n  {one['id']} {one['diff_id']} {output.size(one['size'])}" for one in value
        )
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return str(value) if value else "-"


# tag, rm, prune


def _configure_tag(parser: argparse.ArgumentParser) -> None:
    _configure_one(parser)
    parser.add_argument("name", metavar="NAME", help="the new one; who had it loses it")


def _tag(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config) as storage:
        image = storage.images.tag(arguments.image, arguments.name)
    if arguments.json:
        _answer(arguments, image)
    return 0


def _configure_rm(parser: argparse.ArgumentParser) -> None:
    _configure_several(parser)
    parser.add_argument(
        "-f", "--force", action="store_true", help="also one that is used, or has several names"
    )
    parser.add_argument(
        "--no-prune", action="store_true", help="keep nameless images that it was made of"
    )


def _rm(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """One that fails does not keep the others."""
    documents = []
    with opened(config) as storage:
        for reference in arguments.images:
            try:
                removed = storage.images.remove(
                    reference, force=arguments.force, prune=not arguments.no_prune
                )
            except (StorageDriversError, OSError) as error:
                output.error(error)
                documents.append({"image": reference, **_gone(None), "error": str(error)})
                continue
            if not arguments.json:
                _print_removed(removed)
            documents.append({"image": reference, **_gone(removed), "error": None})
    if arguments.json:
        output.document({"schema": SCHEMA, "images": documents})
    return 1 if any(one["error"] for one in documents) else 0


def _gone(removed: Removed | None) -> dict[str, Any]:
    if removed is None:
        return {"untagged": [], "deleted": [], "layers": []}
    return {
        "untagged": list(removed.untagged),
        "deleted": list(removed.deleted),
        "layers": list(removed.layers),
    }


def _print_removed(removed: Removed) -> None:
    for name in removed.untagged:
        output.line(f"Untagged: {references.parse(name).familiar}")
    for image in removed.deleted:
        output.line(f"Deleted: {image}")


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-a", "--all", action="store_true", help="also those with names that no container uses"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say which")
    parser.add_argument("-f", "--force", action="store_true", help="taken as Docker's: never asks")


def _prune(arguments: argparse.Namespace, config: StorageConfig) -> int:
    with opened(config, read_only=arguments.dry_run) as storage:
        removed = storage.images.prune(all=arguments.all, dry_run=arguments.dry_run)
    if arguments.json:
        document = {"dry_run": arguments.dry_run, **_gone(removed), "bytes": removed.size}
        output.document({"schema": SCHEMA, **document})
        return 0
    _print_removed(removed)
    if arguments.dry_run:
        output.note(f"{len(removed.deleted)} would be removed")
    else:
        output.note(f"{len(removed.deleted)} were removed, {output.size(removed.size)}")
    return 0


VERBS: nouns.Verbs = {
    "load": ("load images from an archive, and print their ids", load.configure, load.run),
    "save": ("save images with their layers and names", save.configure, save.run),
    "import": ("make an image of a root filesystem's tar", _configure_import, _import),
    "export": ("write all that an image shows as a flat tar", _configure_export, _export),
    "ls": ("list the images", images.configure, images.run),
    "inspect": ("all that is known of images", _configure_several, _inspect),
    "history": ("show how an image came to be", history.configure, history.run),
    "tag": ("give an image one more name", _configure_tag, _tag),
    "rm": ("take names away, and images with their last one", _configure_rm, _rm),
    "prune": ("remove the images that nobody uses", _configure_prune, _prune),
}
