"""What people may do to a rollout, and when. Pure; each returns the rollout as it is then.

Raises NotNowError where the phase does not allow it.
"""

from typing import NoReturn

from fleet_server.change.device_steps import changed
from fleet_server.change.rollout_plan import Plan
from fleet_server.change.rollout_rules import bad_ends
from fleet_server.change.rollout_state import ENDS, OUT, NotNowError, PauseWhy, Phase, Rollout
from fleet_server.change.rollouts import in_phase, paused


def approved(rollout: Rollout, by: str) -> Rollout:
    """A second person agrees: another one than who asked for it."""
    if rollout.head.phase is not Phase.WAITING_APPROVAL:
        _refuse(rollout, "waiting_approval")
    if by == rollout.head.created_by:
        raise NotNowError("expected a second person, got the one who made it")
    running = in_phase(rollout, Phase.RUNNING)
    return changed(running, head=changed(running.head, approved_by=by, wave_ms=running.head.clock_ms))


def held(rollout: Rollout, by: str, reason: str) -> Rollout:
    """Pause: no device has its turn; those under way go on."""
    if rollout.head.phase is not Phase.RUNNING:
        _refuse(rollout, "running")
    return paused(rollout, PauseWhy.OPERATOR, f"{by}: {reason}" if reason else by)


def resumed(rollout: Rollout) -> Rollout:
    """Go on. What paused it has been seen: bad ends until now break no rule again, a wave that was held up or had too
    few successes is through, a wave that was worse than its controls is taken as it is, and what goes into the layer
    counts for those too who have something newer.
    """
    head = rollout.head
    if head.phase is not Phase.PAUSED or head.pause is None:
        _refuse(rollout, "paused")
    accepted = bad_ends(member for member in rollout.members.values() if member.state not in OUT)
    judged = head.wave + 1 if head.pause.why is PauseWhy.CONTROL else head.judged
    running = in_phase(rollout, Phase.RUNNING)
    is_taken = head.pause.why in {PauseWhy.WAVE, PauseWhy.SUCCESS, PauseWhy.SUPERSEDED}
    passed = head.wave + 1 if is_taken else head.passed
    # who came meanwhile has a turn first: only the next look says whether the wave is through still
    began = changed(running.head, accepted=dict(accepted), judged=judged, passed=passed, wave_ms=head.clock_ms)
    return changed(running, head=began)


def canceled(rollout: Rollout, by: str, reason: str) -> Rollout:
    """No more turns; what was not taken up is withdrawn; who has the change keeps it."""
    if rollout.head.phase not in {Phase.WAITING_APPROVAL, Phase.RUNNING, Phase.PAUSED}:
        _refuse(rollout, "waiting_approval, running or paused")
    return in_phase(rollout, Phase.CANCELING, why=f"{by}: {reason}" if reason else by)


def rolled_back(plan: Plan, rollout: Rollout, by: str, reason: str) -> Rollout:
    """Who has the change gets what it had. Once the change is in its layer it is undone by another rollout."""
    phases = {Phase.RUNNING, Phase.PAUSED, Phase.CANCELING, Phase.CANCELED}
    if rollout.head.phase not in phases | (set() if plan.into_layer else {Phase.COMPLETED}):
        _refuse(rollout, "running, paused, canceling or canceled, or whose change is in no layer")
    back = in_phase(rollout, Phase.ROLLING_BACK, why=f"{by}: {reason}" if reason else by)
    return changed(back, head=changed(back.head, ended_ms=None))


def _refuse(rollout: Rollout, expected: str) -> NoReturn:
    phase = rollout.head.phase
    hint = "; it is over" if phase in ENDS else ""
    raise NotNowError(f"expected a rollout that is {expected}, got one that is {phase}{hint}")
