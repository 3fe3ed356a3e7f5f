"""Reads of the batch store that join what is sealed with what is not."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from broker_config.limits import BATCH_SPAN_MS_MAX
from broker_config.telemetry import JOURNAL, Batch, key_text
from fleet_server.adapters import sqlite_schema as schema
from fleet_server.adapters.sqlite_access import Access
from fleet_server.adapters.sqlite_index import PLACE_BITS, RECORDS_IN_COMMIT_MAX, Index
from fleet_server.adapters.sqlite_log import LogRow, record_if_read, unpack
from fleet_server.adapters.sqlite_part import HOUR_MS, HOURS_A_DAY, Form, Sealed, block_of, read_as_received
from fleet_server.adapters.sqlite_part import series_number as number_of
from fleet_server.telemetry import chunk
from fleet_server.telemetry.buckets import Buckets, Rows, ascending, grid_of
from fleet_server.telemetry.store import NO_TIME, Series, StreamKey

_PLACE_MASK: Final = RECORDS_IN_COMMIT_MAX - 1


def series(
    access: Access, index: Index, key: tuple[str, str], *, from_ms: int, to_ms: int, points: int | None
) -> Series:
    """See the port. Buckets without rows are left out."""
    if to_ms <= from_ms:
        return Series([], {}, {}, {}, {}, 0, 0)
    # In this order: what is sealed in between is at or below the watermark of the snapshot, and read from there.
    places = index.places(*key)
    grid = None if points is None else grid_of(from_ms, to_ms, max(1, points))
    buckets = None if grid is None else Buckets(grid)
    pieces: list[Rows] = []
    with access.reading() as connection:
        for form, shape, first_ms, last_ms, row_id in _parts(connection, key, from_ms, to_ms):
            whole = from_ms <= first_ms and last_ms < to_ms
            if buckets is not None and grid is not None and whole and grid.whole_minutes:
                roll = connection.execute("SELECT roll FROM chunk WHERE rowid = ?", (row_id,)).fetchone()[0]
                if roll is not None:
                    buckets.add_roll(chunk.decode_roll(roll, _fields(connection, shape)))
                    continue
            pieces.append(_read(connection, form, shape, row_id))
        loose = [
            *_unsealed(access, index, connection, key, places, (from_ms, to_ms)),
            *_unmapped(connection, index, key),
        ]
    if loose:
        block = block_of(loose)
        pieces.append(Rows(block.times_ms, block.columns))
    rows = ascending(pieces, from_ms, to_ms)
    if buckets is None:
        return Series(rows.times_ms, rows.columns, {}, {}, {}, len(rows.times_ms), 0)
    buckets.add_rows(rows)
    return buckets.series()


def _parts(
    connection: sqlite3.Connection, key: tuple[str, str], from_ms: int, to_ms: int
) -> Sequence[tuple[int, int, int, int, int]]:
    """(form, shape, first, last, rowid) of each part that touches the range."""
    number = number_of(connection, *key)
    if number is None:
        return []
    first, last = (from_ms - BATCH_SPAN_MS_MAX) // HOUR_MS, (to_ms - 1) // HOUR_MS
    return connection.execute(
        "SELECT form, shape, first_ms, last_ms, rowid FROM chunk"
        " WHERE day BETWEEN ? AND ? AND series = ? AND hour BETWEEN ? AND ? AND last_ms >= ? AND first_ms < ?",
        (first // HOURS_A_DAY, last // HOURS_A_DAY, number, first, last, from_ms, to_ms),
    ).fetchall()


def _read(connection: sqlite3.Connection, form: int, shape: int, row_id: int) -> Rows:
    heads, body = connection.execute("SELECT heads, body FROM chunk WHERE rowid = ?", (row_id,)).fetchone()
    if form == Form.COLUMNS:
        return Rows(*chunk.decode(body, _fields(connection, shape)))
    batches = [one for one in read_as_received(heads, body, strict=False) if isinstance(one.record, Batch)]
    if not batches:
        return Rows([], {})
    block = block_of(batches)
    return Rows(block.times_ms, block.columns)


def _fields(connection: sqlite3.Connection, shape: int) -> tuple[str, ...]:
    return chunk.decode_fields(connection.execute("SELECT fields FROM shape WHERE id = ?", (shape,)).fetchone()[0])


def shapes(connection: sqlite3.Connection) -> dict[int, tuple[str, ...]]:
    """Every list of columns, by its number."""
    return {number: chunk.decode_fields(text) for number, text in connection.execute("SELECT id, fields FROM shape")}


def _mapped(index: Index, device: str, payload: bytes) -> Sealed | None:
    """The batch in *payload* under its mapped time; None if it is the journal's, or can be read no more."""
    record = record_if_read(payload)
    if not isinstance(record, Batch):
        return None
    offset_ms = index.offset_ms(device, record.boot) if record.clock.src == "none" else None
    return Sealed(record, payload, 0 if offset_ms is None else record.mono + offset_ms - record.t0)


def _unsealed(
    access: Access,
    index: Index,
    connection: sqlite3.Connection,
    key: tuple[str, str],
    places: Sequence[int],
    between: tuple[int, int],
) -> Iterator[Sealed]:
    sealed_up_to = schema.meta(connection, "sealed_up_to")
    for place in places:
        log_id = place >> PLACE_BITS
        row = access.log_row(connection, log_id) if log_id > sealed_up_to else None
        if row is None:
            continue
        newest_ms = row.newest_ms[place & _PLACE_MASK]
        if newest_ms != NO_TIME and not between[0] <= newest_ms < between[1] + BATCH_SPAN_MS_MAX:
            continue
        one = _mapped(index, key[0], row.payload(place & _PLACE_MASK))
        if one is not None:
            yield one


def _unmapped(connection: sqlite3.Connection, index: Index, key: tuple[str, str]) -> Iterator[Sealed]:
    for (payload,) in connection.execute("SELECT payload FROM unmapped WHERE device = ? AND stream = ?", key):
        one = _mapped(index, key[0], payload)
        if one is not None:
            yield one


def journal(access: Access, device: str, life: str, *, first: int, last: int) -> list[tuple[int, bytes]]:
    """See the port."""
    found: dict[int, bytes] = {}
    with access.reading() as connection:
        rows = connection.execute(
            "SELECT heads, rowid FROM chunk WHERE series = ?", (number_of(connection, device, JOURNAL),)
        )
        for heads, row_id in rows.fetchall():
            wanted = [
                (place, head.seq)
                for place, head in enumerate(chunk.decode_heads(heads))
                if head.life == life and first <= head.seq <= last
            ]
            if wanted:
                (body,) = connection.execute("SELECT body FROM chunk WHERE rowid = ?", (row_id,)).fetchone()
                row = LogRow(chunk.decompress(body))
                found |= {seq: row.payload(place) for place, seq in wanted}
        unmapped = connection.execute(
            "SELECT seq, payload FROM unmapped WHERE device = ? AND stream = ? AND life = ? AND seq BETWEEN ? AND ?",
            (device, JOURNAL, life, first, last),
        )
        found |= dict(unmapped.fetchall())
        found |= dict(_unsealed_journal(connection, device, key_text(JOURNAL, life, 0)[:-1], first, last))
    return sorted(found.items())


def _unsealed_journal(
    connection: sqlite3.Connection, device: str, prefix: str, first: int, last: int
) -> Iterator[tuple[int, bytes]]:
    sealed_up_to = schema.meta(connection, "sealed_up_to")
    for (body,) in connection.execute("SELECT body FROM log WHERE id > ?", (sealed_up_to,)):
        row = unpack(body)
        for place, (of, key) in enumerate(zip(row.devices, row.keys, strict=True)):
            if of == device and key.startswith(prefix) and first <= int(key.removeprefix(prefix)) <= last:
                yield int(key.removeprefix(prefix)), row.payload(place)


def sealed_crc(access: Access, key: StreamKey, seq: int, t0_ms: int) -> int | None:
    """See the port. Batches that wait for their clock, or were mapped, are found wherever they are."""
    name = (*key, seq)
    hour = t0_ms // HOUR_MS
    with access.reading() as connection:
        number = number_of(connection, key.device, key.stream)
        rows = connection.execute(
            "SELECT heads FROM chunk WHERE day = ? AND series = ? AND hour = ?", (hour // HOURS_A_DAY, number, hour)
        )
        for (heads,) in rows:
            for head in chunk.decode_heads(heads):
                if head.seq == seq and head.life == key.life:
                    return head.crc32
        for table in ("unmapped", "remapped"):
            found = connection.execute(
                f"SELECT crc32 FROM {table} WHERE device = ? AND stream = ? AND life = ? AND seq = ?",  # noqa: S608
                name,
            ).fetchone()
            if found is not None:
                return int(found[0])
    return None
