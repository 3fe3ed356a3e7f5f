"""Rows of a series, merged and brought to a number of equal buckets."""

from bisect import bisect_left
from collections.abc import Sequence
from math import fsum
from typing import NamedTuple, TypeAlias, cast

from fleet_server.telemetry.chunk import MINUTE_MS, Column, Roll
from fleet_server.telemetry.store import Series


class Rows(NamedTuple):
    """Rows in any order; ``times_ms`` and each column are parallel."""

    times_ms: list[int]
    columns: dict[str, Column]


class Grid(NamedTuple):
    """Buckets ``[start_ms + n * width_ms, start_ms + (n + 1) * width_ms)``."""

    start_ms: int
    width_ms: int

    @property
    def whole_minutes(self) -> bool:
        """Whether each minute lies in one bucket."""
        return self.start_ms % MINUTE_MS == 0 and self.width_ms % MINUTE_MS == 0


def grid_of(from_ms: int, to_ms: int, points: int) -> Grid:
    """At most *points* buckets over the range; of whole minutes where they are at least a minute wide."""
    width_ms = max(1, -(-(to_ms - from_ms) // points))
    if width_ms < MINUTE_MS:
        return Grid(from_ms, width_ms)
    start_ms = from_ms - from_ms % MINUTE_MS
    minutes = -(-(to_ms - start_ms) // MINUTE_MS)
    return Grid(start_ms, -(-minutes // points) * MINUTE_MS)


def ascending(pieces: Sequence[Rows], from_ms: int, to_ms: int) -> Rows:
    """All rows of *pieces* in the range, by time; rows of the same time are in no particular order."""
    cut = [piece for piece in (_cut(piece, from_ms, to_ms) for piece in pieces) if piece.times_ms]
    if len(cut) == 1:
        return cut[0]
    cut.sort(key=lambda piece: piece.times_ms[0])
    names = dict.fromkeys(name for piece in cut for name in piece.columns)
    times_ms = [time_ms for piece in cut for time_ms in piece.times_ms]
    columns: dict[str, Column] = {name: [] for name in names}
    for piece in cut:
        for name, column in columns.items():
            column.extend(piece.columns.get(name) or [None] * len(piece.times_ms))
    return _sorted(Rows(times_ms, columns))


def _sorted(rows: Rows) -> Rows:
    times_ms = sorted(rows.times_ms)
    if times_ms == rows.times_ms:
        return rows
    order = sorted(range(len(times_ms)), key=rows.times_ms.__getitem__)
    return Rows(times_ms, {name: [column[at] for at in order] for name, column in rows.columns.items()})


def _cut(rows: Rows, from_ms: int, to_ms: int) -> Rows:
    rows = _sorted(rows)
    first, last = bisect_left(rows.times_ms, from_ms), bisect_left(rows.times_ms, to_ms)
    if first == 0 and last == len(rows.times_ms):
        return rows
    return Rows(rows.times_ms[first:last], {name: column[first:last] for name, column in rows.columns.items()})


_Cell: TypeAlias = tuple[float, float, float, int]
"""Least, greatest, sum and count of one field in one bucket; a bare tuple, for there are thousands."""


def _added(held: _Cell, more: _Cell) -> _Cell:
    return min(held[0], more[0]), max(held[1], more[1]), held[2] + more[2], held[3] + more[3]


class Buckets:
    """Gathers rows and roll-ups of one range into a grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._fields: dict[str, dict[int, _Cell]] = {}
        self._seen: set[int] = set()
        self._rows_total = 0

    def _slices(self, times_ms: Sequence[int]) -> list[tuple[int, int, int]]:
        """(bucket, first index, end index) of ascending times."""
        start_ms, width_ms = self._grid
        out: list[tuple[int, int, int]] = []
        first, count = 0, len(times_ms)
        while first < count:
            bucket = (times_ms[first] - start_ms) // width_ms
            end = bisect_left(times_ms, start_ms + (bucket + 1) * width_ms, first)
            out.append((bucket, first, end))
            first = end
        self._seen.update(bucket for bucket, _, _ in out)
        return out

    def add_rows(self, rows: Rows) -> None:
        """*rows* ascend and are in the range."""
        self._rows_total += len(rows.times_ms)
        slices = self._slices(rows.times_ms)
        for name, column in rows.columns.items():
            cells = self._fields.setdefault(name, {})
            whole = None not in column
            for bucket, first, end in slices:
                some = column[first:end]
                values = cast("list[float]", some) if whole else [value for value in some if value is not None]
                if values:
                    cell = (min(values), max(values), fsum(values), len(values))
                    cells[bucket] = _added(cells[bucket], cell) if bucket in cells else cell

    def add_roll(self, roll: Roll) -> None:
        """Every minute of *roll* is in the range; the grid has whole minutes."""
        self._rows_total += sum(roll.rows)
        slices = self._slices([minute * MINUTE_MS for minute in roll.minutes])
        row_counts = [sum(roll.rows[first:end]) for _, first, end in slices]
        for name, counts in roll.counts.items():
            cells = self._fields.setdefault(name, {})
            lows, highs, sums = (cast("list[float]", by[name]) for by in (roll.lows, roll.highs, roll.sums))
            if counts is not roll.rows:  # some minute may have no value
                for at, count in enumerate(counts):
                    if count:
                        bucket = self._bucket(roll.minutes[at])
                        cell = (lows[at], highs[at], sums[at], count)
                        cells[bucket] = _added(cells[bucket], cell) if bucket in cells else cell
                continue
            for (bucket, first, end), count in zip(slices, row_counts, strict=True):
                cell = (min(lows[first:end]), max(highs[first:end]), sum(sums[first:end]), count)
                cells[bucket] = _added(cells[bucket], cell) if bucket in cells else cell

    def _bucket(self, minute: int) -> int:
        return (minute * MINUTE_MS - self._grid.start_ms) // self._grid.width_ms

    def series(self) -> Series:
        """The buckets that have rows, oldest first."""
        start_ms, width_ms = self._grid
        buckets = sorted(self._seen)
        columns: dict[str, Column] = {}
        lows: dict[str, Column] = {}
        highs: dict[str, Column] = {}
        counts: dict[str, list[int]] = {}
        for name, held in self._fields.items():
            cells = [held.get(bucket) for bucket in buckets]
            columns[name] = [None if cell is None else cell[2] / cell[3] for cell in cells]
            lows[name] = [None if cell is None else cell[0] for cell in cells]
            highs[name] = [None if cell is None else cell[1] for cell in cells]
            counts[name] = [0 if cell is None else cell[3] for cell in cells]
        times_ms = [start_ms + bucket * width_ms for bucket in buckets]
        return Series(times_ms, columns, lows, highs, counts, self._rows_total, width_ms)
