"""What each dashboard says of the seeded fleet, to the number."""

from typing import Any

import pytest

from tests.dashboards.asked import Chosen
from tests.dashboards.filled_site import Filled
from tests.dashboards.seeded import POST_1, STATION_1, STATION_2

pytestmark = pytest.mark.server("influxd")

approx = pytest.approx


@pytest.mark.parametrize(
    ("board", "title", "values"),
    [
        ("command_centre", "Connected", {"connected": 10, "share": approx(10 / 12)}),
        # nine numbers are missing beside a thousand of each device
        ("command_centre", "Completeness", {"completeness": approx(12_000 / 12_009), "missing": 9}),
        ("command_centre", "Unexplained gaps", {"gaps_unexplained": 1}),
        ("command_centre", "Open alerts", {"alarms": 1, "warnings": 1}),
        ("command_centre", "Evidence of the last day", {"share": approx(16 / 18), "overdue": 2}),
        ("station", "Devices", {"devices": 12}),
        ("station", "Ready for the next shift", {"ready": 9, "share": approx(9 / 12), "given_out": 12}),
        ("station", "Draining", {"devices": 3, "left_bytes": 6e9, "finish_s": 2_000}),
        ("body_cameras", "Connected", {"connected": 3, "share": 1}),  # of its class alone
        ("body_cameras", "Officers with a working camera", {"share": approx(0.9), "covered": 27, "officers": 30}),
        ("body_cameras", "Overdue recordings", {"overdue": 2}),
        ("in_car_terminals", "Connected", {"connected": 3}),
        ("traffic_signals", "Connected", {"connected": 1, "share": approx(1 / 3)}),
        ("traffic_signals", "Conflicts", {"conflicts": 1}),
        ("interrogation_rooms", "Interviews", {"sessions": 4, "under_way": 2}),
        ("interrogation_rooms", "Recorded", {"share": 0.75, "least": 0.5}),
        ("interrogation_rooms", "Gaps in recordings", {"gaps_unexplained": 1}),
        ("evidence", "Recordings of the last day", {"share": approx(16 / 18), "expected": 18, "overdue": 2}),
        ("evidence", "Space lasts", {"days": 30}),
        ("evidence", "Last scrub", {"days": 0.5}),
        ("evidence", "Custody", {"log_good": 1, "damaged": 0}),
    ],
)
def test_a_number_is_what_the_fleet_is(filled_server: Filled, board: str, title: str, values: dict[str, Any]) -> None:
    (row,) = filled_server.shown(board, title)
    assert {name: row[name] for name in values} == values


@pytest.mark.parametrize(
    ("board", "title", "devices"),
    [
        ("station", "Not ready", {"cam-2", "car-2", "car-3"}),
        # three hours are left of the shift: one has 50 minutes of battery, another two hours of space
        ("station", "Will not last the shift", {"cam-2", "car-1"}),
        ("station", "On their way", {"cam-1", "cam-2", "cam-3"}),
        ("evidence", "Whose recordings are overdue", {"cam-3"}),
        ("body_cameras", "Cameras", {"cam-1", "cam-2", "cam-3"}),
        ("in_car_terminals", "Where the cars are", {"car-1"}),  # the others have no fix
        ("in_car_terminals", "Terminals", {"car-1", "car-2", "car-3"}),
        ("traffic_signals", "Uptime", {"light-1", "light-2", "light-3"}),
        ("interrogation_rooms", "Interviews by room", {"room-1", "room-2"}),
        ("command_centre", "Where they are", {"cam-3", "car-1"}),
    ],
)
def test_a_table_or_map_has_the_devices_it_is_about(
    filled_server: Filled, board: str, title: str, devices: set[str]
) -> None:
    assert {row["device"] for row in filled_server.shown(board, title)} == devices


def test_a_station_shows_itself_and_its_posts(filled_server: Filled) -> None:
    (row,) = filled_server.shown("station", "Devices", Chosen(org=[STATION_1]))
    assert row["devices"] == 8
    rows = filled_server.shown("station", "By class", Chosen(org=[STATION_2]))
    counts = {row["device_class"]: (row["devices"], row["connected"], row["ready"]) for row in rows}
    assert counts == {"in_car_terminal": (1, 1, 0), "traffic_light": (2, 0, 2), "interrogation_room": (1, 1, 1)}


def test_what_is_wrong_with_the_site_is_no_stations(filled_server: Filled) -> None:
    (row,) = filled_server.shown("station", "Open alerts", Chosen(org=[STATION_2]))
    assert (row["alarms"], row["warnings"]) == (1, 0)


def test_the_command_centre_has_a_line_for_each_station(filled_server: Filled) -> None:
    rows = {row["org"]: (row["devices"], row["share"], row["alarms"]) for row in filled_server.shown(
        "command_centre", "By station"
    )}  # fmt: skip
    assert rows == {STATION_1: (4, 1, 0), POST_1: (4, 1, 0), STATION_2: (4, 0.5, 1)}


def test_a_device_that_was_away_was_up_for_less_than_all_of_the_time(filled_server: Filled) -> None:
    rows = {row["device"]: row["connected"] for row in filled_server.shown("traffic_signals", "Uptime")}
    assert rows["light-3"] == 1
    assert rows["light-1"] == approx(1 - 21 / 120)  # ten minutes and both ends, of an hour


@pytest.mark.parametrize(("device", "gaps"), [("cam-3", 1), ("cam-1", 0)])
def test_one_device_is_that_one_alone(filled_server: Filled, device: str, gaps: int) -> None:
    (row,) = filled_server.shown("device", "Gaps of the last day", Chosen(device=[device]))
    assert row["gaps_unexplained"] == gaps
    (who,) = filled_server.shown("device", "What it is, and where it belongs", Chosen(device=[device]))
    assert who["device_class"] == "body_camera"
