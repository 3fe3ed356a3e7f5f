import copy
from collections.abc import Callable

import pytest

from tests.dashboards.asked import Json, dashboards
from tests.dashboards.lint import faults

BOARDS = dashboards()
FLEET = BOARDS["dashboards/en/fleet.json"]
DEVICE = BOARDS["dashboards/en/device.json"]


@pytest.mark.parametrize("path", BOARDS)
def test_nothing_is_wrong_with_a_dashboard(path: str) -> None:
    assert faults(BOARDS[path]) == []


def _same_id(board: Json) -> None:
    board["panels"][1]["id"] = board["panels"][2]["id"]


def _on_top(board: Json) -> None:
    board["panels"][1]["gridPos"] = board["panels"][2]["gridPos"]


def _too_wide(board: Json) -> None:
    board["panels"][1]["gridPos"]["w"] = 25


def _other_source(board: Json) -> None:
    board["panels"][1]["targets"][0]["datasource"]["uid"] = "mine"


def _unit(board: Json) -> None:
    board["panels"][1]["fieldConfig"]["defaults"]["unit"] = "furlong"


def _undescribed(board: Json) -> None:
    board["panels"][1]["description"] = ""


def _measurement(board: Json) -> None:
    board["panels"][1]["targets"][0]["query"] = 'SELECT last("connected") FROM "presents"'


def _field(board: Json) -> None:
    board["panels"][1]["targets"][0]["query"] = 'SELECT last("konnected") FROM "presence"'


def _tag(board: Json) -> None:
    board["templating"]["list"][0]["query"] = 'SHOW TAG VALUES FROM "presence" WITH KEY = "holder"'


def _function(board: Json) -> None:
    board["panels"][1]["targets"][0]["query"] = 'SELECT integral("held") AS "x" FROM "presence"'


def _not_of_3(board: Json) -> None:
    board["panels"][1]["targets"][0]["query"] += " SLIMIT 5"


def _in_a_row(board: Json) -> None:
    board["panels"][-1]["panels"][0]["targets"][0]["query"] = 'SELECT last("lat") FROM "cpu"'


def _seconds_as_bytes(board: Json) -> None:
    _claim(board, 'SELECT last("certificate_s") AS "x" FROM "readiness"', "bytes")


def _seconds_as_days(board: Json) -> None:
    _claim(board, 'SELECT last("certificate_s") AS "x" FROM "readiness"', "suffix: days")


def _days_as_seconds(board: Json) -> None:
    _claim(board, 'SELECT last("certificate_s") / 86400 AS "x" FROM "readiness"', "dthms")


def _count_as_share(board: Json) -> None:
    _claim(board, 'SELECT sum("ready") AS "x" FROM "readiness"', "percentunit")


def _claim(board: Json, query: str, unit: str) -> None:
    panel = board["panels"][1]
    panel["targets"][0]["query"] = query
    panel["fieldConfig"]["defaults"]["unit"] = unit
    panel["fieldConfig"]["overrides"] = []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_same_id, "2 panels have it"),
        (_on_top, "overlaps"),
        (_too_wide, "outside of the grid"),
        (_other_source, "data source: expected fieldfleet-influx, got 'mine'"),
        (_unit, "unit 'furlong': unknown"),
        (_undescribed, "has no description"),
        (_measurement, "measurement 'presents': nobody declares it"),
        (_field, "'konnected': no field of"),
        (_tag, "'holder': no field of"),
        (_seconds_as_bytes, "expected unit dthms, got 'bytes'"),
        (_seconds_as_days, "expected unit dthms, got 'suffix: days'"),
        (_days_as_seconds, "expected unit suffix: , got 'dthms'"),
        (_count_as_share, "expected unit bool_yes_no or none, got 'percentunit'"),
        (_function, "integral(): not of every InfluxDB"),
        (_not_of_3, "SLIMIT: not of InfluxDB 3"),
        (_in_a_row, "'lat': no field of {'cpu'}"),
    ],
)
def test_what_is_wrong_is_told(spoil: Callable[[Json], None], told: str) -> None:
    board = copy.deepcopy(FLEET)
    spoil(board)
    assert told in "\n".join(faults(board))


def test_a_mark_that_names_what_nobody_declares_is_told() -> None:
    board = copy.deepcopy(DEVICE)
    board["annotations"]["list"][0]["target"]["query"] = 'SELECT "text_en" FROM "events"'
    assert "annotation What happened: measurement 'events': nobody declares it" in faults(board)
