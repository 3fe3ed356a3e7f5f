"""The spool in one SQLite file: write-ahead log, synchronous FULL, a small cache.

Layout: ``batch.id`` is ``place * 2**40 + seq``, so that a stream's batches lie together in the order of their
numbers and need no index; ``ledger.state`` is a :class:`~edge_agent.spool.Ledger` as JSON, ``place`` the order in
which they were made.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from broker_config import limits, telemetry
from broker_config.device_classes import SpoolClass
from broker_config.messages import Receipt
from broker_config.ranges import count
from broker_config.telemetry import CONTENT_JSON, CONTENT_ZLIB, JOURNAL, Key
from edge_agent import spool
from edge_agent.adapters.transaction import Failpoint, transaction
from edge_agent.spool import (
    CorruptSpoolError,
    Draft,
    Head,
    Ledger,
    Marked,
    SpoolError,
    SpoolFullError,
    Stored,
)

APPLICATION_ID: Final = 0x66664673  # "ffFs"
SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 1024
"""Small pages: a transaction of four short batches touches five, and flash wears by the page."""
CACHE_KIB: Final = 128
WAL_PAGES_MAX: Final = 1_000
"""The write-ahead log is moved into the file when it is this long."""
BUSY_S: Final = 2.0
SEQ_BITS: Final = 40
ROW_BYTES: Final = 64
"""What a batch takes beside its payload."""
TRIM_BATCHES_MAX: Final = 500
"""Dropped for age in one transaction."""

_CONTENT: Final = (CONTENT_JSON, CONTENT_ZLIB)
_FULL: Final = frozenset(  # of these a disk may heal
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
)
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE ledger (place INTEGER PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE batch (
    id INTEGER PRIMARY KEY, position INTEGER NOT NULL, content INTEGER NOT NULL, payload BLOB NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    """Turn SQLite's errors into the spool's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPT:
            raise CorruptSpoolError(str(error)) from error
        if code in _FULL:
            raise SpoolFullError(str(error)) from error
        raise SpoolError(f"{type(error).__name__}: {error}") from error
    except msgspec.MsgspecError as error:
        raise CorruptSpoolError(f"a ledger cannot be read: {error}") from error


class SqliteSpool:
    """See :class:`edge_agent.spool.Spool`. ``clean``: the run before closed it."""

    def __init__(
        self,
        path: Path,
        *,
        streams: Mapping[str, SpoolClass],
        bytes_max: int,
        new_life: str,
        failpoint: Failpoint | None = None,
    ) -> None:
        """Open *path*, or make it with *new_life*.

        Raises:
            SpoolFullError, CorruptSpoolError, SpoolError: it is as it was.
        """
        self._streams = streams
        self._bytes_max = bytes_max
        self._failpoint = failpoint or (lambda _step: None)
        self._dirty = False
        with _ours():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
            try:
                self._open(new_life)
            except BaseException:
                self._db.close()
                raise

    def _open(self, new_life: str) -> None:
        run = self._db.execute
        run(f"PRAGMA page_size = {PAGE_BYTES}")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA cache_size = -{CACHE_KIB}")
        run(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
        tables = run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        self.made_anew = tables == 0
        if self.made_anew:
            self._db.executescript(_SCHEMA)
        marks = (run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0])
        if marks != (APPLICATION_ID, SCHEMA_VERSION):
            raise CorruptSpoolError(f"expected a spool of version {SCHEMA_VERSION}, got {marks[0]:#x} {marks[1]}")
        self._ledgers: dict[int, Ledger] = {
            place: msgspec.json.decode(state, type=Ledger)
            for place, state in run("SELECT place, state FROM ledger ORDER BY place")
        }
        meta = dict(run("SELECT name, value FROM meta").fetchall())
        self._life = str(meta.get("life", new_life))
        self._store_epoch = int(meta.get("store_epoch", 0))
        self.floor_ms = int(meta.get("floor_ms", 0))
        self.clean = self.made_anew or bool(meta.get("clean", 0))
        with self._transaction():
            self._set("life", self._life)
            self._set("clean", 0)
            self._begin_streams()

    def _begin_streams(self) -> None:
        """A ledger for each stream that has none, so that the first birth names them all."""
        have = {ledger.stream for ledger in self._ledgers.values() if ledger.current}
        for stream in self._streams:
            if stream not in have:
                self._add(self._ledgers, Ledger(stream, self._life))
        self._write(self._ledgers)

    @staticmethod
    def _add(ledgers: dict[int, Ledger], ledger: Ledger) -> int:
        place = max(ledgers, default=0) + 1
        ledgers[place] = ledger
        return place

    def _set(self, name: str, value: str | int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _write(self, ledgers: Mapping[int, Ledger]) -> None:
        for place, ledger in ledgers.items():
            self._db.execute("INSERT OR REPLACE INTO ledger VALUES (?, ?)", (place, msgspec.json.encode(ledger)))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; durable when it is left."""
        self._failpoint("begin")
        with transaction(self._db, self._failpoint):
            yield

    def store(self, drafts: Sequence[Draft], *, dropped: Mapping[str, int]) -> Stored:
        """See the port."""
        ledgers = dict(self._ledgers)
        keys: list[Key] = []
        evicted: dict[str, int] = {}
        with _ours(), self._transaction():
            for stream, number in dropped.items():
                place = self._place(ledgers, stream)
                ledgers[place] = spool.drop_unstored(ledgers[place], number)
                evicted[stream] = evicted.get(stream, 0) + number
            keys.extend(self._insert(ledgers, draft, evicted) for draft in drafts)
            self._write(
                {place: row for place, row in ledgers.items() if self._dirty or row != self._ledgers.get(place)}
            )
        self._ledgers = ledgers
        self._dirty = False
        return Stored(tuple(keys), evicted)

    def _place(self, ledgers: dict[int, Ledger], stream: str) -> int:
        for place, ledger in ledgers.items():
            if ledger.current and ledger.stream == stream:
                return place
        return self._add(ledgers, Ledger(stream, self._life))

    def _insert(self, ledgers: dict[int, Ledger], draft: Draft, evicted: dict[str, int]) -> Key:
        place = self._place(ledgers, draft.stream)
        ledger = ledgers[place]
        seq = ledger.last + 1
        payload, content_type = telemetry.encode(draft.numbered(ledger.life, seq, ledger.tip))
        size = len(payload) + ROW_BYTES
        self._make_room(ledgers, size, evicted)
        position = max(row.order for row in ledgers.values()) + 1
        self._failpoint("insert")
        self._db.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?)",
            (place << SEQ_BITS | seq, position, _CONTENT.index(content_type), payload),
        )
        ledgers[place] = msgspec.structs.replace(
            ledgers[place],
            last=seq,
            order=position,
            bytes=ledgers[place].bytes + size,
            tip=hashlib.sha256(payload).hexdigest() if draft.stream == JOURNAL else ledger.tip,
        )
        return Key(ledger.stream, ledger.life, seq)

    def _make_room(self, ledgers: dict[int, Ledger], size: int, evicted: dict[str, int]) -> None:
        """Evict until *size* more bytes are within the quota, or nothing is left to evict."""
        while sum(row.bytes for row in ledgers.values()) + size > self._bytes_max:
            by_head: dict[Head, int] = {}
            for place, ledger in ledgers.items():
                spool_class = self._streams.get(ledger.stream, SpoolClass.NORMAL)
                for head in spool.heads(ledger, spool_class):
                    by_head[head._replace(order=self._position(place, head.seq))] = place
            head_out = spool.next_eviction(by_head)
            if head_out is None:
                return
            place = by_head[head_out]
            ledgers[place] = spool.evict(ledgers[place], head_out.seq, self._delete(place, head_out.seq))
            if not head_out.receipted:
                evicted[head_out.stream] = evicted.get(head_out.stream, 0) + 1

    def _position(self, place: int, seq: int) -> int:
        row = self._db.execute("SELECT position FROM batch WHERE id = ?", (place << SEQ_BITS | seq,)).fetchone()
        if row is None:
            raise CorruptSpoolError(f"batch {seq} of ledger {place} is not there")
        return int(row[0])

    def _delete(self, place: int, seq: int) -> int:
        """Returns the bytes that it took."""
        key = (place << SEQ_BITS | seq,)
        row = self._db.execute("SELECT length(payload) FROM batch WHERE id = ?", key).fetchone()
        self._failpoint("evict")
        self._db.execute("DELETE FROM batch WHERE id = ?", key)
        return 0 if row is None else int(row[0]) + ROW_BYTES

    def mark(self, receipt: Receipt, *, now_ms: int | None, new_life: str) -> Marked:
        """See the port."""
        if receipt.store_epoch < self._store_epoch:
            return Marked(ignored=True, epoch_raised=False, life_changed=False, unheld=False)
        place = next(
            (p for p, row in self._ledgers.items() if row.stream == receipt.stream and row.life == receipt.life), None
        )
        known = self._store_epoch > 0
        raised = receipt.store_epoch > self._store_epoch
        ledgers = dict(self._ledgers)
        if raised:
            ledgers = {p: spool.forget_receipts(row) for p, row in ledgers.items()}
        changed = unheld = False
        if place is not None:
            ledgers[place] = spool.apply_receipt(ledgers[place], receipt, now_ms)
            unheld = bool(spool.unheld(ledgers[place], receipt.missing))
            changed = bool(receipt.conflict) and ledgers[place].current
            if changed:
                ledgers[place] = msgspec.structs.replace(ledgers[place], current=False)
                self._add(ledgers, Ledger(receipt.stream, new_life))
        finished = [p for p, row in ledgers.items() if spool.finished(row)]
        for p in finished[: max(0, len(ledgers) - limits.STREAMS_MAX)]:
            del ledgers[p]
        if raised or changed or len(ledgers) < len(self._ledgers):
            with _ours(), self._transaction():
                self._set("store_epoch", receipt.store_epoch)
                self._write(ledgers)
                for p in self._ledgers.keys() - ledgers.keys():
                    self._db.execute("DELETE FROM ledger WHERE place = ?", (p,))
            self._store_epoch = receipt.store_epoch
            self._dirty = False
        elif ledgers != self._ledgers:
            self._dirty = True
        self._ledgers = ledgers
        return Marked(ignored=place is None, epoch_raised=raised and known, life_changed=changed, unheld=unheld)

    def flush(self, *, floor_ms: int) -> None:
        """See the port."""
        if not self._dirty and floor_ms == self.floor_ms:
            return
        with _ours(), self._transaction():
            self._write(self._ledgers)
            self._set("floor_ms", floor_ms)
        self.floor_ms = floor_ms
        self._dirty = False

    def trim(self, *, now_ms: int, hold_ms: int) -> int:
        """See the port."""
        ledgers = dict(self._ledgers)
        trimmed = 0
        due = {p: spool.held_long_enough(row, now_ms=now_ms, hold_ms=hold_ms) for p, row in ledgers.items()}
        if not any(due.values()):
            return 0
        with _ours(), self._transaction():
            for place, ranges in due.items():
                for low, high in ranges:
                    for seq in range(low, min(high, low + TRIM_BATCHES_MAX - trimmed - 1) + 1):
                        ledgers[place] = spool.evict(ledgers[place], seq, self._delete(place, seq))
                        trimmed += 1
            self._write(ledgers)
        self._ledgers = ledgers
        self._dirty = False
        return trimmed

    def read(self, key: Key) -> tuple[bytes, str] | None:
        """See the port."""
        for place, row in self._ledgers.items():
            if row.stream == key.stream and row.life == key.life:
                with _ours():
                    found = self._db.execute(
                        "SELECT payload, content FROM batch WHERE id = ?", (place << SEQ_BITS | key.seq,)
                    ).fetchone()
                return None if found is None else (bytes(found[0]), _CONTENT[found[1]])
        return None

    def ledgers(self) -> Sequence[Ledger]:
        """See the port."""
        return tuple(self._ledgers.values())

    @property
    def store_epoch(self) -> int:
        """See the port."""
        return self._store_epoch

    def close(self, *, clean: bool, floor_ms: int) -> None:
        """Write down what is only in memory, and whether this was asked for. Raises SpoolError, closed anyway."""
        try:
            with _ours(), self._transaction():
                self._write(self._ledgers)
                self._set("floor_ms", floor_ms)
                self._set("clean", int(clean))
        finally:
            self._db.close()


def read_only_ledgers(path: Path) -> tuple[list[Ledger], int]:
    """What a spool that may be in use holds, and its store epoch. Raises SpoolError."""
    with _ours(), contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.execute("PRAGMA query_only = 1")
        rows = [
            msgspec.json.decode(state, type=Ledger)
            for (state,) in db.execute("SELECT state FROM ledger ORDER BY place")
        ]
        epoch = db.execute("SELECT value FROM meta WHERE name = 'store_epoch'").fetchone()
        return rows, int(epoch[0]) if epoch else 0


def summary(ledger: Ledger) -> dict[str, str | int | bool]:
    """One stream for a person or a program."""
    return {
        "stream": ledger.stream,
        "life": ledger.life,
        "current": ledger.current,
        "last": ledger.last,
        "held": count(ledger.held),
        "waiting": count(ledger.waiting),
        "receipted": count(ledger.receipted),
        "gone": count(ledger.gone),
        "trimmed": count(ledger.trimmed),
        "bytes": ledger.bytes,
    }
