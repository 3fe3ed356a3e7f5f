"""The user that the provisioned data source asks as, in a real InfluxDB that knows users."""

import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
import yaml

from dashboards.provisioning import DATABASE, READER
from dashboards.rendered import files
from tests.dashboards import seeded
from tests.dashboards.asked import MINUTE_MS, Chosen, Range, filled, panels, queries_of
from tests.dashboards.filled_site import BOARDS, device_of
from tests.servers import SeriesServer, influxd

pytestmark = pytest.mark.server("influxd")

PASSWORD = "read-only"
ADMIN = ("admin", "all-of-it")
NOW_MS = int(time.time()) // 60 * MINUTE_MS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SeriesServer]:
    with influxd(tmp_path, guarded=True) as running:
        said = [
            f"CREATE USER {ADMIN[0]} WITH PASSWORD '{ADMIN[1]}' WITH ALL PRIVILEGES",
            f'CREATE DATABASE "{DATABASE}"',
            f"CREATE USER {READER} WITH PASSWORD '{PASSWORD}'",
            f'GRANT READ ON "{DATABASE}" TO {READER}',
        ]
        for statement in said:
            httpx.post(f"{running.url}/query", params={"q": statement}, auth=ADMIN).raise_for_status()
        seeded.fill(running, now_ms=NOW_MS, auth=ADMIN)
        yield running


def test_the_reader_may_ask_all_that_the_dashboards_ask_and_nothing_else(server: SeriesServer) -> None:
    (source,) = yaml.safe_load(files()["provisioning/datasources/fieldfleet.yaml"])["datasources"]
    reader = (source["user"], PASSWORD)
    where = {"db": source["jsonData"]["dbName"]}
    for name, board in BOARDS.items():
        queries = [filled(variable["query"], {}, Chosen()) for variable in board["templating"]["list"]]
        shown = Range(NOW_MS - 60 * MINUTE_MS, NOW_MS)
        for panel in panels(board):
            chosen = Chosen(device=[device_of(panel["title"])]) if name == "device" else Chosen()
            queries += queries_of(panel, shown, chosen)
        for query in queries:
            (result,) = httpx.post(f"{server.url}/query", params=where | {"q": query}, auth=reader).json()["results"]
            assert result["series"], query
    written = httpx.post(f"{server.url}/write", params=where, content="presence connected=1", auth=reader)
    assert written.status_code == HTTPStatus.FORBIDDEN
    dropped = httpx.post(f"{server.url}/query", params=where | {"q": 'DROP MEASUREMENT "presence"'}, auth=reader)
    assert dropped.status_code == HTTPStatus.FORBIDDEN


def test_nobody_asks_without_a_password(server: SeriesServer) -> None:
    asked = httpx.post(f"{server.url}/query", params={"db": DATABASE, "q": 'SELECT * FROM "presence"'})
    assert asked.status_code == HTTPStatus.UNAUTHORIZED
