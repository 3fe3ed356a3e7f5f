"""The batch store in one SQLite file: an append-only log of commits, sealed in the background into columns.

One file has one writer at a time, whatever its shards are, because ledger, newest values and the places of unsealed
records are in that process's memory: a lease of any range keeps every other owner out.

``commit`` and the lease belong to one thread, ``seal`` to the same or another one; the rest to any.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from broker_config import ranges
from broker_config.ranges import Range, Ranges
from broker_config.telemetry import Batch
from fleet_server.adapters import sqlite_query
from fleet_server.adapters import sqlite_schema as schema
from fleet_server.adapters.sqlite_access import Access, Failpoint, nothing
from fleet_server.adapters.sqlite_backup import backup, restore_backup, set_aside
from fleet_server.adapters.sqlite_feed import SqliteFeed
from fleet_server.adapters.sqlite_index import PLACE_BITS, RECORDS_IN_COMMIT_MAX, Index
from fleet_server.adapters.sqlite_log import LogRow, compressor, pack, record_if_read, unpack
from fleet_server.adapters.sqlite_part import HOURS_A_DAY
from fleet_server.adapters.sqlite_seal import Sealer
from fleet_server.telemetry.store import (
    NO_TIME,
    EventFact,
    FencedError,
    Gone,
    Group,
    Latest,
    LeaseHeldError,
    LedgerRow,
    QuarantineRow,
    Restored,
    Series,
    Silence,
    StatusSeen,
    StreamKey,
    Unsealed,
)

_HELD: Final = msgspec.json.Decoder(tuple[tuple[int, int], ...])
_ROW: Final = msgspec.json.Decoder(list[float | None])
DAY_MS: Final = 86_400_000

__all__ = ["SqliteStore", "restore_backup", "set_aside"]


class SqliteStore:
    """The port :class:`fleet_server.telemetry.store.BatchStore`."""

    def __init__(self, path: Path, *, now_ms: int, failpoint: Failpoint = nothing) -> None:
        """Open or create. Raises StoreError: not a batch store, of a newer version, or not to be opened."""
        self.store_epoch = schema.create_or_check(path, now_ms=now_ms)
        self._access = Access(path, failpoint)
        self._index = Index()
        self._compress = compressor().compress
        self._token: int | None = None
        self.feed = SqliteFeed(self._access, self._index, self._own_token)
        self._sealer = Sealer(self._access, self._index, self.feed.heard_ms)
        self._log_id = 0

    # the lease

    def take_lease(self, owner: str, *, first: int, last: int, now_ms: int, ttl_ms: int) -> int:
        """See the port. The same owner may take it again at once, and fences itself."""
        with self._access.writing(None) as connection:
            held = connection.execute("SELECT owner, until_ms FROM lease").fetchone()
            if held is not None and held[0] != owner and held[1] > now_ms:
                raise LeaseHeldError(held[0], held[1])
            token = schema.meta(connection, "token") + 1
            schema.set_meta(connection, "token", token)
            connection.execute(
                "INSERT OR REPLACE INTO lease VALUES(1, ?, ?, ?, ?, ?)", (token, owner, first, last, now_ms + ttl_ms)
            )
        self._token = token
        return token

    def renew_lease(self, *, token: int, now_ms: int, ttl_ms: int) -> None:
        """See the port."""
        with self._access.writing(token) as connection:
            connection.execute("UPDATE lease SET until_ms = ?", (now_ms + ttl_ms,))

    def drop_lease(self, *, token: int) -> None:
        """See the port."""
        with self._access.writing(None) as connection:
            connection.execute("DELETE FROM lease WHERE token = ?", (token,))

    # writing

    def commit(self, group: Group, *, token: int) -> None:
        """See the port."""
        records, offsets = len(group.payloads), group.boots
        assert len(group.streams) == len(group.keys) == len(group.newest_ms) == records < RECORDS_IN_COMMIT_MAX
        body = self._compress(_packed(group)) if records else b""
        log_id = self._log_id + 1
        access = self._access
        access.failpoint("commit.begin")
        with access.writing(token) as connection:
            if records:
                connection.execute("INSERT INTO log VALUES(?, ?, ?, ?)", (log_id, group.at_ms, records, body))
            if offsets:
                connection.executemany(
                    "INSERT OR IGNORE INTO boot_offset VALUES(?, ?, ?, ?)",
                    [(device, boot, offset_ms, group.at_ms) for (device, boot), offset_ms in offsets.items()],
                )
            _insert_facts(connection, group)
            access.failpoint("commit.inserted")
        access.failpoint("commit.done")
        if offsets:
            self._index.add_offsets((device, boot, offset_ms) for (device, boot), offset_ms in offsets.items())
        if records:
            self._log_id = log_id
            self._index.add(log_id, group)

    def seal(self, *, records_max: int, now_ms: int) -> Sequence[tuple[StreamKey, Ranges]]:
        """See the port. Fenced by the token that this store took last; merges hours that are over as well."""
        return self._sealer.seal(records_max=records_max, now_ms=now_ms, token=self._own_token())

    def parts(self) -> int:
        """Rows of ``chunk``; one for each stream and hour once everything is merged."""
        with self._access.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM chunk").fetchone()[0]
        return count

    def drop_before(self, day: int) -> int:
        """Forget what is older than *day* (since the epoch, UTC); the numbers stay in the ledger.

        Returns:
            How many parts went.
        """
        before_ms = day * DAY_MS
        with self._access.writing(self._own_token()) as connection:
            dropped = connection.execute("DELETE FROM chunk WHERE day < ?", (day,)).rowcount
            connection.execute("DELETE FROM remapped WHERE day < ?", (day,))
            connection.execute("DELETE FROM event WHERE at_ms < ?", (before_ms,))
            connection.execute("DELETE FROM silence WHERE to_ms < ?", (before_ms,))
            connection.execute("DELETE FROM stale WHERE hour < ?", (day * HOURS_A_DAY,))
            connection.execute("DELETE FROM unsettled WHERE hour < ?", (day * HOURS_A_DAY,))
            # the next batch of a boot that still runs tells it again
            boots = connection.execute(
                "SELECT device, boot FROM boot_offset b WHERE seen_ms < ? AND NOT EXISTS"
                " (SELECT 1 FROM unmapped u WHERE u.device = b.device AND u.boot = b.boot)",
                (before_ms,),
            ).fetchall()
            connection.executemany("DELETE FROM boot_offset WHERE device = ? AND boot = ?", boots)
        self._index.drop_offsets(boots)
        return dropped

    @property
    def unsealed_records(self) -> int:
        """Records that are in the log and not yet in chunks."""
        return self._index.unsealed_records

    # at start

    def restore(self) -> Restored:
        """See the port. A quarantined message that was replayed is no longer among ``quarantined``."""
        with self._access.reading() as connection:
            ledger = [
                LedgerRow(StreamKey(*row[:3]), _HELD.decode(row[3]), *row[4:])
                for row in connection.execute("SELECT * FROM ledger")
            ]
            quarantined = connection.execute(
                "SELECT device, key, crc32 FROM quarantine WHERE key IS NOT NULL AND replayed_ms IS NULL"
            ).fetchall()
            bytes_total = connection.execute("SELECT ifnull(sum(length(payload)), 0) FROM quarantine").fetchone()[0]
            statuses = [StatusSeen(*row) for row in connection.execute("SELECT * FROM status")]
            gone = _read_gone(connection)
            sealed_up_to = schema.meta(connection, "sealed_up_to")
            self._index.add_offsets(connection.execute("SELECT device, boot, offset_ms FROM boot_offset"))
            shapes = sqlite_query.shapes(connection)
            for device, stream, at_ms, known, received_ms, shape, text in connection.execute("SELECT * FROM latest"):
                tail, rank = self._index.tail(device, stream), at_ms if known else NO_TIME
                tail.set_newest(rank, at_ms, received_ms, shapes[shape], _ROW.decode(text))
            last_id = connection.execute("SELECT max(id) FROM log").fetchone()[0] or 0
            self._index_log(connection, sealed_up_to)
        self._log_id = max(last_id, sealed_up_to)
        return Restored(
            store_epoch=self.store_epoch,
            ledger=ledger,
            unsealed=self._unsealed(sealed_up_to, self._log_id),
            quarantined=quarantined,
            gone=gone,
            statuses=statuses,
            quarantine_bytes=bytes_total,
        )

    def _index_log(self, connection: sqlite3.Connection, sealed_up_to: int) -> None:
        """Rebuild what commits after the last seal had put into memory; decodes only what may be newest."""
        best: dict[tuple[str, str], tuple[int, int, bytes]] = {}
        unset: list[tuple[str, int, bytes]] = []
        rows = connection.execute("SELECT id, at_ms, body FROM log WHERE id > ? ORDER BY id", (sealed_up_to,))
        for log_id, at_ms, body in rows:
            row = unpack(body)
            places: list[tuple[str, str, int]] = []
            for place, (device, key, newest_ms) in enumerate(zip(row.devices, row.keys, row.newest_ms, strict=True)):
                stream = key.partition("/")[0]
                places.append((device, stream, (log_id << PLACE_BITS) + place))
                if newest_ms == NO_TIME:
                    unset.append((device, at_ms, row.payload(place)))
                elif (device, stream) not in best or newest_ms >= best[device, stream][0]:
                    best[device, stream] = (newest_ms, at_ms, row.payload(place))
            self._index.add_places(places, len(row))
        found = [(device, at_ms, payload) for (device, _), (_, at_ms, payload) in best.items()]
        for device, at_ms, payload in (*found, *unset):
            record = record_if_read(payload)
            if isinstance(record, Batch):
                self._index.note(device, record, at_ms)

    def _unsealed(self, after_id: int, up_to_id: int) -> Iterator[Unsealed]:
        # a connection of its own: the caller may take its time
        try:
            with closing(schema.connect(self._access.path)) as connection:
                rows = connection.execute(
                    "SELECT at_ms, body FROM log WHERE id > ? AND id <= ? ORDER BY id", (after_id, up_to_id)
                )
                for at_ms, body in rows:
                    row: LogRow = unpack(body)
                    yield Unsealed(at_ms, row.devices, row.keys, [row.payload(place) for place in range(len(row))])
        except sqlite3.Error as error:
            raise schema.translated(error) from error

    # reading

    def latest(self, device: str | None = None) -> list[Latest]:
        """See the port."""
        return self._index.latest(device)

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        """See the port. Buckets without rows are left out; where they are a minute or wider they begin on one."""
        key = (device, stream)
        return sqlite_query.series(self._access, self._index, key, from_ms=from_ms, to_ms=to_ms, points=points)

    def journal(self, device: str, life: str, *, first: int, last: int) -> list[tuple[int, bytes]]:
        """See the port."""
        return sqlite_query.journal(self._access, device, life, first=first, last=last)

    def sealed_crc(self, key: StreamKey, seq: int, t0_ms: int) -> int | None:
        """See the port. What retention dropped is not there any more either."""
        return sqlite_query.sealed_crc(self._access, key, seq, t0_ms)

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        """See the port."""
        with self._access.reading() as connection:
            rows = connection.execute(
                "SELECT device, stream, life, seq, place, at_ms, boot, mono, kind, data_json FROM event"
                " WHERE device = ? AND at_ms >= ? AND at_ms < ? ORDER BY at_ms, stream, life, seq, place LIMIT ?",
                (device, from_ms, to_ms, rows_max),
            ).fetchall()
        return [EventFact(StreamKey(*row[:3]), *row[3:]) for row in rows]

    def silences(self, device: str | None, *, from_ms: int, to_ms: int, rows_max: int) -> list[Silence]:
        """See the port."""
        one = "device = ? AND" if device is not None else ""
        with self._access.reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM silence WHERE {one} to_ms >= ? AND from_ms < ?"  # noqa: S608  # a constant
                " ORDER BY from_ms, device, stream, life, seq LIMIT ?",
                (*([device] if device is not None else []), from_ms, to_ms, rows_max),
            ).fetchall()
        return [Silence(StreamKey(*row[:3]), *row[3:]) for row in rows]

    def quarantine(self, *, after_id: int, rows_max: int) -> list[QuarantineRow]:
        """See the port. A replayed row's payload is empty: the log has it by then."""
        with self._access.reading() as connection:
            rows = connection.execute(
                "SELECT id, at_ms, device, channel, key, reason, detail, content_type, payload, replayed_ms"
                " FROM quarantine WHERE id > ? ORDER BY id LIMIT ?",
                (after_id, rows_max),
            ).fetchall()
        return [QuarantineRow(*row) for row in rows]

    def replayed(self, row_id: int, now_ms: int) -> None:
        """See the port; call after the commit that stored it, with no harm twice.

        The row stays as a trace; its bytes are in the log by now and count for the quarantine no longer.

        Raises:
            KeyError: there is no such row.
        """
        with self._access.writing(self._own_token()) as connection:
            marked = connection.execute(
                "UPDATE quarantine SET replayed_ms = ifnull(replayed_ms, ?), payload = x'' WHERE id = ?",
                (now_ms, row_id),
            )
            if not marked.rowcount:
                raise KeyError(row_id)

    def backup(self, path: Path) -> None:
        """See :func:`fleet_server.adapters.sqlite_backup.backup`; writing goes on meanwhile."""
        backup(self._access.path, path)

    def _own_token(self) -> int:
        if self._token is None:
            raise FencedError("expected a lease taken through this store, got none")
        return self._token

    def close(self) -> None:
        """Let go of the file; the lease stays until it runs out."""
        self._access.close()


def _packed(group: Group) -> bytes:
    return pack([device for device, _ in group.streams], group.keys, group.payloads, group.newest_ms)


def _insert_facts(connection: sqlite3.Connection, group: Group) -> None:
    if group.statuses:
        connection.executemany("INSERT OR REPLACE INTO status VALUES(?, ?, ?)", group.statuses)
    if group.events:
        connection.executemany(
            "INSERT OR REPLACE INTO event VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*(key.device, at_ms, key.stream, key.life), seq, place, boot, mono, kind, data_json)
                for key, seq, place, at_ms, boot, mono, kind, data_json in group.events
            ],
        )
    if group.silences:
        connection.executemany(
            "INSERT OR REPLACE INTO silence VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*silence.key, *silence[1:]) for silence in group.silences],
        )
    if group.gone:
        connection.executemany(
            "INSERT OR IGNORE INTO gone VALUES(?, ?, ?, ?, ?)",
            [(*gone.key, low, high) for gone in group.gone for low, high in gone.ranges],
        )
    if group.quarantined:
        connection.executemany(
            "INSERT INTO quarantine(at_ms, device, channel, key, reason, detail, content_type, crc32, payload)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*(group.at_ms, row.device, row.channel, row.key, str(row.reason), row.detail, row.content_type),
                 zlib.crc32(row.payload), row.payload)
                for row in group.quarantined
            ],
        )  # fmt: skip


def _read_gone(connection: sqlite3.Connection) -> list[Gone]:
    found: dict[StreamKey, list[Range]] = {}
    for device, stream, life, low, high in connection.execute("SELECT * FROM gone"):
        found.setdefault(StreamKey(device, stream, life), []).append((low, high))
    return [Gone(key, ranges.normal(rows)) for key, rows in found.items()]
