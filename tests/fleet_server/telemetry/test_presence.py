"""Connected, reporting, healthy: three facts, told apart."""

import pytest

from broker_config.telemetry import Event
from fleet_server.telemetry import presence
from fleet_server.telemetry.presence import DEBOUNCE_MS, FLAP_WINDOW_MS, Seen

NOW = 1_800_000_000_000
KEEP_ALIVE_S = 30
LATE_MS = presence.KEEP_ALIVES_MISSED * KEEP_ALIVE_S * 1000


def seen(
    *,
    born: bool = True,
    willed_ms: int | None = None,
    heard_ms: int = NOW,
    connections_ms: tuple[int, ...] = (NOW - 60_000,),
    overdue: tuple[str, ...] = (),
    faults: tuple[str, ...] = (),
) -> Seen:
    return Seen(born, willed_ms, heard_ms, KEEP_ALIVE_S, connections_ms, overdue, faults)


@pytest.mark.parametrize(
    ("what", "connected", "reporting", "healthy"),
    [
        (seen(), True, True, True),
        (seen(born=False), False, False, False),
        (seen(willed_ms=NOW - DEBOUNCE_MS), False, True, True),
        (seen(willed_ms=NOW - DEBOUNCE_MS + 1), True, True, True),  # may be back before it counts
        (seen(heard_ms=NOW - LATE_MS - DEBOUNCE_MS), False, True, True),  # died together with its broker
        (seen(heard_ms=NOW - LATE_MS), True, True, True),
        (seen(overdue=("cpu",)), True, False, True),
        (seen(faults=("driver.fault host.cpu",)), True, True, False),
        (seen(willed_ms=NOW - DEBOUNCE_MS, overdue=("cpu",), faults=("spool.full",)), False, False, False),
    ],
)
def test_each_fact_stands_alone(what: Seen, connected: bool, reporting: bool, healthy: bool) -> None:
    state = presence.presence(what, NOW)
    assert (state.connected, state.reporting, state.healthy) == (connected, reporting, healthy)


def test_it_says_since_when() -> None:
    assert presence.presence(seen(connections_ms=(NOW - 7,)), NOW).since_ms == NOW - 7
    assert presence.presence(seen(willed_ms=NOW - 60_000), NOW).since_ms == NOW - 60_000
    long_ago = NOW - LATE_MS - 3_600_000
    assert presence.presence(seen(heard_ms=long_ago), NOW).since_ms == long_ago + LATE_MS
    assert presence.presence(seen(born=False), NOW).since_ms is None


def test_connections_are_counted_for_an_hour() -> None:
    connections = (NOW - FLAP_WINDOW_MS - 1, NOW - FLAP_WINDOW_MS, NOW - 1000, NOW - 10)
    assert presence.presence(seen(connections_ms=connections), NOW).flaps == 2
    assert presence.presence(seen(connections_ms=()), NOW).flaps == 0


def test_a_fault_ends_with_its_own_end_and_no_other() -> None:
    faults = presence.noted({}, (0, 1), [Event("driver.fault", {"driver": "host.cpu", "error": "no answer"})])
    assert presence.present(faults) == ("driver.fault host.cpu: no answer",)
    assert presence.present(presence.noted(faults, (0, 2), [Event("driver.ok", {"driver": "host.memory"})])) != ()
    assert presence.present(presence.noted(faults, (0, 2), [Event("driver.ok", {"driver": "host.cpu"})])) == ()


def test_a_driver_that_reads_again_for_one_stream_may_still_fail_for_another() -> None:
    both = [Event("driver.fault", {"driver": "modbus_rtu", "stream": stream}) for stream in ("lamps", "signal")]
    faults = presence.noted({}, (0, 1), both)
    faults = presence.noted(faults, (0, 2), [Event("driver.ok", {"driver": "modbus_rtu", "stream": "lamps"})])
    assert presence.present(faults) == ("driver.fault modbus_rtu signal",)


@pytest.mark.parametrize("fault", [Event("driver.fault", {"driver": "host.cpu"}), Event("spool.full")])
def test_a_new_run_of_the_agent_ends_what_an_older_one_told_in_whatever_order_that_comes(fault: Event) -> None:
    start = Event("agent.start", {"clean": False})
    for first, second in (((1, fault), (2, start)), ((2, start), (1, fault))):
        faults = presence.noted(presence.noted({}, (0, first[0]), [first[1]]), (0, second[0]), [second[1]])
        assert presence.present(faults) == ()
        assert presence.present(presence.noted(faults, (0, 3), [fault])) != ()


def test_an_older_event_that_comes_with_the_backlog_changes_nothing() -> None:
    ended = presence.noted({}, (0, 7), [Event("driver.ok", {"driver": "host.cpu"})])
    assert presence.present(presence.noted(ended, (0, 3), [Event("driver.fault", {"driver": "host.cpu"})])) == ()


def test_a_newer_life_of_the_journal_says_more_than_an_older_one() -> None:
    begun = presence.noted({}, (0, 900), [Event("spool.full")])
    assert presence.present(presence.noted(begun, (1, 1), [Event("spool.ok")])) == ()


@pytest.mark.parametrize(("src", "healthy"), [("none", False), ("ntp", True), ("server", True)])
def test_a_clock_that_nobody_set_is_not_healthy(src: str, healthy: bool) -> None:
    faults = presence.noted({}, (0, 1), [Event("clock.source", {"src": src})])
    assert (presence.present(faults) == ()) is healthy
