"""Every message but the sealed batches: status, receipts, time, the server's state.

Each is one frozen struct whose JSON carries its kind as ``t``. Receivers ignore fields that they do not
know, so that a newer side may say more. ``tests/contract/vectors`` fixes the bytes.
"""

from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from broker_config import limits
from broker_config.ids import ContractError
from broker_config.ranges import Range, Ranges, normal
from broker_config.telemetry import Hex, Stream, Text, TimeMs, Value
from broker_config.text import shown

Count: TypeAlias = Annotated[int, Meta(ge=0, le=limits.SEQ_MAX)]
WireRanges: TypeAlias = Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=limits.RANGES_MAX)]
Name: TypeAlias = Annotated[str, Meta(max_length=64)]
MESSAGE_BYTES_MAX: Final = limits.BATCH_BYTES_MAX
"""Room for the largest birth: every stream, its lists full of the largest numbers."""


class BadMessageError(ContractError):
    """Not JSON, not this kind, or a value outside its bounds."""


class StreamState(Struct, frozen=True):
    """What a device says of one stream in its birth.

    ``first``: the lowest number still in the spool, ``last`` + 1 if none; ``last``: the highest ever given, 0 if
    none. ``gone``: evicted before a receipt. ``trimmed``: receipted and no longer held though above ``first``.
    What is below ``first`` and not gone was receipted. ``every_ms``: the cadence, 0 for none.
    """

    stream: Stream
    life: Hex
    first: Count
    last: Count
    gone: WireRanges = ()
    trimmed: WireRanges = ()
    every_ms: Count = 0


class Birth(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="birth"):
    """``up/status``, retained: here I am. Repeated after ``keep_alive_s`` of silence.

    ``epoch``: a nonce of this connection, which its will carries too. ``store_epoch``: the newest that an
    authentic receipt has told this device, 0 if none. ``profile_digest``: SHA-256 of the profile's bytes;
    ``hardware``: what the board calls itself; both are left out if not known. ``signers``: the version of whose
    signatures it obeys, 0 if nobody's; ``kid``: of the MAC keys that it checks receipts with.
    """

    v: Literal[1]
    epoch: Hex
    boot: Hex
    mono: Count
    keep_alive_s: Annotated[int, Meta(ge=1, le=limits.KEEP_ALIVE_S_MAX)]
    agent: Name
    device_class: Stream
    profile: Name
    store_epoch: Count
    seal_ms: Count
    streams: Annotated[tuple[StreamState, ...], Meta(max_length=limits.STREAMS_MAX)]
    profile_digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    hardware: Name = ""
    signers: Count = 0
    kid: Name = ""


class Will(Struct, frozen=True, tag_field="t", tag="will"):
    """``up/status``, retained: gone. Counts only with the epoch of the last birth.

    ``reason``: ``lost`` is what the broker publishes for a device that vanished, ``stop`` what it says itself.
    """

    v: Literal[1]
    epoch: Hex
    reason: Literal["lost", "stop"]


class Receipt(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="receipt"):
    """``dn/receipt``: everything up to ``up_to`` that is not ``missing`` is committed in the server's store.

    ``conflict``: numbers that the server has with other bytes; new batches then take a new life. ``tip``: CRC-32 of
    the payload that the server has under ``up_to``, left out if it does not know. A device that holds another batch
    under that number has gone on from an old image of its spool: what it found there without a receipt, and has not
    sent since, was never received.
    """

    v: Literal[1]
    stream: Stream
    life: Hex
    up_to: Count
    missing: WireRanges
    conflict: WireRanges
    store_epoch: Count
    tip: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] | None = None


class AskTime(Struct, frozen=True, tag_field="t", tag="ask_time"):
    """``up/time``: what time is it?"""

    v: Literal[1]
    nonce: Hex


class Time(Struct, frozen=True, tag_field="t", tag="time"):
    """``dn/time``: the server's clock, ms since the epoch, and how far it may be off."""

    v: Literal[1]
    nonce: Hex
    t_ms: TimeMs
    unc_ms: Count


class ShardEpoch(Struct, frozen=True):
    """Shards ``first`` to ``last`` (0 to 255) are owned under fencing token ``epoch``."""

    first: Annotated[int, Meta(ge=0, le=255)]
    last: Annotated[int, Meta(ge=0, le=255)]
    epoch: Count


class ServerState(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="server"):
    """``ff/1/server/state``, retained. A new epoch tells devices to offer again what has no receipt.

    ``spread_ms``: over how long devices that lose their broker at once are to spread their connections; counts only
    with ``up``: a server that goes says nothing of it. ``signers``, ``kid``: the newest that a device can have; only
    hints that it may ask (``POST /trust``), since nobody vouches for this message.
    """

    v: Literal[1]
    store_epoch: Count
    shards: Annotated[tuple[ShardEpoch, ...], Meta(max_length=256)]
    state: Literal["up", "down"]
    spread_ms: Annotated[int, Meta(ge=0, le=limits.RECONNECT_SPREAD_MS_MAX)] = 0
    signers: Count = 0
    kid: Name = ""


Result: TypeAlias = Annotated[
    dict[Stream, bool | Annotated[int, Meta(ge=-limits.SEQ_MAX, le=limits.SEQ_MAX)] | Value | Text],
    Meta(max_length=limits.RESULT_MAX),
]
"""What a command found: flat, so that it fits into an event of the journal, too."""


class CommandStatus(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="command_status"):
    """``up/command``: what became of a command. What was written down of it is in the journal: this only tells it
    sooner. ``id``: the command's own, empty if it could not be read.

    ``deferred``: obeyed as soon as it may be; ``waits_for`` is the lease that it waits for. ``obeyed``: begun. An end
    is one of ``done``, ``failed``, ``refused`` and ``interrupted``: the device died after it had begun, and does not
    begin again. ``reason``: one of :class:`broker_config.signing.Refusal` of a refused one, why of a failed one;
    ``replayed`` beside another state: the order came again, and this is what became of it the first time.
    """

    v: Literal[1]
    id: Annotated[str, Meta(pattern=r"^([0-9a-f]{16})?\Z")]
    state: Literal["deferred", "obeyed", "done", "failed", "refused", "interrupted"]
    reason: Name = ""
    waits_for: Name = ""
    result: Result = {}


Message: TypeAlias = Birth | Will | Receipt | AskTime | Time | ServerState | CommandStatus
Status: TypeAlias = Birth | Will
M = TypeVar("M", bound=Message)

_ENCODER: Final = msgspec.json.Encoder()
_STATUS: Final = msgspec.json.Decoder(Birth | Will)
_DECODERS: Final[dict[type, msgspec.json.Decoder[Message]]] = {
    kind: msgspec.json.Decoder(kind) for kind in (Birth, Will, Receipt, AskTime, Time, ServerState, CommandStatus)
}


def encode(message: Message) -> bytes:
    """The bytes that go to the broker; fields in the order of their declaration."""
    return _ENCODER.encode(message)


def _checked(payload: bytes, decoder: msgspec.json.Decoder[Message]) -> Message:
    if len(payload) > MESSAGE_BYTES_MAX:
        raise BadMessageError(f"expected at most {MESSAGE_BYTES_MAX} bytes, got {len(payload)}")
    try:
        if not payload.isascii():
            payload.decode()  # the decoder skips what it does not know without a look
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError(shown(error)) from error


def decode(payload: bytes, kind: type[M]) -> M:
    """Read a message of one kind. Raises BadMessageError."""
    message = _checked(payload, _DECODERS[kind])
    assert isinstance(message, kind)
    return message


def decode_status(payload: bytes) -> Status:
    """Read what a device says on ``up/status``. Raises BadMessageError."""
    message = _checked(payload, _STATUS)
    assert isinstance(message, Birth | Will)
    return message


def lowest(ranges: Ranges | list[Range]) -> Ranges:
    """The lowest ranges that fit into one message; the others follow as these are dealt with."""
    return normal(ranges)[: limits.RANGES_MAX]
