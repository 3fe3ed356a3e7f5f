"""What is live does not wait for a week that is written again."""

import asyncio
import time
from pathlib import Path

from broker_config.telemetry import Batch
from fleet_server.projection.projector import ROUND_STALE_S
from tests.fleet_server.projection.far_server import FarServer, far_server
from tests.fleet_server.projection.rig import SINK, expected, filled_store, projector, sealed_wholly, to
from tests.fleet_server.store.fleet import HOUR_MS, LATE_MS, START_MS, batch, group

DEVICES = 12
HOURS = 7 * 24
ROWS = 60
LIVE = 8
DELAY_S_MAX = ROUND_STALE_S + 3.0
"""A round of what is old, and some posts on a machine that does other things too."""


def a_week() -> list[tuple[str, Batch]]:
    dt = tuple(range(0, ROWS * 10_000, 10_000))
    rows = [[float(at), 1.0] for at in range(ROWS)]
    return [
        (f"car-{device}", batch(hour + 1, START_MS + hour * HOUR_MS, dt=dt, rows=rows))
        for hour in range(HOURS)
        for device in range(DEVICES)
    ]


async def test_a_live_point_is_there_within_seconds_while_a_week_is_written_again(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    week = a_week()
    for start in range(0, len(week), 500):
        store.commit(group(week[start : start + 500]), token=token)
    sealed_wholly(store, 2 * LATE_MS)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), sleep=asyncio.sleep)
        assert one.rebuild(0) == DEVICES * HOURS
        running = asyncio.create_task(one.run())
        delays_s = []
        for seq in range(1, LIVE + 1):
            live = [("cam-1", batch(seq, LATE_MS + seq * 1_000, stream="live"))]
            if not store.feed.behind(SINK).stale_places:
                break
            began_s = time.monotonic()
            await asyncio.to_thread(store.commit, group(live), token=token)
            while not expected(live).keys() <= far.points.keys():
                assert time.monotonic() < began_s + 10 * DELAY_S_MAX
                await asyncio.sleep(0.01)
            delays_s.append(time.monotonic() - began_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(delays_s) >= 2, "the rebuild was over before: they waited for nothing"
    assert max(delays_s) < DELAY_S_MAX, delays_s
