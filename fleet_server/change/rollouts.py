"""A rollout as a machine: how it stands and what is known now -> how it stands then and what is to be done. Pure.

Rule 1: nothing here reads a clock. A rollout has its own, which goes on by as much as passed between two looks of
one server, at most ``LOOK_MS_MAX``. So no jump of a clock ends a soak or a timer; what nobody looked at was no soak.
Rule 2: the caller stores the new state, then carries the acts out. Each is safe to repeat. A turn that was decided
and not carried out is seen as such at the next look, and given again at its own cost.
Rule 3: a rollout that is running, canceling or rolling back ends by itself, or pauses and says why; a device that is
kept from going on is counted under the reason in ``Head.waits``, and has a timer.

==================  ==============================================================================================
waiting_approval    a second person -> running; cancel -> canceled
running             a rule is broken -> paused, canceling or rolling_back; a wave is through -> the next one, or
                    paused if too few succeeded, if the wave says so, or if its metrics are worse than its
                    controls'; the last one is through -> committing, or paused if a newer rollout has some of
                    its devices, or canceling if it has all
paused              devices under way go on, none has its turn; rules still count; resume -> running
canceling           none has its turn, what was not taken up is withdrawn; all ended or ``grace_s`` -> canceled. Who
                    has the change keeps it, until somebody rolls back
rolling_back        who had the change has what it had desired again, at the highest rate and with the same spread,
                    which after ``queued_s`` no longer holds it up: nobody is left with what is bad
committing          the change goes into its layer, unless the plan says that it is not to -> completed
==================  ==============================================================================================
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from fleet_server.change import canary
from fleet_server.change.device_steps import Look, changed, moved
from fleet_server.change.rollout_plan import Members, Plan, Stop, Then
from fleet_server.change.rollout_rules import (
    Spared,
    allowance,
    broken,
    in_waves,
    is_through,
    is_touched,
    order_of,
    per_minute,
    standing,
    with_released,
)
from fleet_server.change.rollout_state import (
    ENDED,
    ENDS,
    NOT,
    OPEN,
    OUT,
    Act,
    ActKind,
    Head,
    Known,
    Meant,
    Member,
    Pause,
    PauseWhy,
    Phase,
    Rollout,
    State,
    World,
)

LOOK_MS_MAX: Final = 60_000
MEMBERS_MAX: Final = 100_000
ABSENT: Final = "not there"
RATE: Final = "rate"
CONTROL_WAITS: Final = "control: not measured yet"
WAITS_MAX: Final = 20
"""Reasons that are told with their counts; the rest is one."""
OTHERWISE: Final = "other reasons"
RETRY_MS: Final = 60_000
"""A device that is tried again has had so much peace before."""

_KEPT: Final = frozenset({State.SUPERSEDED, State.CANCELED, State.ROLLED_BACK})


class Turn(NamedTuple):
    """What came of a look. The acts are carried out once the rollout is stored."""

    rollout: Rollout
    acts: tuple[Act, ...]


def begun(rollout: str, plan: Plan, devices: Mapping[str, Known], *, second: bool, by: str, now_ms: int) -> Rollout:
    """A new rollout to *devices*, which waits for a *second* person or runs."""
    phase = Phase.WAITING_APPROVAL if second else Phase.RUNNING
    head = Head(phase, created_by=by, created_ms=now_ms, started_with=len(devices))
    waves = in_waves(plan, rollout, devices)
    members = {
        device: Member(State.QUEUED, wave, 0, registered=devices[device].registered) for device, wave in waves.items()
    }
    return Rollout(rollout, head, members)


def look(plan: Plan, rollout: Rollout, world: World, *, step_ms: int, now_ms: int) -> Turn:
    """One look.

    Args:
        plan: what it was told.
        rollout: how it stands.
        world: what is known. Who is a member and is not in it does not exist any more.
        step_ms: by the looker's monotonic clock since its last look; 0 at its first.
        now_ms: only written down.
    """
    if rollout.head.phase in ENDS:
        return Turn(rollout, ())
    step_ms = max(0, min(step_ms, LOOK_MS_MAX))
    clock_ms = rollout.head.clock_ms + step_ms
    rollout = changed(rollout, head=changed(rollout.head, clock_ms=clock_ms, waits={}))
    rollout = _joined(plan, rollout, world)
    rollout = changed(rollout, members=_moved(plan, rollout, world))
    rollout = _stopped(plan, rollout)
    match rollout.head.phase:
        case Phase.RUNNING:
            rollout, acts = _run(plan, rollout, world, step_ms)
        case Phase.CANCELING:
            rollout, acts = _cancel(plan, rollout, world)
        case Phase.ROLLING_BACK:
            rollout, acts = _roll_back(plan, rollout, world, step_ms)
        case _:
            acts = []
    if rollout.head.phase is Phase.COMMITTING:
        if world.committed or not plan.into_layer:
            rollout = in_phase(rollout, Phase.COMPLETED)
        else:
            acts = [Act(ActKind.COMMIT)]
    if rollout.head.phase in ENDS:
        rollout = changed(rollout, head=changed(rollout.head, ended_ms=now_ms, waits={}))
    return Turn(rollout, tuple(acts))


def in_phase(rollout: Rollout, phase: Phase, *, why: str = "", pause: Pause | None = None) -> Rollout:
    """*rollout* once it is in *phase*."""
    head = rollout.head
    began = changed(head, phase=phase, phase_ms=head.clock_ms, pause=pause, why=why or head.why)
    return changed(rollout, head=began)


def paused(rollout: Rollout, why: PauseWhy, text: str) -> Rollout:
    """*rollout* once it is paused."""
    return in_phase(rollout, Phase.PAUSED, pause=Pause(why, text))


def _joined(plan: Plan, rollout: Rollout, world: World) -> Rollout:
    """Who does not exist any more is on no side of anything; who joins is bound like everybody."""
    members = {
        device: member
        for device, member in rollout.members.items()
        if device in world.devices and (world.devices[device].registered or not member.registered)
    }
    if plan.members is Members.DYNAMIC and world.wanted is not None and rollout.head.phase not in _CLOSED:
        clock_ms, last = rollout.head.clock_ms, len(plan.waves) - 1
        for device, member in members.items():
            if member.state is State.QUEUED and not member.executed and device not in world.wanted:
                members[device] = changed(
                    member, state=State.CANCELED, since_ms=clock_ms, reason="is not meant any more"
                )
            elif member.state is State.CANCELED and not member.executed and device in world.wanted:
                members[device] = changed(member, state=State.QUEUED, since_ms=clock_ms, wave=last, reason="")
        for device in sorted(world.wanted - members.keys()):
            if device in world.devices and len(members) < MEMBERS_MAX:
                members[device] = Member(State.QUEUED, last, clock_ms, registered=world.devices[device].registered)
    return changed(rollout, members=members)


_CLOSED: Final = frozenset({Phase.CANCELING, Phase.ROLLING_BACK, Phase.COMMITTING}) | ENDS


def _moved(plan: Plan, rollout: Rollout, world: World) -> dict[str, Member]:
    head = rollout.head
    if head.phase is Phase.COMMITTING:  # it has ended well; what devices do from now on is the layer's
        return rollout.members
    at = Look(plan, head.phase, head.clock_ms, head.wave, head.wave_ms, head.phase_ms)
    return {device: moved(member, world.devices[device], at) for device, member in rollout.members.items()}


def _stopped(plan: Plan, rollout: Rollout) -> Rollout:
    """A rule that is broken, wherever devices still get worse."""
    phase = rollout.head.phase
    if phase not in {Phase.RUNNING, Phase.PAUSED, Phase.CANCELING}:
        return rollout
    rule = broken(plan, rollout)
    if rule is None:
        return rollout
    why = f"more than {rule.pct:g} % {rule.kind} (of at least {rule.min_executed})"
    match rule.action:
        case Stop.PAUSE if phase is Phase.RUNNING:
            return paused(rollout, PauseWhy.RULE, why)
        case Stop.CANCEL if phase is not Phase.CANCELING:
            return in_phase(rollout, Phase.CANCELING, why=why)
        case Stop.ROLL_BACK:
            return in_phase(rollout, Phase.ROLLING_BACK, why=why)
        case _:
            return rollout


def _run(plan: Plan, rollout: Rollout, world: World, step_ms: int) -> tuple[Rollout, list[Act]]:
    rollout = _waves(plan, rollout, world)
    if rollout.head.phase is not Phase.RUNNING:
        return rollout, []
    return _released(plan, rollout, world, step_ms)


def _waves(plan: Plan, rollout: Rollout, world: World) -> Rollout:
    """Go on to the next wave if this one is through; each look goes on by one wave at most."""
    head, members = rollout.head, list(rollout.members.values())
    if not is_through(plan, members, head.wave):
        return rollout
    if head.passed > head.wave:
        return next_wave(plan, rollout)
    wave = plan.waves[head.wave]
    at = standing(members, head.wave)
    if at.success_pct < wave.success_pct:
        text = f"wave {wave.name}: {at.succeeded} of {at.done} succeeded, needs {wave.success_pct:g} %"
        return paused(rollout, PauseWhy.SUCCESS, text)
    if plan.control is not None and head.judged <= head.wave < len(plan.waves) - 1 and at.succeeded:
        if world.measures is None:
            return _waiting(rollout, {CONTROL_WAITS: 1})
        verdict = canary.judged(plan, rollout, world)
        if verdict.worse:
            return paused(rollout, PauseWhy.CONTROL, f"wave {wave.name}: {verdict.text}")
        rollout = changed(rollout, head=changed(head, judged=head.wave + 1))
    if wave.then is Then.PAUSE:
        return paused(rollout, PauseWhy.WAVE, f"wave {wave.name} is through")
    if head.wave == len(plan.waves) - 1:
        return _last_one(plan, rollout)
    return next_wave(plan, rollout)


def _last_one(plan: Plan, rollout: Rollout) -> Rollout:
    """All have ended well: the change goes into its layer, unless that would undo what is newer."""
    members = rollout.members.values()
    newer = sum(member.state is State.SUPERSEDED for member in members)
    if not newer or not plan.into_layer:
        return next_wave(plan, rollout)
    if not any(member.executed and member.state not in OUT for member in members):
        return in_phase(rollout, Phase.CANCELING, why="newer rollouts have all of its devices")
    return paused(rollout, PauseWhy.SUPERSEDED, f"{newer} devices have something newer, which the layer would undo")


def next_wave(plan: Plan, rollout: Rollout) -> Rollout:
    """On to the next wave; behind the last one the change goes into its layer."""
    head = rollout.head
    if head.wave == len(plan.waves) - 1:
        return in_phase(rollout, Phase.COMMITTING)
    return changed(rollout, head=changed(head, wave=head.wave + 1, wave_ms=head.clock_ms, judged=head.wave + 1))


def _released(plan: Plan, rollout: Rollout, world: World, step_ms: int) -> tuple[Rollout, list[Act]]:
    """Give turns, as far as rate and spread allow."""
    head, members, waits = rollout.head, dict(rollout.members), Counter[str]()
    ready: list[str] = []
    for device, member in members.items():
        if member.state is State.WAITING:
            waits[member.reason] += 1
        if member.state is not State.QUEUED or member.wave > head.wave:
            continue
        if not world.devices[device].present:
            waits[ABSENT] += 1
        elif member.again and head.clock_ms - member.since_ms < RETRY_MS:
            waits["to be tried again"] += 1
        else:
            ready.append(device)
    succeeded = sum(member.state is State.SUCCEEDED for member in members.values())
    left = allowance(per_minute(plan.rate, succeeded), head.released, head.clock_ms, step_ms)
    acts: list[Act] = []
    if ready and left:
        spared = Spared(plan.spread, members, world.devices, world.others_working)
        for device in sorted(ready, key=lambda each: order_of(rollout.id, each)):
            member, known = members[device], world.devices[device]
            why = RATE if len(acts) == left else spared.why_not(member, known)
            if why:
                waits[why] += 1
                if why not in {RATE, member.reason} and not member.again:
                    members[device] = changed(member, reason=why)
                continue
            spared.touch(member, known)
            members[device] = _given(member, known, head)
            acts.append(Act(ActKind.RELEASE, device, again=member.again))
    elif ready:
        waits[RATE] += len(ready)
    released = with_released(head.released, head.clock_ms, len(acts))
    rollout = changed(rollout, head=changed(head, released=released), members=members)
    return _waiting(rollout, waits), acts


def _given(member: Member, known: Known, head: Head) -> Member:
    return changed(
        member,
        state=State.OFFERED,
        since_ms=head.clock_ms,
        released_ms=head.clock_ms,
        base=known.version,
        version=0,
        shown_ms=NOT,
        away_ms=NOT,
        ill_ms=NOT,
        well=known.healthy,
        late=False,
        ill=None,
        reason="",
    )


def _cancel(plan: Plan, rollout: Rollout, world: World) -> tuple[Rollout, list[Act]]:
    """Advisory to devices: what they already do they go on with, and after ``grace_s`` nobody waits for it."""
    head, members, acts = rollout.head, dict(rollout.members), list[Act]()
    is_over = head.clock_ms - head.phase_ms > plan.timers.grace_s * 1000
    for device, member in rollout.members.items():
        if member.state is State.QUEUED:
            members[device] = _ended(member, State.CANCELED, head, member.reason)
        elif is_over and member.state not in ENDED:
            members[device] = _ended(member, State.CANCELED, head, f"not waited for: {member.state}")
        elif member.state in {State.OFFERED, State.WAITING}:
            members[device] = _sent_back(member, head)
            acts.append(Act(ActKind.WITHDRAW, device))
        elif member.state is State.ROLLING_BACK and world.devices[device].meant is Meant.NEW:
            acts.append(Act(ActKind.WITHDRAW, device))
    rollout = changed(rollout, members=members)
    if all(member.state in ENDED for member in members.values()):
        return in_phase(rollout, Phase.CANCELED), []
    return _waiting(rollout, _counted(members)), acts


def _roll_back(plan: Plan, rollout: Rollout, world: World, step_ms: int) -> tuple[Rollout, list[Act]]:
    head, members, acts = rollout.head, dict(rollout.members), list[Act]()
    waits: Counter[str] = Counter()
    owed: list[str] = []
    for device, member in rollout.members.items():
        if member.state is State.ROLLING_BACK:
            waits[member.reason or "what it had is desired again"] += 1
            if world.devices[device].meant is Meant.NEW:
                acts.append(Act(ActKind.WITHDRAW, device))
        elif not member.executed and member.state is State.QUEUED:
            members[device] = _ended(member, State.CANCELED, head, member.reason)
        elif member.executed and not member.back and member.state not in _KEPT:
            owed.append(device)
    left = allowance(plan.rate.max_per_min, head.released, head.clock_ms, step_ms)
    given = 0
    is_late = head.clock_ms - head.phase_ms > plan.timers.queued_s * 1000
    spared = Spared(plan.spread, members, world.devices, world.others_working)
    # those first who are touched already: they take nobody's place
    for device in sorted(owed, key=lambda each: (not is_touched(members[each]), order_of(rollout.id, each))):
        member, known = members[device], world.devices[device]
        why = RATE if given == left else "" if is_late else spared.why_not(member, known)
        if why:
            waits[why] += 1
            continue
        spared.touch(member, known)
        members[device] = _sent_back(member, head)
        acts.append(Act(ActKind.WITHDRAW, device))
        given += 1
    released = with_released(head.released, head.clock_ms, given)
    rollout = changed(rollout, head=changed(head, released=released), members=members)
    if all(
        member.state in ENDED and (member.back or member.state in _KEPT or not member.executed)
        for member in members.values()
    ):
        return in_phase(rollout, Phase.ROLLED_BACK), acts
    return _waiting(rollout, waits), acts


def _sent_back(member: Member, head: Head) -> Member:
    return changed(member, state=State.ROLLING_BACK, since_ms=head.clock_ms, back=True, reason="", ill=None)


def _ended(member: Member, state: State, head: Head, reason: str) -> Member:
    return changed(member, state=state, since_ms=head.clock_ms, reason=reason)


def _counted(members: Mapping[str, Member]) -> Counter[str]:
    return Counter(member.reason or member.state for member in members.values() if member.state not in ENDED)


def _waiting(rollout: Rollout, waits: Mapping[str, int]) -> Rollout:
    merged = Counter(rollout.head.waits) + Counter(waits)
    told = dict(merged.most_common(WAITS_MAX))
    if len(merged) > WAITS_MAX:
        told[OTHERWISE] = merged.total() - sum(told.values())
    return changed(rollout, head=changed(rollout.head, waits=told))


def under_way(rollout: Rollout) -> int:
    """How many devices are offered the change or have it unproved."""
    return sum(member.state in OPEN for member in rollout.members.values())
