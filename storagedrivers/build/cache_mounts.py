"""Caches of RUNs: directories that stay between builds, in volumes of the store.

::

    volume build-cache-<hex>      of what makes a cache the same: its id, what it begins with
    volume build-cache-<hex>-2    the next one, where ``private`` ones are used side by side

A volume has the label ``build-cache`` with the id; the time of its directory is that of its last
use. Whoever has a ``private`` or a ``locked`` one holds a lock of the volume's name.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING

from storagedrivers.build import views
from storagedrivers.build.run_mounts import LOCKED, SHARED, RunMount
from storagedrivers.errors import NotFoundError
from storagedrivers.stores import content, locks
from storagedrivers.stores.cache_volumes import LABEL, PREFIX

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.volumes import VolumeStore

_PAUSE = 0.05  # seconds between two looks whether a cache is free
_DEFAULT_MODE = 0o755


@contextmanager
def held(
    volumes: VolumeStore, mounts: Sequence[RunMount], check: Callable[[], object]
) -> Iterator[dict[RunMount, str]]:
    """Have caches for the length of a ``with`` block; where their files are.

    Args:
        volumes: the store's.
        mounts: the caches.
        check: raises where it is no use waiting for them any more.

    Raises:
        BuildError: what one is to begin with is not there.
        VolumeError: a volume cannot be made or mounted.
    """
    found = {}
    with ExitStack() as stack:
        # In this order two that want the same ones do not wait for each other.
        for one in sorted(mounts, key=lambda one: _base_name(volumes.layers, one)):
            name = _locked(volumes, one, stack, check)
            _make(volumes, name, one)
            found[one] = stack.enter_context(volumes.hold(name)).path
            os.utime(volumes.directory(name))
        yield found


def _base_name(layers: LayerStore, one: RunMount) -> str:
    """The name of the first volume for a cache."""
    base = ""
    if one.layer is not None:
        layer = layers.get(one.layer)
        base = layer.chain_id or layer.id
    parts = (one.id, base, one.source if base else "", one.mode, one.uid, one.gid)
    digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{PREFIX}{digest[:32]}"


def _locked(
    volumes: VolumeStore, one: RunMount, stack: ExitStack, check: Callable[[], object]
) -> str:
    """The name of a volume that may be used."""
    first = _base_name(volumes.layers, one)
    if one.sharing == SHARED:
        return first
    for number in count(1):
        name = first if number == 1 else f"{first}-{number}"
        lock = locks.try_lock(volumes.layers.lock_path(name))
        while lock is None and one.sharing == LOCKED:
            check()
            time.sleep(_PAUSE)
            lock = locks.try_lock(volumes.layers.lock_path(name))
        if lock is not None:
            stack.callback(lock.release)
            return name
    raise AssertionError  # there is always one more


def _make(volumes: VolumeStore, name: str, one: RunMount) -> None:
    with volumes.locked(name):
        try:
            volumes.get(name)
            return
        except NotFoundError:
            volume = volumes.create(name, labels={LABEL: one.id})
        if one.layer is not None:
            with content.view(volumes.layers, one.layer) as root:
                source = views.opened(f"/proc/self/fd/{root}", one.source, one.origin)
                try:
                    volumes.fill(volume, source, "")
                finally:
                    os.close(source)
            return
        with volumes.used(name) as path:
            os.chmod(path, _DEFAULT_MODE if one.mode is None else one.mode)
            os.chown(path, one.uid or 0, one.gid or 0)
