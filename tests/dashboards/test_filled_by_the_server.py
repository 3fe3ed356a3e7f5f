"""The dashboard's queries over what the server itself wrote: real ingest, batch store, registry and projection."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest

from broker_config import device_classes, topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, StreamState, encode
from broker_config.telemetry import JOURNAL, Batch, Clock
from dashboards.influxql import TAGS
from dashboards.provisioning import DATABASE
from fleet_server.adapters.influx import InfluxSettings, InfluxTarget
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.target import Target
from fleet_server.registry.keeper import PromptLabels
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.dashboards.asked import Chosen, Range, dashboards, panel, panels, queries_of
from tests.fleet_server.fleet import BOOT, LIFE, NOW, SINK, T0, Arrival, Fleet, presence_of, record
from tests.servers import SeriesServer, influxd

pytestmark = pytest.mark.server("influxd")

BOARD: Final = dashboards()["dashboards/en/fleet.json"]
CLASSES: Final = tuple(name for name in device_classes.names() if name != "host")
STATION: Final = "hq/station-7"
SHOWN: Final = Range(T0, NOW)


def value_of(stream: str, field: str, device_class: str) -> float:
    of = device_classes.load(device_class).streams[stream].fields[field]
    return of.min + (of.max - of.min) / 4


def of_class(device_class: str) -> list[Arrival]:
    """A device is born, and reports a row of each of its streams a minute ago."""
    device = DeviceId(device_class.replace("_", "-"))
    streams = {name: spec for name, spec in device_classes.load(device_class).streams.items() if name != JOURNAL}
    states = tuple(StreamState(name, LIFE, 1, 1, every_ms=60_000) for name in streams)
    born = Birth(1, "0" * 16, BOOT, 1, 30, "0.1.0", device_class, device_class, 0, 5_000, states)
    arrivals = [Arrival(topics.up(device, topics.Up.STATUS), encode(born))]
    for name, spec in streams.items():
        row: list[float | None] = [value_of(name, field, device_class) for field in spec.fields]
        sealed = Batch(1, name, LIFE, 1, BOOT, NOW - 5_000, 1, Clock("ntp", 0, 5), tuple(spec.fields), [0], [row])
        arrivals.append(record(device, sealed))
    return arrivals


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesServer]:
    """InfluxDB that a fleet's server has written: one device of each class, all but one with a place."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet") / "store.db")
    for node in (OrgNode("hq", NodeKind.CENTRE, "Centre"), OrgNode("station-7", NodeKind.STATION, "Seventh", "hq")):
        fleet.registry.put_node(node, expected=None, create=True, now_ms=T0)
    for device_class in CLASSES[:-1]:
        said = Registration(device_class.replace("_", "-"), device_class, node="station-7")
        fleet.registry.register(said, expected=None, create=True, now_ms=T0)
    for device_class in CLASSES:
        fleet.arrive(*of_class(device_class))
    with influxd(tmp_path_factory.mktemp("influxd")) as running:
        project(fleet, running.url)
        yield running
    fleet.store.close()


def project(fleet: Fleet, url: str) -> None:
    settings = InfluxSettings(
        url=url, flavour="v1", org="", bucket=DATABASE, token="", retention_d=0, manage=True, gzip=False
    )

    def target() -> Target:
        return InfluxTarget(settings)

    async def drain() -> None:
        projector = Projector(
            ProjectorSettings(SINK, 1_000, 0),
            fleet.store.feed,
            PromptLabels(fleet.registry, fleet.keeper),
            presence_of(fleet),
            new_target=target,
            now_ms=lambda: NOW,
            rng=random.Random(1),
        )
        await projector.drain()
        assert projector.status().last_error == ""

    asyncio.run(drain())


def ask(server: SeriesServer, title: str, chosen: Chosen = Chosen()) -> list[dict[str, Any]]:  # noqa: B008
    """What a panel shows; rows of its queries by their tags."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    for query in queries_of(panel(BOARD, title), SHOWN, chosen):
        for row in server.rows(DATABASE, query):
            merged.setdefault(tuple(str(row.get(tag)) for tag in TAGS), {}).update(row)
    return list(merged.values())


# panels of what is wrong have nothing to show of a fleet that is well
@pytest.mark.parametrize("title", [each["title"] for each in panels(BOARD)])
def test_every_panel_is_answered(server: SeriesServer, title: str) -> None:
    ask(server, title)


def test_the_fleet_is_counted_by_the_registrys_places(server: SeriesServer) -> None:
    (devices,) = ask(server, "Devices")
    assert devices["devices"] == len(CLASSES)
    (connected,) = ask(server, "Connected")
    assert connected["connected"] == len(CLASSES)
    nodes = {row["org"]: row["devices"] for row in ask(server, "Organisation nodes")}
    assert nodes == {STATION: len(CLASSES) - 1, "unassigned": 1}
    (here,) = ask(server, "Devices", Chosen(org=[STATION]))
    assert here["devices"] == len(CLASSES) - 1


@pytest.mark.parametrize("device_class", CLASSES)
def test_the_newest_readings_of_every_stream_are_those_that_came(server: SeriesServer, device_class: str) -> None:
    device = device_class.replace("_", "-")
    for stream, spec in device_classes.load(device_class).streams.items():
        if not spec.fields:
            continue
        row = server.rows(DATABASE, f"SELECT * FROM {stream} WHERE device = '{device}'")[0]
        assert {name: row[name] for name in spec.fields} == {
            name: pytest.approx(value_of(stream, name, device_class)) for name in spec.fields
        }
        assert row["device_class"] == device_class
