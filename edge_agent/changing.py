"""Decides what becomes of a desired configuration: one frozen state, events in, the next state out.

    stage        what the device does in it                          left by
    idle         nothing: what was last confirmed is in force        a desired version, by which it is taken up
    waiting      looks whether a lease or the window holds it off    nothing does
    applying     has the handlers apply it                           they did, or could not
    confirming   checks it, and hears the server where it must       it proved itself, or its time is over
    reverting    has the handlers apply what was in force before     they did

Rule 1: everything that moves a change between stages is in TRANSITIONS; any other pair is refused.
Rule 2: nothing here reads a clock, a file or a socket. The caller stores the new state, durably, and only then does
what its stage says. A power cut repeats that and never skips it, so it must be safe to repeat.
Rule 3: what was confirmed last (``config``) is in the state until another one is confirmed. So whatever happens, what
is in force is the old configuration or the new one, and the state says which.
Rule 4: nothing lasts for ever: a change that is applied or has to prove itself outlives STARTS_MAX starts of the
agent, and no more; its time counts from when it was applied, by the monotonic clock, which a reboot begins anew.
Rule 5: a desired version that comes while another is applied, proves itself or is undone is next; the newest counts.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from broker_config import twin
from broker_config.text import shown
from broker_config.twin import ApplyWindow, ChangeState, Desired, Document, Reported
from edge_agent.journal import Data, Kind

STARTS_MAX: Final = 3
"""Starts of the agent that a change outlives before it has proved itself."""
REASON_CHARS_MAX: Final = 64
WINDOW: Final = "window"
"""What a change waits for, if not for a lease."""
INTERRUPTED: Final = "interrupted too often"
RESTARTED: Final = "restarted too often"


class Stage(StrEnum):
    """See the module."""

    IDLE = "idle"
    WAITING = "waiting"
    APPLYING = "applying"
    CONFIRMING = "confirming"
    REVERTING = "reverting"


class Event(StrEnum):
    """What happens to a change. ``started``: the agent has; ``ended``: the last of its starts."""

    TAKEN = "taken"
    REFUSED = "refused"
    HELD = "held"
    FREE = "free"
    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    PROVED = "proved"
    NOT_PROVED = "not_proved"
    RESTORED = "restored"
    GIVEN_UP = "given_up"
    STARTED = "started"
    STARTED_LAST = "started_last"


class RefusedEventError(Exception):
    """An event that cannot happen in that stage: a mistake of ours."""


S, E = Stage, Event

TRANSITIONS: Final[Mapping[tuple[Stage, Event], Stage]] = {
    (S.IDLE, E.TAKEN): S.WAITING,
    (S.IDLE, E.REFUSED): S.IDLE,
    (S.IDLE, E.STARTED): S.IDLE,
    (S.WAITING, E.TAKEN): S.WAITING,
    (S.WAITING, E.REFUSED): S.IDLE,  # the older one that waited is wanted no more
    (S.WAITING, E.HELD): S.WAITING,
    (S.WAITING, E.FREE): S.APPLYING,
    (S.WAITING, E.STARTED): S.WAITING,
    (S.APPLYING, E.APPLIED): S.CONFIRMING,
    (S.APPLYING, E.NOT_APPLIED): S.REVERTING,
    (S.APPLYING, E.STARTED): S.APPLYING,
    (S.APPLYING, E.STARTED_LAST): S.REVERTING,
    (S.CONFIRMING, E.PROVED): S.IDLE,
    (S.CONFIRMING, E.NOT_PROVED): S.REVERTING,
    (S.CONFIRMING, E.STARTED): S.CONFIRMING,
    (S.CONFIRMING, E.STARTED_LAST): S.REVERTING,
    (S.REVERTING, E.RESTORED): S.IDLE,
    (S.REVERTING, E.GIVEN_UP): S.IDLE,  # what was before cannot be had again, and another version is wanted
    (S.REVERTING, E.STARTED): S.REVERTING,
}


class Noted(Struct, frozen=True):
    """What the journal is told of a step."""

    kind: Kind
    data: dict[str, int | float | bool | str | None]


class Kept(Struct, frozen=True, omit_defaults=True):
    """All that is stored of it.

    ``state``, ``reason``, ``waits_for``: of ``taken``, the newest version taken up, once it has ended or while it
    waits. ``config``: as the last confirmed version ``in_force`` has it; empty for 0. ``trying``: the version under
    way; ``following``: one that came meanwhile. ``boot``, ``since_ms``: when it was applied, by the monotonic clock
    of that boot; ``starts``: of the agent since. ``reported``: what was said last, or is to be said.
    ``noted``: of the newest step; a power cut may have come before the journal had it, so the next start tells it
    once more.
    """

    v: Literal[1] = 1
    stage: Stage = Stage.IDLE
    taken: int = 0
    state: ChangeState = ChangeState.CURRENT
    reason: str = ""
    waits_for: str = ""
    in_force: int = 0
    config: Document = {}
    trying: Desired | None = None
    following: Desired | None = None
    boot: str = ""
    since_ms: int = 0
    starts: int = 0
    reported: Reported | None = None
    noted: Noted | None = None

    @property
    def have(self) -> int:
        """The newest version that need not be asked for."""
        return self.taken if self.following is None else self.following.version


def _step(kept: Kept, event: Event) -> Stage:
    try:
        return TRANSITIONS[kept.stage, event]
    except KeyError:
        raise RefusedEventError(f"{event} in stage {kept.stage}") from None


def _under_way(kept: Kept) -> Desired:
    assert kept.trying is not None
    return kept.trying


# What comes ---------------------------------------------------------------------------------------------------------


def come(kept: Kept, desired: Desired, faults: Sequence[str]) -> Kept:
    """A desired version came that is newer than every one before. *faults*: why this device cannot be set to it."""
    if desired.version <= kept.have:
        return kept
    if kept.stage not in {Stage.IDLE, Stage.WAITING}:
        return replace(kept, following=desired)
    if faults:
        return _ended(kept, Event.REFUSED, ChangeState.REFUSED, faults[0], taken=desired.version)
    stage = _step(kept, Event.TAKEN)
    return replace(
        kept, stage=stage, taken=desired.version, trying=desired, following=None, starts=0, reason="", waits_for=""
    )


def follow(kept: Kept, faults: Sequence[str]) -> Kept:
    """Nothing is under way any more: take up what came meanwhile."""
    desired = kept.following
    return kept if desired is None else come(replace(kept, following=None), desired, faults)


# What time and leases make of it ------------------------------------------------------------------------------------


def held(kept: Kept, waits_for: str) -> Kept:
    """A lease, or WINDOW, holds it off."""
    return replace(kept, stage=_step(kept, Event.HELD), waits_for=waits_for)


def free(kept: Kept) -> Kept:
    """Nothing holds it off: it is applied from now on."""
    return replace(kept, stage=_step(kept, Event.FREE), waits_for="", starts=0)


def applied(kept: Kept, *, boot: str, mono_ms: int) -> Kept:
    """The handlers have applied it."""
    return replace(kept, stage=_step(kept, Event.APPLIED), boot=boot, since_ms=mono_ms, starts=0)


def not_applied(kept: Kept, reason: str) -> Kept:
    """A handler could not."""
    return replace(kept, stage=_step(kept, Event.NOT_APPLIED), state=ChangeState.FAILED, reason=_short(reason))


def proved(kept: Kept) -> Kept:
    """It is in force for good."""
    trying = _under_way(kept)
    proven = _ended(kept, Event.PROVED, ChangeState.CURRENT, "", taken=trying.version)
    return replace(proven, in_force=trying.version, config=trying.config)


def not_proved(kept: Kept, reason: str) -> Kept:
    """Its time is over."""
    return replace(kept, stage=_step(kept, Event.NOT_PROVED), state=ChangeState.REVERTED, reason=_short(reason))


def restored(kept: Kept) -> Kept:
    """What was in force before is again."""
    return _ended(kept, Event.RESTORED, kept.state, kept.reason, taken=kept.taken)


def given_up(kept: Kept, reason: str) -> Kept:
    """It is not, and another version is wanted."""
    return _ended(kept, Event.GIVEN_UP, ChangeState.FAILED, reason, taken=kept.taken)


def started(kept: Kept, *, boot: str, mono_ms: int) -> Kept:
    """The agent started, perhaps after a power cut in the midst of a change."""
    if kept.stage in {Stage.IDLE, Stage.WAITING, Stage.REVERTING}:
        return replace(kept, stage=_step(kept, Event.STARTED))
    again = replace(kept, starts=kept.starts + 1)
    if kept.stage is Stage.CONFIRMING and kept.boot != boot:
        again = replace(again, boot=boot, since_ms=mono_ms)
    if again.starts <= STARTS_MAX:
        return replace(again, stage=_step(again, Event.STARTED))
    state, reason = (
        (ChangeState.FAILED, INTERRUPTED) if kept.stage is Stage.APPLYING else (ChangeState.REVERTED, RESTARTED)
    )
    return replace(again, stage=_step(again, Event.STARTED_LAST), state=state, reason=reason)


def _ended(kept: Kept, event: Event, state: ChangeState, reason: str, *, taken: int) -> Kept:
    return replace(
        kept,
        stage=_step(kept, event),
        taken=taken,
        state=state,
        reason=_short(reason),
        waits_for="",
        trying=None,
        boot="",
        since_ms=0,
        starts=0,
    )


def _short(reason: str) -> str:
    return shown(reason, REASON_CHARS_MAX)


# What follows from it -----------------------------------------------------------------------------------------------


def left_ms(kept: Kept, *, boot: str, mono_ms: int) -> int:
    """How much time is left for it to prove itself."""
    since_ms = kept.since_ms if kept.boot == boot else mono_ms
    return since_ms + _under_way(kept).confirm_s * 1000 - mono_ms


def is_open(window: ApplyWindow | None, now: datetime | None) -> bool:
    """Whether a change may be applied. *now*: in the device's time zone; None if nobody vouches for the time."""
    if window is None:
        return True
    if now is None:
        return False
    minute, today = now.hour * 60 + now.minute, now.isoweekday()
    yesterday = (today - 2) % 7 + 1
    if window.start < window.end:
        days = [today] if window.start <= minute < window.end else []
    else:
        days = [today] * (minute >= window.start) + [yesterday] * (minute < window.end)
    return any(not window.days or day in window.days for day in days)


def in_trial(kept: Kept) -> tuple[int, Document]:
    """The version that the handlers were last asked to apply and did, and its settings."""
    if kept.stage is Stage.CONFIRMING:
        trying = _under_way(kept)
        return trying.version, trying.config
    return kept.in_force, kept.config


def told(kept: Kept, *, boot: str, now_ms: int, config: Document, known: int = 0) -> Kept:
    """With what is to be reported: under a new version if it is other than what was said last. *config*: every
    setting that can be applied here, as it is in force; *known*: a version that the server has seen.
    """
    last = kept.reported
    version, reason = last.version if last is not None else 0, kept.reason
    state, waits_for = kept.state, ""
    match kept.stage:
        case Stage.WAITING:
            state, waits_for, reason = ChangeState.DEFERRED, kept.waits_for, ""
        case Stage.APPLYING:
            state, reason = ChangeState.APPLYING, ""
        case Stage.CONFIRMING:
            state, reason = ChangeState.CONFIRMING, ""
        case Stage.REVERTING:
            state = ChangeState.CONFIRMING
        case Stage.IDLE:
            pass
    now = Reported(1, version, boot, kept.taken, in_trial(kept)[0], state, config, reason, waits_for)
    if now == last and version >= known:
        return kept
    return replace(kept, reported=replace(now, version=twin.next_version(max(version, known), now_ms)))


def event(before: Kept, now: Kept) -> Noted | None:
    """What the journal is told of a step; None: nothing."""
    found = _event(before, now)
    return None if found is None else Noted(found[0], {"version": now.taken, **found[1]})


def _event(before: Kept, now: Kept) -> tuple[Kind, Data] | None:
    if now.taken != before.taken:
        if now.state is ChangeState.REFUSED and now.stage is Stage.IDLE:
            return Kind.CONFIG_REFUSED, {"reason": now.reason}
        if now.stage is Stage.WAITING:
            return Kind.CONFIG_TAKEN, {}
    if now.waits_for and now.waits_for != before.waits_for:
        return Kind.CONFIG_DEFERRED, {"waits_for": now.waits_for}
    match before.stage, now.stage:
        case Stage.APPLYING, Stage.CONFIRMING:
            return Kind.CONFIG_APPLIED, {}
        case Stage.CONFIRMING, Stage.IDLE:
            return Kind.CONFIG_CONFIRMED, {}
        case Stage.REVERTING, Stage.IDLE if now.state is ChangeState.REVERTED:
            return Kind.CONFIG_REVERTED, {"to": now.in_force, "reason": now.reason}
        case Stage.REVERTING, Stage.IDLE:
            return Kind.CONFIG_FAILED, {"reason": now.reason}
        case _:
            return None
