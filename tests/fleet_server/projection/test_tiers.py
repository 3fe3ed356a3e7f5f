"""A tier holds means of the batch store's rows, by the hour, and again if something came late."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker_config.telemetry import Batch
from fleet_server.adapters.influx import InfluxTarget
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.projector import ProjectorSettings
from fleet_server.projection.target import Target
from fleet_server.projection.tiers import HOUR_MS, OVER_MS, Means, TierProjector, over_before
from fleet_server.projection.view import SinkState
from fleet_server.standing.held import Held
from fleet_server.standing.measures import COVERAGE
from fleet_server.standing.sample import Following, Sample
from tests.fleet_server.projection.rig import SEED, ClassLabels, filled_store, influx, sealed_wholly
from tests.fleet_server.store.fleet import LATE_MS, START_MS, batch, group
from tests.servers import SeriesServer, influxd

TIER = "influx-5m"
EVERY_MS = 300_000
DEVICES = ("car-1", "cam-2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as running:
        yield running


def into(server: SeriesServer, bucket: str) -> Callable[[], Target]:
    settings = replace(influx(server.url, flavour="v1", manage=True), bucket=bucket)
    return lambda: InfluxTarget(settings)


def tier(
    store: SqliteStore, target: Callable[[], Target], *, now_ms: int, standing: Following | None = None
) -> TierProjector:
    store.feed.add_sink(TIER)
    return TierProjector(
        ProjectorSettings(TIER, 1_000, 0),
        store.feed,
        ClassLabels(),
        standing,
        store,
        every_ms=EVERY_MS,
        new_target=target,
        now_ms=lambda: now_ms,
        rng=random.Random(SEED),
    )


def asked(server: SeriesServer, bucket: str, device: str) -> dict[int, dict[str, Any]]:
    """Time in ms -> fields."""
    query = f"SELECT * FROM power WHERE device = '{device}'"
    (result,) = json.loads(server.get("/query", db=bucket, epoch="ms", q=query))["results"]
    found: dict[int, dict[str, Any]] = {}
    for series in result.get("series", []):
        for row in series["values"]:
            fields = dict(zip(series["columns"], row, strict=True))
            found[fields.pop("time")] = {name: value for name, value in fields.items() if name[:2] in {"a_", "b_"}}
    return found


def brute_force(batches: Sequence[Batch]) -> dict[int, dict[str, Any]]:
    """What a tier is, from the rows one by one."""
    rows: dict[int, list[Sequence[float | None]]] = {}
    for each in batches:
        for after, row in zip(each.dt, each.rows, strict=True):
            rows.setdefault((each.t0 + after) // EVERY_MS * EVERY_MS, []).append(row)
    found: dict[int, dict[str, Any]] = {}
    for at_ms, held in rows.items():
        found[at_ms] = {}
        for at, name in enumerate(("a_pct", "b_mv")):
            values = [value for row in held if (value := row[at]) is not None]
            some = [sum(values) / len(values), min(values), max(values)] if values else [None] * 3
            found[at_ms] |= dict(zip((name, f"{name}_min", f"{name}_max"), some, strict=True))
    return found


def made(rng: random.Random, count: int = 30, *, first: int = 1) -> list[Batch]:
    """Of about four hours, with values that are missing."""
    batches = []
    for seq in range(first, first + count):
        rows: list[list[float | None]] = [[rng.choice((None, rng.gauss(0, 9))), rng.random()] for _ in range(20)]
        dt = sorted(rng.sample(range(400_000), len(rows)))
        batches.append(batch(seq, START_MS + (seq - 1) * 480_000, dt=dt, rows=rows))
    return batches


def same(found: dict[int, dict[str, Any]], wanted: dict[int, dict[str, Any]]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[at] == {name: pytest.approx(value) if value is not None else None for name, value in row.items()}
        for at, row in wanted.items()
    )


@pytest.mark.server("influxd")
async def test_a_tier_is_what_the_rows_are_and_again_when_something_comes_late(
    server: SeriesServer, tmp_path: Path
) -> None:
    store, token = filled_store(tmp_path / "s.db")
    rng = random.Random(SEED)
    of = {device: made(rng) for device in DEVICES}
    late = {device: each.pop(7) for device, each in of.items()}
    one = tier(store, into(server, "fleet_5m"), now_ms=LATE_MS)
    store.commit(group([(device, each) for device, found in of.items() for each in found]), token=token)
    await one.drain()
    assert asked(server, "fleet_5m", "car-1") == {}  # nothing is sealed
    sealed_wholly(store, 2 * LATE_MS)
    await one.drain()
    assert all(same(asked(server, "fleet_5m", device), brute_force(of[device])) for device in DEVICES)
    assert (one.status().state, one.status().stale_places) == (SinkState.OK, 0)
    store.commit(group(list(late.items())), token=token)
    sealed_wholly(store, 3 * LATE_MS)
    await one.drain()
    whole = {device: [*of[device], late[device]] for device in DEVICES}
    assert all(same(asked(server, "fleet_5m", device), brute_force(whole[device])) for device in DEVICES)


@pytest.mark.server("influxd")
async def test_an_hour_that_is_not_over_waits_and_is_not_behind(server: SeriesServer, tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.feed.add_sink(TIER)
    found = [batch(1, START_MS), batch(2, START_MS + HOUR_MS)]
    store.commit(group([("car-1", each) for each in found]), token=token)
    sealed_wholly(store, 2 * LATE_MS)
    one = tier(store, into(server, "young_5m"), now_ms=START_MS + HOUR_MS + OVER_MS)
    await one.drain()
    assert same(asked(server, "young_5m", "car-1"), brute_force(found[:1]))
    assert (one.status().stale_places, one.status().oldest_age_ms, one.status().behind_commits) == (0, 0, 0)
    assert store.feed.behind(TIER).stale_places == 1


def test_an_hour_is_over_some_minutes_after_its_end() -> None:
    hour = START_MS // HOUR_MS
    assert over_before(START_MS + HOUR_MS + OVER_MS - 1) == hour
    assert over_before(START_MS + HOUR_MS + OVER_MS) == hour + 1


def coverage(org: str, at_ms: int, officers: float | None) -> Sample:
    return Sample(COVERAGE, at_ms, (officers, 1.0, None, 0.0), org=org)


def test_measures_are_means_of_each_slot_told_once_it_has_ended() -> None:
    held, now_ms = Held(), START_MS
    means = Means(held, every_ms=EVERY_MS, now_ms=lambda: now_ms)
    for officers in (2.0, None, 4.0):
        held.put([coverage("hq", now_ms, officers), coverage("hq/one", now_ms, 7.0)])
        assert means.since(0).samples == []
        now_ms += 60_000
    now_ms = START_MS + EVERY_MS
    held.put([coverage("hq", now_ms, 100.0)])
    assert means.since(0).samples == [coverage("hq", START_MS, 3.0), coverage("hq/one", START_MS, 7.0)]
    assert means.since(0).samples == []
    now_ms += EVERY_MS
    assert means.since(0).samples == [coverage("hq", START_MS + EVERY_MS, 100.0)]
