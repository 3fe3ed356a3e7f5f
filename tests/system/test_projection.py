"""Dashboards' InfluxDB has what the batch store has: real programs, from the sensors' far end to InfluxQL."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.carry_out import Faults
from tests.faults.rig import DEVICE, Rig, epoch_ms
from tests.faults.telemetry import rows
from tests.faults.verdict import Row
from tests.faults.witness import CARRIERS, fields
from tests.servers import SeriesServer, influxd

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.server("influxd")]
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, influx: SeriesServer) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig")) as running:
        running.run()
        running.server.stop()
        text = running.server_file.read_text(encoding="utf-8")
        table = f'[influx]\nurl = "{influx.url}"\nflavour = "v1"\nretention_d = 30\n[measuring]\npace = 30\n'
        running.server_file.write_text(f"{text}\n{table}", encoding="utf-8")
        running.start_server()
        yield running


def ask(influx: SeriesServer, statement: str) -> list[dict[str, Any]]:
    return influx.rows("fieldfleet", statement, none_yet=True)


def projected(influx: SeriesServer, stream: str) -> list[dict[str, float]]:
    names = fields(stream)
    found = ask(influx, f"SELECT {', '.join(names)} FROM {stream} WHERE device = '{DEVICE}'")
    return [{name: row[name] for name in names} for row in found]


def stored(rig: Rig, stream: str) -> list[Row]:
    now_ms = epoch_ms()
    return rows(rig, stream, now_ms - HOUR_MS, now_ms + HOUR_MS)


def same(rig: Rig, influx: SeriesServer) -> bool:
    return all(projected(influx, stream) == stored(rig, stream) != [] for stream in CARRIERS)


def test_influxql_answers_what_the_store_holds_and_after_an_outage_again(rig: Rig, influx: SeriesServer) -> None:
    rig.settle()
    influx.kill()
    rig.settle()
    influx.start()
    Faults(rig).stop_agent()
    rig.wait(lambda: same(rig, influx), "what is stored is projected", rig.server)
    rig.agent.start()
    rig.settle()


def test_what_the_server_measures_is_there(rig: Rig, influx: SeriesServer) -> None:
    of_device = f"WHERE device = '{DEVICE}'"
    wanted = {
        "presence": f"SELECT last(connected), last(gaps_explained) FROM presence {of_device}",
        "readiness": f"SELECT last(ready), last(given_out) FROM readiness {of_device}",
        "server": "SELECT last(ingest), last(receipt_age_ms), last(commit_ms), last(sink_behind_s) FROM server",
        "rollouts": "SELECT last(under_way) FROM rollouts",
    }
    rig.wait(lambda: all(ask(influx, query) for query in wanted.values()), "measures are projected", rig.server)


def test_a_rebuild_beside_the_server_fills_a_database_that_was_lost(rig: Rig, influx: SeriesServer) -> None:
    Faults(rig).stop_agent()
    rig.wait(lambda: same(rig, influx), "what is stored is projected", rig.server)
    for stream in CARRIERS:
        ask_to_drop(influx, stream)
    assert not same(rig, influx)
    assert "hours of streams will be written again" in rig.server_command("rebuild", "--from", "-1h")
    rig.wait(lambda: same(rig, influx), "it is projected again", rig.server)
    rig.agent.start()
    rig.settle()


def ask_to_drop(influx: SeriesServer, stream: str) -> None:
    influx.post("/query", db="fieldfleet", q=f"DROP MEASUREMENT {stream}")


def test_the_server_stops_cleanly_with_its_projection(rig: Rig) -> None:
    assert rig.server.stop() == 0
    rig.start_server()
