"""Rollouts over the API: planned, begun, looked at, stopped; what cannot be is told with its reason."""

from typing import Any

import httpx
import pytest

from broker_config.ids import DeviceId
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, Fleet, birth

PATH = "/v1/rollouts"
PLAN: dict[str, Any] = {
    "name": "720p",
    "layer": "class/body_camera",
    "patch": {"video": "720p"},
    "waves": [{"name": "canary", "size": "1", "then": "pause"}, {"name": "rest"}],
    "rate": {"base_per_min": 600},
}


@pytest.fixture
def own(own: Fleet) -> Fleet:
    own.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=0)
    for name in ("cam-7", "cam-8"):
        said = Registration(name, "body_camera", node="hq")
        own.registry.register(said, expected=None, create=True, now_ms=0)
        own.arrive(birth(DeviceId(name)))
    return own


async def begun(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await api.post(PATH, json={**PLAN, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()["rollout"]
    return found


async def test_a_dry_run_says_whom_it_means_and_keeps_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.post(PATH, json=PLAN, params={"dry_run": "true"})
    told = answer.json()["dry_run"]
    assert [wave["count"] for wave in told["waves"]] == [1, 1]
    assert sorted(device for wave in told["waves"] for device in wave["devices"]) == ["cam-7", "cam-8"]
    assert told["faults"] == []
    assert (await api.get(PATH)).json() == {"rollouts": [], "next": None}


async def test_a_rollout_is_begun_looked_at_and_goes_on(api: httpx.AsyncClient, own: Fleet) -> None:
    made = await begun(api)
    path = f"{PATH}/{made['rollout']}"
    assert (made["phase"], made["counts"], made["created_by"]) == ("running", {"queued": 2}, "first-administrator")
    own.rolling.turn()
    one = await api.get(path)
    assert one.json()["counts"] == {"offered": 1, "queued": 1}
    assert one.headers["etag"] == '"2"'
    assert (await api.get(PATH)).json()["rollouts"] == [one.json()]
    devices = (await api.get(f"{path}/devices")).json()["devices"]
    assert [each["device"] for each in devices] == ["cam-7", "cam-8"]
    offered = (await api.get(f"{path}/devices", params={"state": "offered"})).json()["devices"]
    assert [each["tries"] for each in offered] == [1]
    assert own.published


async def test_a_rollout_is_paused_resumed_canceled_and_rolled_back(api: httpx.AsyncClient) -> None:
    path = f"{PATH}/{(await begun(api))['rollout']}"
    paused = (await api.post(f"{path}/pause", json={"reason": "lunch"})).json()
    assert (paused["phase"], paused["pause"]) == ("paused", {"why": "operator", "text": "first-administrator: lunch"})
    assert (await api.post(f"{path}/resume")).json()["phase"] == "running"
    assert (await api.post(f"{path}/cancel", json={"reason": "no"})).json()["phase"] == "canceling"
    assert (await api.post(f"{path}/roll-back", json={})).json()["phase"] == "rolling_back"
    refused = await api.post(f"{path}/pause", json={})
    assert refused.status_code == 409
    assert "expected a rollout that is running, got one that is rolling_back" in refused.json()["detail"]


async def test_a_second_person_is_another_one(api: httpx.AsyncClient, own: Fleet) -> None:
    made = await begun(api, approved_by_second=True)
    path = f"{PATH}/{made['rollout']}/approve"
    assert made["phase"] == "waiting_approval"
    assert (await api.post(path)).status_code == 409
    grants = [{"role": "equipment_manager"}]
    token = (await api.post("/v1/tokens", json={"token": "bob", "name": "Bob", "grants": grants})).json()["secret"]
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=token) as other:
        agreed = await other.post(path)
    assert (agreed.json()["phase"], agreed.json()["approved_by"]) == ("running", "bob")


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"layer": "colour/red"}, "layer: expected one of fleet"),
    ({"patch": {"video": "9000p"}}, "patch.video: expected one of"),
    ({"where": "battery=lt=5"}, "where: position 0: expected a fact"),
    ({"where": "device==cam-7"}, "where: leaves out 1 devices"),
    ({"patch": {"video": "1080p"}, "where": "device==none"}, "nobody is meant"),
]


async def test_a_plan_that_cannot_begin_is_refused_with_its_faults(api: httpx.AsyncClient) -> None:
    for more, got in UNFIT:
        answer = await api.post(PATH, json={**PLAN, **more})
        assert answer.status_code == 422
        assert any(got in each["got"] for each in answer.json()["errors"])


@pytest.mark.parametrize(
    "more",
    [
        {"waves": []},
        {"waves": [{"name": "x", "size": "0"}]},
        {"waves": [{"name": "x", "size": "101%"}]},
        {"rate": {"base_per_min": 0}},
        {"patch": {}},
        {"patch": {"video": [1]}},
        {"abort": [{"kind": "bored", "pct": 1}]},
        {"window": {"start": 0, "end": 1440}},
        {"colour": "red"},
    ],
)
async def test_what_is_no_plan_is_refused(client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    assert (await client.post(PATH, json={**PLAN, **more})).status_code == 422


async def test_a_plan_is_told_as_it_was_given(api: httpx.AsyncClient) -> None:
    more = {
        "patch": {"video": "720p", "mute_allowed": None, "pre_event_s": 1, "battery_low_pct": 12.5},
        "window": {"start": 60, "end": 120, "days": [1, 2]},
        "control": {"metrics": [{"fact": "power.battery_pct", "worse": "lower"}]},
        "abort": [{"kind": "silent", "pct": 2.5, "min_executed": 4, "action": "rollback"}],
    }
    plan = (await begun(api, **more))["plan"]
    assert plan["patch"] == more["patch"]
    assert plan["window"] == more["window"]
    assert plan["abort"] == more["abort"]
    assert plan["waves"][0]["then"] == "pause"


async def test_rollouts_are_listed_in_pages(api: httpx.AsyncClient) -> None:
    made = [(await begun(api))["rollout"] for _ in range(3)]
    first = (await api.get(PATH, params={"limit": 2})).json()
    second = (await api.get(PATH, params={"limit": 2, "cursor": first["next"]})).json()
    assert sorted(each["rollout"] for each in first["rollouts"] + second["rollouts"]) == sorted(made)
    assert second["next"] is None
    assert (await api.get(PATH, params={"phase": "paused"})).json()["rollouts"] == []


async def test_what_is_not_there_is_not_found(api: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("GET", "/devices"), ("POST", "/resume"), ("POST", "/approve")):
        assert (await api.request(method, f"{PATH}/{'0' * 16}{path}")).status_code == 404


async def test_who_may_change_one_station_rolls_nothing_out(own: Fleet, api: httpx.AsyncClient) -> None:
    grants = [{"role": Role.EQUIPMENT_MANAGER.value, "node": "hq"}]
    token = (await api.post("/v1/tokens", json={"token": "bob", "name": "Bob", "grants": grants})).json()["secret"]
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=token) as other:
        assert (await other.post(PATH, json=PLAN)).status_code == 403
        assert (await other.get(PATH)).status_code == 403
