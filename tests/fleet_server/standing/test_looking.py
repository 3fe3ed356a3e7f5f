"""Measures are made at their own pace, and none waits for another that is slow or makes a mistake."""

from collections.abc import Iterator, Sequence

import pytest

from fleet_server.standing.held import Held
from fleet_server.standing.looking import Looker, Source, portions
from fleet_server.standing.measures import RECORDINGS, ROLLOUTS, UPLOADS, Measure
from fleet_server.standing.sample import Sample
from fleet_server.telemetry.store import StoreError


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def now_ms(self) -> int:
        return int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s


class Devices:
    """A device a portion; *failing*: before the second."""

    def __init__(self, measure: Measure, devices: int, failing: Exception | None = None) -> None:
        self.measure = measure
        self.devices = devices
        self.failing = failing
        self.looks = 0

    def look(self, at_ms: int) -> Iterator[Sequence[Sample]]:
        self.looks += 1
        for number in range(self.devices):
            if number and self.failing is not None:
                raise self.failing
            yield [Sample(self.measure, at_ms, (1.0,) * len(self.measure.fields), f"d{number}", "host", "hq")]


def looker(clock: Clock, held: Held, *sources: Devices, pace: float = 1.0) -> Looker:
    found = [Source(each.measure, each.look) for each in sources]
    return Looker(found, held, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s, pace=pace)


def shown(held: Held, clock: Clock) -> dict[str, int]:
    found = [sample.measure.name for sample in held.samples(clock.now_ms())]
    return {name: found.count(name) for name in found}


def test_each_measure_is_made_at_its_own_cadence() -> None:
    clock, held = Clock(), Held()
    often, seldom = Devices(ROLLOUTS, 1), Devices(RECORDINGS, 1)
    one = looker(clock, held, often, seldom)
    for _ in range(2_401):
        one.turn()
        clock.s += 0.25
    assert (often.looks, seldom.looks) == (600 // ROLLOUTS.every_s + 1, 600 // RECORDINGS.every_s + 1)


def test_a_pace_makes_them_more_often() -> None:
    clock, held = Clock(), Held(pace=30)
    one = Devices(ROLLOUTS, 1)
    looking = looker(clock, held, one, pace=30)
    for _ in range(41):
        looking.turn()
        clock.s += 0.25
    assert one.looks == 11


def test_a_quick_one_does_not_wait_for_a_long_one() -> None:
    clock, held = Clock(), Held()
    one = looker(clock, held, Devices(RECORDINGS, 1_000), Devices(ROLLOUTS, 1))
    assert one.turn()
    assert shown(held, clock) == {"recordings": 1, "rollouts": 1}


def test_a_look_that_is_over_is_not_busy_and_what_is_gone_is_not_shown() -> None:
    clock, held = Clock(), Held()
    devices = Devices(UPLOADS, 3)
    one = looker(clock, held, devices)
    while one.turn():
        pass
    assert shown(held, clock) == {"uploads": 3}
    devices.devices = 1
    clock.s += UPLOADS.every_s
    while one.turn():
        pass
    assert shown(held, clock) == {"uploads": 1}


@pytest.mark.parametrize("failing", [StoreError("away"), ZeroDivisionError()])
def test_what_fails_is_tried_at_its_next_time_and_the_others_go_on(failing: Exception) -> None:
    clock, held = Clock(), Held()
    broken, sound = Devices(UPLOADS, 3, failing), Devices(ROLLOUTS, 1)
    one = looker(clock, held, broken, sound)
    while one.turn():
        pass
    assert shown(held, clock) == {"uploads": 1, "rollouts": 1}
    broken.failing = None
    clock.s += UPLOADS.every_s
    while one.turn():
        pass
    assert shown(held, clock) == {"uploads": 3, "rollouts": 1}


def test_portions_are_all_of_it() -> None:
    assert list(portions(range(5), 2)) == [range(2), range(2, 4), range(4, 5)]
    assert list(portions((), 2)) == []
