"""Is a wave worse off than devices whose turn it was not yet? Pure.

Each device of the wave that succeeded is compared with controls: members that had no turn, of the same class and at
the same station if there are any there, else of the same class anywhere. Such a set of devices is a stratum. How
much worse the wave is: the difference of the two sides' medians, after the median of its stratum was taken from each
value, so that a cold station or a worn series is the same for both sides. Whether that is chance: the ranks inside
each stratum, divided by its size and added up over the wave (van Elteren's test), against what comes of permuting,
inside each stratum, who is of the wave. Ranks, because single wild readings do not move them; the seed is the
rollout's id and the wave, so that the answer is always the same. With several metrics ``alpha`` is divided among them
(Bonferroni). Fewer than ``sample_min`` on a side say nothing, and that is not a yes.
"""

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from fleet_server.change.rollout_plan import Control, Metric, Plan, Worse
from fleet_server.change.rollout_state import Known, Rollout, State, World

PERMUTATIONS: Final = 2_000
ROUNDING: Final = 1e-9
"""Sums in another order differ by less."""


class Verdict(NamedTuple):
    """Whether the wave is worse, or nobody can tell; ``text``: of what, and by how much."""

    worse: bool
    text: str


class Sides(NamedTuple):
    """Devices of the wave, and those they are compared with."""

    wave: tuple[str, ...]
    controls: tuple[str, ...]


class Compared(NamedTuple):
    """One stratum: whether each is of the wave; what was measured, less the stratum's median; its rank there, from 0
    to 1, equal ones sharing theirs.
    """

    of_wave: list[bool]
    values: list[float]
    ranks: list[float]


def asked(rollout: Rollout) -> Sides:
    """Whose metrics are needed to judge the present wave."""
    members = rollout.members.items()
    return Sides(
        tuple(
            device
            for device, member in members
            if member.wave == rollout.head.wave and member.state is State.SUCCEEDED
        ),
        tuple(device for device, member in members if member.state is State.QUEUED and not member.executed),
    )


def judged(plan: Plan, rollout: Rollout, world: World) -> Verdict:
    """The verdict on the present wave."""
    assert plan.control is not None
    sides = asked(rollout)
    measures = world.measures or {}
    for metric in plan.control.metrics:
        values = measures.get(metric.fact, {})
        verdict = compared(
            metric, plan.control, sides, values, world.devices, seed=f"{rollout.id} {rollout.head.wave}"
        )
        if verdict.worse:
            return verdict
    return Verdict(worse=False, text="")


def compared(
    metric: Metric,
    control: Control,
    sides: Sides,
    values: Mapping[str, float],
    devices: Mapping[str, Known],
    *,
    seed: str,
) -> Verdict:
    """The verdict by one metric; *values*: device -> value, without those of whom nothing is known."""
    strata = _strata(sides, values, devices)
    ours = sum(sum(each.of_wave) for each in strata)
    theirs = sum(len(each.values) for each in strata) - ours
    if min(ours, theirs) < control.sample_min:
        text = (
            f"{metric.fact}: {ours} of the wave and {theirs} controls to compare, needs {control.sample_min} of each"
        )
        return Verdict(worse=True, text=text)
    sign = -1 if metric.worse is Worse.LOWER else 1
    seen = sign * _difference(strata)
    if seen <= metric.at_least:
        return Verdict(worse=False, text="")
    ranked = sign * _rank_sum(strata)
    rng = random.Random(seed)  # noqa: S311 - the same each time, on purpose
    as_bad = 0
    for _ in range(PERMUTATIONS):
        for each in strata:
            rng.shuffle(each.of_wave)
        as_bad += sign * _rank_sum(strata) >= ranked - ROUNDING
    chance = (as_bad + 1) / (PERMUTATIONS + 1)
    text = f"{metric.fact} is {metric.worse} by {seen:.4g} (median, {ours} against {theirs}, p = {chance:.2g})"
    return Verdict(chance <= control.alpha / len(control.metrics), text)


def _strata(sides: Sides, values: Mapping[str, float], devices: Mapping[str, Known]) -> list[Compared]:
    stations: defaultdict[tuple[str, str], set[bool]] = defaultdict(set)
    measured = [
        (device, of_wave) for of_wave, some in ((True, sides.wave), (False, sides.controls)) for device in some
    ]
    measured = [(device, of_wave) for device, of_wave in measured if device in values and device in devices]
    for device, of_wave in measured:
        stations[devices[device].device_class, devices[device].station].add(of_wave)
    found: defaultdict[tuple[str, str], list[tuple[bool, float]]] = defaultdict(list)
    for device, of_wave in measured:
        known = devices[device]
        station = known.station if len(stations[known.device_class, known.station]) > 1 else ""
        found[known.device_class, station].append((of_wave, values[device]))
    return [_centred(each) for _, each in sorted(found.items()) if len({of_wave for of_wave, _ in each}) > 1]


def _centred(stratum: Sequence[tuple[bool, float]]) -> Compared:
    middle = median(value for _, value in stratum)
    values = [value for _, value in stratum]
    ordered = sorted(values)
    ranks = [(bisect_left(ordered, each) + bisect_right(ordered, each)) / (2 * len(values)) for each in values]
    return Compared([of_wave for of_wave, _ in stratum], [value - middle for value in values], ranks)


def _rank_sum(strata: Sequence[Compared]) -> float:
    return sum(rank for each in strata for rank, of_wave in zip(each.ranks, each.of_wave, strict=True) if of_wave)


def _difference(strata: Sequence[Compared]) -> float:
    sides: tuple[list[float], list[float]] = ([], [])
    for each in strata:
        for of_wave, value in zip(each.of_wave, each.values, strict=True):
            sides[of_wave].append(value)
    return median(sides[True]) - median(sides[False])
