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
    Events,
    Reason,
    Record,
    decode,
    key_text,
)
from broker_config.text import shown
from broker_config.topics import Up

KnownStreams = Mapping[str, frozenset[str]]
_KIND: Final = {Up.TELEMETRY: Batch, Up.EVENT: Events}


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
    record = decode(payload, content_type)
    if key != key_text(record.stream, record.life, record.seq):
        raise BadBatchError(
            Reason.KEY_MISMATCH, f"the body is {record.stream}/{record.life}/{record.seq}, beside it {shown(key)!r}"
        )
    kind = type(record)
    if kind is not _KIND.get(channel):
        raise BadBatchError(Reason.WRONG_CHANNEL, f"{kind.__name__} on {channel}")
    fields = known.get(record.stream)
    if fields is None or (kind is Events) != (record.stream == JOURNAL):
        raise BadBatchError(Reason.UNKNOWN_STREAM, f"{kind.__name__} of stream {record.stream!r}")
    if isinstance(record, Batch) and not fields.issuperset(record.fields):
        extra = ", ".join(name for name in record.fields if name not in fields)
        raise BadBatchError(Reason.UNKNOWN_FIELD, f"{record.stream} has no {extra}")
    if record.clock.src != "none" and not (limits.CLOCK_MS_MIN <= record.t0 <= now_ms + limits.CLOCK_AHEAD_MS_MAX):
        raise BadBatchError(Reason.CLOCK, f"a clock set by {record.clock.src} says {record.t0}, here it is {now_ms}")
    return record
