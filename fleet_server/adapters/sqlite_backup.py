"""A copy of a batch store or of another SQLite database, and one made from a copy.

A store made from a copy begins a new store epoch, and its fencing tokens go on above any that the lost store can
have given out since: devices then offer again what the copy lacks.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fleet_server.adapters import sqlite_schema as schema
from fleet_server.telemetry.store import StoreError


def backup(store_path: Path, path: Path) -> None:
    """Copy a store, at work or not, as it is at one moment; *path* appears whole and durable, or not at all.

    Raises:
        StoreError: *path* exists, or it cannot be read or written.
    """
    if path.exists():
        raise StoreError(f"{path}: expected no file there, got one")
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.unlink(missing_ok=True)
        with closing(schema.connect(store_path)) as source, closing(sqlite3.connect(unfinished)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        _sync(unfinished)
        unfinished.rename(path)
        _sync(path.parent)
    except sqlite3.Error as error:
        unfinished.unlink(missing_ok=True)
        raise schema.translated(error) from error
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(str(error)) from error


def restore_backup(path: Path, store_path: Path, now_ms: int) -> int:
    """Make a store of a backup; return its store epoch, ``max(last + 1, now_ms)``.

    Raises:
        StoreError: *store_path* exists, or *path* is no sound batch store of this version or an older one.
    """
    with _copied_back(path, store_path) as target:
        schema.upgrade(target)
        schema.check(target, path)
        epoch = max(schema.meta(target, "store_epoch") + 1, now_ms)
        with target:
            schema.set_meta(target, "store_epoch", epoch)
            schema.set_meta(target, "token", max(schema.meta(target, "token"), now_ms))
            target.execute("DELETE FROM lease")
    return epoch


def copy_back(path: Path, database_path: Path) -> None:
    """Make any other SQLite database of its backup.

    Raises:
        StoreError: *database_path* exists, or *path* is no sound database.
    """
    with _copied_back(path, database_path):
        pass


@contextmanager
def _copied_back(path: Path, database_path: Path) -> Iterator[sqlite3.Connection]:
    """A sound copy of *path* that may be changed, and is *database_path*, whole and durable, once that is done."""
    if database_path.exists():
        raise StoreError(f"{database_path}: expected no file there, got one")
    unfinished = database_path.with_name(database_path.name + ".part")
    try:
        unfinished.unlink(missing_ok=True)
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(unfinished)) as target:
            source.backup(target)
            _check_sound(target, path)
            yield target
            target.execute("PRAGMA journal_mode = WAL")
        _sync(unfinished)
        unfinished.rename(database_path)
        _sync(database_path.parent)
    except sqlite3.Error as error:
        unfinished.unlink(missing_ok=True)
        raise schema.translated(error) from error
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(str(error)) from error
    except StoreError:
        unfinished.unlink(missing_ok=True)
        raise


def set_aside(store_path: Path, now_ms: int) -> Path | None:
    """Move a store that no server writes to a name beside it, with its log; return that name, None if there is none.

    Raises:
        StoreError: a server's lease on it has not run out, or it cannot be moved.
    """
    aside = store_path.with_name(f"{store_path.name}.until-{now_ms}")
    try:
        until_ms = _leased_until_ms(store_path) if store_path.exists() else 0
        if until_ms > now_ms:
            raise StoreError(f"{store_path}: a server holds it until {until_ms}; stop it first")
        # its log too, even alone: SQLite would take it for the log of the next file of that name
        found = [suffix for suffix in ("", "-wal", "-shm") if Path(f"{store_path}{suffix}").exists()]
        for suffix in found:
            Path(f"{store_path}{suffix}").rename(f"{aside}{suffix}")
        if found:
            _sync(store_path.parent)
    except OSError as error:
        raise StoreError(str(error)) from error
    return aside if "" in found else None


def _leased_until_ms(store_path: Path) -> int:
    try:
        with closing(schema.connect(store_path)) as connection:
            row = connection.execute("SELECT max(until_ms) FROM lease").fetchone()
    except sqlite3.Error:  # so damaged that a backup is wanted
        return 0
    return row[0] or 0


def _check_sound(connection: sqlite3.Connection, path: Path) -> None:
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreError(f"{path}: expected a sound file, got {verdict}")


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
