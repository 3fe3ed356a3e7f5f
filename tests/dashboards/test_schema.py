import copy
from pathlib import Path

import pytest

from tests.dashboards.asked import dashboards
from tests.dashboards.schema import faults

pytestmark = pytest.mark.server("npm")


def test_grafanas_own_types_take_every_dashboard_and_nothing_misspelt(tmp_path: Path) -> None:
    boards = dashboards()
    assert faults(boards, tmp_path) == []


def test_what_grafanas_types_do_not_know_is_told(tmp_path: Path) -> None:
    board = dashboards()["dashboards/en/fleet_server.json"]
    spoilt = {name: copy.deepcopy(board) for name in ("misspelt", "wrong", "option")}
    spoilt["misspelt"]["panels"][1]["titel"] = "x"
    spoilt["wrong"]["panels"][1]["gridPos"]["w"] = "wide"
    spoilt["option"]["panels"][1]["options"]["colorMode"] = "loud"
    told = "\n".join(faults(spoilt, tmp_path))
    assert "'\"titel\"' does not exist" in told
    assert "Type 'string' is not assignable to type 'number'" in told
    assert "Type '\"loud\"' is not assignable" in told
