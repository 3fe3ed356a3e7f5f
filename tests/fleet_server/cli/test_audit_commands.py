"""An export is checked without a server, and a witness signs only what goes on from what it saw."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from fleet_server.access import notes
from fleet_server.access.auditor import own_fact
from fleet_server.access.notes import Verifier
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.cli.__main__ import app
from tests.fleet_server.access.drafts import SIGNER
from tests.fleet_server.fleet import NOW, Fleet

RUNNER = CliRunner()
pytestmark = pytest.mark.usefixtures("site")


@pytest.fixture
def site(served: tuple[Fleet, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIELDFLEET_SITE", str(served[1]))
    return served[1]


@pytest.fixture
def fleet(served: tuple[Fleet, Path]) -> Fleet:
    return served[0]


@pytest.fixture
def key(tmp_path: Path) -> str:
    """The server's public key, as init leaves it."""
    path = tmp_path / "audit.pub"
    path.write_text(f"{SIGNER.verifier.text()}\n")
    return str(path)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    run("register", "car-8", "--class", "host")
    path = tmp_path / "audit.ndjson"
    run_well("audit", "export", str(path))
    return path


def run(*arguments: str) -> Result:
    return RUNNER.invoke(app, arguments)


def run_well(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def claims(result: Result) -> dict[str, str]:
    return {each["claim"]: each["result"] for each in json.loads(result.stdout)["claims"]}


def test_list() -> None:
    run_well("register", "car-9", "--class", "host")
    lines = [line.split() for line in run_well("audit", "list", "--subject", "car-9").splitlines()]
    assert lines[0][:3] == ["time", "log", "entry"]
    assert {"first-administrator", "127.0.0.1", "device.register", "car-9", "outcome", "200"} <= set(lines[1])
    assert "intent" in lines[2]
    found: Any = json.loads(run_well("audit", "list", "--action", "device.register", "--json"))
    assert {each["action"] for each in found["entries"]} == {"device.register"}
    assert (
        run_well("audit", "list", "--from", "2001-01-01T00:00:00Z", "--to", "2001-01-02T00:00:00Z").count("\n") == 1
    )


def test_an_untouched_export_passes_without_a_server(
    exported: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDFLEET_SITE", "/nowhere")
    result = run("audit", "verify", str(exported), "--key", key, "--json")
    assert result.exit_code == 0
    assert claims(result) == {
        "form": "PASS",
        "sequence": "PASS",
        "chain": "PASS",
        "tree": "PASS",
        "signature": "PASS",
        "witness": "SKIPPED",
    }
    shown = run_well("audit", "verify", str(exported), "--key", SIGNER.verifier.text())
    assert "PASS" in shown.splitlines()[-1]


def test_a_changed_export_fails_and_names_the_first_fault(exported: Path, key: str) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"actor":"', b'"actor":"x')
    exported.write_bytes(b"".join(lines))
    result = run("audit", "verify", str(exported), "--key", key)
    assert result.exit_code == 1
    chain = next(line for line in result.stdout.splitlines() if line.startswith("chain"))
    assert chain.split()[:4] == ["chain", "FAIL", "entry", "2"]
    assert result.stdout.splitlines()[-1].startswith("FAIL")


def test_a_part_of_the_log_passes(tmp_path: Path, exported: Path, key: str) -> None:
    part = tmp_path / "part.ndjson"
    run_well("audit", "export", str(part), "--from-index", "2")
    assert run("audit", "verify", str(part), "--key", key).exit_code == 0
    assert part.read_bytes().splitlines()[1] == exported.read_bytes().splitlines()[3]


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "no-such-file"],
        ["verify", "{export}", "--key", "no-such-file"],
        ["verify", "{export}", "--key", "a+b+c"],
        ["verify", "{export}", "--witness", "{export}"],
        ["export", "{export}"],
        ["witness", "{export}"],
        ["witness", "{export}.new"],
    ],
)
def test_wrong_usage(exported: Path, arguments: list[str]) -> None:
    before = exported.read_bytes()
    result = run("audit", *(each.replace("{export}", str(exported)) for each in arguments))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("fieldfleet: ")
    assert exported.read_bytes() == before


def test_an_export_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    assert run("audit", "export", str(tmp_path / "none"), "--from-index", "99999").exit_code == 1
    assert not (tmp_path / "none").exists()


def test_a_witness_sees_a_log_cut_short(fleet: Fleet, tmp_path: Path, exported: Path, key: str) -> None:
    state = tmp_path / "witness.json"
    run_well("register", "car-20", "--class", "host")
    fleet.auditor.sign()
    assert "seen and signed" in run_well("audit", "witness", str(state), "--key", key)
    assert state.with_name("witness.json.key").stat().st_mode & 0o777 == 0o600
    # the export of before is a good one by itself, and fewer entries than were seen
    assert run("audit", "verify", str(exported), "--key", key).exit_code == 0
    result = run("audit", "verify", str(exported), "--key", key, "--witness", str(state), "--json")
    assert (result.exit_code, claims(result)["witness"]) == (1, "FAIL")
    later = tmp_path / "later.ndjson"
    run_well("audit", "export", str(later))
    result = run("audit", "verify", str(later), "--key", key, "--witness", str(state), "--json")
    assert (result.exit_code, claims(result)["witness"]) == (0, "PASS")


def test_a_witness_follows_and_its_notes_are_cosigned(fleet: Fleet, tmp_path: Path, key: str) -> None:
    state = tmp_path / "witness.json"
    for number in range(4):
        run_well("register", f"car-3{number}", "--class", "host")
        fleet.auditor.sign()
        run_well("audit", "witness", str(state), *(["--key", key] if number == 0 else []))
        run_well("audit", "witness", str(state))
    document = json.loads(state.read_bytes())
    (note,) = document["seen"].values()
    assert len(notes.opened(note, Verifier.parse(document["key"]))) == 1
    assert notes.checkpoint_of(note).size == fleet.auditor.facts().signed
    assert "seed" not in document


def test_a_witness_refuses_another_history(fleet: Fleet, tmp_path: Path, key: str) -> None:
    state = tmp_path / "witness.json"
    run_well("audit", "witness", str(state), "--key", key)
    document = json.loads(state.read_bytes())
    (origin, note) = next(iter(document["seen"].items()))
    seen = notes.checkpoint_of(note)
    # as if it had seen a history of the same log that is not there any more
    for other in (seen._replace(root=b"\x07" * 32), seen._replace(size=seen.size + 9)):
        before = {**document, "seen": {origin: SIGNER.sign(other.text())}}
        state.write_text(json.dumps(before))
        result = run("audit", "witness", str(state))
        assert (result.exit_code, "not signed" in result.stderr) == (1, True), result.output
        assert json.loads(state.read_bytes()) == before
    grown = {**document, "seen": {origin: SIGNER.sign(seen._replace(size=seen.size - 1, root=b"\x07" * 32).text())}}
    state.write_text(json.dumps(grown))
    result = run("audit", "witness", str(state))
    assert (result.exit_code, "do not begin with" in result.stderr) == (1, True), result.output


def test_a_witness_of_another_server_refuses(tmp_path: Path) -> None:
    other = notes.Signer(SIGNER.name, bytes(32)).verifier.text()
    result = run("audit", "witness", str(tmp_path / "witness.json"), "--key", other)
    assert (result.exit_code, "not the server's" in result.stderr) == (1, True)


def test_a_new_log_must_be_explained_to_the_witness(fleet: Fleet, tmp_path: Path, key: str) -> None:
    """The last of this module: the log before is broken afterwards."""
    state, old = tmp_path / "witness.json", tmp_path / "old.ndjson"
    run_well("audit", "export", str(old))
    run_well("audit", "witness", str(state), "--key", key)
    store = fleet.auditor.store
    assert isinstance(store, SqlAudit)
    with database.writing(store._engine) as connection:
        connection.execute(text("DROP TRIGGER audit_entry_no_update"))
        connection.execute(text("UPDATE audit_entry SET entry = replace(CAST(entry AS TEXT), 'first-', 'other-')"))
    fleet.auditor.start()
    refused = run("register", "car-50", "--class", "host")
    assert (refused.exit_code, "begin-audit-log" in refused.stderr) == (1, True), refused.output
    store.begin(own_fact("audit.begin", "somebody wrote to the database", at_ms=NOW))
    run_well("register", "car-50", "--class", "host")
    fleet.auditor.sign()
    assert "another log" in run("audit", "witness", str(state)).stderr
    run_well("audit", "witness", str(state), "--new-log")
    for path, log in ((tmp_path / "broken.ndjson", NOW), (tmp_path / "new.ndjson", NOW + 1)):
        run_well("audit", "export", str(path), "--log", str(log))
    arguments = ("--key", key, "--witness", str(state))
    assert run("audit", "verify", str(tmp_path / "new.ndjson"), *arguments).exit_code == 0
    assert run("audit", "verify", str(old), *arguments).exit_code == 0
    assert run("audit", "verify", str(tmp_path / "broken.ndjson"), *arguments).exit_code == 1
