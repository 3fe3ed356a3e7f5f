"""Uploads that are under way, in a SQLite file: the port :class:`fleet_server.evidence.uploads.UploadStore`.

A row of ``chunk`` is a durable chunk. ``synchronous`` FULL: what a commit returned is there after the power was cut.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from broker_config import manifest, ranges, signing
from broker_config.device_classes import Priority
from broker_config.ids import ContractError
from broker_config.ranges import Ranges
from fleet_server.access.audit import Place
from fleet_server.adapters.files import PRIVATE_FILE
from fleet_server.evidence.uploads import DurableChunk, Phase, Upload, UploadError

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x66664555
"""``ffEU``."""
BUSY_MS: Final = 10_000
DDL: Final = """
CREATE TABLE upload(upload TEXT PRIMARY KEY, device TEXT NOT NULL, envelope BLOB NOT NULL, certificate TEXT NOT NULL,
  doubts TEXT NOT NULL, priority TEXT NOT NULL, via TEXT NOT NULL, size INTEGER NOT NULL, offered_ms INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL, phase TEXT NOT NULL, log INTEGER, number INTEGER, replicated INTEGER,
  why TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX upload_phase ON upload(phase, replicated) WHERE phase != 'done' OR replicated = 0;
CREATE INDEX upload_device ON upload(device, offered_ms, size);
"""
CHUNK_DDL: Final = """CREATE TABLE chunk(upload TEXT NOT NULL, number INTEGER NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY(upload, number)) WITHOUT ROWID"""
_COLUMNS: Final = (
    "upload, device, envelope, certificate, doubts, priority, via, offered_ms, changed_ms, phase, log, number, "
    "replicated, why"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM upload"  # noqa: S608 - our own names


class SqliteUploads:
    """One connection; who calls waits for the one before."""

    def __init__(self, path: Path) -> None:
        """Raises UploadError: not such a file, or of a newer version."""
        self._path = path
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        with self._transaction() as connection:
            _create_or_check(connection, path)

    def find(self, upload: str) -> Upload | None:
        """See the port."""
        with self._transaction() as connection:
            row = connection.execute(f"{_SELECT} WHERE upload = ?", (upload,)).fetchone()
        return None if row is None else _upload(row)

    def unfinished(self) -> Sequence[tuple[Upload, Ranges]]:
        """See the port."""
        with self._transaction() as connection:
            rows = connection.execute(f"{_SELECT} WHERE phase = ?", (Phase.OPEN.value,)).fetchall()
            return [(_upload(row), self._held(connection, row[0])) for row in rows]

    def unreplicated(self) -> Sequence[Upload]:
        """See the port."""
        with self._transaction() as connection:
            rows = connection.execute(f"{_SELECT} WHERE phase = ? AND replicated = 0", (Phase.DONE.value,)).fetchall()
        return [_upload(row) for row in rows]

    def crc(self, upload: str, number: int) -> int | None:
        """See the port."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT crc FROM chunk WHERE upload = ? AND number = ?", (upload, number)
            ).fetchone()
        return None if row is None else int(row[0])

    def crcs(self, upload: str) -> Sequence[int]:
        """See the port."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT crc FROM chunk WHERE upload = ? ORDER BY number", (upload,))
            return [row[0] for row in rows]

    def offered_bytes(self, device: str, *, since_ms: int) -> int:
        """See the port."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT sum(size) FROM upload WHERE device = ? AND offered_ms >= ?", (device, since_ms)
            ).fetchone()
        return int(row[0] or 0)

    def commit(self, opened: Sequence[Upload], chunks: Sequence[DurableChunk], *, now_ms: int) -> None:
        """See the port."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO upload VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, '')",
                [_row(each) for each in opened],
            )
            connection.executemany("INSERT OR REPLACE INTO chunk VALUES(?, ?, ?)", chunks)
            connection.executemany(
                "UPDATE upload SET changed_ms = ? WHERE upload = ?",
                [(now_ms, upload) for upload in {each.upload for each in chunks}],
            )

    def forget(self, upload: str, numbers: Collection[int] | None) -> None:
        """See the port."""
        with self._transaction() as connection:
            if numbers is None:
                connection.execute("DELETE FROM chunk WHERE upload = ?", (upload,))
                return
            connection.executemany(
                "DELETE FROM chunk WHERE upload = ? AND number = ?", [(upload, number) for number in numbers]
            )

    def end(self, upload: str, phase: Phase, why: str, *, now_ms: int) -> None:
        """See the port."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE upload SET phase = ?, why = ?, changed_ms = ? WHERE upload = ?",
                (phase.value, why, now_ms, upload),
            )

    def done(self, upload: str, place: Place, *, replicated: bool | None, now_ms: int) -> None:
        """See the port."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE upload SET phase = ?, log = ?, number = ?, replicated = ?, changed_ms = ? WHERE upload = ?",
                (Phase.DONE.value, place.log, place.number, replicated, now_ms, upload),
            )
            connection.execute("DELETE FROM chunk WHERE upload = ?", (upload,))

    def close(self) -> None:
        """A later call opens it again."""
        with self._lock:
            self._drop()

    @staticmethod
    def _held(connection: sqlite3.Connection, upload: str) -> Ranges:
        rows = connection.execute("SELECT number FROM chunk WHERE upload = ? ORDER BY number", (upload,))
        return ranges.from_numbers(row[0] for row in rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _connect(self._path)
                connection = self._connection
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._drop()  # opened anew, so that no half of a transaction is ever in the way
                raise UploadError(f"uploads: {error}") from error
            except BaseException:
                self._drop()
                raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    path.touch(PRIVATE_FILE)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _create_or_check(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
        return
    if (application, version) == (APPLICATION_ID, 1):
        connection.execute("DROP TABLE chunk")  # it had no CRCs: what was under way comes again
    elif (application, version) == (0, 0):
        for statement in DDL.split(";"):
            if statement.strip():
                connection.execute(statement)
    else:
        raise UploadError(f"{path.name}: expected uploads of version {SCHEMA_VERSION}, got {application}/{version}")
    connection.execute(CHUNK_DDL)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _row(each: Upload) -> tuple[object, ...]:
    return (
        each.upload,
        each.device,
        each.envelope,
        each.certificate,
        " ".join(each.doubts),
        each.priority.value,
        each.via,
        each.manifest.size,
        each.offered_ms,
        each.changed_ms,
        each.phase.value,
    )


def _upload(row: Sequence[object]) -> Upload:
    upload, device, envelope, certificate, doubts, priority, via, offered_ms, changed_ms, phase = row[:10]
    log, number, replicated, why = row[10:]
    assert isinstance(envelope, bytes)
    assert isinstance(offered_ms, int)
    assert isinstance(changed_ms, int)
    try:
        told = manifest.decode(signing.decode_envelope(envelope))
    except ContractError as error:
        raise UploadError(f"uploads: {upload} is not what was written: {error}") from error
    return Upload(
        str(upload),
        str(device),
        told,
        envelope,
        str(certificate),
        tuple(str(doubts).split()),
        Priority(str(priority)),
        str(via),
        offered_ms,
        changed_ms,
        Phase(str(phase)),
        Place(log, number) if isinstance(log, int) and isinstance(number, int) else None,
        None if replicated is None else bool(replicated),
        str(why),
    )
