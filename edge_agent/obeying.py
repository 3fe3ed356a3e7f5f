"""Decides whether an order is obeyed: facts in, obey or refuse out.

Rule 1: unknown is no. Whatever is not known to be right is refused, under one reason.
Rule 2: whether a signature is right is a fact that is asked for (``edge_agent.adapters.checking``). What would be
refused were every signature right is refused without asking, so a flood of such costs no process.
Rule 3: the caller writes the counter down, durably, before it obeys. A power cut in between costs the order, never a
repetition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from broker_config import signing
from broker_config.device_classes import SafetyClass
from broker_config.ids import DeviceId
from broker_config.signing import (
    BadEnvelopeError,
    Candidate,
    Claims,
    Command,
    Envelope,
    Kind,
    Refusal,
    Roots,
    TooLargeError,
)

TELL_EVERY_MS: Final = 60_000
"""Refusals for one reason are one event in this time."""


def _nothing(_command: Command) -> Refusal | None:
    return Refusal.UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Facts:
    """What the device knows by itself.

    ``last``: the counter of the newest order of each kind that was obeyed; ``floor``: no counter up to here counts,
    whatever the kind; None if it is not known what was obeyed before. ``now_ms``: None if nobody vouches for the
    time. ``commands``: name -> safety class. ``bodies``: kind -> whether a body of it can be carried out; what is not
    there cannot. ``unable``: why a command cannot be taken on now, None if it can.
    """

    device: DeviceId
    roots: Roots | None
    commands: Mapping[str, SafetyClass]
    last: Mapping[Kind, int]
    floor: int | None
    now_ms: int | None
    bodies: Mapping[Kind, Callable[[Claims], bool]] = field(default_factory=dict)
    unable: Callable[[Command], Refusal | None] = _nothing


class Order(NamedTuple):
    """An order that could be read, and the signatures of it that are worth checking. ``command`` None: of a kind that
    has none.
    """

    envelope: Envelope
    claims: Claims
    command: Command | None
    candidates: tuple[Candidate, ...]

    @property
    def signed(self) -> bytes:
        """The bytes that a signature covers."""
        return signing.pre_authentication(self.envelope.payload_type, self.envelope.payload)

    @property
    def keyids(self) -> frozenset[str]:
        """Whose signatures it claims to have."""
        return frozenset(candidate.keyid for candidate in self.candidates)


class Obey(NamedTuple):
    """``command`` None: of a kind that has none."""

    claims: Claims
    command: Command | None


class Refuse(NamedTuple):
    """``id``: of the command, if it could be read; nobody vouches for it."""

    reason: Refusal
    id: str = ""


Decision: TypeAlias = Obey | Refuse


def read(data: bytes, channel: Kind, roots: Roots | None) -> Order | Refuse:
    """Take an order apart. *channel*: the kind that belongs on the topic that it came on."""
    try:
        envelope = signing.decode_envelope(data)
        claims = signing.decode_claims(envelope)
        command = signing.decode_command(claims) if claims.kind is Kind.COMMAND else None
    except TooLargeError:
        return Refuse(Refusal.TOO_LARGE)
    except BadEnvelopeError:
        return Refuse(Refusal.MALFORMED)
    name = command.id if command is not None else ""
    if claims.kind is not channel:
        return Refuse(Refusal.WRONG_KIND, name)
    found = () if roots is None else signing.candidates(envelope, roots, claims.kind)
    return Order(envelope, claims, command, found) if found else Refuse(Refusal.UNKNOWN_KEY, name)


def decide(order: Order, verified: frozenset[str], facts: Facts) -> Decision:
    """*verified*: the keys whose signatures are right."""
    claims, command = order.claims, order.command
    reason = _not_signed(order, verified, facts) or _not_meant(claims, facts) or _not_now(claims, facts)
    if reason is None:
        reason = _not_possible(claims, command, facts)
    if reason is None:
        return Obey(claims, command)
    return Refuse(reason, command.id if command is not None else "")


def _not_possible(claims: Claims, command: Command | None, facts: Facts) -> Refusal | None:
    if command is not None:
        return facts.unable(command)
    fits = facts.bodies.get(claims.kind)
    if fits is None:
        return Refusal.UNSUPPORTED
    return None if fits(claims) else Refusal.MALFORMED


def hopeless(order: Order, facts: Facts) -> Refuse | None:
    """Why it is refused even if every signature is right."""
    decision = decide(order, order.keyids, facts)
    return decision if isinstance(decision, Refuse) else None


def no_more(order: Order, facts: Facts) -> Refusal | None:
    """Why an order that was right, and has waited, is to be obeyed no more: its signers count no more."""
    return _not_signed(order, order.keyids, facts) or _not_meant(order.claims, facts)


def _not_signed(order: Order, verified: frozenset[str], facts: Facts) -> Refusal | None:
    if facts.roots is None:
        return Refusal.UNKNOWN_KEY
    # the signers may have changed since the order was read
    claimed = order.keyids & facts.roots.holders(order.claims.kind).keys()
    if not claimed:
        return Refusal.UNKNOWN_KEY
    if not verified & claimed:
        return Refusal.BAD_SIGNATURE
    needed = facts.roots.thresholds.of(signing.safety_of(order.command, facts.commands))
    return Refusal.TOO_FEW_SIGNERS if len(verified & claimed) < needed else None


def _not_meant(claims: Claims, facts: Facts) -> Refusal | None:
    if facts.roots is None or claims.site != facts.roots.site:
        return Refusal.WRONG_SITE
    return Refusal.NOT_FOR_THIS_DEVICE if claims.target != facts.device else None


def _not_now(claims: Claims, facts: Facts) -> Refusal | None:
    if facts.now_ms is None:
        return Refusal.CLOCK_NOT_SET
    if facts.now_ms >= claims.expires_ms:
        return Refusal.EXPIRED
    if claims.issued_ms > facts.now_ms + signing.ISSUED_AHEAD_MS_MAX:
        return Refusal.NOT_YET
    if claims.counter > facts.now_ms + signing.COUNTER_AHEAD_MS_MAX:
        return Refusal.NOT_YET
    if facts.floor is None:
        return Refusal.NOT_KEPT
    return Refusal.REPLAYED if claims.counter <= max(facts.last.get(claims.kind, 0), facts.floor) else None


# What is told of refusals -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Refusals:
    """Counts them, so that a hostile broker cannot fill the spool: the first of a reason is told at once, those of
    the next minute together.
    """

    _untold: dict[Refusal, int] = field(default_factory=dict)
    _told_ms: dict[Refusal, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._untold)

    def add(self, reason: Refusal) -> None:
        """One more."""
        self._untold[reason] = self._untold.get(reason, 0) + 1

    def due(self, mono_ms: int, *, everything: bool = False) -> dict[Refusal, int]:
        """Reason -> how many, of those that are to be told now."""
        ready = {
            reason: count
            for reason, count in self._untold.items()
            if everything or mono_ms - self._told_ms.get(reason, mono_ms - TELL_EVERY_MS) >= TELL_EVERY_MS
        }
        for reason in ready:
            del self._untold[reason]
            self._told_ms[reason] = mono_ms
        return ready
