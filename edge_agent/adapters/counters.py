"""The counters of what was obeyed, in an SQLite file of their own, which outlives a spool that is made anew.

It is opened for each use and closed again: orders are rare, and a connection that stays open costs memory that the
agent does not have.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from broker_config.signing import Kind
from edge_agent.adapters.files import set_aside
from edge_agent.adapters.transaction import Failpoint

COUNTERS_NAME: Final = "orders.db"
BUSY_S: Final = 2.0
_SCHEMA: Final = """
BEGIN;
CREATE TABLE obeyed (kind TEXT PRIMARY KEY, counter INTEGER NOT NULL, id TEXT NOT NULL, done INTEGER NOT NULL);
CREATE TABLE floor (counter INTEGER NOT NULL);
COMMIT;
"""

_HEALS: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""After these the file is as good as it was; after any other it is damaged."""


class CountersError(Exception):
    """They cannot be read or written; what was stored is as it was."""


class Kept(NamedTuple):
    """All of it. ``floor`` None: the file is new, so nobody knows what was obeyed before; ``interrupted``: the id of
    what was begun and not ended.
    """

    last: dict[Kind, int]
    floor: int | None
    interrupted: dict[Kind, str]


class Counters:
    """Calls come one after the other."""

    def __init__(self, path: Path, failpoint: Failpoint | None = None) -> None:
        self._path = path
        self._failpoint = failpoint or (lambda _step: None)

    def load(self) -> Kept:
        """Read all; a file that is damaged is set aside and begun anew. Raises CountersError."""
        try:
            return self._load()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _HEALS:
                raise CountersError(str(error)) from error
        except ValueError:
            pass  # a kind that this version does not know, or a counter that is none
        try:
            set_aside(self._path)
            return self._load()
        except (OSError, sqlite3.Error, ValueError) as error:
            raise CountersError(str(error)) from error

    def _load(self) -> Kept:
        with self._opened() as db:
            rows = db.execute("SELECT kind, counter, id, done FROM obeyed").fetchall()
            floor = db.execute("SELECT max(counter) FROM floor").fetchone()[0]
        return Kept(
            {Kind(kind): int(counter) for kind, counter, _, _ in rows},
            None if floor is None else int(floor),
            {Kind(kind): str(name) for kind, _, name, done in rows if not done},
        )

    def begin(self, kind: Kind, counter: int, name: str) -> None:
        """*name*: the order's id, or empty. Durable once it returns: from now on this order and every older one of
        its kind is refused. Raises CountersError.
        """
        self._write("INSERT OR REPLACE INTO obeyed VALUES (?, ?, ?, 0)", (kind.value, counter, name))
        self._failpoint("begun")

    def end(self, kind: Kind) -> None:
        """What was begun is done. Raises CountersError."""
        self._write("UPDATE obeyed SET done = 1 WHERE kind = ?", (kind.value,))

    def raise_floor(self, counter: int) -> None:
        """From now on nothing up to *counter* counts. Raises CountersError."""
        self._write("INSERT INTO floor VALUES (?)", (counter,))

    def _write(self, statement: str, values: tuple[str | int, ...]) -> None:
        try:
            with self._opened() as db:
                db.execute(statement, values)
        except sqlite3.Error as error:
            raise CountersError(str(error)) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S)) as db:
            # EXTRA: without a write-ahead log a commit is the removal of a file, and FULL does not sync its
            # directory: a power cut would bring the old counter back
            db.execute("PRAGMA synchronous = EXTRA")
            if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                db.executescript(_SCHEMA)
            yield db
