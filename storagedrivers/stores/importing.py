"""How the tar of a root filesystem becomes an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from storagedrivers.dockerfile.changes import apply_changes
from storagedrivers.errors import StorageDriversError
from storagedrivers.oci.config import History, make_config, write_time
from storagedrivers.oci.platforms import host_platform, parse_platform
from storagedrivers.stores.images import checked_name

if TYPE_CHECKING:
    from storagedrivers.stores.images import Image, ImageStore


def import_(
    store: ImageStore,
    stream: BinaryIO,
    *,
    name: str | None,
    changes: Sequence[str],
    message: str,
    platform: str | None,
    progress: Callable[[int], object] | None,
) -> Image:
    """See :meth:`ImageStore.import_`."""
    text = None if name is None else str(checked_name(name))
    wanted = host_platform() if platform is None else parse_platform(platform)
    how: dict[str, Any] = {}
    apply_changes(how, changes)
    layer = None
    try:
        with store.layers.leased() as lease:
            layer = store.layers.add(stream, held=False, lease=lease, progress=progress)
            diff_id = store.layers.compute_diff_id(layer.id)
            created = write_time(time.time_ns())
            config = make_config(
                base=None,
                diff_ids=[diff_id],
                history=[History(created=created, comment=message or "Imported from -")],
                config=how,
                created=created,
                architecture=wanted.architecture,
                os=wanted.os,
                variant=wanted.variant,
            )
            return store.add(config, layer.id, source="import", name=text, lease=lease)
    except (StorageDriversError, OSError):
        if layer is not None:
            with suppress(StorageDriversError, OSError):
                store.layers.release(layer.id)
        raise
