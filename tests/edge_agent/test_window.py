import random
from collections.abc import Callable

import msgspec
import pytest

from broker_config.messages import Receipt
from broker_config.ranges import RangeSet, minus, normal
from broker_config.telemetry import Key
from edge_agent import spool
from edge_agent.spool import Ledger
from edge_agent.window import Window

LIFE = "1" * 16
WAIT_S = 10.0


def key(seq: int, stream: str = "cpu") -> Key:
    return Key(stream, LIFE, seq)


def window(in_flight_max: int = 4, uniform: Callable[[float, float], float] = lambda low, _high: low) -> Window:
    return Window(in_flight_max=in_flight_max, wait_s=WAIT_S, uniform=uniform)


def receipt(up_to: int, *missing: tuple[int, int]) -> Receipt:
    return Receipt(1, "cpu", LIFE, up_to, missing, (), 1)


def told(w: Window, ledger: Ledger, r: Receipt) -> tuple[Ledger, bool]:
    after = spool.apply_receipt(ledger, r, None)
    return after, w.told(after, r)


def test_live_goes_first_and_the_backlog_behind_it() -> None:
    w = window()
    w.stored([key(9)])
    assert w.take([Ledger("cpu", LIFE, last=9)], 0.0) == [key(9), key(1), key(2), key(3)]


def test_the_journal_leads_the_backlog_and_long_streams_wait_their_turn() -> None:
    ledgers = [Ledger("cpu", LIFE, last=900), Ledger("memory", LIFE, last=2), Ledger("journal", LIFE, last=1)]
    order = window(6).take(ledgers, 0.0)
    assert order == [key(1, "journal"), key(1), key(1, "memory"), key(2), key(2, "memory"), key(3)]


def test_no_more_in_flight_than_allowed_and_nothing_twice() -> None:
    w = window()
    ledger = Ledger("cpu", LIFE, last=9)
    assert len(w.take([ledger], 0.0)) == 4
    assert w.take([ledger], 1.0) == []
    ledger, _ = told(w, ledger, receipt(2))
    assert w.take([ledger], 1.0) == [key(5), key(6)]


def test_what_is_not_receipted_in_time_goes_out_again() -> None:
    w = window()
    ledger = Ledger("cpu", LIFE, last=1)
    assert w.take([ledger], 0.0) == [key(1)]
    assert w.next_s() == WAIT_S
    assert w.take([ledger], WAIT_S - 0.1) == []
    assert w.take([ledger], WAIT_S) == [key(1)]
    assert w.in_flight == 1


def test_repetitions_are_spread() -> None:
    w = window(64, random.Random(1).uniform)
    ledger = Ledger("cpu", LIFE, last=64)
    w.take([ledger], 0.0)
    again = {at: len(w.take([ledger], at)) for at in (WAIT_S, 1.1 * WAIT_S, 1.3 * WAIT_S, 1.5 * WAIT_S)}
    assert again[WAIT_S] == 0
    assert sum(again.values()) == 64
    assert max(again.values()) < 40


def test_a_new_connection_offers_everything_in_flight_again() -> None:
    w = window()
    ledger = Ledger("cpu", LIFE, last=2)
    w.take([ledger], 0.0)
    w.offer_again(1.0)
    assert w.take([ledger], 1.0) == [key(1), key(2)]


def test_what_the_server_misses_and_is_held_is_sent_again() -> None:
    w = window()
    ledger = Ledger("cpu", LIFE, last=3)
    w.take([ledger], 0.0)
    ledger, unheld = told(w, ledger, receipt(3))
    assert not unheld
    assert w.in_flight == 0
    ledger, unheld = told(w, ledger, receipt(3, (2, 2)))  # it lost one after all
    assert not unheld
    assert w.take([ledger], 1.0) == [key(2)]


def test_what_the_server_misses_and_is_not_held_is_for_a_birth_to_explain() -> None:
    w = window()
    ledger = Ledger("cpu", LIFE, last=5, gone=((1, 2),))
    w.take([ledger], 0.0)
    assert told(w, ledger, receipt(5, (1, 2)))[1]


def test_a_receipt_for_missing_records_in_flight_does_not_repeat_them() -> None:
    w = window()
    ledger = Ledger("cpu", LIFE, last=4)
    w.take([ledger], 0.0)
    for _ in range(50):
        ledger, _ = told(w, ledger, receipt(4, (1, 3)))
        assert w.take([ledger], 1.0) == []


def test_more_live_records_than_fit_are_found_again() -> None:
    w = window(10_000)
    ledger = Ledger("cpu", LIFE)
    assert w.take([ledger], 0.0) == []  # the spool has been looked through
    w.stored(key(n) for n in range(1, 1_001))
    taken = w.take([msgspec.structs.replace(ledger, last=1_000)], 0.0)
    assert sorted(taken) == [key(n) for n in range(1, 1_001)]


def test_what_was_evicted_before_it_could_go_is_left_out() -> None:
    w = window()
    w.stored([key(1), key(2)])
    assert w.take([Ledger("cpu", LIFE, last=2, gone=((1, 1),))], 0.0) == [key(2)]


@pytest.mark.parametrize("seed", range(40))
def test_over_a_lossy_link_everything_is_receipted_or_told_as_gone(seed: int) -> None:
    """Two cores joined: the agent's window and spool decisions with a small model of the server. The link loses,
    repeats and reorders; the server forgets its memory of a store now and then; batches are evicted."""
    rng = random.Random(seed)
    w = Window(in_flight_max=8, wait_s=2.0, uniform=rng.uniform)
    ledger = Ledger("cpu", LIFE)
    stored = RangeSet()
    gone_told: tuple[tuple[int, int], ...] = ()
    up: list[int] = []
    down: list[Receipt] = []
    most = 0
    now_s = 0.0
    for turn in range(2_000):
        now_s += 0.1
        quiet = turn > 1_000  # the link heals, nothing new is made
        if not quiet and rng.random() < 0.5:
            ledger = msgspec.structs.replace(ledger, last=ledger.last + 1)
            w.stored([key(ledger.last)])
        if not quiet and ledger.waiting and rng.random() < 0.02:
            ledger = spool.evict(ledger, ledger.waiting[0][0], 0)
        if not quiet and rng.random() < 0.01:
            w.offer_again(now_s)
        for sent in w.take([ledger], now_s):
            if _holds(ledger, sent.seq):
                up += [sent.seq] * (1 if quiet else rng.choice((0, 1, 1, 2)))
            else:
                w.forget(sent)
        most = max(most, w.in_flight)
        rng.shuffle(up)
        for _ in range(min(len(up), 3)):
            stored.add(*[up.pop()] * 2)
        if rng.random() < 0.3:
            known = RangeSet((*stored.ranges(), *gone_told))
            down.append(receipt(stored.last, *known.holes(stored.last)[:64]))
        if down and (quiet or rng.random() < 0.8):
            told_now = down.pop(rng.randrange(len(down)))
            ledger = spool.apply_receipt(ledger, told_now, None)
            if w.told(ledger, told_now) or rng.random() < 0.05:
                gone_told = spool.stream_state(ledger, 0).gone
        if quiet and turn % 50 == 0:
            gone_told = spool.stream_state(ledger, 0).gone
    assert most <= 8
    everything = normal((*stored.ranges(), *gone_told))
    assert minus(((1, ledger.last),), everything) == ()
    assert ledger.waiting == ()


def _holds(ledger: Ledger, seq: int) -> bool:
    return any(low <= seq <= high for low, high in ledger.held)


def test_a_number_that_was_never_sent_cannot_have_been_receipted() -> None:
    """The spool is an old image: the server has other bytes under the numbers that are given anew."""
    w = window(2)
    w.stored([key(4), key(5), key(6), key(7)])  # 1 to 3 are from before: who knows what became of them
    ledger = Ledger("cpu", LIFE, last=7)
    assert w.take([ledger], 0.0) == [key(4), key(5)]
    doubted = w.doubted(ledger, receipt(9, (2, 2)), diverged=False)
    assert (doubted.missing, doubted.conflict) == (((2, 2), (6, 7)), ((6, 7),))
    ledger, _ = told(w, ledger, doubted)
    assert ledger.waiting == ((2, 2), (6, 7))
    assert w.take([ledger], 0.0) == [key(6), key(7)]
    assert w.doubted(ledger, receipt(9), diverged=False) == receipt(9)


def test_a_number_that_was_dropped_before_it_was_sent_may_be_taken_note_of() -> None:
    w = window()
    w.stored([key(1), key(2)])
    assert w.doubted(Ledger("cpu", LIFE, last=2, gone=((1, 2),)), receipt(2), diverged=False) == receipt(2)


def test_what_a_run_found_and_has_not_sent_is_not_marked_by_a_server_that_has_another_batch() -> None:
    # numbers 4 to 6 were given by an earlier run that never connected, on an image whose newest number was 3
    w, ledger = window(6), Ledger("cpu", LIFE, last=6, receipted=((1, 3),))
    w.found([ledger])
    told_of = msgspec.structs.replace(receipt(6), tip=7)
    assert w.doubts(told_of)
    doubted = w.doubted(ledger, told_of, diverged=True)
    assert (doubted.missing, doubted.conflict) == (((4, 6),), ((4, 6),))
    w.take([ledger], 0.0)
    assert w.doubted(ledger, told_of, diverged=True) == told_of  # sent by now: the server judges them itself


def test_a_server_that_has_the_same_batch_is_believed() -> None:
    w, ledger = window(6), Ledger("cpu", LIFE, last=6)
    w.found([ledger])
    told_of = msgspec.structs.replace(receipt(6), tip=7)
    assert w.doubted(ledger, told_of, diverged=False) == told_of
    assert not w.doubts(receipt(6))  # an older server names no tip
