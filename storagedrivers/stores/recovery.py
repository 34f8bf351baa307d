"""Finishes what a process that was killed had begun with a layer, when the store is opened.

A lock that is left and held by no one, or a row that is not ready, is all there is to see of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storagedrivers.errors import StorageDriversError
from storagedrivers.linux.scratch import remove_scratch_of
from storagedrivers.model import FlawKind
from storagedrivers.stores import leases, locks, making, records
from storagedrivers.stores.records import Durability, Layer, LayerState

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore


def finish(store: LayerStore, name: str) -> None:
    """Clean up after whoever died with the lock *name*, of a layer or something else.

    What cannot be cleaned up is noted in the store's ``problems``: one layer must not close the
    store to all others.
    """
    path = store.lock_path(name)
    lock = None
    finished = False
    try:
        process = locks.holder(path)
        lock = locks.try_lock(path)
        if lock is None:
            return  # someone is at it
        if name.startswith(leases.PREFIX):
            leases.forget(store.database, name)
        found = records.by_id(store.database, name)
        if found is not None:
            _finish_layer(store, found)
            if process is not None:  # a driver may have tried something in its home
                remove_scratch_of(process, store.driver_for(found.driver).home)
        finished = True
    except (StorageDriversError, OSError) as error:
        store.problems.append(f"what was begun with {name} could not be finished: {error}")
    finally:
        if lock is not None and finished:
            lock.release()
        elif lock is not None:
            lock.leave()  # for the next who opens: a layer that is to be sealed has a ready row


def _finish_layer(store: LayerStore, layer: Layer) -> None:
    if layer.state is not LayerState.READY:
        store.discard(layer.id)
        return
    if not layer.writable:
        return
    # Sealed on the disk, and all that is missing is to say so in its row.
    driver = store.driver_for(layer.driver)
    if any(flaw.kind is FlawKind.SEALED for flaw in driver.flaws(layer.id, writable=True)):
        driver.seal(layer.id, store.lowers(layer.id))
        making.publish(store, layer.id, driver, Durability.LAYER)
