"""What operators say is kept as they said it, nobody overwrites what they did not see, and a repeat is done once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_server.api.app import create_app
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import NOW, told

NEW = {"If-None-Match": "*"}
CSV = {"Content-Type": "text/csv"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a fleet of its own, with a centre, a station and a unit."""
    fleet = told(tmp_path / "store.db")
    async with client_of(create_app(fleet.ports, clock=lambda: NOW)) as speaking:
        for path, body in (
            ("org-nodes/hq", {"kind": "centre", "name": "Command centre"}),
            ("org-nodes/station-7", {"kind": "station", "name": "Seventh station", "parent": "hq"}),
            ("duty-units/unit-4", {"name": "Fourth unit"}),
        ):
            assert (await speaking.put(f"/v1/{path}", json=body, headers=NEW)).status_code == 200
        yield speaking
    fleet.store.close()


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"].rpartition(":")[2].rpartition("/")[2] == kind
    return body


async def test_a_device_is_registered_read_changed_and_forgotten(client: httpx.AsyncClient) -> None:
    path = "/v1/devices/car-7/registration"
    body = {"device_class": "in_car_terminal", "serial": "SN-1", "node": "station-7", "unit": "unit-4"}
    made = await client.put(path, json=body, headers=NEW)
    assert made.headers["etag"] == '"1"'
    said = made.json()
    assert (said["org"], said["serial"], said["unit"], said["registered_ms"]) == (
        "hq/station-7",
        "SN-1",
        "unit-4",
        NOW,
    )
    changed = await client.patch(path, json={"serial": None, "note": "spare"}, headers={"If-Match": '"1"'})
    assert (changed.json()["serial"], changed.json()["note"], changed.json()["unit"]) == (None, "spare", "unit-4")
    assert (await client.get(path)).headers["etag"] == '"2"'
    device = (await client.get("/v1/devices/car-7")).json()
    assert (device["registered"], device["device_class"], device["reported_class"]) == (
        True,
        "in_car_terminal",
        "host",
    )
    assert (await client.delete(path, headers={"If-Match": '"2"'})).status_code == 204
    problem(await client.get(path), 404, "unknown-registration")
    assert (await client.get("/v1/devices/car-7")).json()["registered"] is False


async def test_a_change_needs_to_say_what_it_looked_like(client: httpx.AsyncClient) -> None:
    path, body = "/v1/devices/cam-1/registration", {"device_class": "body_camera"}
    problem(await client.put(path, json=body), 428, "precondition-required")
    problem(await client.put(path, json=body, headers={"If-Match": "*"}), 404, "unknown-registration")
    assert (await client.put(path, json=body, headers=NEW)).status_code == 200
    problem(await client.put(path, json=body, headers=NEW), 412, "stale")
    stale = await client.patch(path, json={"note": "x"}, headers={"If-Match": '"7"'})
    problem(stale, 412, "stale")
    assert stale.headers["etag"] == '"1"'
    problem(await client.patch(path, json={"note": "x"}), 428, "precondition-required")
    problem(await client.delete(path, headers={"If-Match": "one"}), 422, "invalid-request")
    assert (await client.patch(path, json={"note": "x"}, headers={"If-Match": "*"})).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"device_class": "toaster"}, 422, "invalid-request"),
        ({"device_class": "host", "node": "nowhere"}, 422, "invalid-request"),
        ({"device_class": "host", "unit": "nobody"}, 422, "invalid-request"),
        ({"device_class": "host", "serial": "two words"}, 422, "invalid-request"),
        ({"device_class": "host", "note": "\x00"}, 422, "invalid-request"),
        ({"device_class": "host", "mood": "good"}, 422, "invalid-request"),
        ({}, 422, "invalid-request"),
        ({"device_class": "host", "serial": "SN-0"}, 409, "taken"),
    ],
)
async def test_what_cannot_be_registered(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, kind: str
) -> None:
    other = {"device_class": "host", "serial": "SN-0"}
    await client.put("/v1/devices/other/registration", json=other, headers=NEW)
    problem(await client.put("/v1/devices/cam-1/registration", json=body, headers=NEW), status, kind)
    problem(await client.get("/v1/devices/cam-1"), 404, "unknown-device")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["cam-1", "car-7", "room-1"]),
        ("device_class=body_camera", ["cam-1"]),
        ("node=hq", ["cam-1"]),
        ("node=station-7&registered=true", ["cam-1"]),
        ("registered=false", ["car-7", "room-1"]),
        ("text=ca&limit=1", ["cam-1"]),
        ("text=SN", ["cam-1"]),
    ],
)
async def test_devices_are_filtered(client: httpx.AsyncClient, query: str, found: list[str]) -> None:
    body = {"device_class": "body_camera", "node": "station-7", "serial": "SN-9"}
    await client.put("/v1/devices/cam-1/registration", json=body, headers=NEW)
    answer = (await client.get(f"/v1/devices?{query}")).json()
    assert [device["device"] for device in answer["devices"]] == found


async def test_a_filter_by_a_node_that_is_not_there_is_told(client: httpx.AsyncClient) -> None:
    assert "query.node" in problem(await client.get("/v1/devices?node=nowhere"), 422, "invalid-request")["detail"]


async def test_newest_readings_of_one_class_only(client: httpx.AsyncClient) -> None:
    rows = (await client.get("/v1/latest?device_class=host")).json()["latest"]
    assert [(row["device"], row["stream"]) for row in rows] == [("car-7", "cpu")]


async def test_the_tree_is_listed_by_path_and_keeps_its_rules(client: httpx.AsyncClient) -> None:
    post = {"kind": "post", "name": "Third post", "parent": "station-7"}
    assert (await client.put("/v1/org-nodes/post-3", json=post, headers=NEW)).json()["org"] == "hq/station-7/post-3"
    listed = (await client.get("/v1/org-nodes")).json()["org_nodes"]
    assert [node["node"] for node in listed] == ["hq", "station-7", "post-3"]
    wrong = {"kind": "post", "name": "x", "parent": "hq"}
    problem(await client.put("/v1/org-nodes/post-4", json=wrong, headers=NEW), 422, "against-the-rules")
    problem(await client.delete("/v1/org-nodes/hq", headers={"If-Match": "*"}), 409, "in-use")
    assert (await client.delete("/v1/org-nodes/post-3", headers={"If-Match": '"1"'})).status_code == 204


async def test_the_fleet_is_counted_by_place_with_all_below_it(client: httpx.AsyncClient) -> None:
    body = {"device_class": "body_camera", "node": "station-7"}
    await client.put("/v1/devices/cam-1/registration", json=body, headers=NEW)
    fleet = (await client.get("/v1/fleet")).json()
    assert fleet["devices"] == 3
    assert {row["org"]: row["devices"] for row in fleet["places"]} == {"hq": 1, "hq/station-7": 1, None: 2}
    assert {row["device_class"]: row["devices"] for row in fleet["classes"]} == {"": 1, "body_camera": 1, "host": 1}


async def test_an_import_registers_all_or_tells_every_fault_with_its_line(client: httpx.AsyncClient) -> None:
    path = "/v1/imports/devices"
    wrong = "device,device_class,node\nA,host,hq\ncam-1,toaster,hq\ncam-2,host,hq\ncam-2,host,hq\ncam-3,host\n"
    faults = problem(await client.post(path, content=wrong, headers=CSV), 422, "invalid-request")["errors"]
    assert [fault["where"] for fault in faults] == ["line 2", "line 5", "line 6", "line 3"]
    nowhere = "device,device_class,node\ncam-1,host,hq\ncam-2,host,nowhere\n"
    faults = problem(await client.post(path, content=nowhere, headers=CSV), 422, "invalid-request")["errors"]
    assert [fault["where"] for fault in faults] == ["line 3"]
    # as a spreadsheet writes it
    right = "\ufeffdevice;device_class;node;serial\r\ncam-1;body_camera;station-7;SN-1\r\ncam-2;body_camera;;\r\n"
    for dry_run, there in ((True, 0), (False, 2)):
        done = await client.post(f"{path}?dry_run={dry_run}", content=right.encode(), headers=CSV)
        assert (done.json()["created"], done.json()["created_names"]) == (2, ["cam-1", "cam-2"])
        listed = (await client.get("/v1/devices?registered=true")).json()["devices"]
        assert len(listed) == there
    again = await client.post(path, content=right.encode(), headers=CSV)
    assert (again.json()["created"], again.json()["unchanged"]) == (0, 2)


async def test_nodes_and_units_are_imported(client: httpx.AsyncClient) -> None:
    nodes = "node,kind,name,parent\npost-1,post,First post,station-1\nstation-1,station,First station,hq\n"
    assert (await client.post("/v1/imports/org-nodes", content=nodes, headers=CSV)).json()["created"] == 2
    units = "unit,name,node\nunit-9,Ninth,station-1\n"
    assert (await client.post("/v1/imports/duty-units", content=units, headers=CSV)).json()["created"] == 1


async def test_a_request_that_is_sent_again_with_its_key_is_done_once(client: httpx.AsyncClient) -> None:
    path, headers = "/v1/imports/devices", {**CSV, "Idempotency-Key": "of-monday"}
    csv = "device,device_class\ncam-1,host\n"
    first = await client.post(path, content=csv, headers=headers)
    again = await client.post(path, content=csv, headers=headers)
    assert (first.json(), first.headers.get("idempotency-replayed")) == (again.json(), None)
    assert (again.json()["created"], again.headers["idempotency-replayed"]) == (1, "true")
    other = await client.post(path, content=csv + "cam-2,host\n", headers=headers)
    problem(other, 422, "invalid-request")
    problem(await client.get("/v1/devices/cam-2"), 404, "unknown-device")


async def test_a_repeat_of_a_conditional_change_gets_the_first_answer_and_its_etag(client: httpx.AsyncClient) -> None:
    headers = {**NEW, "Idempotency-Key": "k"}
    body = {"device_class": "host"}
    first, again = [await client.put("/v1/devices/x/registration", json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, first.headers["etag"]) == (again.status_code, again.headers["etag"]) == (200, '"1"')


async def test_of_many_repeats_at_once_one_is_done(client: httpx.AsyncClient) -> None:
    headers = {**CSV, "Idempotency-Key": "at-once"}
    csv = "device,device_class\n" + "".join(f"d{at},host\n" for at in range(500))
    answers = await asyncio.gather(
        *(client.post("/v1/imports/devices", content=csv, headers=headers) for _ in range(8))
    )
    done = [
        answer for answer in answers if answer.status_code == 200 and "idempotency-replayed" not in answer.headers
    ]
    assert [answer.json()["created"] for answer in done] == [500]
    assert {answer.status_code for answer in answers} <= {200, 409}


@pytest.mark.parametrize("key", ["", "two words", "x" * 129])
async def test_a_key_that_is_none_is_told_and_nothing_is_done(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post(
        "/v1/imports/devices", content="device,device_class\nx,host\n", headers={**CSV, "Idempotency-Key": key}
    )
    problem(answer, 422, "invalid-request")
    problem(await client.get("/v1/devices/x"), 404, "unknown-device")


async def test_a_stranger_gets_no_kept_answer(client: httpx.AsyncClient) -> None:
    headers = {**CSV, "Idempotency-Key": "secret"}
    csv = "device,device_class\ncam-1,host\n"
    await client.post("/v1/imports/devices", content=csv, headers=headers)
    for authorization in ("", "Bearer nobody", "Basic dXNlcjp4"):
        answer = await client.post(
            "/v1/imports/devices", content=csv, headers={**headers, "Authorization": authorization}
        )
        problem(answer, 401, "unauthorized")


async def test_a_body_has_a_bound(client: httpx.AsyncClient) -> None:
    large = {"kind": "centre", "name": "x" * 70_000}
    problem(await client.put("/v1/org-nodes/x", json=large, headers=NEW), 413, "too-large")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    problem(await client.put("/v1/org-nodes/x", content=endless(), headers=NEW), 413, "too-large")
