"""The columns that a stream's batches of one hour are sealed into, and their bytes. Values come back bit for bit.

Whole numbers are stored as they are or as differences, whichever spans less, above their least one, in the narrowest
width, plane by plane (all low bytes first): so zstd sees what repeats. A column of readings is whole numbers over
the smallest power of ten that gives each reading back exactly, else raw float64 (also where there is a -0.0).
A missing value is a clear bit of the column's bitmap.
"""

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import copysign, fsum
from operator import sub
from typing import Final, NamedTuple, TypeAlias, cast

import msgspec
import zstandard

from broker_config.telemetry import Batch, Events

Column: TypeAlias = list[float | None]

DECIMALS_MAX: Final = 6
WHOLE_ABS_MAX: Final = 2**53
"""Below it every whole number is exact in a double."""
ZSTD_LEVEL: Final = 3
MINUTE_MS: Final = 60_000
ROLL_ROWS_PER_MINUTE_MIN: Final = 4
"""With fewer rows a minute a roll-up is no smaller than the rows."""
BLOCK_BYTES_MAX: Final = 1 << 30
"""Decompressed; far above what an hour can hold within the contract's bounds."""

_RAW: Final = 0x0F
_MISSING: Final = 0x10
_PLAIN: Final = 0x00
_DIFFERENCES: Final = 0x10
_PROBE: Final = 4
_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


class BatchHead(NamedTuple):
    """What names a batch and says how far its times can be trusted.

    ``t0_ms``: as the device told it; rows are stored ``shift_ms`` later (a clock that nobody had set, mapped).
    ``crc32``: of the payload as received.
    """

    life: str
    seq: int
    crc32: int
    rows: int
    boot: str
    t0_ms: int
    shift_ms: int
    mono_ms: int
    clock_src: str
    off_ms: int
    unc_ms: int


@dataclass(frozen=True, slots=True)
class Block:
    """Batches of one stream, by time of their first row; ``times_ms`` and each column are their rows in that order.

    Rows of batches that overlap are not in the order of time.
    """

    heads: list[BatchHead]
    times_ms: list[int]
    columns: dict[str, Column]


class Roll(NamedTuple):
    """Each minute's rows in short, ascending. ``minutes``: since the epoch; None: no value in that minute.

    ``counts``: of values; a field that misses none shares the list ``rows``.
    """

    minutes: list[int]
    rows: list[int]
    lows: dict[str, Column]
    highs: dict[str, Column]
    sums: dict[str, Column]
    counts: dict[str, list[int]]


class Encoded(NamedTuple):
    """A block's bytes; ``roll`` is None where it would not pay."""

    fields: tuple[str, ...]
    body: bytes
    roll: bytes | None


def head_of(record: Batch | Events, crc32: int, shift_ms: int) -> BatchHead:
    """The head of a record whose rows are stored *shift_ms* later than it says."""
    clock = record.clock
    return BatchHead(
        life=record.life,
        seq=record.seq,
        crc32=crc32,
        rows=len(record.dt),
        boot=record.boot,
        t0_ms=record.t0,
        shift_ms=shift_ms,
        mono_ms=record.mono,
        clock_src=clock.src,
        off_ms=clock.off_ms,
        unc_ms=clock.unc_ms,
    )


def block_of(batches: Sequence[tuple[BatchHead, Batch]]) -> Block:
    """The rows of *batches*, which need be in no order."""
    ordered = sorted(batches, key=lambda pair: (pair[0].t0_ms + pair[0].shift_ms, pair[0].life, pair[0].seq))
    times_ms: list[int] = []
    for head, batch in ordered:
        start = head.t0_ms + head.shift_ms
        times_ms.extend([start + dt for dt in batch.dt])
    names = ordered[0][1].fields
    columns: dict[str, Column]
    if all(batch.fields == names for _, batch in ordered):
        rows = chain.from_iterable([batch.rows for _, batch in ordered])
        columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    else:
        columns = _gathered([(len(batch.dt), _by_name(batch)) for _, batch in ordered])
    return Block([head for head, _ in ordered], times_ms, columns)


def _by_name(batch: Batch) -> dict[str, Column]:
    return {name: list(column) for name, column in zip(batch.fields, zip(*batch.rows, strict=True), strict=True)}


def _gathered(pieces: Sequence[tuple[int, dict[str, Column]]]) -> dict[str, Column]:
    """Columns one after the other, by name; where a piece lacks a field its rows lack the value."""
    names = dict.fromkeys(chain.from_iterable(columns for _, columns in pieces))
    return {
        name: list(chain.from_iterable(columns.get(name) or [None] * rows for rows, columns in pieces))
        for name in names
    }


def joined(blocks: Sequence[Block]) -> Block:
    """All their batches in one block."""
    if len(blocks) == 1:
        return blocks[0]
    ordered = sorted(blocks, key=lambda block: _place(block.heads[0]))
    if any(_place(a.heads[-1]) > _place(b.heads[0]) for a, b in pairwise(ordered)):
        ordered = sorted(chain.from_iterable(map(_split, blocks)), key=lambda block: _place(block.heads[0]))
    return Block(
        list(chain.from_iterable(block.heads for block in ordered)),
        list(chain.from_iterable(block.times_ms for block in ordered)),
        _gathered([(len(block.times_ms), block.columns) for block in ordered]),
    )


def _place(head: BatchHead) -> tuple[int, str, int]:
    return head.t0_ms + head.shift_ms, head.life, head.seq


def _split(block: Block) -> Iterable[Block]:
    """A block for each batch."""
    start = 0
    for head in block.heads:
        end = start + head.rows
        yield Block(
            [head], block.times_ms[start:end], {name: column[start:end] for name, column in block.columns.items()}
        )
        start = end


# whole numbers


def _varint(out: bytearray, number: int) -> None:
    """Zigzag, then seven bits a byte, lowest first."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


class _Reader:
    """Takes apart what the functions here wrote."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def take(self, count: int) -> bytes:
        start = self._at
        self._at += count
        if self._at > len(self._data):
            raise ValueError(f"chunk: expected {count} bytes at {start}, got {len(self._data) - start}")
        return self._data[start : self._at]

    def varint(self) -> int:
        shift = rest = 0
        while True:
            byte = self.byte()
            rest |= (byte & 0x7F) << shift
            if byte < 0x80:
                return rest >> 1 if not rest & 1 else -((rest + 1) >> 1)
            shift += 7


def _width(span: int) -> int:
    """Bytes that hold 0 to *span*; none for nothing."""
    return 0 if span == 0 else 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4 if span < 1 << 32 else 8


def _planes(data: bytes, width: int) -> bytes:
    return data if width == 1 else b"".join([data[plane::width] for plane in range(width)])


def _unplanes(data: bytes, width: int) -> bytes:
    if width == 1:
        return data
    count = len(data) // width
    out = bytearray(len(data))
    for plane in range(width):
        out[plane::width] = data[plane * count : (plane + 1) * count]
    return bytes(out)


def _put_narrow(out: bytearray, numbers: Sequence[int], low: int, width: int) -> None:
    _varint(out, low)
    if width:
        shifted = [number - low for number in numbers] if low else numbers
        out += _planes(array(_CODES[width], shifted).tobytes(), width)


def _take_narrow(reader: _Reader, count: int, width: int) -> list[int]:
    low = reader.varint()
    if not width:
        return [low] * count
    numbers = array(_CODES[width])
    numbers.frombytes(_unplanes(reader.take(count * width), width))
    return [number + low for number in numbers] if low else numbers.tolist()


def _put_whole(out: bytearray, numbers: Sequence[int]) -> None:
    """*numbers*: any count, which the reader must know."""
    if not numbers:
        return
    low, high = min(numbers), max(numbers)
    if low != high:
        differences = list(map(sub, numbers[1:], numbers))
        low_difference, high_difference = min(differences), max(differences)
        if high_difference - low_difference < high - low:
            width = _width(high_difference - low_difference)
            out.append(_DIFFERENCES | width)
            _varint(out, numbers[0])
            _put_narrow(out, differences, low_difference, width)
            return
    width = _width(high - low)
    out.append(_PLAIN | width)
    _put_narrow(out, numbers, low, width)


def _take_whole(reader: _Reader, count: int) -> list[int]:
    if not count:
        return []
    tag = reader.byte()
    width = tag & 0x0F
    if tag & _DIFFERENCES:
        first = reader.varint()
        return list(accumulate(_take_narrow(reader, count - 1, width), initial=first))
    return _take_narrow(reader, count, width)


def _put_times(out: bytearray, times: Sequence[int]) -> None:
    """Differences of differences: a steady cadence costs nothing."""
    _varint(out, times[0])
    _put_whole(out, list(map(sub, times[1:], times)))


def _take_times(reader: _Reader, count: int) -> list[int]:
    first = reader.varint()
    return list(accumulate(_take_whole(reader, count - 1), initial=first))


# readings


def scaled(values: Sequence[float]) -> tuple[int, list[int]] | None:
    """(decimals, whole numbers) with ``number / 10**decimals == value`` for each; None if there is none."""
    try:
        for decimals in range(DECIMALS_MAX + 1):
            power = 10.0**decimals
            if any(round(value * power) / power != value for value in values[:_PROBE]):
                continue
            numbers = [round(value * power) for value in values] if decimals else list(map(int, values))
            if min(numbers) <= -WHOLE_ABS_MAX or max(numbers) >= WHOLE_ABS_MAX:
                return None
            if [number / power for number in numbers] == values:
                if 0 in numbers and any(value == 0.0 and copysign(1.0, value) < 0.0 for value in values):
                    return None
                return decimals, numbers
    except (OverflowError, ValueError):  # an infinity or NaN is no whole number
        pass
    return None


def _put_present(out: bytearray, column: Column) -> Sequence[float]:
    """Write what is missing; return what is not."""
    present = [value for value in column if value is not None]
    if len(present) != len(column):
        bits = "".join(["0" if value is None else "1" for value in reversed(column)])
        out += int(bits, 2).to_bytes((len(column) + 7) // 8, "little")
    return present


def _put_column(out: bytearray, column: Column) -> tuple[int, list[int]] | None:
    """Return the whole numbers of it, if it is stored so and nothing is missing."""
    missing = _MISSING if None in column else 0
    tag_at = len(out)
    out.append(missing | _RAW)
    present = _put_present(out, column)
    if not present:
        return None
    found = scaled(present)
    if found is None:
        out += _planes(array("d", present).tobytes(), 8)
        return None
    out[tag_at] = missing | found[0]
    _put_whole(out, found[1])
    return None if missing else found


def _take_column(reader: _Reader, count: int) -> Column:
    tag = reader.byte()
    if not tag & _MISSING:
        return cast("Column", _take_values(reader, count, tag & 0x0F))
    bits = int.from_bytes(reader.take((count + 7) // 8), "little")
    flags = f"{bits:0{count}b}"[::-1]
    values = iter(_take_values(reader, flags.count("1"), tag & 0x0F))
    return [next(values) if flag == "1" else None for flag in flags]


def _take_values(reader: _Reader, count: int, decimals: int) -> list[float]:
    if not count:
        return []
    if decimals == _RAW:
        return array("d", _unplanes(reader.take(count * 8), 8)).tolist()
    numbers = _take_whole(reader, count)
    if decimals == 0:
        return list(map(float, numbers))
    power = 10.0**decimals
    return [number / power for number in numbers]


# the whole


def encode(block: Block) -> Encoded:
    """*block*: at least one row."""
    count = len(block.times_ms)
    out = bytearray()
    _varint(out, count)
    _put_times(out, block.times_ms)
    whole = {name: _put_column(out, column) for name, column in block.columns.items()}
    return Encoded(tuple(block.columns), compress(bytes(out)), _encode_roll(block, whole))


def decode(body: bytes, fields: Sequence[str]) -> tuple[list[int], dict[str, Column]]:
    """Times and columns. *fields*: as :func:`encode` returned them. Raises ValueError."""
    reader = _Reader(decompress(body))
    count = reader.varint()
    times_ms = _take_times(reader, count)
    return times_ms, {name: _take_column(reader, count) for name in fields}


def _minutes(times_ms: Sequence[int]) -> tuple[list[int], list[int]]:
    """(minute, index of its first row) of ascending times, as two lists."""
    minutes: list[int] = []
    starts: list[int] = []
    last = None
    for at, time_ms in enumerate(times_ms):
        minute = time_ms // MINUTE_MS
        if minute != last:
            last = minute
            minutes.append(minute)
            starts.append(at)
    return minutes, starts


def _encode_roll(block: Block, whole: dict[str, tuple[int, list[int]] | None]) -> bytes | None:
    times_ms = block.times_ms
    if len(times_ms) < ROLL_ROWS_PER_MINUTE_MIN:
        return None
    minutes, starts = _minutes(times_ms)
    if len(times_ms) < ROLL_ROWS_PER_MINUTE_MIN * len(minutes) or times_ms != sorted(times_ms):
        return None
    bounds = list(zip(starts, (*starts[1:], len(times_ms)), strict=True))
    out = bytearray()
    _varint(out, len(minutes))
    _put_times(out, minutes)
    _put_whole(out, [end - start for start, end in bounds])
    for name, column in block.columns.items():
        cells = _rolled(column, whole[name], bounds)
        # fewer, longer columns are quicker to read: lows and highs are of one kind
        _put_column(out, [*cells.lows, *cells.highs])
        _put_column(out, cells.sums)
        missing = [end - start - count for (start, end), count in zip(bounds, cells.counts, strict=True)]
        _put_whole(out, missing)
    return compress(bytes(out))


class _Cells(NamedTuple):
    """One field of a roll-up."""

    lows: Column
    highs: Column
    sums: Column
    counts: list[int]


def _rolled(column: Column, whole: tuple[int, list[int]] | None, bounds: list[tuple[int, int]]) -> _Cells:
    if whole is not None:
        decimals, numbers = whole
        power = 10.0**decimals
        parts = [numbers[start:end] for start, end in bounds]
        return _Cells(
            [min(part) / power for part in parts],
            [max(part) / power for part in parts],
            [sum(part) / power for part in parts],
            [len(part) for part in parts],
        )
    held = [[value for value in column[start:end] if value is not None] for start, end in bounds]
    return _Cells(
        [min(part, default=None) for part in held],
        [max(part, default=None) for part in held],
        [fsum(part) if part else None for part in held],
        [len(part) for part in held],
    )


def decode_roll(data: bytes, fields: Sequence[str]) -> Roll:
    """*fields*: as :func:`encode` returned them. Raises ValueError."""
    reader = _Reader(decompress(data))
    count = reader.varint()
    roll = Roll(_take_times(reader, count), _take_whole(reader, count), {}, {}, {}, {})
    for name in fields:
        both = _take_column(reader, 2 * count)
        roll.lows[name], roll.highs[name] = both[:count], both[count:]
        roll.sums[name] = _take_column(reader, count)
        missing = _take_whole(reader, count)
        roll.counts[name] = list(map(sub, roll.rows, missing)) if any(missing) else roll.rows
    return roll


def encode_heads(heads: Sequence[BatchHead]) -> bytes:
    """Count u32, checksums u32 each (they do not compress), then the rest with zstd."""
    out = bytearray()
    for texts in ([head.life for head in heads], [head.boot for head in heads]):
        names = list(dict.fromkeys(texts))
        places = {name: at for at, name in enumerate(names)}
        _varint(out, len(names))
        out += bytes.fromhex("".join(names))
        _put_whole(out, [places[text] for text in texts])
    _put_whole(out, [_SOURCES.index(head.clock_src) for head in heads])
    _put_times(out, [head.seq for head in heads])
    _put_times(out, [head.t0_ms for head in heads])
    _put_whole(out, [head.mono_ms - head.t0_ms for head in heads])
    for values in zip(*((head.rows, head.shift_ms, head.off_ms, head.unc_ms) for head in heads), strict=True):
        _put_whole(out, values)
    crcs = array("I", [head.crc32 for head in heads]).tobytes()
    return _COUNT.pack(len(heads)) + crcs + compress(bytes(out))


def decode_heads(data: bytes) -> list[BatchHead]:
    """What :func:`encode_heads` wrote. Raises ValueError."""
    (count,) = _COUNT.unpack_from(data)
    crcs = array("I", data[_COUNT.size : _COUNT.size + 4 * count])
    reader = _Reader(decompress(data[_COUNT.size + 4 * count :]))
    texts: list[list[str]] = []
    for _ in range(2):
        names = [reader.take(8).hex() for _ in range(reader.varint())]
        texts.append([names[place] for place in _take_whole(reader, count)])
    sources = [_SOURCES[place] for place in _take_whole(reader, count)]
    seqs = _take_times(reader, count)
    t0s = _take_times(reader, count)
    monos = [ahead + t0 for ahead, t0 in zip(_take_whole(reader, count), t0s, strict=True)]
    rows, shifts, offs, uncs = (_take_whole(reader, count) for _ in range(4))
    lives, boots = texts
    return list(map(BatchHead, lives, seqs, crcs, rows, boots, t0s, shifts, monos, sources, offs, uncs))


_SOURCES: Final = ("none", "ntp", "gnss", "server")
"""Their places are in the file: append only."""
_COUNT: Final = struct.Struct("<I")


def compress(data: bytes) -> bytes:
    """With a checksum: a flipped bit in the file is found."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(data)


def decompress(data: bytes) -> bytes:
    """Raises ValueError: not what :func:`compress` wrote."""
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=BLOCK_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise ValueError(f"chunk: {error}") from error


def encode_fields(fields: Sequence[str]) -> str:
    """A shape's text: the names of the columns in their order."""
    return msgspec.json.encode(fields).decode()


_FIELDS: Final = msgspec.json.Decoder(tuple[str, ...])


def decode_fields(text: str) -> tuple[str, ...]:
    """What :func:`encode_fields` wrote."""
    return _FIELDS.decode(text)
