"""Dashboards show what a real fleet made: the demo's four devices, their files, the real server, a real InfluxDB."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pytest

from broker_config.ids import DeviceId
from dashboards.influxql import TAGS
from dashboards.provisioning import DATABASE
from fleet_server import site as plan
from fleet_server.cli import answers
from fleet_server.cli.demo import rig as rigs
from fleet_server.cli.demo.fleet import FLEET, LOGS, Broker
from fleet_server.cli.demo.programs import Programs, running
from fleet_server.cli.server import Server, connect
from tests.dashboards.asked import MINUTE_MS, Chosen, Range, dashboards, panel, panels, queries_of
from tests.servers import SeriesServer, influxd
from tests.system.fleets import is_healthy

pytestmark = pytest.mark.server("influxd")

BOARDS: Final = {
    path.split("/")[-1].removesuffix(".json"): board for path, board in dashboards().items() if "/en/" in path
}
CAMERA: Final = "camera-12"
LIGHT: Final = "light-3"
STATION: Final = "station-7"
WAIT_S_MAX: Final = 60.0
LONG_BYTES: Final = 200_000_000
SLOW: Final = "site_bytes_s_max = 5000000"
"""A file that is on its way when somebody looks."""
TABLES: Final = """
[influx]
url = "{url}"
flavour = "v1"
retention_d = 30

[measuring]
pace = 20

[outbound]
settle_s = 0
"""
"""Measured more often, and judged sooner, than anybody needs, so that a test need not wait for minutes."""
LOOK_S: Final = 1.0
NOTHING_WRONG: Final = {
    "Not connected",
    "Flapping",
    "Whose gaps",
    "Whose quarantine",
    "Whose recordings are overdue",
    "Will not last the shift",
    "Happenings",
}
"""Of a fleet that is well these have no rows."""
NOT_HERE: Final = {
    "Overdue recordings": "what is overdue is looked for ten minutes after the server's start",
    "Space lasts": "nobody can say after minutes",
    "On their way": "over too soon to be seen each time; test_measures.py looks at what is measured of it",
    "Files on their way": "the same",
    "Draining": "the same",
    "Recorded": "no interview ends",
    "board: temperature": "not every machine has a sensor",
}
"""Panels that four devices in two minutes cannot fill, and why."""


class Site(NamedTuple):
    """InfluxDB, and a fleet that fills it."""

    series: SeriesServer
    rig: rigs.Rig
    programs: Programs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server, running() as programs:
        rig = rigs.build(tmp_path_factory.mktemp("demo") / "site", broker=Broker.EMBEDDED, now=datetime.now(UTC))
        path = rig.directory / plan.SERVER_CONFIG
        config = path.read_text(encoding="utf-8").replace("[evidence]\n", f"[evidence]\n{SLOW}\n")
        path.write_text(config + TABLES.format(url=server.url), encoding="utf-8")
        begin(rig, programs)
        yield Site(server, rig, programs)


def begin(rig: rigs.Rig, programs: Programs) -> None:
    """Everything of the demo, its devices at a station, and the camera with an officer."""
    broker = programs.start(rig.broker)
    for device in rig.devices:
        for part in (rig.link(device), *rig.instruments(device)):
            programs.start(part)
    broker.wait_until(lambda: rigs.accepts(rig.site.server_port), seconds_max=WAIT_S_MAX)
    programs.start(rig.signer())
    fleet_server = programs.start(rig.server())
    with connect(rig.place) as server:
        fleet_server.wait_until(lambda: is_healthy(server) and rig.plugged(), seconds_max=WAIT_S_MAX)
        register(server)
        claims = [
            rig.enrol(
                each.device,
                answers.read(server.send("POST", f"/v1/devices/{each.device}/claims"), answers.MadeClaim).code,
            )
            for each in FLEET
        ]
        programs.run_all(claims, seconds_max=WAIT_S_MAX)
        for member in FLEET:
            rig.wire(member)
            programs.start(rig.agent(member.device))
        for device in rig.recording:
            programs.start(rig.recorder(device))
        server.send("POST", f"/v1/devices/{CAMERA}/check-out", json={"officer": "4711", "override": "for the test"})
        # it reads of certificates every ten minutes, and has read before there were any
        programs.stop([rigs.SERVER])
        programs.start(rig.server()).wait_until(lambda: is_healthy(server), seconds_max=WAIT_S_MAX)
        server.send("POST", "/v1/evidence/scrubs")
        long = rig.directory / "devices" / CAMERA / rigs.FILES / LOGS / "long.log"
        long.parent.mkdir(parents=True, exist_ok=True)
        long.write_bytes(bytes(LONG_BYTES))


def register(server: Server) -> None:
    nodes = f"node,kind,name,parent\nhq,centre,Centre,\n{STATION},station,Seventh,hq\n"
    rows = "".join(f"{each.device},{each.device_class},{STATION}\n" for each in FLEET)
    for what, text in (("org-nodes", nodes), ("devices", f"device,device_class,node\n{rows}")):
        server.send("POST", f"/v1/imports/{what}", content=text.encode(), headers={"Content-Type": "text/csv"})


def rows(series: SeriesServer, board: str, shown: dict[str, Any], device: str) -> list[dict[str, Any]]:
    """What a panel shows; *device*: the one that is chosen where one is."""
    now_ms = int(time.time() * 1_000)
    chosen = Chosen(device=[device]) if board == "device" else Chosen()
    queries = queries_of(shown, Range(now_ms - 30 * MINUTE_MS, now_ms), chosen)
    return [row for query in queries for row in series.rows(DATABASE, query, none_yet=True)]


def unfilled(series: SeriesServer) -> set[tuple[str, str]]:
    """Panels that have nothing to show."""
    found = set()
    for name, board in BOARDS.items():
        for each_panel in panels(board):
            devices = [each.device for each in FLEET] if name == "device" else [CAMERA]
            shown = (row for device in devices for row in rows(series, name, each_panel, device))
            if not any(
                value is not None for row in shown for key, value in row.items() if key not in {"time", *TAGS}
            ):
                found.add((name, each_panel["title"]))
    return {(name, title) for name, title in found if title not in NOTHING_WRONG | set(NOT_HERE)}


def test_every_panel_shows_what_a_real_fleet_made(site: Site) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    left = unfilled(site.series)
    while left and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        left &= unfilled(site.series)  # what is on its way is so for a while only
    assert left == set()


def test_a_device_that_goes_is_told_of_on_its_own_dashboard(site: Site) -> None:
    site.programs.stop([site.rig.agent(DeviceId(LIGHT)).name])
    happenings = panel(BOARDS["device"], "Happenings")
    deadline = time.monotonic() + WAIT_S_MAX
    while not (told := rows(site.series, "device", happenings, LIGHT)) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    assert any("light-3" in row["text_en"] for row in told)
