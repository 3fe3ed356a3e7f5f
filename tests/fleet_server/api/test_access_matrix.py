"""Every route of the API's document, asked by every role, at its own organisation node and at a foreign one.

The golden file is the whole matrix, so that a change of who may what is a change that somebody reads.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from fastapi import FastAPI

from broker_config import topics
from broker_config.device_classes import SafetyClass
from broker_config.ids import DeviceId
from broker_config.telemetry import CONTENT_JSON
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.persons import Identity
from fleet_server.access.roles import PERMISSIONS, Permission, Role
from fleet_server.api.app import create_app
from fleet_server.api.rules import OPEN, RULES
from fleet_server.change.command_store import Meant
from fleet_server.change.commands import Command
from fleet_server.change.layers import LayerKind, LayerName
from fleet_server.evidence.dispatches import Dispatch
from fleet_server.registry.assignments import Handing, With
from fleet_server.registry.model import DutyUnit, NodeKind, OrgNode, Registration
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.evidence.arrivals import DAY_MS, arrival
from tests.fleet_server.evidence.rig import Custody
from tests.fleet_server.fleet import LIFE, NOW, T0, TOKEN, Arrival, Fleet, birth, cpu, record, told

GOLDEN: Final = Path(__file__).with_name("golden") / "access_matrix.txt"
EVIDENCE: Final = (
    "evidence/pieces",
    "evidence/deletions",
    "evidence/items",
    "evidence/ledger",
    "evidence/dispatches",
)
SINCE: Final = {"gaps": T0, "evidence/ledger": T0 - DAY_MS, "evidence/dispatches": T0 - 10 * DAY_MS}
ENDLESS: Final = "GET /v1/changes"
PLACELESS: Final = ("{token}", "{device_class}", "{rollout}")
"""What is in a path and belongs to no node."""
MERGE: Final = {"Content-Type": "application/merge-patch+json"}
CSV: Final = {"Content-Type": "text/csv"}


class Place(NamedTuple):
    """The names of what belongs somewhere; ``row``: of its message in quarantine."""

    node: str
    device: str
    unit: str
    row: int

    @property
    def item(self) -> str:
        """A physical item in its store."""
        return f"bag-{self.unit}"

    @property
    def officer(self) -> str:
        """Who had its device."""
        return f"of-{self.unit}"


OWN: Final = Place("station-7", "cam-7", "unit-7", 3)
FOREIGN: Final = Place("station-8", "cam-8", "unit-8", 4)
PIECES: Final = {at: arrival(data=b"content", device=at.device) for at in (OWN, FOREIGN)}
DELETIONS: Final[dict[Place, str]] = {}
ASSIGNMENTS: Final[dict[Place, str]] = {}
COMMANDS: Final = {OWN: "0" * 15 + "7", FOREIGN: "0" * 15 + "8"}


class Ask(NamedTuple):
    """What is sent along with a request, so that it gets as far as it may and changes as little as it can."""

    json: Any = None
    content: str | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    query: str = ""


def asked(operation: str, at: Place, who: str) -> Ask:
    stale, any_ = {"If-Match": '"99"'}, {"If-Match": "*"}
    match operation.partition(" ")[::2]:
        case ("PUT", path) if path.endswith("registration"):
            return Ask({"device_class": "body_camera", "node": at.node}, headers=any_)
        case ("PUT", "/v1/org-nodes/{node}"):
            return Ask({"kind": "station", "name": at.node, "parent": "hq"}, headers=any_)
        case ("PUT", "/v1/duty-units/{unit}"):
            return Ask({"name": at.unit, "node": at.node}, headers=any_)
        case ("PUT", path) if path.startswith("/v1/config/layers"):
            return Ask({"settings": {}}, headers=any_)
        case ("PUT", "/v1/config/groups/{group}"):
            return Ask({"priority": 1, "members": []}, headers=any_)
        case ("PUT", "/v1/people/{person}/grants"):
            return Ask({"grants": [{"role": "viewer", "node": at.node}]}, headers=any_)
        case ("PATCH", path) if path.endswith("registration"):
            return Ask({"note": "seen"}, headers={**any_, **MERGE})
        case ("PATCH", _):
            return Ask({}, headers={**stale, **MERGE})
        case ("DELETE", _):
            return Ask(headers=stale)
        case ("POST", path) if path.startswith("/v1/imports"):
            return Ask(content="no,such,columns\n", headers=CSV)
        case ("POST", "/v1/imports/claims"):
            return Ask(content="none\n", headers=CSV)
        case ("POST", path) if path.endswith("revoke") and "{device}" in path:
            return Ask({"reason": "stolen"})
        case ("POST", path) if path.endswith(("{device}/check-out", "{device}/hand-over")):
            return Ask({"officer": at.officer})
        case ("POST", path) if path.endswith("/check-in"):
            return Ask({})
        case ("POST", path) if path.endswith("/correction"):
            return Ask({"reason": "x", "shift": "late"}, headers=stale)
        case ("POST", "/v1/commands"):
            return Ask({"name": "identify", "devices": [at.device]})
        case ("POST", "/v1/commands/{command}/approve"):
            return Ask({"orders": [{"device": at.device, "order": "{}"}]})
        case ("POST", "/v1/tokens"):
            grant = {"role": "viewer", "node": at.node}
            return Ask({"token": f"of-{who}-{at.node}", "name": "x", "grants": [grant]})
        case ("POST", "/v1/rollouts"):
            patch = {"name": "x", "layer": "fleet", "patch": {"keep_alive_s": 45}}
            return Ask(patch, query="?dry_run=true")
        case ("POST", path) if path.startswith("/v1/rollouts/") and path.endswith(("pause", "cancel", "roll-back")):
            return Ask({})
        case ("POST", "/v1/webhooks"):
            return Ask({"url": "http://127.0.0.1:9/hook"})
        case ("POST", "/v1/evidence/exports"):
            return Ask({"pieces": [PIECES[at].upload]})
        case ("POST", "/v1/evidence/pieces/{piece}/classes"):
            return Ask({"add": ["routine"]})
        case ("POST", "/v1/evidence/pieces/{piece}/holds" | "/v1/evidence/pieces/{piece}/release"):
            return Ask({"hold": f"case-{who}", "reason": "x"})
        case ("POST", path) if path.endswith(("/deletion", "/withdraw")) and "retention" not in path:
            return Ask({"reason": "x"})
        case ("PUT", "/v1/evidence/retention/{evidence_class}"):
            return Ask({"keep_days": 30, "reason": "x"})
        case ("POST", "/v1/evidence/dispatches"):
            return Ask({"dispatches": [{"dispatch": "call-x", "node": "none", "begin": "2026-01-01T08:00:00Z"}]})
        case ("POST", path) if path.endswith("/explanation"):
            return Ask({"why": "forgotten"})
        case ("POST", "/v1/evidence/items"):
            return Ask({"item": f"new-{who}-{at.node}", "node": at.node, "description": "x"})
        case ("POST", path) if path.endswith("/store"):
            return Ask({"place": "shelf 2"})
        case ("POST", path) if path.endswith("/lend"):
            return Ask({"with_whom": "laboratory", "due": str(NOW)})
        case ("POST", path) if path.endswith("/return"):
            return Ask({})
        case ("POST", path) if path.endswith("/hand-over"):
            return Ask({"with_whom": "the owner"})
        case ("POST", path) if path.endswith("rebuild"):
            return Ask(query=f"?from={NOW}")
    return Ask()


def named(path: str, at: Place) -> str:
    """*path* with names of *at*; of what has no place, one that is not there."""
    return path.format(
        device=at.device,
        stream="cpu",
        node=at.node,
        unit=at.unit,
        row_id=at.row,
        sink="none",
        webhook="wnone",
        happening=1,
        token="nobody",
        claim="0" * 16,
        person=f"of-{at.node}",
        piece=PIECES[at].upload,
        deletion=DELETIONS[at],
        evidence_class="routine",
        export="0" * 16,
        change="0" * 16,
        item=at.item,
        dispatch=f"call-{at.unit}",
        officer=at.officer,
        assignment=ASSIGNMENTS[at],
        begin_ms=T0,
        log=0,
        level=0,
        place="000",
        index=0,
        device_class="body_camera",
        group=f"of-{at.node}",
        rollout="0" * 16,
        command=COMMANDS[at],
    )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Two stations below one centre, each with a camera that reports, a unit and a message in quarantine."""
    fleet = told(tmp_path_factory.mktemp("fleet") / "store.db")
    registry = fleet.registry
    nodes = [OrgNode("hq", NodeKind.CENTRE, "Centre")]
    nodes += [OrgNode(at.node, NodeKind.STATION, at.node, "hq") for at in (OWN, FOREIGN)]
    for node in nodes:
        registry.put_node(node, expected=None, create=True, now_ms=T0)
    for at in (OWN, FOREIGN):
        identity = Identity("https://login.example", at.node, "", f"of-{at.node}@police.example")
        fleet.persons.sign_in(identity, [NodeGrant(Role.VIEWER, at.node)], instead_of=None, now_ms=T0)
        registry.put_unit(DutyUnit(at.unit, at.unit, at.node), expected=None, create=True)
        said = Registration(at.device, "body_camera", node=at.node, unit=at.unit)
        registry.register(said, expected=None, create=True, now_ms=T0)
        device = DeviceId(at.device)
        poison = Arrival(
            topics.up(device, topics.Up.TELEMETRY), b"poison", CONTENT_JSON, [("key", f"cpu/{LIFE}/9"), ("last", "9")]
        )
        fleet.arrive(birth(device), record(device, cpu(1, t0=T0)), poison)
        _keep(fleet.custody, at)
        handing = Handing(at.device, With(officer=at.officer), "ann", T0, T0 + 1)
        ASSIGNMENTS[at] = fleet.assignments.check_out(handing, now_ms=NOW).assignment
        fleet.layers.put_group(f"of-{at.node}", 1, [at.device], expected=None, now_ms=T0)
        command = Command(COMMANDS[at], "restart", {}, SafetyClass.DISRUPTIVE, 2, "ann", T0, NOW + 60_000)
        fleet.commands.create(command, [Meant(at.device, f"hq/{at.node}")])
        own = LayerName(LayerKind.ORG_NODE, at.node)
        fleet.layers.put_layer(own, {"keep_alive_s": 30}, expected=None, by="ann", now_ms=T0)
    return fleet


def _keep(custody: Custody, at: Place) -> None:
    """Of each place a piece whose deletion is asked for, and an item."""
    custody.content.put(b"content")
    custody.pieces.verified(PIECES[at])
    if at == OWN:
        custody.rule("routine", 1, at_ms=T0)
    old = custody.entered(device=at.device, verified_ms=T0 - 400 * DAY_MS)
    custody.keeping.classify(old, add=["routine"], remove=[], by="ann", now_ms=T0)
    DELETIONS[at] = custody.deletions.ask(old, "x", by="ann", now_ms=T0).deletion
    said = {"description": "a knife", "case_name": "", "note": ""}
    call = Dispatch(f"call-{at.unit}", f"hq/{at.node}", "4711", "", "", "", T0 - 9 * DAY_MS, T0 - 9 * DAY_MS)
    custody.dispatches.put([call], dry_run=False)
    custody.items.take_in(at.item, path=f"hq/{at.node}", by="ann", now_ms=T0, **said)


@pytest.fixture(scope="module")
def app(fleet: Fleet) -> FastAPI:
    return create_app(fleet.ports, clock=lambda: NOW)


@pytest.fixture(scope="module")
def tokens(fleet: Fleet) -> dict[str, str]:
    """A token of each role at its own station, and of the administrator of all."""
    made = {
        str(role): fleet.people.make_token(
            f"{role}".replace("_", "-"), role, [NodeGrant(role, OWN.node)], giver=ROOT, expires_ms=None, now_ms=T0
        ).secret
        for role in Role
    }
    return {**made, "everywhere": TOKEN}


async def statuses(app: FastAPI, token: str, who: str) -> AsyncIterator[tuple[str, int, int]]:
    """(operation, status at their own node, status at a foreign one)."""
    async with client_of(app, token=token) as client:
        for operation in sorted(RULES, key=lambda each: each.partition(" ")[2]):
            if operation == ENDLESS:
                continue
            method, _, path = operation.partition(" ")
            found = []
            for at in (OWN, FOREIGN):
                ask = asked(operation, at, who)
                answer = await client.request(
                    method, named(path, at) + ask.query, json=ask.json, content=ask.content, headers=ask.headers
                )
                found.append(answer.status_code)
            yield operation, found[0], found[1]


def test_every_route_has_a_rule_and_every_rule_a_route(app: FastAPI) -> None:
    routes = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
    assert routes - OPEN == set(RULES)


async def test_a_route_without_a_rule_is_nobodys(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fleet_server.api.rules.RULES", {name: rule for name, rule in RULES.items() if name != "GET /v1/devices"}
    )
    async with client_of(create_app(fleet.ports, clock=lambda: NOW)) as client:
        assert (await client.get("/v1/devices")).status_code == 403


async def test_who_may_what_where(app: FastAPI, tokens: dict[str, str], golden: Callable[[Path, str], None]) -> None:
    columns: dict[str, dict[str, str]] = {}
    for who, token in tokens.items():
        async for operation, own, foreign in statuses(app, token, who.replace("_", "-")):
            columns.setdefault(operation, {})[who] = f"{own} {foreign}"
            rule = RULES[operation]
            role = Role.ADMINISTRATOR if who == "everywhere" else Role(who)
            if rule.permission is not None and rule.permission not in PERMISSIONS[role]:
                assert (own, foreign) == (403, 403), (operation, who)
            elif who == "everywhere" or rule.permission is None:
                assert 403 not in {own, foreign}, operation
            elif rule.everywhere:
                assert (own, foreign) == (403, 403), (operation, who)
            else:
                assert own not in {401, 403}, (operation, who)
                if "{" in operation and not any(each in operation for each in PLACELESS):
                    assert foreign in {403, 404, 409, 422}, (operation, who)
    width = max(map(len, columns))
    lines = [" " * width + "".join(f"  {who:>18}" for who in tokens)]
    lines += [f"{name:<{width}}" + "".join(f"  {row[who]:>18}" for who in tokens) for name, row in columns.items()]
    golden(GOLDEN, "status at one's own station, and at a foreign one\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("role", [role for role in Role if Permission.FLEET_READ in PERMISSIONS[role]])
async def test_a_list_has_nothing_of_a_foreign_node(app: FastAPI, tokens: dict[str, str], role: Role) -> None:
    async with client_of(app, token=tokens[role]) as client:
        for path in (
            "devices",
            "latest",
            "gaps",
            "org-nodes",
            "duty-units",
            "fleet",
            "happenings",
            "quarantine",
            "assignments",
            "config/layers",
            "commands",
            *EVIDENCE,
        ):
            answer = await client.get(f"/v1/{path}", params={"from": SINCE[path]} if path in SINCE else {})
            if answer.status_code == 403:
                assert path in {"quarantine", "assignments", *EVIDENCE}
                continue
            foreign = (
                *FOREIGN[:3],
                FOREIGN.item,
                ASSIGNMENTS[FOREIGN],
                COMMANDS[FOREIGN],
                PIECES[FOREIGN].upload,
                DELETIONS[FOREIGN],
                "car-7",
                "room-1",
            )
            assert not any(name in answer.text for name in foreign), path
            if path in {"devices", "latest", "fleet", "org-nodes", "assignments", *EVIDENCE}:
                assert any(name in answer.text for name in OWN[:3]), path


async def test_who_may_at_a_node_cannot_reach_beyond_it(app: FastAPI, tokens: dict[str, str]) -> None:
    any_, new = {"If-Match": "*"}, {"If-None-Match": "*"}
    async with client_of(app, token=tokens["equipment_manager"]) as client:
        elsewhere = {"device_class": "body_camera", "node": FOREIGN.node}
        moved = await client.put(f"/v1/devices/{OWN.device}/registration", json=elsewhere, headers=any_)
        assert moved.status_code == 422
        bare = {"device_class": "body_camera"}
        assert (await client.put("/v1/devices/new/registration", json=bare, headers=new)).status_code == 403
        taken = {"device_class": "body_camera", "node": OWN.node}
        stolen = await client.put(f"/v1/devices/{FOREIGN.device}/registration", json=taken, headers=new)
        assert stolen.status_code == 409
        root = {"kind": "centre", "name": "Mine"}
        assert (await client.put("/v1/org-nodes/mine", json=root, headers=new)).status_code == 403
        below = {"kind": "post", "name": "Post", "parent": FOREIGN.node}
        assert (await client.put("/v1/org-nodes/post", json=below, headers=new)).status_code == 422
    async with client_of(app, token=tokens["administrator"]) as client:
        for grant in ({"role": "viewer", "node": FOREIGN.node}, {"role": "viewer"}):
            gift = {"token": "gift", "name": "x", "grants": [grant]}
            assert (await client.post("/v1/tokens", json=gift)).status_code == 403
        assert (await client.post("/v1/tokens/equipment-manager/revoke")).status_code == 200
    async with client_of(app, token=tokens["equipment_manager"]) as client:
        assert (await client.get("/v1/me")).status_code == 401


async def test_me_says_what_a_token_is_good_for(app: FastAPI, tokens: dict[str, str]) -> None:
    async with client_of(app, token=tokens["viewer"]) as client:
        assert (await client.get("/v1/me")).json() == {
            "token": "viewer",
            "person": None,
            "name": "viewer",
            "grants": [{"role": "viewer", "org": "hq/station-7"}],
            "permissions": {"fleet:read": ["hq/station-7"]},
        }


async def test_the_secret_of_a_token_is_not_kept_for_who_repeats_the_request(app: FastAPI) -> None:
    async with client_of(app) as client:
        body = {"token": "repeated", "name": "x", "grants": [{"role": "viewer"}]}
        headers = {"Idempotency-Key": "once"}
        first = await client.post("/v1/tokens", json=body, headers=headers)
        assert (first.status_code, first.headers["Cache-Control"]) == (201, "no-store")
        again = await client.post("/v1/tokens", json=body, headers=headers)
        assert again.status_code == 409
        assert first.json()["secret"] not in again.text


async def test_the_secret_of_a_token_is_told_once(app: FastAPI) -> None:
    async with client_of(app) as client:
        made = await client.post(
            "/v1/tokens", json={"token": "once", "name": "x", "grants": [{"role": "viewer"}], "days": 1}
        )
        secret = made.json()["secret"]
        assert made.json()["expires_ms"] == NOW + 86_400_000
        for path in ("/v1/tokens", "/v1/tokens/once"):
            assert secret not in (await client.get(path)).text
        assert (await client.post("/v1/tokens/first-administrator/revoke")).status_code == 409
    async with client_of(app, token=secret) as client:
        assert (await client.get("/v1/devices")).status_code == 200
