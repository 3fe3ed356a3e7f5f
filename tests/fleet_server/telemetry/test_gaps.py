"""Why something is not there: a table for every reason."""

import pytest

from broker_config.messages import StreamState
from broker_config.ranges import Ranges
from fleet_server.telemetry import gaps
from fleet_server.telemetry.ledger import StreamLedger
from fleet_server.telemetry.store import EventFact, Silence, StreamKey
from fleet_server.telemetry.view import GapReason

KEY = StreamKey("car-7", "cpu", "9f0c2b1a77d3e458")
A, B, C = "a" * 16, "b" * 16, "c" * 16
R = GapReason


def ledger_of(held: Ranges, *, gone: Ranges = (), quarantined: tuple[int, ...] = (), last: int = 0) -> StreamLedger:
    ledger = StreamLedger(KEY)
    ledger.restore(held, 0, ("", 0, 0), 0)
    ledger.declare_gone(gone)
    for seq in quarantined:
        ledger.quarantine(seq, 1)
    ledger.last = max(ledger.last, last)
    return ledger


def stated(first: int, last: int, *, gone: Ranges = (), trimmed: Ranges = ()) -> StreamState:
    return StreamState(KEY.stream, KEY.life, first, last, gone, trimmed, 1_000)


@pytest.mark.parametrize(
    ("ledger", "state", "born", "found"),
    [
        (ledger_of(((1, 9),)), stated(1, 9), True, []),
        (ledger_of(((1, 9),)), None, False, []),
        # the device has it yet
        (ledger_of(((1, 3),), last=9), stated(4, 9), True, [(R.WAITING, 4, 9)]),
        # younger than the birth: on its way
        (ledger_of(((1, 3),), last=12), stated(4, 9), True, [(R.WAITING, 4, 12)]),
        (ledger_of(((1, 3), (6, 9)), gone=((4, 5),)), stated(6, 9), True, [(R.EVICTED, 4, 5)]),
        (ledger_of(((1, 3), (5, 9)), quarantined=(4,)), stated(10, 9), True, [(R.QUARANTINED, 4, 4)]),
        # receipted once, for the device let it go, and not here
        (ledger_of(((4, 9),)), stated(10, 9), True, [(R.LOST, 1, 3)]),
        (ledger_of(((1, 3), (6, 9))), stated(1, 9, trimmed=((5, 5),)), True, [(R.LOST, 5, 5), (R.WAITING, 4, 4)]),
        (ledger_of(((1, 3),), last=9), stated(7, 9), True, [(R.LOST, 4, 6), (R.WAITING, 7, 9)]),
        # a spool of another life, or none known at all
        (ledger_of(((1, 3), (5, 5))), None, True, [(R.UNEXPLAINED, 4, 4)]),
        (ledger_of(((1, 3), (5, 5))), None, False, [(R.UNEXPLAINED, 4, 4)]),
        (
            ledger_of(((2, 3), (8, 8)), gone=((1, 1),), quarantined=(6,), last=10),
            stated(5, 9),
            True,
            [
                *((R.EVICTED, 1, 1), (R.QUARANTINED, 6, 6), (R.LOST, 4, 4)),
                *((R.WAITING, 5, 5), (R.WAITING, 7, 7), (R.WAITING, 9, 10)),
            ],
        ),
    ],
)
def test_gaps_in_the_numbers(
    ledger: StreamLedger, state: StreamState | None, born: bool, found: list[tuple[GapReason, int, int]]
) -> None:
    told = gaps.of_numbers(ledger, state, born=born)
    assert [(gap.reason, gap.first_seq, gap.last_seq) for gap in told] == found
    assert all(gap.open is (gap.reason is R.WAITING) for gap in told)


def start(boot: str, mono: int, *, clean: str = "true", at_ms: int = 0) -> EventFact:
    journal = StreamKey(KEY.device, "journal", KEY.life)
    return EventFact(journal, 1, 0, at_ms, boot, mono, gaps.START, f'{{"clean":{clean}}}')


def link_up(boot: str, mono: int) -> EventFact:
    return start(boot, mono)._replace(kind="link.up")


WITHIN = Silence(KEY, 5, 100, 900, A, 1_000, A, 2_000)
ACROSS = Silence(KEY, 5, 100, 900, A, 1_000, B, 300)


@pytest.mark.parametrize(
    ("silence", "events", "reason"),
    [
        (WITHIN, [], R.UNEXPLAINED),
        (WITHIN, [start(A, 1_500)], R.OFF),
        (WITHIN, [start(A, 1_500, clean="false")], R.REBOOTING),
        (WITHIN, [start(A, 1_000)], R.OFF),
        (WITHIN, [start(A, 2_000)], R.OFF),
        (WITHIN, [start(A, 999)], R.UNEXPLAINED),
        (WITHIN, [start(A, 2_001)], R.UNEXPLAINED),
        (WITHIN, [start(B, 1_500)], R.UNEXPLAINED),
        (WITHIN, [link_up(A, 1_500)], R.UNEXPLAINED),
        # whatever the clock said: in one boot its own clock counts
        (WITHIN, [start(A, 1_500, at_ms=-5_000_000)], R.OFF),
        (WITHIN, [start(A, 900, clean="true"), start(A, 1_500, clean="false")], R.REBOOTING),
        (ACROSS, [start(B, 1)], R.OFF),
        (ACROSS, [start(B, 300, clean="false")], R.REBOOTING),
        (ACROSS, [start(B, 301)], R.UNEXPLAINED),
        # started again before the board went down
        (ACROSS, [start(A, 1_001, clean="false")], R.REBOOTING),
        (ACROSS, [start(A, 999)], R.UNEXPLAINED),
        (ACROSS, [start(C, 100)], R.UNEXPLAINED),
    ],
)
def test_silences_are_explained_by_a_start_within(
    silence: Silence, events: list[EventFact], reason: GapReason
) -> None:
    gap = gaps.of_silence(silence, events)
    assert (gap.reason, gap.first_seq, gap.from_ms, gap.to_ms, gap.open) == (reason, 0, 100, 900, False)


@pytest.mark.parametrize(
    ("silence_ms", "now_ms", "connected", "stopped", "reason"),
    [
        (0, 10**9, True, False, None),  # no cadence
        (3_000, 14_000, True, False, None),  # what the way may take
        (3_000, 14_001, True, False, R.UNEXPLAINED),
        (3_000, 14_001, False, False, R.UNEXPLAINED),
        (3_000, 14_001, False, True, R.OFF),
    ],
)
def test_what_is_still_silent(
    silence_ms: int, now_ms: int, connected: bool, stopped: bool, reason: GapReason | None
) -> None:
    ledger = ledger_of(((1, 3),))
    ledger.silence_ms = silence_ms
    told = gaps.still_open(
        ledger, heard_ms=1_000, now_ms=now_ms, connected=connected, stopped=stopped, grace_ms=10_000
    )
    assert [gap.reason for gap in told] == ([] if reason is None else [reason])
    assert all(gap.open and gap.from_ms == 1_000 and gap.to_ms is None for gap in told)


def test_events_are_looked_for_around_all_silences_even_backwards() -> None:
    backwards = WITHIN._replace(from_ms=5_000, to_ms=50)
    assert gaps.around([], 10) == ()
    assert gaps.around([WITHIN, backwards], 10) == ((40, 5_010),)
