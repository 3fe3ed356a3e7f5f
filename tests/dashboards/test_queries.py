"""Every query of every dashboard, asked of a real InfluxDB as Grafana would ask it."""

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from broker_config import device_classes
from dashboards.influxql import TAGS
from dashboards.provisioning import DATABASE
from tests.dashboards import seeded
from tests.dashboards.asked import MINUTE_MS, Chosen, Json, Range, dashboards, filled, panel, panels, queries_of
from tests.dashboards.seeded import FLEET, POST_1, STATION_1, STATION_2
from tests.servers import SeriesServer, influxd

pytestmark = pytest.mark.server("influxd")

BOARD: Final = dashboards()["dashboards/fleet.json"]
TITLES: Final = [panel["title"] for panel in panels(BOARD)]
HOUR_MS: Final = 60 * MINUTE_MS


class Filled(NamedTuple):
    """InfluxDB with the seeded fleet, and the time that is now in it."""

    server: SeriesServer
    now_ms: int

    @property
    def hour(self) -> Range:
        """The range that has data; presence came last at its very end."""
        return Range(self.now_ms - HOUR_MS, self.now_ms)

    def ask(self, query: str) -> list[Json]:
        """Rows as dictionaries, tags among the columns. Fails on an error in the answer."""
        return self.server.rows(DATABASE, query)

    def shown(self, title: str, chosen: Chosen = Chosen(), over: Range | None = None) -> list[Json]:  # noqa: B008
        """What a panel of :data:`BOARD` has to show; rows of several queries become one if their tags are one."""
        merged: dict[tuple[str, ...], Json] = {}
        queries = queries_of(panel(BOARD, title), over or self.hour, chosen)
        for query in queries:
            for at, row in enumerate(self.ask(query)):
                key = tuple(row[tag] for tag in TAGS if tag in row) if len(queries) > 1 else (str(at),)
                merged.setdefault(key, {}).update(row)
        return list(merged.values())


@pytest.fixture(scope="module")
def filled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with influxd(tmp_path_factory.mktemp("influxd")) as server:
        now_ms = int(time.time()) // 60 * MINUTE_MS
        seeded.fill(server, now_ms=now_ms)
        yield Filled(server, now_ms)


@pytest.mark.parametrize("title", TITLES)
def test_every_panel_has_rows_where_there_is_data(filled_server: Filled, title: str) -> None:
    assert filled_server.shown(title)


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_time_without_data_is_empty_and_no_error(filled_server: Filled, title: str, *, absolute: bool) -> None:
    long_ago = Range(filled_server.now_ms - 50 * HOUR_MS, filled_server.now_ms - 49 * HOUR_MS, absolute)
    assert filled_server.shown(title, over=long_ago) == []


def _only(rows: list[Json], *columns: str) -> Any:
    (row,) = rows
    return tuple(row[column] for column in columns)


@pytest.mark.parametrize(
    ("title", "columns", "values"),
    [
        ("Devices", ["devices"], (12,)),
        ("Connected", ["connected", "share"], (10, pytest.approx(10 / 12))),
        ("Reporting", ["reporting", "share"], (9, pytest.approx(9 / 12))),
        ("Healthy", ["healthy", "share"], (11, pytest.approx(11 / 12))),
        ("Worst node", ["share"], (0.5,)),  # two of the four at station-02
        ("Reconnections", ["flaps"], (7,)),
        ("Unexplained gaps", ["gaps_unexplained"], (1,)),
        ("Lost gaps", ["gaps_lost"], (0,)),  # a number, not an empty panel
        ("Missing", ["missing"], (9,)),
        ("Quarantined", ["quarantined"], (4,)),
    ],
)
def test_what_is_now_counts_each_device_once(
    filled_server: Filled, title: str, columns: list[str], values: tuple[float, ...]
) -> None:
    assert _only(filled_server.shown(title), *columns) == values


def test_an_organisation_node_has_a_line_of_its_own(filled_server: Filled) -> None:
    columns = (
        "devices",
        "connected",
        "reporting",
        "healthy",
        "share",
        "gaps_unexplained",
        "gaps_lost",
        "quarantined",
    )
    rows = {row["org"]: tuple(row[name] for name in columns) for row in filled_server.shown("Organisation nodes")}
    assert rows == {
        STATION_1: (4, 4, 4, 4, 1, 0, 0, 4),
        POST_1: (4, 4, 3, 3, 1, 1, 0, 0),
        STATION_2: (4, 2, 2, 4, 0.5, 0, 0, 0),
    }


@pytest.mark.parametrize(
    ("title", "devices"),
    [
        ("Not connected", {"light-1", "light-2"}),
        ("Flapping", {"cam-2"}),  # two reconnections are not many
        ("Whose gaps", {"cam-3"}),
        ("Whose quarantine", {"room-1"}),
    ],
)
def test_a_table_names_the_devices_it_is_about(filled_server: Filled, title: str, devices: set[str]) -> None:
    rows = filled_server.shown(title)
    assert {row["device"] for row in rows} == devices
    of = {device.name: device for device in FLEET}
    assert all((row["device_class"], row["org"]) == of[row["device"]][1:3] for row in rows)


def test_what_a_table_says_of_a_device_is_its_newest_state(filled_server: Filled) -> None:
    rows = {row["device"]: row for row in filled_server.shown("Not connected")}
    assert rows["light-2"] | {"reporting": 0, "healthy": 1, "flaps": 0, "held": 1000, "missing": 2} == rows["light-2"]


def test_an_outage_is_seen_over_time_at_the_node_that_had_it(filled_server: Filled) -> None:
    by_org: dict[str, list[float]] = {}
    for row in filled_server.shown("Connected over time"):
        if row["connected"] is not None:
            by_org.setdefault(row["org"], []).append(row["connected"])
    assert by_org.keys() == {STATION_1, POST_1, STATION_2}
    assert set(by_org[STATION_1]) == set(by_org[POST_1]) == {1}
    assert (by_org[STATION_2][0], by_org[STATION_2][-1]) == (1, 0.5)


def test_a_time_in_which_the_server_was_silent_is_null_and_not_zero(filled_server: Filled) -> None:
    wider = Range(filled_server.hour.start_ms - HOUR_MS, filled_server.hour.end_ms)
    rows = filled_server.shown("All that is chosen, over time", over=wider)
    assert rows[0]["connected"] is None
    assert rows[-2]["connected"] == pytest.approx(10 / 12)


@pytest.mark.parametrize(
    ("chosen", "devices"),
    [
        (Chosen(), 12),
        (Chosen(org=[STATION_1]), 8),  # the post below it too
        (Chosen(org=[POST_1]), 4),
        (Chosen(org=[POST_1, STATION_2]), 8),
        (Chosen(org=["hq"]), 12),
        (Chosen(org=["hq/station-0"]), 0),  # a beginning of a name is no node
        (Chosen(device_class=["body_camera"]), 3),
        (Chosen(device_class=["body_camera", "host"], org=[STATION_1]), 4),
        (Chosen(device=["cam-1"]), 1),
        (Chosen(device=["cam"]), 0),
    ],
)
def test_the_variables_choose(filled_server: Filled, chosen: Chosen, devices: int) -> None:
    rows = filled_server.shown("Devices", chosen)
    assert (_only(rows, "devices") if rows else (0,)) == (devices,)


@pytest.mark.parametrize(
    ("variable", "chosen", "values"),
    [
        ("org", Chosen(), {STATION_1, POST_1, STATION_2}),
        ("device_class", Chosen(), set(device_classes.names())),
        ("device_class", Chosen(org=[STATION_2]), {"in_car_terminal", "traffic_light", "interrogation_room"}),
        ("device", Chosen(), {device.name for device in FLEET}),
        ("device", Chosen(org=[STATION_1], device_class=["body_camera"]), {"cam-1", "cam-2", "cam-3"}),
    ],
)
def test_a_variable_offers_what_the_ones_before_it_leave(
    filled_server: Filled, variable: str, chosen: Chosen, values: set[str]
) -> None:
    (query,) = (entry["query"] for entry in BOARD["templating"]["list"] if entry["name"] == variable)
    assert {row["value"] for row in filled_server.ask(filled(query, {}, chosen))} == values


@pytest.mark.parametrize("title", [title for title in TITLES if ": " in title])
def test_newest_readings_are_the_newest_of_each_device_that_has_the_stream(filled_server: Filled, title: str) -> None:
    kind, stream = title.split(": ")
    spec = device_classes.load(kind).streams[stream]
    expected = {
        device.name: {field: pytest.approx(seeded.reading(device, stream, field)) for field in spec.fields}
        for device in FLEET
        if device.device_class == kind
        or (kind == device_classes.BOARD and device_classes.load(device.device_class).streams[stream] == spec)
    }
    rows = filled_server.shown(title)
    assert {row["device"]: {field: row[field] for field in spec.fields} for row in rows} == expected
