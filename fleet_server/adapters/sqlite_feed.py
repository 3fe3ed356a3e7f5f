"""The batch store's file as a feed: the log after a sink's cursor, and hours of streams to be written again."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from broker_config.limits import TEXT_CHARS_MAX
from broker_config.telemetry import JOURNAL, Batch
from fleet_server.adapters import sqlite_schema as schema
from fleet_server.adapters.sqlite_access import Access
from fleet_server.adapters.sqlite_index import Index
from fleet_server.adapters.sqlite_log import LogRow, record_if_read, unpack
from fleet_server.adapters.sqlite_part import HOUR_MS, HOURS_A_DAY, Form, read_as_received
from fleet_server.adapters.sqlite_seal import MARK_STALE, next_part
from fleet_server.projection.feed import (
    NO_HOUR,
    Behind,
    Commits,
    DeadLetter,
    Item,
    LeftOut,
    LeftOutReason,
    Readings,
    Refused,
    StalePlace,
    UnknownSinkError,
)
from fleet_server.telemetry import chunk

READ_BYTES_MAX: Final = 64 * 1024 * 1024
"""Decompressed log rows of one :meth:`SqliteFeed.commits`, but for the last."""
MARK_ROWS_MAX: Final = 20_000
"""Marked stale in one transaction: a commit of ingest waits no longer than that takes."""
DEAD_LETTERS_MAX: Final = 1_000
"""Kept of each sink; what comes later is only counted."""
LINE_BYTES_MAX: Final = 4_096
"""Kept of a refused point."""


class SqliteFeed:
    """The port :class:`fleet_server.projection.feed.Feed`; ``heard_ms`` is for the sealer."""

    def __init__(self, access: Access, index: Index, own_token: Callable[[], int]) -> None:
        self._access = access
        self._index = index
        self._own_token = own_token
        self.heard_ms: dict[str, int] = {}

    # sinks

    def add_sink(self, name: str) -> None:
        """See the port."""
        with self._access.writing(self._own_token()) as connection:
            cursor = schema.meta(connection, "sealed_up_to")
            connection.execute(
                "INSERT OR IGNORE INTO sink(name, cursor, settled, refused) VALUES(?1, ?2, ?2, 0)", (name, cursor)
            )

    def forget_sink(self, name: str) -> None:
        """See the port."""
        with self._access.writing(self._own_token()) as connection:
            sink = _sink(connection, name)[0]
            for table, column in (("stale", "sink"), ("unsettled", "sink"), ("dead_letter", "sink"), ("sink", "id")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (sink,))  # noqa: S608 - constants
        self.heard_ms.pop(name, None)

    def sinks(self) -> list[str]:
        """See the port."""
        with self._access.reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM sink ORDER BY name")]

    # reading

    def commits(self, sink: str, *, records_max: int, now_ms: int) -> Commits:
        """See the port."""
        found: list[LogRow] = []
        records = size_bytes = 0
        with self._access.reading() as connection:
            after = up_to = _sink(connection, sink)[1]
            rows = connection.execute("SELECT id, body FROM log WHERE id > ? ORDER BY id", (after,))
            for log_id, body in rows:
                up_to = log_id
                found.append(unpack(body))
                records += len(found[-1])
                size_bytes += found[-1].size_bytes
                if records >= records_max or size_bytes >= READ_BYTES_MAX:
                    break
            rows.close()
        if not found:
            self.heard_ms[sink] = now_ms
        return Commits(after, up_to, self._logged(found))

    def _logged(self, rows: Sequence[LogRow]) -> Iterator[Item]:
        for row in rows:
            for place, (device, text) in enumerate(zip(row.devices, row.keys, strict=True)):
                if not text.startswith(_JOURNAL_PREFIX):
                    yield self._item(device, row.payload(place))

    def _item(self, device: str, payload: bytes) -> Item:
        record = record_if_read(payload)
        if not isinstance(record, Batch):
            return LeftOut(LeftOutReason.UNREADABLE, 1)
        start_ms = record.t0
        if record.clock.src == "none":
            offset_ms = self._index.offset_ms(device, record.boot)
            if offset_ms is None:
                return LeftOut(LeftOutReason.CLOCK_UNSET, len(record.dt))
            start_ms = record.mono + offset_ms
        times_ms = [start_ms + dt for dt in record.dt]
        return Readings(device, record.stream, record.seq, times_ms, record.fields, record.rows)

    def stale(self, sink: str, *, places_max: int, before_hour: int = NO_HOUR) -> list[StalePlace]:
        """See the port."""
        with self._access.reading() as connection:
            rows = connection.execute(
                "SELECT device, stream, series, hour, mark FROM stale JOIN series ON series.id = stale.series"
                " WHERE sink = ? AND hour < ? ORDER BY hour DESC, series LIMIT ?",
                (_sink(connection, sink)[0], before_hour, places_max),
            ).fetchall()
        return [StalePlace(*row) for row in rows]

    def read(self, place: StalePlace) -> Iterator[Item]:
        """See the port; a part of the hour at a time."""
        with self._access.reading() as connection:
            parts = connection.execute(
                "SELECT form, heads, body, fields FROM chunk LEFT JOIN shape ON shape.id = chunk.shape"
                " WHERE day = ? AND series = ? AND hour = ? ORDER BY part",
                (place.hour // HOURS_A_DAY, place.series, place.hour),
            ).fetchall()
        for form, heads, body, fields in parts:
            if form == Form.COLUMNS:
                yield from self._columns(place, heads, body, chunk.decode_fields(fields))
            else:
                yield from self._received(place, heads, body)

    def _received(self, place: StalePlace, heads: bytes, body: bytes) -> Iterator[Item]:
        for one in read_as_received(heads, body, strict=False):
            record = one.record
            if isinstance(record, Batch):
                yield self._dated(
                    place,
                    chunk.head_of(record, 0, one.shift_ms),
                    [one.start_ms + dt for dt in record.dt],
                    record.fields,
                    record.rows,
                )

    def _columns(self, place: StalePlace, heads: bytes, body: bytes, fields: tuple[str, ...]) -> Iterator[Item]:
        times_ms, columns = chunk.decode(body, fields)
        rows = list(zip(*(columns[name] for name in fields), strict=True))
        start = 0
        for head in chunk.decode_heads(heads):
            end = start + head.rows
            yield self._dated(place, head, times_ms[start:end], fields, rows[start:end])
            start = end

    def _dated(
        self,
        place: StalePlace,
        head: chunk.BatchHead,
        times_ms: Sequence[int],
        fields: tuple[str, ...],
        rows: Sequence[Sequence[float | None]],
    ) -> Item:
        """The batch, unless it was given up unmapped: then its rows are stored under the times that nobody set."""
        if head.clock_src == "none" and not head.shift_ms:
            offset_ms = self._index.offset_ms(place.device, head.boot)
            if offset_ms is None or head.mono_ms + offset_ms != head.t0_ms:
                return LeftOut(LeftOutReason.CLOCK_UNSET, head.rows)
        return Readings(place.device, place.stream, head.seq, times_ms, fields, rows)

    # writing

    def advance(self, sink: str, commits: Commits, refused: Sequence[Refused], *, now_ms: int) -> bool:
        """See the port."""
        self._access.failpoint("advance.begin")
        self.heard_ms[sink] = now_ms  # also if the sealer was quicker: next time it waits
        with self._access.writing(self._own_token()) as connection:
            number, cursor, _ = _sink(connection, sink)
            if cursor != commits.after:
                return False
            connection.execute("UPDATE sink SET cursor = ? WHERE id = ?", (commits.up_to, number))
            _bury(connection, number, refused, now_ms)
            self._access.failpoint("advance.stored")
        self._access.failpoint("advance.done")
        return True

    def written(self, sink: str, places: Sequence[StalePlace], refused: Sequence[Refused], *, now_ms: int) -> None:
        """See the port."""
        self._access.failpoint("written.begin")
        with self._access.writing(self._own_token()) as connection:
            number, _, _ = _sink(connection, sink)
            connection.executemany(
                "DELETE FROM stale WHERE sink = ? AND hour = ? AND series = ? AND mark = ?",
                [(number, place.hour, place.series, place.mark) for place in places],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO unsettled VALUES(?, ?, ?, ?)",
                [(number, place.hour, place.series, now_ms) for place in places],
            )
            _bury(connection, number, refused, now_ms)
            self._access.failpoint("written.stored")
        self._access.failpoint("written.done")

    def settle(self, sink: str, *, up_to: int, before_ms: int) -> None:
        """See the port."""
        with self._access.writing(self._own_token()) as connection:
            number = _sink(connection, sink)[0]
            connection.execute("UPDATE sink SET settled = min(cursor, max(settled, ?)) WHERE id = ?", (up_to, number))
            connection.execute("DELETE FROM unsettled WHERE sink = ? AND written_ms <= ?", (number, before_ms))

    def rewind(self, sink: str, *, now_ms: int) -> None:
        """See the port."""
        with self._access.writing(self._own_token()) as connection:
            number = _sink(connection, sink)[0]
            connection.execute("UPDATE sink SET cursor = settled WHERE id = ?", (number,))
            places = connection.execute("SELECT hour, series FROM unsettled WHERE sink = ?", (number,)).fetchall()
            if places:
                mark = next_part(connection)
                rows = [(number, hour, series, mark, now_ms) for hour, series in places]
                connection.executemany(MARK_STALE, rows)
                connection.execute("DELETE FROM unsettled WHERE sink = ?", (number,))

    def mark_stale(self, sink: str, *, from_ms: int, now_ms: int) -> int:
        """See the port. Not fenced: it writes nothing that another owner's memory knows of."""
        with self._access.writing(None) as connection:
            number, _, _ = _sink(connection, sink)
            # first, so that whatever is sealed from now on is read from the log or marked by the sealer
            sealed_up_to = schema.meta(connection, "sealed_up_to")
            connection.execute("UPDATE sink SET cursor = ?1, settled = ?1 WHERE id = ?2", (sealed_up_to, number))
        marked = 0
        day = self._day_before(None)
        while day is not None and day >= from_ms // HOUR_MS // HOURS_A_DAY:
            marked += self._mark_day(number, day, from_ms // HOUR_MS, now_ms)
            day = self._day_before(day)
        return marked

    def _day_before(self, day: int | None) -> int | None:
        """The newest day with chunks, before *day*."""
        with self._access.reading() as connection:
            last = _LAST_DAY if day is None else day
            found: int | None = connection.execute("SELECT max(day) FROM chunk WHERE day < ?", (last,)).fetchone()[0]
        return found

    def _mark_day(self, sink: int, day: int, from_hour: int, now_ms: int) -> int:
        with self._access.reading() as connection:
            places = connection.execute(
                "SELECT DISTINCT hour, series FROM chunk JOIN series ON series.id = chunk.series"
                " WHERE day = ? AND hour >= ? AND stream <> ?",
                (day, from_hour, JOURNAL),
            ).fetchall()
        for start in range(0, len(places), MARK_ROWS_MAX):
            with self._access.writing(None) as connection:
                mark = next_part(connection)
                rows = [(sink, hour, series, mark, now_ms) for hour, series in places[start : start + MARK_ROWS_MAX]]
                connection.executemany(MARK_STALE, rows)
        return len(places)

    # how far

    def series(self) -> list[tuple[str, str]]:
        """See the port."""
        with self._access.reading() as connection:
            rows = connection.execute("SELECT device, stream FROM series WHERE stream <> ?", (JOURNAL,))
            return [(device, stream) for device, stream in rows]

    def behind(self, sink: str, *, before_hour: int = NO_HOUR) -> Behind:
        """See the port."""
        with self._access.reading() as connection:
            number, cursor, refused = _sink(connection, sink)
            # a commit is a row, numbered without holes
            last = connection.execute("SELECT max(id) FROM log").fetchone()[0] or cursor
            first = connection.execute("SELECT at_ms FROM log WHERE id > ? ORDER BY id LIMIT 1", (cursor,)).fetchone()
            stale, since_ms = connection.execute(
                "SELECT count(*), min(since_ms) FROM stale WHERE sink = ? AND hour < ?", (number, before_hour)
            ).fetchone()
        oldest = [at_ms for at_ms in (first[0] if first else None, since_ms) if at_ms is not None]
        return Behind(max(0, last - cursor), stale, min(oldest, default=None), refused)

    def dead_letters(self, sink: str, *, rows_max: int) -> list[DeadLetter]:
        """See the port."""
        with self._access.reading() as connection:
            rows = connection.execute(
                "SELECT at_ms, line, reason FROM dead_letter WHERE sink = ? ORDER BY id DESC LIMIT ?",
                (_sink(connection, sink)[0], rows_max),
            ).fetchall()
        return [DeadLetter(*row) for row in rows]


_JOURNAL_PREFIX: Final = f"{JOURNAL}/"
_LAST_DAY: Final = 2**53


def _sink(connection: sqlite3.Connection, name: str) -> tuple[int, int, int]:
    """Number, cursor, points refused. Raises UnknownSinkError."""
    row: tuple[int, int, int] | None = connection.execute(
        "SELECT id, cursor, refused FROM sink WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        raise UnknownSinkError(f"no sink called {name}: it is added when a server runs that is configured for it")
    return row


def _bury(connection: sqlite3.Connection, sink: int, refused: Sequence[Refused], now_ms: int) -> None:
    if not refused:
        return
    connection.execute("UPDATE sink SET refused = refused + ? WHERE id = ?", (len(refused), sink))
    (held,) = connection.execute("SELECT count(*) FROM dead_letter WHERE sink = ?", (sink,)).fetchone()
    connection.executemany(
        "INSERT OR IGNORE INTO dead_letter(sink, at_ms, line, reason) VALUES(?, ?, ?, ?)",
        [
            (sink, now_ms, one.line[:LINE_BYTES_MAX], one.reason[:TEXT_CHARS_MAX])
            for one in refused[: max(0, DEAD_LETTERS_MAX - held)]
        ],
    )
