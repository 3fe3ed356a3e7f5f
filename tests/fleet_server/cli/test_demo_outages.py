"""What the demo's keys do, decided without a demo."""

import pytest

from broker_config.ids import DeviceId
from fleet_server.cli.demo import outages
from fleet_server.cli.demo.outages import NOTHING, Change, Kind, Outage, Outages

CAR, ROOM = DeviceId("car-7"), DeviceId("room-2")
STATE = Outages((CAR, ROOM))


@pytest.mark.parametrize(
    ("key", "kind", "device"),
    [("l", Kind.LINK, CAR), ("a", Kind.AGENT, CAR), ("i", Kind.INSTRUMENTS, CAR), ("b", Kind.BROKER, None)],
)
def test_a_key_takes_away_and_again_gives_back(key: str, kind: Kind, device: DeviceId | None) -> None:
    outage = Outage(kind, device, 100 + outages.LASTS_S[kind])
    state, change = outages.pressed(STATE, key, 100)
    assert (state.current, change) == ((outage,), Change(began=(outage,)))
    assert outages.pressed(state, key, 101) == (STATE, Change(ended=(outage,)))


@pytest.mark.parametrize("key", ["x", "0", "3", "L", "\x1b", "", "\ufffd"])
def test_any_other_key_does_nothing(key: str) -> None:
    assert outages.pressed(STATE, key, 0) == (STATE, NOTHING)


def test_a_digit_chooses_whom_the_keys_are_meant_for() -> None:
    state, change = outages.pressed(STATE, "2", 0)
    assert (state.device, change) == (ROOM, NOTHING)
    assert outages.pressed(state, "a", 0)[1].began[0].device == ROOM


def test_two_devices_can_be_without_the_same() -> None:
    state, _ = outages.pressed(STATE, "l", 0)
    state, _ = outages.pressed(state, "2", 0)
    state, _ = outages.pressed(state, "l", 0)
    assert {outage.device for outage in state.current} == {CAR, ROOM}


def test_what_has_lasted_long_enough_ends_by_itself() -> None:
    state, _ = outages.pressed(STATE, "a", 0)
    state, _ = outages.pressed(state, "l", 0)
    agent_s = outages.LASTS_S[Kind.AGENT]
    assert outages.due(state, agent_s - 0.1) == (state, NOTHING)
    left, change = outages.due(state, agent_s)
    assert [outage.kind for outage in change.ended] == [Kind.AGENT]
    assert [outage.kind for outage in left.current] == [Kind.LINK]


def test_q_ends_the_demo() -> None:
    assert outages.pressed(STATE, outages.QUIT, 0) == (STATE, Change(quit=True))
