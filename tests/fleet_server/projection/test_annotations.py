"""What happened is annotated in the time-series server, in both languages, each once."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.annotations import FeedAnnotations, annotation_of
from fleet_server.outbound.happenings import Happening, Kind, News
from fleet_server.projection.annotations import AGAIN_MAX, LOOK_S, ROWS_MAX, Annotating, Annotation, annotated
from fleet_server.standing.measures import HAPPENING, HAPPENING_FIELDS
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.fleet import NOW, Fleet
from tests.fleet_server.projection.far_server import FarServer, Mode, far_server
from tests.fleet_server.projection.rig import filled_store, projector, to
from tests.servers import SeriesServer, influxd

NEWS = News(NOW, Kind.DEVICE_DISCONNECTED, "car-7", "in_car_terminal", "hq/post 1")
OF_SERVER = News(NOW, Kind.BROKER_LOST)


@pytest.fixture(scope="module")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


class Told:
    """Annotations by number, from 1 on; *failing*: the database is away."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.failing = False

    def newest(self) -> int:
        return self.count

    def after(self, number: int, *, rows_max: int) -> tuple[Sequence[Annotation], int]:
        if self.failing:
            raise StoreError("away")
        found = [annotation_of(Happening(at, NEWS)) for at in range(number + 1, self.count + 1)][:rows_max]
        return found, found[-1].id if found else number


def ids(found: Sequence[Annotation]) -> list[int]:
    return [each.id for each in found]


def test_a_line_has_its_words_quoted_and_its_number_in_its_time() -> None:
    line = annotated(
        Annotation(7, NOW, "car-7", "in_car_terminal", "hq/post 1", ("k", "info", 'a "b" \\ c\nd', "车"))
    )
    assert line.points == 1
    assert line.data.decode() == (
        "happening,device=car-7,device_class=in_car_terminal,org=hq/post\\ 1 "
        f'kind="k",severity="info",text_en="a \\"b\\" \\\\ c d",text_zh_hans="车" {NOW * 10**6 + 7}'
    )
    assert annotated(Annotation(7, NOW, "", "", "", ("k", "info", "a", "b"))).data.startswith(b"happening kind=")


def test_each_is_given_once_and_again_until_it_is_written() -> None:
    told = Told(3)
    one = Annotating(told)
    assert ids(one.due(0)) == [1, 2, 3]
    assert ids(one.due(LOOK_S)) == [1, 2, 3]
    one.written()
    assert ids(one.due(LOOK_S + 0.1)) == []
    one.written()
    told.count = 5
    assert ids(one.due(2 * LOOK_S)) == [4, 5]


def test_at_the_start_the_newest_are_written_again_and_a_long_list_in_parts() -> None:
    one = Annotating(Told(10_000))
    found = []
    while part := one.due(0):
        found += ids(part)
        assert len(part) <= ROWS_MAX
        one.written()
    assert found == list(range(10_001 - AGAIN_MAX, 10_001))


@pytest.mark.server("influxd")
async def test_influxdb_tells_what_happened_in_both_languages(influx_server: SeriesServer, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "s.db")
    for news in (NEWS, OF_SERVER, NEWS):
        fleet.outbox.record([news], {}, {}, now_ms=NOW)
    fleet.store.feed.add_sink("influx")
    target = to(influx_server.url, flavour="v1", manage=True)
    for _ in range(2):  # the second is a server that starts again
        happened = FeedAnnotations(SqlFeed(fleet.engine))
        await projector(fleet.store.feed, target, happened=happened, now_ms=NOW).drain()
    rows = influx_server.rows("fleet", f"SELECT * FROM {HAPPENING}")
    assert [row["kind"] for row in rows] == ["device.disconnected", "broker.lost", "device.disconnected"]
    first, second, _ = rows
    assert (first["device"], first["org"], second["device"]) == ("car-7", "hq/post 1", None)
    assert set(HAPPENING_FIELDS) <= set(first)
    assert first["text_en"] == "car-7 is not connected any more"
    assert first["text_zh_hans"] not in {"", first["text_en"]}


async def test_while_the_sink_is_away_they_wait(tmp_path: Path) -> None:
    store, _ = filled_store(tmp_path / "s.db")
    bodies: list[bytes] = []

    class Seen(FarServer):
        def _answer(self, mode: Mode, body: bytes) -> Any:
            if mode is Mode.GOOD:
                bodies.append(body)
                return super()._answer(Mode.FORGETS, body)
            return super()._answer(mode, body)

    async with far_server(Seen()) as far:
        far.then([Mode.UNAVAILABLE] * 12)
        one = projector(store.feed, to(far.url), happened=Told(2))
        running = asyncio.create_task(one.run())
        async with asyncio.timeout(20):
            while not bodies:  # noqa: ASYNC110 - the server is a fake
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [body.count(b"\n") + 1 for body in bodies] == [2]


async def test_a_database_that_is_away_holds_no_readings_up(tmp_path: Path) -> None:
    store, _ = filled_store(tmp_path / "s.db")
    told = Told(2)
    told.failing = True
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), happened=told)
        await one.drain()
        assert one.status().last_error == "away"
