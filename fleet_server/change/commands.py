"""What becomes of a command: states with one owner each, and what moves a target from one to the next. Pure.

A command is asked for once and has a target for each device that is meant; each target has a state of its own, and
all of them together are told plainly (:func:`told`).

Rule 1: an order is kept before it is said, and said again with each birth until an end is heard or nobody waits any
more; the device obeys it once, and answers a repetition with what became of it.
Rule 2: the first end that a device tells counts; a word that comes after the time still does. What the device's own
journal says counts as its status does.
Rule 3: a command that is signed anew keeps its id and its expiry, by which the device knows it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

import msgspec

from broker_config.device_classes import SafetyClass
from broker_config.messages import CommandStatus
from broker_config.signing import Kind, Refusal
from fleet_server.telemetry.store import EventFact

TARGETS_MAX: Final = 5_000
APPROVED_TARGETS_MAX: Final = 20
"""Of a command that a second person signs: each of its orders is looked at."""
GRACE_MS: Final = 60_000
"""After its expiry a command may still be on its way back."""
LATE_MS: Final = 604_800_000
"""So long after its expiry the journal is still asked what became of it."""
SILENT_MS: Final = 30_000
"""A device that has not answered an order for so long holds up no other's."""

NOT_YET: Final = frozenset({Refusal.CLOCK_NOT_SET.value, Refusal.NOT_KEPT.value, Refusal.UNCHECKED.value})
"""Reasons that pass by themselves: a device that has just started asks the time first. It is told again."""
AGAIN_MS: Final = 3_000
"""After such a refusal."""

Value: TypeAlias = bool | int | float | str


class Owner(StrEnum):
    """Who moves a target out of a state."""

    SERVER = "server"
    PERSON = "person"
    DEVICE = "device"
    NOBODY = "nobody"


class State(StrEnum):
    """Of one target."""

    CREATED = "created"
    AWAITING_APPROVAL = "awaiting_approval"
    SIGNED = "signed"
    SENT = "sent"
    DEFERRED = "deferred"
    OBEYED = "obeyed"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


OWNERS: Final[Mapping[State, Owner]] = {
    State.CREATED: Owner.SERVER,
    State.AWAITING_APPROVAL: Owner.PERSON,
    State.SIGNED: Owner.SERVER,
    State.SENT: Owner.DEVICE,
    State.DEFERRED: Owner.DEVICE,
    State.OBEYED: Owner.DEVICE,
    State.DONE: Owner.NOBODY,
    State.FAILED: Owner.NOBODY,
    State.REFUSED: Owner.NOBODY,
    State.INTERRUPTED: Owner.NOBODY,
    State.EXPIRED: Owner.NOBODY,
    State.CANCELLED: Owner.NOBODY,
}
OPEN: Final = frozenset(state for state, owner in OWNERS.items() if owner is not Owner.NOBODY)
"""An end is still waited for."""
UNSAID: Final = frozenset({State.CREATED, State.AWAITING_APPROVAL, State.SIGNED})
"""No device has heard of it, so it can be taken back."""
SAID: Final = frozenset({State.SENT, State.DEFERRED, State.OBEYED})
"""Said to the device, and said again with each birth."""
_ENDS: Final = frozenset({State.DONE, State.FAILED, State.REFUSED, State.INTERRUPTED})
_ORDER: Final = {State.DEFERRED: 1, State.OBEYED: 2}


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for. ``needs``: how many signatures its orders need; ``by``, ``approved_by``: holders.

    ``safety``: the highest of the classes of the devices that are meant.
    """

    command: str
    name: str
    parameters: Mapping[str, Value]
    safety: SafetyClass
    needs: int
    by: str
    created_ms: int
    expires_ms: int
    approved_by: str = ""
    approved_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One device of a command. ``path``: where it was when the command was asked for; ``order``: the envelope, as
    long as it may be said again; ``counter``: of that, 0 if there is none.
    """

    command: str
    device: str
    path: str
    state: State
    expires_ms: int
    reason: str = ""
    waits_for: str = ""
    result: Mapping[str, Value] = field(default_factory=dict)
    counter: int = 0
    order: bytes = b""
    sent_ms: int | None = None
    heard_ms: int | None = None
    ended_ms: int | None = None


class Word(NamedTuple):
    """What a device says of a command, on ``up/command`` or in its journal."""

    device: str
    command: str
    state: State
    reason: str = ""
    waits_for: str = ""
    result: Mapping[str, Value] = {}


def first_state(needs: int) -> State:
    """Of a new target."""
    return State.CREATED if needs <= 1 else State.AWAITING_APPROVAL


def lifetime_ms(expires_s: int | None, classes_s: Iterable[int], *, most_ms: int) -> int:
    """How long a command counts: as it is asked, but no longer than any of its classes and the signer allow."""
    shortest_ms = 1000 * min(classes_s)
    return min(most_ms, shortest_ms if expires_s is None else min(shortest_ms, 1000 * expires_s))


def heard(target: Target, word: Word, now_ms: int) -> Target:
    """*target* after a word of its device; the same object if that changes nothing."""
    if _is_final(target):
        return target
    if word.state is State.REFUSED and word.reason in NOT_YET and target.state in SAID:
        return replace(target, reason=word.reason, heard_ms=now_ms)
    if word.state in _ENDS:
        return replace(
            target,
            state=word.state,
            reason=word.reason,
            waits_for="",
            result=word.result,
            order=b"",
            heard_ms=now_ms,
            ended_ms=now_ms,
        )
    if target.state not in OPEN or _ORDER[word.state] < _ORDER.get(target.state, 0):
        return target
    if (word.state, word.waits_for) == (target.state, target.waits_for):
        return target
    return replace(target, state=word.state, reason="", waits_for=word.waits_for, heard_ms=now_ms)


def _is_final(target: Target) -> bool:
    """A device that only says that it obeyed a newer order does not say what became of this one."""
    return target.state in _ENDS and target.reason != Refusal.REPLAYED


def expired(target: Target, now_ms: int) -> Target:
    """*target* after its time: no end was heard. What was never said needs no grace."""
    grace_ms = GRACE_MS if target.state in SAID else 0
    if target.state not in OPEN or now_ms < target.expires_ms + grace_ms:
        return target
    return replace(target, state=State.EXPIRED, reason=target.state.value, order=b"", ended_ms=now_ms)


def cancelled(target: Target, now_ms: int) -> Target:
    """*target* if it can still be taken back."""
    if target.state not in UNSAID:
        return target
    return replace(target, state=State.CANCELLED, order=b"", ended_ms=now_ms)


def may_approve(command: Command, by: str) -> bool:
    """The second person is another one."""
    return by != command.by


# What devices say ---------------------------------------------------------------------------------------------------


def word_of(device: str, status: CommandStatus) -> Word | None:
    """Of a status; None: it names no command."""
    if not status.id:
        return None
    state = State(status.state)
    repeated = status.reason == Refusal.REPLAYED and state is not State.REFUSED
    return Word(device, status.id, state, "" if repeated else status.reason, status.waits_for, status.result)


_NOTED: Final[Mapping[str, State]] = {
    "command.deferred": State.DEFERRED,
    "command.obeyed": State.OBEYED,
    "command.done": State.DONE,
    "command.failed": State.FAILED,
    "command.interrupted": State.INTERRUPTED,
}
_DATA: Final = msgspec.json.Decoder(dict[str, bool | float | str | None])
_OF_THE_EVENT: Final = frozenset({"id", "name", "reason", "waits_for", "counter", "kind", "suppressed"})


def word_in(device: str, event: EventFact) -> Word | None:
    """Of a journal's event; None: it is of something else."""
    state = _NOTED.get(event.kind)
    if state is None:
        return None
    try:
        data = _DATA.decode(event.data_json)
    except msgspec.MsgspecError:
        return None
    name = data.get("id")
    if not isinstance(name, str) or not name or data.get("kind", Kind.COMMAND.value) != Kind.COMMAND.value:
        return None
    result = {key: _value(value) for key, value in data.items() if key not in _OF_THE_EVENT and value is not None}
    reason, waits_for = (str(data.get(key) or "") for key in ("reason", "waits_for"))
    return Word(device, name, state, reason, waits_for, result)


def _value(value: Value) -> Value:
    """The journal's numbers are all floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# What is told of all of them ----------------------------------------------------------------------------------------


class Count(NamedTuple):
    """So many targets are in a state for one reason."""

    state: State
    reason: str
    targets: int


_SILENT: Final = "silent"


def told(counts: Sequence[Count]) -> str:
    """In words: ``31 done, 2 refused (busy), 7 silent``. Silent: the order was said, and nothing was heard."""
    words: Counter[str] = Counter()
    for count in counts:
        words[_words(count)] += count.targets
    order = [State.DONE.value, State.FAILED.value, State.REFUSED.value]
    ranked = sorted(words.items(), key=lambda item: _rank(item[0], order))
    return ", ".join(f"{number} {what}" for what, number in ranked) or "no device"


def _words(count: Count) -> str:
    if count.state is State.SENT and count.reason:
        return f"not yet ({count.reason})"
    if count.state is State.SENT or (count.state is State.EXPIRED and count.reason == State.SENT):
        return _SILENT
    words = count.state.value.replace("_", " ")
    reason = count.reason.replace("_", " ") if count.state is State.EXPIRED else count.reason
    return f"{words} ({reason})" if reason else words


def _rank(words: str, order: Sequence[str]) -> tuple[int, str]:
    first = words.split(" ", 1)[0]
    return (order.index(first) if first in order else len(order), words)


def is_over(counts: Iterable[Count]) -> bool:
    """Whether nothing more is waited for."""
    return all(count.state not in OPEN for count in counts)
