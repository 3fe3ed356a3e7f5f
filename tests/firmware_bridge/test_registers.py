import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.registers import Block, Kind, Point, plan, value


def words_of(raw: bytes) -> list[int]:
    return list(struct.unpack(f">{len(raw) // 2}H", raw))


@pytest.mark.parametrize(
    ("point", "words", "expected"),
    [
        (Point(address=0), [65_535], 65_535),
        (Point(address=0, kind=Kind.I16), [0xFFFE], -2),
        (Point(address=0, kind=Kind.I16, scale=0.1), [215], 21.5),
        (Point(address=0, kind=Kind.I16, scale=0.1, offset=-40), [400], 0),
        (Point(address=0, kind=Kind.U32), [1, 2], 65_538),
        (Point(address=0, kind=Kind.U32, words="low_first"), [1, 2], 131_073),
        (Point(address=0, kind=Kind.I32), [0xFFFF, 0xFFFF], -1),
        (Point(address=0, kind=Kind.F32), words_of(struct.pack(">f", 1.5)), 1.5),
        (Point(address=0, kind=Kind.F32, words="low_first"), words_of(struct.pack(">f", 1.5))[::-1], 1.5),
        (Point(address=0, kind=Kind.BIT, bit=0), [1], 1),
        (Point(address=0, kind=Kind.BIT, bit=15), [0x8000], 1),
        (Point(address=0, kind=Kind.BIT, bit=15), [0x7FFF], 0),
        (Point(address=0, table="discrete", kind=Kind.BIT), [1], 1),
        (Point(address=0, kind=Kind.I16, absent=32_767), [0x7FFF], None),
        (Point(address=0, kind=Kind.I16, absent=-1), [0xFFFF], None),
    ],
)
def test_what_registers_mean(point: Point, words: list[int], expected: float | None) -> None:
    assert value(point, words) == expected


def test_a_float_register_that_is_no_number_stays_none() -> None:
    found = value(Point(address=0, kind=Kind.F32), words_of(struct.pack(">f", math.nan)))
    assert found is not None
    assert math.isnan(found)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"table": "coil"}, 'of kind "bit"'),
        ({"table": "discrete", "kind": "bit", "bit": 1}, "has no bit number"),
        ({"kind": "bit"}, "has a bit number"),
        ({"kind": "u16", "bit": 3}, "has a bit number"),
        ({"address": 65_535, "kind": "u32"}, "both registers below 65536"),
        ({"address": 65_536}, "<= 65535"),
        ({"kind": "u64"}, "u64"),
        ({"words": "little"}, "little"),
        ({"table": "register"}, "register"),
    ],
)
def test_a_point_that_cannot_be_is_refused(table: dict[str, object], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert({"address": 0, **table}, Point)


def planned(points: dict[str, Point], *, hole_max: int = 0, regs_max: int = 125) -> list[Block]:
    return plan(points, tuple(points), hole_max=hole_max, bits_max=2000, regs_max=regs_max)


def test_neighbours_are_asked_for_at_once_and_holes_are_not_touched() -> None:
    points = {
        "d": Point(address=5),
        "a": Point(address=0, kind=Kind.U32),
        "b": Point(address=2),
        "bit": Point(address=2, kind=Kind.BIT, bit=4),
        "coil": Point(address=0, table="coil", kind=Kind.BIT),
        "in": Point(address=3, table="input"),
    }
    assert planned(points) == [
        Block("coil", 0, 1, ("coil",)),
        Block("holding", 0, 3, ("a", "b", "bit")),
        Block("holding", 5, 1, ("d",)),
        Block("input", 3, 1, ("in",)),
    ]
    assert Block("holding", 0, 6, ("a", "b", "bit", "d")) in planned(points, hole_max=2)


@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=3),
        st.builds(
            Point,
            address=st.integers(0, 60),
            kind=st.sampled_from([Kind.U16, Kind.I32, Kind.F32]),
            table=st.sampled_from(["holding", "input"]),
        ),
        max_size=30,
    ),
    st.integers(0, 10),
    st.integers(2, 20),
)
def test_every_point_is_in_exactly_one_question_that_reaches_it(
    points: dict[str, Point], hole_max: int, regs_max: int
) -> None:
    blocks = planned(points, hole_max=hole_max, regs_max=regs_max)
    assert sorted(name for block in blocks for name in block.points) == sorted(points)
    for block in blocks:
        assert 1 <= block.length <= regs_max
        for name in block.points:
            point = points[name]
            assert point.table == block.table
            assert block.address <= point.address
            assert point.address + point.count <= block.address + block.length
