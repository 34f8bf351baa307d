"""The cache of builds: which layer a step made, by the key of all that its result depends on.

An entry refers to its layer, as an image does, so the layer stays when the image goes that it was
built for; :meth:`CacheStore.prune` lets go of it. What a step of another driver made is not used,
and neither is a layer that may not have reached the disk before the machine was started again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from storagedrivers.errors import StorageDriversError
from storagedrivers.stores import records
from storagedrivers.stores.mounts import boot_id

if TYPE_CHECKING:
    from storagedrivers.stores.cache_pruning import Pruned
    from storagedrivers.stores.cache_volumes import CacheVolume
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.volumes import VolumeStore


class Keyed(Protocol):
    """What a step's result depends on, see :class:`storagedrivers.build.keys.Facts`."""

    @property
    def chain(self) -> str:
        """The ChainID of the layers below."""

    @property
    def instruction(self) -> str:
        """For people."""

    def key(self) -> str:
        """The digest of all of it."""

    def pack(self) -> bytes:
        """The rest of it, to say later what is different."""


class Entry(NamedTuple):
    """What a step made.

    Attributes:
        number: the order in which entries were made.
        key: the digest of all that it depends on.
        driver: whose layer it is.
        chain: the ChainID of the layers below, or "".
        instruction: as people know it.
        layer: the id of the layer; None where the step changed nothing.
        created: when it was made, in seconds since the epoch.
        used: when a build had it last.
        uses: how many builds had it, without the one that made it.
    """

    number: int
    key: str
    driver: str
    chain: str
    instruction: str
    layer: str | None
    created: float
    used: float
    uses: int


class Listed(NamedTuple):
    """An entry, and what its layer takes.

    Attributes:
        entry: it.
        size: bytes of the contents of its layer's own files.
        shared: something besides the cache has the layer: an image, a container, a running build.
        lost: no build can have it any more: the layer is damaged, or may not have reached the disk
            before the machine was started again.
    """

    entry: Entry
    size: int
    shared: bool
    lost: bool


_COLUMNS = ", ".join(f"build_cache.{name}" for name in Entry._fields)
_JOINED = "FROM build_cache LEFT JOIN layers ON layers.id = layer"

# A layer in quarantine has no ChainID.
_USABLE = """
    (layer IS NULL OR (state = 'ready' AND NOT writable AND chain_id IS NOT NULL
        AND (durable OR (boot = ?1 AND boot != ''))))
"""
_FIND = f"SELECT {_COLUMNS} {_JOINED} WHERE build_cache.driver = ?2 AND {_USABLE} AND key = ?3"
_OF_CHAIN = f"""
    SELECT {_COLUMNS}, {_USABLE} {_JOINED} WHERE chain = ?2
    ORDER BY build_cache.used DESC, build_cache.number DESC LIMIT ?3
"""
_ALL = f"""
SELECT {_COLUMNS}, COALESCE(size, 0), {_USABLE} {_JOINED} ORDER BY build_cache.number
"""

COMPARED = 5
"""Of how many steps with one instruction, on the same layers, it is kept what they depend on."""

_FORGET_FACTS = """
    UPDATE build_cache SET facts = x'' WHERE number IN (
        SELECT number FROM build_cache WHERE chain = ? AND instruction = ? AND LENGTH(facts) > 0
        ORDER BY used DESC, number DESC LIMIT -1 OFFSET ?
    )
"""

_NEEDED = """
    WITH RECURSIVE needed (id) AS (
        SELECT id FROM layers WHERE held
        UNION SELECT layer FROM images WHERE layer IS NOT NULL
        UNION SELECT init FROM images WHERE init IS NOT NULL
        UNION SELECT layer FROM containers
        UNION SELECT layer FROM checkpoints
        UNION SELECT layer FROM leases
        UNION SELECT layer FROM mounts
        UNION SELECT parent FROM layers JOIN needed USING (id) WHERE parent IS NOT NULL
    )
    SELECT id FROM needed
"""


class CacheStore:
    """The cache of the builds of one store.

    Args:
        layers: the layers of the store.
        volumes: gives its volumes, some of which hold what RUNs keep from build to build.
    """

    def __init__(self, layers: LayerStore, volumes: Callable[[], VolumeStore]) -> None:
        self.layers = layers
        self._volumes = volumes
        self.database = layers.database
        self._boot = boot_id()

    # Finding

    def find(
        self, key: str, *, driver: str | None = None, lease: Lease | None = None
    ) -> Entry | None:
        """What a step with this key made, if a build can have it.

        Args:
            driver: whose layers those below are; by default the one of new layers.
            lease: keeps its layer until its end.
        """
        wanted = (self._boot, driver or self.layers.driver, key)
        row = self.database.row(_FIND, *wanted)
        if row is None or lease is None or Entry(*row).layer is None:
            return None if row is None else Entry(*row)
        with self.database.transaction(durable=False) as connection:
            return _taken(connection, wanted, lease)

    def of_chain(self, chain: str, *, limit: int = 200) -> list[tuple[Entry, bool]]:
        """The entries of steps on the same layers, those used last first; and whether a build could
        have each, were its driver the store's.
        """
        rows = self.database.rows(_OF_CHAIN, self._boot, chain, limit)
        return [(Entry(*row[:-1]), bool(row[-1])) for row in rows]

    def knows(self, instruction: str) -> bool:
        """Whether there is an entry with this instruction, on whatever layers."""
        query = "SELECT 1 FROM build_cache WHERE instruction = ? LIMIT 1"
        return self.database.row(query, stored(instruction)) is not None

    def facts(self, entry: Entry) -> bytes | None:
        """What an entry depends on, packed; None where it is gone, or is older than others."""
        row = self.database.row("SELECT facts FROM build_cache WHERE number = ?", entry.number)
        return None if row is None else bytes(row[0]) or None

    def ls(self) -> list[Listed]:
        """All entries, in the order in which they were made."""
        needed = self.needed()
        found = []
        for *values, size, usable in self.database.rows(_ALL, self._boot):
            entry = Entry(*values)
            found.append(Listed(entry, size, entry.layer in needed, not usable))
        return found

    def volumes(self) -> list[CacheVolume]:
        """What RUNs keep from build to build, by name; their files are counted."""
        from storagedrivers.stores import cache_volumes

        query = "SELECT 1 FROM volumes WHERE name LIKE ? LIMIT 1"
        if not self.database.row(query, f"{cache_volumes.PREFIX}%"):
            return []
        return cache_volumes.find(self._volumes())

    def remove_volumes(self, volumes: Iterable[CacheVolume]) -> list[CacheVolume]:
        """Remove what RUNs keep; those that a build has just now stay.

        Returns:
            Those that are gone.
        """
        from storagedrivers.stores import cache_volumes

        return cache_volumes.remove(self._volumes(), volumes)

    def needed(self) -> set[str]:
        """The ids of the layers that would stay without the cache."""
        return {row[0] for row in self.database.rows(_NEEDED)}

    # Adding

    def add(
        self,
        facts: Keyed,
        layer: str | None,
        *,
        created: float,
        driver: str | None = None,
        lease: Lease | None = None,
        replace: bool = False,
    ) -> Entry:
        """Remember what a step made.

        Where another build was faster, what that one made is the answer, and the lease lets go of
        *layer*, which nobody needs then.

        Args:
            facts: what it depends on.
            layer: the id of the layer, sealed and with its DiffID; None where nothing changed.
            created: when it was made.
            driver: whose layers those below are; by default the one of new layers.
            lease: keeps the layer of the answer until its end.
            replace: what was there is forgotten in any case.

        Raises:
            NotFoundError: the layer is gone.
        """
        new = Entry(
            number=0,
            key=facts.key(),
            driver=driver or self.layers.driver,
            chain=facts.chain,
            instruction=stored(facts.instruction),
            layer=layer,
            created=created,
            used=time.time(),
            uses=0,
        )
        wanted = (self._boot, new.driver, new.key)
        packed = facts.pack()
        old: list[str] = []
        # After a power loss the step is done once more, so nothing waits for the disk.
        with self.database.transaction(durable=False) as connection:
            found = None if replace else _taken(connection, wanted, lease)
            if found is None:
                old = _forget(connection, new)
                found = _insert(connection, new, self._boot, packed)
                if layer is not None and lease is not None:
                    lease.take(layer, connection)
        self._let_go(old, found)
        if layer is not None and layer != found.layer and lease is not None:
            lease.drop(layer)
        return found

    def _let_go(self, layers: Iterable[str], kept: Entry) -> None:
        for layer in layers:
            if layer != kept.layer:
                with suppress(StorageDriversError, OSError):  # then gc finds it
                    self.layers.release(layer, later=True)

    def use(self, entries: Iterable[Entry]) -> None:
        """Note that a build had these entries."""
        now = time.time()
        numbers = [(now, entry.number) for entry in entries]
        if numbers:
            with self.database.transaction(durable=False) as connection:
                connection.executemany(
                    "UPDATE build_cache SET used = ?, uses = uses + 1 WHERE number = ?", numbers
                )

    # Removing

    def prune(
        self,
        *,
        max_size: int | None = None,
        unused_for: float | None = None,
        all: bool = False,  # noqa: A002
        dry_run: bool = False,
    ) -> Pruned:
        """Forget entries, and remove the layers that only they had; the ones used longest ago go
        first. What RUNs keep goes likewise, and what no build can have any more in any case.

        Args:
            max_size: how many bytes may stay that only the cache has; by default none.
            unused_for: only those that no build had for so many seconds.
            all: also the entries of layers that images or containers have, which keep those.
            dry_run: only say which.
        """
        from storagedrivers.stores.cache_pruning import prune

        return prune(
            self, max_size=max_size, unused_for=unused_for, everything=all, dry_run=dry_run
        )


def stored(instruction: str) -> str:
    """An instruction as the database keeps it, which takes UTF-8 only."""
    return instruction.encode(errors="backslashreplace").decode()


def _taken(
    connection: sqlite3.Connection, wanted: tuple[str, str, str], lease: Lease | None
) -> Entry | None:
    """Within a transaction: the entry that is wanted, whose layer the lease has then."""
    row = connection.execute(_FIND, wanted).fetchone()
    found = None if row is None else Entry(*row)
    if found is not None and found.layer is not None and lease is not None:
        lease.note(found.layer, connection)
    return found


def _forget(connection: sqlite3.Connection, new: Entry) -> list[str]:
    """Within a transaction: take the entry away that has the key of a new one; its layer."""
    condition = "FROM build_cache WHERE key = ? AND driver = ?"
    rows = connection.execute(f"SELECT layer {condition}", (new.key, new.driver)).fetchall()
    connection.execute(f"DELETE {condition}", (new.key, new.driver))
    return [row[0] for row in rows if row[0] is not None]


def _insert(connection: sqlite3.Connection, new: Entry, boot: str, packed: bytes) -> Entry:
    if new.layer is not None:
        records.require_ready(connection, new.layer)
    values = {**new._asdict(), "empty": new.layer is None, "boot": boot, "facts": packed}
    del values["number"]
    places = ", ".join("?" * len(values))
    query = f"INSERT INTO build_cache ({', '.join(values)}) VALUES ({places})"
    number = connection.execute(query, tuple(values.values())).lastrowid
    assert number is not None
    connection.execute(_FORGET_FACTS, (new.chain, new.instruction, COMPARED))
    return new._replace(number=number)
