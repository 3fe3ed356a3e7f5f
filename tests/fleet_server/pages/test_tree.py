"""Counts of a place are with all below it, each counted once."""

from fleet_server.alerting.view import Alert
from fleet_server.outbound.happenings import Severity
from fleet_server.pages import tree
from fleet_server.registry.model import NodeKind, OrgNode, PlacedNode, Tally

HQ = PlacedNode(OrgNode("hq", NodeKind.CENTRE, "Centre"), "hq", 1)
S7 = PlacedNode(OrgNode("station-7", NodeKind.STATION, "Station 7", "hq"), "hq/station-7", 1)
P1 = PlacedNode(OrgNode("post-1", NodeKind.POST, "Post 1", "station-7"), "hq/station-7/post-1", 1)
S8 = PlacedNode(OrgNode("station-8", NodeKind.STATION, "Station 8", "hq"), "hq/station-8", 1)
NODES = [HQ, S7, P1, S8]
TALLIES = [
    Tally("hq/station-7", "body_camera", 10, 9, 8, 7),
    Tally("hq/station-7/post-1", "traffic_light", 2, 1, 1, 1),
    Tally("hq/station-8", "body_camera", 5, 5, 5, 5),
    Tally("", "host", 3, 0, 0, 0),
]


def alert(org: str, severity: Severity) -> Alert:
    return Alert("dead-device", severity, 0, org, "", "", "", {})


def test_each_row_counts_what_is_below_it_too() -> None:
    alerts = [alert("hq/station-7/post-1", Severity.ALARM), alert("hq", Severity.WARNING), alert("", Severity.ALARM)]
    found = {row.placed.path if row.placed else "": row for row in tree.rows(NODES, TALLIES, alerts)}
    assert list(found) == ["hq", "hq/station-7", "hq/station-7/post-1", "hq/station-8", ""]
    assert [(row.devices, row.alarms, row.warnings) for row in found.values()] == [
        (17, 1, 1),
        (12, 1, 0),
        (2, 1, 0),
        (5, 0, 0),
        (3, 1, 0),
    ]
    assert tree.total(found.values()).devices == 20


def test_who_sees_one_station_sees_it_at_the_top() -> None:
    found = tree.rows([S7, P1], TALLIES[:2], [])
    assert [(row.depth, row.devices) for row in found] == [(0, 12), (1, 2)]
    assert [row.placed for row in tree.below(found, S7)] == [P1]
    assert tree.trail([S7, P1], P1.path) == [S7, P1]


def test_an_empty_fleet_has_no_rows_and_counts_nothing() -> None:
    assert tree.rows([], [], []) == []
    assert tree.total([]).devices == 0
