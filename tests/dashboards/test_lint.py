import copy
from collections.abc import Callable

import pytest

from tests.dashboards.asked import Json, dashboards
from tests.dashboards.lint import faults

BOARDS = dashboards()
FLEET = BOARDS["dashboards/fleet.json"]


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


def _in_a_row(board: Json) -> None:
    board["panels"][-1]["panels"][0]["targets"][0]["query"] = 'SELECT last("lat") FROM "cpu"'


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
        (_in_a_row, "'lat': no field of {'cpu'}"),
    ],
)
def test_what_is_wrong_is_told(spoil: Callable[[Json], None], told: str) -> None:
    board = copy.deepcopy(FLEET)
    spoil(board)
    assert told in "\n".join(faults(board))
