"""The rows of layers: values, and the queries that all of the stores share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from storagedrivers.errors import NotFoundError
from storagedrivers.model import Unpacked, is_layer_id
from storagedrivers.stores.database import Database, Row


class LayerState(StrEnum):
    """Where a layer is in its life; only those that are ready can be seen."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"


class Durability(StrEnum):
    """When a layer is ready: once its bytes are on the disk, or as soon as it is written."""

    LAYER = "layer"
    NONE = "none"


class Layer(NamedTuple):
    """A layer as the store knows it.

    Attributes:
        id: the name of its directory in the driver's home.
        parent: the layer below, or None.
        driver: the driver's name.
        state: only layers that are ready are shown.
        writable: it is not sealed: it has no diff yet, and nothing can lie above it.
        created: seconds since the epoch.
        diff_id: digest of its uncompressed tar; None until it is known.
        chain_id: digest of it and all layers below; None as long as a DiffID among them is.
        diff_size: bytes of the uncompressed tar.
        size: bytes of the contents of its own files.
        inodes: how many it has of its own.
        digest: of the bytes that came in.
        stored_size: how many came.
        compression: how they were compressed.
        depth: how many layers the chain has, with this one.
        durable: its bytes have reached the disk.
        warnings: what of its tar could not be kept, a sentence each.
        held: it is wanted for its own sake; else it goes with the last that refers to it.
        role: ``init`` for what a container finds besides its image: no diff of an image.
    """

    id: str
    parent: str | None
    driver: str
    state: LayerState
    writable: bool
    created: float
    diff_id: str | None
    chain_id: str | None
    diff_size: int | None
    size: int | None
    inodes: int | None
    digest: str | None
    stored_size: int | None
    compression: str | None
    depth: int
    durable: bool
    warnings: tuple[str, ...] = ()
    held: bool = True
    role: str = ""


COLUMNS = ", ".join(Layer._fields)

_BY_ID = f"SELECT {COLUMNS} FROM layers WHERE id = ?"
_NAMED = 5  # how many that refer to a layer an error names


def as_layer(row: Row) -> Layer:
    """The value of a row with the columns :data:`COLUMNS`."""
    layer = Layer(*row)
    return layer._replace(
        state=LayerState(layer.state),
        writable=bool(layer.writable),
        durable=bool(layer.durable),
        warnings=tuple(str(layer.warnings).split("\n")) if layer.warnings else (),
        held=bool(layer.held),
    )


def warnings_text(warnings: Iterable[str]) -> str:
    """Warnings as the database keeps them, a line each."""
    lines = (" ".join(warning.split("\n")) for warning in warnings)
    return "\n".join(lines).encode(errors="backslashreplace").decode()


def describe(
    connection: sqlite3.Connection, layer: str, unpacked: Unpacked, chain_id: str | None
) -> None:
    """Within a transaction: note what was learnt of a layer's tar."""
    connection.execute(
        "UPDATE layers SET diff_id = ?, chain_id = ?, diff_size = ?, size = ?, inodes = ?,"
        " digest = ?, stored_size = ?, compression = ?, warnings = ? WHERE id = ?",
        (
            unpacked.diff_id,
            chain_id,
            unpacked.diff_size,
            unpacked.size,
            unpacked.inodes,
            unpacked.digest,
            unpacked.stored_size,
            unpacked.compression,
            warnings_text(unpacked.warnings),
            layer,
        ),
    )


_FORGET_EARLIER = (
    "UPDATE layers SET chain_id = NULL WHERE id = ?1 AND NOT durable"
    " AND EXISTS (SELECT 1 FROM build_cache WHERE layer = ?1 AND boot != ?2)",
    "DELETE FROM build_cache WHERE layer = ?1 AND boot != ?2"
    " AND (SELECT NOT durable FROM layers WHERE id = ?1)",
)


def set_durable(connection: sqlite3.Connection, layers: Iterable[str]) -> None:
    """Within a transaction: note that layers have reached the disk.

    What a build made before this boot may have reached it in part only, and no one looks: the cache
    forgets it, and it is not found by its ChainID.
    """
    ids = [(layer,) for layer in layers]
    if ids:
        from storagedrivers.stores.mounts import boot_id

        boot = boot_id()
        for statement in _FORGET_EARLIER:
            connection.executemany(statement, [(layer, boot) for (layer,) in ids])
    connection.executemany("UPDATE layers SET durable = 1 WHERE id = ?", ids)


def find(database: Database, where: str, *parameters: object) -> list[Layer]:
    """The layers, in any state, that a condition holds for."""
    return list(map(as_layer, database.rows(f"SELECT {COLUMNS} FROM layers {where}", *parameters)))


def by_id(database: Database, layer: str) -> Layer | None:
    """The layer with this id, in any state."""
    if not is_layer_id(layer):  # names of files come here too, which SQLite may not take
        return None
    row = database.row(_BY_ID, layer)
    return None if row is None else as_layer(row)


def by_id_within(connection: sqlite3.Connection, layer: str) -> Layer | None:
    """Within a transaction: the layer with this id, in any state."""
    row = connection.execute(_BY_ID, (layer,)).fetchone()
    return None if row is None else as_layer(row)


def find_one(database: Database, reference: str, *, preferred: str) -> Layer:
    """The ready layer that an id, the beginning of one, a DiffID or a ChainID means.

    Args:
        preferred: the driver whose layer it is where several have it.

    Raises:
        NotFoundError: none, or several; then they are named.
    """
    found = _candidates(database, reference)
    if len(found) > 1:
        found = [layer for layer in found if layer.driver == preferred] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(f"there is no layer {reference!r}")
    names = ", ".join(layer.id for layer in found[:_NAMED])
    more = " and others" if len(found) > _NAMED else ""
    raise NotFoundError(
        f"{reference!r} can mean several layers: {names}{more}",
        resolution="say more of the id",
    )


def _candidates(database: Database, reference: str) -> list[Layer]:
    limit = f"LIMIT {_NAMED + 1}"
    if not reference.isascii():  # a word in bytes that are no UTF-8 is nothing for SQLite
        return []
    if ":" in reference:
        for column in ("chain_id", "diff_id"):
            where = f"WHERE {column} = ? AND state = 'ready' ORDER BY number {limit}"
            if found := find(database, where, reference):
                return found
        return []
    layer = by_id(database, reference)
    if layer is not None:
        return [layer] if layer.state is LayerState.READY else []
    if not (reference and is_layer_id(f"{reference}x")):
        return []
    # Every character of an id comes before "{".
    where = f"WHERE id >= ? AND id < ? AND state = 'ready' {limit}"
    return find(database, where, reference, reference + "{")


def require_ready(connection: sqlite3.Connection, layer: str) -> None:
    """Within a transaction: check that nobody has begun to remove the layer.

    Raises:
        NotFoundError: it is gone, or on its way out.
    """
    row = connection.execute("SELECT state FROM layers WHERE id = ?", (layer,)).fetchone()
    if row is None or row[0] != LayerState.READY:
        raise NotFoundError(f"there is no layer {layer}")


CACHE = "the build cache"
"""What :func:`referrers` says of its entries."""

_REFERRERS = f"""
    SELECT 'layer ' || id FROM layers WHERE parent = :layer
    UNION ALL SELECT 'image ' || id FROM images WHERE layer = :layer OR init = :layer
    UNION ALL SELECT 'container ' || name FROM containers WHERE layer = :layer
    UNION ALL SELECT 'checkpoint ' || label || ' of container ' || containers.name
        FROM checkpoints JOIN containers ON containers.id = container
        WHERE checkpoints.layer = :layer
    UNION ALL SELECT DISTINCT '{CACHE}' FROM build_cache WHERE layer = :layer
    UNION ALL SELECT 'an operation that is running' FROM leases WHERE layer = :layer
    LIMIT :limit
"""


def referrers(connection: sqlite3.Connection, layer: str) -> list[str]:
    """Within a transaction: what a layer cannot be removed for, a few words each."""
    parameters = {"layer": layer, "limit": _NAMED + 1}
    rows = [row[0] for row in connection.execute(_REFERRERS, parameters)]
    return rows if len(rows) <= _NAMED else [*rows[:_NAMED], "and others"]


_STANDING = """
    WITH RECURSIVE above (id) AS (
        SELECT ? UNION SELECT layers.id FROM layers JOIN above ON layers.parent = above.id
    )
"""


def images_on(database: Database, layer: str) -> tuple[str, ...]:
    """The ids of the images that have a layer, the oldest first."""
    query = f"{_STANDING} SELECT id FROM images WHERE layer IN above ORDER BY number"
    return tuple(row[0] for row in database.rows(query, layer))


def containers_on(database: Database, layer: str) -> tuple[str, ...]:
    """The names of the containers that have a layer, the oldest first."""
    query = f"{_STANDING} SELECT name FROM containers WHERE layer IN above ORDER BY number"
    return tuple(row[0] for row in database.rows(query, layer))


def steps_with(database: Database, layer: str) -> tuple[str, ...]:
    """The instructions by which the build cache has a layer itself, the oldest first."""
    query = "SELECT instruction FROM build_cache WHERE layer = ? ORDER BY number"
    return tuple(row[0] for row in database.rows(query, layer))


_UNUSED = """
    SELECT id, parent FROM layers WHERE held = 0 AND state = 'ready'
    AND id NOT IN (SELECT layer FROM images WHERE layer IS NOT NULL)
    AND id NOT IN (SELECT init FROM images WHERE init IS NOT NULL)
    AND id NOT IN (SELECT layer FROM containers WHERE layer IS NOT NULL)
    AND id NOT IN (SELECT layer FROM checkpoints)
    AND id NOT IN (SELECT layer FROM build_cache WHERE layer IS NOT NULL)
    AND id NOT IN (SELECT layer FROM leases)
    AND id NOT IN (SELECT layer FROM mounts)
    ORDER BY number DESC
"""


def unused(database: Database) -> list[str]:
    """The ids of the layers that nobody wants and nothing refers to, those on top first."""
    children: dict[str, int] = {}
    for parent, count in database.rows("SELECT parent, COUNT(*) FROM layers GROUP BY parent"):
        children[parent] = count
    found = []
    for layer, parent in database.rows(_UNUSED):  # a layer comes before the one it lies on
        if not children.get(layer):
            found.append(layer)
            if parent is not None:
                children[parent] -= 1
    return found


_DOWN = """
    WITH RECURSIVE chain (id, parent, place) AS (
        SELECT id, parent, 0 FROM layers WHERE id = ?
        UNION ALL
        SELECT layers.id, layers.parent, place + 1
        FROM layers JOIN chain ON layers.id = chain.parent
    )
"""


_CHAIN = f"{_DOWN} SELECT id FROM chain ORDER BY place"
_CHAIN_LAYERS = (
    f"{_DOWN} SELECT {', '.join(f'layers.{name}' for name in Layer._fields)}"
    " FROM chain JOIN layers USING (id) ORDER BY place"
)


def chain(database: Database, layer: str) -> tuple[str, ...]:
    """The ids of the layer and of all below it, nearest first."""
    return tuple(row[0] for row in database.rows(_CHAIN, layer))


def chain_layers(database: Database, layer: str) -> list[Layer]:
    """The layer and all below it, nearest first."""
    return list(map(as_layer, database.rows(_CHAIN_LAYERS, layer)))


def epoch(database: Database, layer: str) -> int | None:
    """What the times in the layer's tar were limited to when its DiffID was computed."""
    row = database.row("SELECT epoch FROM layers WHERE id = ?", layer)
    return None if row is None else row[0]
