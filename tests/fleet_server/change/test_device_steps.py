"""One device's way through a rollout, a step at a time: the table of the module, and what it may not be fooled by."""

from dataclasses import replace

import pytest

from broker_config.twin import ChangeState, SettingValue
from fleet_server.change.device_steps import DRIFT, Look, changed, moved
from fleet_server.change.rollout_plan import Ill, Plan, Retries, Timers, Wave
from fleet_server.change.rollout_state import ENDED, Known, Meant, Member, Phase, Shown, State

PATCH: dict[str, SettingValue | None] = {"video": "720p"}
TIMERS = Timers(queued_s=600, step_s=100, total_s=300, silent_s=50, ill_s=20, grace_s=30)
PLAN = Plan("p", "fleet", PATCH, waves=(Wave("all", soak_s=60),), timers=TIMERS)
RETRYING = Plan("p", "fleet", PATCH, waves=PLAN.waves, timers=TIMERS, retries=Retries(failed=1, timed_out=1))
TURN = Member(State.OFFERED, 0, 0, released_ms=0, base=4, well=True)
CAM = Known("body_camera", "", "", (), True, False, True, Meant.NEW, 5, None)


def shown(state: ChangeState, **more: object) -> Shown:
    fields = {"desired": 5, "in_force": 5 if state is ChangeState.CURRENT else 1, "state": state, "as_desired": True}
    return Shown(**{**fields, **more})  # type: ignore[arg-type]


IN_FORCE = replace(CAM, shown=shown(ChangeState.CURRENT))


def at(seconds: int, plan: Plan = PLAN, phase: Phase = Phase.RUNNING) -> Look:
    return Look(plan, phase, seconds * 1000, 0, 0, 0)


def through(member: Member, *steps: tuple[int, Known], plan: Plan = PLAN) -> Member:
    for seconds, known in steps:
        member = moved(member, known, at(seconds, plan))
    return member


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        (None, State.OFFERED, ""),
        (shown(ChangeState.CURRENT, desired=4), State.OFFERED, ""),  # of the version before
        (shown(ChangeState.DEFERRED, waits_for="recording"), State.WAITING, "waits for recording"),
        (shown(ChangeState.APPLYING), State.APPLYING, ""),
        (shown(ChangeState.CONFIRMING), State.APPLYING, ""),
        (shown(ChangeState.CURRENT), State.VERIFYING, ""),
        (shown(ChangeState.REVERTED, reason="no server"), State.FAILED, "no server"),
        (shown(ChangeState.FAILED), State.FAILED, "failed"),
        (shown(ChangeState.REFUSED, reason="video: unknown"), State.REJECTED, "video: unknown"),
        (shown(ChangeState.CURRENT, as_desired=False), State.FAILED, DRIFT),  # says current, and is not
        (shown(ChangeState.CURRENT, in_force=1), State.FAILED, DRIFT),
    ],
)
def test_what_it_shows_is_where_it_is(said: Shown | None, state: State, reason: str) -> None:
    member = moved(TURN, replace(CAM, shown=said), at(1))
    assert (member.state, member.reason) == (state, reason)


def test_it_succeeds_when_it_has_shown_the_change_for_its_soak() -> None:
    assert through(TURN, (10, IN_FORCE), (69, IN_FORCE)).state is State.VERIFYING
    assert through(TURN, (10, IN_FORCE), (70, IN_FORCE)).state is State.SUCCEEDED


def test_time_away_is_no_soak_and_no_success() -> None:
    away = replace(IN_FORCE, present=False, excused=True)
    member = through(TURN, (0, IN_FORCE), (10, away), (200, away))
    assert member.state is State.VERIFYING
    assert through(member, (200, IN_FORCE), (249, IN_FORCE)).state is State.VERIFYING
    assert through(member, (200, IN_FORCE), (250, IN_FORCE)).state is State.SUCCEEDED


def test_who_never_comes_back_from_its_soak_has_its_time() -> None:
    away = replace(IN_FORCE, present=False, excused=True)
    member = through(TURN, (0, IN_FORCE), (10, away), (361, away))
    assert (member.state, member.ill) == (State.TIMED_OUT, Ill.TIMED_OUT)
    assert through(member, (400, away), (900, away)).state is State.TIMED_OUT  # and not once more


def test_a_reverted_change_is_seen_in_the_soak() -> None:
    reverted = replace(CAM, shown=shown(ChangeState.REVERTED))
    assert through(TURN, (0, IN_FORCE), (30, reverted)).state is State.FAILED


def test_not_healthy_for_a_while_after_having_been_is_a_failure_of_its_own() -> None:
    ill = replace(IN_FORCE, healthy=False)
    assert through(TURN, (0, IN_FORCE), (5, ill), (15, IN_FORCE), (20, ill), (39, ill)).state is State.VERIFYING
    assert through(TURN, (0, ill), (21, ill)).ill is Ill.HEALTH
    was_ill = changed(TURN, well=False)
    assert through(was_ill, (0, ill), (60, ill)).state is State.SUCCEEDED


@pytest.mark.parametrize("said", [None, shown(ChangeState.APPLYING), shown(ChangeState.CURRENT)])
def test_who_goes_without_a_word_is_silent_and_who_said_so_is_not(said: Shown | None) -> None:
    away = replace(CAM, shown=said, present=False)
    member = through(TURN, (0, replace(away, present=True)), (1, away), (52, away))
    assert (member.state, member.ill) == (State.SILENT, Ill.SILENT)
    excused = replace(away, excused=True)
    assert through(TURN, (1, excused), (52, excused)).state is not State.SILENT
    back = through(member, (60, replace(away, present=True)))
    assert back.state not in ENDED
    assert back.ill is None


def test_nothing_moving_while_it_is_there_is_timed_out() -> None:
    applying = replace(CAM, shown=shown(ChangeState.APPLYING))
    assert through(TURN, (0, applying), (100, applying)).state is State.APPLYING
    assert through(TURN, (0, applying), (101, applying)).reason == "step: still applying"


def test_who_waits_for_a_lease_is_held_to_no_step_but_to_the_whole() -> None:
    waiting = replace(CAM, shown=shown(ChangeState.DEFERRED, waits_for="recording"))
    assert through(TURN, (0, waiting), (300, waiting)).state is State.WAITING
    member = through(TURN, (0, waiting), (301, waiting))
    assert (member.state, member.reason) == (State.TIMED_OUT, "total: still waiting")


def test_a_late_word_still_counts() -> None:
    member = through(TURN, (0, CAM), (101, CAM))
    assert member.state is State.TIMED_OUT
    assert through(member, (500, IN_FORCE), (560, IN_FORCE)).state is State.SUCCEEDED
    refused = replace(CAM, shown=shown(ChangeState.REFUSED))
    assert through(member, (500, refused)).state is State.REJECTED


@pytest.mark.parametrize("state", [ChangeState.REVERTED, ChangeState.FAILED])
def test_a_failed_one_is_tried_again_as_often_as_the_plan_says(state: ChangeState) -> None:
    failed = replace(CAM, shown=shown(state))
    member = through(TURN, (1, failed), plan=RETRYING)
    assert (member.state, member.again, member.ill) == (State.QUEUED, True, None)
    second = changed(member, state=State.OFFERED, base=5)
    # what it said of the first try is not what it says of the second
    assert through(second, (2, replace(failed, version=6)), plan=RETRYING).state is State.OFFERED
    again = replace(failed, version=6, shown=shown(state, desired=6))
    assert through(second, (2, again), plan=RETRYING).state is State.FAILED


def test_a_rejected_one_is_never_tried_again() -> None:
    refused = replace(CAM, shown=shown(ChangeState.REFUSED))
    assert through(TURN, (1, refused), plan=RETRYING).state is State.REJECTED


def test_nobody_is_tried_again_once_there_are_no_more_turns() -> None:
    failed = replace(CAM, shown=shown(ChangeState.FAILED))
    assert moved(TURN, failed, at(1, RETRYING, Phase.CANCELING)).state is State.FAILED


def test_a_turn_that_was_never_carried_out_is_given_again() -> None:
    lost = moved(TURN, replace(CAM, meant=Meant.OLD, version=4), at(1))
    assert (lost.state, lost.reason) == (State.QUEUED, "its turn was lost")
    second = changed(TURN, again=True, base=5)
    assert moved(second, CAM, at(1)).state is State.QUEUED  # version 5 is the first turn's


def test_what_somebody_newer_desires_supersedes_it() -> None:
    assert moved(TURN, replace(CAM, meant=Meant.OTHER), at(1)).state is State.SUPERSEDED
    queued = Member(State.QUEUED, 0, 0)
    assert moved(queued, replace(CAM, taken=True), at(1)).state is State.SUPERSEDED


def test_whom_the_server_can_desire_nothing_of_is_rejected() -> None:
    refused = replace(CAM, meant=Meant.OLD, refused="its device class is not known here")
    assert moved(TURN, refused, at(1)).state is State.REJECTED


def test_who_is_never_there_is_not_waited_for_for_ever() -> None:
    queued = Member(State.QUEUED, 0, 0, reason="not there")
    assert moved(queued, CAM, at(600)).state is State.QUEUED
    timed_out = moved(queued, CAM, at(601))
    assert (timed_out.state, timed_out.ill) == (State.TIMED_OUT, None)  # no fault of the change
    assert moved(queued, CAM, at(601, phase=Phase.PAUSED)).state is State.QUEUED


BACK = Member(State.ROLLING_BACK, 0, 0, released_ms=0, back=True, loose=True)


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (CAM, State.ROLLING_BACK),  # not carried out yet
        (replace(CAM, meant=Meant.OLD, version=6), State.ROLLING_BACK),
        (replace(CAM, meant=Meant.OLD, version=6, shown=shown(ChangeState.CURRENT)), State.ROLLING_BACK),
        (replace(CAM, meant=Meant.OLD, version=5, shown=shown(ChangeState.CURRENT)), State.ROLLED_BACK),
        (replace(CAM, meant=Meant.BOTH, version=5, shown=shown(ChangeState.CURRENT)), State.ROLLED_BACK),
        (
            replace(CAM, meant=Meant.OLD, version=5, shown=shown(ChangeState.CURRENT, as_desired=False)),
            State.ROLLING_BACK,
        ),
        (replace(CAM, meant=Meant.OLD, version=5, shown=shown(ChangeState.FAILED)), State.FAILED),
        (replace(CAM, meant=Meant.OTHER), State.SUPERSEDED),
    ],
)
def test_rolled_back_is_who_shows_what_it_had(known: Known, state: State) -> None:
    assert moved(BACK, known, at(1, phase=Phase.ROLLING_BACK)).state is state


def test_after_a_cancellation_it_is_enough_that_it_is_withdrawn() -> None:
    assert moved(BACK, replace(CAM, meant=Meant.OLD), at(1, phase=Phase.CANCELING)).state is State.CANCELED
