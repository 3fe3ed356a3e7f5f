"""The counters of what was obeyed, and what became of commands, in an SQLite file of their own, which outlives a
spool that is made anew.

It is opened for each use and closed again: orders are rare, and a connection that stays open costs memory that the
agent does not have.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from broker_config.signing import Kind
from edge_agent.adapters.files import set_aside
from edge_agent.adapters.transaction import Failpoint, transaction
from edge_agent.commands import Row

COUNTERS_NAME: Final = "orders.db"
BUSY_S: Final = 2.0
_SCHEMA: Final = """
BEGIN;
CREATE TABLE obeyed (kind TEXT PRIMARY KEY, counter INTEGER NOT NULL, id TEXT NOT NULL, done INTEGER NOT NULL);
CREATE TABLE floor (counter INTEGER NOT NULL);
COMMIT;
"""
_COMMANDS: Final = "CREATE TABLE IF NOT EXISTS command (id TEXT PRIMARY KEY, row BLOB NOT NULL)"
"""Made at each opening: files of an earlier version have it not."""

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
        """Read all but the commands; a file that is damaged is set aside and begun anew. Raises CountersError."""
        try:
            return self._load()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _HEALS:
                raise CountersError(str(error)) from error
        except (ValueError, msgspec.MsgspecError):
            pass  # a kind or a command that this version does not know, or a counter that is none
        try:
            set_aside(self._path)
            return self._load()
        except (OSError, sqlite3.Error, ValueError) as error:
            raise CountersError(str(error)) from error

    def _load(self) -> Kept:
        with self._opened() as db:
            rows = db.execute("SELECT kind, counter, id, done FROM obeyed").fetchall()
            floor = db.execute("SELECT max(counter) FROM floor").fetchone()[0]
            _commands(db)
        return Kept(
            {Kind(kind): int(counter) for kind, counter, _, _ in rows},
            None if floor is None else int(floor),
            {Kind(kind): str(name) for kind, _, name, done in rows if not done},
        )

    def commands(self) -> dict[str, Row]:
        """Id -> what became of it, in the order of their counters. Call :meth:`load` before. Raises CountersError."""
        try:
            with self._opened() as db:
                return _commands(db)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise CountersError(str(error)) from error

    def begin(self, kind: Kind, counter: int, name: str) -> None:
        """*name*: the order's id, or empty. Durable once it returns: from now on this order and every older one of
        its kind is refused. Raises CountersError.
        """
        self._write("INSERT OR REPLACE INTO obeyed VALUES (?, ?, ?, 0)", (kind.value, counter, name))
        self._failpoint("begun")

    def end(self, kind: Kind) -> None:
        """What was begun is done. Raises CountersError."""
        self._write("UPDATE obeyed SET done = 1 WHERE kind = ?", (kind.value,))

    def begin_command(self, row: Row, forget: Iterable[str] = ()) -> None:
        """As :meth:`begin`, with its first row, in one transaction; the rows of *forget* go. What was begun and not
        ended its row tells. Raises CountersError.
        """
        try:
            with self._opened() as db, transaction(db, lambda _step: None):
                values = (Kind.COMMAND.value, row.counter, row.id)
                db.execute("INSERT OR REPLACE INTO obeyed VALUES (?, ?, ?, 1)", values)
                db.executemany("DELETE FROM command WHERE id = ?", [(name,) for name in forget])
                db.execute("INSERT OR REPLACE INTO command VALUES (?, ?)", (row.id, msgspec.json.encode(row)))
        except sqlite3.Error as error:
            raise CountersError(str(error)) from error
        self._failpoint("begun")

    def keep(self, row: Row) -> None:
        """What has become of a command. Raises CountersError."""
        self._write("INSERT OR REPLACE INTO command VALUES (?, ?)", (row.id, msgspec.json.encode(row)))
        self._failpoint(f"kept {row.state}")

    def raise_floor(self, counter: int) -> None:
        """From now on nothing up to *counter* counts. Raises CountersError."""
        self._write("INSERT INTO floor VALUES (?)", (counter,))

    def _write(self, statement: str, values: tuple[str | int | bytes, ...]) -> None:
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
            db.execute(_COMMANDS)
            yield db


def _commands(db: sqlite3.Connection) -> dict[str, Row]:
    rows = [msgspec.json.decode(row[0], type=Row) for row in db.execute("SELECT row FROM command")]
    return {row.id: row for row in sorted(rows, key=lambda row: row.counter)}
