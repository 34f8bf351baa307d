"""Leases: layers that a running operation has found or made, and nothing refers to yet.

Who loads an image has its layers long before there is a row of the image. A lease keeps them from
being released until then, and releases what nothing refers to at its end: who wanted that before
could not. Its rows name it, and its lock file ``<graph root>/locks/lease-<hex>`` says whether the
operation still runs; those of one that was killed go when the store is opened.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from storagedrivers.errors import StorageDriversError
from storagedrivers.stores import records

if TYPE_CHECKING:
    from storagedrivers.stores.database import Database
    from storagedrivers.stores.layers import LayerStore

PREFIX = "lease-"


class Lease:
    """A context manager: the layers that it has taken are kept until its end."""

    def __init__(self, store: LayerStore) -> None:
        self.name = f"{PREFIX}{os.urandom(8).hex()}"
        self._store = store
        self._stack = ExitStack()
        self._left: list[str] = []

    def __enter__(self) -> Self:
        self._stack.enter_context(self._store.locked(self.name, what=f"the lease {self.name}"))
        self._stack.callback(self._forget)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        # What was interrupted is to find its layers the next time.
        if kind is None or issubclass(kind, (StorageDriversError, OSError)):
            for layer in self._left:
                with suppress(StorageDriversError, OSError):  # then gc finds it
                    self._store.release(layer)

    def _forget(self) -> None:
        self._left = forget(self._store.database, self.name)

    def take(self, layer: str, connection: sqlite3.Connection | None = None) -> None:
        """Keep a layer that is there.

        Args:
            layer: its id.
            connection: a transaction that this is to be part of.

        Raises:
            NotFoundError: it is gone, or on its way out.
        """
        if connection is None:
            # After a power loss there is no operation for which it would have to be kept.
            with self._store.database.transaction(durable=False) as connection:
                self.take(layer, connection)
            return
        records.require_ready(connection, layer)
        self.note(layer, connection)

    def note(self, layer: str, connection: sqlite3.Connection) -> None:
        """Within a transaction: keep a layer that is being made."""
        connection.execute("INSERT OR IGNORE INTO leases VALUES (?, ?)", (self.name, layer))

    def drop(self, layer: str) -> None:
        """Let go of one layer, which goes where nothing else refers to it."""
        with self._store.database.transaction(durable=False) as connection:
            connection.execute(
                "DELETE FROM leases WHERE name = ? AND layer = ?", (self.name, layer)
            )
        self._store.release(layer, later=True)


_TOPMOST = """
    SELECT id FROM layers JOIN leases ON leases.layer = id
    WHERE name = ? AND held = 0 AND id NOT IN (SELECT parent FROM layers WHERE parent IS NOT NULL)
    ORDER BY number DESC
"""


def forget(database: Database, name: str) -> list[str]:
    """Let go of everything that a lease has taken.

    Returns:
        The ids of the layers among them that nothing refers to; those below are not looked at.
    """
    with database.transaction(durable=False) as connection:
        topmost = [row[0] for row in connection.execute(_TOPMOST, (name,))]
        connection.execute("DELETE FROM leases WHERE name = ?", (name,))
        return [layer for layer in topmost if not records.referrers(connection, layer)]
