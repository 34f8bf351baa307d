"""The rows of containers and their checkpoints, and how one is to be run."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from storagedrivers.errors import AlreadyExistsError, NotFoundError, StoreError
from storagedrivers.stores.database import Database, Row
from storagedrivers.stores.names import check_hostname, check_name, random_name

_NAMED = 5  # how many of several that a reference can mean are named
_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_LABEL = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LONGEST_LABEL = 128
_ATTEMPTS = 20


class Container(NamedTuple):
    """A container as the store knows it.

    Attributes:
        id: 64 hexadecimal digits.
        name: unique among containers.
        image: the id of the image that it was made of; None for an empty root.
        image_name: that image, as it was asked for.
        layer: the id of its writable layer.
        created: seconds since the epoch.
        config: what to run and how; keys as in an image's config, and ``Hostname``, ``Tty``,
            ``OpenStdin``, ``ReadOnly``, ``Network``, ``Tmpfs``, ``AutoRemove``, ``Mounts``.
        base: the id of the layer that it began on; what lies above is its own. None for an empty
            root.
    """

    id: str
    name: str
    image: str | None
    image_name: str
    layer: str
    created: float
    config: Mapping[str, Any]
    base: str | None = None


class Checkpoint(NamedTuple):
    """A state of a container that it can go back to.

    Attributes:
        container: the container's id.
        label: unique in the container.
        layer: the id of its topmost layer.
        created: seconds since the epoch.
    """

    container: str
    label: str
    layer: str
    created: float


_COLUMNS = "id, name, image, image_name, layer, created, config, base"


def _as_container(row: Row) -> Container:
    import json

    container = Container(*row)
    return container._replace(config=json.loads(row[6]))


def find(database: Database, where: str, *parameters: object) -> list[Container]:
    """The containers that a condition holds for."""
    query = f"SELECT {_COLUMNS} FROM containers {where}"
    return list(map(_as_container, database.rows(query, *parameters)))


def get(database: Database, reference: str) -> Container:
    """The container that *reference* means: its name, its id, or the beginning of that.

    Raises:
        NotFoundError: none, or several; then they are named.
    """
    if reference.isascii():
        exact = "WHERE state = 'ready' AND (id = ?1 OR name = ?1) ORDER BY id = ?1 DESC"
        if found := find(database, exact, reference):
            return found[0]
    prefix = f"WHERE state = 'ready' AND id >= ? AND id < ? LIMIT {_NAMED + 1}"
    is_prefix = _PREFIX.fullmatch(reference) is not None
    found = find(database, prefix, reference, reference + "g") if is_prefix else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(
            f"there is no container {reference!r}",
            resolution="storagedrivers container ls lists those there are",
        )
    names = ", ".join(f"{one.id[:12]} ({one.name})" for one in found[:_NAMED])
    more = " and others" if len(found) > _NAMED else ""
    raise NotFoundError(
        f"{reference!r} can mean several containers: {names}{more}",
        resolution="say more of the id",
    )


def insert(
    connection: sqlite3.Connection, container: Container, *, state: str = "ready"
) -> Container:
    """Within a transaction: the row of a new container; returns it with the name that it got.

    Args:
        container: without a name, it gets a random one.
        state: ``creating`` for one that a build runs in: only its lock tells it from one whose
            build was killed, and nobody but the build sees it.

    Raises:
        AlreadyExistsError: the name is taken.
        NotFoundError: its image is gone.
    """
    import json

    if container.image is not None and not _has(connection, "images", "id", container.image):
        raise NotFoundError(f"the image {container.image_name} was removed")
    container = container._replace(name=container.name or _free_name(connection))
    refuse_taken(connection, container.name)
    connection.execute(
        f"INSERT INTO containers ({_COLUMNS}, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*container._replace(config=json.dumps(container.config)), state),  # type: ignore[arg-type]
    )
    return container


def _has(connection: sqlite3.Connection, table: str, column: str, value: str) -> bool:
    query = f"SELECT 1 FROM {table} WHERE {column} = ?"
    return connection.execute(query, (value,)).fetchone() is not None


def _free_name(connection: sqlite3.Connection) -> str:
    for attempt in range(_ATTEMPTS):
        name = random_name(attempt)
        if not _has(connection, "containers", "name", name):
            return name
    raise StoreError("no free name was found", resolution="choose one: --name NAME")


def refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    """Within a transaction: check that no container is called so.

    Raises:
        AlreadyExistsError: one is; says which.
    """
    row = connection.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
    if row is not None:
        raise AlreadyExistsError(
            f"the name {name} is taken, by container {row[0][:12]}",
            resolution=f"choose another, or: storagedrivers container rm {name}",
        )


def require_ready(connection: sqlite3.Connection, container: Container) -> None:
    """Within a transaction: check that nobody has begun to remove a container.

    Raises:
        NotFoundError: it is gone, or on its way out.
    """
    query = "SELECT 1 FROM containers WHERE id = ? AND state = 'ready'"
    if connection.execute(query, (container.id,)).fetchone() is None:
        raise NotFoundError(f"there is no container {container.name}")


# Checkpoints


def checkpoints(database: Database, container: str) -> list[Checkpoint]:
    """Those of a container, the oldest first."""
    query = (
        "SELECT container, label, layer, created FROM checkpoints WHERE container = ?"
        " ORDER BY created, label"
    )
    return [Checkpoint(*row) for row in database.rows(query, container)]


def checkpoint(database: Database, container: Container, label: str) -> Checkpoint:
    """One of a container.

    Raises:
        NotFoundError: there is none of that label; names those that are there.
    """
    found = checkpoints(database, container.id)
    for one in found:
        if one.label == label:
            return one
    labels = ", ".join(one.label for one in found[-_NAMED:])
    raise NotFoundError(
        f"container {container.name} has no checkpoint {label!r}",
        resolution=f"it has {labels}"
        if found
        else f"make one: storagedrivers container checkpoint {container.name}",
    )


def check_label(label: str) -> str:
    """Return *label* if a checkpoint may have it.

    Raises:
        StoreError: it may not.
    """
    if _LABEL.fullmatch(label) and len(label) <= _LONGEST_LABEL:
        return label
    raise StoreError(
        f"{label!r} is no label for a checkpoint",
        resolution="use at most 128 letters, digits, '_', '.' and '-',"
        " the first one a letter or a digit",
    )


def add_checkpoint(
    connection: sqlite3.Connection, new: Checkpoint, *, labelled: bool
) -> Checkpoint:
    """Within a transaction: the row of a new checkpoint; one without a label gets a number.

    Raises:
        AlreadyExistsError: the label is taken.
    """
    query = "SELECT label FROM checkpoints WHERE container = ?"
    taken = {row[0] for row in connection.execute(query, (new.container,))}
    if not labelled:
        number = len(taken) + 1
        while str(number) in taken:
            number += 1
        new = new._replace(label=str(number))
    elif new.label in taken:
        raise AlreadyExistsError(
            f"there is a checkpoint {new.label} already",
            resolution="choose another label, or drop that one",
        )
    connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?)", new)
    return new


# Configs


_OF_THE_IMAGE = (
    *("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Volumes", "ExposedPorts", "Labels"),
    *("StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped", "StopTimeout"),
)
_DEFAULTS: dict[str, Any] = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": [],
    "User": "",
    "WorkingDir": "",
    "Labels": {},
    "Tty": False,
    "OpenStdin": False,
    "ReadOnly": False,
    "Network": "none",
    "Tmpfs": [],
    "AutoRemove": False,
    "Mounts": [],
}


def merged_config(
    image: Mapping[str, Any], given: Mapping[str, Any], container: str
) -> dict[str, Any]:
    """How a container is run: what was asked for, and else what its image says.

    An entry point that was asked for takes the image's command away; variables and labels are
    merged by name. How an image calls its containers does not matter.

    Raises:
        StoreError: no container can have the host name that was asked for.
    """
    wanted = {key: value for key, value in given.items() if value is not None}
    known = {key: image[key] for key in _OF_THE_IMAGE if image.get(key) is not None}
    known.pop("OnBuild", None)  # it is for builds on this image
    config = {**_DEFAULTS, **known, **wanted}
    if not wanted.get("Cmd"):
        config["Cmd"] = None if wanted.get("Entrypoint") else known.get("Cmd")
    if config["Entrypoint"] == [""]:  # how Docker's clients ask for none
        config["Entrypoint"] = []
    config["Env"] = merged_env(known.get("Env") or (), wanted.get("Env") or ())
    for key in ("Labels", "Volumes", "ExposedPorts"):
        if known.get(key) or wanted.get(key):
            config[key] = {**(known.get(key) or {}), **(wanted.get(key) or {})}
    config["Hostname"] = check_hostname(config.get("Hostname") or container[:12])
    return config


def merged_env(first: Iterable[str], then: Iterable[str]) -> list[str]:
    """Variables in their first order, each with its last value."""
    found = {one.partition("=")[0]: one for one in first}
    found.update((one.partition("=")[0], one) for one in then)
    return list(found.values())


def checked_name(name: str | None) -> str:
    """The name of a new container, or nothing where it is to get a random one.

    Raises:
        StoreError: it is no name.
    """
    return "" if name is None else check_name(name)
