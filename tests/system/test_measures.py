"""Files are measured while they are on their way and once they are verified: real programs, and InfluxDB."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.rig import DEVICE
from tests.faults.upload_rig import UploadRig
from tests.servers import SeriesServer, influxd

pytestmark = [pytest.mark.server("mosquitto"), pytest.mark.server("influxd")]

PACE = 30
SIZE = 40_000_000
"""Bytes: on the rig's link they are on their way for seconds."""


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


class Measured(UploadRig):
    """A rig whose server is projected to *influx*, and measures often."""

    influx = ""

    def configure_server(self, **changes: object) -> None:
        super().configure_server(**changes)
        with self.server_file.open("a", encoding="utf-8") as file:
            file.write(f'\n[influx]\nurl = "{self.influx}"\nflavour = "v1"\nretention_d = 30\n')
            file.write(f"[measuring]\npace = {PACE}\n")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, influx: SeriesServer) -> Iterator[Measured]:
    made = Measured(tmp_path_factory.mktemp("rig"))
    made.influx = influx.url
    with made as running:
        running.run()
        yield running


def last(influx: SeriesServer, query: str) -> dict[str, Any]:
    found = influx.rows("fieldfleet", query, none_yet=True)
    return found[-1] if found else {}


def test_what_is_on_its_way_is_told_and_then_what_is_verified(rig: Measured, influx: SeriesServer) -> None:
    of_device = f"WHERE device = '{DEVICE}'"
    rig.record("r-1", SIZE)
    rig.close_recordings()
    rig.wait(
        lambda: last(influx, f"SELECT * FROM uploads {of_device} AND goodput > 0").get("finish_s") is not None,
        "what is on its way is told, and when it is here",
        rig.server,
    )
    rig.wait(
        lambda: last(influx, f"SELECT * FROM recordings {of_device}").get("verified") == 1.0,
        "the recording is verified",
        rig.server,
    )
    told = last(influx, f"SELECT * FROM recordings {of_device}")
    assert told["expected"] == 1.0
    assert told["lateness_s"] >= 0
    rig.wait(lambda: last(influx, "SELECT * FROM evidence").get("lateness_p50_s") is not None, "evidence", rig.server)
    whole = last(influx, "SELECT * FROM evidence")
    assert (whole["log_good"], whole["damaged"], whole["open_uploads"]) == (1.0, 0.0, 0.0)
    assert whole["free_bytes"] > 0
