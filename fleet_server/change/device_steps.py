"""How one device moves on in a rollout, by what it shows. Pure.

What it shows is what counts: the version in force, its settings, that it is still there. Where a row says *end*, the
device may be tried again if the plan has tries left, but never after ``rejected``.

==============  ==========================================================================================
queued          its turn -> offered; a newer rollout has it -> superseded; ``queued_s`` -> timed_out
offered         taken up -> waiting, applying, verifying; ``step_s``, ``total_s`` -> timed_out, *end*
waiting         the lease or window is over -> applying; ``total_s`` -> timed_out, *end*
applying        in force as desired -> verifying; reverted, failed -> failed, *end*; refused -> rejected
verifying       ``soak_s`` with the device there -> succeeded; other settings than desired -> failed; not healthy for
                ``ill_s`` -> failed; ``soak_s`` and ``total_s`` are over -> timed_out
these four      not there for ``silent_s`` and no word why -> silent; something else is desired -> superseded
timed_out       a word after all, once -> verifying, failed, rejected
silent          there again -> where it then is
rolling_back    shows what it had -> rolled_back; could not -> failed; ``total_s`` -> timed_out
==============  ==========================================================================================
"""

from typing import NamedTuple

import msgspec

from broker_config.twin import ChangeState
from fleet_server.change.rollout_plan import Ill, Plan
from fleet_server.change.rollout_state import (
    NOT,
    OPEN,
    REASON_CHARS_MAX,
    Known,
    Meant,
    Member,
    Phase,
    Shown,
    State,
)

changed = msgspec.structs.replace

DRIFT = "says that it is current, and its settings are others"


class Look(NamedTuple):
    """What is the same for all devices at one look; ``clock_ms``: of the rollout. ``wave_ms``, ``phase_ms``: when the
    newest wave and the phase began.
    """

    plan: Plan
    phase: Phase
    clock_ms: int
    wave: int
    wave_ms: int
    phase_ms: int


def moved(member: Member, known: Known, look: Look) -> Member:
    """*member* after this look."""
    if member.state is State.ROLLING_BACK:
        return _going_back(member, known, look)
    if member.state is State.QUEUED:
        return _queued(member, known, look)
    if member.state in OPEN or member.state in {State.SILENT, State.TIMED_OUT}:
        return _out(member, known, look)
    return member


def _queued(member: Member, known: Known, look: Look) -> Member:
    if known.taken:
        return _to(member, State.SUPERSEDED, look, "a newer rollout has it")
    if look.phase is not Phase.RUNNING or member.wave > look.wave:
        return member
    waited_ms = look.clock_ms - max(member.since_ms, look.wave_ms)
    if waited_ms > look.plan.timers.queued_s * 1000:
        return _to(member, State.TIMED_OUT, look, "it was never its turn: " + (member.reason or "not there"))
    return member


def _out(member: Member, known: Known, look: Look) -> Member:
    """It has had its turn, and may still have a word to say."""
    if not member.executed or member.back:
        return member  # timed out without a turn, or on its way back
    if known.meant is Meant.OTHER and member.state in OPEN:
        return _to(member, State.SUPERSEDED, look, "something newer is desired of it")
    if known.refused and not member.version:
        return _to(member, State.REJECTED, look, known.refused, ill=Ill.REJECTED)
    if known.meant not in {Meant.NEW, Meant.BOTH} or (member.again and known.version <= member.base):
        # the turn was decided and never carried out, or the server was restored from before it
        return _lost(member, look) if member.state in OPEN else member
    member = changed(member, version=known.version)
    member = _seen(member, known, look)
    shown = known.shown
    if shown is None or shown.desired != member.version:
        return _stay(member, State.OFFERED, known, look)
    why = shown.reason or shown.state.value
    match shown.state:
        case ChangeState.REFUSED:
            return _to(member, State.REJECTED, look, why, ill=Ill.REJECTED)
        case ChangeState.REVERTED | ChangeState.FAILED:
            return _failed(member, look, why)
        case ChangeState.CURRENT:
            if shown.in_force != member.version or not shown.as_desired:
                return _to(member, State.FAILED, look, DRIFT, ill=Ill.FAILED, loose=True)
            return _verifying(member, known, look)
        case ChangeState.DEFERRED:
            return _stay(member, State.WAITING, known, look, shown)
        case ChangeState.APPLYING | ChangeState.CONFIRMING:
            return _stay(member, State.APPLYING, known, look, shown)


def _lost(member: Member, look: Look) -> Member:
    return changed(_to(member, State.QUEUED, look, "its turn was lost"), version=0, shown_ms=NOT)


def _seen(member: Member, known: Known, look: Look) -> Member:
    """Time away does not count, neither for nor against it."""
    if known.present:
        if member.away_ms == NOT:
            return member
        away_ms = look.clock_ms - member.away_ms
        return changed(member, away_ms=NOT, since_ms=min(look.clock_ms, member.since_ms + away_ms))
    if member.away_ms == NOT:
        return changed(member, away_ms=look.clock_ms, ill_ms=NOT)
    return member


def _stay(member: Member, stage: State, known: Known, look: Look, shown: Shown | None = None) -> Member:
    """It is in *stage*, and nothing is proved; look at the timers."""
    timers = look.plan.timers
    if member.state is State.TIMED_OUT or (member.state is State.SILENT and not known.present):
        return member
    if member.state is not stage:
        member = _to(member, stage, look, "")
    if stage is State.WAITING and shown is not None:
        member = changed(member, reason=_short(f"waits for {shown.waits_for or shown.reason}"))
    if _is_silent(member, known, look):
        return _to(member, State.SILENT, look, f"not there since it was {stage}", ill=Ill.SILENT, loose=True)
    if look.clock_ms - member.released_ms > timers.total_s * 1000:
        return _timed_out(member, look, f"total: still {stage}")
    step_ms = look.clock_ms - member.since_ms
    if stage is not State.WAITING and known.present and step_ms > timers.step_s * 1000:
        return _timed_out(member, look, f"step: still {stage}")
    return member


def _verifying(member: Member, known: Known, look: Look) -> Member:
    timers, soak_ms = look.plan.timers, look.plan.waves[member.wave].soak_s * 1000
    if member.state is State.TIMED_OUT:
        if member.late:
            return member
        member = changed(member, late=True)
    elif member.state is State.SILENT and not known.present:
        return member
    if member.state is not State.VERIFYING:
        first_ms = look.clock_ms if member.shown_ms == NOT else member.shown_ms
        member = changed(_to(member, State.VERIFYING, look, ""), shown_ms=first_ms)
    if member.well and known.present and not known.healthy:
        ill_ms = look.clock_ms if member.ill_ms == NOT else member.ill_ms
        member = changed(member, ill_ms=ill_ms)
        if look.clock_ms - ill_ms > timers.ill_s * 1000:
            return _to(member, State.FAILED, look, "not healthy since", ill=Ill.HEALTH, loose=True)
    elif known.healthy:
        member = changed(member, ill_ms=NOT)
    if known.present and member.ill_ms == NOT and look.clock_ms - member.since_ms >= soak_ms:
        return _to(member, State.SUCCEEDED, look, "")
    if _is_silent(member, known, look):
        return _to(member, State.SILENT, look, "not there since it shows the change", ill=Ill.SILENT, loose=True)
    if look.clock_ms - member.shown_ms > soak_ms + timers.total_s * 1000:
        return _to(member, State.TIMED_OUT, look, "soak: was hardly there", ill=Ill.TIMED_OUT, late=True, loose=True)
    return member


def _is_silent(member: Member, known: Known, look: Look) -> bool:
    if known.present or known.excused or member.away_ms == NOT:
        return False
    return look.clock_ms - member.away_ms > look.plan.timers.silent_s * 1000


def _failed(member: Member, look: Look, why: str) -> Member:
    if _may_be_tried(look) and member.tries_failed < look.plan.retries.failed:
        again = _again(member, look, why)
        return changed(again, tries_failed=member.tries_failed + 1, loose=False)
    return _to(member, State.FAILED, look, why, ill=Ill.FAILED)


def _timed_out(member: Member, look: Look, why: str) -> Member:
    if _may_be_tried(look) and member.tries_timed_out < look.plan.retries.timed_out:
        return changed(_again(member, look, why), tries_timed_out=member.tries_timed_out + 1, loose=True)
    return _to(member, State.TIMED_OUT, look, why, ill=Ill.TIMED_OUT, loose=True)


def _may_be_tried(look: Look) -> bool:
    return look.phase in {Phase.RUNNING, Phase.PAUSED}


def _again(member: Member, look: Look, why: str) -> Member:
    queued = _to(member, State.QUEUED, look, f"to be tried again: {why}")
    return changed(queued, again=True, version=0, shown_ms=NOT)


def _going_back(member: Member, known: Known, look: Look) -> Member:
    """What it had is desired of it again; where the rollout is only canceled, that is all that is waited for."""
    canceling = look.phase is Phase.CANCELING
    if known.meant is Meant.OTHER:
        return _to(member, State.SUPERSEDED, look, "something newer is desired of it")
    if known.meant is not Meant.NEW:
        if canceling:
            return _to(member, State.CANCELED, look, "withdrawn")
        member = changed(member, version=known.version)
        shown = known.shown
        if shown is not None and shown.desired == member.version:
            why = shown.reason or shown.state.value
            if shown.state in {ChangeState.REVERTED, ChangeState.FAILED, ChangeState.REFUSED}:
                return _to(member, State.FAILED, look, f"back: {why}", ill=Ill.FAILED, loose=False)
            if shown.state is ChangeState.CURRENT and shown.in_force == member.version and shown.as_desired:
                return _to(member, State.ROLLED_BACK, look, "", loose=False)
            if shown.state is ChangeState.DEFERRED:
                member = changed(member, reason=_short(f"waits for {shown.waits_for or shown.reason}"))
    if canceling:
        return member
    if look.clock_ms - member.since_ms > look.plan.timers.total_s * 1000:
        return _to(member, State.TIMED_OUT, look, "back: not shown in time", ill=Ill.TIMED_OUT, loose=False)
    return member


def _to(
    member: Member,
    state: State,
    look: Look,
    reason: str,
    *,
    ill: Ill | None = None,
    late: bool | None = None,
    loose: bool | None = None,
) -> Member:
    return changed(
        member,
        state=state,
        since_ms=look.clock_ms,
        reason=_short(reason),
        ill=ill,
        ill_ms=NOT,
        late=member.late if late is None else late,
        loose=(member.loose and state is not State.SUCCEEDED) if loose is None else loose,
    )


def _short(text: str) -> str:
    return text[:REASON_CHARS_MAX]
