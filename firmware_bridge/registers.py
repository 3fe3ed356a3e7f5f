"""Modbus register maps as data: which questions to ask for a set of points, and what the answers mean.

Addresses are those on the wire, from 0; a manual's 40001 is ``holding`` 0.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

BIT_TABLES: Final = frozenset({"coil", "discrete"})


class Kind(StrEnum):
    """How the registers are read; ``bit`` is one bit of a register, or a coil or discrete input."""

    BIT = "bit"
    U16 = "u16"
    I16 = "i16"
    U32 = "u32"
    I32 = "i32"
    F32 = "f32"


_FORMATS: Final = {Kind.U16: ">H", Kind.I16: ">h", Kind.U32: ">I", Kind.I32: ">i", Kind.F32: ">f"}
_WIDE: Final = frozenset({Kind.U32, Kind.I32, Kind.F32})


class Point(Struct, frozen=True, kw_only=True):
    """Where a value is and what it means: value = raw * ``scale`` + ``offset``. ``words``: which of two registers
    comes first. ``bit``: 0 is the lowest of a register. ``absent``: the raw value by which the device says that it
    has none.
    """

    table: Literal["coil", "discrete", "holding", "input"] = "holding"
    address: Annotated[int, Meta(ge=0, le=65_535)]
    kind: Kind = Kind.U16
    scale: float = 1.0
    offset: float = 0.0
    words: Literal["high_first", "low_first"] = "high_first"
    bit: Annotated[int, Meta(ge=0, le=15)] | None = None
    absent: int | None = None

    def __post_init__(self) -> None:
        if self.table in BIT_TABLES:
            if self.kind is not Kind.BIT or self.bit is not None:
                raise ValueError(f'a {self.table} is of kind "bit", and has no bit number')
        elif (self.kind is Kind.BIT) != (self.bit is not None):
            raise ValueError('in a register, kind "bit" and nothing else has a bit number')
        if self.address + self.count > 65_536:
            raise ValueError(f"address: expected both registers below 65536, got {self.address}")

    @property
    def count(self) -> int:
        """Registers, or bits, that it takes."""
        return 2 if self.kind in _WIDE else 1


class Block(NamedTuple):
    """One question for *length* registers or bits; *points* are in it."""

    table: str
    address: int
    length: int
    points: tuple[str, ...]


def plan(
    points: Mapping[str, Point], asked: Sequence[str], *, hole_max: int, bits_max: int, regs_max: int
) -> list[Block]:
    """As few questions as reach all that is *asked*; one runs over at most *hole_max* addresses that nobody asked
    for, because many devices refuse a question that touches an address they do not have.
    """
    blocks: list[Block] = []
    for name in sorted(asked, key=lambda name: (points[name].table, points[name].address, points[name].count)):
        point = points[name]
        count_max = bits_max if point.table in BIT_TABLES else regs_max
        end = point.address + point.count
        if blocks:
            last = blocks[-1]
            last_end = last.address + last.length
            near = point.address <= last_end + hole_max
            if last.table == point.table and near and end - last.address <= count_max:
                length = max(last.length, end - last.address)
                blocks[-1] = Block(last.table, last.address, length, (*last.points, name))
                continue
        blocks.append(Block(point.table, point.address, point.count, (name,)))
    return blocks


def value(point: Point, words: Sequence[int]) -> float | None:
    """What *words* (as many as ``point.count``; 0 or 1 of a coil) mean; None: the device has no value. A float may be
    NaN or infinite.
    """
    if point.table in BIT_TABLES:
        return float(words[0])
    if point.bit is not None:
        return float(words[0] >> point.bit & 1)
    ordered = words if point.words == "high_first" else tuple(reversed(words))
    raw_bytes = b"".join(word.to_bytes(2, "big") for word in ordered)
    raw: float = struct.unpack(_FORMATS[point.kind], raw_bytes)[0]
    if point.absent is not None and raw == point.absent:
        return None
    scaled = raw * point.scale + point.offset
    # what a decimal scale means, not what binary fractions make of it
    return round(scaled, 9) if math.isfinite(scaled) else scaled


def words_of(point: Point, wanted: float) -> tuple[int, ...]:
    """The words by which *point* is *wanted*, the other way round of :func:`value`.

    Raises:
        ValueError: it cannot be: not writable, or out of range.
    """
    if point.table == "coil":
        if wanted not in {0.0, 1.0}:
            raise ValueError(f"expected 0 or 1, got {wanted:g}")
        return (int(wanted),)
    if point.table != "holding" or point.bit is not None:
        raise ValueError(f"a {'bit of a register' if point.bit is not None else point.table} is not written")
    raw = (wanted - point.offset) / point.scale
    try:
        packed = struct.pack(_FORMATS[point.kind], raw if point.kind is Kind.F32 else round(raw))
    except (struct.error, OverflowError, ValueError) as error:
        raise ValueError(f"{wanted:g} is out of the range of {point.kind}") from error
    words = tuple(int.from_bytes(packed[at : at + 2], "big") for at in range(0, len(packed), 2))
    return words if point.words == "high_first" else tuple(reversed(words))


def is_as_written(point: Point, wanted: float, found: float) -> bool:
    """Whether *found* is what *wanted* is after it has been through the register."""
    return value(point, words_of(point, wanted)) == found
