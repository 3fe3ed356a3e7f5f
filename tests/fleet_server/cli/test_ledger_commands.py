"""The ledger by commands: what was expected, calls without a recording, and certificates that are checked offline."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from broker_config.ids import DeviceId
from broker_config.telemetry import Event
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.cli.__main__ import app
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.access.drafts import SIGNER
from tests.fleet_server.evidence.arrivals import T0, segment
from tests.fleet_server.fleet import NOW, Fleet, journal, record

RUNNER: Final = CliRunner()
CAMERA, ROOM = DeviceId("cam-7"), DeviceId("room-1")
DAY: Final = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z")
CALLS: Final = (
    "dispatch,node,begin,end,holder\n"
    "call-1,hq,2026-01-01T08:00:00Z,2026-01-01T08:10:00Z,4711\n"
    "call-2,hq,2026-01-01T12:00:00Z,2026-01-01T12:10:00Z,4711\n"
)


class Desk:
    def __init__(self, fleet: Fleet, site: Path, directory: Path) -> None:
        self._url = f"http://127.0.0.1:{(site / 'site.toml').read_text().split()[-1]}"
        made = fleet.people.make_token(
            "ann",
            "ann",
            [NodeGrant(Role.EVIDENCE_REVIEWER, None)],
            giver=ROOT,
            expires_ms=None,
            now_ms=NOW,
        )
        self._tokens = {"admin": site / "server" / "api-token", "ann": directory / "ann"}
        self._tokens["ann"].write_text(made.secret)

    def run(self, who: str, *arguments: str) -> Result:
        server = ("--url", self._url, "--token-file", str(self._tokens[who]))
        return RUNNER.invoke(app, ["evidence", *arguments, *server])

    def well(self, *arguments: str, who: str = "ann") -> str:
        result = self.run(who, *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def document(self, *arguments: str) -> Any:
        return json.loads(self.well(*arguments, "--json"))


@pytest.fixture(scope="module")
def desk(served: tuple[Fleet, Path], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    fleet, site = served
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "HQ"), expected=None, create=True, now_ms=NOW)
    for device, device_class in ((CAMERA, "body_camera"), (ROOM, "interrogation_room")):
        said = Registration(device, device_class, node="hq")
        fleet.registry.register(said, expected=None, create=True, now_ms=NOW)
    opened = [Event("recording.opened", {"recording": f"r-{n}", "file_class": "recordings"}) for n in (1, 2)]
    fleet.arrive(record(CAMERA, journal(1, t0=T0, events=opened)))
    fleet.arrive(record(ROOM, journal(1, t0=T0, events=[Event("session.start", {"reference": "i-1"})])))
    fleet.arrive(record(ROOM, journal(2, t0=T0 + 60_000, events=[Event("session.stop", {"reference": "i-1"})])))
    fleet.custody.entered(holder="4711", segment=segment("r-1", 1, last=True))
    return Desk(fleet, site, tmp_path_factory.mktemp("tokens"))


def test_the_ledger_is_a_line_a_recording_or_a_count_of_days(desk: Desk) -> None:
    told = desk.well("ledger", "--device", CAMERA, *DAY)
    assert "verified" in told
    assert "overdue" in told
    assert [
        each["recording"]
        for each in desk.document("ledger", "--standing", "overdue", "--device", CAMERA, *DAY)["rows"]
    ] == ["r-2"]
    by_node = desk.well("ledger", "--by", "node", *DAY)
    (line,) = [each for each in by_node.splitlines() if "2026-01-01" in each and "hq" in each]
    assert line.split()[:3] == ["2026-01-01", "hq", "3"]  # two recordings, and one that the interview should have
    assert desk.run("ann", "ledger", "--by", "node", "--standing", "open").exit_code == 2


def test_calls_are_imported_listed_explained_and_counted(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "calls.csv"
    file.write_text(CALLS)
    assert desk.run("ann", "import-dispatches", str(file)).exit_code != 0
    assert "2 would be created" in desk.well("import-dispatches", str(file), "--dry-run", who="admin")
    assert "2 created" in desk.well("import-dispatches", str(file), who="admin")
    assert "cam-7: r-1" in desk.well("dispatches", *DAY)
    (open_,) = desk.document("dispatches", "--outcome", "unexplained", *DAY)["dispatches"]
    assert "call-2: forgotten" in desk.well("explain", open_["dispatch"], "--why", "forgotten", "--note", "told me")
    assert "1 notes erased" in desk.well("erase-call-notes", "call-2")
    again = desk.run("ann", "explain", "call-2", "--why", "privacy")
    assert again.exit_code == 1
    assert "once" in again.stderr
    assert "50 %" in desk.well("dispatches", "--rates", *DAY)


def test_a_certificate_is_checked_without_a_server(desk: Desk, tmp_path: Path) -> None:
    listed = desk.well("interviews", *DAY)
    assert "i-1" in listed
    assert "unexplained" in listed
    file, key = tmp_path / "i-1.json", tmp_path / "audit.pub"
    key.write_text(SIGNER.verifier.text())
    desk.well("certify", ROOM, "2026-01-01T08:00:00Z", "--to", str(file))
    checked = RUNNER.invoke(app, ["evidence", "certificate", str(file), "--key", str(key)])
    assert checked.exit_code == 0, checked.output
    assert "NOT recorded without a gap" in checked.stdout
    file.write_text(file.read_text().replace("NOT recorded", "recorded"))
    assert RUNNER.invoke(app, ["evidence", "certificate", str(file), "--key", str(key)]).exit_code == 1
    assert RUNNER.invoke(app, ["evidence", "certificate", str(file)]).exit_code == 2
    assert desk.run("ann", "certify", ROOM, "yesterday", "--to", str(tmp_path / "x")).exit_code == 2
