"""Buckets against every row in its own right."""

from collections import defaultdict
from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.telemetry.buckets import Buckets, Rows, ascending, grid_of
from fleet_server.telemetry.chunk import MINUTE_MS

VALUES = st.one_of(st.none(), st.integers(-1_000, 1_000).map(float))
PIECES = st.lists(
    st.lists(st.tuples(st.integers(0, 300), VALUES, VALUES), max_size=8).map(
        lambda rows: Rows([row[0] for row in rows], {"a": [row[1] for row in rows], "b": [row[2] for row in rows]})
    ),
    max_size=4,
)


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(1, 2_000))
def test_a_grid_covers_the_range_in_at_most_so_many_buckets(from_ms: int, length_ms: int, points: int) -> None:
    grid, to_ms = grid_of(from_ms, from_ms + length_ms, points), from_ms + length_ms
    assert grid.start_ms <= from_ms
    assert grid.start_ms + points * grid.width_ms >= to_ms
    assert grid.width_ms < MINUTE_MS or grid.whole_minutes


@given(PIECES, st.integers(0, 150), st.integers(1, 150), st.integers(1, 20))
def test_buckets_are_those_of_plain_rows(pieces: list[Rows], from_ms: int, length_ms: int, points: int) -> None:
    to_ms = from_ms + length_ms
    rows = ascending(pieces, from_ms, to_ms)
    plain = sorted(
        (at_ms, name, column[at])
        for piece in pieces
        for name, column in piece.columns.items()
        for at, at_ms in enumerate(piece.times_ms)
        if from_ms <= at_ms < to_ms
        for value in [column[at]]
        if value is not None
    )
    assert rows.times_ms == sorted(t for piece in pieces for t in piece.times_ms if from_ms <= t < to_ms)
    grid = grid_of(from_ms, to_ms, points)
    buckets = Buckets(grid)
    buckets.add_rows(rows)
    found = buckets.series()
    assert found.rows_total == len(rows.times_ms)
    assert found.times_ms == sorted({t - (t - grid.start_ms) % grid.width_ms for t in rows.times_ms})
    want: dict[tuple[int, str], list[float]] = defaultdict(list)
    for at_ms, name, value in plain:
        assert value is not None
        want[at_ms - (at_ms - grid.start_ms) % grid.width_ms, name].append(value)
    for at, start_ms in enumerate(found.times_ms):
        for name in ("a", "b"):
            values = want[start_ms, name]
            if name not in found.columns:
                assert not values
                continue
            assert found.counts[name][at] == len(values)
            if values:
                mean = found.columns[name][at]
                assert mean is not None
                assert isclose(mean, sum(values) / len(values), abs_tol=1e-9)
                assert (found.lows[name][at], found.highs[name][at]) == (min(values), max(values))
            else:
                assert found.columns[name][at] is found.lows[name][at] is found.highs[name][at] is None
