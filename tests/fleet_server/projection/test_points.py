"""Lines are what InfluxDB reads, and a reading has one name for ever."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker_config.limits import BATCH_ROWS_MAX, VALUE_ABS_MAX
from fleet_server.projection import points
from fleet_server.projection.feed import LeftOut, LeftOutReason, Readings
from fleet_server.projection.labels import Labels
from fleet_server.projection.points import Lines, UnspeakableError, between, encode, packed
from tests.fleet_server.projection.rig import Points, add, parsed

LABELS = Labels("body_camera", "hq/station-07")
T = 1_767_225_600_000


def readings(
    *rows: tuple[float | None, ...],
    fields: tuple[str, ...] = ("a_pct", "b_mv"),
    seq: int = 1,
    times_ms: tuple[int, ...] | None = None,
) -> Readings:
    times = tuple(T + 1000 * number for number in range(len(rows))) if times_ms is None else times_ms
    return Readings("cam-7", "power", seq, times, fields, rows)


HEAD = b"power,device=cam-7,device_class=body_camera,org=hq/station-07 "


def test_a_batch_is_a_line_a_row() -> None:
    assert encode(readings((83.4, 1.0), (-0.0, 1e-7), seq=10_421), LABELS) == Lines(
        HEAD + b"a_pct=83.4,b_mv=1.0 1767225600000421000\n"
        + HEAD + b"a_pct=-0.0,b_mv=1e-7 1767225601000421001",
        2,
    )  # fmt: skip


def test_what_is_missing_is_left_out_and_the_rest_keeps_its_time() -> None:
    assert encode(readings((None, 1.0), (None, None), (3.0, None)), LABELS) == Lines(
        HEAD + b"b_mv=1.0 1767225600000001000\n" + HEAD + b"a_pct=3.0 1767225602000001002", 2
    )
    assert encode(readings((None, None)), LABELS) == Lines(b"", 0)


def test_labels_are_escaped() -> None:
    line = encode(readings((1.0, 2.0)), Labels("a=b", "hq, east 100%s/ñ")).data.decode()
    assert line.startswith("power,device=cam-7,device_class=a\\=b,org=hq\\,\\ east\\ 100%s/ñ a_pct=1.0,")


@pytest.mark.parametrize("label", ["", "a\nb", "a\\", "a\\,b", "\0", "\ud800", "x" * 2_000])
def test_a_label_that_no_line_can_hold_is_refused(label: str) -> None:
    with pytest.raises(UnspeakableError):
        encode(readings((1.0, 2.0)), Labels("host", label))


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a=b", "A", "a\n", "%s"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UnspeakableError):
        encode(readings((1.0,), fields=(name,)), LABELS)
    with pytest.raises(UnspeakableError):
        encode(readings((1.0, 2.0))._replace(stream=name), LABELS)


VALUES = st.one_of(st.none(), st.floats(-VALUE_ABS_MAX, VALUE_ABS_MAX))
LABEL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\\"), min_size=1)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=50), LABEL, LABEL, st.integers(1, 2**53))
@example([(5e-324, VALUE_ABS_MAX)], " ", "=", 999)
def test_every_value_comes_back_bit_for_bit(
    rows: list[tuple[float | None, ...]], kind: str, org: str, seq: int
) -> None:
    lines = encode(readings(*rows, seq=seq), Labels(kind, org))
    each = [parsed(line) for line in lines.data.decode().split("\n")] if lines.points else []
    held = [(number, row) for number, row in enumerate(rows) if row != (None, None)]
    assert lines.points == len(each) == len(held)
    for (name, fields), (number, row) in zip(each, held, strict=True):
        assert name.tags == (("device", "cam-7"), ("device_class", kind), ("org", org))
        assert name.time_ns == (T + 1000 * number) * 10**6 + seq % 1000 * 1000 + number
        want = {field: value for field, value in zip(("a_pct", "b_mv"), row, strict=True) if value is not None}
        assert fields == want
        assert [math.copysign(1, fields[field]) for field in want] == [math.copysign(1, x) for x in want.values()]


@given(st.sets(st.integers(1, 999), max_size=20), st.lists(st.integers(0, 3), min_size=1, max_size=100).map(sorted))
def test_no_two_readings_of_a_thousand_batches_are_one_point(seqs: set[int], dt: list[int]) -> None:
    """Though all of them are of the same few milliseconds."""
    held: Points = {}
    rows = [(float(number), None) for number in range(len(dt))]
    for seq in seqs:
        one = readings(*rows, seq=seq, times_ms=tuple(T + at for at in dt))
        add(held, encode(one, LABELS).data)
    assert len(held) == len(seqs) * len(dt)


def test_the_last_row_of_a_batch_is_before_the_first_of_the_next() -> None:
    rows = ((1.0, None),) * BATCH_ROWS_MAX
    last = encode(readings(*rows, times_ms=(T,) * len(rows), seq=1), LABELS).data.split()[-1]
    first = encode(readings(*rows, times_ms=(T,) * len(rows), seq=2), LABELS).data.split(b"\n")[0].split()[-1]
    assert int(last) + 1 == int(first)


def test_rows_beyond_a_bound_are_left_out_and_the_others_keep_their_times() -> None:
    whole = readings((1.0, None), (2.0, None), (3.0, None))
    held, left = between(whole, T + 500, T + 1500)
    assert held is not None
    assert encode(held, LABELS).data.split(b" ")[1:] == encode(whole, LABELS).data.split(b"\n")[1].split(b" ")[1:]
    assert left == [LeftOut(LeftOutReason.TOO_OLD, 1), LeftOut(LeftOutReason.AHEAD, 1)]
    assert between(whole, T + 9000, T + 9999) == (None, [LeftOut(LeftOutReason.TOO_OLD, 3)])
    assert between(whole, T, T + 2000) == (whole, [])


@pytest.mark.parametrize(
    ("points_max", "bytes_max", "sizes"),
    [
        (100, 10**6, [9]),
        (4, 10**6, [4, 4, 1]),
        (5, 10**6, [4, 5]),
        (3, 10**6, [2, 2, 2, 3]),  # a batch stays in one piece
        (1, 10**6, [2, 2, 2, 2, 1]),
        (100, 31, [4, 4, 1]),
        (100, 1, [2, 2, 2, 2, 1]),
    ],
)
def test_bodies_are_within_their_bounds(points_max: int, bytes_max: int, sizes: list[int]) -> None:
    pieces = [Lines(b"0123456\n9abcdef", 2)] * 4 + [Lines(b"", 0), Lines(b"1", 1)]
    found = list(packed(pieces, points_max=points_max, bytes_max=bytes_max))
    assert [one.points for one in found] == sizes
    assert [one.data.count(b"\n") + 1 for one in found] == sizes
    assert b"\n".join(one.data for one in found) == b"\n".join(one.data for one in pieces if one.points)


def test_halves_are_the_whole() -> None:
    first, second = points.halves(Lines(b"a\nb\nc", 3))
    assert (first, second) == (Lines(b"a", 1), Lines(b"b\nc", 2))
