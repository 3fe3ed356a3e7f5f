"""Projectors run beside the server, in a thread of their own, and what is not configured any more is forgotten."""

import asyncio
from pathlib import Path

import pytest

from fleet_server import metrics
from fleet_server.projection.feed import UnknownSinkError
from fleet_server.projection.sinks import Sinks
from fleet_server.projection.view import SinkState
from tests.fleet_server.projection.far_server import FarServer, far_server
from tests.fleet_server.projection.rig import SINK, expected, filled_store, projector, to
from tests.fleet_server.store.fleet import START_MS, batch, group
from tests.servers import wait_until

MADE = [("car-1", batch(seq, START_MS + seq * 1000)) for seq in range(1, 50)]


async def test_a_thread_of_their_own_projects_and_ends(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group(MADE), token=token)
    async with far_server(FarServer()) as far:
        sinks = Sinks(store.feed, (projector(store.feed, to(far.url), sleep=asyncio.sleep),))
        sinks.start()
        await asyncio.to_thread(wait_until, lambda: sinks.sinks()[0].behind_commits == 0, "all is projected")
        assert far.points == expected(MADE)
        (status,) = sinks.sinks()
        assert (status.name, status.state) == (SINK, SinkState.OK)
        assert sinks.rebuild(SINK, 0) == 0  # nothing is sealed: it begins again at the log
        await asyncio.to_thread(wait_until, lambda: far.lines == 2 * len(MADE), "all is projected again")
        with pytest.raises(UnknownSinkError):
            sinks.rebuild("other", 0)
        await asyncio.to_thread(sinks.stop)
        assert far.points == expected(MADE)


def test_a_sink_that_is_not_configured_any_more_is_forgotten(tmp_path: Path) -> None:
    store, _ = filled_store(tmp_path / "s.db")
    store.feed.add_sink("another")
    sinks = Sinks(store.feed, ())
    sinks.start()
    assert (store.feed.sinks(), sinks.sinks()) == ([], [])
    sinks.stop()


async def test_every_metric_of_a_sink_has_a_value(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group(MADE), token=token)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url))
        await one.drain()
    values = {metric.name: metric.value(one.status()) for metric in metrics.SINK}
    assert values["fieldfleet_sink_points_written_total"] == len(MADE)
    assert (values["fieldfleet_sink_taking"], values["fieldfleet_sink_behind_commits"]) == (1, 0)
