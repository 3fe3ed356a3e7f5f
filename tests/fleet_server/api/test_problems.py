"""Every error is a problem document that says what was expected, and changes nothing."""

from typing import Any

import httpx
import pytest

from fleet_server.access.people import ROOT, Principal
from fleet_server.api.app import Ports, create_app
from fleet_server.outbound.bell import Bell
from fleet_server.telemetry.store import StoreError
from fleet_server.telemetry.view import DeviceSummary, IngestFacts
from tests.fleet_server.api.conftest import client_of
from tests.fleet_server.fleet import TOKEN, Fleet


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "expected", "errors"}
    assert (answer.status_code, body["status"], body["type"]) == (status, status, f"urn:fieldfleet:problem:{kind}")
    return body


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ff_é"])
@pytest.mark.parametrize("path", ["/v1/devices", "/v1/facts", "/metrics", "/v1/quarantine/1"])
async def test_without_the_token_nothing_is_told(stranger: httpx.AsyncClient, token: str | None, path: str) -> None:
    headers = httpx.Headers([] if token is None else [(b"Authorization", f"Bearer {token}".encode())])
    answer = await stranger.get(path, headers=headers)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="fieldfleet"'


async def test_who_has_no_token_learns_nothing_of_parameters(stranger: httpx.AsyncClient) -> None:
    problem(await stranger.get("/v1/devices?limit=x&y=1"), 401, "unauthorized")
    problem(await stranger.post("/v1/quarantine/1/replay"), 401, "unauthorized")


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("/v1/devices/car-8", "unknown-device", "an id of /v1/devices"),
        ("/v1/devices/car-8/latest", "unknown-device", "an id of /v1/devices"),
        ("/v1/devices/car-8/events", "unknown-device", "an id of /v1/devices"),
        ("/v1/devices/car-8/series/cpu", "unknown-device", "an id of /v1/devices"),
        ("/v1/devices/car-7/series/mood", "unknown-stream", "one of: cpu"),
        ("/v1/devices/car-7/series/journal", "unknown-stream", "one of: cpu"),
        ("/v1/quarantine/99", "unknown-message", "an id of /v1/quarantine"),
        ("/v1/nothing", "not-found", "a path of /v1/openapi.json"),
        ("/v1/devices/", "not-found", "a path of /v1/openapi.json"),
    ],
)
async def test_what_is_not_there(client: httpx.AsyncClient, path: str, kind: str, expected: str) -> None:
    assert problem(await client.get(path), 404, kind)["expected"] == expected


async def test_a_method_that_is_not_there(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/v1/devices")
    assert problem(answer, 405, "method-not-allowed")["expected"] == "GET"
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/v1/devices?limit=0", "query.limit"),
        ("/v1/devices?limit=1001", "query.limit"),
        ("/v1/devices?limit=many", "query.limit"),
        ("/v1/devices?limits=5", "query.limits"),
        ("/v1/devices?limit=5&limit=6", "query.limit"),
        ("/v1/devices?cursor=!!", "query.cursor"),
        ("/v1/devices?cursor=MTI", "query.cursor"),  # a number, where an id is the place
        ("/v1/devices?cursor=%F0%9F%9A%93", "query.cursor"),
        ("/v1/devices/Car%207", "path.device"),
        ("/v1/health?verbose=1", "query.verbose"),
        ("/v1/facts?x", "query.x"),
        ("/v1/gaps?reason=bored", "query.reason"),
        ("/v1/gaps?device=_server", "query.device"),
        ("/v1/quarantine?limit=101", "query.limit"),
        ("/v1/quarantine/0", "path.row_id"),
        ("/v1/quarantine/99999999999999999999", "path.row_id"),
        ("/v1/devices/car-7/series/cpu?points=0", "query.points"),
        ("/v1/devices/car-7/series/cpu?points=10001", "query.points"),
        ("/v1/devices/car-7/series/cpu?fields=mood", "query.fields"),
        ("/v1/devices/car-7/series/cpu?from=yesterday", "query.from"),
        ("/v1/devices/car-7/series/cpu?from=2026-01-01", "query.from"),
        ("/v1/devices/car-7/series/cpu?from=2026-01-01T08:00:00", "query.from"),  # no offset: whose time?
        ("/v1/devices/car-7/series/cpu?from=2026-02-30T08:00:00Z", "query.from"),
        ("/v1/devices/car-7/series/cpu?from=2026-01-01T08:00:00+08:00", "query.from"),  # + is a space in a URL
        ("/v1/devices/car-7/series/cpu?from=99999999999999999", "query.from"),
        ("/v1/devices/car-7/series/cpu?from=2&to=2", "query.from"),
        ("/v1/devices/car-7/series/cpu?from=0&to=86400001", "query.from"),  # more than a day raw
        ("/v1/devices/car-7/series/cpu?from=0&points=10", "query.from"),  # more than 400 days
        ("/v1/devices/car-7/events?from=0&to=1&cursor=WzUsMF0", "query.cursor"),  # of another range
    ],
)
async def test_what_cannot_be_taken(client: httpx.AsyncClient, path: str, where: str) -> None:
    body = problem(await client.get(path), 422, "invalid-request")
    assert [fault["where"] for fault in body["errors"]] == [where]
    assert body["errors"][0]["expected"]
    assert where in body["detail"]


async def test_every_fault_of_a_request_is_told(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/v1/gaps?limit=0&from=x&reason=y"), 422, "invalid-request")
    assert {fault["where"] for fault in body["errors"]} == {"query.limit", "query.from", "query.reason"}


async def test_what_the_other_side_wrote_is_shortened_and_printable(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/v1/devices", params={"limit": "\x1b[2J" + "x" * 5000}), 422, "invalid-request")
    assert len(body["errors"][0]["got"]) <= 120
    assert "\x1b" not in body["errors"][0]["got"]


async def test_a_replay_that_is_still_refused_is_a_conflict(client: httpx.AsyncClient) -> None:
    body = problem(await client.post("/v1/quarantine/1/replay"), 409, "still-refused")
    assert "malformed" in body["detail"]


async def test_a_replay_of_nothing(client: httpx.AsyncClient) -> None:
    problem(await client.post("/v1/quarantine/99/replay"), 404, "unknown-message")


class Broken:
    """A view whose every answer is *error*."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, _name: str) -> Any:
        def fail(*_arguments: object, **_named: object) -> Any:
            raise self._error

        return fail


class Letting:
    """Lets TOKEN in, whatever else is broken."""

    def authenticate(self, secret: str, *, now_ms: int) -> Principal | None:
        return ROOT if secret == TOKEN else None

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def all_from(broken: Any, fleet: Fleet) -> Ports:
    """All but the audit log, which takes what it is told."""
    return Ports(
        broken, broken, broken, broken, broken, Bell(), lambda: None, broken, Letting(), fleet.auditor, broken, broken
    )


@pytest.mark.parametrize(
    "path", ["/v1/devices", "/v1/health", "/v1/facts", "/metrics", "/v1/devices/car-7", "/v1/changes", "/v1/webhooks"]
)
async def test_a_store_that_cannot_answer_is_503_and_tells_no_secret(path: str, fleet: Fleet) -> None:
    async with client_of(create_app(all_from(Broken(StoreError("disk I/O error at /var/secret")), fleet))) as client:
        assert "secret" not in str(problem(await client.get(path), 503, "store-unavailable"))


async def test_a_replay_that_is_not_answered_in_time_is_503(fleet: Fleet) -> None:
    async with client_of(create_app(all_from(Broken(TimeoutError()), fleet))) as client:
        problem(await client.post("/v1/quarantine/1/replay"), 503, "store-unavailable")


async def test_our_own_fault_is_500_without_its_inside(fleet: Fleet) -> None:
    async with client_of(create_app(all_from(Broken(RuntimeError("password=1234")), fleet))) as client:
        assert "1234" not in str(problem(await client.get("/v1/devices"), 500, "internal"))


class Disconnected(Broken):
    """A view of a server that lost its broker."""

    def facts(self) -> IngestFacts:
        return IngestFacts(1, False, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def devices(self) -> list[DeviceSummary]:
        return []


async def test_health_without_a_broker_is_degraded(fleet: Fleet) -> None:
    async with client_of(create_app(all_from(Disconnected(AssertionError()), fleet))) as client:
        assert (await client.get("/v1/health")).json() == {"status": "degraded"}
