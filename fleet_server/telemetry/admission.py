"""Is this batch what it says? What is not goes to quarantine, with the reason.

The contract's own bounds are checked by the codec; here is what only the server can tell: whether the key that
travels beside the body is the body's, whether the channel fits, the stream is known, the clock is possible.
"""

from collections.abc import Mapping
from typing import Final

from broker_config import limits
from broker_config.telemetry import (
    JOURNAL,
    BadBatchError,
    Batch,
    Reason,
    Record,
    checked_names,
    key_text,
    read,
)
from broker_config.text import shown
from broker_config.topics import Up

KnownStreams = Mapping[str, frozenset[str]]
# an enumeration's member costs a look-up each time it is named
TELEMETRY: Final = Up.TELEMETRY
EVENT: Final = Up.EVENT


def admit(
    payload: bytes, content_type: str | None, key: str | None, channel: Up, known: KnownStreams, now_ms: int
) -> Record:
    """Decode a sealed batch and check it against what is known beside it.

    Args:
        payload: as received.
        content_type: as received.
        key: the user property, None if there was none.
        channel: telemetry or event.
        known: stream -> every field that any device class gives it.
        now_ms: the server's clock.

    Raises:
        BadBatchError: with the reason that quarantine files it under.
    """
    record = read(payload, content_type)
    stream = record.stream
    if key != key_text(stream, record.life, record.seq):
        checked_names(record)
        raise BadBatchError(
            Reason.KEY_MISMATCH, f"the body is {stream}/{record.life}/{record.seq}, beside it {shown(key)!r}"
        )
    if type(record) is Batch:
        if channel is not TELEMETRY:
            raise BadBatchError(Reason.WRONG_CHANNEL, f"a batch on {channel}")
        fields = known.get(stream)
        if fields is None or stream == JOURNAL or not fields.issuperset(record.fields):
            raise _unknown(record, fields)
    elif channel is not EVENT:
        raise BadBatchError(Reason.WRONG_CHANNEL, f"events on {channel}")
    elif stream != JOURNAL:
        raise BadBatchError(Reason.UNKNOWN_STREAM, f"events of stream {stream!r}")
    if record.clock.src != "none" and not (limits.CLOCK_MS_MIN <= record.t0 <= now_ms + limits.CLOCK_AHEAD_MS_MAX):
        raise BadBatchError(Reason.CLOCK, f"a clock set by {record.clock.src} says {record.t0}, here it is {now_ms}")
    return record


def _unknown(record: Batch, fields: frozenset[str] | None) -> BadBatchError:
    checked_names(record)
    if fields is None or record.stream == JOURNAL:
        return BadBatchError(Reason.UNKNOWN_STREAM, f"a batch of stream {record.stream!r}")
    extra = ", ".join(name for name in record.fields if name not in fields)
    return BadBatchError(Reason.UNKNOWN_FIELD, f"{record.stream} has no {extra}")
