"""How layers go: a row that says so, the driver's directory, the row."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING

from storagedrivers.archive import PAYLOAD_SUFFIX
from storagedrivers.errors import InUseError, StorageDriversError, StoreError
from storagedrivers.linux import tree
from storagedrivers.stores import records
from storagedrivers.stores.records import Layer

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore


def remove(store: LayerStore, layer: Layer, *, timeout: float) -> None:
    """See :meth:`LayerStore.remove`."""
    with store.locked(layer.id, timeout=timeout):
        store.refuse_mounted(layer)
        with store.database.transaction() as connection:
            records.require_ready(connection, layer.id)
            if users := records.referrers(connection, layer.id):
                raise InUseError(
                    f"layer {layer.id} is needed by {', '.join(users)}",
                    resolution="remove those first" + _how_of_cache(users),
                )
            _mark(connection, layer.id)
        _refuse_living_upper(store, layer)
        discard(store, layer.id)
    _release_below(store, layer.parent)


def _how_of_cache(users: list[str]) -> str:
    how = "; what the build cache has: storagedrivers cache prune"
    return how if records.CACHE in users else ""


def release(store: LayerStore, layer: str, *, later: bool = False) -> list[str]:
    """See :meth:`LayerStore.release`."""
    released: list[str] = []
    with ExitStack() as stack:
        found = _begin(store, layer, stack, first=True)
        if found is None:
            return []
        if later:
            held = stack.pop_all()
            store.reclaimer.add(lambda: _finish_later(store, found, held))
            return [layer]
        discard(store, layer)
    released.append(layer)
    return released + _release_below(store, found.parent)


def _release_below(store: LayerStore, layer: str | None) -> list[str]:
    """Release a chain of layers that nothing refers to, downwards."""
    released = []
    while layer is not None:
        with ExitStack() as stack:
            found = _begin(store, layer, stack, first=False)
            if found is None:
                break
            discard(store, layer)
        released.append(layer)
        layer = found.parent
    return released


def _finish_later(store: LayerStore, layer: Layer, held: ExitStack) -> None:
    """In the thread: what the row has promised. What fails is finished by the next who opens."""
    try:
        with held:
            discard(store, layer.id)
        _release_below(store, layer.parent)
    except (OSError, StorageDriversError) as error:
        store.problems.append(f"layer {layer.id} could not be deleted yet: {error}")


def _begin(store: LayerStore, layer: str, stack: ExitStack, *, first: bool) -> Layer | None:
    """Have the row of a layer say that it goes, if nothing needs it; its lock is in *stack* then.

    Args:
        first: it is the one that was asked for: that it is mounted is an error. Below, a mount
            keeps it as any other use does.
    """
    stack.enter_context(store.locked(layer))
    found = records.by_id(store.database, layer)
    if found is None or found.held:
        return None
    if first:
        store.refuse_mounted(found)
    elif store.is_mounted(layer):
        return None
    with store.database.transaction() as connection:
        row = records.by_id_within(connection, layer)
        if row is None or row.held or row.state is not records.LayerState.READY:
            return None
        if records.referrers(connection, layer):
            return None
        _mark(connection, layer)
    _refuse_living_upper(store, found)
    return found


def _mark(connection: sqlite3.Connection, layer: str) -> None:
    connection.execute("UPDATE layers SET state = 'removing' WHERE id = ?", (layer,))


def _refuse_living_upper(store: LayerStore, layer: Layer) -> None:
    """A namespace that took a copy of the mount along may still write to the layer."""
    if not layer.writable:
        return
    row = store.database.row("SELECT used FROM layers WHERE id = ?", layer.id)
    if row is None or not row[0]:
        return
    # Sealing proves it. Its row says already that it goes, so who dies in between leaves no
    # writable layer that is sealed.
    try:
        store.driver_for(layer.driver).seal(layer.id, store.lowers(layer.id))
    except (StorageDriversError, OSError) as error:
        if not isinstance(error, InUseError) and _does_not_matter(error):
            return
        with store.database.transaction() as connection:
            connection.execute("UPDATE layers SET state = 'ready' WHERE id = ?", (layer.id,))
        raise


def _does_not_matter(error: StorageDriversError | OSError) -> bool:
    """Whether what kept a layer from being sealed says nothing of who uses it: a full disk above
    all, which removal makes better.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    return error.errno in full if isinstance(error, OSError) else isinstance(error, StoreError)


def discard(store: LayerStore, layer: str) -> None:
    """See :meth:`LayerStore.discard`."""
    found = records.by_id(store.database, layer)
    if found is None:
        return
    driver = store.driver_for(found.driver)
    driver.remove(layer)
    kept = store.kept_path(layer)
    for path in (kept, kept + PAYLOAD_SUFFIX):
        with suppress(FileNotFoundError):
            os.unlink(path)
    # The row must not be gone before the directory is: syncing the database alone does not
    # bring a removal to the disk (ext4 commits its journal only for what the file needs).
    with suppress(FileNotFoundError), tree.opened_directory(driver.home) as home:
        os.fsync(home)
    with store.database.transaction() as connection:
        connection.execute("DELETE FROM leases WHERE layer = ?", (layer,))
        connection.execute("DELETE FROM mounts WHERE layer = ?", (layer,))
        connection.execute("DELETE FROM build_cache WHERE layer = ?", (layer,))
        connection.execute("DELETE FROM layers WHERE id = ?", (layer,))


class Reclaimer:
    """Deletes files in a thread: a row that says that a layer goes is written at once, and its
    bytes take as long as they take.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._todo: deque[Callable[[], object]] = deque()
        self._thread: Thread | None = None

    def add(self, work: Callable[[], object]) -> None:
        """Have it done, after what is there already."""
        with self._lock:
            self._todo.append(work)
            if self._thread is None:
                # No daemon: a program that ends waits for it, so it leaves nothing half done.
                self._thread = Thread(target=self._run, name="storagedrivers-reclaimer")
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._todo:
                    self._thread = None
                    return
                work = self._todo.popleft()
            work()

    def wait(self) -> None:
        """Return when everything is done."""
        while (thread := self._thread) is not None:
            thread.join()
