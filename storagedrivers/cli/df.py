"""What layers, images and the build cache take, from what was counted when they were made. Nothing
is walked, but with -v the volumes, whose files nobody has counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from storagedrivers.cli import output
from storagedrivers.errors import StorageDriversError
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.usage import CacheUsage, ImageUsage, VolumeUsage


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "-v",
        "--layers",
        action="store_true",
        help="each layer: its own bytes, and shared ones; and what each volume takes",
    )


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    from storagedrivers.stores.usage import (
        cache_usage,
        driver_usage,
        filesystem,
        image_usage,
        layer_usage,
    )

    with Storage.open(config, read_only=True) as storage:
        drivers = driver_usage(storage.layers)
        free = filesystem(storage.layers)
        images = image_usage(storage.layers)
        volumes = _volumes(config, storage, walk=arguments.layers)
        layers = layer_usage(storage.layers) if arguments.layers else []
        cache = cache_usage(storage.build_cache)
    if arguments.json:
        output.document(
            {
                "schema": 1,
                "filesystem": free._asdict(),
                "drivers": [one._asdict() for one in drivers],
                "images": [one._asdict() for one in images],
                "volumes": [one._asdict() for one in volumes],
                "build_cache": cache._asdict(),
                "layers": [one._asdict() for one in layers] if arguments.layers else None,
            }
        )
        return 0
    output.table(
        ("DRIVER", "LAYERS", "BYTES", "INODES", "WRITABLE", "TRASH"),
        [
            (
                one.driver,
                str(one.layers),
                output.size(one.bytes),
                str(one.inodes),
                str(one.uncounted),
                str(one.trash),
            )
            for one in drivers
        ],
    )
    if images:
        output.line()
        _print_images(images)
    if volumes:
        output.line()
        _print_volumes(volumes)
    if cache.entries:
        output.line()
        _print_cache(cache)
    if arguments.layers:
        output.line()
        output.table(
            ("LAYER", "DRIVER", "UNIQUE", "SHARED", "INODES", "CHILDREN"),
            [
                (
                    one.id,
                    one.driver,
                    output.size(one.unique),
                    output.size(one.shared),
                    "-" if one.inodes is None else str(one.inodes),
                    str(one.children),
                )
                for one in layers
            ],
        )
    output.line()
    inodes = f", {free.inodes_free} of {free.inodes} inodes" if free.inodes else ""
    output.line(f"free: {output.size(free.bytes_free)} of {output.size(free.bytes)}{inodes}")
    return 0


def _volumes(config: StorageConfig, storage: Storage, *, walk: bool) -> list[VolumeUsage]:
    """All volumes; those that have to be mounted to be walked are, where that is permitted."""
    from storagedrivers.stores.usage import measured, volume_usage

    if not walk:
        return volume_usage(storage.layers)
    found = volume_usage(storage.layers, measure=storage.volumes.usage)
    if all(one.bytes is not None for one in found):
        return found
    with suppress(OSError, StorageDriversError), Storage.open(config) as writable:
        return [
            one if one.bytes is not None else measured(one, writable.volumes.usage) for one in found
        ]
    return found


def _print_images(images: Sequence[ImageUsage]) -> None:
    output.table(
        ("IMAGE", "NAMES", "BYTES", "UNIQUE", "LAYERS", "CONTAINERS"),
        [
            (
                one.id.partition(":")[2][:12],
                ", ".join(one.names) or "-",
                output.size(one.bytes),
                output.size(one.unique),
                str(one.layers),
                str(one.containers),
            )
            for one in images
        ],
    )


def _print_volumes(volumes: Sequence[VolumeUsage]) -> None:
    output.table(
        ("VOLUME", "DRIVER", "BYTES", "INODES", "LIMIT", "CONTAINERS"),
        [
            (
                one.name,
                one.driver,
                output.size(one.bytes),
                "-" if one.inodes is None else str(one.inodes),
                output.size(one.limit),
                str(one.containers),
            )
            for one in volumes
        ],
    )


def _print_cache(cache: CacheUsage) -> None:
    output.table(
        ("BUILD CACHE", "LAYERS", "BYTES", "RECLAIMABLE"),
        [
            (
                f"{cache.entries} step{'s' if cache.entries != 1 else ''}",
                str(cache.layers),
                output.size(cache.bytes),
                output.size(cache.reclaimable),
            )
        ],
    )
