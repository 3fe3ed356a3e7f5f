"""Assignments by commands: ready or not, out, over, in, who had it at a moment, corrections, an import."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from fleet_server.cli.__main__ import app
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.fleet import T0, Fleet

RUNNER: Final = CliRunner()


class Desk:
    def __init__(self, site: Path) -> None:
        self._site = site

    def run(self, *arguments: str) -> Result:
        return RUNNER.invoke(app, ["assign", *arguments, "--site", str(self._site)])

    def well(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def document(self, *arguments: str) -> Any:
        return json.loads(self.well(*arguments, "--json"))

    def officers(self, *arguments: str) -> list[str]:
        return [each["officer"] for each in self.document("show", *arguments)["assignments"]]


@pytest.fixture(scope="module")
def desk(served: tuple[Fleet, Path]) -> Desk:
    fleet, site = served
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "HQ"), expected=None, create=True, now_ms=T0)
    for device in ("cam-7", "cam-8", "cam-9"):
        said = Registration(device, "body_camera", node="hq")
        fleet.registry.register(said, expected=None, create=True, now_ms=T0)
    return Desk(site)


def test_what_is_not_ready_is_said_and_goes_out_with_a_reason(desk: Desk) -> None:
    told = desk.run("ready", "cam-7")
    assert told.exit_code == 1
    assert "at least 80 %" in told.stdout
    assert "unknown" in told.stdout
    tried = desk.run("out", "cam-7", "--officer", "4711", "--dry-run")
    assert (tried.exit_code, "no reading" in tried.stdout) == (1, True)
    refused = desk.run("out", "cam-7", "--officer", "4711")
    assert refused.exit_code == 1
    assert "battery" in refused.stderr
    assert desk.officers("--device", "cam-7") == []
    desk.well("out", "cam-7", "--officer", "4711", "--shift", "early", "--at", "-1h", "--override", "the last one")
    desk.well("over", "cam-7", "--officer", "4712", "--at", "-30m")
    assert "4712" in desk.well("show", "--device", "cam-7", "--lasting")
    desk.well("in", "cam-7")
    assert [desk.officers("--device", "cam-7", "--at", at) for at in ("-2h", "-45m", "-15m")] == [
        [],
        ["4711"],
        ["4712"],
    ]
    assert desk.officers("--officer", "4711") == ["4711"]
    assert desk.run("in", "cam-7").exit_code == 1


def test_a_correction_is_a_further_revision_and_both_are_shown(desk: Desk) -> None:
    body = ("out", "cam-8", "--officer", "4711", "--override", "x", "--at", "-1h")
    name = desk.document(*body)["assignment"]["assignment"]
    assert desk.run("correct", name, "--officer", "4713").exit_code == 2  # no reason
    assert desk.run("correct", name, "--officer", "4713", "--reason", "y", "--revision", "7").exit_code == 1
    desk.well("correct", name, "--officer", "4713", "--reason", "typed wrong", "--revision", "1")
    told = desk.well("history", name)
    assert "typed wrong" in told
    assert "not ready: battery" in told
    assert desk.officers("--device", "cam-8") == ["4713"]
    said_ms = desk.document("history", name)["revisions"][1]["said_ms"]
    assert desk.officers("--device", "cam-8", "--known-at", str(said_ms - 1)) == ["4711"]


def test_a_file_is_entered_whole_and_again_it_is_as_it_was(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "shifts.csv"
    file.write_text("device,begin,end,officer\ncam-9,2026-01-01T06:00:00Z,2026-01-01T14:00:00Z,4711\n")
    assert "1 would be created" in desk.well("import", str(file), "--dry-run")
    assert "1 created" in desk.well("import", str(file))
    assert "1 as they were" in desk.well("import", str(file))
    assert desk.run("import", str(tmp_path / "none.csv")).exit_code == 2


def test_wrong_usage_is_told(desk: Desk) -> None:
    assert desk.run("show", "--at", "noon").exit_code == 2
    assert desk.run("show", "--at", "-1h", "--from", "-2h").exit_code == 2
    assert desk.run("show", "--officer", "4711", "--device", "cam-7").exit_code == 2
    assert desk.run("out", "cam-7").exit_code == 1  # with nobody
    assert desk.run("out", "cam-7", "--officer", "Anna Meyer").exit_code == 1
