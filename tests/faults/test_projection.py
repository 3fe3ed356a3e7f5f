"""A projection that is killed at random over a sink that is at fault ends where the batch store is."""

from pathlib import Path

import pytest

from tests.faults.projection import FORGETS, run

KILLS = 6
SEED = 20260101


async def test_kills_and_faults_change_no_point_and_a_rebuild_neither(tmp_path: Path) -> None:
    report = await run(tmp_path, seed=SEED, kills=KILLS)
    print(report)
    assert report.good
    assert report.lines > report.points  # something was written twice, and is one


@pytest.mark.parametrize("control", [FORGETS])
async def test_a_sink_that_forgets_is_caught(tmp_path: Path, control: str) -> None:
    report = await run(tmp_path, seed=SEED, kills=2, control=control)
    print(report)
    assert report.missing > 0
    assert report.after_rebuild == 0  # what it forgot is not lost
