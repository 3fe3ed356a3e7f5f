"""States have one owner each; the first end counts, a late one too, and what is told of many is plain."""

import itertools
from typing import Any, Final

import pytest

from broker_config.messages import CommandStatus
from broker_config.signing import Refusal
from fleet_server.change import commands
from fleet_server.change.commands import GRACE_MS, OPEN, OWNERS, UNSAID, Count, Owner, State, Target, Word
from fleet_server.telemetry.store import EventFact, StreamKey

NOW: Final = 1_000_000
EXPIRES: Final = NOW + 60_000
ENDS: Final = (State.DONE, State.FAILED, State.REFUSED, State.INTERRUPTED)


def target(state: State, **more: Any) -> Target:
    return Target("0f" * 8, "cam-7", "hq", state, EXPIRES, **{"order": b"order", "counter": 5, **more})


def word(state: State, **more: Any) -> Word:
    return Word("cam-7", "0f" * 8, state, **more)


@pytest.mark.parametrize(("state", "end"), list(itertools.product(State, ENDS)))
def test_an_end_closes_whatever_has_none_and_no_other_end(state: State, end: State) -> None:
    # also what was expired or cancelled, or what a restored server does not know to have been said: the device knows
    after = commands.heard(target(state), word(end, reason="why", result={"n": 1}), NOW)
    if state in ENDS:
        assert after == target(state)
        return
    assert (after.state, after.reason, after.result, after.ended_ms, after.order) == (end, "why", {"n": 1}, NOW, b"")


@pytest.mark.parametrize(
    ("state", "said", "then"),
    [
        (State.SENT, State.DEFERRED, State.DEFERRED),
        (State.SENT, State.OBEYED, State.OBEYED),
        (State.DEFERRED, State.OBEYED, State.OBEYED),
        (State.OBEYED, State.DEFERRED, State.OBEYED),  # words that overtook each other
        (State.SIGNED, State.OBEYED, State.OBEYED),  # it answered sooner than it was written down as said
        (State.EXPIRED, State.OBEYED, State.EXPIRED),
        (State.DONE, State.DEFERRED, State.DONE),
    ],
)
def test_how_a_device_moves_it_on(state: State, said: State, then: State) -> None:
    assert commands.heard(target(state), word(said), NOW).state is then


def test_another_lease_that_it_waits_for_is_news_and_the_same_is_none() -> None:
    waiting = commands.heard(target(State.SENT), word(State.DEFERRED, waits_for="on_call"), NOW)
    assert commands.heard(waiting, word(State.DEFERRED, waits_for="on_call"), NOW + 1) is waiting
    assert commands.heard(waiting, word(State.DEFERRED, waits_for="recording"), NOW + 1).waits_for == "recording"


def test_a_device_that_only_says_replayed_does_not_close_it_for_its_journal() -> None:
    overtaken = commands.heard(target(State.SENT), word(State.REFUSED, reason=Refusal.REPLAYED.value), NOW)
    assert overtaken.state is State.REFUSED
    assert commands.heard(overtaken, word(State.DONE), NOW).state is State.DONE
    refused = commands.heard(target(State.SENT), word(State.REFUSED, reason="busy"), NOW)
    assert commands.heard(refused, word(State.DONE), NOW) is refused


@pytest.mark.parametrize("reason", sorted(commands.NOT_YET))
def test_a_device_that_cannot_obey_yet_is_told_again(reason: str) -> None:
    waiting = commands.heard(target(State.SENT), word(State.REFUSED, reason=reason), NOW)
    assert (waiting.state, waiting.reason, waiting.order) == (State.SENT, reason, b"order")
    assert commands.told([Count(waiting.state, waiting.reason, 1)]) == f"1 not yet ({reason})"
    begun = commands.heard(waiting, word(State.OBEYED), NOW + 1)
    assert (begun.state, begun.reason) == (State.OBEYED, "")


@pytest.mark.parametrize("state", State)
def test_what_has_no_end_by_its_time_expires_and_what_was_said_has_a_grace(state: State) -> None:
    before = target(state)
    said = state in OPEN - UNSAID
    last = EXPIRES + (GRACE_MS if said else 0)
    assert commands.expired(before, last - 1) is before
    after = commands.expired(before, last)
    assert (after is before) is (state not in OPEN)
    if state in OPEN:
        assert (after.state, after.reason, after.order) == (State.EXPIRED, state.value, b"")


def test_pain_44_a_late_reply_still_closes_what_had_expired() -> None:
    gone = commands.expired(target(State.SENT), EXPIRES + GRACE_MS)
    late = commands.heard(gone, word(State.DONE, result={"passed": True}), EXPIRES + 10 * GRACE_MS)
    assert (late.state, late.reason, late.result) == (State.DONE, "", {"passed": True})


@pytest.mark.parametrize("state", State)
def test_only_what_no_device_has_heard_of_can_be_taken_back(state: State) -> None:
    after = commands.cancelled(target(state), NOW)
    assert (after.state is State.CANCELLED) is (state in UNSAID | {State.CANCELLED})


def test_every_state_has_an_owner_and_the_open_ones_one_who_moves_them() -> None:
    assert OWNERS.keys() == set(State)
    assert {state for state in State if OWNERS[state] is not Owner.NOBODY} == OPEN


# Words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (CommandStatus(1, "", "refused", "malformed"), None),
        (CommandStatus(1, "0f" * 8, "done", result={"n": 1}), word(State.DONE, result={"n": 1})),
        (CommandStatus(1, "0f" * 8, "done", "replayed"), word(State.DONE)),  # the order came again
        (CommandStatus(1, "0f" * 8, "refused", "replayed"), word(State.REFUSED, reason="replayed")),
        (CommandStatus(1, "0f" * 8, "deferred", waits_for="x"), word(State.DEFERRED, waits_for="x")),
    ],
)
def test_what_a_status_says(status: CommandStatus, expected: Word | None) -> None:
    assert commands.word_of("cam-7", status) == expected


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (
            "command.done",
            '{"n":1.0,"ok":true,"id":"0f0f0f0f0f0f0f0f","name":"x"}',
            word(State.DONE, result={"n": 1, "ok": True}),
        ),
        ("command.failed", '{"id":"0f0f0f0f0f0f0f0f","reason":"expired"}', word(State.FAILED, reason="expired")),
        ("command.interrupted", '{"id":"0f0f0f0f0f0f0f0f","kind":"command"}', word(State.INTERRUPTED)),
        ("command.interrupted", '{"id":"0f0f0f0f0f0f0f0f","kind":"twin"}', None),
        ("command.refused", '{"reason":"expired","count":1.0}', None),  # it names no command
        ("command.done", '{"name":"x"}', None),
        ("command.done", "[1", None),
        ("agent.start", '{"clean":true}', None),
    ],
)
def test_what_a_journal_says(kind: str, data: str, expected: Word | None) -> None:
    event = EventFact(StreamKey("cam-7", "journal", "a" * 16), 1, 0, NOW, "b" * 16, 5, kind, data)
    assert commands.word_in("cam-7", event) == expected


# What is told of many -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], "no device"),
        (
            [Count(State.SENT, "", 7), Count(State.REFUSED, "busy", 2), Count(State.DONE, "", 31)],
            "31 done, 2 refused (busy), 7 silent",
        ),
        (
            [Count(State.SENT, "", 1), Count(State.EXPIRED, "sent", 2), Count(State.EXPIRED, "awaiting_approval", 1)],
            "1 expired (awaiting approval), 3 silent",
        ),
    ],
)
def test_partial_results_are_said_plainly(counts: list[Count], words: str) -> None:
    assert commands.told(counts) == words


def test_it_is_over_when_nobody_is_waited_for() -> None:
    assert commands.is_over([Count(State.DONE, "", 3), Count(State.EXPIRED, "sent", 1)])
    assert not commands.is_over([Count(State.DONE, "", 3), Count(State.DEFERRED, "", 1)])


@pytest.mark.parametrize(
    ("asked_s", "classes_s", "most_ms", "expected_ms"),
    [(None, [60, 30], 10**9, 30_000), (10, [60], 10**9, 10_000), (90, [60], 10**9, 60_000), (None, [60], 500, 500)],
)
def test_how_long_it_counts(asked_s: int | None, classes_s: list[int], most_ms: int, expected_ms: int) -> None:
    assert commands.lifetime_ms(asked_s, classes_s, most_ms=most_ms) == expected_ms
