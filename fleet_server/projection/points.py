"""Batches as InfluxDB's line protocol: ``power,device=car-7,device_class=in_car_terminal,org=hq supply_v=12.6 TIME``.

Tags are in the order of their names, as servers store them. Values are floats always, so that a field never changes
its type; a missing value is left out, and a row without values is no point. A point's time makes it what it is::

    time_ns = time_ms * 10**6 + (seq mod 1000) * 1000 + row

so that two readings of one millisecond stay two, and a repetition is the same point. (Only batches a thousand numbers
apart, or of two lives, with the same row in the same millisecond would meet: of a clock that was set back.)
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from broker_config.ids import STREAM_PATTERN, exact
from broker_config.limits import BATCH_ROWS_MAX
from broker_config.text import shown
from fleet_server.projection.feed import LeftOut, LeftOutReason, Readings
from fleet_server.projection.labels import Labels
from fleet_server.standing.sample import Sample

NS_A_MS: Final = 1_000_000
SEQS_A_MS: Final = 1_000
NS_A_SEQ: Final = NS_A_MS // SEQS_A_MS
assert BATCH_ROWS_MAX <= NS_A_SEQ, "a batch's rows would reach into the next batch's time"
TEMPLATES_MAX: Final = 32_768
"""Series whose beginning of a line is remembered; a fleet of thousands has four streams a device."""
TAG_CHARS_MAX: Final = 1_024

_NAME: Final = re.compile(exact(STREAM_PATTERN))
_UNSPEAKABLE: Final = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_ENCODER: Final = msgspec.json.Encoder()


class UnspeakableError(Exception):
    """A name or a label that has no place in a line."""


class Lines(NamedTuple):
    """``data``: lines without the last one's newline; ``points``: how many."""

    data: bytes
    points: int


def tag(text: str) -> str:
    """A tag's value as it is written. Raises UnspeakableError: empty, too long, or no line can hold it.

    A backslash has no spelling that all servers read alike.
    """
    if not text or len(text) > TAG_CHARS_MAX or _UNSPEAKABLE.search(text):
        raise UnspeakableError(f"expected a label without control characters and backslashes, got {shown(text)!r}")
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def encode(readings: Readings, labels: Labels) -> Lines:
    """A batch's lines. Raises UnspeakableError."""
    template = _template(readings.device, labels, readings.stream, readings.fields)
    first_ns = readings.seq % SEQS_A_MS * NS_A_SEQ
    # whole rows are made into text at once: a float at a time costs more than all the rest
    text = _ENCODER.encode(readings.rows)
    if b"null" in text:
        return _with_holes(readings, labels, first_ns)
    lines = [
        template % (*row.split(b","), time_ms * NS_A_MS + time_ns)
        for time_ns, (time_ms, row) in enumerate(
            zip(readings.times_ms, text[2:-2].split(b"],["), strict=True), first_ns
        )
    ]
    return Lines(b"\n".join(lines), len(lines))


def _with_holes(readings: Readings, labels: Labels, first_ns: int) -> Lines:
    lines: list[bytes] = []
    for time_ns, (time_ms, row) in enumerate(zip(readings.times_ms, readings.rows, strict=True), first_ns):
        held = [(name, value) for name, value in zip(readings.fields, row, strict=True) if value is not None]
        if held:
            names, values = zip(*held, strict=True)
            template = _template(readings.device, labels, readings.stream, names)
            texts = _ENCODER.encode(values)[1:-1].split(b",")
            lines.append(template % (*texts, time_ms * NS_A_MS + time_ns))
    return Lines(b"\n".join(lines), len(lines))


@lru_cache(TEMPLATES_MAX)
def _template(device: str, labels: Labels, stream: str, fields: tuple[str, ...]) -> bytes:
    """A line with a place for each value, and one for the time."""
    for name in (stream, *fields):
        if not _NAME.match(name):
            raise UnspeakableError(f"expected a name like battery_pct, got {shown(name)!r}")
    tags = f"device={tag(device)},device_class={tag(labels.device_class)},org={tag(labels.org)}"
    head = f"{stream},{tags} ".replace("%", "%%").encode()
    return head + b",".join([name.encode() + b"=%b" for name in fields]) + b" %d"


def tags(device: str, device_class: str, org: str) -> str:
    """Those of them that are not empty, as they follow a measurement. Raises UnspeakableError."""
    named = (("device", device), ("device_class", device_class), ("org", org))
    return "".join(f",{name}={tag(value)}" for name, value in named if value)


def measured(sample: Sample) -> Lines:
    """A sample's line; none if nothing of it is known. Raises UnspeakableError.

    Of a device it has the tags of a reading, of a node ``org`` alone, of the site none.
    """
    of = tags(sample.device, sample.device_class, sample.org)
    held = [
        f"{name}={value!r}"
        for name, value in zip(sample.measure.names, sample.values, strict=True)
        if value is not None
    ]
    if not held:
        return Lines(b"", 0)
    return Lines(f"{sample.measure.name}{of} {','.join(held)} {sample.at_ms * NS_A_MS}".encode(), 1)


def between(readings: Readings, oldest_ms: int, newest_ms: int) -> tuple[Readings | None, list[LeftOut]]:
    """Those of *readings* with ``oldest_ms <= time <= newest_ms``, and what is left out; the rows keep their times.

    A batch is taken or left as a whole if its rows agree; one that a bound cuts is cut, rows from the front by
    leaving their values out, since a row's place is a part of its time.
    """
    times = readings.times_ms
    if oldest_ms <= times[0] and times[-1] <= newest_ms:
        return readings, []
    old, ahead = sum(at < oldest_ms for at in times), sum(at > newest_ms for at in times)
    left = [
        LeftOut(reason, points)
        for reason, points in ((LeftOutReason.TOO_OLD, old), (LeftOutReason.AHEAD, ahead))
        if points
    ]
    if old + ahead == len(times):
        return None, left
    nothing = (None,) * len(readings.fields)
    end = len(times) - ahead
    return readings._replace(times_ms=times[:end], rows=[*([nothing] * old), *readings.rows[old:end]]), left


def beyond(readings: Readings, oldest_ms: int, newest_ms: int) -> Readings:
    """The rows that :func:`between` leaves out, each with its own time; the others are without values."""
    times = readings.times_ms
    nothing = (None,) * len(readings.fields)
    rows = [nothing if oldest_ms <= at <= newest_ms else row for at, row in zip(times, readings.rows, strict=True)]
    return readings._replace(rows=rows)


def packed(pieces: Iterable[Lines], *, points_max: int, bytes_max: int) -> Iterator[Lines]:
    """The same lines in bodies within both bounds; a piece that is itself beyond them stays whole."""
    held: list[bytes] = []
    points = size = 0
    for piece in pieces:
        if not piece.points:
            continue
        if held and (points + piece.points > points_max or size + len(piece.data) > bytes_max):
            yield Lines(b"\n".join(held), points)
            held, points, size = [], 0, 0
        held.append(piece.data)
        points += piece.points
        size += len(piece.data) + 1
    if held:
        yield Lines(b"\n".join(held), points)


def halves(lines: Lines) -> tuple[Lines, Lines]:
    """*lines*: two points or more."""
    each = lines.data.split(b"\n")
    middle = len(each) // 2
    return _joined(each[:middle]), _joined(each[middle:])


def _joined(each: Sequence[bytes]) -> Lines:
    return Lines(b"\n".join(each), len(each))
