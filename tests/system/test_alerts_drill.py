"""What goes wrong over hours and days is told as an alert and clears once it is mended, by the rules as they are
shipped: real programs, by a clock that is moved.
"""

from pathlib import Path
from typing import Final

import pytest

from fleet_server.alerting.rules import RULE
from tests.faults.programs import why_no_disks
from tests.system.alerts_story import TOLD, story
from tests.system.drill import drilling

ELSEWHERE: Final = {
    "broker-lost",
    "device-certificate",
    "device-dead",
    "device-unhealthy",
    "lamp-failed",
    "rollout-paused",
    "signal-conflict",
    "signal-flash",
    "site-outage",
}
"""See test_alerts."""


def test_no_rule_is_left_out() -> None:
    assert {each.rule for each in TOLD} | ELSEWHERE == set(RULE)


@pytest.mark.server("mosquitto")
@pytest.mark.server("influxd")
@pytest.mark.skipif(why_no_disks() is not None, reason=str(why_no_disks()))
def test_each_fault_is_told_and_is_told_to_be_over(tmp_path: Path) -> None:
    with drilling(tmp_path) as drill:
        story(drill)
        assert {each.of for each in drill.table() if each.lasted_s is not None} >= TOLD
        assert "Traceback" not in drill.fleet.program.log()
