"""The live feed over a real connection: nothing is missed that is kept, and what is not is told."""

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import uvicorn

from fleet_server.api import changes
from fleet_server.api.app import create_app
from fleet_server.cli.feed import FeedEvent, events
from fleet_server.outbound.happenings import Happening, Kind, News
from fleet_server.outbound.store import HAPPENING_MS_MAX, FeedPage, Filter
from tests.fleet_server.api.test_problems import problem
from tests.fleet_server.fleet import NOW, TOKEN, Fleet, told
from tests.servers import HOST, accepts, free_port, wait_until

WAIT_S_MAX: Final = 20.0
HEADERS: Final = {"Authorization": f"Bearer {TOKEN}"}


class Api:
    """A fleet and its API on a port."""

    def __init__(self, directory: Path) -> None:
        self.fleet: Fleet = told(directory / "store.db")
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        app = create_app(self.fleet.ports)
        self.server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_config=None))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: accepts(port), "the API accepts")

    def happen(self, *kinds: Kind, at_ms: int = NOW, org: str = "hq/st-1") -> list[int]:
        news = [News(at_ms, kind, f"cam-{at}", "body_camera", org) for at, kind in enumerate(kinds)]
        recorded = self.fleet.outbox.record(news, {}, {}, now_ms=at_ms).happenings
        self.fleet.bell.ring()
        return [each.id for each in recorded]

    def stop(self) -> None:
        self.fleet.bell.close()
        self.server.should_exit = True
        self.thread.join(WAIT_S_MAX)
        assert not self.thread.is_alive(), "the API does not stop"
        self.fleet.store.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    api = Api(tmp_path)
    yield api
    if api.thread.is_alive():
        api.stop()


class Stream:
    """A client of the feed; ``comments``: how many came."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.comments = 0
        self._lines = answer.aiter_lines()

    async def line(self) -> str:
        async with asyncio.timeout(WAIT_S_MAX):
            return await anext(self._lines)

    async def rest(self) -> AsyncIterator[str]:
        """Until it ends, as a whole answer does: one that is cut off raises."""
        async with asyncio.timeout(WAIT_S_MAX):
            async for line in self._lines:
                yield line

    async def next(self) -> FeedEvent:
        lines: list[str] = []
        while True:
            line = await self.line()
            self.comments += line.startswith(":")
            lines.append(line)
            if not line and (found := list(events(lines))):
                return found[0]

    async def ids(self, count: int) -> list[int]:
        return [int((await self.next()).id) for _ in range(count)]


@asynccontextmanager
async def following(api: Api, *, seen: str | None = None, **parameters: Any) -> AsyncIterator[Stream]:
    headers = HEADERS | ({"Last-Event-ID": seen} if seen is not None else {})
    async with (
        httpx.AsyncClient(base_url=api.url, headers=headers, timeout=WAIT_S_MAX) as client,
        client.stream("GET", "/v1/changes", params=parameters) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = Stream(answer)
        assert await stream.line() == "retry: 2000"
        yield stream


async def test_what_happens_comes_as_it_happens(api: Api) -> None:
    api.happen(Kind.BROKER_LOST)  # before: not told
    async with following(api) as stream:
        (id_,) = api.happen(Kind.DEVICE_DISCONNECTED)
        event = await stream.next()
    assert (event.id, event.event) == (str(id_), "device.disconnected")
    data = json.loads(event.data)
    assert (data["id"], data["device"], data["org"], data["time_at"]) == (
        id_,
        "cam-0",
        "hq/st-1",
        "2026-01-01T08:10:00.000Z",
    )


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"kinds": "gap.lost,broker.lost"}, [1, 2]),
        ({"severity": "alarm"}, [1, 2]),
        ({"device": "cam-3"}, [3]),
        ({"org": "hq"}, [0, 1, 2, 3]),
        ({"org": "hq/st-10"}, []),
    ],
)
async def test_only_what_was_asked_for(api: Api, parameters: dict[str, str], expected: list[int]) -> None:
    kinds = [Kind.DEVICE_CONNECTED, Kind.GAP_LOST, Kind.BROKER_LOST, Kind.DEVICE_SILENT]
    ids = api.happen(*kinds)
    async with following(api, after=0, **parameters) as stream:
        # one that every filter takes ends the reading
        end = News(NOW, Kind.GAP_LOST, "cam-3", "body_camera", parameters.get("org", "hq/st-10"))
        (last,) = api.fleet.outbox.record([end], {}, {}, now_ms=NOW).happenings
        api.fleet.bell.ring()
        found = []
        while (id_ := int((await stream.next()).id)) != last.id:
            found.append(ids.index(id_))
    assert found == expected


async def _reader(api: Api, until: int, rng: random.Random, *, forgets: bool) -> list[int]:
    """Ids in the order they came, of a client that loses its connection again and again and comes back."""
    found: list[int] = []
    seen: str | None = "0"
    while not found or found[-1] < until:
        place: dict[str, Any] = {} if forgets and found else {"seen": seen}
        async with following(api, **place) as stream:
            for _ in range(rng.randint(1, 40)):
                seen = (await stream.next()).id
                found.append(int(seen))
                if found[-1] >= until:
                    break
    return found


def _missing(recorded: Sequence[int], found: Sequence[int]) -> set[int]:
    return set(recorded) - set(found)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_client_that_comes_back_misses_nothing_and_gets_nothing_twice(api: Api, seed: int) -> None:
    print(f"seed {seed}")
    recorded: list[int] = []

    def record() -> None:
        for _ in range(100):
            recorded.extend(api.happen(Kind.DEVICE_CONNECTED, Kind.DEVICE_DISCONNECTED))

    readers = [asyncio.create_task(_reader(api, 400, random.Random(seed + n), forgets=False)) for n in range(3)]
    await asyncio.gather(*(asyncio.to_thread(record) for _ in range(2)))
    found = await asyncio.gather(*readers)
    assert sorted(recorded) == list(range(1, 401))
    for each in found:
        assert each == sorted(recorded)


async def test_a_client_that_forgets_where_it_was_misses_some_and_the_comparison_sees_it(api: Api) -> None:
    """The negative control of the claim above."""
    recorded: list[int] = []
    stopped = threading.Event()

    def record() -> None:
        while not stopped.is_set():
            recorded.extend(api.happen(Kind.DEVICE_CONNECTED))

    writer = asyncio.create_task(asyncio.to_thread(record))
    found = await _reader(api, 150, random.Random(1), forgets=True)
    stopped.set()
    await writer
    assert _missing([id_ for id_ in recorded if id_ <= found[-1]], found)


async def test_what_is_not_kept_any_more_is_told_first(api: Api) -> None:
    old = api.happen(*([Kind.DEVICE_CONNECTED] * 5))
    later_ms = NOW + HAPPENING_MS_MAX + 1
    new = api.happen(*([Kind.DEVICE_DISCONNECTED] * 2), at_ms=later_ms)
    assert api.fleet.outbox.prune(later_ms) == 5
    async with following(api, seen=str(old[1])) as stream:
        first = await stream.next()
        assert (first.event, first.id) == ("feed.truncated", str(old[-1]))
        assert json.loads(first.data) == {"after": old[1], "continues_after": old[-1]}
        assert await stream.ids(2) == new
    # who stands where it goes on has missed nothing
    async with following(api, seen=str(old[-1])) as stream:
        assert await stream.ids(2) == new


async def test_a_client_that_is_ahead_of_a_restored_database_is_told(api: Api) -> None:
    ids = api.happen(Kind.DEVICE_CONNECTED, Kind.DEVICE_DISCONNECTED)
    async with following(api, after=4711) as stream:
        first = await stream.next()
        assert json.loads(first.data) == {"after": 4711, "continues_after": ids[-1]}
        (id_,) = api.happen(Kind.GAP_LOST)
        assert await stream.ids(1) == [id_]


async def test_a_long_past_is_read_in_pieces(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "ROWS_MAX", 7)
    ids = api.happen(*([Kind.DEVICE_CONNECTED] * 100))
    async with following(api, after=0) as stream:
        assert await stream.ids(100) == ids


async def test_a_quiet_stream_says_that_it_is_there(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "HEARTBEAT_S", 0.02)
    async with following(api) as stream:
        lines = [await stream.line() for _ in range(12)]
        assert lines.count(": still here") >= 3
        (id_,) = api.happen(Kind.GAP_LOST)
        assert await stream.ids(1) == [id_]


async def test_there_is_a_bound_on_streams_and_who_leaves_makes_room(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "STREAMS_MAX", 2)
    async with httpx.AsyncClient(base_url=api.url, headers=HEADERS) as client:
        async with following(api), following(api):
            await asyncio.to_thread(wait_until, lambda: len(api.fleet.bell) == 2, "both listen")
            refused = await client.get("/v1/changes")
            assert problem(refused, 503, "too-many-streams")["expected"] == "at most 2 at once"
            assert refused.headers["retry-after"] == "10"
        await asyncio.to_thread(wait_until, lambda: len(api.fleet.bell) == 0, "both have left")
        async with following(api):
            pass


async def test_a_server_that_stops_ends_its_streams(api: Api) -> None:
    async with following(api) as stream:
        await asyncio.to_thread(wait_until, lambda: len(api.fleet.bell) == 1, "it listens")
        stopping = asyncio.create_task(asyncio.to_thread(api.stop))
        rest = [line async for line in stream.rest()]
        await stopping
    assert rest == [": fieldfleet", ""]


async def test_a_stream_ends_in_time_and_the_next_goes_on_behind_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(changes, "STREAM_S_MAX", 0.2)
    ids = api.happen(Kind.GAP_LOST)
    async with following(api, after=0) as stream:
        assert await stream.ids(1) == ids
        assert {line async for line in stream.rest()} <= {": still here", ""}
    more = api.happen(Kind.GAP_LOST)
    async with following(api, seen=str(ids[-1])) as stream:
        assert await stream.ids(1) == more


async def test_who_may_see_little_of_a_long_past_gets_it_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out for one who may see only some nodes makes pages short, and short is not the end."""
    monkeypatch.setattr(changes, "ROWS_MAX", 5)
    api.happen(*([Kind.GAP_LOST] * 50), org="hq/st-2")
    ids = api.happen(Kind.GAP_LOST)
    whole = api.fleet.ports.feed

    class Scoped:
        def after(self, after: int, chosen: Filter, *, rows_max: int) -> FeedPage:
            page = whole.after(after, chosen, rows_max=rows_max)
            return replace(page, happenings=tuple(each for each in page.happenings if each.news.org == "hq/st-1"))

        def before(self, before: int | None, chosen: Filter, *, rows_max: int) -> list[Happening]:
            return whole.before(before, chosen, rows_max=rows_max)

    first = whole.after(0, Filter(), rows_max=5)
    found: list[bytes] = []
    async with asyncio.timeout(WAIT_S_MAX):
        async for part in changes._events(Scoped(), api.fleet.bell, 0, replace(first, happenings=()), Filter()):
            found.append(part)
            if part.startswith(b"id: "):
                break
    assert found[0] == changes.HELLO
    assert found[1].startswith(f"id: {ids[0]}\n".encode())


async def test_a_stranger_follows_nothing(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url) as client:
        problem(await client.get("/v1/changes"), 401, "unauthorized")
        problem(await client.get("/v1/happenings"), 401, "unauthorized")
        problem(await client.post("/v1/webhooks", json={"url": "https://x.example.org/"}), 401, "unauthorized")
