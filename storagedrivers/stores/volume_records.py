"""The rows of volumes, and of who uses them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from storagedrivers.errors import NotFoundError
from storagedrivers.model import Volume
from storagedrivers.stores.database import Database, Row

_COLUMNS = "name, driver, created, labels, options, size, anonymous, seed"
_THERE = "state IN ('ready', 'filling')"  # one that is filled is there, and not empty for long


def _as_volume(row: Row) -> Volume:
    import json

    name, driver, created, labels, options, size, anonymous, seed = row
    return Volume(
        name, driver, created, json.loads(labels), json.loads(options), size, bool(anonymous), seed
    )


def find(database: Database, condition: str = "1", *parameters: object) -> list[Volume]:
    """The volumes that are there and that a condition holds for, by name."""
    query = f"SELECT {_COLUMNS} FROM volumes WHERE {_THERE} AND ({condition}) ORDER BY name"
    return list(map(_as_volume, database.rows(query, *parameters)))


def get(database: Database, name: str) -> Volume:
    """The volume of this name.

    Raises:
        NotFoundError: there is none.
    """
    found = find(database, "name = ?", name) if name.isascii() else []
    if not found:
        raise NotFoundError(
            f"there is no volume {name!r}",
            resolution="storagedrivers volume ls lists those there are",
        )
    return found[0]


def state(database: Database, name: str) -> str | None:
    """The state of a row, or None where there is none."""
    row = database.row("SELECT state FROM volumes WHERE name = ?", name)
    return None if row is None else str(row[0])


def any_of(database: Database, name: str) -> Volume | None:
    """The volume of a row in whatever state."""
    row = database.row(f"SELECT {_COLUMNS} FROM volumes WHERE name = ?", name)
    return None if row is None else _as_volume(row)


def insert(connection: sqlite3.Connection, volume: Volume) -> None:
    """Within a transaction: the row of a volume that is being made."""
    import json

    values: tuple[Any, ...] = tuple(
        volume._replace(
            labels=json.dumps(dict(volume.labels)),  # type: ignore[arg-type]
            options=json.dumps(dict(volume.options)),  # type: ignore[arg-type]
        )
    )
    connection.execute(
        f"INSERT INTO volumes ({_COLUMNS}, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'creating')",
        values,
    )


def set_state(connection: sqlite3.Connection, name: str, state: str) -> None:
    """Within a transaction: what becomes of a volume."""
    connection.execute("UPDATE volumes SET state = ? WHERE name = ?", (state, name))


# Who uses them


def use(connection: sqlite3.Connection, container: str, volumes: Iterable[tuple[str, str]]) -> None:
    """Within the transaction that makes a container: the volumes it uses, as target and name.

    Raises:
        NotFoundError: one was removed meanwhile.
    """
    for target, name in volumes:
        query = f"SELECT 1 FROM volumes WHERE name = ? AND {_THERE}"
        if connection.execute(query, (name,)).fetchone() is None:
            raise NotFoundError(f"the volume {name} was removed")
        connection.execute(
            "INSERT INTO container_volumes VALUES (?, ?, ?)", (container, target, name)
        )


def forget_uses(connection: sqlite3.Connection, container: str) -> None:
    """Within the transaction that deletes a container's row: it uses none any more."""
    connection.execute("DELETE FROM container_volumes WHERE container = ?", (container,))


_USERS = """
    SELECT DISTINCT containers.name, containers.number FROM container_volumes
    JOIN containers ON containers.id = container_volumes.container
    WHERE volume = ? ORDER BY containers.number
"""


def users(database: Database, name: str) -> list[str]:
    """The names of the containers that use a volume, the oldest first."""
    return [row[0] for row in database.rows(_USERS, name)]


def users_within(connection: sqlite3.Connection, name: str) -> list[str]:
    """As :func:`users`, within a transaction."""
    return [row[0] for row in connection.execute(_USERS, (name,))]


def used(database: Database) -> set[str]:
    """The names of all volumes that containers use."""
    return {row[0] for row in database.rows("SELECT DISTINCT volume FROM container_volumes")}
