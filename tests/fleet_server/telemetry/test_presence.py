"""Connected, reporting, healthy: three facts, told apart."""

import pytest

from broker_config.telemetry import Event
from fleet_server.telemetry import presence
from fleet_server.telemetry.presence import DEBOUNCE_MS, FLAP_WINDOW_MS, UNKNOWN, Presence, Seen, step

NOW = 1_800_000_000_000
KEEP_ALIVE_S = 30
LATE_MS = presence.KEEP_ALIVES_MISSED * KEEP_ALIVE_S * 1000 + 1


def seen(
    *,
    born: bool = True,
    willed: bool = False,
    heard_ms: int = NOW,
    overdue: tuple[str, ...] = (),
    faults: tuple[str, ...] = (),
) -> Seen:
    return Seen(born, willed, heard_ms, KEEP_ALIVE_S, overdue, faults)


def after(*moments: tuple[int, Seen]) -> Presence:
    state = UNKNOWN
    for at_ms, what in moments:
        state = step(state, what, at_ms)
    return state


@pytest.mark.parametrize(
    ("what", "connected", "reporting", "healthy"),
    [
        (seen(), True, True, True),
        (seen(born=False), False, False, False),
        (seen(willed=True), False, True, True),
        (seen(heard_ms=NOW - LATE_MS), False, True, True),  # died together with its broker
        (seen(heard_ms=NOW - LATE_MS + 1), True, True, True),
        (seen(overdue=("cpu",)), True, False, True),
        (seen(faults=("driver.fault host.cpu",)), True, True, False),
        (seen(willed=True, overdue=("cpu",), faults=("spool.full",)), False, False, False),
    ],
)
def test_each_fact_stands_alone(what: Seen, connected: bool, reporting: bool, healthy: bool) -> None:
    state = step(UNKNOWN, what, NOW)
    assert (state.connected, state.reporting, state.healthy) == (connected, reporting, healthy)


def test_a_connection_that_is_back_in_time_was_never_away() -> None:
    back = NOW + DEBOUNCE_MS - 1
    state = after((NOW, seen()), (NOW + 1, seen(willed=True)), (back, seen(heard_ms=back)))
    assert state.connected
    assert state.since_ms == NOW
    assert state.flaps == 0


def test_a_connection_that_stays_away_is_gone_after_the_debounce_and_not_before() -> None:
    gone_from = NOW + 1
    waiting = after((NOW, seen()), (gone_from, seen(willed=True)), (gone_from + DEBOUNCE_MS - 1, seen(willed=True)))
    assert waiting.connected
    state = step(waiting, seen(willed=True), gone_from + DEBOUNCE_MS)
    assert not state.connected
    assert state.since_ms == gone_from + DEBOUNCE_MS


def test_coming_and_going_is_counted_for_an_hour() -> None:
    state, at_ms = UNKNOWN, NOW
    for _ in range(3):
        state = step(state, seen(heard_ms=at_ms), at_ms)
        for _ in range(2):
            at_ms += DEBOUNCE_MS
            state = step(state, seen(willed=True), at_ms)
        at_ms += DEBOUNCE_MS
    assert state.flaps == 3
    assert step(state, seen(willed=True), at_ms + FLAP_WINDOW_MS + 1).flaps == 0


def test_a_fault_ends_with_its_own_end_and_no_other() -> None:
    faults = presence.noted({}, 1, [Event("driver.fault", {"driver": "host.cpu", "error": "no answer"})])
    assert presence.present(faults) == ("driver.fault host.cpu: no answer",)
    assert presence.present(presence.noted(faults, 2, [Event("driver.ok", {"driver": "host.memory"})])) != ()
    assert presence.present(presence.noted(faults, 2, [Event("driver.ok", {"driver": "host.cpu"})])) == ()


def test_an_older_event_that_comes_with_the_backlog_changes_nothing() -> None:
    ended = presence.noted({}, 7, [Event("driver.ok", {"driver": "host.cpu"})])
    assert presence.present(presence.noted(ended, 3, [Event("driver.fault", {"driver": "host.cpu"})])) == ()


@pytest.mark.parametrize(("src", "healthy"), [("none", False), ("ntp", True), ("server", True)])
def test_a_clock_that_nobody_set_is_not_healthy(src: str, healthy: bool) -> None:
    faults = presence.noted({}, 1, [Event("clock.source", {"src": src})])
    assert (presence.present(faults) == ()) is healthy
