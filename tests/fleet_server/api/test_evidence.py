"""Evidence over the API: nothing is seen, held or deleted without a trace, and nothing by one person alone."""

import hashlib
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from fleet_server.registry.model import NodeKind, OrgNode
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.evidence.arrivals import DAY_MS, segment
from tests.fleet_server.evidence.rig import Custody
from tests.fleet_server.fleet import NOW, Fleet, told

BODY = b"a video"
OLD = NOW - 400 * DAY_MS


class Two:
    """Two reviewers, and what they stand on."""

    def __init__(
        self, fleet: Fleet, ann: httpx.AsyncClient, ben: httpx.AsyncClient, admin: httpx.AsyncClient
    ) -> None:
        self.fleet, self.ann, self.ben, self.admin = fleet, ann, ben, admin
        self.custody: Custody = fleet.custody


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return told(tmp_path / "store.db")


@pytest.fixture
def app(fleet: Fleet) -> FastAPI:
    return create_app(fleet.ports, clock=lambda: NOW)


@pytest.fixture
async def two(fleet: Fleet, app: FastAPI) -> AsyncIterator[Two]:
    def secret(name: str, role: Role) -> str:
        grants = [NodeGrant(role, None)]
        return fleet.people.make_token(name, name, grants, giver=ROOT, expires_ms=None, now_ms=NOW).secret

    secrets = [secret("ann", Role.EVIDENCE_REVIEWER), secret("ben", Role.EVIDENCE_REVIEWER)]
    async with (
        client_of(app, token=secrets[0]) as ann,
        client_of(app, token=secrets[1]) as ben,
        client_of(app) as admin,
    ):
        yield Two(fleet, ann, ben, admin)


async def answered(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_piece_is_told_with_what_the_device_signed(two: Two) -> None:
    piece = two.custody.entered(BODY, segment=segment("r-1", 1, last=True), verified_ms=NOW)
    listed = await answered(await two.ann.get("/v1/evidence/pieces", params={"recording": "r-1"}))
    (only,) = listed["pieces"]
    assert (only["piece"], only["org"], only["segment"], only["last"], only["kind"]) == (piece, None, 1, True, None)
    assert (only["due_ms"], only["retention"]) == (None, "unclassified")
    whole = await answered(await two.ann.get(f"/v1/evidence/pieces/{piece}"))
    assert '"payloadType":"application/vnd.fieldfleet.manifest.v1+json"' in whole["manifest"]
    assert {name: whole[name] for name in only} == only
    assert (await two.ann.get(f"/v1/evidence/pieces/{'0' * 32}")).status_code == 404


async def test_pages_of_pieces_are_all_pieces(two: Two) -> None:
    made = [two.custody.entered(verified_ms=NOW) for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = await answered(
            await two.ann.get("/v1/evidence/pieces", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        )
        seen += [each["piece"] for each in page["pieces"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(made)


async def test_looking_at_a_file_is_in_the_log_before_its_first_byte(two: Two) -> None:
    piece = two.custody.entered(BODY)
    answer = await two.ann.get(f"/v1/evidence/pieces/{piece}/original")
    assert answer.content == BODY
    assert answer.headers["content-type"] == "application/octet-stream"
    digest = answer.headers["repr-digest"].removeprefix("sha-256=:").removesuffix(":")
    assert b64decode(digest) == hashlib.sha256(BODY).digest()
    (*_, last) = two.custody.events(piece)
    assert (last.action, last.actor) == ("evidence.viewed", "ann")
    assert (await two.admin.get(f"/v1/evidence/pieces/{piece}/original")).status_code == 403


async def test_a_file_is_not_shown_if_the_log_takes_nothing(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = two.custody.entered(BODY)
    monkeypatch.setattr(two.custody.auditor, "_broken", (two.custody.auditor.facts().log, "changed"))
    answer = await two.ann.get(f"/v1/evidence/pieces/{piece}/original")
    assert answer.status_code == 503
    assert BODY not in answer.content


async def test_a_file_that_is_gone_is_no_view(two: Two) -> None:
    piece = two.custody.entered(BODY)
    two.custody.content.path(hashlib.sha256(BODY).hexdigest()).unlink()
    answer = await two.ann.get(f"/v1/evidence/pieces/{piece}/original")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:fieldfleet:problem:content-missing")
    assert two.custody.told(piece) == ["received", "verified"]


async def test_what_was_asked_and_what_was_done_are_both_in_the_log_and_no_reason_is(two: Two) -> None:
    piece = two.custody.entered(BODY)
    body = {"hold": "case-7", "reason": "Ms Miller"}
    held = await answered(await two.ann.post(f"/v1/evidence/pieces/{piece}/holds", json=body))
    assert held["holds"] == ["case-7"]
    log = await answered(await two.admin.get("/v1/audit", params={"subject": piece}))
    told_ = [(each["action"], each["phase"]) for each in reversed(log["entries"])]
    assert told_[2:] == [("custody.hold", "intent"), ("evidence.held", "fact"), ("custody.hold", "outcome")]
    assert "Miller" not in str(log)
    assert {each["body_sha256"] for each in log["entries"]} == {""}, "nor a digest that the reason could be found by"
    events = await answered(await two.ann.get(f"/v1/evidence/pieces/{piece}/events"))
    assert [each["number"] for each in events["events"]] == [0, 1, 2]
    assert events["events"][2]["note"] == "Ms Miller"
    second = await answered(await two.ann.get(f"/v1/evidence/pieces/{piece}/events", params={"limit": 2}))
    rest = await answered(await two.ann.get(f"/v1/evidence/pieces/{piece}/events?cursor={second['next']}"))
    assert [each["number"] for each in rest["events"]] == [2]
    holds = await answered(await two.ann.get("/v1/evidence/holds"))
    assert [(each["hold"], each["piece"], each["reason"]) for each in holds["holds"]] == [
        ("case-7", piece, "Ms Miller")
    ]


async def test_a_retention_is_a_dry_run_until_it_is_proposed_and_counts_once_another_one_agreed(two: Two) -> None:
    two.custody.rule("routine", 400, at_ms=NOW)
    piece = two.custody.entered(verified_ms=OLD)
    two.custody.keeping.classify(piece, add=["routine"], remove=[], by="ann", now_ms=NOW)
    path, body = "/v1/evidence/retention/routine", {"keep_days": 30, "reason": "order 12"}
    dry = await answered(await two.admin.put(path, json=body))
    assert (dry["dry_run"], dry["change"], dry["changed"], dry["due_now"]) == (True, None, 1, 1)
    assert dry["first"][0]["piece"] == piece
    proposed = await answered(await two.admin.put(path, json=body, params={"dry_run": "false"}))
    change = proposed["change"]["change"]
    own = await two.admin.post(f"/v1/evidence/retention/changes/{change}/approve")
    assert (own.status_code, own.json()["type"]) == (409, "urn:fieldfleet:problem:same-person")
    state = await answered(await two.ann.get("/v1/evidence/retention"))
    assert state["rules"] == [{"evidence_class": "routine", "keep_days": 400}]
    assert [each["keep_days"] for each in state["changes"]] == [400, 30]


async def test_a_deletion_needs_two(two: Two) -> None:
    two.custody.rule("routine", 30, at_ms=NOW)
    piece = two.custody.entered(verified_ms=OLD)
    refused = await two.ann.post(f"/v1/evidence/pieces/{piece}/deletion", json={"reason": "their wish"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:fieldfleet:problem:refused")
    await answered(await two.ann.post(f"/v1/evidence/pieces/{piece}/classes", json={"add": ["routine"]}))
    asked = await answered(await two.ann.post(f"/v1/evidence/pieces/{piece}/deletion", json={"reason": "their wish"}))
    assert asked["not_before_ms"] == NOW + 7 * DAY_MS
    deletion = asked["deletion"]
    own = await two.ann.post(f"/v1/evidence/deletions/{deletion}/approve")
    assert (own.status_code, own.json()["type"]) == (409, "urn:fieldfleet:problem:same-person")
    agreed = await answered(await two.ben.post(f"/v1/evidence/deletions/{deletion}/approve"))
    assert agreed["approved_by"] == "ben"
    listed = await answered(await two.admin.get("/v1/evidence/deletions", params={"open": "true"}))
    assert [each["deletion"] for each in listed["deletions"]] == [deletion]
    back = await answered(
        await two.ann.post(f"/v1/evidence/deletions/{deletion}/withdraw", json={"reason": "wrong one"})
    )
    assert back["withdrawn_by"] == "ann"


async def test_a_class_that_is_not_there_and_one_given_and_taken_at_once_are_refused(two: Two) -> None:
    piece = two.custody.entered()
    path = f"/v1/evidence/pieces/{piece}/classes"
    assert (await two.ann.post(path, json={"add": ["nonsense"]})).status_code == 404
    assert (await two.ann.post(path, json={"add": ["x"], "remove": ["x"]})).status_code == 422


ITEM = {"item": "bag-1", "node": "hq", "description": "a knife", "case": "case-7"}


async def test_an_item_goes_its_way_and_no_other(two: Two) -> None:
    two.fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "HQ"), expected=None, create=True, now_ms=NOW)
    await answered(await two.ann.post("/v1/evidence/items", json=ITEM), 201)
    assert (await two.ann.post("/v1/evidence/items", json=ITEM)).status_code == 409
    path = "/v1/evidence/items/bag-1"
    lend = {"with_whom": "laboratory", "due": str(NOW - 1)}
    assert (await two.ann.post(f"{path}/lend", json=lend)).status_code == 409, "it has no place yet"
    stored = await answered(await two.ann.post(f"{path}/store", json={"place": "room 2, shelf 14"}))
    assert (stored["state"], stored["place"]) == ("stored", "room 2, shelf 14")
    lent = await answered(await two.ann.post(f"{path}/lend", json=lend))
    assert (lent["state"], lent["with_whom"], lent["overdue"]) == ("lent", "laboratory", True)
    back = await answered(await two.ben.post(f"{path}/return", json={"note": "seal broken"}))
    assert (back["state"], back["with_whom"], back["due_ms"]) == ("returned", "", None)
    await answered(await two.ben.post(f"{path}/hand-over", json={"with_whom": "the owner"}))
    ended = await two.ann.post(f"{path}/store", json={"place": "x"})
    assert ended.status_code == 409
    assert "handed_over: expected nothing" in ended.json()["detail"]
    assert two.custody.told("item:bag-1") == ["taken_in", "stored", "lent", "returned", "handed_over"]
    events = await answered(await two.ann.get(f"{path}/events"))
    assert '"note":"seal broken"' in events["events"][3]["note"]
    assert "seal broken" not in events["events"][3]["raw"]
    listed = await answered(await two.ann.get("/v1/evidence/items", params={"state": "handed_over"}))
    assert [each["item"] for each in listed["items"]] == ["bag-1"]
    assert (await answered(await two.ann.get("/v1/evidence/items", params={"case": "other"})))["items"] == []
