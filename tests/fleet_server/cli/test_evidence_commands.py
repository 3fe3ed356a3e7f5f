"""Evidence by commands: what is got is what the device signed, and what one asks another one agrees to."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.cli.__main__ import app
from fleet_server.registry.model import NodeKind, OrgNode
from tests.fleet_server.evidence.arrivals import DAY_MS, segment
from tests.fleet_server.evidence.rig import Custody
from tests.fleet_server.fleet import NOW, Fleet

RUNNER = CliRunner()
OLD = NOW - 400 * DAY_MS


class Desk:
    """Ann and Ben, who review evidence, and the administrator."""

    def __init__(self, fleet: Fleet, site: Path, directory: Path) -> None:
        self.custody: Custody = fleet.custody
        self._url = f"http://127.0.0.1:{(site / 'site.toml').read_text().split()[-1]}"
        self._tokens = {"admin": site / "server" / "api-token"}
        for name in ("ann", "ben"):
            grants = [NodeGrant(Role.EVIDENCE_REVIEWER, None)]
            made = fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=NOW)
            self._tokens[name] = directory / name
            self._tokens[name].write_text(made.secret)

    def run(self, who: str, *arguments: str) -> Result:
        server = ("--url", self._url, "--token-file", str(self._tokens[who]))
        return RUNNER.invoke(app, ["evidence", *arguments, *server])

    def well(self, who: str, *arguments: str) -> str:
        result = self.run(who, *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def document(self, who: str, *arguments: str) -> Any:
        return json.loads(self.well(who, *arguments, "--json"))


@pytest.fixture(scope="module")
def desk(served: tuple[Fleet, Path], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    fleet, site = served
    fleet.custody.rule("routine", 30, at_ms=NOW)
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "HQ"), expected=None, create=True, now_ms=NOW)
    return Desk(fleet, site, tmp_path_factory.mktemp("tokens"))


def test_a_file_is_got_and_that_it_was_is_in_its_history(desk: Desk, tmp_path: Path) -> None:
    piece = desk.custody.entered(b"a video")
    to = tmp_path / "video.mp4"
    assert desk.custody.content is not None
    assert "7 bytes, SHA-256" in desk.well("ann", "get", piece, "--to", str(to))
    assert to.read_bytes() == b"a video"
    assert "evidence.viewed" in desk.well("ann", "history", piece)
    again = desk.run("ann", "get", piece, "--to", str(to))
    assert again.exit_code == 2
    assert to.read_bytes() == b"a video"


def test_a_file_that_is_not_what_the_device_signed_is_not_left(desk: Desk, tmp_path: Path) -> None:
    piece = desk.custody.entered(b"whole video")
    found = desk.custody.pieces.piece(piece)
    assert found is not None
    desk.custody.content.path(found.sha256).write_bytes(b"other video")
    result = desk.run("ann", "get", piece, "--to", str(tmp_path / "x"))
    assert result.exit_code == 1
    assert "the device signed" in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_recording_is_classified_held_and_released_as_one(desk: Desk) -> None:
    names = [desk.custody.entered(segment=segment("r-9", number)) for number in (1, 2)]
    assert "2 pieces: classified" in desk.well("ann", "classify", "--recording", "r-9", "--add", "routine")
    desk.well("ann", "hold", "--recording", "r-9", "--hold", "case-7", "--reason", "order 12")
    listed = desk.document("ann", "list", "--hold", "case-7")["pieces"]
    assert [each["piece"] for each in listed] == sorted(names)
    assert all(each["classes"] == ["routine"] for each in listed)
    assert "r-9/1" in desk.well("ann", "list", "--recording", "r-9")
    assert f"{names[0]}: not held" in desk.well("ann", "release", names[0], "--hold", "case-7", "--reason", "closed")
    assert "case-7" in desk.well("ann", "holds")
    assert "1 notes erased" in desk.well("ann", "erase-notes", names[1])
    shown = desk.well("ann", "show", names[1])
    assert "case-7" in shown
    assert "for ever" not in shown


def test_what_one_asks_for_another_one_agrees_to(desk: Desk) -> None:
    piece = desk.custody.entered(verified_ms=OLD)
    desk.well("ann", "classify", piece, "--add", "routine")
    assert "waits for a second person" in desk.well("ann", "delete", piece, "--reason", "their wish")
    (deletion,) = [
        each["deletion"]
        for each in desk.document("ben", "deletions", "--open")["deletions"]
        if each["piece"] == piece
    ]
    own = desk.run("ann", "approve", deletion)
    assert (own.exit_code, "another one must agree" in own.stderr) == (1, True)
    assert "is deleted after" in desk.well("ben", "approve", deletion)
    assert "waits" in desk.well("ben", "deletions")
    assert "is kept" in desk.well("ann", "withdraw", deletion, "--reason", "the wrong one")


def test_a_retention_is_only_told_until_it_is_proposed(desk: Desk) -> None:
    told = desk.run("admin", "retention", "set", "complaint", "--days", "365", "--reason", "order 12")
    assert (told.exit_code, "0 pieces" in told.stdout) == (0, True)
    assert all(each["evidence_class"] != "complaint" for each in state(desk)["changes"])
    proposed = desk.run("admin", "retention", "set", "complaint", "--days", "365", "--reason", "x", "--propose")
    assert "waits for another administrator" in proposed.stderr
    (change,) = [each for each in state(desk)["changes"] if each["evidence_class"] == "complaint"]
    assert desk.run("admin", "retention", "approve", change["change"]).exit_code == 1
    assert "withdrawn" in desk.well("admin", "retention", "withdraw", change["change"])
    assert "routine" in desk.well("ann", "retention", "show")
    assert desk.run("admin", "retention", "set", "x", "--reason", "neither days nor for ever").exit_code == 2


def state(desk: Desk) -> Any:
    return desk.document("ann", "retention", "show")


def test_an_item_goes_its_way(desk: Desk) -> None:
    desk.well("ann", "items", "take-in", "bag-9", "a knife", "--node", "hq", "--case", "case-9")
    assert "bag-9: stored" in desk.well("ann", "items", "store", "bag-9", "--place", "shelf 14")
    desk.well("ann", "items", "lend", "bag-9", "--with", "laboratory", "--due", "2026-03-01T12:00:00Z")
    assert "laboratory" in desk.well("ben", "items", "list", "--state", "lent")
    assert desk.run("ann", "items", "store", "bag-9", "--place", "shelf 2").exit_code == 1
    desk.well("ann", "items", "return", "bag-9", "--note", "seal broken")
    assert "bag-9: handed over" in desk.well("ann", "items", "hand-over", "bag-9", "--to", "the owner")
    assert "seal broken" in desk.well("ann", "items", "history", "bag-9")
    assert "handed_over" in desk.well("ann", "items", "show", "bag-9")


def test_a_scrub_names_what_it_found_and_its_exit_code_says_so(desk: Desk, scrubbing: None) -> None:
    sound = desk.custody.entered(b"sound")
    missing = desk.custody.entered(b"soon gone")
    found = desk.custody.pieces.piece(missing)
    assert found is not None
    desk.custody.content.path(found.sha256).unlink()
    result = desk.run("admin", "scrub")
    assert result.exit_code == 1
    assert f"missing {missing} store" in result.stdout
    assert sound not in result.stdout
    assert len(desk.document("admin", "scrubs")["scrubs"]) == 1
    assert missing in desk.well("ann", "list", "--damaged")
    assert desk.run("ann", "scrub").exit_code == 1, "a reviewer does not"


@pytest.fixture
def scrubbing(desk: Desk) -> Iterator[None]:
    """The server's own thread for it."""
    stop = threading.Event()
    thread = threading.Thread(target=desk.custody.custodian.run_scrubs, args=(stop,))
    thread.start()
    yield
    stop.set()
    desk.custody.custodian.end_scrubs()
    thread.join()
