"""A copy of a batch store, and a store made from one.

A store made from a copy begins a new store epoch, and its fencing tokens go on above any that the lost store can
have given out since: devices then offer again what the copy lacks.
"""

import os
import sqlite3
from contextlib import closing
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
        StoreError: *store_path* exists, or *path* is no sound batch store of this version.
    """
    if store_path.exists():
        raise StoreError(f"{store_path}: expected no file there, got one")
    unfinished = store_path.with_name(store_path.name + ".part")
    try:
        unfinished.unlink(missing_ok=True)
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(unfinished)) as target:
            source.backup(target)
            schema.check(target, path)
            _check_sound(target, path)
            epoch = max(schema.meta(target, "store_epoch") + 1, now_ms)
            with target:
                schema.set_meta(target, "store_epoch", epoch)
                schema.set_meta(target, "token", max(schema.meta(target, "token"), now_ms))
                target.execute("DELETE FROM lease")
            target.execute("PRAGMA journal_mode = WAL")
        _sync(unfinished)
        unfinished.rename(store_path)
        _sync(store_path.parent)
    except sqlite3.Error as error:
        unfinished.unlink(missing_ok=True)
        raise schema.translated(error) from error
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(str(error)) from error
    except StoreError:
        unfinished.unlink(missing_ok=True)
        raise
    return epoch


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
