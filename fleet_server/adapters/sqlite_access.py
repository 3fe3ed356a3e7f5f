"""Who may touch the batch store's file when: one writer at a time, fenced; a bounded pool of readers."""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, LifoQueue
from threading import BoundedSemaphore, Lock
from typing import Final

from fleet_server.adapters import sqlite_schema as schema
from fleet_server.adapters.sqlite_log import LogRow, unpack
from fleet_server.telemetry.store import FencedError

READERS_MAX: Final = 8
LOG_ROWS_BYTES_MAX: Final = 32 * 1024 * 1024
"""Decompressed log rows kept for readers."""
_SOUND: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR})
"""After these a connection that rolled back is as good as before; after any other it is opened anew."""

Failpoint = Callable[[str], None]
"""Called with the name of each step that a crash may come before or after; does nothing but in tests."""


def nothing(_name: str) -> None:
    """The failpoint of a store at work."""


class Access:
    """The file. ``writing`` may be entered from any thread, one after the other."""

    def __init__(self, path: Path, failpoint: Failpoint = nothing) -> None:
        self.path = path
        self.failpoint = failpoint
        self._writing = Lock()
        self._writer: sqlite3.Connection | None = None
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._readers = BoundedSemaphore(READERS_MAX)
        self._rows: OrderedDict[int, LogRow] = OrderedDict()
        self._rows_bytes = 0
        self._rows_lock = Lock()

    @contextmanager
    def writing(self, token: int | None) -> Iterator[sqlite3.Connection]:
        """One immediate transaction, committed at the end and rolled back at any error; *token* None is not fenced.

        Raises:
            FencedError: *token* is not the newest.
            StoreFullError, StoreError: nothing was stored.
        """
        with self._writing:
            try:
                if self._writer is None:
                    self._writer = schema.connect(self.path)
                connection = self._writer
                connection.execute("BEGIN IMMEDIATE")
                if token is not None:
                    _check_token(connection, token)
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back(error)
                raise schema.translated(error) from error
            except BaseException:
                self._roll_back(None)
                raise

    def _roll_back(self, error: sqlite3.Error | None) -> None:
        connection = self._writer
        if connection is None:
            return
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        try:
            if connection.in_transaction:  # SQLite itself rolls back after some errors
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            code = sqlite3.SQLITE_IOERR
        if code & 0xFF not in _SOUND:
            self._writer = None
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction on a snapshot of the file. Raises StoreError."""
        with self._readers:
            connection: sqlite3.Connection | None = None
            try:
                try:
                    connection = self._idle.get_nowait()
                except Empty:
                    connection = schema.connect(self.path)
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection is not None:
                    with suppress(sqlite3.Error):
                        connection.close()
                if isinstance(error, sqlite3.Error):
                    raise schema.translated(error) from error
                raise
            self._idle.put(connection)

    def log_row(self, connection: sqlite3.Connection, log_id: int) -> LogRow | None:
        """A log row, from memory if it was read lately; None if it is sealed by now."""
        with self._rows_lock:
            row = self._rows.get(log_id)
            if row is not None:
                self._rows.move_to_end(log_id)
                return row
        found = connection.execute("SELECT body FROM log WHERE id = ?", (log_id,)).fetchone()
        if found is None:
            return None
        row = unpack(found[0])
        with self._rows_lock:
            if log_id not in self._rows:
                self._rows[log_id] = row
                self._rows_bytes += row.size_bytes
                while self._rows_bytes > LOG_ROWS_BYTES_MAX:
                    self._rows_bytes -= self._rows.popitem(last=False)[1].size_bytes
        return row

    def forget_rows(self, up_to: int) -> None:
        """Sealed log rows need no memory."""
        with self._rows_lock:
            for log_id in [log_id for log_id in self._rows if log_id <= up_to]:
                self._rows_bytes -= self._rows.pop(log_id).size_bytes

    def close(self) -> None:
        """Close what is open; a later call opens it again."""
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return


def _check_token(connection: sqlite3.Connection, token: int) -> None:
    row = connection.execute("SELECT token FROM lease").fetchone()
    if row is None or row[0] != token:
        raise FencedError(f"expected the newest token, {row[0] if row else 'none'}, got {token}")
