"""The command shows what the API says, and its exit code says how it went."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fleet_server.access.people import NodeGrant
from fleet_server.access.persons import Identity
from fleet_server.access.roles import Role
from fleet_server.cli.__main__ import app
from tests.fleet_server.fleet import NOW, T0, TOKEN, Fleet
from tests.servers import free_port

RUNNER = CliRunner()
BEGIN, END = str(T0), str(T0 + 3_600_000)


@pytest.fixture
def site(served: tuple[Fleet, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIELDFLEET_SITE", str(served[1]))
    return served[1]


def run(*arguments: str) -> Result:
    return RUNNER.invoke(app, arguments)


def table(*arguments: str) -> list[list[str]]:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def document(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("site")
class TestShows:
    def test_devices(self) -> None:
        head, car, room = table("devices")
        assert head[:2] == ["device", "class"]
        assert car[0] == "car-7"
        assert car[-3:] == ["4", "5", "1"]  # stored, missing, quarantined
        assert room[0] == "room-1"

    def test_devices_as_json(self) -> None:
        assert [device["device"] for device in document("devices")["devices"]] == ["car-7", "room-1"]

    def test_a_limit_that_cuts_says_so_on_stderr(self) -> None:
        result = run("devices", "--limit", "1", "--json")
        assert [device["device"] for device in json.loads(result.stdout)["devices"]] == ["car-7"]
        assert "--limit" in result.stderr

    def test_one_device(self) -> None:
        lines = table("device", "car-7")
        assert lines[0][:3] == ["car-7", "class", "host"]
        cpu = next(line for line in lines if line[0] == "cpu")
        assert cpu[2:7] == ["3", "9", "5", "1", "0"]
        assert cpu[-4:] == ["cpu_pct", "44", "load_1m", "-"]

    def test_one_device_as_json(self) -> None:
        found = document("device", "car-7")
        assert (found["device"]["device"], found["latest"][0]["stream"]) == ("car-7", "cpu")

    def test_series_with_spark_lines(self) -> None:
        lines = table("series", "car-7", "cpu", "--from", BEGIN, "--to", END)
        assert lines[0][:2] == ["cpu_pct", "▁▁▁▂▂▃▃▃▄▄▇▇███"]
        assert lines[0][2:] == ["10", "to", "44"]
        assert lines[1] == ["load_1m", "nothing"]
        assert ["2026-01-01", "08:00:19Z", "44", "-"] in lines
        assert lines[-1][:2] == ["15", "readings"]

    def test_series_of_one_field_in_buckets(self) -> None:
        series = document(
            "series", "car-7", "cpu", "--from", BEGIN, "--to", END, "--points", "60", "--field", "cpu_pct"
        )
        assert (series["bucket_ms"], list(series["columns"])) == (60_000, ["cpu_pct"])

    def test_gaps(self) -> None:
        lines = table("gaps", "--device", "car-7", "--from", BEGIN)
        assert ["car-7", "cpu", "quarantined", "9", "to", "9"] in [line[:6] for line in lines]

    def test_gaps_of_one_reason_as_json(self) -> None:
        gaps = document("gaps", "--reason", "waiting", "--from", BEGIN)["gaps"]
        assert {gap["reason"] for gap in gaps} == {"waiting"}

    def test_events(self) -> None:
        lines = table("events", "car-7", "--from", BEGIN, "--to", END)
        assert lines[1] == ["2026-01-01", "08:00:00Z", "agent.start", "clean=true"]
        assert lines[-1][2:] == ["link.up", "attempts=3"]

    def test_quarantine(self) -> None:
        assert [line[0] for line in table("quarantine", "list")] == ["id", "1", "2"]
        assert table("quarantine", "show", "1") == [["<script>"]]
        assert document("quarantine", "show", "2") == {"id": 2, "payload_bytes": 2, "payload_hex": "fffe"}

    def test_quarantined_bytes_go_to_a_new_file_only(self, tmp_path: Path) -> None:
        output = tmp_path / "message.bin"
        assert run("quarantine", "show", "2", "--output", str(output)).exit_code == 0
        assert output.read_bytes() == b"\xff\xfe"
        assert run("quarantine", "show", "1", "--output", str(output)).exit_code == 2
        assert output.read_bytes() == b"\xff\xfe"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("device", "car-8"), ("car-8 was never heard of", "expected: an id of /v1/devices")),
        (("device", "../facts"), ("nothing is at",)),
        (("series", "car-7", "mood"), ("no readings called mood", "one of: cpu")),
        (("series", "car-7", "cpu", "--from", "yesterday"), ("query.from", "RFC 3339")),
        (("series", "car-7", "cpu", "--from", "-3d"), ("at most 24 h",)),
        (("gaps", "--reason", "bored"), ("query.reason", "unexplained")),
        (("quarantine", "replay", "1"), ("still refused", "malformed")),
        (("quarantine", "show", "99"), ("99 is not in quarantine",)),
    ],
)
def test_a_problem_of_the_api_is_exit_1_and_says_what_was_expected(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    for word in words:
        assert word in result.stderr


def test_a_wrong_token_says_where_it_came_from(served: tuple[Fleet, Path], tmp_path: Path) -> None:
    port = int((served[1] / "site.toml").read_text().split()[-1])
    (tmp_path / "token").write_text("ff_wrong")
    result = run("devices", "--url", f"http://127.0.0.1:{port}", "--token-file", str(tmp_path / "token"))
    assert result.exit_code == 1
    assert f"the token came from {tmp_path / 'token'}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("devices", "--site", "nowhere"), "make one: fleet-server init"),
        (("devices", "--url", "http://127.0.0.1:1"), "--url and --token-file together"),
        (("devices", "--limit", "0"), "--limit"),
        (("devices", "--colour"), "--colour"),
        (("device",), "DEVICE"),
        (("quarantine", "show", "three"), "valid integer"),
        (("devices", "--url", "::", "--token-file", "/dev/null"), "expected a URL"),
    ],
)
def test_wrong_usage_is_exit_2(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://nowhere.invalid:{port}", "ftp://127.0.0.1"])
def test_a_server_that_is_not_there_is_exit_3(url: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    result = run("devices", "--url", url.format(port=free_port()), "--token-file", str(tmp_path / "token"))
    assert result.exit_code == 3
    assert "is the server running?" in result.stderr
    assert "Traceback" not in result.output


def test_every_command_has_an_example() -> None:
    for command in (
        ["devices"],
        ["device"],
        ["series"],
        ["gaps"],
        ["events"],
        ["demo"],
        ["quarantine", "list"],
        ["quarantine", "show"],
        ["quarantine", "replay"],
    ):
        assert f"Example: fieldfleet {' '.join(command)}" in run(*command, "--help").stdout


def test_the_command_is_light() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, fleet_server.cli.__main__; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"fastapi", "pydantic", "cryptography", "sqlite3", "uvicorn", "structlog", "mqtt5", "edge_agent"}
    assert heavy & set(loaded) == set()


@pytest.mark.usefixtures("site")
def test_equipment_is_imported_registered_listed_counted_and_taken_away(tmp_path: Path) -> None:
    def done(*arguments: str) -> str:
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    nodes = tmp_path / "nodes.csv"
    nodes.write_text("node,kind,name,parent\nhq,centre,Command centre,\nstation-7,station,Seventh station,hq\n")
    assert "2 would be created" in done("import", "org-nodes", str(nodes), "--dry-run")
    assert "2 created, 0 changed, 0 as they were" in done("import", "org-nodes", str(nodes))
    assert "registered" in done("register", "cam-1", "--class", "body_camera", "--node", "station-7")
    listed = done("devices", "--node", "hq", "--not-connected")
    assert "hq/station-7" in listed
    assert "car-7" not in listed
    assert "Seventh station" in done("fleet")
    again = run("register", "cam-1", "--class", "body_camera")
    assert (again.exit_code, "changed meanwhile" in again.stderr) == (1, True)
    assert "not registered" in done("unregister", "cam-1", "--revision", "1")


@pytest.mark.usefixtures("site")
def test_a_file_that_cannot_be_imported_tells_its_faults_by_line(tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text("device,device_class\ncar-9,toaster\n")
    result = run("import", "devices", str(file))
    assert (result.exit_code, "line 2" in result.stderr) == (1, True)
    missing = run("import", "devices", str(tmp_path / "none.csv"))
    assert missing.exit_code == 2


@pytest.mark.usefixtures("site")
def test_a_token_is_made_shown_used_and_revoked(site: Path, tmp_path: Path) -> None:
    secret = run("tokens", "make", "reader", "--grant", "viewer@everywhere", "--days", "1").stdout.strip()
    assert secret.startswith("ff_")
    file = tmp_path / "token"
    file.write_text(secret)
    url = f"http://127.0.0.1:{(site / 'site.toml').read_text().partition('= ')[2].strip()}"
    reader = ("--url", url, "--token-file", str(file))
    assert "fleet:read" in run("whoami", *reader).stdout
    refused = run("register", "x", "--class", "host", *reader)
    assert (refused.exit_code, "registry:change" in refused.stderr) == (1, True)
    listed = run("tokens", "list").stdout
    assert ("viewer@everywhere" in listed, secret in listed) == (True, False)
    assert run("tokens", "revoke", "reader").exit_code == 0
    assert run("devices", *reader).exit_code == 1


def test_a_person_is_granted_something_kept_out_and_let_in_again(served: tuple[Fleet, Path], site: Path) -> None:
    fleet, _ = served
    assert site.is_dir()
    assert run("people", "list").exit_code == 0
    anna = Identity("https://login.example", "1001", "Anna Meyer\x1b[31m", "a.meyer@police.example")
    fleet.persons.sign_in(anna, [NodeGrant(Role.VIEWER, None)], instead_of=None, now_ms=NOW)
    listed = run("people", "list").stdout
    assert ("a-meyer" in listed, "viewer@everywhere (group)" in listed, "\x1b" in listed) == (True, True, False)
    granted = run("people", "grant", "a-meyer", "--grant", "release_manager@everywhere").stdout
    assert "release_manager@everywhere, viewer@everywhere (group)" in granted
    assert "disabled" in run("people", "disable", "a-meyer").stdout
    assert "good" in run("people", "enable", "a-meyer").stdout
    assert "release_manager" not in run("people", "grant", "a-meyer", "--nothing").stdout
    nothing_waits = run("people", "approve", "a-meyer")
    assert (nothing_waits.exit_code, "nothing is proposed" in nothing_waits.stderr) == (1, True)
    for wrong in ((), ("--grant", "viewer"), ("--nothing", "--grant", "viewer@everywhere")):
        assert run("people", "grant", "a-meyer", *wrong).exit_code == 2


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("grant", ["viewer", "king@everywhere", "viewer@"])
def test_a_grant_that_is_none_is_told(grant: str) -> None:
    assert run("tokens", "make", "x", "--grant", grant).exit_code == 2


@pytest.mark.usefixtures("site")
def test_a_device_is_claimed_shown_and_put_out(tmp_path: Path) -> None:
    def done(*arguments: str) -> str:
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    done("register", "tram-1", "--class", "host")
    shown = done("claim", "tram-1")
    code = re.findall(r"ffc_[a-z2-7]{32}", shown)[0]
    assert "█" in shown
    assert f"edge-agent enroll --server https://fleet.example:8471 --claim {code} --ca server-ca.crt" in shown
    (claim,) = json.loads(done("claims", "--device", "tram-1", "--json"))["claims"]
    assert code not in done("claims")
    assert "is withdrawn" in done("claims", "--withdraw", claim["claim"])
    (tmp_path / "in.csv").write_text("device,note\ntram-1,x\n")
    done("claims", "--import", str(tmp_path / "in.csv"), "--to", str(tmp_path / "codes.csv"))
    assert (tmp_path / "codes.csv").stat().st_mode & 0o077 == 0
    assert re.search(r"^tram-1,ffc_[a-z2-7]{32},https://", (tmp_path / "codes.csv").read_text(), re.MULTILINE)
    again = run("claims", "--import", str(tmp_path / "in.csv"), "--to", str(tmp_path / "codes.csv"))
    assert again.exit_code == 2
    assert "File exists" in again.output
    assert run("claims", "--import", str(tmp_path / "in.csv")).exit_code == 2
    assert "serial" in done("certificates", "tram-1")
    refused = run("revoke", "tram-1", "--reason", "lost")
    assert refused.exit_code == 1
    assert "has no certificate of this server" in refused.output
