"""The fault run in small: real programs, a dozen kills; and the control that must be caught.

The large one is ``python -m tests.faults.telemetry --kills 200``.
"""

from pathlib import Path

import pytest

from tests.faults.schedule import Kind
from tests.faults.telemetry import CONTROL, run

pytestmark = pytest.mark.server("mosquitto")

SEED = 11
QUICK = [
    Kind.KILL,
    Kind.KILL_AND_WIPE,
    Kind.AGENT_LINK_RESET,
    Kind.SERVER_LINK_RESET,
    Kind.AGENT_LINK_HALF_OPEN,
    Kind.AGENT_FROZEN,
    Kind.SPOOL_RESTORED,
    Kind.STORE_RESTORED,
]


def test_a_dozen_kills_lose_nothing_that_was_receipted(tmp_path: Path) -> None:
    report = run(tmp_path, seed=SEED, kills=12, kinds=QUICK)
    print(report.as_text())
    assert report.verdict.wrong == []
    assert report.kills == 12
    assert report.verdict.receipted > 100
    assert report.verdict.seeded_seen == report.verdict.seeded > 0
    assert report.verdict.journal_links > 0


def test_a_server_that_receipts_before_it_commits_is_caught(tmp_path: Path) -> None:
    report = run(tmp_path, seed=SEED, kills=1, kinds=[Kind.KILL], control=CONTROL)
    print(report.as_text())
    assert report.passed
    assert report.verdict.lost_receipted > 0


@pytest.mark.root("small file systems")
def test_full_and_locked_disks_lose_nothing(tmp_path: Path) -> None:
    kinds = [Kind.AGENT_DISK_FULL, Kind.SERVER_DISK_FULL, Kind.SERVER_DISK_READ_ONLY]
    report = run(tmp_path, seed=SEED, kills=0, kinds=kinds)
    print(report.as_text())
    assert report.verdict.wrong == []


def test_clocks_that_lie_lose_nothing(tmp_path: Path) -> None:
    kinds = [Kind.CLOCK_1970, Kind.CLOCK_AHEAD, Kind.CLOCK_JUMPS]
    report = run(tmp_path, seed=SEED, kills=0, kinds=kinds)
    print(report.as_text())
    if report.skipped:
        pytest.skip(str(report.skipped))
    assert report.verdict.wrong == []
