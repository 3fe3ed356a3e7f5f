"""The twin of a device: what is desired of it, what it reports, and how either is merged.

``desired`` is the body of a signed order of kind ``twin`` (:mod:`broker_config.signing`) on ``dn/twin``; ``reported``
and ``ask_twin`` go over ``up/twin``; ``twin_state`` is the server's answer to both, on ``dn/twin``, and signed by
nobody: a false one costs a question more, or a report that is known late and from the journal only.

Rule 1: desired and reported have versions of their own, each ``max(last + 1, unix_ms)``, so that who was restored
from a backup is not taken for somebody old. A device takes up a desired version only above the newest it took up.
Rule 2: a desired document is whole: what it leaves out has its default. Merging (RFC 7396) is the server's business.
Rule 3: no value is null: merging could not tell it from one to be removed.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from broker_config.ids import ContractError
from broker_config.messages import MESSAGE_BYTES_MAX, Count, Name
from broker_config.signing import BadEnvelopeError, Claims, Counter, Whole
from broker_config.telemetry import Hex, Stream, Text, Value
from broker_config.text import shown

SETTINGS_MAX: Final = 256
CONFIRM_S_MIN: Final = 5
CONFIRM_S_MAX: Final = 86_400
CONFIRM_S: Final = 300
"""How long a device tries whether it works with what it applied, before it goes back."""
MINUTES_A_DAY: Final = 1_440

SettingValue: TypeAlias = bool | Whole | Value | Text
Document: TypeAlias = Annotated[dict[Stream, SettingValue], Meta(max_length=SETTINGS_MAX)]
"""Setting -> value, as the device class has them."""
RolloutId: TypeAlias = Annotated[str, Meta(pattern=r"^([0-9a-f]{16})?\Z")]
Minute: TypeAlias = Annotated[int, Meta(ge=0, lt=MINUTES_A_DAY)]
Weekday: TypeAlias = Annotated[int, Meta(ge=1, le=7)]


class BadTwinError(ContractError):
    """Not JSON, not a part of a twin, or a value outside its bounds."""


class ApplyWindow(Struct, frozen=True, forbid_unknown_fields=True):
    """When a change may be applied, by the device's own clock and time zone. ``start``, ``end``: minutes after
    midnight, ``end`` excluded; an end not above its start is on the next day. ``days``: of the start, as ISO 8601
    counts (1 Monday); none is every day.
    """

    start: Minute
    end: Minute
    days: Annotated[tuple[Weekday, ...], Meta(max_length=7)] = ()


class Desired(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="t", tag="desired"):
    """The body of an order of kind ``twin``. ``confirm_s``: within so long after applying it the device shows itself
    that it works, or goes back to what it had. ``window`` None: at any time. ``rollout``: which one brings it.
    """

    v: Literal[1]
    version: Counter
    config: Document
    confirm_s: Annotated[int, Meta(ge=CONFIRM_S_MIN, le=CONFIRM_S_MAX)] = CONFIRM_S
    window: ApplyWindow | None = None
    rollout: RolloutId = ""


class ChangeState(StrEnum):
    """How far the newest desired version that a device took up has come.

    ``current``: in force and confirmed, or nothing was desired yet. ``deferred``: ``waits_for`` says for what.
    ``applying``, ``confirming``: under way. ``reverted``: applied, did not prove itself, undone. ``failed``: could
    not be applied. ``refused``: not what the device's class allows; never to be sent again. Under the last three what
    was in force before still is.
    """

    CURRENT = "current"
    DEFERRED = "deferred"
    APPLYING = "applying"
    CONFIRMING = "confirming"
    REVERTED = "reverted"
    FAILED = "failed"
    REFUSED = "refused"


ENDED: Final = frozenset({ChangeState.CURRENT, ChangeState.REVERTED, ChangeState.FAILED, ChangeState.REFUSED})
"""Nothing more comes of this version by itself."""


class Reported(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="reported"):
    """``up/twin``: what is so. Said at each change and on each connection, and again until the server knows it.

    ``desired``: the newest version taken up, 0 if none; ``state``, ``reason``, ``waits_for`` (a lease's name, or
    ``window``) are of that one. ``in_force``: the version that ``config`` comes from, 0 for defaults alone.
    ``config``: every setting of the class that the device can apply. What was done is in the journal as well.
    """

    v: Literal[1]
    version: Counter
    boot: Hex
    desired: Count
    in_force: Count
    state: ChangeState
    config: Document
    reason: Name = ""
    waits_for: Name = ""


class AskTwin(Struct, frozen=True, tag_field="t", tag="ask_twin"):
    """``up/twin``: what is desired? Asked on each connection. ``have``: the newest version taken up, 0 if none; a
    newer one is answered with its signed order, anything else with ``twin_state``.
    """

    v: Literal[1]
    have: Count


class TwinState(Struct, frozen=True, tag_field="t", tag="twin_state"):
    """``dn/twin``: a hint. ``desired``: the newest version that is meant for the device, 0 if none; a device that has
    an older one asks. ``reported``: the newest version that the server has committed, 0 if none.
    """

    v: Literal[1]
    desired: Count
    reported: Count


Said: TypeAlias = Reported | AskTwin
T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()
_DESIRED: Final = msgspec.json.Decoder(Desired)
_SAID: Final = msgspec.json.Decoder(Reported | AskTwin)
_STATE: Final = msgspec.json.Decoder(TwinState)


def encode(value: Desired | Reported | AskTwin | TwinState) -> bytes:
    """Its JSON; fields in the order of their declaration."""
    return _ENCODER.encode(value)


def decode_desired(claims: Claims) -> Desired:
    """Read the body of an order of kind ``twin``. Raises BadEnvelopeError."""
    try:
        return _DESIRED.decode(bytes(claims.body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadEnvelopeError(shown(error)) from error


def body(desired: Desired) -> Raw:
    """As it is signed."""
    return Raw(encode(desired))


def decode_said(payload: bytes) -> Said:
    """Read what a device says on ``up/twin``. Raises BadTwinError."""
    said: Said = _read(_SAID, payload)
    return said


def decode_state(payload: bytes) -> TwinState:
    """Read the server's hint. Raises BadTwinError: it is none, perhaps an order."""
    return _read(_STATE, payload)


def _read(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    if len(payload) > MESSAGE_BYTES_MAX:
        raise BadTwinError(f"expected at most {MESSAGE_BYTES_MAX} bytes, got {len(payload)}")
    try:
        if not payload.isascii():
            payload.decode()  # the decoder skips what it does not know without a look
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTwinError(shown(error)) from error


def next_version(last: int, now_ms: int) -> int:
    """The version after *last* (0 if there was none), by the clock of who counts."""
    return max(last + 1, now_ms)


def merged(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """*document* after a JSON merge patch (RFC 7396): objects merge, null removes, everything else replaces."""
    out = dict(document)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, Mapping):
            below = out.get(name)
            out[name] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            out[name] = value
    return out
