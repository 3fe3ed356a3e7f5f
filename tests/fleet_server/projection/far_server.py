"""A time-series server that can be told to be at fault: real HTTP, on loopback, with what it holds to look at."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

from aiohttp import web

from tests.fleet_server.projection.rig import Points, add
from tests.servers import HOST

BODY_BYTES_MAX: Final = 64 * 1024 * 1024


class Mode(StrEnum):
    """What it does with one request to write."""

    GOOD = "good"
    TOO_MANY = "too_many"
    """429, with Retry-After."""
    UNAVAILABLE = "unavailable"
    """503, without."""
    SLOW = "slow"
    """Takes its time, and then is good."""
    RESET = "reset"
    """Hangs up before it has stored anything."""
    DIES_STORED = "dies_stored"
    """Stores all of it and hangs up before it has said so."""
    TOO_LARGE = "too_large"
    UNAUTHORIZED = "unauthorized"
    FORGETS = "forgets"
    """The negative control: says that it stored what it throws away."""


FAULTS: Final = (Mode.TOO_MANY, Mode.UNAVAILABLE, Mode.SLOW, Mode.RESET, Mode.DIES_STORED, Mode.TOO_LARGE)
"""From which it heals by itself, having lost nothing that it said it had."""
RETRY_AFTER_S: Final = 7
SLOW_S: Final = 0.05


class FarServer:
    """What one server was told to do, and what it holds. A line with *poison* in it is refused, and no other."""

    def __init__(self, *, poison: str | None = None, refusal: int = 400) -> None:
        self.points: Points = {}
        self.modes: deque[Mode] = deque()
        self.always = Mode.GOOD
        self.answers: list[int] = []
        self.lines = 0
        self._poison = poison
        self._refusal = refusal
        self.url = ""

    def then(self, modes: Iterable[Mode]) -> None:
        """What it does with the next requests, before it does as always."""
        self.modes.extend(modes)

    async def write(self, request: web.Request) -> web.StreamResponse:
        mode = self.modes.popleft() if self.modes else self.always
        body = await request.read()
        if mode is Mode.SLOW:
            await asyncio.sleep(SLOW_S)
        if mode is Mode.DIES_STORED:
            self.lines += add(self.points, body)
        if mode in (Mode.RESET, Mode.DIES_STORED):
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        response = self._answer(mode, body)
        self.answers.append(response.status)
        return response

    def _answer(self, mode: Mode, body: bytes) -> web.Response:
        if mode is Mode.TOO_MANY:
            return web.json_response({"message": "patience"}, status=429, headers={"Retry-After": str(RETRY_AFTER_S)})
        if mode is Mode.UNAVAILABLE:
            return web.Response(status=503, text="not now")
        if mode is Mode.UNAUTHORIZED:
            return web.json_response({"code": "unauthorized", "message": "unauthorized access"}, status=401)
        if mode is Mode.TOO_LARGE:
            return web.Response(status=413)
        if mode is Mode.FORGETS:
            return web.Response(status=204)
        good = [line for line in body.split(b"\n") if self._poison is None or self._poison.encode() not in line]
        if good:  # as InfluxDB does: what is right of a body is stored all the same
            self.lines += add(self.points, b"\n".join(good))
        if len(good) <= body.count(b"\n"):
            return web.json_response({"message": f"partial write: {self._poison}"}, status=self._refusal)
        return web.Response(status=204)


@asynccontextmanager
async def far_server(server: FarServer) -> AsyncIterator[FarServer]:
    """*server*, listening while the block lasts."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/api/v2/write", server.write)
    app.router.add_post("/write", server.write)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http://{HOST}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
