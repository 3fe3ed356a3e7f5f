"""The record: a sealed batch of a stream, and its codec. Its bytes never change once sealed.

Its key is ``(device, stream, life, seq)``. ``life`` is 64 random bits made with the spool; ``seq`` begins
at 1 and has no holes. The device is never in the body: the topic says it, and the broker proved it.
"""

import re
import zlib
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.ids import HEX16_PATTERN, HEX64_PATTERN, STREAM_PATTERN, ContractError, exact
from broker_config.text import shown

PROPERTY_KEY: Final = "key"
"""User property ``{stream}/{life}/{seq}``: so that a batch whose body cannot be read is still receipted."""
PROPERTY_LAST: Final = "last"
"""User property: the newest number of the same stream and life when this was sent."""
CONTENT_JSON: Final = "application/json"
CONTENT_ZLIB: Final = "application/zlib"

JOURNAL: Final = "journal"
"""The reserved stream of the device's journal, the main witness of what happened there."""
GENESIS: Final = "0" * 64
"""`prev` of a journal's first batch of a life."""

Stream: TypeAlias = Annotated[str, Meta(pattern=exact(STREAM_PATTERN))]
Hex: TypeAlias = Annotated[str, Meta(pattern=exact(HEX16_PATTERN))]
Digest: TypeAlias = Annotated[str, Meta(pattern=exact(HEX64_PATTERN))]
Seq: TypeAlias = Annotated[int, Meta(ge=1, le=limits.SEQ_MAX)]
TimeMs: TypeAlias = Annotated[int, Meta(ge=-limits.TIME_MS_MAX, le=limits.TIME_MS_MAX)]
SpanMs: TypeAlias = Annotated[int, Meta(ge=0, le=limits.BATCH_SPAN_MS_MAX)]
Value: TypeAlias = Annotated[float, Meta(ge=-limits.VALUE_ABS_MAX, le=limits.VALUE_ABS_MAX)]
Text: TypeAlias = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]


class Reason(StrEnum):
    """Why a batch is quarantined instead of stored."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    SHAPE = "shape"
    KEY_MISMATCH = "key_mismatch"
    UNKNOWN_STREAM = "unknown_stream"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_CHANNEL = "wrong_channel"
    CLOCK = "clock"
    CONFLICT = "conflict"
    TOO_MANY_LIVES = "too_many_lives"


class BadBatchError(ContractError):
    """A batch that is not what the contract says; *reason* is what quarantine files it under."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Key(Struct, frozen=True, order=True):
    """A record's name, but for its device."""

    stream: str
    life: str
    seq: int

    def __str__(self) -> str:
        return key_text(self.stream, self.life, self.seq)


class Clock(Struct, frozen=True):
    """How far a batch's times can be trusted.

    ``src``: who set the clock; ``none`` is a clock that nobody set. ``off_ms``: the server's clock minus the
    board's own, as last measured; with ``src`` ``server`` the times have it applied already, with every other
    it is only evidence. ``unc_ms``: half of the round trip that measured it, or the source's own figure.
    """

    src: Literal["none", "ntp", "gnss", "server"]
    off_ms: TimeMs
    unc_ms: Annotated[int, Meta(ge=0, le=limits.TIME_MS_MAX)]


class Batch(Struct, frozen=True, gc=False, tag_field="t", tag="batch"):
    """Readings of one stream, columnar by name and row-wise by time.

    ``t0``: ms since the epoch as the device knew it, of the row whose ``dt`` is 0; ``mono``: ms since the
    board booted at the same instant. ``dt``: shape (rows,), ms after t0 by the monotonic clock, ascending.
    ``rows``: shape (rows, fields); a missing value is null. Names are checked by :func:`decode` itself: patterns
    in the types would cost ten times the rest of it.
    """

    v: Literal[1]
    stream: str
    life: str
    seq: Seq
    boot: str
    t0: TimeMs
    mono: Annotated[int, Meta(ge=0, le=limits.TIME_MS_MAX)]
    clock: Clock
    fields: Annotated[tuple[str, ...], Meta(min_length=1, max_length=limits.FIELDS_MAX)]
    dt: Annotated[list[SpanMs], Meta(min_length=1, max_length=limits.BATCH_ROWS_MAX)]
    rows: Annotated[list[list[Value | None]], Meta(min_length=1, max_length=limits.BATCH_ROWS_MAX)]


class Event(Struct, frozen=True, gc=False):
    """Something that happened: ``kind`` as the device class names it, with flat data."""

    kind: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.]{0,47}\Z")]
    data: Annotated[dict[Stream, Value | bool | Text | None], Meta(max_length=limits.EVENT_DATA_MAX)] = {}


class Events(Struct, frozen=True, gc=False, tag_field="t", tag="events"):
    """A batch of the journal. ``prev``: SHA-256 of the bytes of the batch before, in the same life."""

    v: Literal[1]
    stream: Stream
    life: Hex
    seq: Seq
    boot: Hex
    t0: TimeMs
    mono: Annotated[int, Meta(ge=0, le=limits.TIME_MS_MAX)]
    clock: Clock
    prev: Digest
    dt: Annotated[list[SpanMs], Meta(min_length=1, max_length=limits.EVENTS_MAX)]
    events: Annotated[list[Event], Meta(min_length=1, max_length=limits.EVENTS_MAX)]


Record: TypeAlias = Batch | Events

_HEX_DIGITS: Final = "0123456789abcdef"
_HEX16_CHARS: Final = 16
NAMES_REMEMBERED_MAX: Final = 4_096
"""(stream, fields) whose spelling is known to be right; a fleet has a few dozen."""
_DECODER: Final = msgspec.json.Decoder(Batch | Events)
_decoded: Final = _DECODER.decode
_ENCODER: Final = msgspec.json.Encoder()
_STREAM: Final = re.compile(exact(STREAM_PATTERN))


def encode(record: Record) -> tuple[bytes, str]:
    """The sealed bytes and their content type; bodies of 1 KiB and more are compressed.

    Raises:
        BadBatchError: what :func:`decode` would refuse (NaN and infinities encode to null, so they are looked
            for first).
    """
    for value in _values(record):
        # not (a <= b) is true of NaN too
        if isinstance(value, int | float) and not -limits.VALUE_ABS_MAX <= value <= limits.VALUE_ABS_MAX:
            raise BadBatchError(Reason.MALFORMED, f"expected a finite value below 1e15, got {value!r}")
    try:
        body = _ENCODER.encode(record)
    except UnicodeEncodeError as error:
        raise BadBatchError(Reason.MALFORMED, shown(error)) from error
    if len(body) > limits.BATCH_BYTES_INFLATED_MAX:
        raise BadBatchError(
            Reason.TOO_LARGE, f"expected at most {limits.BATCH_BYTES_INFLATED_MAX} bytes, got {len(body)}"
        )
    checked_names(_read(body))
    if len(body) < limits.BATCH_COMPRESS_BYTES_MIN:
        return body, CONTENT_JSON
    payload = zlib.compress(body, 6)
    if len(payload) > limits.BATCH_BYTES_MAX:
        raise BadBatchError(Reason.TOO_LARGE, f"expected at most {limits.BATCH_BYTES_MAX} bytes, got {len(payload)}")
    return payload, CONTENT_ZLIB


def _values(record: Record) -> Iterator[float | str | None]:
    if isinstance(record, Batch):
        return (value for row in record.rows for value in row)
    return (value for event in record.events for value in event.data.values())


def inflate(payload: bytes, content_type: str | None) -> bytes:
    """The JSON text of a payload, never more than BATCH_BYTES_INFLATED_MAX.

    Raises:
        BadBatchError: too large (before or after), not zlib, cut short, or of an unknown content type.
    """
    if len(payload) > limits.BATCH_BYTES_MAX:
        raise BadBatchError(Reason.TOO_LARGE, f"expected at most {limits.BATCH_BYTES_MAX} bytes, got {len(payload)}")
    if content_type == CONTENT_JSON or content_type is None:
        return payload
    if content_type != CONTENT_ZLIB:
        raise BadBatchError(Reason.MALFORMED, f"unknown content type {shown(content_type)!r}")
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(payload, limits.BATCH_BYTES_INFLATED_MAX + 1)
    except zlib.error as error:
        raise BadBatchError(Reason.MALFORMED, f"zlib: {error}") from error
    if len(body) > limits.BATCH_BYTES_INFLATED_MAX:
        raise BadBatchError(Reason.TOO_LARGE, f"inflates to more than {limits.BATCH_BYTES_INFLATED_MAX} bytes")
    if not stream.eof:
        raise BadBatchError(Reason.MALFORMED, "zlib: the stream ends early")
    if stream.unused_data:
        raise BadBatchError(Reason.MALFORMED, "zlib: bytes after the end of the stream")
    return body


def decode(payload: bytes, content_type: str | None = CONTENT_JSON) -> Record:
    """Read and check a sealed batch, as far as the contract alone can tell.

    Raises:
        BadBatchError: too large, not JSON, of an unknown kind, with a value, name or number outside its bounds
            (NaN, infinities, 2**70), or whose parts do not fit each other.
    """
    return checked_names(read(payload, content_type))


def read(payload: bytes, content_type: str | None) -> Record:
    """:func:`decode`, but for the spelling of a batch's stream and fields.

    For who looks these up in a list anyway, at thousands of batches a second; then :func:`checked_names` tells a
    name that is merely unknown from one that is none.
    """
    return _read(
        payload
        if content_type == CONTENT_JSON and len(payload) <= limits.BATCH_BYTES_MAX
        else inflate(payload, content_type)
    )


def checked_names(record: Record) -> Record:
    """The same record. Raises BadBatchError: its stream or a field is no name."""
    if type(record) is Batch:
        wrong = _misspelt(record.stream, record.fields)
        if wrong is not None:
            raise BadBatchError(Reason.MALFORMED, wrong)
    return record


def _read(body: bytes) -> Record:
    try:
        if not body.isascii():
            body.decode()  # the decoder skips what it does not know without a look
        record = _decoded(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBatchError(Reason.MALFORMED, shown(error)) from error
    dt = record.dt
    if len(dt) > 1 and sorted(dt) != dt:
        raise BadBatchError(Reason.SHAPE, "dt must ascend")
    if type(record) is Events:
        if len(record.events) != len(dt):
            raise BadBatchError(Reason.SHAPE, f"expected {len(dt)} events, got {len(record.events)}")
        return record
    assert type(record) is Batch
    life, boot = record.life, record.boot
    if len(life) != _HEX16_CHARS or life.strip(_HEX_DIGITS) or len(boot) != _HEX16_CHARS or boot.strip(_HEX_DIGITS):
        raise BadBatchError(Reason.MALFORMED, f"life and boot: expected 16 hex digits, got {shown((life, boot))}")
    rows = record.rows
    if len(rows) != len(dt):
        raise BadBatchError(Reason.SHAPE, f"expected {len(dt)} rows, got {len(rows)}")
    width = len(record.fields)
    for row in rows:
        if len(row) != width:
            raise BadBatchError(Reason.SHAPE, f"expected {width} values a row, got {len(row)}")
    return record


@lru_cache(NAMES_REMEMBERED_MAX)
def _misspelt(stream: str, fields: tuple[str, ...]) -> str | None:
    """What is wrong with the names of a batch, None if nothing is."""
    bad = [name for name in (stream, *fields) if not _STREAM.match(name)]
    return f"expected names like battery_pct, got {shown(bad[0])!r}" if bad else None


def key_text(stream: str, life: str, seq: int) -> str:
    """What goes into :data:`PROPERTY_KEY`."""
    return f"{stream}/{life}/{seq}"


def parse_key(text: str) -> Key:
    """Read :data:`PROPERTY_KEY`. Raises ContractError."""
    parts = text.split("/")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit()) or len(parts[2]) > 16:
        raise ContractError(f"key: expected STREAM/LIFE/SEQ, got {shown(text)!r}")
    try:
        stream, life, seq = msgspec.convert((parts[0], parts[1], int(parts[2])), tuple[Stream, Hex, Seq])
    except msgspec.ValidationError as error:
        raise ContractError(f"key {shown(text)!r}: {error}") from error
    return Key(stream, life, seq)
