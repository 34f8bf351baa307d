"""Finds what lies in a store's directories and belongs to no row.

The disk is read first, the rows after it. What a store makes has its row first, and what it removes
loses its row last; so something that was there before the rows were read, is in none of them, and
is still there afterwards, belongs to no one. What is made without a row says by a lock or by a
process in its name that someone is at it.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.archive import PAYLOAD_SUFFIX
from storagedrivers.driver import TRASH
from storagedrivers.errors import StorageDriversError
from storagedrivers.linux import tree
from storagedrivers.linux.mountinfo import (
    MountEntry,
    is_below,
    mount_namespaces,
    mount_of,
    read_mountinfo,
)
from storagedrivers.linux.scratch import SCRATCH
from storagedrivers.model import is_layer_id
from storagedrivers.stores import locks, records

if TYPE_CHECKING:
    from storagedrivers.driver import StorageDriver
    from storagedrivers.stores.layers import LayerStore

MOUNTPOINT = re.compile(r"(.+)-(ro|rw)")
"""Names of mountpoints: the layer, and how it is mounted."""

_SETTLED = 0.02  # seconds in which whoever made a lock file has locked it
_SCRATCH_AGE = 60.0  # seconds; a process may be one of another PID namespace
_SCRATCH_LONGEST = 3600.0  # seconds that the longest trial may take
_SECTOR = 512  # bytes, the unit of st_blocks


class Kind(StrEnum):
    """What an orphan is."""

    LAYER = "layer"
    TRASH = "trash"
    LINK = "link"
    TAR = "tar"
    LOCK = "lock"
    STAGING = "staging"
    SCRATCH = "scratch"
    MOUNT = "mount"
    MOUNTPOINT = "mountpoint"
    UNUSED = "unused"
    BLOB = "blob"
    CONTAINER = "container"
    VOLUME = "volume"
    VOLUME_PART = "volume-part"
    VOLUME_MOUNT = "volume-mount"
    ROW = "row"
    MOUNT_ROW = "mount-row"
    VOLUME_ROW = "volume-row"


OF_VOLUMES = frozenset({Kind.VOLUME, Kind.VOLUME_PART, Kind.VOLUME_MOUNT, Kind.VOLUME_ROW})
"""The owners of these are volumes."""


class Orphan(NamedTuple):
    """Something that belongs to no row, or a row that belongs to no process.

    Attributes:
        kind: what it is.
        path: where.
        owner: the layer, volume, process or lock that it belonged to; empty where it does not say.
        age: seconds since it was changed.
        bytes: what it takes on the disk.
        inodes: likewise.
        reason: why it is one, a sentence.
        driver: whose it is, or empty.
        in_use: who uses it all the same; then it is left alone.
        key: of a row: layer, place, boot.
    """

    kind: Kind
    path: str
    owner: str
    age: float
    bytes: int
    inodes: int
    reason: str
    driver: str = ""
    in_use: str = ""
    key: tuple[str, ...] = ()


def driver_or_none(store: LayerStore, name: str) -> StorageDriver | None:
    """The driver object of a name; None where it is not installed any more."""
    try:
        return store.driver_for(name)
    except StorageDriversError:
        return None


def find_orphans(store: LayerStore) -> list[Orphan]:
    """All of them, in the order of their kinds and paths. Changes nothing."""
    search = _Search(store)
    found = [*search.orphans()]
    kinds = list(Kind)
    # Unused layers keep their order: one can go when those above it are gone.
    return sorted(
        found,
        key=lambda orphan: (
            kinds.index(orphan.kind),
            "" if orphan.kind is Kind.UNUSED else orphan.path,
        ),
    )


class Seen(NamedTuple):
    """A name on the disk that may be an orphan if *layer* has no row."""

    kind: Kind
    path: str
    layer: str
    driver: str = ""


class _Search:
    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self._root = store.root
        self._now = time.time()
        self._used: _Used | None = None

    def orphans(self) -> Iterator[Orphan]:
        seen = [*self._seen()]
        free_locks = [*self._free_locks()]
        rows = {
            row[0]: row[1:]
            for row in self._store.database.rows("SELECT id, driver, state FROM layers")
        }
        mounts = {
            (row[0], bool(row[1]))
            for row in self._store.database.rows("SELECT layer, read_only FROM mounts")
        }
        for one in seen:
            yield from self._judged(one, rows, mounts)
        yield from free_locks
        yield from self._unused()
        yield from self._unfinished(rows)
        yield from self._volumes()
        yield from self._dead_mounts()

    # The disk

    def _seen(self) -> Iterator[Seen]:
        for driver in self._homes():
            yield from self._in_home(driver)
        for name in names_in(f"{self._root}/tars"):
            yield Seen(Kind.TAR, f"{self._root}/tars/{name}", name.removesuffix(PAYLOAD_SUFFIX))
        for name in names_in(f"{self._root}/tmp"):
            yield Seen(Kind.STAGING, f"{self._root}/tmp/{name}", "")
        for name in names_in(f"{self._root}/images/sha256"):
            yield Seen(Kind.BLOB, f"{self._root}/images/sha256/{name}", name)
        for top in (self._root, self._store.mount_table.run_root):
            for name in names_in(f"{top}/containers"):
                yield Seen(Kind.CONTAINER, f"{top}/containers/{name}", name)
        for name in names_in(self._root):
            if name.startswith(SCRATCH):
                yield Seen(Kind.SCRATCH, f"{self._root}/{name}", "")
        points = f"{self._store.mount_table.run_root}/mounts"
        for name in names_in(points):
            if match := MOUNTPOINT.fullmatch(name):
                yield Seen(Kind.MOUNTPOINT, f"{points}/{name}", match[1])

    def _homes(self) -> Iterator[str]:
        """The drivers that have, or had, layers in this store; no other directory is touched."""
        database = self._store.database
        layers = database.rows("SELECT DISTINCT driver FROM layers")
        accepted = database.rows("SELECT key FROM meta WHERE key LIKE 'accepted:%'")
        known = {row[0] for row in layers} | {row[0].partition(":")[2] for row in accepted}
        for name in sorted(known | {self._store.driver}):
            path = f"{self._root}/{name}"
            # Docker keeps what it knows of a driver's layers there: they are its own.
            docker = os.path.isdir(f"{self._root}/image/{name}")
            if not docker and os.path.isdir(path) and not os.path.islink(path):
                yield name

    def _in_home(self, driver: str) -> Iterator[Seen]:
        home = f"{self._root}/{driver}"
        for name in names_in(home):
            if is_layer_id(name):
                yield Seen(Kind.LAYER, f"{home}/{name}", name, driver)
            elif name.startswith(SCRATCH):
                yield Seen(Kind.SCRATCH, f"{home}/{name}", "", driver)
        for name in names_in(f"{home}/{TRASH}"):
            layer = name.partition(".")[0]
            yield Seen(Kind.TRASH, f"{home}/{TRASH}/{name}", layer, driver)
        object_ = driver_or_none(self._store, driver)
        for name in object_.strays() if object_ is not None else ():
            yield Seen(Kind.LINK, f"{home}/{name}", linked_layer(home, name), driver)

    # What it means

    def _judged(
        self, one: Seen, rows: dict[str, tuple[str, ...]], mounts: set[tuple[str, bool]]
    ) -> Iterator[Orphan]:
        if one.kind is Kind.LAYER:
            row = rows.get(one.layer)
            if row is None or row[0] != one.driver:
                yield from self._orphan(one, one.layer, "a layer's directory without a row")
        elif one.kind is Kind.TAR:
            if one.layer not in rows:
                yield from self._orphan(one, one.layer, "headers of a tar without a layer")
        elif one.kind is Kind.TRASH:
            if not is_layer_id(one.layer) or not self._is_locked(one.layer):
                yield from self._orphan(one, one.layer, "a removal that was killed left it")
        elif one.kind is Kind.LINK:
            # The link of a layer whose directory is lost goes with the layer's row.
            if one.layer not in rows:
                yield from self._orphan(
                    one, one.layer, "a name that only served a layer that is gone"
                )
        elif one.kind is Kind.STAGING:
            if not locks.is_locked(one.path):
                yield from self._orphan(one, "", "staged, and nobody is at it")
        elif one.kind is Kind.SCRATCH:
            yield from self._scratch(one)
        elif one.kind is Kind.BLOB:
            yield from self._blob(one)
        elif one.kind is Kind.CONTAINER:
            yield from self._container(one)
        elif (one.layer, one.path.endswith("-ro")) not in mounts:
            yield from self._mountpoint(one)

    def _orphan(self, one: Seen, owner: str, reason: str) -> Iterator[Orphan]:
        try:
            status = os.lstat(one.path)
            size, inodes = measured(one.path, status)
        except FileNotFoundError:
            return  # removed meanwhile, so it belonged to someone
        yield Orphan(
            one.kind,
            one.path,
            owner,
            max(0.0, self._now - status.st_mtime),
            size,
            inodes,
            reason,
            driver=one.driver,
            in_use=self._uses.user_of(one.path) if stat.S_ISDIR(status.st_mode) else "",
        )

    def _blob(self, one: Seen) -> Iterator[Orphan]:
        """A file gets its name and its row under one lock."""
        query = "SELECT 1 FROM image_blobs WHERE digest = ?"
        digest = f"sha256:{one.layer}"
        if self._has_row(query, digest) or self._is_locked(locks.IMAGES):
            return
        if not self._has_row(query, digest):
            yield from self._orphan(one, "", "a file of images that are gone")

    def _container(self, one: Seen) -> Iterator[Orphan]:
        """Its row comes after its directory, under one lock, and goes after it."""
        query = "SELECT 1 FROM containers WHERE id = ?"
        if self._has_row(query, one.layer) or self._is_locked(f"{locks.CONTAINER}{one.layer}"):
            return
        if not self._has_row(query, one.layer):
            yield from self._orphan(one, "", "a directory without a container")

    def _has_row(self, query: str, name: str) -> bool:
        # Names of files come here, which SQLite may not take.
        return name.isascii() and self._store.database.row(query, name) is not None

    def _scratch(self, one: Seen) -> Iterator[Orphan]:
        pid = os.path.basename(one.path)[len(SCRATCH) :].partition("-")[0]
        alive = pid.isdigit() and os.path.exists(f"/proc/{pid}")
        with suppress(FileNotFoundError):
            age = self._now - os.lstat(one.path).st_mtime
            if age > (_SCRATCH_LONGEST if alive else _SCRATCH_AGE):
                yield from self._orphan(one, f"process {pid}", "a trial that was killed left it")

    def _mountpoint(self, one: Seen) -> Iterator[Orphan]:
        with suppress(OSError):  # what cannot be looked at is no one's to take away
            entry = mount_of(one.path)
            if entry is None or entry.mountpoint != os.path.realpath(one.path):
                yield from self._orphan(one, one.layer, "a mountpoint without a mount or a row")
            elif self._uses.shows(entry):  # another store may have the same run root
                mounted = one._replace(kind=Kind.MOUNT)
                for orphan in self._orphan(mounted, one.layer, "a mount without a row"):
                    yield orphan._replace(bytes=0, inodes=0, in_use="")

    # Locks and rows

    def _free_locks(self) -> Iterator[Orphan]:
        directory = f"{self._root}/locks"
        free = [name for name in names_in(directory) if not locks.is_locked(f"{directory}/{name}")]
        if free:
            time.sleep(_SETTLED)
        for name in free:
            path = f"{directory}/{name}"
            if os.path.lexists(path) and not locks.is_locked(path):
                seen = Seen(Kind.LOCK, path, name)
                yield from self._orphan(seen, name, "a lock that nobody holds")

    def _is_locked(self, layer: str) -> bool:
        return locks.is_locked(f"{self._root}/locks/{layer}")

    def _unfinished(self, rows: dict[str, tuple[str, ...]]) -> Iterator[Orphan]:
        for layer, (driver, state) in rows.items():
            if state == "ready" or self._is_locked(layer):
                continue
            now = self._store.database.row("SELECT state FROM layers WHERE id = ?", layer)
            if now is None or now[0] == "ready":
                continue
            path = f"{self._root}/{driver}/{layer}"
            reason = f"whoever was {state} the layer is gone"
            seen = Seen(Kind.ROW, path, layer, driver)
            found = next(self._orphan(seen, layer, reason), None)
            yield found or Orphan(Kind.ROW, path, layer, 0.0, 0, 0, reason, driver)

    def _unused(self) -> Iterator[Orphan]:
        """Layers of images and containers that are gone: those on top first."""
        for layer in records.unused(self._store.database):
            found = records.by_id(self._store.database, layer)
            if found is None or self._is_locked(layer):
                continue
            path = f"{self._root}/{found.driver}/{layer}"
            reason = "a layer that no image and no container has"
            yield from self._orphan(Seen(Kind.UNUSED, path, layer, found.driver), layer, reason)

    def _volumes(self) -> Iterator[Orphan]:
        from storagedrivers.stores import volume_orphans

        return volume_orphans.find(self._store, self._orphan)

    def _dead_mounts(self) -> Iterator[Orphan]:
        """Rows of mounts that are not there; looked at through a connection that deletes none."""
        query = "SELECT layer, place, boot, read_only FROM mounts"
        rows = self._store.database.rows(query)
        if not rows:
            return
        living = {
            (record.layer, record.place) for record in self._store.mount_table.living(tidy=False)
        }
        for layer, place, boot, read_only in rows:
            if (layer, place) in living or not self._is_dead(layer, place, boot):
                continue
            name = f"{layer}-{'ro' if read_only else 'rw'}"
            path = f"{self._store.mount_table.run_root}/mounts/{name}"
            reason = "the row of a mount that is not there"
            yield Orphan(Kind.MOUNT_ROW, path, layer, 0.0, 0, 0, reason, key=(layer, place, boot))

    def _is_dead(self, layer: str, place: str, boot: str) -> bool:
        """Looked at with the layer's lock, so that nobody mounts or unmounts it between two looks;
        who has the lock now is at it.
        """
        try:
            lock = locks.try_lock(f"{self._root}/locks/{layer}")
        except OSError:  # no place to lock in, so no place to work in
            return False
        if lock is None:
            return False
        try:
            query = "SELECT 1 FROM mounts WHERE layer = ? AND place = ? AND boot = ?"
            if self._store.database.row(query, layer, place, boot) is None:
                return False
            living = self._store.mount_table.living(layer, tidy=False)
            return all(record.place != place for record in living)
        finally:
            lock.release()

    # Uses

    @property
    def _uses(self) -> _Used:
        if self._used is None:
            self._used = _Used(self._root)
        return self._used


class _Used:
    """What mounts of any process show of a store, or have in it."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        own = mount_of(root)
        self._device = own.device if own is not None else ""
        inside = os.path.relpath(self._root, own.mountpoint) if own is not None else "."
        self._in_filesystem = (
            os.path.normpath(f"{own.root.rstrip('/')}/{inside}") if own is not None else ""
        )
        self._paths = sorted(self._all_paths())

    def user_of(self, path: str) -> str:
        """A mount that has to do with *path*, in words; empty where there is none."""
        real = os.path.realpath(path)
        for used, words in self._paths:
            if is_below(used, real):
                return words
        return ""

    def shows(self, entry: MountEntry) -> bool:
        """Whether a mount shows something of this store."""
        return any(is_below(path, self._root) for path in self._shown(entry))

    def _all_paths(self) -> Iterator[tuple[str, str]]:
        for pid, entries in _all_mountinfos():
            for entry in entries:
                words = f"mounted at {entry.mountpoint} (process {pid})"
                yield entry.mountpoint, words
                for path in self._shown(entry):
                    yield path, words

    def _shown(self, entry: MountEntry) -> Iterator[str]:
        """The paths in this store that a mount shows or writes to."""
        if entry.device == self._device and is_below(entry.root, self._in_filesystem):
            below = os.path.relpath(entry.root.removesuffix("//deleted"), self._in_filesystem)
            if below != ".":
                yield f"{self._root}/{below}"
        for option in entry.options:
            key, _, value = option.partition("=")
            if key.rstrip("+") in ("lowerdir", "upperdir", "workdir") or key == "br":
                for part in re.split(r"(?<!\\):", value):
                    path = os.path.realpath(re.sub(r"\\(.)", r"\1", part))
                    if is_below(path, self._root):
                        yield path


def _all_mountinfos() -> Iterator[tuple[str, list[MountEntry]]]:
    """The mounts of each mount namespace that a process is in."""
    seen = set()
    for pid, namespace in mount_namespaces():
        if namespace not in seen:
            with suppress(OSError):
                entries = read_mountinfo(f"/proc/{pid}/mountinfo")
                seen.add(namespace)
                yield str(os.getpid()) if pid == "self" else pid, entries


def linked_layer(home: str, name: str) -> str:
    """The layer that a symlink in a driver's home leads to, or nothing."""
    path = os.path.join(home, name)
    try:
        target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    except OSError:
        return ""
    layer = os.path.relpath(target, home).split("/")[0]
    return layer if is_layer_id(layer) else ""


def measured(path: str, status: os.stat_result) -> tuple[int, int]:
    """Bytes and inodes that something takes on the disk."""
    if not stat.S_ISDIR(status.st_mode):
        return status.st_blocks * _SECTOR, 1
    usage = tree.measure_tree(path)
    return usage.bytes, usage.inodes


def names_in(directory: str) -> list[str]:
    """The names in a directory, sorted; none where there is no such directory."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
