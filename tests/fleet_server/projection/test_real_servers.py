"""InfluxDB 1 and VictoriaMetrics themselves: what they answer for is what the store holds."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker_config.telemetry import Batch
from fleet_server.adapters.influx import InfluxTarget
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import Feed
from fleet_server.projection.late import SHARD_D
from fleet_server.projection.target import PrepareError
from fleet_server.projection.view import SinkState
from fleet_server.telemetry.store import Series
from tests.fleet_server.projection.rig import SEED, SINK, filled_store, influx, projector, sealed_wholly, to
from tests.fleet_server.store.fleet import HOUR_MS, LATE_MS, START_MS, batch, group
from tests.servers import SeriesServer, influxd, victoria_metrics, wait_until

DEVICES = ("car-1", "cam-2")
BATCHES = 40
DATABASE = "fleet"


@pytest.fixture(scope="module")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="module")
def victoria_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with victoria_metrics(tmp_path_factory.mktemp("victoria")) as server:
        yield server


SIZES = (None, 1e-7, 1e15, 5e-324, -0.0)


def records(rng: random.Random, values: Sequence[float | None]) -> list[tuple[str, Batch]]:
    """Some of *values* beside sensors'; no two rows in one millisecond: VictoriaMetrics tells no finer."""
    made = []
    for seq in range(1, BATCHES + 1):
        for device in DEVICES:
            rows: list[list[float | None]] = [[rng.choice(values), round(rng.gauss(0, 50), 2)] for _ in range(30)]
            dt = sorted(rng.sample(range(120_000), len(rows)))
            made.append((device, batch(seq, START_MS + seq * 180_000, dt=dt, rows=rows)))
    return made


def query(server: SeriesServer, statement: str) -> list[dict[str, Any]]:
    """The series that answer an InfluxQL statement."""
    (result,) = json.loads(server.get("/query", db=DATABASE, epoch="ns", q=statement))["results"]
    assert "error" not in result, result
    found: list[dict[str, Any]] = result.get("series", [])
    return found


async def written(
    path: Path, url: str, flavour: str, made: list[tuple[str, Batch]]
) -> tuple[Feed, dict[str, Series]]:
    """Half of it from the log, half from columns, then all of it again; and what the store says of each device."""
    store, token = filled_store(path)
    one = projector(store.feed, to(url, flavour=flavour, manage=flavour == "v1"))
    half = len(made) // 2
    store.commit(group(made[:half]), token=token)
    await one.drain()
    sealed_wholly(store)
    store.commit(group(made[half:]), token=token)
    sealed_wholly(store, 2 * LATE_MS)  # without waiting for the sink
    await one.drain()
    one.rebuild(0)
    await one.drain()
    status = one.status()
    assert (status.state, status.points_refused, status.last_error) == (SinkState.OK, 0, "")
    return store.feed, {
        device: store.series(device, "power", from_ms=START_MS - HOUR_MS, to_ms=LATE_MS) for device in DEVICES
    }


@pytest.mark.server("influxd")
async def test_influxql_counts_sums_and_last_values_are_the_stores(
    influx_server: SeriesServer, tmp_path: Path
) -> None:
    _, stored = await written(tmp_path / "s.db", influx_server.url, "v1", records(random.Random(SEED), SIZES))
    for field in ("a_pct", "b_mv"):
        raw = query(influx_server, f"SELECT {field} FROM power GROUP BY device, device_class, org")
        for series in raw:
            found = stored[series["tags"]["device"]]
            assert series["tags"]["org"] == "hq, east/station = 7"
            held = [
                (at, value)
                for at, value in zip(found.times_ms, found.columns[field], strict=True)
                if value is not None
            ]
            assert [(at // 10**6, value) for at, value in series["values"]] == held  # bit for bit
        assert len(raw) == len(DEVICES)
        told = query(influx_server, f"SELECT count({field}), sum({field}), last({field}) FROM power GROUP BY device")
        for series in told:
            values = [value for value in stored[series["tags"]["device"]].columns[field] if value is not None]
            _, count, total, last = series["values"][0]
            assert count == len(values)
            assert total == pytest.approx(sum(values), rel=1e-12)
            assert last == values[-1]


@pytest.mark.server("influxd")
async def test_the_database_and_its_retention_are_made_and_changed(
    influx_server: SeriesServer, tmp_path: Path
) -> None:
    store, _ = filled_store(tmp_path / "s.db")
    await projector(store.feed, to(influx_server.url, flavour="v1", manage=True)).drain()
    await projector(store.feed, to(influx_server.url, flavour="v1", manage=True)).drain()
    (policies,) = query(influx_server, f"SHOW RETENTION POLICIES ON {DATABASE}")
    assert [row for row in policies["values"] if row[-1]] == [["fieldfleet", "0s", "168h0m0s", 1, True]]


@pytest.mark.server("influxd")
async def test_a_bucket_that_keeps_any_time_has_few_shards(influx_server: SeriesServer) -> None:
    settings = replace(influx(influx_server.url, flavour="v1", manage=True), bucket="fleet_late", shard_d=SHARD_D)
    target = InfluxTarget(settings)
    for _ in range(2):
        await target.prepare()
    for year in (1990, 2026, 2200):
        time_ns = (year - 1970) * 365 * 86_400 * 10**9
        assert (await target.write(f"power,device=car-1 a_pct=1 {time_ns}".encode())).status == 204
    await target.close()
    rows = influx_server.rows("fleet_late", "SHOW RETENTION POLICIES ON fleet_late")
    assert [(row["duration"], row["shardGroupDuration"]) for row in rows if row["default"]] == [("0s", "8736h0m0s")]
    assert len(influx_server.rows("fleet_late", "SELECT a_pct FROM power")) == 3


@pytest.mark.server("influxd")
async def test_a_field_of_another_type_there_costs_only_its_own_points(
    influx_server: SeriesServer, tmp_path: Path
) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one = projector(store.feed, to(influx_server.url, flavour="v1", manage=True))
    await one.drain()
    foreign = to(influx_server.url, flavour="v1")()
    tags = "device=car-9,device_class=car,org=hq\\,\\ east/station\\ \\=\\ 7"
    answer = await foreign.write(f"foreign,{tags} a_pct=1i {START_MS}000000".encode())
    await foreign.close()
    assert answer.status == 204
    conflicting = batch(1, START_MS, stream="foreign", fields=("a_pct",), dt=(0, 1000))
    sound = batch(1, START_MS, stream="sound", dt=(0, 1000))
    store.commit(group([("car-9", conflicting), ("car-9", sound)]), token=token)
    await one.drain()
    assert one.status().points_refused == 2
    assert "field type conflict" in store.feed.dead_letters(SINK, rows_max=1)[0].reason
    (series,) = query(influx_server, "SELECT count(a_pct) FROM sound")
    assert series["values"][0][1] == 2


@pytest.mark.server("victoria-metrics")
async def test_victoria_metrics_holds_the_stores_values(victoria_server: SeriesServer, tmp_path: Path) -> None:
    # it keeps decimals with one exponent for many values, not doubles
    made = records(random.Random(SEED), (None, 51_234_567_168.0, -71.0))
    _, stored = await written(tmp_path / "s.db", victoria_server.url, "v2", made)
    victoria_server.get("/internal/force_flush")
    want = {
        (device, field, at): value
        for device, series in stored.items()
        for field, column in series.columns.items()
        for at, value in zip(series.times_ms, column, strict=True)
        if value is not None
    }
    wait_until(lambda: len(exported(victoria_server)) >= len(want), "all of it can be read")
    assert exported(victoria_server) == want


def exported(server: SeriesServer) -> dict[tuple[str, str, int], float]:
    found: dict[tuple[str, str, int], float] = {}
    for line in server.get("/api/v1/export", **{"match[]": '{__name__=~"power_.*"}'}).splitlines():
        series = json.loads(line)
        metric = series["metric"]
        times: dict[int, list[float]] = defaultdict(list)
        for at, value in zip(series["timestamps"], series["values"], strict=True):
            times[at].append(value)
        for at, values in times.items():
            assert len(set(values)) == 1, "the same sample, written again, is another"
            found[metric["device"], metric["__name__"].removeprefix("power_"), at] = values[0]
    return found


@pytest.mark.server("victoria-metrics")
async def test_what_victoria_metrics_said_it_had_and_lost_when_it_was_killed_is_there_again(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    with victoria_metrics(tmp_path / "victoria") as server:
        one = projector(store.feed, to(server.url), sleep=lambda _: asyncio.sleep(0.01))
        one._now_ms = lambda: LATE_MS  # nothing settles
        running = asyncio.create_task(one.run())
        try:
            store.commit(group(records(random.Random(SEED), (None, 1.0))), token=token)
            await until(lambda: one.status().behind_commits == 0, "all of it is taken")
            written = one.status().points_written
            server.kill()
            server.start()
            store.commit(group([("car-1", batch(BATCHES + 1, START_MS))]), token=token)
            await until(lambda: one.status().points_written == 2 * written + 2, "it is written again")
        finally:
            running.cancel()
            await asyncio.wait([running])
        server.get("/internal/force_flush")
        values = sum(1 for device in DEVICES for value in _values(store, device) if value is not None)
        wait_until(lambda: len(exported(server)) >= values, "all of it can be read")
        assert len(exported(server)) == values


async def until(ready: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, ready, what)


@pytest.mark.server("influxd")
async def test_a_password_is_asked_for_and_given(tmp_path: Path) -> None:
    with influxd(tmp_path / "influxd", guarded=True) as server:
        server.post("/query", q="CREATE USER fleet WITH PASSWORD 'right' WITH ALL PRIVILEGES")
        settings = influx(server.url, flavour="v1", manage=True)
        for token, refused in (("", True), ("fleet:wrong", True), ("fleet:right", False)):
            target = InfluxTarget(replace(settings, token=token))
            try:
                if refused:
                    with pytest.raises(PrepareError, match=r"401: .*influx\.token_file"):
                        await target.prepare()
                else:
                    await target.prepare()
                answer = await target.write(b"power,device=car-1 a_pct=1 1")
                assert answer.status == (401 if refused else 204)
            finally:
                await target.close()


@pytest.mark.server("victoria-metrics")
async def test_a_server_without_buckets_is_told_as_such(victoria_server: SeriesServer) -> None:
    target = InfluxTarget(influx(victoria_server.url, manage=True))
    with pytest.raises(PrepareError, match=r"set influx\.manage = false"):
        await target.prepare()
    await target.close()


def _values(store: SqliteStore, device: str) -> list[float | None]:
    series = store.series(device, "power", from_ms=START_MS - HOUR_MS, to_ms=LATE_MS)
    return [value for column in series.columns.values() for value in column]
