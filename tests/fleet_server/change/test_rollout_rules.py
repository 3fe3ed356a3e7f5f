"""The arithmetic of a rollout, each rule by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config.twin import SettingValue
from fleet_server.change.rollout_plan import AbortRule, Ill, Plan, Rate, Spread, Stop, Wave, faults
from fleet_server.change.rollout_rules import (
    Spared,
    allowance,
    broken,
    in_waves,
    order_of,
    per_minute,
    standing,
    with_released,
)
from fleet_server.change.rollout_state import Head, Known, Meant, Member, Phase, Rollout, State

ID = "0123456789abcdef"
PATCH: dict[str, SettingValue | None] = {"video": "720p"}


def known(number: int, *, station: str = "", unit: str = "", pair: str = "", well: bool = True) -> Known:
    pairs = (pair,) if pair else ()
    waves = frozenset({0} if number % 2 else ())
    return Known("body_camera", station, unit, pairs, well, False, well, Meant.OLD, 1, None, waves=waves)


def member(state: State, **more: object) -> Member:
    ended = {State.FAILED: Ill.FAILED, State.SILENT: Ill.SILENT, State.TIMED_OUT: Ill.TIMED_OUT}
    turn = -1 if state is State.QUEUED else 0
    return Member(state, **{"wave": 0, "since_ms": 0, "released_ms": turn, "ill": ended.get(state), **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "succeeded", "expected"),
    [
        (Rate(50, 2.0, every=1000, max_per_min=1000), 0, 50),
        (Rate(50, 2.0, every=1000, max_per_min=1000), 999, 50),
        (Rate(50, 2.0, every=1000, max_per_min=1000), 1000, 100),
        (Rate(50, 2.0, every=1000, max_per_min=1000), 4000, 800),
        (Rate(50, 2.0, every=1000, max_per_min=1000), 5000, 1000),
        (Rate(50, 2.0, every=1000, max_per_min=1000), 10**9, 1000),  # no power of two that large
        (Rate(7, 1.0), 10**6, 7),
        (Rate(100, 2.0, every=1, max_per_min=100), 5, 100),
    ],
)
def test_the_rate_grows_with_success_up_to_its_bound(rate: Rate, succeeded: int, expected: int) -> None:
    assert per_minute(rate, succeeded) == expected


@settings(deadline=None)
@given(st.integers(1, 200), st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 300)), max_size=80))
def test_no_minute_sees_more_than_the_rate(limit: int, looks: list[tuple[int, int]]) -> None:
    given_at: list[tuple[int, int]] = []
    released: dict[int, int] = {}
    clock_ms = 0
    for step_ms, wanted in looks:
        clock_ms += step_ms
        count = min(wanted, allowance(limit, released, clock_ms, step_ms))
        released = with_released(released, clock_ms, count)
        given_at.append((clock_ms, count))
        assert sum(each for at, each in given_at if at > clock_ms - 60_000) <= limit
        assert len(released) <= 61


def test_a_minutes_turns_are_not_given_all_at_once() -> None:
    assert allowance(600, {}, 0, 1_000) == 10


def test_devices_come_by_no_age_and_no_name() -> None:
    names = [f"cam-{number:03}" for number in range(200)]
    one, other = (sorted(names, key=lambda name: order_of(rollout, name)) for rollout in (ID, ID[::-1]))
    assert one != other
    assert sum(one.index(name) < 100 for name in names[:100]) in range(30, 71)


@settings(deadline=None)
@given(st.integers(0, 60))
def test_every_device_is_in_one_wave(count: int) -> None:
    plan = Plan("p", "fleet", PATCH, waves=(Wave("a", "10%", where="unit==a"), Wave("b", "7"), Wave("c", "50%")))
    devices = {f"cam-{number}": known(number) for number in range(count)}
    waves = in_waves(plan, ID, devices)
    assert waves.keys() == devices.keys()
    assert all(0 in devices[device].waves for device, wave in waves.items() if wave == 0)
    sizes = [sum(each == wave for each in waves.values()) for wave in range(3)]
    assert sizes[0] <= -(-count // 10)
    assert sizes[1] == min(7, count - sizes[0])


@pytest.mark.parametrize(
    ("states", "rule", "is_broken"),
    [
        ([State.FAILED] * 1 + [State.SUCCEEDED] * 9, AbortRule(Ill.FAILED, 10.0), False),  # exactly as many as may
        ([State.FAILED] * 2 + [State.SUCCEEDED] * 8, AbortRule(Ill.FAILED, 10.0), True),
        ([State.FAILED], AbortRule(Ill.FAILED, 10.0, 20), False),  # one of at least twenty
        ([State.FAILED] * 3, AbortRule(Ill.FAILED, 10.0, 20), True),
        ([State.FAILED] * 2 + [State.VERIFYING] * 18, AbortRule(Ill.FAILED, 10.0), False),  # under way is executed
        ([State.FAILED] * 2 + [State.QUEUED] * 18, AbortRule(Ill.FAILED, 10.0), True),  # queued is not
        ([State.FAILED] * 2 + [State.CANCELED] * 18, AbortRule(Ill.FAILED, 10.0), True),  # on neither side
        ([State.SILENT], AbortRule(Ill.FAILED, 0.0), False),
        ([State.SILENT], AbortRule(Ill.ALL, 0.0), True),
        ([State.SILENT, State.TIMED_OUT, State.FAILED], AbortRule(Ill.ALL, 99.0), True),
        ([], AbortRule(Ill.ALL, 0.0), False),
    ],
)
def test_what_breaks_a_rule(states: list[State], rule: AbortRule, is_broken: bool) -> None:
    plan = Plan("p", "fleet", PATCH, abort=(rule,))
    members = {f"cam-{number}": member(state) for number, state in enumerate(states)}
    assert (broken(plan, Rollout(ID, Head(Phase.RUNNING, "ann", 0), members)) is rule) is is_broken


def test_what_somebody_accepted_breaks_no_rule_until_there_is_more_of_it() -> None:
    plan = Plan("p", "fleet", PATCH, abort=(AbortRule(Ill.FAILED, 10.0),))
    members = {f"cam-{number}": member(State.FAILED) for number in range(2)}
    head = Head(Phase.RUNNING, "ann", 0, accepted={Ill.FAILED: 2})
    assert broken(plan, Rollout(ID, head, members)) is None
    assert broken(plan, Rollout(ID, head, {**members, "cam-9": member(State.FAILED)})) is not None


def test_of_broken_rules_the_strongest_counts() -> None:
    rules = tuple(AbortRule(Ill.FAILED, 0.0, action=stop) for stop in (Stop.CANCEL, Stop.ROLL_BACK, Stop.PAUSE))
    plan = Plan("p", "fleet", PATCH, abort=rules)
    rollout = Rollout(ID, Head(Phase.RUNNING, "ann", 0), {"cam-1": member(State.FAILED)})
    found = broken(plan, rollout)
    assert found is not None
    assert found.action is Stop.ROLL_BACK


def spared(spread: Spread, devices: dict[str, tuple[Member, Known]], others: dict[tuple[str, str], int]) -> Spared:
    members = {name: each for name, (each, _) in devices.items()}
    return Spared(spread, members, {name: each for name, (_, each) in devices.items()}, others)


def test_at_most_a_share_of_a_station_is_touched_at_once_but_one_always() -> None:
    queued = member(State.QUEUED)
    devices = {f"cam-{number}": (queued, known(number, station="hq/one")) for number in range(9)}
    counting = spared(Spread(station_pct=25), devices, {})
    for number in range(2):
        assert counting.why_not(*devices[f"cam-{number}"]) == ""
        counting.touch(*devices[f"cam-{number}"])
    assert counting.why_not(*devices["cam-2"]) == "spread: 2 of hq/one at once"
    alone = {"cam-1": (queued, known(1, station="hq/two"))}
    assert spared(Spread(station_pct=1), alone, {}).why_not(*alone["cam-1"]) == ""


@pytest.mark.parametrize(
    ("state", "is_spared"),
    [
        (State.OFFERED, True),
        (State.WAITING, True),
        (State.APPLYING, True),
        (State.VERIFYING, True),
        (State.ROLLING_BACK, True),
        (State.SUCCEEDED, False),
        (State.FAILED, False),
        (State.QUEUED, False),
    ],
)
def test_of_a_pair_one_is_never_touched_while_the_other_is_unproved(state: State, is_spared: bool) -> None:
    devices = {
        "cam-1": (member(state), known(1, pair="pair-1")),
        "cam-2": (member(State.QUEUED), known(2, pair="pair-1")),
        "cam-3": (member(State.QUEUED), known(3, pair="night-shift")),  # a group that is no pair
    }
    counting = spared(Spread(), devices, {})
    assert bool(counting.why_not(*devices["cam-2"])) is is_spared
    assert counting.why_not(*devices["cam-3"]) == ""


def test_a_device_that_fell_silent_keeps_its_twin_untouched() -> None:
    devices = {
        "cam-1": (member(State.SILENT, loose=True), known(1, pair="pair-1")),
        "cam-2": (member(State.QUEUED), known(2, pair="pair-1")),
    }
    assert spared(Spread(), devices, {}).why_not(*devices["cam-2"]) == "spread: the other one of pair-1"


def test_a_unit_keeps_so_many_working_cameras_members_or_not() -> None:
    devices = {f"cam-{number}": (member(State.QUEUED), known(number, unit="unit-1")) for number in range(2)}
    devices["cam-9"] = (member(State.QUEUED), known(9, unit="unit-1", well=False))
    counting = spared(Spread(unit_working_min=2), devices, {("unit-1", "body_camera"): 1})
    assert counting.why_not(*devices["cam-0"]) == ""
    counting.touch(*devices["cam-0"])
    assert counting.why_not(*devices["cam-1"]) == "spread: unit-1 has 2 working of body_camera, needs 2"
    assert counting.why_not(*devices["cam-9"]) == ""  # does not work anyway


def test_a_wave_that_never_had_its_turn_proves_nothing() -> None:
    missed = [Member(State.TIMED_OUT, 0, 0), Member(State.TIMED_OUT, 0, 0)]
    assert standing(missed, 0).success_pct == 0
    assert standing([], 0).success_pct == 100


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (Plan("p", "fleet", PATCH, where="colour==red"), "where: position 0"),
        (Plan("p", "fleet", PATCH, waves=(Wave("a", where="("), Wave("b"))), "waves.a.where: position 1"),
        (Plan("p", "fleet", PATCH, waves=(Wave("a"), Wave("a"))), "waves: expected names that differ"),
        (Plan("p", "fleet", PATCH, rate=Rate(50, max_per_min=10)), "rate.max_per_min: expected at least 50, got 10"),
    ],
)
def test_what_a_plan_may_not_be(plan: Plan, fault: str) -> None:
    assert fault in "\n".join(faults(plan))
