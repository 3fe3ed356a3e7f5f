"""Which orders are due, and which are said again as they were signed."""

from broker_config.ids import DeviceId
from fleet_server.change.orders import SAY_AGAIN_MS, Due, Signed

A, B, C = (DeviceId(name) for name in "abc")


def test_each_device_is_due_once_in_its_turn() -> None:
    due = Due()
    assert [due.add(device) for device in (A, B, A, C)] == [True] * 4
    first = due.take(2)
    assert (first, len(due)) == ([A, B], 1)
    due.add(A)
    due.back(first)  # they could not be told
    assert due.take(9) == [A, B, C]
    assert due.take(9) == []


def test_there_is_room_for_so_many() -> None:
    due = Due(devices_max=2)
    assert [due.add(device) for device in (A, B, C, A)] == [True, True, False, True]


def test_an_order_is_said_again_while_it_is_fresh_and_of_that_version() -> None:
    signed = Signed()
    signed.keep(A, 7, b"order", signed_ms=1_000, lifetime_ms=10 * SAY_AGAIN_MS)
    signed.keep(B, 7, b"short", signed_ms=1_000, lifetime_ms=500)
    assert signed.find(A, 7, now_ms=1_000 + SAY_AGAIN_MS - 1) == b"order"
    assert signed.find(A, 7, now_ms=1_000 + SAY_AGAIN_MS) is None
    assert signed.find(A, 8, now_ms=1_000) is None
    assert (signed.find(B, 7, now_ms=1_499), signed.find(B, 7, now_ms=1_500)) == (b"short", None)


def test_the_oldest_orders_are_forgotten() -> None:
    signed = Signed(kept_max=2)
    for device in (A, B, A, C):
        signed.keep(device, 1, b"order", signed_ms=0, lifetime_ms=9)
    assert [signed.find(device, 1, now_ms=0) for device in (A, B, C)] == [b"order", None, b"order"]
