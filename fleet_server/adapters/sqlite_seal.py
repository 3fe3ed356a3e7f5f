"""Moves commits from the log into columns, and merges an hour's parts once it is over.

Both read and encode outside any transaction, and change the file in a single one: a crash repeats the work. What
a clock that nobody set has stamped waits in ``unmapped`` until its boot is known, at most UNMAPPED_WAIT_MS.

A sink that keeps up reads the log, and is waited for; what is sealed before a sink had it is stale there from the
same transaction on.
"""

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from broker_config import ranges
from broker_config.ranges import Ranges
from broker_config.telemetry import JOURNAL, BadBatchError, Batch, Reason
from fleet_server.adapters import sqlite_schema as schema
from fleet_server.adapters.sqlite_access import Access
from fleet_server.adapters.sqlite_index import Index
from fleet_server.adapters.sqlite_log import LogRow, record_if_read, record_of, unpack
from fleet_server.adapters.sqlite_part import HOUR_MS, HOURS_A_DAY, Form, Names, Part, Sealed, merged, part_of
from fleet_server.adapters.sqlite_query import shapes as shapes_of
from fleet_server.projection.feed import SINK_PATIENCE_MS
from fleet_server.telemetry.store import NO_TIME, UNSEALED_RECORDS_MAX, StreamKey

SEAL_VALUES_MAX: Final = 2_000_000
"""Readings in memory at once; a seal takes at least one commit whatever is in it."""
UNMAPPED_ROWS_MAX: Final = 2_000
"""Mapped, or given up, by one seal."""
UNMAPPED_WAIT_MS: Final = 7 * 86_400_000
"""After this long a batch of a boot that no clock ever explained is sealed under the times it told."""
HOUR_OVER_MS: Final = 15 * 60_000
"""After its end an hour's parts may still grow by what is on its way (a batch spans up to ten minutes)."""
MERGE_SETTLED_MS: Final = 10 * 60_000
"""An hour that something was added to is not merged for so long: a backlog brings more."""
MERGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Parts of one hour that are larger together stay apart."""
FREE_PAGES_SHARE: Final = 8
"""When more than one page in so many is free, some are given back."""
FREE_PAGES_MAX: Final = 2_000
"""Given back at once."""

NEVER_PROJECTED: Final = 2**62
"""Above every commit: of a place whose readings got their time only now."""
_HELD: Final = msgspec.json.Decoder(tuple[tuple[int, int], ...])

Place: TypeAlias = tuple[str, str, int]
"""Device, stream, hour since the epoch."""


@dataclass(slots=True)
class _Numbers:
    """What one seal adds to a line of the ledger, and the end of the highest batch."""

    seqs: list[int] = field(default_factory=list)
    tail: tuple[int, str, int, int, int] = (0, "", 0, 0, 0)


@dataclass(slots=True)
class _Harvest:
    """What one seal moves."""

    up_to: int
    records: int = 0
    values: int = 0
    groups: dict[Place, list[Sealed]] = field(default_factory=dict)
    newest: dict[Place, int] = field(default_factory=dict)
    """The newest commit that each place has readings of."""
    numbers: dict[StreamKey, _Numbers] = field(default_factory=dict)
    waiting: list[tuple[str, str, str, int, str, int, int, bytes]] = field(default_factory=list)
    remapped: list[tuple[str, str, str, int, int, int]] = field(default_factory=list)
    mapped_rows: list[tuple[int]] = field(default_factory=list)
    unreadable: list[tuple[int, str, str, str, int, bytes]] = field(default_factory=list)

    def place(self, device: str, one: Sealed, log_id: int) -> None:
        """Put a record where it will be sealed; *log_id*: its commit."""
        record = one.record
        hour = one.start_ms // HOUR_MS
        place = (device, record.stream, hour)
        group = self.groups.get(place)
        if group is None:
            group = self.groups[place] = []
        group.append(one)
        self.newest[place] = max(self.newest.get(place, 0), log_id)
        if isinstance(record, Batch):
            self.values += len(record.dt) * len(record.fields)
        if one.shift_ms:
            key = (device, record.stream, record.life, record.seq)
            self.remapped.append((*key, hour // HOURS_A_DAY, zlib.crc32(one.payload)))


class Sealer:
    """For one thread; commits go on meanwhile."""

    def __init__(self, access: Access, index: Index, heard_ms: Mapping[str, int]) -> None:
        """*heard_ms*: when each sink last moved or had nothing to do."""
        self._access = access
        self._index = index
        self._heard_ms = heard_ms
        self._names = Names()

    def seal(self, *, records_max: int, now_ms: int, token: int) -> Sequence[tuple[StreamKey, Ranges]]:
        """See the port."""
        harvest = self._gather(records_max, now_ms)
        if harvest.groups or harvest.numbers:
            self._store(harvest, now_ms, token)
            self._index.sealed(
                harvest.up_to, {place[:2] for place in harvest.groups} | _streams(harvest), harvest.records
            )
            self._access.forget_rows(harvest.up_to)
        self.merge(records_max=records_max, now_ms=now_ms, token=token)
        self._give_back_pages(token)
        return [(key, ranges.from_numbers(numbers.seqs)) for key, numbers in harvest.numbers.items()]

    def _gather(self, records_max: int, now_ms: int) -> _Harvest:
        with self._access.reading() as connection:
            harvest = _Harvest(up_to=schema.meta(connection, "sealed_up_to"))
            ceiling = self._ceiling(connection, now_ms)
            rows = connection.execute("SELECT id, at_ms, body FROM log WHERE id > ? ORDER BY id", (harvest.up_to,))
            for log_id, at_ms, body in rows:
                if ceiling is not None and log_id > ceiling:
                    break
                row = unpack(body)
                if harvest.records and harvest.records + len(row) > records_max:
                    break
                self._take(harvest, row, at_ms, log_id)
                harvest.up_to = log_id
                harvest.records += len(row)
                if harvest.records >= records_max or harvest.values >= SEAL_VALUES_MAX:
                    break
            rows.close()
            self._take_unmapped(harvest, connection, now_ms)
        return harvest

    def _ceiling(self, connection: sqlite3.Connection, now_ms: int) -> int | None:
        """The last commit that may be sealed: the least that is settled of the sinks that keep up."""
        if self._index.unsealed_records >= UNSEALED_RECORDS_MAX:
            return None
        sinks = connection.execute("SELECT name, settled FROM sink").fetchall()
        alive = [settled for name, settled in sinks if now_ms - self._heard_ms.get(name, NO_TIME) < SINK_PATIENCE_MS]
        return min(alive, default=None)

    def _take(self, harvest: _Harvest, row: LogRow, at_ms: int, log_id: int) -> None:
        for place, (device, text) in enumerate(zip(row.devices, row.keys, strict=True)):
            payload = row.payload(place)
            stream, life, seq_text = text.split("/")
            key = StreamKey(device, stream, life)
            numbers = harvest.numbers.get(key)
            if numbers is None:
                numbers = harvest.numbers[key] = _Numbers()
            seq = int(seq_text)
            numbers.seqs.append(seq)
            try:
                record = record_of(payload)
            except BadBatchError as error:  # admitted by an older contract: its number is held, its bytes are kept
                harvest.unreadable.append((at_ms, device, text, str(error), zlib.crc32(payload), payload))
                continue
            if seq > numbers.tail[0]:
                span = record.dt[-1]
                numbers.tail = (seq, record.boot, record.mono + span, record.t0 + span, zlib.crc32(payload))
            shift_ms = 0
            if record.clock.src == "none":
                offset_ms = self._index.offset_ms(device, record.boot)
                if offset_ms is None:
                    harvest.waiting.append((*key, seq, record.boot, at_ms, zlib.crc32(payload), payload))
                    continue
                shift_ms = record.mono + offset_ms - record.t0
            # a sink that read it earlier may not have known its time
            known = NEVER_PROJECTED if record.clock.src == "none" else log_id
            harvest.place(device, Sealed(record, payload, shift_ms), known)

    def _take_unmapped(self, harvest: _Harvest, connection: sqlite3.Connection, now_ms: int) -> None:
        found: dict[int, tuple[str, int, bytes]] = {}
        for device, boot in connection.execute("SELECT DISTINCT device, boot FROM unmapped").fetchall():
            if self._index.offset_ms(device, boot) is not None and len(found) < UNMAPPED_ROWS_MAX:
                rows = connection.execute(
                    "SELECT rowid, device, at_ms, payload FROM unmapped WHERE device = ? AND boot = ? LIMIT ?",
                    (device, boot, UNMAPPED_ROWS_MAX - len(found)),
                )
                found.update((row[0], row[1:]) for row in rows)
        rows = connection.execute(
            "SELECT rowid, device, at_ms, payload FROM unmapped WHERE at_ms <= ? LIMIT ?",
            (now_ms - UNMAPPED_WAIT_MS, UNMAPPED_ROWS_MAX),
        )
        found.update((row[0], row[1:]) for row in rows)
        for row_id, (device, at_ms, payload) in found.items():
            record = record_if_read(payload)
            if record is None:  # an older contract admitted it: it stays where it is
                continue
            offset_ms = self._index.offset_ms(device, record.boot)
            shift_ms = 0 if offset_ms is None else record.mono + offset_ms - record.t0
            harvest.place(device, Sealed(record, payload, shift_ms), NEVER_PROJECTED)
            harvest.mapped_rows.append((row_id,))
            if isinstance(record, Batch):
                self._index.note(device, record, at_ms)

    def _store(self, harvest: _Harvest, now_ms: int, token: int) -> None:
        parts = {place: part_of(sealed, over=is_over(place[2], now_ms)) for place, sealed in harvest.groups.items()}
        access = self._access
        access.failpoint("seal.encoded")
        try:
            with access.writing(token) as connection:
                number = next_part(connection)
                for (device, stream, hour), part in parts.items():
                    series = self._names.series(connection, device, stream)
                    alone = is_over(hour, now_ms) and not _parts_exist(connection, series, hour)
                    self._insert(connection, series, hour, number, part, None if alone else now_ms)
                access.failpoint("seal.inserted")
                _add_to_ledger(connection, harvest.numbers)
                self._write_latest(connection, harvest)
                _move_the_rest(connection, harvest)
                self._tell_sinks(connection, harvest, number, now_ms)
                connection.execute("DELETE FROM log WHERE id <= ?", (harvest.up_to,))
                schema.set_meta(connection, "sealed_up_to", harvest.up_to)
                access.failpoint("seal.deleted")
        except BaseException:
            self._names.forget()
            raise
        access.failpoint("seal.done")

    def _insert(
        self, connection: sqlite3.Connection, series: int, hour: int, number: int, part: Part, fresh_ms: int | None
    ) -> None:
        shape = self._names.shape(connection, part.fields)
        place = (hour // HOURS_A_DAY, series, hour, number, fresh_ms, int(part.form), shape)
        connection.execute(
            "INSERT INTO chunk VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*place, part.first_ms, part.last_ms, part.records, part.heads, part.body, part.roll),
        )

    def _write_latest(self, connection: sqlite3.Connection, harvest: _Harvest) -> None:
        rows = []
        for device, stream in {(key.device, key.stream) for key in harvest.numbers} | {p[:2] for p in harvest.groups}:
            tail = self._index.tail(device, stream).read()
            if tail.fields:
                shape = self._names.shape(connection, tail.fields)
                body = msgspec.json.encode(tail.row).decode()
                rows.append((device, stream, tail.at_ms, tail.rank != NO_TIME, tail.received_ms, shape, body))
        connection.executemany("INSERT OR REPLACE INTO latest VALUES(?, ?, ?, ?, ?, ?, ?)", rows)

    def _tell_sinks(self, connection: sqlite3.Connection, harvest: _Harvest, mark: int, now_ms: int) -> None:
        """What a sink has not had, or may yet lose, is stale there, and its cursor goes on behind it."""
        for sink, settled in connection.execute("SELECT id, settled FROM sink").fetchall():
            places = [
                (sink, hour, self._names.series(connection, device, stream), mark, now_ms)
                for (device, stream, hour), newest in harvest.newest.items()
                if newest > settled and stream != JOURNAL
            ]
            connection.executemany(MARK_STALE, places)
            connection.execute(
                "UPDATE sink SET cursor = max(cursor, ?1), settled = max(settled, ?1) WHERE id = ?2",
                (harvest.up_to, sink),
            )

    def merge(self, *, records_max: int, now_ms: int, token: int) -> int:
        """Make one part of each hour that is over and has several; return how many records it went through."""
        seen = 0
        found: list[tuple[int, int, list[int], Part | None]] = []
        with self._access.reading() as connection:
            hours = connection.execute(
                "SELECT DISTINCT hour, series FROM chunk WHERE fresh_ms <= ? AND hour <= ? LIMIT ?",
                (now_ms - MERGE_SETTLED_MS, _last_over(now_ms), records_max),
            ).fetchall()
            shapes = {0: (), **shapes_of(connection)} if hours else {}
            for hour, series in hours:
                rows = connection.execute(
                    "SELECT rowid, form, heads, body, shape, records FROM chunk"
                    " WHERE day = ? AND series = ? AND hour = ? ORDER BY part",
                    (hour // HOURS_A_DAY, series, hour),
                ).fetchall()
                part = _merged(rows, shapes)
                found.append((hour, series, [row[0] for row in rows], part))
                seen += sum(row[5] for row in rows)
                if seen >= records_max:
                    break
        if found:
            self._store_merged(found, token)
        return seen

    def _store_merged(self, found: Sequence[tuple[int, int, list[int], Part | None]], token: int) -> None:
        self._access.failpoint("merge.encoded")
        try:
            with self._access.writing(token) as connection:
                number = next_part(connection)
                for hour, series, row_ids, part in found:
                    marks = [(row_id,) for row_id in row_ids]
                    if part is None:
                        connection.executemany("UPDATE chunk SET fresh_ms = NULL WHERE rowid = ?", marks)
                    # retention may have been quicker: then nothing comes back
                    elif connection.executemany("DELETE FROM chunk WHERE rowid = ?", marks).rowcount == len(marks):
                        self._insert(connection, series, hour, number, part, None)
                self._access.failpoint("merge.stored")
        except BaseException:
            self._names.forget()
            raise
        self._access.failpoint("merge.done")

    def _give_back_pages(self, token: int) -> None:
        """Free pages are used again; those of a file that shrank (retention, a backlog's end) go back to the disk."""
        with self._access.reading() as connection:
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            total = connection.execute("PRAGMA page_count").fetchone()[0]
        if free > total // FREE_PAGES_SHARE:
            count = min(free - total // FREE_PAGES_SHARE // 2, FREE_PAGES_MAX)
            with self._access.writing(token) as connection:
                for _ in range(count):  # the driver steps a pragma once, and each step gives back one page
                    connection.execute("PRAGMA incremental_vacuum(1)")


def _merged(
    rows: Sequence[tuple[int, int, bytes, bytes, int, int]], shapes: dict[int, tuple[str, ...]]
) -> Part | None:
    """One part of all; None if they stay as they are: large, of one piece already, or not to be read any more."""
    if sum(len(row[3]) for row in rows) > MERGE_BYTES_MAX or (len(rows) == 1 and rows[0][1] == Form.COLUMNS):
        return None
    try:
        return merged([(Form(form), heads, body, shapes[shape]) for _, form, heads, body, shape, _ in rows])
    except BadBatchError:  # an older contract admitted it: its bytes stay
        return None


def is_over(hour: int, now_ms: int) -> bool:
    """Whether nothing more of *hour* is on its way, but for backlogs."""
    return hour <= _last_over(now_ms)


def _last_over(now_ms: int) -> int:
    return (now_ms - HOUR_OVER_MS) // HOUR_MS - 1


def _streams(harvest: _Harvest) -> set[tuple[str, str]]:
    return {(key.device, key.stream) for key in harvest.numbers}


MARK_STALE: Final = """INSERT INTO stale VALUES(?, ?, ?, ?, ?)
  ON CONFLICT(sink, hour, series) DO UPDATE SET mark = excluded.mark"""
"""Sink, hour, series, a new mark, and since when; that stays with a place that is stale already."""


def next_part(connection: sqlite3.Connection) -> int:
    """A number that was never given out, of a part or a mark."""
    number = schema.meta(connection, "part") + 1
    schema.set_meta(connection, "part", number)
    return number


def _parts_exist(connection: sqlite3.Connection, series: int, hour: int) -> bool:
    return (
        connection.execute(
            "SELECT 1 FROM chunk WHERE day = ? AND series = ? AND hour = ? LIMIT 1",
            (hour // HOURS_A_DAY, series, hour),
        ).fetchone()
        is not None
    )


def _add_to_ledger(connection: sqlite3.Connection, numbers: dict[StreamKey, _Numbers]) -> None:
    rows = []
    for key, added in numbers.items():
        held = ranges.from_numbers(added.seqs)
        tail = added.tail
        before = connection.execute(
            "SELECT held, tail_seq, tail_boot, tail_mono, tail_ms, tail_crc FROM ledger"
            " WHERE device = ? AND stream = ? AND life = ?",
            key,
        ).fetchone()
        if before is not None:
            held = ranges.normal((*_HELD.decode(before[0]), *held))
            tail = max(tail, before[1:])
        rows.append((*key, msgspec.json.encode(held).decode(), *tail))
    connection.executemany("INSERT OR REPLACE INTO ledger VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _move_the_rest(connection: sqlite3.Connection, harvest: _Harvest) -> None:
    connection.executemany("INSERT OR REPLACE INTO unmapped VALUES(?, ?, ?, ?, ?, ?, ?, ?)", harvest.waiting)
    connection.executemany("DELETE FROM unmapped WHERE rowid = ?", harvest.mapped_rows)
    connection.executemany("INSERT OR REPLACE INTO remapped VALUES(?, ?, ?, ?, ?, ?)", harvest.remapped)
    connection.executemany(
        "INSERT INTO quarantine(at_ms, device, channel, key, reason, detail, content_type, crc32, payload)"
        f" VALUES(?, ?, 'sealed', ?, '{Reason.MALFORMED}', ?, '', ?, ?)",  # a constant
        harvest.unreadable,
    )
