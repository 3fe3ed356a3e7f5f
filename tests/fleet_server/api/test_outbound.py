"""Webhooks and happenings over the API: what is taken, what is refused, and that nobody is overwritten."""

import json
from typing import Any, Final

import httpx
import pytest

from fleet_server.outbound.happenings import Kind, News
from fleet_server.outbound.subscriptions import SUBSCRIPTIONS_MAX, Choice
from tests.fleet_server.api.test_problems import problem
from tests.fleet_server.fleet import NOW, Fleet

URL: Final = "https://hooks.example.org/fieldfleet"


async def made(api: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    answer = await api.post("/v1/webhooks", json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["etag"] == '"1"'
    found: dict[str, Any] = answer.json()
    return found


def happen(own: Fleet, *kinds: Kind, org: str = "hq/st-1") -> list[int]:
    news = [News(NOW + at, kind, f"cam-{at}", "body_camera", org, {"count": 3}) for at, kind in enumerate(kinds)]
    return [each.id for each in own.outbox.record(news, {}, {}, now_ms=NOW).happenings]


async def test_the_secret_is_told_once(api: httpx.AsyncClient) -> None:
    webhook = await made(api, note="duty chat", kinds=["device.disconnected"], severity="warning", org="hq/st-1")
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    for path in ("/v1/webhooks", f"/v1/webhooks/{webhook['id']}", f"/v1/webhooks/{webhook['id']}/deliveries"):
        assert secret not in (await api.get(path)).text
    answer = await api.get(f"/v1/webhooks/{webhook['id']}")
    assert (answer.json(), answer.headers["etag"]) == (webhook, '"1"')


@pytest.mark.parametrize(
    ("patch", "changed"),
    [
        ({"note": "night"}, {"note": "night"}),
        ({"url": "https://other.example.org/"}, {"url": "https://other.example.org/"}),
        ({"kinds": None, "org": None}, {"kinds": [], "org": None}),
        ({"severity": "alarm"}, {"severity": "alarm"}),
        ({"enabled": False}, {"enabled": False, "disabled_why": "disabled by an operator"}),
        ({}, {}),
    ],
)
async def test_a_patch_changes_what_it_names(
    api: httpx.AsyncClient, patch: dict[str, object], changed: dict[str, object]
) -> None:
    webhook = await made(api, note="day", kinds=["gap.lost"], org="hq")
    webhook.pop("secret")
    path = f"/v1/webhooks/{webhook['id']}"
    answer = await api.patch(path, json=patch, headers={"If-Match": '"1"'})
    assert answer.json() == webhook | changed | {"revision": 2}
    assert (await api.get(path)).headers["etag"] == '"2"'


async def test_nobody_overwrites_what_they_have_not_seen(api: httpx.AsyncClient) -> None:
    path = f"/v1/webhooks/{(await made(api))['id']}"
    problem(await api.patch(path, json={"note": "x"}), 428, "precondition-required")
    problem(await api.delete(path), 428, "precondition-required")
    assert (await api.patch(path, json={"note": "first"}, headers={"If-Match": '"1"'})).status_code == 200
    stale = await api.patch(path, json={"note": "second"}, headers={"If-Match": '"1"'})
    assert problem(stale, 412, "stale")["expected"] == 'If-Match: "2", once you have looked at it again'
    problem(await api.delete(path, headers={"If-Match": '"1"'}), 412, "stale")
    assert (await api.get(path)).json()["note"] == "first"
    assert (await api.delete(path, headers={"If-Match": "*"})).status_code == 204
    problem(await api.get(path), 404, "unknown-webhook")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.url"),
        ({"url": "http://hooks.example.org/"}, "body.url"),
        ({"url": "https://169.254.169.254/"}, "body.url"),
        ({"url": "https://user:secret@hooks.example.org/"}, "body.url"),
        ({"url": "https://hooks.example.org/\x00"}, "body.url"),
        ({"url": "https://hooks.example.org/\ud800"}, "body.url"),
        ({"url": "x" * 5_000}, "body.url"),
        ({"url": 7}, "body.url"),
        ({"url": URL, "kinds": ["device.exploded"]}, "body.kinds.0"),
        ({"url": URL, "kinds": "device.connected"}, "body.kinds"),
        ({"url": URL, "kinds": ["gap.lost"] * 100}, "body.kinds"),
        ({"url": URL, "severity": "mild"}, "body.severity"),
        ({"url": URL, "org": "HQ"}, "body.org"),
        ({"url": URL, "org": "hq\x00"}, "body.org"),
        ({"url": URL, "note": "a\x00b"}, "body.note"),
        ({"url": URL, "note": "x" * 501}, "body.note"),
        ({"url": URL, "secret": "whsec_mine"}, "body.secret"),
        ({"url": URL, "enabled": 10**30}, "body.enabled"),
    ],
)
async def test_a_webhook_that_cannot_be(api: httpx.AsyncClient, body: dict[str, object], where: str) -> None:
    # as text, because a client's library would not send some of it
    answer = await api.post("/v1/webhooks", content=json.dumps(body), headers={"Content-Type": "application/json"})
    faults = problem(answer, 422, "invalid-request")["errors"]
    assert [fault["where"] for fault in faults] == [where]
    assert (await api.get("/v1/webhooks")).json()["webhooks"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/happenings?kinds=device.exploded"),
        ("GET", "/v1/happenings?severity=mild"),
        ("GET", "/v1/happenings?device=Car%207"),
        ("GET", "/v1/happenings?device=%00"),
        ("GET", "/v1/happenings?org=%ED%A0%80"),
        ("GET", "/v1/happenings?kinds=gap.lost&kinds=gap.lost"),
        ("GET", "/v1/happenings?cursor=LTE"),  # -1
        ("GET", "/v1/changes?after=-1"),
        ("GET", "/v1/changes?after=99999999999999999999999"),
        ("GET", "/v1/changes?after=x"),
        ("GET", "/v1/changes?kinds=,"),
        ("GET", "/v1/webhooks/W!"),
        ("GET", "/v1/webhooks/%00"),
        ("GET", "/v1/webhooks/w0001/deliveries?state=lost"),
        ("POST", "/v1/webhooks/w0001/deliveries/0/retry"),
        ("POST", "/v1/webhooks/w0001/deliveries/99999999999999999999999/retry"),
    ],
)
async def test_parameters_that_cannot_be_taken(api: httpx.AsyncClient, method: str, path: str) -> None:
    problem(await api.request(method, path), 422, "invalid-request")


@pytest.mark.parametrize("seen", ["-1", "x", "9" * 17, "9" * 16, " ", "1\t2"])
async def test_a_last_event_id_that_is_none_of_ours(api: httpx.AsyncClient, seen: str) -> None:
    problem(await api.get("/v1/changes", headers={"Last-Event-ID": seen}), 422, "invalid-request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/webhooks/w0001"),
        ("PATCH", "/v1/webhooks/w0001"),
        ("DELETE", "/v1/webhooks/w0001"),
        ("POST", "/v1/webhooks/w0001/test"),
        ("GET", "/v1/webhooks/w0001/deliveries"),
        ("POST", "/v1/webhooks/w0001/deliveries/1/retry"),
        # mail is the configuration's
        ("GET", "/v1/webhooks/mail"),
        ("DELETE", "/v1/webhooks/mail"),
        ("POST", "/v1/webhooks/mail/test"),
    ],
)
async def test_a_webhook_that_is_not_there(own: Fleet, api: httpx.AsyncClient, method: str, path: str) -> None:
    own.ports.subscriptions.keep_mail(Choice(), now_ms=NOW)
    content = "{}" if method == "PATCH" else None
    headers = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
    problem(await api.request(method, path, headers=headers, content=content), 404, "unknown-webhook")


async def test_there_is_a_bound_on_webhooks(own: Fleet, api: httpx.AsyncClient) -> None:
    for _ in range(SUBSCRIPTIONS_MAX):
        await made(api)
    problem(await api.post("/v1/webhooks", json={"url": URL}), 409, "too-many-webhooks")
    own.ports.subscriptions.keep_mail(Choice(), now_ms=NOW)  # mail has its place all the same
    seen, cursor = [], None
    while True:
        params = {"limit": 30} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/webhooks", params=params)).json()
        seen += [each["id"] for each in page["webhooks"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(set(seen)) == len(seen) == SUBSCRIPTIONS_MAX


async def test_a_test_is_for_one_webhook_alone_and_what_became_of_it_is_told(api: httpx.AsyncClient) -> None:
    first, second = await made(api), await made(api)
    answer = await api.post(f"/v1/webhooks/{first['id']}/test")
    assert (answer.status_code, answer.json()["kind"]) == (202, "webhook.test")
    (delivery,) = (await api.get(f"/v1/webhooks/{first['id']}/deliveries")).json()["deliveries"]
    assert (delivery["happening"], delivery["state"], delivery["attempts"]) == (answer.json()["id"], "pending", 0)
    assert (await api.get(f"/v1/webhooks/{second['id']}/deliveries")).json()["deliveries"] == []


async def test_what_is_sent_again_is_new(own: Fleet, api: httpx.AsyncClient) -> None:
    webhook = await made(api)
    (id_,) = happen(own, Kind.GAP_LOST)
    own.outbox.park_older(NOW + 1, now_ms=NOW)
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    assert [each["state"] for each in (await api.get(path, params={"state": "parked"})).json()["deliveries"]] == [
        "parked"
    ]
    again = await api.post(f"{path}/{id_}/retry")
    assert (again.status_code, again.json()["state"], again.json()["error"]) == (202, "pending", "")
    problem(await api.post(f"{path}/{id_ + 1}/retry"), 404, "unknown-delivery")


async def test_a_webhook_that_is_disabled_is_sent_nothing(own: Fleet, api: httpx.AsyncClient) -> None:
    webhook = await made(api, enabled=False)
    happen(own, Kind.GAP_LOST)
    problem(await api.post(f"/v1/webhooks/{webhook['id']}/test"), 409, "webhook-disabled")
    assert (await api.get(f"/v1/webhooks/{webhook['id']}/deliveries")).json()["deliveries"] == []


async def test_happenings_come_the_newest_first_in_pages_and_filtered(own: Fleet, api: httpx.AsyncClient) -> None:
    ids = happen(own, *([Kind.DEVICE_CONNECTED, Kind.DEVICE_DISCONNECTED, Kind.BROKER_LOST] * 4))
    ids += happen(own, Kind.GAP_LOST, org="hq/st-1/post-1")
    seen, cursor = [], None
    while True:
        params = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/happenings", params=params)).json()
        seen += [each["id"] for each in page["happenings"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]

    async def count(**params: str) -> int:
        return len((await api.get("/v1/happenings", params=params)).json()["happenings"])

    assert await count(kinds="device.connected,broker.lost") == 8
    assert await count(severity="warning") == 9
    assert await count(severity="alarm") == 5
    assert await count(device="cam-0") == 2
    assert await count(org="hq/st-1") == 13
    assert await count(org="hq/st-1/post-1") == 1
    assert await count(org="hq/st") == 0
    assert await count(kinds="device.connected", severity="alarm") == 0


async def test_a_happening_says_what_a_program_and_what_people_need(own: Fleet, api: httpx.AsyncClient) -> None:
    (id_,) = happen(own, Kind.DEVICE_DISCONNECTED)
    (row,) = (await api.get("/v1/happenings")).json()["happenings"]
    assert row == {
        "id": id_,
        "time_ms": NOW,
        "time_at": "2026-01-01T08:10:00.000Z",
        "kind": "device.disconnected",
        "severity": "warning",
        "device": "cam-0",
        "device_class": "body_camera",
        "org": "hq/st-1",
        "text": "cam-0 is not connected any more",
        "data": {"count": 3},
    }
