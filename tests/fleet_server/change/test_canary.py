"""A wave against its controls: told from chance where it is worse, and never by a cold station."""

import random

import pytest

from fleet_server.change.canary import Sides, compared
from fleet_server.change.rollout_plan import Control, Metric, Worse
from fleet_server.change.rollout_state import Known, Meant

METRIC = Metric("power.battery_pct", Worse.LOWER)
CONTROL = Control((METRIC,))
WAVE = tuple(f"wave-{number}" for number in range(12))
CONTROLS = tuple(f"control-{number}" for number in range(40))


def devices(stations: int = 1) -> dict[str, Known]:
    names = (*WAVE, *CONTROLS)
    return {
        name: Known("body_camera", f"hq/{number % stations}", "", (), True, False, True, Meant.OLD, 1, None)
        for number, name in enumerate(names)
    }


def values(worse_by: float, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    wave = {name: rng.gauss(80 - worse_by, 4) for name in WAVE}
    return wave | {name: rng.gauss(80, 4) for name in CONTROLS}


@pytest.mark.parametrize("seed", range(5))
def test_a_worse_wave_is_found(seed: int) -> None:
    verdict = compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), values(12, seed), devices(), seed="a")
    assert verdict.worse
    assert "power.battery_pct is lower by" in verdict.text


def test_a_wave_like_its_controls_is_hardly_ever_stopped() -> None:
    stopped = [
        compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), values(0, seed), devices(), seed="a").worse
        for seed in range(40)
    ]
    assert sum(stopped) <= 2  # alpha is 0.01


def test_a_better_wave_is_not_stopped() -> None:
    assert not compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), values(-12, 1), devices(), seed="a").worse
    higher = Metric("power.battery_pct", Worse.HIGHER)
    assert compared(higher, CONTROL, Sides(WAVE, CONTROLS), values(-12, 1), devices(), seed="a").worse


def test_what_is_too_little_to_matter_does_not_stop_it() -> None:
    at_least = Metric("power.battery_pct", Worse.LOWER, at_least=20)
    assert not compared(at_least, CONTROL, Sides(WAVE, CONTROLS), values(12, 1), devices(), seed="a").worse


@pytest.mark.parametrize(("wave", "controls"), [(WAVE[:4], CONTROLS), (WAVE, CONTROLS[:4]), ((), ())])
def test_too_few_to_compare_is_not_a_yes(wave: tuple[str, ...], controls: tuple[str, ...]) -> None:
    verdict = compared(METRIC, CONTROL, Sides(wave, controls), values(0, 1), devices(), seed="a")
    assert verdict.worse
    assert "needs 5 of each" in verdict.text


def test_a_cold_station_is_no_fault_of_the_wave() -> None:
    """Most of the wave is where everybody's battery is low: compared across stations it would look worse."""
    known = devices()
    cold = {*WAVE[:11], *CONTROLS[:6]}
    known = {
        name: Known(
            "body_camera", "hq/cold" if name in cold else "hq/warm", "", (), True, False, True, Meant.OLD, 1, None
        )
        for name in known
    }
    shifted = {name: value - 30 * (name in cold) for name, value in values(0, 3).items()}
    assert not compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), shifted, known, seed="a").worse
    nowhere = devices()
    assert compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), shifted, nowhere, seed="a").worse


def test_another_class_is_no_control() -> None:
    known = devices()
    for name in CONTROLS:
        known[name] = Known("traffic_light", "hq/0", "", (), True, False, True, Meant.OLD, 1, None)
    assert "0 of the wave" in compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), values(0, 1), known, seed="a").text


def test_the_answer_is_always_the_same() -> None:
    def ask() -> str:
        return compared(METRIC, CONTROL, Sides(WAVE, CONTROLS), values(4, 7), devices(), seed="a").text

    assert ask() == ask()
