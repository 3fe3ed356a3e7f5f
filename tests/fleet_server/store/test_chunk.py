"""The chunk codec gives back, bit for bit, what it took."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config import limits
from broker_config.telemetry import Batch, Clock
from fleet_server.telemetry import chunk

HOUR_MS = 3_600_000
DECIMAL = st.builds(lambda number, decimals: number / 10**decimals, st.integers(-(10**7), 10**7), st.integers(0, 6))
VALUE = st.one_of(
    DECIMAL,
    st.floats(-limits.VALUE_ABS_MAX, limits.VALUE_ABS_MAX),
    st.sampled_from([0.0, -0.0, 1e15, -1e15, 5e-324, 0.1, 1 / 3, float(2**53), float(2**53 - 1)]),
)
TIMES = st.integers(-limits.TIME_MS_MAX, limits.TIME_MS_MAX)


def columns(rows: int) -> st.SearchStrategy[list[float | None]]:
    return st.one_of(
        st.lists(DECIMAL, min_size=rows, max_size=rows),
        st.lists(VALUE, min_size=rows, max_size=rows),
        st.lists(st.one_of(st.none(), DECIMAL), min_size=rows, max_size=rows),
        st.just([None] * rows),
    )


@st.composite
def blocks(draw: st.DrawFn, *, times: st.SearchStrategy[int] = TIMES) -> chunk.Block:
    rows = draw(st.integers(1, 40))
    names = draw(st.lists(st.sampled_from(["a_pct", "b_mv", "c", "d"]), min_size=1, max_size=4, unique=True))
    return chunk.Block(
        [], draw(st.lists(times, min_size=rows, max_size=rows)), {n: draw(columns(rows)) for n in names}
    )


def bits(column: list[float | None]) -> list[bytes | None]:
    return [None if value is None else struct.pack("<d", value) for value in column]


@given(blocks())
@settings(max_examples=300, deadline=None)
def test_a_block_comes_back_bit_for_bit(block: chunk.Block) -> None:
    encoded = chunk.encode(block)
    times_ms, found = chunk.decode(encoded.body, encoded.fields)
    assert times_ms == block.times_ms
    assert {name: bits(column) for name, column in found.items()} == {
        name: bits(column) for name, column in block.columns.items()
    }


@given(blocks(times=st.integers(0, 10 * 60_000)).map(lambda b: chunk.Block([], sorted(b.times_ms), b.columns)))
@settings(max_examples=200, deadline=None)
def test_a_roll_up_says_of_each_minute_what_its_rows_say(block: chunk.Block) -> None:
    encoded = chunk.encode(block)
    minutes = sorted({time_ms // 60_000 for time_ms in block.times_ms})
    if len(block.times_ms) < chunk.ROLL_ROWS_PER_MINUTE_MIN * len(minutes):
        assert encoded.roll is None
        return
    assert encoded.roll is not None
    roll = chunk.decode_roll(encoded.roll, encoded.fields)
    assert roll.minutes == minutes
    for name, column in block.columns.items():
        for at, minute in enumerate(minutes):
            here = [v for t, v in zip(block.times_ms, column, strict=True) if t // 60_000 == minute]
            held = [v for v in here if v is not None]
            assert roll.rows[at] == len(here)
            assert roll.counts[name][at] == len(held)
            assert roll.lows[name][at] == min(held, default=None)
            assert roll.highs[name][at] == max(held, default=None)
            total = roll.sums[name][at]
            if held:
                assert total is not None
                assert math.isclose(total, math.fsum(held), rel_tol=1e-9, abs_tol=1e-6)


HEX = st.integers(0, 2**64 - 1).map("{:016x}".format)
HEADS = st.builds(
    chunk.BatchHead,
    life=HEX,
    seq=st.integers(1, limits.SEQ_MAX),
    crc32=st.integers(0, 2**32 - 1),
    rows=st.integers(1, limits.BATCH_ROWS_MAX),
    boot=HEX,
    t0_ms=TIMES,
    shift_ms=TIMES,
    mono_ms=st.integers(0, limits.TIME_MS_MAX),
    clock_src=st.sampled_from(["none", "ntp", "gnss", "server"]),
    off_ms=TIMES,
    unc_ms=st.integers(0, limits.TIME_MS_MAX),
)


@given(st.lists(HEADS, min_size=1, max_size=20))
@settings(deadline=None)
def test_heads_come_back(heads: list[chunk.BatchHead]) -> None:
    assert chunk.decode_heads(chunk.encode_heads(heads)) == heads


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([1.0, 2.0, -3.0], 0),
        ([83.4, 31.0], 1),
        ([12.613, 0.0], 3),
        ([0.000001], 6),
        ([0.1, 0.2, 0.1 + 0.2], None),  # 0.30000000000000004 has no six decimals
        ([0.0, -0.0], None),  # a whole number has no negative zero
        ([1 / 3], None),
        ([1e15], 0),
        ([9007199254740992.0], None),  # from 2**53 on the neighbours collide
        ([math.inf], None),
        ([math.nan], None),
    ],
)
def test_the_smallest_exact_decimals_are_found(values: list[float], decimals: int | None) -> None:
    found = chunk.scaled(values)
    assert (None if found is None else found[0]) == decimals


@pytest.mark.parametrize(
    ("column", "bytes_max"),
    [
        ([21.5] * 3600, 40),  # what never changes costs nothing
        ([float(n) for n in range(3600)], 40),  # nor what climbs steadily
        ([None] * 3600, 60),
    ],
)
def test_what_says_nothing_new_costs_nothing(column: list[float | None], bytes_max: int) -> None:
    block = chunk.Block([], [n * 1000 for n in range(3600)], {"a": column})
    assert len(chunk.encode(block).body) <= bytes_max


def batch(seq: int, t0: int, **columns_of: list[float | None]) -> tuple[chunk.BatchHead, Batch]:
    rows = [list(row) for row in zip(*columns_of.values(), strict=True)]
    record = Batch(
        v=1,
        stream="power",
        life="a" * 16,
        seq=seq,
        boot="b" * 16,
        t0=t0,
        mono=5,
        clock=Clock("ntp", 0, 1),
        fields=tuple(columns_of),
        dt=list(range(len(rows))),
        rows=rows,
    )
    return chunk.head_of(record, seq, 0), record


def test_batches_with_other_fields_share_a_block() -> None:
    block = chunk.block_of([batch(2, 2000, a=[2.0], b=[3.0]), batch(1, 1000, a=[1.0])])
    assert block.times_ms == [1000, 2000]
    assert block.columns == {"a": [1.0, 2.0], "b": [None, 3.0]}
    assert [head.seq for head in block.heads] == [1, 2]


@given(st.permutations(range(1, 7)), st.integers(1, 5))
def test_joining_parts_gives_what_one_part_would_hold(order: list[int], cut: int) -> None:
    odd: dict[str, list[float | None]] = {"b": [0.5]}
    batches = [batch(seq, seq * 1000, a=[float(seq)], **(odd if seq % 2 else {})) for seq in order]
    whole = chunk.block_of(batches)
    parts = chunk.joined([chunk.block_of(batches[:cut]), chunk.block_of(batches[cut:])])
    assert parts.heads == whole.heads
    assert parts.times_ms == whole.times_ms
    assert {n: parts.columns[n] for n in sorted(parts.columns)} == {
        n: whole.columns[n] for n in sorted(whole.columns)
    }


def test_a_torn_or_flipped_body_is_refused() -> None:
    encoded = chunk.encode(chunk.Block([], list(range(50)), {"a": [n / 7 for n in range(50)]}))
    for cut in range(len(encoded.body)):
        with pytest.raises(ValueError, match="chunk"):
            chunk.decode(encoded.body[:cut], encoded.fields)
    flipped = bytearray(encoded.body)
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(ValueError, match="chunk"):
        chunk.decode(bytes(flipped), encoded.fields)
