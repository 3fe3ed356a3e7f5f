"""Projectors run beside the server, in a thread of their own, and what is not configured any more is forgotten."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_server import metrics
from fleet_server.__main__ import app
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import UnknownSinkError
from fleet_server.projection.sinks import Sinks
from fleet_server.projection.view import SinkState
from fleet_server.telemetry.store import FencedError
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


async def test_a_store_that_another_server_took_over_is_projected_no_more(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group(MADE), token=token)
    SqliteStore(tmp_path / "s.db", now_ms=START_MS).take_lease("here", first=0, last=255, now_ms=START_MS, ttl_ms=1)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url))
        with pytest.raises(FencedError):
            await one.drain()
        sinks = Sinks(store.feed, (one,))
        with pytest.raises(FencedError):
            sinks.start()


async def test_a_store_that_cannot_be_written_for_a_while_is_tried_again(tmp_path: Path) -> None:
    broken = True

    def failpoint(name: str) -> None:
        if broken and name == "advance.stored":
            raise sqlite3.OperationalError("disk I/O error")

    store, token = filled_store(tmp_path / "s.db", failpoint)
    store.commit(group(MADE), token=token)
    states: list[SinkState] = []

    async def pause(_: float) -> None:
        nonlocal broken
        states.append(one.status().state)
        if len(states) == 3:
            broken = False
        if one.status().behind_commits == 0:
            raise asyncio.CancelledError

    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), sleep=pause)
        with pytest.raises(asyncio.CancelledError):
            await one.run()
        assert states[:3] == [SinkState.FAILED] * 3
        assert one.status().last_error == "StoreError: disk I/O error"
        assert far.points == expected(MADE)


def test_a_server_without_a_projection_does_not_load_the_client() -> None:
    code = "import sys, fleet_server.__main__; sys.exit('influxdb_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_rebuild_of_what_is_not_there_says_so_and_makes_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "site"
    assert CliRunner().invoke(app, ["init", "--dir", str(directory)]).exit_code == 0
    config = directory / "server" / "fleet-server.toml"
    found = CliRunner().invoke(app, ["rebuild", "--config", str(config), "--from", "-7d"])
    assert (found.exit_code, "no such file" in found.output) == (1, True)
    state = directory / "server" / "state"
    assert not state.exists()
    state.mkdir()
    store, _ = filled_store(state / "telemetry.db")
    found = CliRunner().invoke(app, ["rebuild", "--config", str(config), "--from", "-7d", "--sink", "other"])
    assert (found.exit_code, "no sink called other" in found.output) == (1, True)
    found = CliRunner().invoke(app, ["rebuild", "--config", str(config), "--from", "yesterday"])
    assert (found.exit_code, "expected a time such as -7d" in found.output) == (1, True)
    found = CliRunner().invoke(app, ["rebuild", "--config", str(config), "--from", "2026-01-01T00:00:00Z"])
    assert (found.exit_code, found.output) == (0, "influx: 0 hours of streams will be written again\n")
    store.close()
