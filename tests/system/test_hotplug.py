"""An instrument that is pulled costs next to nothing, and works within two seconds of being put in again."""

from pathlib import Path

import pytest

from tests.benchmarks import hotplug

CORE_SHARE_MAX = 0.01
AGAIN_S_MAX = 2.0


@pytest.mark.server("mosquitto")
async def test_a_line_that_is_out_takes_less_than_a_hundredth_of_a_core_and_reads_at_once_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Its cadence is five seconds; the profile is the shipped one."""
    found = await hotplug.measured(tmp_path, "interrogation_room", "line", away_s=5.0, rounds=2)
    assert [each for each in found if each.core_share >= CORE_SHARE_MAX or each.again_s > AGAIN_S_MAX] == []
