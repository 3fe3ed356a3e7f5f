from dataclasses import replace

import pytest

from edge_agent import clock
from edge_agent.clock import ClockState, Facts, Jump, ServerTime, Source

NOW = 1_790_000_000_000
YEARS_10 = 315_360_000_000


def facts(wall_ms: int = NOW, mono_ms: int = 50_000, *, synced: bool = True, unc_ms: int = 10) -> Facts:
    return Facts(wall_ms, mono_ms, synced, unc_ms)


def told(ahead_ms: int = NOW - 50_000, unc_ms: int = 20) -> ServerTime:
    return ServerTime(ahead_ms, unc_ms, 50_000)


@pytest.mark.parametrize(
    ("state", "seen", "source"),
    [
        (ClockState(), facts(), Source.NTP),
        (ClockState(), facts(synced=False), Source.NONE),
        (ClockState(), facts(wall_ms=0), Source.NONE),  # 1970, whatever the kernel says
        (ClockState(floor_ms=NOW + 1), facts(), Source.NONE),
        (ClockState(distrusted=True), facts(), Source.NONE),
        (ClockState(server=told()), facts(synced=False), Source.SERVER),
        (ClockState(server=told()), facts(), Source.NTP),
        (ClockState(server=told()), facts(wall_ms=NOW + 5_030), Source.NTP),  # just within both uncertainties
        (ClockState(server=told()), facts(wall_ms=NOW + 5_031), Source.SERVER),
        (ClockState(server=told()), facts(wall_ms=NOW + YEARS_10), Source.SERVER),
    ],
)
def test_who_sets_the_clock(state: ClockState, seen: Facts, source: Source) -> None:
    after, look = clock.look(state, seen)
    assert after.source is source
    assert look.source_changed is (source is not Source.NONE)


@pytest.mark.parametrize(
    ("wall_ms", "jump"),
    [
        (NOW + 1_000, None),
        (NOW + 2_000, None),  # a second ahead is drift
        (NOW + 2_001, Jump(NOW + 1_000, NOW + 2_001)),
        (0, Jump(NOW + 1_000, 0)),
    ],
)
def test_a_jump_is_told_against_the_monotonic_clock(wall_ms: int, jump: Jump | None) -> None:
    state, _ = clock.look(ClockState(), facts())
    assert clock.look(state, facts(wall_ms, 51_000))[1].jump == jump


def test_the_servers_time_survives_a_jump_of_the_wall_clock() -> None:
    state, _ = clock.look(ClockState(server=told()), facts(synced=False))
    after, _ = clock.look(state, facts(0, 60_000, synced=False))
    stamp = clock.stamp(after, facts(0, 60_000, synced=False))
    assert stamp.t_ms == NOW + 10_000
    assert stamp.clock.src == "server"
    assert stamp.clock.off_ms == NOW + 10_000


@pytest.mark.parametrize(
    ("nonce", "came_ms", "refused"),
    [
        ("a" * 16, 1_200, None),
        ("a" * 16, 11_001, "expected an answer within 10000 ms, it took 10001"),
        ("b" * 16, 1_200, "not the answer to the question that is open"),
    ],
)
def test_only_a_prompt_answer_to_the_open_question_counts(nonce: str, came_ms: int, refused: str | None) -> None:
    asked = clock.ask(ClockState(floor_ms=NOW + YEARS_10), "a" * 16, 1_000)
    state, why = clock.answered(asked, nonce=nonce, t_ms=NOW, unc_ms=5, mono_ms=came_ms, rtt_ms_max=10_000)
    assert why == refused
    if refused is None:
        assert state.server == ServerTime(NOW + 100 - 1_200, 105, 1_200)
        assert state.floor_ms == NOW + 100  # what the server says now lowers a floor that was wrong
    else:
        assert state.server is None
        assert state.floor_ms == NOW + YEARS_10


def test_the_same_answer_counts_once() -> None:
    asked = clock.ask(ClockState(), "a" * 16, 1_000)
    once, _ = clock.answered(asked, nonce="a" * 16, t_ms=NOW, unc_ms=5, mono_ms=1_100, rtt_ms_max=10_000)
    again, why = clock.answered(once, nonce="a" * 16, t_ms=NOW, unc_ms=5, mono_ms=9_000, rtt_ms_max=10_000)
    assert why is not None
    assert again == once


def test_a_blunter_answer_that_agrees_does_not_replace_a_sharper_one() -> None:
    state = clock.ask(ClockState(server=told()), "a" * 16, 60_000)
    after, why = clock.answered(state, nonce="a" * 16, t_ms=NOW + 12_000, unc_ms=5, mono_ms=68_000, rtt_ms_max=10_000)
    assert why is None
    assert after.server == told()


@pytest.mark.parametrize(
    ("state", "seen", "skips"),
    [
        (ClockState(source=Source.NONE), facts(), True),
        (ClockState(source=Source.NTP), facts(), False),
        (ClockState(source=Source.SERVER, server=told()), facts(), False),
        (ClockState(source=Source.SERVER, server=told()), facts(wall_ms=0), True),
    ],
)
def test_tls_judges_dates_only_by_a_clock_that_may_be_right(state: ClockState, seen: Facts, skips: bool) -> None:
    assert clock.skips_dates(state, seen) is skips


def test_a_handshake_that_fails_on_dates_takes_the_clock_its_credit() -> None:
    state, _ = clock.look(ClockState(), facts())
    refused = clock.dates_refused(state)
    assert clock.skips_dates(refused, facts())
    assert clock.look(refused, facts())[0].source is Source.NONE  # ntp's word alone does not bring it back
    assert clock.look(replace(refused, server=told()), facts())[0].source is Source.NTP


def test_the_server_is_asked_at_once_then_soon_then_seldom() -> None:
    state = ClockState()
    assert clock.next_ask_s(state, mono_ms=5_000, last_ask_mono_ms=None, every_s=3600) == 0
    assert clock.next_ask_s(state, mono_ms=5_000, last_ask_mono_ms=4_000, every_s=3600) == 29
    known = replace(state, server=told())
    assert clock.next_ask_s(known, mono_ms=5_000, last_ask_mono_ms=4_000, every_s=3600) == 3599
