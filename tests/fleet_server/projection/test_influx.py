"""Bucket, retention and mapping are found or made, and who may not is told what to do; against the calls of the API.

No InfluxDB 2 is to be had from Debian: what answers here is made after its documentation.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from fleet_server.adapters.influx import InfluxTarget, quoted
from fleet_server.projection.target import NO_ANSWER, PrepareError
from tests.fleet_server.projection.rig import influx
from tests.servers import HOST

ORG_ID = "0b0a0d0c0e0f1011"
BUCKET_ID = "1b1a1d1c1e1f2021"


class Buckets:
    """The part of InfluxDB 2 that keeps buckets and what InfluxQL calls them."""

    def __init__(self, *, unknown: int = 404, refuses: int | None = None) -> None:
        self.bucket: dict[str, Any] | None = None
        self.mappings: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.tokens: set[str | None] = set()
        self._unknown = unknown
        self._refuses = refuses

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        self.tokens.add(request.headers.get("Authorization"))
        if self._refuses is not None:
            return web.json_response({"code": "no", "message": "you may not"}, status=self._refuses)
        body = await request.json() if request.method in {"POST", "PATCH"} and request.can_read_body else {}
        match request.method, request.path:
            case "GET", "/api/v2/buckets":
                assert (request.query["name"], request.query["org"]) == ("fleet", "hq")
                if self.bucket is None and self._unknown == 404:
                    return web.json_response({"code": "not found", "message": "bucket not found"}, status=404)
                return web.json_response({"buckets": [self.bucket] if self.bucket else []})
            case "GET", "/api/v2/orgs":
                return web.json_response({"orgs": [{"id": ORG_ID, "name": "hq"}]})
            case "POST", "/api/v2/buckets":
                self.bucket = {"id": BUCKET_ID, **body}
                return web.json_response(self.bucket, status=201)
            case "PATCH", _:
                assert self.bucket is not None
                self.bucket.update(body)
                return web.json_response(self.bucket)
            case "GET", "/api/v2/dbrps":
                return web.json_response({"content": self.mappings})
            case "POST", "/api/v2/dbrps":
                self.mappings.append({"id": "2b", **body})
                return web.json_response(self.mappings[-1], status=201)
        return web.Response(status=500)


@asynccontextmanager
async def serving(buckets: Buckets) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", buckets.answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def prepare(url: str, *, retention_d: int, flavour: str = "v2") -> None:
    settings = replace(influx(url, flavour=flavour, manage=True), retention_d=retention_d, token="secret")
    target = InfluxTarget(settings)
    try:
        await target.prepare()
    finally:
        await target.close()


@pytest.mark.parametrize("unknown", [404, 200])
async def test_what_is_not_there_is_made_and_then_left_alone(unknown: int) -> None:
    buckets = Buckets(unknown=unknown)
    async with serving(buckets) as url:
        await prepare(url, retention_d=30)
        assert buckets.bucket == {
            "id": BUCKET_ID,
            "orgID": ORG_ID,
            "name": "fleet",
            "rp": "0",
            "retentionRules": [{"type": "expire", "everySeconds": 30 * 86_400}],
        }
        mapping = {
            "id": "2b",
            "orgID": ORG_ID,
            "bucketID": BUCKET_ID,
            "database": "fleet",
            "retention_policy": "fieldfleet",
            "default": True,
        }
        assert buckets.mappings == [mapping]
        assert buckets.tokens == {"Token secret"}
        buckets.calls.clear()
        await prepare(url, retention_d=30)
        assert buckets.calls == ["GET /api/v2/buckets", "GET /api/v2/dbrps"]


@pytest.mark.parametrize(("before", "after"), [(30, 7), (30, 0), (0, 30)])
async def test_another_retention_is_set(before: int, after: int) -> None:
    buckets = Buckets()
    async with serving(buckets) as url:
        await prepare(url, retention_d=before)
        await prepare(url, retention_d=after)
        assert buckets.bucket is not None
        assert sum(rule["everySeconds"] for rule in buckets.bucket["retentionRules"]) == after * 86_400


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "no bucket fleet (401: you may not); influx.token_file: expected a token of this server"),
        (403, "no bucket fleet (403: you may not); the token must be allowed to make buckets; or make it yourself"),
        (500, "no bucket fleet (500: you may not); is influx.url a time-series server's?"),
    ],
)
@pytest.mark.parametrize("flavour", ["v1", "v2"])
async def test_who_may_not_is_told_what_to_do(status: int, advice: str, flavour: str) -> None:
    async with serving(Buckets(refuses=status)) as url:
        with pytest.raises(PrepareError) as caught:
            await prepare(url, retention_d=0, flavour=flavour)
    assert caught.value.answer.status == status
    assert str(caught.value).replace("database", "bucket").startswith(advice)


async def test_nobody_there_is_told_as_such() -> None:
    with pytest.raises(PrepareError) as caught:
        await prepare("http://127.0.0.1:1", retention_d=0)
    assert caught.value.answer.status == NO_ANSWER
    assert "is the server there?" in str(caught.value)


@pytest.mark.parametrize("flavour", ["v1", "v2"])
async def test_a_server_of_another_kind_is_told_as_such(flavour: str) -> None:
    """It answers 200 and a page, whatever it is asked."""

    class Page(Buckets):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            return web.Response(text="<html>welcome</html>", content_type="text/html")

    async with serving(Page()) as url:
        with pytest.raises(PrepareError, match=r"is influx\.url a time-series server's\?"):
            await prepare(url, retention_d=0, flavour=flavour)


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    class Elsewhere(Buckets):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            self.calls.append(request.path)
            raise web.HTTPTemporaryRedirect("/elsewhere")

    elsewhere = Elsewhere()
    async with serving(elsewhere) as url:
        target = InfluxTarget(influx(url))
        answer = await target.write(b"a b=1 1")
        await target.close()
    assert (answer.status, elsewhere.calls) == (307, ["/api/v2/write"])


def test_names_are_quoted() -> None:
    assert quoted('a"b\\') == '"a\\"b\\\\"'
