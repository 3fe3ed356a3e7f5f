"""Power cuts around a swap of images, in small; and the control that must be caught."""

from pathlib import Path

import pytest

from tests.faults.firmware import NO_JOURNAL, prepare, run

SEED = 7
pytestmark = pytest.mark.server("qemu-system-arm")


async def test_power_cuts_around_a_swap_end_with_an_image_that_runs_and_the_right_verdict(tmp_path: Path) -> None:
    start = await prepare(tmp_path)
    report = await run(tmp_path, seed=SEED, cuts=6, start=start)
    assert report.good, report
    control = await run(tmp_path, seed=SEED, cuts=1, control=NO_JOURNAL, start=start)
    assert any("tried again" in why for why in control.wrong), control
