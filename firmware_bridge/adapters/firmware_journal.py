"""The journal of updates in one SQLite file: write-ahead log, synchronous FULL, one transaction a row."""

import json
import sqlite3
from pathlib import Path
from types import MappingProxyType
from typing import Final

from firmware_bridge.firmware.flow import Act, Phase, Row, Verdict

APPLICATION_ID: Final = 0x66664669  # "ffFi"
SCHEMA_VERSION: Final = 1
BUSY_S: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE update_ (
    device TEXT NOT NULL, image BLOB NOT NULL, phase TEXT NOT NULL, was BLOB NOT NULL, unfit TEXT NOT NULL,
    times TEXT NOT NULL, verdict TEXT, why TEXT NOT NULL, PRIMARY KEY (device, image)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_open ON update_ (device) WHERE verdict IS NULL;
"""
_COLUMNS: Final = "device, image, phase, was, unfit, times, verdict, why"


class JournalError(Exception):
    """The file is not a journal of ours, or cannot be used; the message says why."""


class SqliteJournal:
    """See :class:`~firmware_bridge.firmware.ports.Journal`."""

    def __init__(self, file: Path) -> None:
        """Raises JournalError."""
        try:
            self._db = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            self._lay_out()
        except sqlite3.Error as error:
            raise JournalError(f"{file}: {error}") from error

    def _lay_out(self) -> None:
        (kind,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if (kind, version) == (APPLICATION_ID, SCHEMA_VERSION):
            return
        if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise JournalError(f"expected a journal of updates, version {SCHEMA_VERSION}, got {kind:#x}, {version}")
        self._db.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID};"
            f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )

    def find(self, device: str, image: bytes) -> Row | None:
        return self._one(
            f"SELECT {_COLUMNS} FROM update_ WHERE device=? AND image=?",  # noqa: S608  # our own columns
            device,
            image,
        )

    def open_of(self, device: str) -> Row | None:
        return self._one(
            f"SELECT {_COLUMNS} FROM update_ WHERE device=? AND verdict IS NULL",  # noqa: S608  # our own columns
            device,
        )

    def _one(self, query: str, *values: object) -> Row | None:
        found = self._db.execute(query, values).fetchone()
        if found is None:
            return None
        device, image, phase, before, unfit, times, verdict, why = found
        return Row(
            device=device,
            image=image,
            phase=Phase(phase),
            before=before,
            unfit=unfit,
            times=MappingProxyType({Act(act): count for act, count in json.loads(times).items()}),
            verdict=None if verdict is None else Verdict(verdict),
            why=why,
        )

    def write(self, row: Row) -> None:
        self._db.execute(
            # not OR REPLACE, which would drop the row of another image to make this one the open one
            f"INSERT INTO update_ ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (device, image) DO UPDATE SET"  # noqa: S608
            " phase=excluded.phase, was=excluded.was, unfit=excluded.unfit, times=excluded.times,"
            " verdict=excluded.verdict, why=excluded.why",
            (
                row.device,
                row.image,
                row.phase,
                row.before,
                row.unfit,
                json.dumps(dict(row.times)),
                row.verdict,
                row.why,
            ),
        )

    def close(self) -> None:
        """Idempotent."""
        self._db.close()
