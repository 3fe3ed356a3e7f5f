"""InfluxDB with the seeded fleet, shared by a worker's tests."""

import time
from collections.abc import Iterator

import pytest

from tests.dashboards import seeded
from tests.dashboards.asked import MINUTE_MS
from tests.dashboards.filled_site import Filled
from tests.servers import influxd


@pytest.fixture(scope="session")
def filled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server:
        now_ms = int(time.time()) // 60 * MINUTE_MS
        seeded.fill(server, now_ms=now_ms)
        yield Filled(server, now_ms)
