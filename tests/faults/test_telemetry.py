"""The fault run in small: real programs, a dozen kills; and the control that must be caught.

The large one is ``python -m tests.faults.telemetry --kills 200``.
"""

from pathlib import Path

import pytest

from tests.faults.carry_out import Faults
from tests.faults.rig import SETTLE_S_MAX, Rig, RigSettings
from tests.faults.schedule import Kind
from tests.faults.telemetry import CONTROL, drain, evidence, run
from tests.faults.verdict import judge

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
    assert report.verdict.wrong == []
    if report.skipped:
        pytest.skip(str(report.skipped))


def test_a_server_that_finds_itself_wrong_dies_before_it_says_something_that_is_not_so(tmp_path: Path) -> None:
    with Rig(tmp_path, RigSettings(server_module="tests.faults.mistaken_server")) as rig:
        rig.run()
        assert rig.server.wait(SETTLE_S_MAX) != 0
        assert "a mistake" in rig.server.log()
        rig.server.argv = [arg.replace("tests.faults.mistaken_server", "fleet_server") for arg in rig.server.argv]
        rig.start_server()
        faults = Faults(rig)
        drain(rig, faults)
        assert judge(evidence(rig, faults)).wrong == []


def test_an_old_spool_that_was_out_of_reach_loses_nothing(tmp_path: Path) -> None:
    """Its numbers are taken, and the server cannot see it; what it says under them is kept raw, not dropped."""
    report = run(tmp_path, seed=SEED, kills=0, kinds=[Kind.SPOOL_RESTORED_OFFLINE])
    print(report.as_text())
    verdict = report.verdict
    assert (verdict.lost_receipted, verdict.lost_unexplained, verdict.duplicates, verdict.foreign) == (0, 0, 0, 0)
    assert verdict.quarantined > 0
