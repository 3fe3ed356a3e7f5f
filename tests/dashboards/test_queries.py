"""Every query of every dashboard, asked of a real InfluxDB as Grafana would ask it."""

from typing import Any

import pytest

from broker_config import device_classes
from dashboards.influxql import TAGS
from tests.dashboards import seeded
from tests.dashboards.asked import Chosen, Json, Range, annotations, dashboards, filled, panel, panels
from tests.dashboards.filled_site import BOARDS, HOUR_MS, NEWEST, PANELS, Filled
from tests.dashboards.seeded import FLEET, POST_1, STATION_1, STATION_2

pytestmark = pytest.mark.server("influxd")


@pytest.mark.parametrize(("board", "title"), PANELS)
def test_every_panel_has_numbers_where_there_is_data(filled_server: Filled, board: str, title: str) -> None:
    rows = filled_server.shown(board, title)
    told = {name for row in rows for name, value in row.items() if name not in {*TAGS, "time"} and value is not None}
    wanted = {field["matcher"]["options"] for field in panel(BOARDS[board], title)["fieldConfig"]["overrides"]} - {
        *TAGS,
        "Time",
    }
    assert told >= wanted
    assert told


@pytest.mark.parametrize(("board", "title"), PANELS)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_time_without_data_is_empty_and_no_error(
    filled_server: Filled, board: str, title: str, *, absolute: bool
) -> None:
    long_ago = Range(filled_server.now_ms - 50 * HOUR_MS, filled_server.now_ms - 49 * HOUR_MS, absolute)
    assert filled_server.shown(board, title, over=long_ago) == []


def test_both_languages_ask_the_same() -> None:
    for path, board in dashboards().items():
        other = BOARDS[path.split("/")[-1].removesuffix(".json")]
        for here, there in zip(panels(board), panels(other), strict=True):
            asked = [target["query"].replace("text_zh_hans", "text_en") for target in here["targets"]]
            assert asked == [target["query"] for target in there["targets"]]


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
    assert _only(filled_server.shown("fleet", title), *columns) == values


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
    rows = {
        row["org"]: tuple(row[name] for name in columns) for row in filled_server.shown("fleet", "Organisation nodes")
    }
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
    rows = filled_server.shown("fleet", title)
    assert {row["device"] for row in rows} == devices
    of = {device.name: device for device in FLEET}
    assert all((row["device_class"], row["org"]) == of[row["device"]][1:3] for row in rows)


def test_what_a_table_says_of_a_device_is_its_newest_state(filled_server: Filled) -> None:
    rows = {row["device"]: row for row in filled_server.shown("fleet", "Not connected")}
    assert rows["light-2"] | {"reporting": 0, "healthy": 1, "flaps": 0, "held": 1000, "missing": 2} == rows["light-2"]


def test_an_outage_is_seen_over_time_at_the_node_that_had_it(filled_server: Filled) -> None:
    by_org: dict[str, list[float]] = {}
    for row in filled_server.shown("fleet", "Connected over time"):
        if row["connected"] is not None:
            by_org.setdefault(row["org"], []).append(row["connected"])
    assert by_org.keys() == {STATION_1, POST_1, STATION_2}
    assert set(by_org[STATION_1]) == set(by_org[POST_1]) == {1}
    assert (by_org[STATION_2][0], by_org[STATION_2][-1]) == (1, 0.5)


def test_a_time_in_which_the_server_was_silent_is_null_and_not_zero(filled_server: Filled) -> None:
    wider = Range(filled_server.hour.start_ms - HOUR_MS, filled_server.hour.end_ms)
    rows = filled_server.shown("fleet", "All that is chosen, over time", over=wider)
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
    rows = filled_server.shown("fleet", "Devices", chosen)
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
    (query,) = (entry["query"] for entry in BOARDS["fleet"]["templating"]["list"] if entry["name"] == variable)
    assert {row["value"] for row in filled_server.ask(filled(query, {}, chosen))} == values


@pytest.mark.parametrize("title", NEWEST)
def test_newest_readings_are_the_newest_of_each_device_that_has_the_stream(filled_server: Filled, title: str) -> None:
    kind, stream = NEWEST[title]
    spec = device_classes.load(kind).streams[stream]
    expected = {
        device.name: {field: pytest.approx(seeded.reading(device, stream, field)) for field in spec.fields}
        for device in FLEET
        if device.device_class == kind
        or (kind == device_classes.BOARD and device_classes.load(device.device_class).streams[stream] == spec)
    }
    rows = filled_server.shown("fleet", title)
    assert {row["device"]: {field: row[field] for field in spec.fields} for row in rows} == expected


@pytest.mark.parametrize("path", [path for path, board in dashboards().items() if annotations(board)])
def test_what_happened_to_a_device_is_marked_in_the_language_of_the_dashboard(
    filled_server: Filled, path: str
) -> None:
    (mark,) = annotations(dashboards()[path])
    over = {"timeFilter": f"time >= {filled_server.hour.start_ms}ms and time <= {filled_server.hour.end_ms}ms"}
    query = mark["target"]["query"]
    (row,) = filled_server.ask(filled(query, over, Chosen(device=[seeded.TOLD])))
    words = row[mark["target"]["textColumn"]]
    assert words == ("cam-3 is ill" if "/en/" in path else "cam-3有故障")
    assert row[mark["target"]["tagsColumn"]] == "warning"
    assert filled_server.ask(filled(query, over, Chosen(device=["cam-1"]))) == []
