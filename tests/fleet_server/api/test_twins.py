"""What operators set is composed, told with where it comes from, and nobody overwrites what they did not see."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker_config.twin import ChangeState, Reported, SettingValue
from fleet_server.access.people import ROOT, NodeGrant
from fleet_server.access.roles import Role
from fleet_server.api.app import create_app
from fleet_server.change import layers
from fleet_server.registry.assignments import Handing, With
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, T0, Fleet, told

NEW = {"If-None-Match": "*"}
ANY = {"If-Match": "*"}
FLEET = "/v1/config/layers/fleet"
CAM_7 = "/v1/twins/cam-7"


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """Two stations with two cameras each."""
    fleet = told(tmp_path / "store.db")
    registry = fleet.registry
    nodes = [OrgNode("hq", NodeKind.CENTRE, "Centre")]
    nodes += [OrgNode(name, NodeKind.STATION, name, "hq") for name in ("station-7", "station-8")]
    for node in nodes:
        registry.put_node(node, expected=None, create=True, now_ms=T0)
    for device, station in (("cam-6", "station-7"), ("cam-7", "station-7"), ("cam-8", "station-8")):
        said = Registration(device, "body_camera", node=station)
        registry.register(said, expected=None, create=True, now_ms=T0)
    while fleet.composer.turn():
        pass
    yield fleet
    fleet.store.close()


@pytest.fixture
async def api(own: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(own.ports, clock=lambda: NOW)) as client:
        yield client


async def put(api: httpx.AsyncClient, path: str, headers: dict[str, str] = NEW, **settings: Any) -> httpx.Response:
    answer = await api.put(f"/v1/config/layers/{path}", json={"settings": settings}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"].rpartition(":")[2] == kind
    return body


def reported(version: int, desired: int, **config: SettingValue) -> Reported:
    return Reported(1, version, "ab" * 8, desired, desired, ChangeState.CURRENT, config)


async def test_each_value_of_a_twin_says_where_it_comes_from(api: httpx.AsyncClient, own: Fleet) -> None:
    await put(api, "fleet", keep_alive_s=30, plan=3, video="720p")  # plan: of traffic lights
    await put(api, "classes/body_camera", video="1080p")
    await put(api, "nodes/station-7", battery_low_pct=20.5)
    group = {"priority": 5, "members": ["cam-7", "cam-8"]}
    assert (await api.put("/v1/config/groups/night", json=group, headers=NEW)).status_code == 200
    await put(api, "groups/night", mute_allowed=True, keep_alive_s=None)
    while own.composer.turn():
        pass
    twin = (await api.get(CAM_7)).json()
    assert twin["desired"]["config"] == {"video": "1080p", "battery_low_pct": 20.5, "mute_allowed": True}
    assert twin["desired"]["provenance"] == {
        "video": {"kind": "class", "name": "body_camera", "revision": 1},
        "battery_low_pct": {"kind": "node", "name": "station-7", "revision": 1},
        "mute_allowed": {"kind": "group", "name": "night", "revision": 1},
    }
    assert twin["desired"]["by"] == "first-administrator"
    assert (twin["place"], twin["drift"]) == (
        {"device_class": "body_camera", "org": "hq/station-7"},
        "never_reported",
    )
    assert (await api.get("/v1/twins/cam-6")).json()["desired"]["config"]["keep_alive_s"] == 30
    listed = (await api.get("/v1/config/layers")).json()["layers"]
    assert [(each["kind"], each["name"]) for each in listed] == [
        ("fleet", None),
        ("class", "body_camera"),
        ("node", "station-7"),
        ("group", "night"),
    ]


async def test_who_leaves_a_group_loses_its_settings(api: httpx.AsyncClient) -> None:
    path = "/v1/config/groups/night"
    made = await api.put(path, json={"priority": 5, "members": ["cam-7", "cam-8"]}, headers=NEW)
    await put(api, "groups/night", video="720p")
    would = await api.put(
        f"{path}?dry_run=true", json={"priority": 5, "members": ["cam-8"]}, headers={"If-Match": made.headers["etag"]}
    )
    gone = [{"device": "cam-7", "settings": {"video": {"before": "720p", "after": None}}}]
    assert would.json()["dry_run"] == {"devices": 1, "changes": gone}
    left = await api.put(path, json={"priority": 5, "members": ["cam-8"]}, headers={"If-Match": '"1"'})
    assert left.headers["etag"] == '"2"'
    assert [(await api.get(f"/v1/twins/{each}")).json()["desired"]["config"] for each in ("cam-7", "cam-8")] == [
        {},
        {"video": "720p"},
    ]
    problem(await api.delete(path), 428, "precondition-required")
    problem(await api.delete(path, headers={"If-Match": '"1"'}), 412, "stale")
    assert (await api.delete(f"{path}?dry_run=true", headers=ANY)).json()["dry_run"]["devices"] == 1
    assert (await api.delete(path, headers=ANY)).status_code == 200
    assert (await api.get("/v1/twins/cam-8")).json()["desired"]["config"] == {}
    problem(await api.get(path), 404, "unknown-group")
    problem(await api.get("/v1/config/layers/groups/night"), 404, "unknown-group")


async def test_a_twin_is_set_by_who_saw_it(api: httpx.AsyncClient, own: Fleet) -> None:
    seen = (await api.get(CAM_7)).headers["etag"]
    assert seen == '"0"'
    problem(await api.patch(CAM_7, json={"video": "720p"}), 428, "precondition-required")
    changed = await api.patch(CAM_7, json={"video": "720p", "pre_event_s": 10}, headers={"If-Match": seen})
    assert changed.status_code == 200, changed.text
    twin = changed.json()["twin"]
    assert changed.headers["etag"] == f'"{NOW}"'
    assert (twin["own"], twin["desired"]["version"]) == ({"video": "720p", "pre_event_s": 10}, NOW)
    assert own.published[-1] == {"cam-7": NOW}  # at once, before the answer
    stale = problem(await api.patch(CAM_7, json={"video": "1080p"}, headers={"If-Match": seen}), 412, "stale")
    assert f'"{NOW}"' in stale["expected"]
    taken = await api.patch(CAM_7, json={"video": None}, headers={"If-Match": f'"{NOW}"'})
    assert taken.json()["twin"]["desired"]["config"] == {"pre_event_s": 10}
    history = (await api.get(f"{CAM_7}/desired?limit=1")).json()
    assert [each["version"] for each in history["desired"]] == [NOW + 1]
    rest = (await api.get(f"{CAM_7}/desired", params={"cursor": history["next"]})).json()
    assert [each["version"] for each in rest["desired"]] == [NOW]
    assert rest["next"] is None


async def test_a_dry_run_names_devices_and_changes_and_changes_nothing(api: httpx.AsyncClient, own: Fleet) -> None:
    body = {"settings": {"video": "720p", "keep_alive_s": 30}}
    would = (await api.put(f"{FLEET}?dry_run=true", json=body, headers=NEW)).json()
    camera = {"video": {"before": None, "after": "720p"}, "keep_alive_s": {"before": None, "after": 30}}
    host = {"keep_alive_s": {"before": None, "after": 30}}
    changes = {each["device"]: each["settings"] for each in would["dry_run"]["changes"]}
    assert changes["cam-7"] == camera
    assert changes["car-7"] == host
    assert would["dry_run"]["devices"] == len(changes)
    assert (would["layer"]["revision"], (await api.get(FLEET)).json()["settings"]) == (0, {})
    problem(await api.put(f"{FLEET}?dry_run=true", json=body, headers={"If-Match": '"4"'}), 412, "stale")
    mine = (await api.patch(f"{CAM_7}?dry_run=true", json={"video": "720p"}, headers=ANY)).json()
    assert mine["dry_run"]["changes"] == [
        {"device": "cam-7", "settings": {"video": {"before": None, "after": "720p"}}}
    ]
    assert (mine["twin"]["desired"], own.published) == (None, [])


@pytest.mark.parametrize(
    ("path", "settings", "fault"),
    [
        ("fleet", {"videos": "x"}, ("body.settings.videos", "unknown")),
        ("fleet", {"pre_event_s": 121}, ("body.settings.pre_event_s", "expected 0 to 120 s, got 121")),
        ("fleet", {"mute_allowed": 1}, ("body.settings.mute_allowed", "expected boolean, got 1")),
        ("classes/host", {"video": "720p"}, ("body.settings.video", "unknown")),
        ("devices/cam-7", {"plan": 2}, ("body.settings.plan", "unknown")),
        ("nodes/station-7", {"video": "4k"}, ("body.settings.video", "expected one of 720p, 1080p, 1440p, got '4k'")),
    ],
)
async def test_what_no_device_takes_is_refused(
    api: httpx.AsyncClient, path: str, settings: dict[str, Any], fault: tuple[str, str]
) -> None:
    answer = await api.put(f"/v1/config/layers/{path}", json={"settings": settings}, headers=NEW)
    errors = problem(answer, 422, "invalid-request")["errors"]
    assert (errors[0]["where"], errors[0]["expected"]) == fault


@pytest.mark.parametrize(
    "body", ['{"video": "\\ud800"}', '{"\\ud800": 1}', '{"video": 1e999}', '{"video": {}}', "[]"]
)
async def test_what_is_no_setting_is_refused(api: httpx.AsyncClient, body: str) -> None:
    headers = {**ANY, "Content-Type": "application/merge-patch+json"}
    problem(await api.patch(CAM_7, content=body, headers=headers), 422, "invalid-request")


async def test_what_is_not_there_is_told(api: httpx.AsyncClient) -> None:
    problem(await api.get("/v1/twins/cam-99"), 404, "unknown-device")
    problem(await api.patch("/v1/twins/cam-99", json={}, headers=ANY), 404, "unknown-device")
    problem(await api.get("/v1/config/layers/classes/toaster"), 404, "unknown-class")
    problem(await api.get("/v1/config/layers/nodes/nowhere"), 404, "unknown-node")
    group = {"priority": 5, "members": ["cam-99"]}
    errors = problem(await api.put("/v1/config/groups/x", json=group, headers=NEW), 422, "invalid-request")["errors"]
    assert errors[0]["got"] == "cam-99"
    problem(
        await api.put("/v1/config/groups/x", json={"priority": 1, "members": []}, headers=ANY), 404, "unknown-group"
    )


async def test_drift_is_told_and_lists_devices(api: httpx.AsyncClient, own: Fleet) -> None:
    version = (await api.patch(CAM_7, json={"video": "720p"}, headers=ANY)).json()["twin"]["desired"]["version"]
    own.twins.report([("cam-7", reported(5, version, video="1080p")), ("cam-8", reported(5, 0))], now_ms=NOW)
    twin = (await api.get(CAM_7)).json()
    assert (twin["drift"], twin["deviating"], twin["reported"]["config"]) == (
        "drifted",
        ["video"],
        {"video": "1080p"},
    )
    for drift, expected in (
        ("drifted", ["cam-7"]),
        ("in_sync", ["cam-8"]),
        ("pending", []),
        ("never_reported", ["cam-6", "car-7", "room-1"]),
    ):
        listed = (await api.get(f"/v1/devices?drift={drift}")).json()["devices"]
        assert [each["device"] for each in listed] == expected
    said = (await api.get(f"{CAM_7}/reported")).json()["reported"]
    assert [(each["version"], each["desired"]) for each in said] == [(5, version)]


async def test_a_twin_is_known_as_it_was(api: httpx.AsyncClient, own: Fleet) -> None:
    await api.patch(CAM_7, json={"video": "720p"}, headers=ANY)
    own.registry.register(
        Registration("cam-7", "body_camera", node="station-8"), expected=None, create=False, now_ms=NOW + 5_000
    )
    then = (await api.get(CAM_7, params={"at": NOW + 1_000})).json()
    assert (then["desired"]["config"], then["place"]["org"], then["own"]) == (
        {"video": "720p"},
        "hq/station-7",
        None,
    )
    before = (await api.get(CAM_7, params={"at": NOW - 1})).json()
    assert (before["desired"], before["reported"], before["drift"]) == (None, None, "never_reported")
    own.assignments.check_out(Handing("cam-7", With(officer="4711"), "ann", NOW + 7_000), now_ms=NOW + 7_000)
    given = (await api.get(CAM_7, params={"at": NOW + 8_000})).json()["assignment"]
    assert given == {"officer": "4711", "vehicle": None, "shift": None, "unit": None}
    viewer = own.people.make_token(
        "viewer", "x", [NodeGrant(Role.VIEWER, None)], giver=ROOT, expires_ms=None, now_ms=T0
    ).secret
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=viewer) as other:
        seen = (await other.get(CAM_7, params={"at": NOW + 8_000})).json()
        assert (seen["device"], seen["assignment"]) == ("cam-7", None)
    after = (await api.get(CAM_7, params={"at": NOW + 6_000})).json()
    assert after["place"]["org"] == "hq/station-8"


async def test_who_may_at_a_station_sets_what_is_there(own: Fleet) -> None:
    secret = own.people.make_token(
        "seven", "x", [NodeGrant(Role.EQUIPMENT_MANAGER, "station-7")], giver=ROOT, expires_ms=None, now_ms=T0
    ).secret
    async with client_of(create_app(own.ports, clock=lambda: NOW), token=secret) as api:
        await put(api, "nodes/station-7", video="720p")
        assert (await api.patch(CAM_7, json={"video": "1080p"}, headers=ANY)).status_code == 200
        for path in ("fleet", "classes/body_camera", "nodes/hq", "nodes/station-8", "groups/night", "devices/cam-8"):
            answer = await api.put(f"/v1/config/layers/{path}", json={"settings": {}}, headers=NEW)
            assert answer.status_code in {403, 404}, path
        problem(await api.get("/v1/twins/cam-8"), 404, "unknown-device")
        assert (await api.get("/v1/config/groups")).status_code == 403
    assert own.twins.configs(["cam-6", "cam-7", "cam-8"]) == {"cam-6": {"video": "720p"}, "cam-7": {"video": "1080p"}}


async def test_a_device_that_moves_gets_the_settings_of_its_new_place(api: httpx.AsyncClient, own: Fleet) -> None:
    await put(api, "nodes/station-8", video="720p")
    body = {"node": "station-8"}
    assert (await api.patch("/v1/devices/cam-7/registration", json=body, headers=ANY)).status_code == 200
    assert own.composer.turn()
    assert own.twins.configs(["cam-7"]) == {"cam-7": {"video": "720p"}}
    aim = own.twins.twin("cam-7").aim
    assert aim is not None
    assert (aim.by, aim.origin) == ("registry", "place")


async def test_what_a_rollout_holds_waits_for_it(api: httpx.AsyncClient, own: Fleet) -> None:
    own.twins.hold(["cam-7"], "ab" * 8)
    await put(api, "nodes/station-7", video="720p")
    twin = (await api.get(CAM_7)).json()
    assert (twin["desired"], twin["held_by"]) == (None, "ab" * 8)
    made = own.composer.compose(["cam-7"], by="rollout:x", origin="rollout x", rollout="ab" * 8)
    assert made == {"cam-7": NOW}
    twin = (await api.get(CAM_7)).json()
    assert (twin["desired"]["rollout"], twin["held_by"]) == ("ab" * 8, None)


async def test_many_devices_are_composed_behind_the_answer(
    api: httpx.AsyncClient, own: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet_server.change.composing.PART_MAX", 2)
    await put(api, "fleet", keep_alive_s=30)
    assert own.published == []
    turns = 0
    while own.composer.turn():
        turns += 1
    assert turns == 3  # five devices, two at a time; of one the class is not known
    assert {device for made in own.published for device in made} == {"cam-6", "cam-7", "cam-8", "car-7"}


async def test_how_twins_are_is_in_the_metrics(api: httpx.AsyncClient) -> None:
    lines = (await api.get("/metrics")).text.splitlines()
    assert {"fieldfleet_twins_orders_due 3.0", "fieldfleet_twins_ordered_total 5.0"} <= set(lines)


def test_the_bounds_leave_room_in_a_request() -> None:
    longest = "x" * 26
    assert layers.MEMBERS_MAX * (len(longest) + 4) < 64 * 1024
