"""The store's database: transactions, errors in words, versions, and plans without scans."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
from pathlib import Path

import pytest
from processes import forked, succeeded

from storagedrivers.errors import (
    CorruptStoreError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
)
from storagedrivers.stores import build_cache, records
from storagedrivers.stores.database import _MIGRATIONS, NAME, VERSION, Database


def insert(database: Database, layer: str, parent: str | None = None, **values: object) -> None:
    row = {
        "id": layer,
        "parent": parent,
        "driver": "vfs-copy",
        "state": "ready",
        "writable": 0,
        "created": 1.5,
        "depth": 1,
        "durable": 1,
        **values,
    }
    places = ", ".join("?" * len(row))
    with database.transaction() as connection:
        connection.execute(
            f"INSERT INTO layers ({', '.join(row)}) VALUES ({places})", tuple(row.values())
        )


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path, create=True)


def test_there_is_no_store_until_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no store"):
        Database(tmp_path)
    with pytest.raises(NotFoundError, match="holds no store"):
        Database(tmp_path, create=True, read_only=True)
    assert os.listdir(tmp_path) == []
    Database(tmp_path, create=True).close()
    Database(tmp_path).close()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_what_was_killed_while_it_was_made_holds_no_store(tmp_path: Path) -> None:
    """A file without tables is what a crash before the first commit leaves."""
    (tmp_path / NAME).touch()
    with pytest.raises(NotFoundError, match="holds no store"):
        Database(tmp_path)
    Database(tmp_path, create=True).close()
    assert Database(tmp_path).meta("driver") is None


def test_it_commits_to_the_disk_and_checks_references(database: Database) -> None:
    assert database.row("PRAGMA journal_mode") == ("wal",)
    assert database.row("PRAGMA synchronous") == (2,)  # FULL
    with pytest.raises(sqlite3.IntegrityError):
        insert(database, "child", parent="nobody")


def test_a_block_that_fails_changes_nothing(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('key', 'value')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert database.meta("key") is None


def test_facts_that_are_set_stay(database: Database) -> None:
    database.set_meta(driver="overlay2")
    database.set_meta(driver="vfs-copy", uuid="1")
    assert (database.meta("driver"), database.meta("uuid")) == ("overlay2", "1")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer version") as caught:
        Database(tmp_path, create=True)
    assert caught.value.resolution == "upgrade storagedrivers"


def of_version(root: Path, version: int) -> Path:
    """A database as that version made it, with a layer in it."""
    with sqlite3.connect(root / NAME, isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for script in _MIGRATIONS[:version]:
            connection.executescript(script)
        connection.execute(
            "INSERT INTO layers (id, driver, state, writable, created, depth, durable)"
            " VALUES ('old', 'vfs-copy', 'ready', 0, 1.5, 1, 1)"
        )
        connection.execute("INSERT INTO meta VALUES ('driver', 'vfs-copy')")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    return root / NAME


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_older_schema_can_be_read_and_stays(tmp_path: Path, version: int) -> None:
    """What only reads works after an upgrade, and older programs can still use the file."""
    path = of_version(tmp_path, version)
    before = path.read_bytes()
    reader = Database(tmp_path, read_only=True)
    assert [layer.id for layer in records.find(reader, "")] == ["old"]
    assert reader.rows("SELECT name FROM volumes") == []
    assert reader.rows("SELECT key FROM build_cache") == []
    assert reader.meta("driver") == "vfs-copy"
    with pytest.raises(ReadOnlyError):
        reader.set_meta(key="value")
    with pytest.raises(ReadOnlyError):
        reader.rows("DELETE FROM layers")
    assert succeeded(forked(lambda: reader.rows("SELECT name FROM volumes")))
    reader.close()
    assert path.read_bytes() == before

    writer = Database(tmp_path)
    assert writer.row("PRAGMA user_version") == (VERSION,)
    assert [layer.id for layer in records.find(writer, "")] == ["old"]
    writer.close()
    assert path.read_bytes() != before


def test_text_that_is_not_utf_8_is_refused(database: Database) -> None:
    with pytest.raises(StoreError, match=r"'a\\udcff' is not UTF-8"):
        database.set_meta(key="a\udcff")
    with pytest.raises(StoreError, match="is not UTF-8"):
        database.rows("SELECT * FROM layers WHERE id = ?", "\ud800")
    assert database.meta("key") is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(CorruptStoreError, match=NAME):
        Database(tmp_path)


def test_who_holds_the_database_for_too_long_is_named(tmp_path: Path, database: Database) -> None:
    holder = os.getpid()
    impatient = Database(tmp_path, timeout=0.05)
    with database.transaction():
        with pytest.raises(LockTimeoutError, match=f"process {holder} has kept") as caught:
            impatient.set_meta(key="value")
    assert caught.value.holder == holder
    impatient.set_meta(key="value")


def test_a_full_database_is_a_full_disk(database: Database) -> None:
    database.row(f"PRAGMA max_page_count = {database.row('PRAGMA page_count')[0]}")

    def fill() -> None:
        for number in range(10_000):
            insert(database, f"layer{number}")

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC


def test_one_that_is_open_for_reading_changes_nothing(tmp_path: Path, database: Database) -> None:
    insert(database, "one")
    reader = Database(tmp_path, read_only=True)
    assert [layer.id for layer in records.find(reader, "")] == ["one"]
    with pytest.raises(ReadOnlyError, match="for reading only"):
        reader.set_meta(key="value")
    with pytest.raises(ReadOnlyError):
        reader.rows("DELETE FROM layers")


def test_threads_share_it(database: Database) -> None:
    def work(name: str) -> None:
        for number in range(20):
            insert(database, f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(f"thread{one}",)) for one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.row("SELECT count(*) FROM layers") == (80,)


def test_a_forked_process_gets_a_connection_of_its_own(database: Database) -> None:
    insert(database, "parent")
    assert succeeded(forked(lambda: insert(database, "child", parent="parent")))
    assert [layer.id for layer in records.find(database, "ORDER BY id")] == ["child", "parent"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM layers WHERE state != 'ready'",
        "SELECT id FROM layers WHERE id = ?",
        "SELECT id FROM layers WHERE id >= ? AND id < ? AND state = 'ready' LIMIT 6",
        "SELECT id FROM layers WHERE parent = ? LIMIT 6",
        "SELECT id FROM layers WHERE chain_id = ? AND driver = ? AND state = 'ready' AND id != ?",
        "SELECT id FROM layers WHERE chain_id = ? AND state = 'ready' ORDER BY number LIMIT 6",
        "SELECT id FROM layers WHERE diff_id = ? AND state = 'ready' ORDER BY number LIMIT 6",
        "SELECT id FROM layers WHERE durable = 0 AND state = 'ready' AND driver = ?",
        "SELECT DISTINCT driver FROM layers WHERE durable = 0 AND state = 'ready'",
        "SELECT 1 FROM mounts WHERE layer = ?",
        records._CHAIN,
        records._CHAIN_LAYERS,
        *records._FORGET_EARLIER,
        build_cache._FIND,
        build_cache._OF_CHAIN,
        build_cache._FORGET_FACTS,
        "DELETE FROM build_cache WHERE layer = ?",
        "SELECT facts FROM build_cache WHERE number = ?",
    ],
)
def test_no_query_reads_the_whole_store(database: Database, query: str) -> None:
    """The cost of an operation does not depend on how many layers there are."""
    places = int(max(re.findall(r"\?(\d)", query), default=query.count("?")))
    plan = database.rows(f"EXPLAIN QUERY PLAN {query}", *["x"] * places)
    steps = [str(row[3]) for row in plan]
    scans = [step for step in steps if step.startswith("SCAN") and "chain" not in step]
    # A partial index that holds what is unfinished only is scanned as a whole, and is all of it.
    assert all("layers_unfinished" in step or "layers_not_durable" in step for step in scans), steps
    tables = ("SCAN layers", "SCAN build_cache")
    assert not any(step.startswith(tables) and "USING" not in step for step in steps), steps


def test_a_chain_is_listed_from_the_top(database: Database) -> None:
    insert(database, "a0")
    for number in range(1, 100):
        insert(database, f"a{number}", parent=f"a{number - 1}")
    assert records.chain(database, "a99") == tuple(f"a{number}" for number in range(99, -1, -1))
    assert records.chain(database, "a0") == ("a0",)


def test_warnings_survive_in_words(database: Database) -> None:
    text = records.warnings_text(["one\nline", "bad \udcff byte"])
    insert(database, "one", warnings=text)
    found = records.by_id(database, "one")
    assert found is not None
    assert found.warnings == ("one line", "bad \\udcff byte")


def test_what_need_not_survive_a_power_loss_does_not_wait_for_the_disk(database: Database) -> None:
    with database.transaction(durable=False) as connection:
        connection.execute("INSERT INTO meta VALUES ('key', 'value')")
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert database.row("PRAGMA synchronous") == (2,)
    assert database.meta("key") == "value"
    with pytest.raises(sqlite3.IntegrityError):
        with database.transaction(durable=False) as connection:
            connection.execute("INSERT INTO meta VALUES ('key', 'value')")
    assert database.row("PRAGMA synchronous") == (2,)
