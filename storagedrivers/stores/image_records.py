"""The rows of images: values, and the queries for them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from storagedrivers.errors import InvalidReferenceError, NotFoundError
from storagedrivers.oci import reference as references
from storagedrivers.stores.database import Database

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_DIGITS = 64
_NAMED = 5  # how many of a longer list an error names


class Image(NamedTuple):
    """An image as the store knows it.

    Attributes:
        id: the digest of its config.
        layer: the id of its topmost layer; None where it has none.
        init: the id of the layer above it that its containers have in common, or None.
        names: canonical, ``docker.io/library/debian:12``, in order.
        manifest: the digest of its manifest; None where it came without.
        created: seconds since the epoch, as its config has it, or None.
        added: when it came to the store, likewise.
        source: how: ``load``, ``import``, ``commit`` or ``build``.
        parent: the id of the image that it was made of here, or None.
    """

    id: str
    layer: str | None
    init: str | None
    names: tuple[str, ...]
    manifest: str | None
    created: float | None
    added: float
    source: str
    parent: str | None


_COLUMNS = "id, layer, init, manifest, created, added, source, parent"


def find(database: Database, where: str, *parameters: object) -> list[Image]:
    """The images that a condition holds for."""
    rows = database.rows(f"SELECT {_COLUMNS} FROM images {where}", *parameters)
    if not rows:
        return []
    if len(rows) == 1:
        query = "SELECT image, name FROM image_names WHERE image = ? ORDER BY name"
        pairs = database.rows(query, rows[0][0])
    else:
        pairs = database.rows("SELECT image, name FROM image_names ORDER BY name")
    names: dict[str, list[str]] = {}
    for image, name in pairs:
        names.setdefault(image, []).append(name)
    return [Image(*(*row[:3], tuple(names.get(row[0], ())), *row[3:])) for row in rows]


def by_id(database: Database, image: str) -> Image:
    """The image with this id.

    Raises:
        NotFoundError: there is none.
    """
    found = find(database, "WHERE id = ?", image)
    if not found:
        raise _not_found(image)
    return found[0]


def find_one(database: Database, reference: str) -> tuple[Image, str | None]:
    """The image that a reference means, and the name where it is one.

    Raises:
        NotFoundError: none, or several; then they are named.
    """
    digits = _ID.fullmatch(reference)
    if digits and len(digits[1]) == _DIGITS:
        digest = f"sha256:{digits[1]}"
        found = find(database, "WHERE id = ? OR manifest = ? LIMIT 2", digest, digest)
    else:
        image, name = _by_name(database, reference)
        if image is not None:
            return image, name
        found = _by_prefix(database, digits[1]) if digits else []
    if len(found) == 1:
        return found[0], None
    if not found:
        raise _not_found(reference)
    names = ", ".join(image.id for image in found[:_NAMED])
    more = " and others" if len(found) > _NAMED else ""
    raise NotFoundError(
        f"{reference!r} can mean several images: {names}{more}", resolution="say more of the id"
    )


def _not_found(reference: str) -> NotFoundError:
    return NotFoundError(
        f"there is no image {reference!r}",
        resolution="storagedrivers image ls lists those there are",
    )


def _by_name(database: Database, text: str) -> tuple[Image | None, str | None]:
    try:
        wanted = references.parse(text)
    except InvalidReferenceError:
        if not _ID.fullmatch(text):
            raise
        return None, None
    if wanted.digest is None:
        query = "WHERE id = (SELECT image FROM image_names WHERE name = ?)"
        found = find(database, query, str(wanted))
        return (found[0], str(wanted)) if found else (None, None)
    for image in find(database, "WHERE manifest = ? OR id = ?", wanted.digest, wanted.digest):
        if any(one.startswith(f"{wanted.repository}:") for one in image.names):
            return image, None
    return None, None


def _by_prefix(database: Database, digits: str) -> list[Image]:
    # Every digit comes before "g".
    where = f"WHERE id >= ? AND id < ? ORDER BY id LIMIT {_NAMED + 1}"
    return find(database, where, f"sha256:{digits}", f"sha256:{digits}g")


_SIZES = """
    WITH RECURSIVE chain (image, layer) AS (
        SELECT id, layer FROM images WHERE layer IS NOT NULL AND (:image IS NULL OR id = :image)
        UNION ALL
        SELECT image, parent FROM chain JOIN layers ON layers.id = layer WHERE parent IS NOT NULL
    )
    SELECT image, SUM(size) FROM chain JOIN layers ON layers.id = layer WHERE role = ''
    GROUP BY image
"""


def sizes(database: Database, images: Iterable[Image]) -> dict[str, int]:
    """Bytes of the contents of all layers of each image, by its id."""
    wanted = [image.id for image in images]
    one = wanted[0] if len(wanted) == 1 else None
    query = _SIZES.replace(":image", "?1")
    found = {image: size or 0 for image, size in database.rows(query, one)}
    return {image: found.get(image, 0) for image in wanted}


def require(connection: sqlite3.Connection, image: str) -> None:
    """Within a transaction: check that the image is there.

    Raises:
        NotFoundError: it is gone.
    """
    if connection.execute("SELECT 1 FROM images WHERE id = ?", (image,)).fetchone() is None:
        raise _not_found(image)


def give_name(connection: sqlite3.Connection, name: str, image: str) -> None:
    """Within a transaction: an image gets a name, whoever had it."""
    connection.execute("INSERT OR REPLACE INTO image_names VALUES (?, ?)", (name, image))


def take_name(connection: sqlite3.Connection, name: str) -> None:
    """Within a transaction: the image that has a name loses it.

    Raises:
        NotFoundError: none has it.
    """
    if connection.execute("DELETE FROM image_names WHERE name = ?", (name,)).rowcount == 0:
        raise _not_found(name)


def users(connection: sqlite3.Connection, image: str) -> list[str]:
    """Within a transaction: the names of the containers that were made of an image."""
    rows = connection.execute(
        "SELECT name FROM containers WHERE image = ? ORDER BY number", (image,)
    )
    return [row[0] for row in rows]
