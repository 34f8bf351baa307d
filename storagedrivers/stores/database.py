"""The store's database: SQLite in WAL mode; what is committed survives a power loss.

``synchronous=FULL``: with less, a row could say ready after a crash while its directory was on its
way out already. Transactions are short, and none is open while files are read or written. No path
is kept, so a moved store opens.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from _thread import RLock  # of threading, which costs a start more than a millisecond
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from storagedrivers.errors import (
    CorruptStoreError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
)

NAME = "storagedrivers.db"

BUSY_TIMEOUT = 60.0  # seconds that a transaction waits for those of others

_MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE layers (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        parent TEXT REFERENCES layers (id),
        driver TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'removing')),
        writable INTEGER NOT NULL,
        created REAL NOT NULL,
        diff_id TEXT,
        chain_id TEXT,
        diff_size INTEGER,
        size INTEGER,
        inodes INTEGER,
        digest TEXT,
        stored_size INTEGER,
        compression TEXT,
        depth INTEGER NOT NULL,
        durable INTEGER NOT NULL,
        warnings TEXT NOT NULL DEFAULT '',
        used INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX layers_of_parent ON layers (parent);
    CREATE INDEX layers_unfinished ON layers (id) WHERE state != 'ready';
    CREATE INDEX layers_not_durable ON layers (driver) WHERE durable = 0 AND state = 'ready';
    CREATE INDEX layers_of_diff ON layers (diff_id);
    CREATE INDEX layers_of_chain ON layers (chain_id, driver);
    CREATE TABLE mounts (
        layer TEXT NOT NULL REFERENCES layers (id),
        place TEXT NOT NULL,
        boot TEXT NOT NULL,
        read_only INTEGER NOT NULL,
        count INTEGER NOT NULL CHECK (count > 0),
        PRIMARY KEY (layer, place)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE layers ADD COLUMN held INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE layers ADD COLUMN role TEXT NOT NULL DEFAULT '';
    ALTER TABLE layers ADD COLUMN epoch INTEGER;
    CREATE INDEX layers_not_held ON layers (id) WHERE held = 0;
    CREATE TABLE leases (
        name TEXT NOT NULL,
        layer TEXT NOT NULL REFERENCES layers (id),
        PRIMARY KEY (name, layer)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX leases_of_layer ON leases (layer);
    CREATE TABLE images (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        layer TEXT REFERENCES layers (id),
        init TEXT REFERENCES layers (id),
        manifest TEXT,
        created REAL,
        added REAL NOT NULL,
        source TEXT NOT NULL CHECK (source IN ('load', 'import', 'commit', 'build')),
        parent TEXT
    ) STRICT;
    CREATE INDEX images_of_layer ON images (layer);
    CREATE INDEX images_of_init ON images (init);
    CREATE TABLE image_names (
        name TEXT PRIMARY KEY,
        image TEXT NOT NULL REFERENCES images (id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX names_of_image ON image_names (image);
    CREATE TABLE image_blobs (
        image TEXT NOT NULL REFERENCES images (id),
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (image, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX images_of_blob ON image_blobs (digest);
    CREATE TABLE containers (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        image TEXT,
        image_name TEXT NOT NULL,
        base TEXT REFERENCES layers (id),
        layer TEXT NOT NULL REFERENCES layers (id),
        state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'removing')),
        created REAL NOT NULL,
        config TEXT NOT NULL
    ) STRICT;
    CREATE INDEX containers_of_image ON containers (image);
    CREATE INDEX containers_of_layer ON containers (layer);
    CREATE INDEX containers_unfinished ON containers (id) WHERE state != 'ready';
    CREATE TABLE checkpoints (
        container TEXT NOT NULL REFERENCES containers (id),
        label TEXT NOT NULL,
        layer TEXT NOT NULL REFERENCES layers (id),
        created REAL NOT NULL,
        PRIMARY KEY (container, label)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX checkpoints_of_layer ON checkpoints (layer);
    """,
    """
    CREATE TABLE volumes (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'filling', 'removing')),
        created REAL NOT NULL,
        labels TEXT NOT NULL,
        options TEXT NOT NULL,
        size INTEGER,
        anonymous INTEGER NOT NULL,
        seed TEXT
    ) STRICT;
    CREATE INDEX volumes_unfinished ON volumes (name) WHERE state != 'ready';
    CREATE TABLE container_volumes (
        container TEXT NOT NULL REFERENCES containers (id),
        target TEXT NOT NULL,
        volume TEXT NOT NULL REFERENCES volumes (name),
        PRIMARY KEY (container, target)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX containers_of_volume ON container_volumes (volume);
    """,
    """
    CREATE TABLE build_cache (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        driver TEXT NOT NULL,
        chain TEXT NOT NULL,
        instruction TEXT NOT NULL,
        layer TEXT REFERENCES layers (id),
        empty INTEGER NOT NULL,
        created REAL NOT NULL,
        used REAL NOT NULL,
        uses INTEGER NOT NULL DEFAULT 0,
        boot TEXT NOT NULL,
        facts BLOB NOT NULL,
        UNIQUE (key, driver)
    ) STRICT;
    CREATE INDEX build_cache_of_layer ON build_cache (layer);
    CREATE INDEX build_cache_of_chain ON build_cache (chain);
    """,
)
"""Each takes the schema from the version that is its index to the next."""

VERSION = len(_MIGRATIONS)

Row = tuple[Any, ...]


def can_be_written(root: str) -> bool:
    """Whether there is a store that can be changed: not on a filesystem that is mounted read-only,
    nor by who may not write to it.
    """
    return os.access(os.path.join(root, NAME), os.W_OK) and os.access(root, os.W_OK)


def _into_memory(connection: sqlite3.Connection) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with closing(connection):
        connection.backup(memory)
    return memory


class Database:
    """One connection, which threads may share; a forked process gets one of its own.

    Args:
        root: the graph root, which holds it.
        create: make what is missing, the file or its tables.
        read_only: nothing is written; a filesystem that is mounted read-only is no obstacle, and
            neither is an older version of the schema.

    Raises:
        NotFoundError: there is no store, and *create* is false.
        CorruptStoreError: the file is no database.
        StoreError: it was written by a newer version of this program.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        create: bool = False,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.root = os.fspath(root)
        self.path = os.path.join(self.root, NAME)
        self.read_only = read_only
        self._timeout = timeout
        self._lock = RLock()
        self._inherited: list[sqlite3.Connection] = []
        if not os.path.exists(self.path):
            if read_only or not create:
                raise NotFoundError(f"{self.root} holds no store")
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with self._translated():
            self._open()
            try:
                self._check_version(create=create)
            except BaseException:
                self._connection.close()
                raise

    # Opening

    def _open(self) -> None:
        self._pid = os.getpid()
        if self.is_fixed:
            self._connection = self._opened_without_writing()
        else:
            self._connection = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if self.read_only:
            self._connection.execute("PRAGMA query_only = ON")

    def _opened_without_writing(self) -> sqlite3.Connection:
        """On a read-only filesystem the files of the WAL cannot be made; those that a crash left
        there are read.
        """
        from urllib.parse import quote

        log = f"{self.path}-wal"
        empty = not os.path.exists(log) or os.path.getsize(log) == 0
        if not empty and not os.path.exists(f"{self.path}-shm"):  # a copy may lack it
            return self._read_elsewhere()
        uri = f"file:{quote(os.fsencode(self.path))}?mode=ro{'&immutable=1' if empty else ''}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def _read_elsewhere(self) -> sqlite3.Connection:
        """Read a copy, beside which the missing file can be made."""
        import shutil
        import tempfile

        with tempfile.TemporaryDirectory(prefix="storagedrivers-") as directory:
            copy = os.path.join(directory, NAME)
            for suffix in ("", "-wal"):
                shutil.copyfile(self.path + suffix, copy + suffix)
            return _into_memory(sqlite3.connect(copy))

    def _check_version(self, *, create: bool) -> None:
        version = self._version()
        if version > VERSION:
            raise StoreError(
                f"the store at {self.root} was written by a newer version of storagedrivers"
                f" (schema {version}, and this one knows {VERSION})",
                resolution="upgrade storagedrivers",
            )
        if version == VERSION:
            return
        if not version and (self.read_only or not create):
            raise NotFoundError(f"{self.root} holds no store")
        if self.read_only:
            self._upgrade_copy()
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        with self.transaction() as connection:
            self._migrate(connection)

    def _upgrade_copy(self) -> None:
        """Go on with a copy in memory of a database of an older version, as it is now.

        The file stays what it is for the older versions that may still use it, until something is
        to be written.
        """
        self._connection = _into_memory(self._connection)
        self._migrate(self._connection)
        self._connection.execute("PRAGMA query_only = ON")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        for script in _MIGRATIONS[self._version() :]:  # another process may have been faster
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Close it; what was committed stays."""
        with self._lock:
            self._connection.close()

    @property
    def is_fixed(self) -> bool:
        """Whether nothing in the store can be changed from here, no lock be taken either."""
        return self.read_only and not can_be_written(self.root)

    def refusal(self) -> ReadOnlyError:
        """The error for what would change something."""
        if os.statvfs(self.root).f_flag & os.ST_RDONLY:
            return ReadOnlyError(
                f"the store at {self.root} cannot be changed: its filesystem is read-only",
                resolution="mount it for writing; what only reads works as it is",
            )
        if can_be_written(self.root):
            return ReadOnlyError(f"the store at {self.root} was opened for reading only")
        return ReadOnlyError(
            f"the store at {self.root} cannot be changed by this user",
            resolution="run as root, or as the user whose store it is",
        )

    # Using

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Change something: all that the block does, or nothing.

        Args:
            durable: it survives a power loss once this is over; else a later one may take it along.

        Raises:
            LockTimeoutError: other processes kept the database locked.
            ReadOnlyError: the store was opened for reading.
            OSError: ENOSPC.
        """
        if self.read_only:
            raise self.refusal()
        with self._lock, self._translated():
            connection = self._own()
            if not durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                self._commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if not durable:
                    connection.execute("PRAGMA synchronous = FULL")

    @staticmethod
    def _commit(connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")

    def rows(self, query: str, *parameters: object) -> list[Row]:
        """What a query finds."""
        with self._lock, self._translated():
            return self._own().execute(query, parameters).fetchall()

    def row(self, query: str, *parameters: object) -> Row | None:
        """The first row of what a query finds, or None."""
        with self._lock, self._translated():
            found: Row | None = self._own().execute(query, parameters).fetchone()
            return found

    def meta(self, key: str) -> str | None:
        """A fact of the store as a whole: ``driver``, the current one, and ``uuid``."""
        found = self.row("SELECT value FROM meta WHERE key = ?", key)
        return None if found is None else str(found[0])

    def set_meta(self, **values: str) -> None:
        """Set facts that are not set yet; those that are stay."""
        with self.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", values.items())

    def _own(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            # SQLite's state must not cross a fork, and closing it would write to the files.
            self._inherited.append(self._connection)
            self._open()
            if self.read_only:
                self._check_version(create=False)
        return self._connection

    # Errors

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translation(error) from error
        except UnicodeEncodeError as error:  # of an argument that is not UTF-8
            raise StoreError(
                f"{error.object!r} is not UTF-8, and the database keeps nothing else",
                resolution="use another name",
            ) from error

    def _translation(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._too_long()
        if primary == sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CorruptStoreError(
                f"the database {self.path} is damaged: {error}",
                resolution="restore it from a backup, or start an empty store: --root DIR",
            )
        fixed = primary == sqlite3.SQLITE_CANTOPEN and not can_be_written(self.root)
        if fixed or primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return self.refusal()
        if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
            return StoreError(
                f"the database {self.path} cannot be read or written: {error}",
                details=getattr(error, "sqlite_errorname", None),
                resolution="see whether its filesystem is full, or damaged (dmesg)",
            )
        return error  # a bug keeps its traceback

    def _too_long(self) -> LockTimeoutError:
        holder = self._writer()
        who = f"process {holder}" if holder else "another process"
        return LockTimeoutError(
            f"{who} has kept the database {self.path} locked for more than {self._timeout:g} s",
            holder=holder,
            resolution="wait for it, or end it",
        )

    def _writer(self) -> int | None:
        """Who holds SQLite's write lock, a record lock on byte 120 of its shared memory."""
        try:
            status = os.stat(f"{self.path}-shm")
            with open("/proc/locks") as file:
                for words in map(str.split, file):
                    inode = words[5].rpartition(":")[2]
                    if words[6] == "120" and inode == str(status.st_ino):
                        return int(words[4])
        except (OSError, ValueError, IndexError):
            pass
        return None
