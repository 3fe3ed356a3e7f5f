"""A schedule is drawn from its seed, and kills as many processes as it was asked to."""

import pytest

from tests.faults.schedule import KILLS, Kind, Target, plan


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert plan(7, 50, list(Kind)) == plan(7, 50, list(Kind))
    assert plan(7, 50, list(Kind)) != plan(8, 50, list(Kind))


@pytest.mark.parametrize("kills", [0, 1, 12, 200])
def test_just_so_many_processes_are_killed(kills: int) -> None:
    steps = plan(1, kills, list(Kind))
    assert sum(len(step.targets) for step in steps) == kills
    assert {step.kind for step in steps} >= set(Kind) - KILLS


def test_of_200_kills_every_target_dies_and_the_brokers_data_is_wiped() -> None:
    steps = plan(2, 200, [Kind.KILL, Kind.KILL_AND_WIPE])
    assert {target for step in steps for target in step.targets} == set(Target)
    assert all(Target.BROKER in step.targets for step in steps if step.kind is Kind.KILL_AND_WIPE)
    assert sum(step.kind is Kind.KILL_AND_WIPE for step in steps) > 10
