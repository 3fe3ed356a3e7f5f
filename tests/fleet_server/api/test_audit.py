"""Whatever is asked to be changed is in the audit log, or it is not done."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fleet_server.access import export, notes, tlog
from fleet_server.access.audit import Draft, Head
from fleet_server.access.auditor import Auditor
from fleet_server.access.people import FIRST
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import SqlAudit
from fleet_server.api.actions import CHANGES, READS, SAFE, found_in
from fleet_server.api.app import create_app
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.access.drafts import SIGNER, SITE
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, TOKEN, Fleet

CENTRE = {"kind": "centre", "name": "Centre"}
NEW = {"If-None-Match": "*"}
PATH = "/v1/org-nodes/hq"


class Failing(SqlAudit):
    """Takes nothing while ``down``, or from the entry on that is ``down_at``."""

    down = False
    down_at = 1 << 60
    appended = 0

    def append(self, drafts: Sequence[Draft]) -> Head:
        self.appended += 1
        if self.down or self.appended >= self.down_at:
            raise StoreError("no space left on device")
        return super().append(drafts)


@pytest.fixture
def failing(own: Fleet) -> Failing:
    assert isinstance(own.auditor.store, SqlAudit)
    return Failing(own.auditor.store._engine)


@pytest.fixture
def own_app(own: Fleet, failing: Failing) -> FastAPI:
    own.auditor = Auditor(failing, SIGNER, SITE, now_ms=lambda: NOW)
    own.auditor.start()
    return create_app(replace(own.ports, auditor=own.auditor), clock=lambda: NOW)


@pytest.fixture
async def asking(own_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(own_app) as client:
        yield client


async def recorded(client: httpx.AsyncClient, **wanted: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = (await client.get("/v1/audit", params=wanted)).json()["entries"]
    return found[::-1]


def test_every_operation_that_changes_something_has_an_action(app: FastAPI) -> None:
    unsafe = {
        (method.upper(), path)
        for path, item in app.openapi()["paths"].items()
        for method in item
        if method.upper() not in SAFE
    }
    assert unsafe | {("POST", "/sign-out")} == CHANGES.keys(), "every one needs a line in fleet_server/api/actions.py"


def test_every_subject_is_a_parameter_of_its_path() -> None:
    for (method, path), action in {**CHANGES, **READS}.items():
        assert not action.subject or f"{{{action.subject}}}" in path or action.told
        body = b'{"token": "li", "item": "li", "name": "li"}'
        found = found_in(method, path.replace("{", "x-").replace("}", ""), body)
        assert found is not None
        assert found.name == action.name
        assert bool(found.subject) == bool(action.subject)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"token": {}}', b'{"token": null, "grants": "\\ud800"}'])
def test_a_body_may_be_anything(body: bytes) -> None:
    assert found_in("POST", "/v1/tokens", body) is not None


async def test_a_change_is_an_intent_and_an_outcome(asking: httpx.AsyncClient) -> None:
    answer = await asking.put(PATH, json=CENTRE, headers=NEW)
    assert answer.status_code == 200
    intent, outcome = await recorded(asking, action="org_node.put")
    assert (intent["phase"], intent["outcome"]) == ("intent", "")
    assert (outcome["phase"], outcome["outcome"]) == ("outcome", "200")
    assert intent["request"] == outcome["request"] == answer.headers["x-request-id"]
    assert {each["subject"] for each in (intent, outcome)} == {"hq"}
    assert (intent["actor"], intent["source"]) == (FIRST, "127.0.0.1")
    assert intent["body_sha256"] == hashlib.sha256(answer.request.content).hexdigest()
    assert "Centre" not in json.dumps([intent, outcome])
    assert TOKEN not in json.dumps([intent, outcome])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", PATH, 428),
        ("DELETE", "/v1/duty-units/unit-4", 428),
        ("POST", "/v1/imports/devices", 422),
        ("POST", "/v1/no/such/thing", 404),
        ("DELETE", "/v1/devices", 405),
    ],
)
async def test_a_change_that_was_refused_is_recorded_as_such(
    asking: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await asking.request(method, path, json=CENTRE)
    assert answer.status_code == status
    intent, outcome = [each for each in await recorded(asking) if each["request"] == answer.headers["x-request-id"]]
    assert (intent["phase"], outcome["phase"], outcome["outcome"]) == ("intent", "outcome", str(status))


async def test_who_may_not_is_recorded_by_their_name(own: Fleet, own_app: FastAPI, asking: httpx.AsyncClient) -> None:
    made = await asking.post(
        "/v1/tokens", json={"token": "li", "name": "Li", "grants": [{"role": "viewer", "node": None}]}
    )
    assert made.status_code == 201, made.text
    viewer = made.json()
    async with client_of(own_app, token=viewer["secret"]) as reading:
        answer = await reading.put(PATH, json=CENTRE, headers=NEW)
    assert answer.status_code == 403
    intent, outcome = await recorded(asking, action="org_node.put")
    assert {intent["actor"], outcome["actor"]} == {"li"}
    assert outcome["outcome"] == "403"
    created = (await recorded(asking, action="token.create"))[0]
    assert (created["subject"], created["data"]) == ("li", {"grants": '[{"node":null,"role":"viewer"}]'})
    assert viewer["secret"] not in (await asking.get("/v1/audit")).text


async def test_a_handler_that_crashes_has_an_outcome(own: Fleet, own_app: FastAPI, asking: httpx.AsyncClient) -> None:
    @own_app.post("/v1/forgotten")
    def forgotten() -> None:
        raise RuntimeError

    assert (await asking.post("/v1/forgotten")).status_code == 500
    intent, outcome = await recorded(asking, action="request")
    assert (intent["subject"], outcome["outcome"]) == ("POST /v1/forgotten", "500")


async def test_what_is_repeated_with_its_key_is_recorded_once(asking: httpx.AsyncClient) -> None:
    for _ in range(3):
        answer = await asking.put(PATH, json=CENTRE, headers={**NEW, "Idempotency-Key": "k"})
        assert answer.status_code == 200
    assert len(await recorded(asking, action="org_node.put")) == 2


async def test_reading_the_log_is_recorded_and_reading_the_rest_is_not(asking: httpx.AsyncClient) -> None:
    before = len(await recorded(asking))
    for path in ("/v1/devices", "/v1/fleet", "/v1/audit/checkpoint", "/v1/audit/proof?index=0"):
        assert (await asking.get(path)).status_code == 200
    after = await recorded(asking)
    assert [(each["action"], each["phase"]) for each in after[before:]] == [("audit.read", "fact")]
    await asking.get("/v1/audit", params={"actor": "somebody"})
    assert (await recorded(asking))[-2]["data"] == {"query": "actor=somebody"}


async def test_strangers_are_counted_and_change_nothing(
    own: Fleet, own_app: FastAPI, asking: httpx.AsyncClient
) -> None:
    async with client_of(own_app, token="ff_" + "x" * 43) as stranger:
        for _ in range(5):
            assert (await stranger.put(PATH, json=CENTRE, headers=NEW)).status_code == 401
            assert (await stranger.get("/v1/audit")).status_code == 401
        assert (await stranger.get("/v1/health")).status_code == 200
    own.auditor.stop()
    (refused,) = await recorded(asking, action="auth.refused")
    assert (refused["count"], refused["source"], refused["actor"]) == (10, "127.0.0.1", "")
    assert await recorded(asking, action="org_node.put") == []


async def test_who_reads_what_they_may_not_is_counted_by_their_name_and_cannot_fill_the_log(
    own: Fleet, own_app: FastAPI, asking: httpx.AsyncClient
) -> None:
    made = await asking.post("/v1/tokens", json={"token": "li", "name": "Li", "grants": [{"role": "viewer"}]})
    before = len(await recorded(asking))
    async with client_of(own_app, token=made.json()["secret"]) as viewer:
        for number in range(5):
            assert (await viewer.get("/v1/audit")).status_code == 403
            assert (await viewer.get(f"/v1/tokens/t-{number}")).status_code == 403
        assert (await viewer.get("/v1/devices/not-there")).status_code == 404
        assert (await viewer.get("/v1/no/such/thing")).status_code == 404
    assert len(await recorded(asking)) == before + 1  # only that the log was read before
    own.auditor.stop()
    (refused,) = await recorded(asking, action="read.refused")
    assert (refused["actor"], refused["source"], refused["count"]) == ("li", "127.0.0.1", 10)
    assert (refused["subject"], refused["outcome"]) == ("GET /v1/audit, GET /v1/tokens/{token}", "403")


async def test_what_cannot_be_recorded_is_not_done(asking: httpx.AsyncClient, failing: Failing) -> None:
    failing.down = True
    answer = await asking.put(PATH, json=CENTRE, headers=NEW)
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("audit-unavailable")
    assert (await asking.get(PATH)).status_code == 404
    assert (await asking.get("/v1/audit")).status_code == 503, "nor is the log read unseen"
    failing.down = False
    assert (await asking.put(PATH, json=CENTRE, headers=NEW)).status_code == 200


async def test_what_was_done_is_answered_though_its_outcome_waits(
    own: Fleet, asking: httpx.AsyncClient, failing: Failing
) -> None:
    failing.down_at = failing.appended + 2
    assert (await asking.put(PATH, json=CENTRE, headers=NEW)).status_code == 200
    assert own.auditor.facts().waiting == 1
    failing.down_at = 1 << 60
    assert [each["phase"] for each in await recorded(asking, action="org_node.put")] == ["intent", "outcome"]


async def test_a_broken_log_refuses_changes_degrades_health_and_can_be_exported(
    own: Fleet, failing: Failing, own_app: FastAPI, asking: httpx.AsyncClient
) -> None:
    await asking.put(PATH, json=CENTRE, headers=NEW)
    own.auditor.sign()
    assert (await asking.get("/v1/health")).json() == {"status": "ok"}
    with database.writing(failing._engine) as connection:
        connection.execute(text("DROP TRIGGER audit_entry_no_update"))
        connection.execute(text("UPDATE audit_entry SET entry = replace(CAST(entry AS TEXT), 'hq', 'qh')"))
    own.auditor.start()
    answer = await asking.delete(PATH, headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fieldfleet:problem:audit-broken")
    assert (await asking.get(PATH)).status_code == 200, "what only reads goes on"
    assert (await asking.get("/v1/health")).json() == {"status": "degraded"}
    assert "fieldfleet_audit_broken 1.0" in (await asking.get("/metrics")).text
    assert (await asking.get("/v1/audit/export")).status_code == 503, "an export is an entry"


async def test_an_export_is_verified(own: Fleet, asking: httpx.AsyncClient) -> None:
    for number in range(30):
        await asking.put(f"/v1/org-nodes/n-{number}", json=CENTRE, headers=NEW)
    for begin in (0, 1, 17):
        answer = await asking.get(f"/v1/audit/export?from_index={begin}")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.content.splitlines(keepends=True)
        verdict = export.verify(lines, key=SIGNER.verifier)
        assert verdict.passed, verdict.findings
        assert verdict.entries == len(lines) - 2
        assert verdict.unfinished == 0 or begin == 17
    (entry,) = [json.loads(line) for line in lines[-2:-1]]
    assert entry["action"] == "audit.export", "it is in itself"


async def test_proofs(own: Fleet, asking: httpx.AsyncClient) -> None:
    old = notes.checkpoint_of((await asking.get("/v1/audit/checkpoint")).text)
    for number in range(11):
        await asking.put(f"/v1/org-nodes/n-{number}", json=CENTRE, headers=NEW)
    own.auditor.sign()
    text_ = (await asking.get("/v1/audit/checkpoint")).text
    notes.opened(text_, SIGNER.verifier)
    new = notes.checkpoint_of(text_)
    answer = (await asking.get(f"/v1/audit/consistency?old_size={old.size}&new_size={new.size}")).json()
    proof = [base64.b64decode(each) for each in answer["hashes"]]
    assert tlog.extends(old.size, old.root, new.size, new.root, proof)
    for index in range(new.size):
        included = (await asking.get(f"/v1/audit/proof?index={index}")).json()
        assert included["checkpoint"] == text_
        path = [base64.b64decode(each) for each in included["hashes"]]
        assert tlog.includes(index, new.size, base64.b64decode(included["leaf"]), path, new.root)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/audit/checkpoint?log=7", 404),
        ("/v1/audit/export?log=7", 404),
        ("/v1/audit/export?from_index=999999", 422),
        ("/v1/audit/proof?index=999999", 404),
        ("/v1/audit/consistency?old_size=5&new_size=4", 422),
        ("/v1/audit/consistency?old_size=1&new_size=999999", 422),
        ("/v1/audit?cursor=x", 422),
    ],
)
async def test_what_is_not_there_is_a_problem(asking: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await asking.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_pages(asking: httpx.AsyncClient) -> None:
    for number in range(4):
        await asking.put(f"/v1/org-nodes/n-{number}", json=CENTRE, headers=NEW)
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await asking.get("/v1/audit", params={"action": "org_node.put", "limit": 3, **cursor})).json()
        found += [each["index"] for each in page["entries"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(found) == 8
    assert found == sorted(found, reverse=True)


async def test_reading_the_logs_entries_as_tiles_is_recorded_too(asking: httpx.AsyncClient) -> None:
    entries = await recorded(asking)
    tile = f"/v1/audit/logs/{entries[0]['log']}/tile/entries/000.p/1"
    assert (await asking.get(tile)).status_code == 200
    assert (await recorded(asking))[-2]["action"] == "audit.export"
