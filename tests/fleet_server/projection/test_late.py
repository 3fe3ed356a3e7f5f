"""Readings of another time than is believed or kept are in a bucket of their own, and hold nothing up."""

from pathlib import Path

import pytest

from broker_config.telemetry import Batch
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import LeftOutReason, Readings
from fleet_server.projection.points import beyond
from fleet_server.projection.projector import AHEAD_MS_MAX, DAY_MS
from fleet_server.projection.view import SinkState
from tests.fleet_server.projection.far_server import FarServer, Mode, far_server
from tests.fleet_server.projection.rig import expected, filled_store, projector, to
from tests.fleet_server.store.fleet import START_MS, batch, group

NOW_MS = START_MS + 100 * DAY_MS
RETENTION_D = 30
OLD = batch(1, START_MS, dt=(0, 1_000))
FAR_AHEAD = batch(2, NOW_MS + 365 * DAY_MS)
ASTRIDE = batch(3, NOW_MS, dt=(0, 2 * AHEAD_MS_MAX))
SOUND = batch(4, NOW_MS - 60_000)


def store_of(path: Path, *batches: Batch) -> SqliteStore:
    store, token = filled_store(path)
    store.commit(group([("car-1", each) for each in batches]), token=token)
    return store


def test_what_is_beyond_keeps_its_place_in_the_batch() -> None:
    readings = Readings("car-1", "power", 3, (1, 5, 9), ("a_pct",), [[1.0], [5.0], [9.0]])
    assert beyond(readings, 4, 6).rows == [[1.0], (None,), [9.0]]


async def test_what_is_late_is_there_under_its_own_time(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.db", OLD, FAR_AHEAD, ASTRIDE, SOUND)
    async with far_server(FarServer()) as far, far_server(FarServer()) as late:
        one = projector(store.feed, to(far.url), late=to(late.url), retention_d=RETENTION_D, now_ms=NOW_MS)
        await one.drain()
        all_of_it = expected([("car-1", each) for each in (OLD, FAR_AHEAD, ASTRIDE, SOUND)])
        assert far.points | late.points == all_of_it
        assert not far.points.keys() & late.points.keys()
        assert len(far.points) == 2
        status = one.status()
        assert (status.points_late, status.points_left_out[LeftOutReason.TOO_OLD]) == (4, 0)
        assert status.points_left_out[LeftOutReason.AHEAD] == 0


async def test_without_a_bucket_for_it_it_is_left_out_and_counted(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.db", OLD, FAR_AHEAD, SOUND)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), retention_d=RETENTION_D, now_ms=NOW_MS)
        await one.drain()
        left = one.status().points_left_out
        assert (left[LeftOutReason.TOO_OLD], left[LeftOutReason.AHEAD], one.status().points_late) == (2, 1, 0)


@pytest.mark.parametrize("mode", [Mode.UNAVAILABLE, Mode.UNAUTHORIZED, Mode.RESET])
async def test_a_bucket_for_it_that_takes_nothing_holds_nothing_up(tmp_path: Path, mode: Mode) -> None:
    store = store_of(tmp_path / "s.db", OLD, SOUND)
    async with far_server(FarServer()) as far, far_server(FarServer()) as late:
        late.always = mode
        one = projector(store.feed, to(far.url), late=to(late.url), retention_d=RETENTION_D, now_ms=NOW_MS)
        await one.drain()
        assert far.points == expected([("car-1", SOUND)])
        status = one.status()
        assert (status.state, status.behind_commits) == (SinkState.OK, 0)
        assert (status.points_late, status.points_left_out[LeftOutReason.TOO_OLD]) == (0, 2)


async def test_a_rebuild_from_before_the_retention_fills_no_bucket_of_late_ones(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.db", OLD, SOUND)
    async with far_server(FarServer()) as far, far_server(FarServer()) as late:
        one = projector(store.feed, to(far.url), late=to(late.url), retention_d=RETENTION_D, now_ms=NOW_MS)
        await one.drain()
        while store.seal(records_max=1_000, now_ms=3 * NOW_MS):
            pass
        taken = one.status().points_late
        one.rebuild(0)
        await one.drain()
        assert one.status().points_late == taken
        assert one.status().points_left_out[LeftOutReason.TOO_OLD] >= 2
