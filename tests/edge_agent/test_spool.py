import random

import msgspec
import pytest

from broker_config import limits
from broker_config.device_classes import SpoolClass
from broker_config.messages import Receipt, StreamState
from broker_config.ranges import Ranges, both, normal
from edge_agent import spool
from edge_agent.spool import Head, Ledger, Passed

LIFE = "1" * 16
HOUR_MS = 3_600_000


def head(stream: str, order: int, *, receipted: bool = False, spool_class: SpoolClass = SpoolClass.NORMAL) -> Head:
    return Head(stream, LIFE, spool_class, 1, order, receipted)


def receipt(up_to: int, missing: Ranges = (), *, conflict: Ranges = ()) -> Receipt:
    return Receipt(1, "cpu", LIFE, up_to, missing, conflict, 1)


BULK, KEEP = SpoolClass.BULK, SpoolClass.KEEP


@pytest.mark.parametrize(
    ("candidates", "first"),
    [
        ([], None),
        ([head("a", 5), head("b", 4)], "b"),
        ([head("a", 1), head("b", 9, receipted=True)], "b"),  # what the server has, however new
        ([head("a", 9, receipted=True), head("journal", 3, receipted=True, spool_class=KEEP)], "journal"),
        ([head("a", 1), head("b", 9, spool_class=BULK)], "b"),
        ([head("a", 9), head("b", 1, spool_class=KEEP)], "a"),
        ([head("journal", 1, spool_class=KEEP), head("b", 9, spool_class=KEEP)], "b"),
        ([head("journal", 1, spool_class=KEEP)], "journal"),
    ],
)
def test_what_is_evicted_first(candidates: list[Head], first: str | None) -> None:
    found = spool.next_eviction(candidates)
    assert (found.stream if found else None) == first


@pytest.mark.parametrize(
    ("ledger", "state"),
    [
        (Ledger("cpu", LIFE), (1, 0, (), ())),
        (Ledger("cpu", LIFE, last=5), (1, 5, (), ())),
        (Ledger("cpu", LIFE, last=5, gone=((1, 2),)), (3, 5, ((1, 2),), ())),
        (Ledger("cpu", LIFE, last=5, trimmed=((1, 5),), receipted=((1, 5),)), (6, 5, (), ())),
        # a hole in the receipts: what was trimmed above it has to be told, or it would pass for waiting
        (Ledger("cpu", LIFE, last=9, trimmed=((1, 3), (5, 8)), receipted=((1, 3), (5, 8))), (4, 9, (), ((5, 8),))),
    ],
)
def test_what_a_birth_says(ledger: Ledger, state: tuple[int, int, Ranges, Ranges]) -> None:
    assert spool.stream_state(ledger, 10_000) == StreamState("cpu", LIFE, *state, 10_000)


def test_tombstones_that_do_not_fit_into_a_birth_never_pass_for_receipted() -> None:
    gone = tuple((n, n) for n in range(1, 401, 2))
    ledger = Ledger("cpu", LIFE, last=500, gone=gone, trimmed=normal((n, n) for n in range(2, 401, 2)))
    state = spool.stream_state(ledger, 0)
    assert state.gone == gone[: limits.RANGES_MAX]
    assert state.first == gone[limits.RANGES_MAX][0]
    told = spool.apply_receipt(ledger, receipt(state.first - 1), 0)
    later = spool.stream_state(told, 0)
    assert later.gone == gone[limits.RANGES_MAX : 2 * limits.RANGES_MAX]


@pytest.mark.parametrize(
    ("before", "told", "after"),
    [
        ((), receipt(3), ((1, 3),)),
        ((), receipt(5, ((2, 3),)), ((1, 1), (4, 5))),
        (((1, 4),), receipt(2), ((1, 4),)),  # an older one that came late
        (((1, 5),), receipt(5, ((2, 2),)), ((1, 1), (3, 5))),  # the server lacks it after all
        ((), receipt(99), ((1, 10),)),  # never more than was given
        ((), receipt(0), ()),
    ],
)
def test_a_receipt_marks_what_is_committed(before: Ranges, told: Receipt, after: Ranges) -> None:
    assert spool.apply_receipt(Ledger("cpu", LIFE, last=10, receipted=before), told, None).receipted == after


def test_what_is_held_begins_with_a_receipt_whose_time_somebody_vouches_for() -> None:
    ledger = Ledger("cpu", LIFE, last=10)
    assert spool.apply_receipt(ledger, receipt(5), None).passed == ()
    ledger = spool.apply_receipt(ledger, receipt(5), 1_000)
    ledger = spool.apply_receipt(ledger, receipt(8), 2_000)
    assert ledger.passed == (Passed(1_000, 5),)
    assert spool.held_long_enough(ledger, now_ms=HOUR_MS, hold_ms=HOUR_MS) == ()
    assert spool.held_long_enough(ledger, now_ms=HOUR_MS + 1_000, hold_ms=HOUR_MS) == ((1, 5),)
    moved_back = spool.apply_receipt(ledger, receipt(9), 500)
    assert moved_back.passed == (Passed(500, 9),)


def test_a_finished_life_is_told_no_more_once_its_tombstones_are_known() -> None:
    over = Ledger("cpu", LIFE, current=False, last=4, gone=((1, 2),), trimmed=((3, 4),))
    assert not spool.finished(over)
    assert spool.finished(spool.apply_receipt(over, receipt(4), None))
    assert not spool.finished(msgspec.structs.replace(over, current=True))


def test_current_lives_come_first_in_a_birth_that_is_full() -> None:
    old = [Ledger("cpu", f"{n:016x}", current=False, last=1) for n in range(limits.STREAMS_MAX)]
    now = Ledger("cpu", LIFE)
    assert spool.told([*old, now]) == [now, *old][: limits.STREAMS_MAX]


@pytest.mark.parametrize("seed", range(20))
def test_every_number_is_held_gone_or_trimmed_and_only_one_of_these(seed: int) -> None:
    rng = random.Random(seed)
    ledger = Ledger("cpu", LIFE)
    for _ in range(300):
        match rng.randrange(4):
            case 0:
                ledger = msgspec.structs.replace(ledger, last=ledger.last + rng.randrange(5))
            case 1:
                missing = normal([(n, n) for n in range(1, ledger.last + 1) if rng.random() < 0.2])
                told = receipt(rng.randrange(ledger.last + 1), missing[: limits.RANGES_MAX])
                ledger = spool.apply_receipt(ledger, told, None)
            case 2 if ledger.held:
                low, high = rng.choice(ledger.held)
                ledger = spool.evict(ledger, rng.randint(low, high), 0)
            case _:
                ledger = spool.drop_unstored(ledger, rng.randrange(1, 3))
        parts = (ledger.held, ledger.gone, ledger.trimmed)
        assert normal(r for part in parts for r in part) == (((1, ledger.last),) if ledger.last else ())
        assert not both(ledger.held, ledger.gone)
        assert not both(ledger.held, ledger.trimmed)
        assert not both(ledger.gone, ledger.trimmed)
