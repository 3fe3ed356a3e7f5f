"""The outbox in one SQLite file beside the spool: what is sealed, what is receipted, and how far each recording is.

What a call wrote is durable when it returns (write-ahead log, FULL). A little room is set aside on the disk, and
given up when it is full: what frees the disk must be written down first.
"""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from broker_config.device_classes import Priority
from broker_config.limits import KIB
from broker_config.transfer import Receipted, StorageClass
from edge_agent import outbox
from edge_agent.adapters.files import set_aside
from edge_agent.adapters.transaction import Failpoint, transaction
from edge_agent.folders import Recording
from edge_agent.outbox import Kept, OutboxError, Row, Sealed

OUTBOX_NAME: Final = "uploads.db"
ROOM_NAME: Final = "uploads.room"
ROOM_BYTES: Final = 512 * KIB
BUSY_S: Final = 2.0
CACHE_KIB: Final = 128
ROWS_MAX: Final = 50_000
"""Sealed files on one device; what is beyond it waits in its folder."""
RECORDINGS_MAX: Final = 1_000
"""That nobody closed; beyond it the one that was silent for longest is forgotten."""
PULLED_MAX: Final = 64
"""Recordings that go on, and that somebody asked for; beyond it the one that was asked for first is forgotten."""
_PULLED: Final = "CREATE TABLE IF NOT EXISTS pulled (recording TEXT PRIMARY KEY)"
"""Made at each opening: files of an earlier version have it not."""
APPLICATION_ID: Final = 0x66664675  # "ffFu"
SCHEMA_VERSION: Final = 1
_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE upload (
    upload TEXT PRIMARY KEY, file_class TEXT NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, chunk_bytes INTEGER NOT NULL,
    priority TEXT NOT NULL, recording TEXT NOT NULL, number INTEGER NOT NULL, kept TEXT NOT NULL, storage_class TEXT,
    receipted_ms INTEGER NOT NULL, receipt INTEGER, told INTEGER NOT NULL,
    envelope BLOB NOT NULL, certificate TEXT NOT NULL, crcs BLOB NOT NULL
);
CREATE INDEX upload_kept ON upload (kept, priority);
CREATE TABLE recording (
    recording TEXT, file_class TEXT, next INTEGER NOT NULL, prev TEXT NOT NULL, boot TEXT NOT NULL,
    end_ms INTEGER NOT NULL, cause TEXT NOT NULL, PRIMARY KEY (file_class, recording)
);
CREATE TABLE receipt (counter INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_ROW: Final = (
    "upload, file_class, name, inode, size, mtime_ns, sha256, chunk_bytes, priority, recording, number, kept,"
    " storage_class, receipted_ms"
)


def _row(found: Sequence[object]) -> Row:
    row = Row(*found)  # type: ignore[arg-type]
    return row._replace(
        priority=Priority(row.priority),
        kept=Kept(row.kept),
        storage_class=None if row.storage_class is None else StorageClass(row.storage_class),
    )


class SqliteOutbox:
    """Calls come one after the other."""

    def __init__(self, path: Path, failpoint: Failpoint | None = None) -> None:
        """Open *path*, or make it; a damaged one is set aside: its files are sealed again, as new ones.

        Raises:
            OutboxError: it cannot be opened.
        """
        self._path = path
        self._failpoint = failpoint or (lambda _step: None)
        self.aside = ""
        try:
            try:
                self._db = self._opened()
            except (sqlite3.DatabaseError, ValueError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self.aside = set_aside(path)
                self._db = self._opened()
        except (sqlite3.Error, OSError) as error:
            raise OutboxError(str(error)) from error
        self._set_room_aside()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                db.executescript(_SCHEMA)
            marks = (
                db.execute("PRAGMA application_id").fetchone()[0],
                db.execute("PRAGMA user_version").fetchone()[0],
            )
            if marks != (APPLICATION_ID, SCHEMA_VERSION):
                raise ValueError(  # noqa: TRY301  # as with any other damage
                    f"expected an outbox of version {SCHEMA_VERSION}, got {marks[0]:#x} {marks[1]}"
                )
            db.execute(_PULLED)
        except BaseException:
            db.close()
            raise
        return db

    def _set_room_aside(self) -> None:
        path = self._path.with_name(ROOM_NAME)
        if path.exists():
            return
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, ROOM_BYTES)
            except OSError:
                path.unlink()
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with transaction(self._db, self._failpoint):
                yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                with contextlib.suppress(OSError):
                    self._path.with_name(ROOM_NAME).unlink()  # the next try has it
            raise OutboxError(str(error)) from error

    def _rows(self, statement: str, values: Sequence[str | int] = ()) -> list[tuple[object, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise OutboxError(str(error)) from error

    def close(self) -> None:
        """End of the run."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    # Sealing ----------------------------------------------------------------------------------------------------

    def sealed(self, each: Sealed, recording: Recording | None) -> None:
        """Keep a sealed file, and how far its recording is with it. Raises OutboxError."""
        if self._count() >= ROWS_MAX:
            raise OutboxError(f"expected at most {ROWS_MAX} sealed files")
        with self._transaction():
            self._db.execute(
                f"INSERT OR REPLACE INTO upload ({_ROW}, receipt, told, envelope, certificate, crcs)"  # noqa: S608  # our own names
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,'sealed',NULL,0,NULL,0,?,?,?)",
                (
                    each.upload, each.file_class, each.name, each.inode, each.size, each.mtime_ns, each.sha256,
                    each.chunk_bytes, self._priority(each).value, each.recording, each.number,
                    each.envelope, each.certificate, each.crcs,
                ),
            )  # fmt: skip
            if recording is not None:
                self._write(each.file_class, recording)

    def _priority(self, each: Sealed) -> Priority:
        """Higher than its class says, if somebody asked for its recording."""
        asked = each.recording and self._rows("SELECT 1 FROM pulled WHERE recording = ?", (each.recording,))
        return outbox.pulled(each.priority) if asked else each.priority

    def opened(self, file_class: str, recording: Recording) -> None:
        """A recording began. Raises OutboxError."""
        with self._transaction():
            self._write(file_class, recording)

    def _write(self, file_class: str, recording: Recording) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO recording VALUES (?,?,?,?,?,?,?)",
            (
                recording.recording, file_class, recording.next, recording.prev, recording.boot, recording.end_ms,
                recording.trigger,
            ),
        )  # fmt: skip
        self._db.execute(
            "DELETE FROM recording WHERE rowid IN"
            " (SELECT rowid FROM recording ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
            (RECORDINGS_MAX,),
        )

    def closed(self, file_class: str, recording: str) -> None:
        """Nothing more comes of it. Raises OutboxError."""
        with self._transaction():
            self._db.execute("DELETE FROM recording WHERE file_class = ? AND recording = ?", (file_class, recording))
            self._db.execute("DELETE FROM pulled WHERE recording = ?", (recording,))

    def recordings(self, file_class: str) -> dict[str, Recording]:
        """Those that are open."""
        found = self._rows(
            "SELECT recording, next, prev, boot, end_ms, cause FROM recording WHERE file_class = ?", (file_class,)
        )
        return {str(row[0]): Recording(*row) for row in found}  # type: ignore[arg-type]

    def has_segments(self, file_class: str, recording: str) -> bool:
        """Whether anything of it is sealed and still here."""
        values = (file_class, recording)
        return bool(self._rows("SELECT 1 FROM upload WHERE file_class = ? AND recording = ? LIMIT 1", values))

    def known(self, file_class: str) -> set[tuple[str, int]]:
        """Name and inode of every file that is sealed."""
        found = self._rows("SELECT name, inode FROM upload WHERE file_class = ?", (file_class,))
        return {(str(name), int(str(inode))) for name, inode in found}

    def untold(self) -> list[Row]:
        """Sealed, and maybe not yet in the journal."""
        return [_row(row) for row in self._rows(f"SELECT {_ROW} FROM upload WHERE told = 0 LIMIT 100")]  # noqa: S608

    def told(self, uploads: Iterable[str]) -> None:
        """They are in the journal. Raises OutboxError."""
        with self._transaction():
            self._db.executemany("UPDATE upload SET told = 1 WHERE upload = ?", [(upload,) for upload in uploads])

    # Sending ----------------------------------------------------------------------------------------------------

    def waiting(self, priority: Priority, apart_from: Collection[str], count: int) -> list[Row]:
        """The oldest without a receipt."""
        marks = ",".join("?" * len(apart_from))
        return [
            _row(row)
            for row in self._rows(
                f"SELECT {_ROW} FROM upload WHERE kept = 'sealed' AND priority = ? AND upload NOT IN ({marks})"  # noqa: S608
                " ORDER BY rowid LIMIT ?",
                (priority.value, *apart_from, count),
            )
        ]

    def pull(self, name: str) -> list[Row] | None:
        """What is sealed of the recording or upload *name* and has no receipt is flagged, and so is what comes of a
        recording that goes on. Returns it; None: nothing is known of it. Raises OutboxError.
        """
        where = "WHERE (recording = ? OR upload = ?)"
        known = self._rows(f"SELECT 1 FROM upload {where} LIMIT 1", (name, name))  # noqa: S608
        goes_on = self._rows("SELECT 1 FROM recording WHERE recording = ?", (name,))
        if not known and not goes_on:
            return None
        with self._transaction():
            for priority in Priority:
                values = (outbox.pulled(priority).value, name, name, priority.value)
                self._db.execute(f"UPDATE upload SET priority = ? {where} AND priority = ?", values)  # noqa: S608
            if goes_on:
                self._db.execute("INSERT OR REPLACE INTO pulled VALUES (?)", (name,))
                self._db.execute(
                    "DELETE FROM pulled WHERE rowid IN"
                    " (SELECT rowid FROM pulled ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
                    (PULLED_MAX,),
                )
        rows = self._rows(f"SELECT {_ROW} FROM upload {where} AND kept = 'sealed'", (name, name))  # noqa: S608
        return [_row(row) for row in rows]

    def has_evidence(self) -> bool:
        """Whether anything but logs waits for a receipt."""
        values = (Priority.LOG.value,)
        return bool(self._rows("SELECT 1 FROM upload WHERE kept = 'sealed' AND priority != ? LIMIT 1", values))

    def below(self, wanted: StorageClass, file_class: str, *, before_ms: int, count: int) -> list[Row]:
        """Receipted before *before_ms*, and not of the class that is *wanted* for this file class."""
        enough = outbox.enough(wanted)
        marks = ",".join("?" * len(enough))
        return [
            _row(row)
            for row in self._rows(
                f"SELECT {_ROW} FROM upload WHERE kept = 'receipted' AND file_class = ? AND receipted_ms < ?"  # noqa: S608
                f" AND storage_class NOT IN ({marks}) ORDER BY receipted_ms LIMIT ?",
                (file_class, before_ms, *(each.value for each in enough), count),
            )
        ]

    def get(self, upload: str) -> Row | None:
        """One of them."""
        found = self._rows(f"SELECT {_ROW} FROM upload WHERE upload = ?", (upload,))  # noqa: S608
        return _row(found[0]) if found else None

    def offer(self, upload: str) -> tuple[bytes, str] | None:
        """Envelope and certificate."""
        found = self._rows("SELECT envelope, certificate FROM upload WHERE upload = ?", (upload,))
        return (bytes(found[0][0]), str(found[0][1])) if found else None  # type: ignore[call-overload]

    def crc(self, upload: str, number: int) -> bytes:
        """Of one chunk, 4 bytes; none if it is not known."""
        found = self._rows("SELECT substr(crcs, ?, 4) FROM upload WHERE upload = ?", (4 * number + 1, upload))
        return bytes(found[0][0]) if found else b""  # type: ignore[call-overload]

    def backlog(self) -> tuple[int, int]:
        """Files and bytes without a receipt."""
        found = self._rows("SELECT count(*), coalesce(sum(size), 0) FROM upload WHERE kept = 'sealed'")
        return int(str(found[0][0])), int(str(found[0][1]))

    def _count(self) -> int:
        return int(str(self._rows("SELECT count(*) FROM upload")[0][0]))

    # What becomes of it -----------------------------------------------------------------------------------------

    def receipted(self, receipts: Iterable[Receipted], *, at_ms: int, counter: int, envelope: bytes) -> list[Row]:
        """Take an authentic receipt; returns what it covers, as it was before. One that does not match the file that
        was sealed, or is of a lower class than there is, changes nothing. Raises OutboxError.
        """
        out: list[Row] = []
        with self._transaction():
            for each in receipts:
                found = self._db.execute(f"SELECT {_ROW} FROM upload WHERE upload = ?", (each.upload,)).fetchone()  # noqa: S608
                row = None if found is None else _row(found)
                if row is None or (row.sha256, row.size) != (each.sha256, each.size):
                    continue
                lower = row.storage_class is not None and not outbox.suffices(each.storage_class, row.storage_class)
                if lower or row.kept not in {Kept.SEALED, Kept.RECEIPTED}:
                    continue
                # the hold begins with the first receipt
                self._db.execute(
                    "UPDATE upload SET kept = 'receipted', storage_class = ?, receipt = ?,"
                    " receipted_ms = CASE WHEN kept = 'receipted' THEN receipted_ms ELSE ? END WHERE upload = ?",
                    (each.storage_class.value, counter, at_ms, each.upload),
                )
                out.append(row)
            if out:
                self._db.execute("INSERT OR REPLACE INTO receipt VALUES (?, ?)", (counter, envelope))
                self._forget_receipts()
            self._failpoint("receipted")
        return out

    def _forget_receipts(self) -> None:
        """Proofs of which no file is left."""
        self._db.execute(
            "DELETE FROM receipt WHERE counter NOT IN (SELECT receipt FROM upload WHERE receipt NOT NULL)"
        )

    def offer_again(self) -> None:
        """The server's store is another one: what is still here is offered again. Raises OutboxError."""
        with self._transaction():
            self._db.execute("UPDATE upload SET kept = 'sealed', storage_class = NULL WHERE kept = 'receipted'")

    def becomes(self, upload: str, kept: Kept) -> None:
        """Raises OutboxError."""
        with self._transaction():
            self._db.execute("UPDATE upload SET kept = ? WHERE upload = ?", (kept.value, upload))

    def deleting(self) -> list[Row]:
        """What was decided and not done."""
        return [_row(row) for row in self._rows(f"SELECT {_ROW} FROM upload WHERE kept = 'deleting' LIMIT 100")]  # noqa: S608

    def receipted_of(self, file_class: str, wanted: StorageClass, count: int) -> list[Row]:
        """Those of a sufficient class, the oldest receipt first."""
        enough = outbox.enough(wanted)
        marks = ",".join("?" * len(enough))
        return [
            _row(row)
            for row in self._rows(
                f"SELECT {_ROW} FROM upload WHERE kept = 'receipted' AND file_class = ?"  # noqa: S608
                f" AND storage_class IN ({marks}) ORDER BY receipted_ms LIMIT ?",
                (file_class, *(each.value for each in enough), count),
            )
        ]

    def bytes_here(self) -> int:
        """Of all sealed files whose deletion was not decided."""
        return int(str(self._rows("SELECT coalesce(sum(size), 0) FROM upload WHERE kept != 'deleting'")[0][0]))

    def deleted(self, upload: str) -> None:
        """The file is gone: so is all that is known of it. Raises OutboxError."""
        with self._transaction():
            self._db.execute("DELETE FROM upload WHERE upload = ?", (upload,))
            self._forget_receipts()
        self._set_room_aside()
