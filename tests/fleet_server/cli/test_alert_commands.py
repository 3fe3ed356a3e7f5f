"""``fieldfleet alerts``."""

import json
from pathlib import Path

from typer.testing import CliRunner

from fleet_server.cli.__main__ import app
from fleet_server.standing.measures import SERVER
from tests.fleet_server.alerting.samples import sample
from tests.fleet_server.fleet import Fleet


def run(site: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["alerts", *arguments, "--site", str(site)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_wrong_is_listed_with_its_runbook_in_either_language(served: tuple[Fleet, Path]) -> None:
    fleet, site = served
    assert json.loads(run(site, "--json"))["alerts"] == []
    fleet.standing.put([sample(SERVER, fleet.now_ms, quarantine_share=0.9)])
    fleet.alerts.look()
    words = " ".join(run(site).split())
    assert "quarantine is 90 %" in words
    assert "alarm" in words
    assert "quarantine-filling.md" in words
    assert "隔离区已用" in run(site, "--language", "zh-Hans")
    assert [each["rule"] for each in json.loads(run(site, "--json"))["alerts"]] == ["quarantine-filling"]
    assert json.loads(run(site, "--json", "--node", "hq"))["alerts"] == []
