"""What a device is told: never of a number that was not received, always of what it may forget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import limits
from broker_config.ranges import Ranges, from_numbers
from fleet_server.telemetry.ledger import StreamLedger
from fleet_server.telemetry.receipts import receipt
from fleet_server.telemetry.store import StreamKey

KEY = StreamKey("car-7", "cpu", "9f0c2b1a77d3e458")
EPOCH = 1_767_254_400_000


def ledger_of(received: set[int], last: int = 0) -> StreamLedger:
    ledger = StreamLedger(KEY)
    for seq in received:
        ledger.quarantine(seq, 1)
    ledger.last = max(ledger.last, last)
    return ledger


def test_nothing_received_is_up_to_nothing() -> None:
    told = receipt(ledger_of(set(), last=9), EPOCH)
    assert (told.up_to, told.missing, told.conflict, told.store_epoch) == (0, (), (), EPOCH)


@pytest.mark.parametrize(
    ("holes", "up_to", "told"),
    [
        (limits.RANGES_MAX - 1, 2 * limits.RANGES_MAX - 2, limits.RANGES_MAX - 1),
        (limits.RANGES_MAX, 2 * limits.RANGES_MAX, limits.RANGES_MAX),
        # one hole too many: it ends just before that hole
        (limits.RANGES_MAX + 1, 2 * limits.RANGES_MAX, limits.RANGES_MAX),
        (3 * limits.RANGES_MAX, 2 * limits.RANGES_MAX, limits.RANGES_MAX),
    ],
)
def test_only_so_many_holes_fit(holes: int, up_to: int, told: int) -> None:
    message = receipt(ledger_of({2 + 2 * at for at in range(holes)}), EPOCH)
    assert (message.up_to, len(message.missing)) == (up_to, told)


@given(st.sets(st.integers(1, 400)), st.integers(0, 500))
def test_every_number_covered_was_received_and_none_is_left_out_that_fits(received: set[int], last: int) -> None:
    told = receipt(ledger_of(received, last), EPOCH)
    missing = {n for low, high in told.missing for n in range(low, high + 1)}
    assert {n for n in range(1, told.up_to + 1) if n not in missing} == {n for n in received if n <= told.up_to}
    assert told.missing == from_numbers(missing)
    assert len(told.missing) <= limits.RANGES_MAX
    if told.up_to < max(received, default=0):
        assert len(told.missing) == limits.RANGES_MAX


@pytest.mark.parametrize(
    ("conflicts", "behind", "told"),
    [
        ({}, None, ()),
        ({3: 1}, None, ((3, 3),)),
        ({3: 1, 4: 1}, None, ((3, 4),)),
        ({}, (6, 9), ((6, 9),)),
        ({3: 1, 5: 1}, (6, 9), ((3, 3), (5, 9))),
        # the newest: that it has gone wrong at all is what the device has to know
        ({2 * n: 1 for n in range(1, 100)}, (300, 310), (*((2 * n, 2 * n) for n in range(37, 100)), (300, 310))),
    ],
)
def test_conflicts_are_named(conflicts: dict[int, int], behind: tuple[int, int] | None, told: Ranges) -> None:
    ledger = ledger_of({1, 2})
    for seq, crc in conflicts.items():
        ledger.conflict(seq, crc)
    ledger.behind = behind
    assert receipt(ledger, EPOCH).conflict == told
