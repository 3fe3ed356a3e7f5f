"""A change is confirmed, undone or refused, and what was confirmed last is never lost on the way."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker_config import twin
from broker_config.twin import ENDED, ApplyWindow, ChangeState, Desired, Document
from edge_agent import changing
from edge_agent.changing import STARTS_MAX, TRANSITIONS, Event, Kept, RefusedEventError, Stage

BOOT: Final = "b0070000b0070000"
OTHER: Final = "b0070000b0070001"
OLD: Final[Document] = {"video": "720p"}
NEW: Final[Document] = {"video": "1440p"}
WANTED: Final = Desired(1, 10, NEW, 60)
GOOD: Final = Kept(taken=5, in_force=5, config=OLD)
WAITING: Final = changing.come(GOOD, WANTED, ())
APPLYING: Final = changing.free(WAITING)
CONFIRMING: Final = changing.applied(APPLYING, boot=BOOT, mono_ms=1_000)
REVERTING: Final = changing.not_proved(CONFIRMING, "no answer")
BY_STAGE: Final = {
    Stage.IDLE: GOOD,
    Stage.WAITING: WAITING,
    Stage.APPLYING: APPLYING,
    Stage.CONFIRMING: CONFIRMING,
    Stage.REVERTING: REVERTING,
}
EVENTS: Final[dict[Event, Callable[[Kept], Kept]]] = {
    Event.HELD: lambda kept: changing.held(kept, "on_call"),
    Event.FREE: changing.free,
    Event.APPLIED: lambda kept: changing.applied(kept, boot=BOOT, mono_ms=0),
    Event.NOT_APPLIED: lambda kept: changing.not_applied(kept, "disk full"),
    Event.PROVED: changing.proved,
    Event.NOT_PROVED: lambda kept: changing.not_proved(kept, "no answer"),
    Event.RESTORED: changing.restored,
    Event.GIVEN_UP: lambda kept: changing.given_up(kept, "not undone"),
}


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("event", EVENTS)
def test_what_is_not_in_the_table_is_refused(stage: Stage, event: Event) -> None:
    kept = BY_STAGE[stage]
    if (stage, event) in TRANSITIONS:
        assert EVENTS[event](kept).stage is TRANSITIONS[stage, event]
    elif not (stage is Stage.IDLE and event is Event.PROVED):  # there is nothing that could be
        with pytest.raises(RefusedEventError):
            EVENTS[event](kept)


@pytest.mark.parametrize("stage", Stage)
def test_in_every_stage_what_was_confirmed_last_is_kept(stage: Stage) -> None:
    assert (BY_STAGE[stage].in_force, BY_STAGE[stage].config) == (5, OLD)


def test_it_goes_forward() -> None:
    assert changing.in_trial(APPLYING) == (5, OLD)
    assert changing.in_trial(CONFIRMING) == (10, NEW)
    assert changing.proved(CONFIRMING) == Kept(taken=10, in_force=10, config=NEW)


def test_it_goes_back_when_it_does_not_prove_itself() -> None:
    assert changing.in_trial(REVERTING) == (5, OLD)
    assert changing.restored(REVERTING) == replace(
        GOOD, taken=10, state=ChangeState.REVERTED, reason="no answer", in_force=5
    )


def test_it_goes_back_when_it_cannot_be_applied() -> None:
    failed = changing.restored(changing.not_applied(APPLYING, "disk full"))
    assert failed == replace(GOOD, taken=10, state=ChangeState.FAILED, reason="disk full")


def test_what_the_device_cannot_be_set_to_is_refused_and_nothing_else_changes() -> None:
    refused = changing.come(GOOD, WANTED, ("video: nothing here applies it", "and more"))
    assert refused == replace(
        GOOD, taken=10, state=ChangeState.REFUSED, reason="video: nothing here applies it", in_force=5
    )
    assert changing.come(WAITING, replace(WANTED, version=11), ("no",)).trying is None


def test_an_older_version_is_never_taken_up() -> None:
    for kept in BY_STAGE.values():
        for version in (1, kept.have):
            assert changing.come(kept, replace(WANTED, version=version), ()) == kept


@pytest.mark.parametrize("stage", [Stage.APPLYING, Stage.CONFIRMING, Stage.REVERTING])
def test_what_comes_meanwhile_waits_its_turn_and_the_newest_counts(stage: Stage) -> None:
    kept = BY_STAGE[stage]
    for version in (11, 13, 12):
        kept = changing.come(kept, replace(WANTED, version=version), ())
    assert (kept.stage, kept.taken, kept.have) == (stage, 10, 13)
    if stage is Stage.APPLYING:
        kept = changing.not_applied(kept, "disk full")
    ended = changing.proved(kept) if kept.stage is Stage.CONFIRMING else changing.restored(kept)
    assert ended.stage is Stage.IDLE
    following = changing.follow(ended, ())
    assert (following.stage, following.taken, following.have) == (Stage.WAITING, 13, 13)
    assert changing.follow(ended, ("no",)).state is ChangeState.REFUSED


def test_while_it_waits_a_newer_version_takes_its_place() -> None:
    newer = changing.come(changing.held(WAITING, "on_call"), replace(WANTED, version=11), ())
    assert (newer.stage, newer.taken, newer.waits_for) == (Stage.WAITING, 11, "")


@pytest.mark.parametrize(
    ("stage", "state", "reason"),
    [
        (Stage.APPLYING, ChangeState.FAILED, changing.INTERRUPTED),
        (Stage.CONFIRMING, ChangeState.REVERTED, changing.RESTARTED),
    ],
)
def test_it_outlives_a_few_starts_and_no_more(stage: Stage, state: ChangeState, reason: str) -> None:
    kept = BY_STAGE[stage]
    for _ in range(STARTS_MAX):
        kept = changing.started(kept, boot=OTHER, mono_ms=0)
        assert kept.stage is stage
    kept = changing.started(kept, boot=OTHER, mono_ms=0)
    assert kept.stage is Stage.REVERTING
    ended = changing.restored(kept)
    assert (ended.state, ended.reason, ended.config) == (state, reason, OLD)


def test_its_time_goes_on_over_a_start_and_begins_anew_at_a_reboot() -> None:
    assert changing.left_ms(CONFIRMING, boot=BOOT, mono_ms=21_000) == 40_000
    again = changing.started(CONFIRMING, boot=BOOT, mono_ms=21_000)
    assert changing.left_ms(again, boot=BOOT, mono_ms=21_000) == 40_000
    booted = changing.started(CONFIRMING, boot=OTHER, mono_ms=500)
    assert changing.left_ms(booted, boot=OTHER, mono_ms=500) == 60_000


@pytest.mark.parametrize("stage", [Stage.IDLE, Stage.WAITING, Stage.REVERTING])
def test_a_start_changes_nothing_else(stage: Stage) -> None:
    assert changing.started(BY_STAGE[stage], boot=OTHER, mono_ms=0) == BY_STAGE[stage]


# The window ---------------------------------------------------------------------------------------------------------

MONDAY: Final = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "day", "at", "is_open"),
    [
        (ApplyWindow(120, 240), 0, 119, False),
        (ApplyWindow(120, 240), 0, 120, True),
        (ApplyWindow(120, 240), 0, 239, True),
        (ApplyWindow(120, 240), 0, 240, False),
        (ApplyWindow(1380, 60), 0, 1380, True),  # over midnight
        (ApplyWindow(1380, 60), 0, 59, True),
        (ApplyWindow(1380, 60), 0, 60, False),
        (ApplyWindow(1380, 60), 0, 720, False),
        (ApplyWindow(60, 60), 0, 30, True),  # the whole day
        (ApplyWindow(60, 60), 0, 60, True),
        (ApplyWindow(120, 240, (1,)), 0, 130, True),
        (ApplyWindow(120, 240, (1,)), 1, 130, False),
        (ApplyWindow(1380, 60, (1,)), 0, 1400, True),
        (ApplyWindow(1380, 60, (1,)), 1, 30, True),  # Tuesday's first hour is of Monday's window
        (ApplyWindow(1380, 60, (1,)), 0, 30, False),
        (ApplyWindow(1380, 60, (7,)), 0, 30, True),
        (ApplyWindow(1380, 60, (1,)), 1, 1400, False),
    ],
)
def test_a_window_is_open_by_the_devices_own_clock(window: ApplyWindow, day: int, at: int, is_open: bool) -> None:
    assert changing.is_open(window, MONDAY + timedelta(days=day, minutes=at)) is is_open


def test_without_a_window_it_is_always_open_and_without_a_clock_a_window_is_closed() -> None:
    assert changing.is_open(None, None)
    assert not changing.is_open(ApplyWindow(0, 0), None)


# What is reported ---------------------------------------------------------------------------------------------------


def told(kept: Kept, now_ms: int = 1_000, known: int = 0) -> Kept:
    return changing.told(kept, boot=BOOT, now_ms=now_ms, config=changing.in_trial(kept)[1], known=known)


@pytest.mark.parametrize(
    ("stage", "state", "in_force", "reason"),
    [
        (Stage.IDLE, "current", 5, ""),
        (Stage.WAITING, "deferred", 5, ""),
        (Stage.APPLYING, "applying", 5, ""),
        (Stage.CONFIRMING, "confirming", 10, ""),
        (Stage.REVERTING, "confirming", 5, "no answer"),
    ],
)
def test_every_stage_is_reported(stage: Stage, state: str, in_force: int, reason: str) -> None:
    reported = told(BY_STAGE[stage]).reported
    assert reported is not None
    assert (reported.state, reported.in_force, reported.reason) == (state, in_force, reason)
    assert twin.decode_said(twin.encode(reported)) == reported


def test_the_same_is_reported_under_the_same_version_and_another_under_a_higher_one() -> None:
    first = told(WAITING)
    assert first.reported is not None
    assert first.reported.version == 1_000
    assert told(first, 2_000) is first
    second = told(changing.held(first, "on_call"), 500)  # by a clock that went back
    assert second.reported is not None
    assert (second.reported.version, second.reported.waits_for) == (1_001, "on_call")


def test_what_the_server_has_seen_is_never_said_again_with_another_meaning() -> None:
    first = told(WAITING)
    again = told(first, 2_000, known=5_000)
    assert again.reported is not None
    assert again.reported.version == 5_001


# Whatever happens ---------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([*Event, "come", "follow", "reboot"]), max_size=60))
def test_whatever_happens_old_or_new_is_in_force_and_no_change_lasts_for_ever(events: list[Event | str]) -> None:
    kept, confirmed, version, starts = GOOD, {5: OLD}, 5, 0
    for event in events:
        before = kept
        if event == "come":
            version += 1
            kept = changing.come(kept, Desired(1, version, {"n": version}, 60), ())
        elif event == "follow" and kept.stage is Stage.IDLE:
            kept = changing.follow(kept, ())
        elif event == "reboot":
            kept = changing.started(kept, boot=OTHER if kept.boot == BOOT else BOOT, mono_ms=0)
            same = kept.stage is before.stage and kept.stage in {Stage.APPLYING, Stage.CONFIRMING}
            starts = starts + 1 if same else 0
            assert starts <= STARTS_MAX
        elif isinstance(event, Event) and event in EVENTS and (kept.stage, event) in TRANSITIONS:
            kept = EVENTS[event](kept)
        if kept.stage is not before.stage:
            starts = 0
        if event is Event.PROVED and kept is not before:
            confirmed[kept.in_force] = kept.config
        assert confirmed[kept.in_force] == kept.config
        in_force, config = changing.in_trial(kept)
        assert config == confirmed.get(in_force, {"n": in_force})
        assert (kept.trying is None) == (kept.stage is Stage.IDLE)
        assert kept.stage is not Stage.IDLE or kept.state in ENDED
        assert kept.taken >= before.taken
