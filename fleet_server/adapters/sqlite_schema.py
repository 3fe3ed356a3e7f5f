"""The batch store's file: its tables, how a connection is opened, and what its errors mean.

``log`` holds one row per commit until the sealer moves it into ``chunk``. Everything that is read on the hot path
(ledger, newest values, which log rows a stream has) is in memory and rebuilt from here.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from fleet_server.telemetry.store import StoreError, StoreFullError

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x66664253
"""``ffBS``: marks the file as a batch store."""
PAGE_BYTES: Final = 8192
BUSY_MS: Final = 10_000
CACHE_KIB: Final = 32_768
WAL_PAGES_CHECKPOINT: Final = 2_000
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024

# chunk is a rowid table: in a WITHOUT ROWID one a row above a quarter of a page spills into a page of its own.
DDL: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lease(id INTEGER PRIMARY KEY CHECK(id = 1), token INTEGER NOT NULL, owner TEXT NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, until_ms INTEGER NOT NULL);
CREATE TABLE log(id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, records INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE series(id INTEGER PRIMARY KEY, device TEXT NOT NULL, stream TEXT NOT NULL, UNIQUE(device, stream));
CREATE TABLE shape(id INTEGER PRIMARY KEY, fields TEXT NOT NULL UNIQUE);
CREATE TABLE ledger(device TEXT, stream TEXT, life TEXT, held TEXT NOT NULL, tail_seq INTEGER NOT NULL,
  tail_boot TEXT NOT NULL, tail_mono INTEGER NOT NULL, tail_ms INTEGER NOT NULL, tail_crc INTEGER NOT NULL,
  PRIMARY KEY(device, stream, life)) WITHOUT ROWID;
CREATE TABLE latest(device TEXT, stream TEXT, at_ms INTEGER NOT NULL, known INTEGER NOT NULL,
  received_ms INTEGER NOT NULL, shape INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY(device, stream)) WITHOUT ROWID;
CREATE TABLE chunk(day INTEGER NOT NULL, series INTEGER NOT NULL, hour INTEGER NOT NULL, part INTEGER NOT NULL,
  fresh_ms INTEGER, form INTEGER NOT NULL, shape INTEGER NOT NULL, first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL, records INTEGER NOT NULL, heads BLOB NOT NULL, body BLOB NOT NULL, roll BLOB);
CREATE UNIQUE INDEX chunk_place ON chunk(day, series, hour, part);
CREATE INDEX chunk_fresh ON chunk(fresh_ms) WHERE fresh_ms IS NOT NULL;
CREATE TABLE unmapped(device TEXT NOT NULL, stream TEXT NOT NULL, life TEXT NOT NULL, seq INTEGER NOT NULL,
  boot TEXT NOT NULL, at_ms INTEGER NOT NULL, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE UNIQUE INDEX unmapped_key ON unmapped(device, stream, life, seq);
CREATE INDEX unmapped_at ON unmapped(at_ms);
CREATE INDEX unmapped_boot ON unmapped(device, boot);
CREATE TABLE remapped(device TEXT, stream TEXT, life TEXT, seq INTEGER, day INTEGER NOT NULL,
  crc32 INTEGER NOT NULL, PRIMARY KEY(device, stream, life, seq)) WITHOUT ROWID;
CREATE TABLE boot_offset(device TEXT, boot TEXT, offset_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL,
  PRIMARY KEY(device, boot)) WITHOUT ROWID;
CREATE TABLE quarantine(id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, device TEXT NOT NULL, channel TEXT NOT NULL,
  key TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL, content_type TEXT NOT NULL, crc32 INTEGER NOT NULL,
  payload BLOB NOT NULL, replayed_ms INTEGER);
CREATE TABLE gone(device TEXT, stream TEXT, life TEXT, low INTEGER, high INTEGER,
  PRIMARY KEY(device, stream, life, low, high)) WITHOUT ROWID;
CREATE TABLE silence(device TEXT, stream TEXT, life TEXT, seq INTEGER, from_ms INTEGER NOT NULL,
  to_ms INTEGER NOT NULL, from_boot TEXT NOT NULL, from_mono INTEGER NOT NULL, to_boot TEXT NOT NULL,
  to_mono INTEGER NOT NULL, PRIMARY KEY(device, stream, life, seq)) WITHOUT ROWID;
CREATE INDEX silence_device ON silence(device, to_ms);
CREATE INDEX silence_to ON silence(to_ms);
CREATE TABLE event(device TEXT, at_ms INTEGER, stream TEXT, life TEXT, seq INTEGER, place INTEGER,
  boot TEXT NOT NULL, mono INTEGER NOT NULL, kind TEXT NOT NULL, data_json TEXT NOT NULL,
  PRIMARY KEY(device, at_ms, stream, life, seq, place)) WITHOUT ROWID;
CREATE TABLE status(device TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, payload BLOB NOT NULL) WITHOUT ROWID;
"""
DDL_PROJECTION: Final = """
CREATE TABLE sink(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor INTEGER NOT NULL,
  settled INTEGER NOT NULL, refused INTEGER NOT NULL);
CREATE TABLE stale(sink INTEGER NOT NULL, hour INTEGER NOT NULL, series INTEGER NOT NULL, mark INTEGER NOT NULL,
  since_ms INTEGER NOT NULL, PRIMARY KEY(sink, hour, series)) WITHOUT ROWID;
CREATE TABLE unsettled(sink INTEGER NOT NULL, hour INTEGER NOT NULL, series INTEGER NOT NULL,
  written_ms INTEGER NOT NULL, PRIMARY KEY(sink, hour, series)) WITHOUT ROWID;
CREATE TABLE dead_letter(id INTEGER PRIMARY KEY, sink INTEGER NOT NULL, at_ms INTEGER NOT NULL, line BLOB NOT NULL,
  reason TEXT NOT NULL, UNIQUE(sink, line));
"""
UPGRADES: Final = {1: DDL_PROJECTION}
"""What leads from a version to the next; each only adds."""

_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR})


def translated(error: sqlite3.Error) -> StoreError:
    """Our error for SQLite's; whoever raises it has rolled back."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _FULL:
        return StoreFullError(f"{error.sqlite_errorname}: {error}")
    return StoreError(str(error))


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose every commit is on the medium when it returns; transactions are begun by hand.

    Raises:
        sqlite3.Error: as SQLite says it.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_CHECKPOINT}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def create_or_check(path: Path, *, now_ms: int) -> int:
    """Make the file if it is not there; return its store epoch, which of a new one is *now_ms*.

    Raises:
        StoreError: not a batch store, or one of a newer version.
    """
    try:
        with closing(connect(path)) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                _create(connection, now_ms)
            upgrade(connection)
            check(connection, path)
            return meta(connection, "store_epoch")
    except sqlite3.Error as error:
        raise translated(error) from error


def _create(connection: sqlite3.Connection, now_ms: int) -> None:
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:  # another was quicker
        connection.execute("ROLLBACK")
        return
    for statement in (DDL + DDL_PROJECTION).split(";"):
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO meta VALUES(?, ?)",
        [("store_epoch", now_ms), ("token", 0), ("sealed_up_to", 0), ("part", 0)],
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a batch store of an older version to this one, whole or not at all; leave anything else as it is."""
    if not _upgradable(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    if _upgradable(connection):  # another was not quicker
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for old in range(version, SCHEMA_VERSION):
            for statement in UPGRADES[old].split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _upgradable(connection: sqlite3.Connection) -> bool:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application == APPLICATION_ID and connection.execute("PRAGMA user_version").fetchone()[0] in UPGRADES


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StoreError unless this is a batch store that this version can read."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: expected a batch store (application id {APPLICATION_ID:#x}), got {application:#x}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(f"{path}: expected schema version {SCHEMA_VERSION}, got {version}")


def meta(connection: sqlite3.Connection, name: str) -> int:
    """One of the file's own numbers."""
    value: int = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]
    return value


def set_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Set one of the file's own numbers."""
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))
