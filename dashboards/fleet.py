"""The fleet by organisation node: what there is, what of it is heard, and whose records are missing."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.edition import SCOPES, Board, Edition
from dashboards.influxql import devices_where, totals
from dashboards.latest import latest_sections
from dashboards.layout import Section, Tile
from dashboards.measured import devices, known
from dashboards.panels import (
    ALL_IS_GOOD,
    NEUTRAL,
    NONE_IS_GOOD,
    ORANGE,
    PLAIN,
    RED,
    SOME_IS_POOR,
    Column,
    Step,
    stat_of,
    table_of,
)
from dashboards.presence import (
    NONE_SUCH,
    NOW,
    SILENT,
    device_count,
    levels,
    node_table,
    node_timeline,
    number,
    shares_over_time,
)
from dashboards.units import SHARE
from fleet_server.standing.measures import PRESENCE
from fleet_server.texts import marked

SCOPE: Final = SCOPES[Board.FLEET]
FLAPS_MANY: Final = 3
"""Connections an hour beside the one it has: more than a tunnel or a car park explains."""
_FLAPS: Final = (Step(None, PLAIN), Step(FLAPS_MANY, ORANGE))
_UNWELL: Final = (Step(None, RED), Step(1, PLAIN))
_MISSING: Final = (Step(None, PLAIN), Step(1, ORANGE))


def fleet(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    whole = edition.to(Board.FLEET, "The whole fleet")
    about = devices(edition, Board.FLEET)
    return edition.dashboard(
        Board.FLEET,
        "The fleet by organisation node",
        "What there is, what of it is heard, and whose records are missing",
        [
            _now(edition, whole),
            edition.section(
                "By organisation node",
                Tile(node_table(edition, Board.FLEET, SCOPE.where, whole), 14, 12),
                Tile(node_timeline(edition, SCOPE.where, whole), 10, 12),
                Tile(shares_over_time(edition, SCOPE.where, whole), 24, 8),
            ),
            edition.section(
                "Devices", Tile(_gone(edition, about, whole), 14, 9), Tile(_flapping(edition, about, whole), 10, 9)
            ),
            _records(edition, about, whole),
            *latest_sections(edition, SCOPE, about, whole),
        ],
    )


def _now(edition: Edition, whole: grafana.DashboardLink) -> Section:
    (shares,) = totals(PRESENCE.name, ['mean("connected") AS "share"'], where=SCOPE.where, by="org")
    worst = stat_of(
        edition.about(
            "Worst node",
            "Share connected at the organisation node where it is lowest: 0 % is a node of which nothing is heard.",
            whole,
            now=NOW,
            no_value=SILENT,
        ),
        f'SELECT min("share") AS "share" FROM ({shares})',
        unit=SHARE,
        steps=ALL_IS_GOOD,
    )
    flaps = number(
        edition,
        "flaps",
        "Reconnections",
        "Connections made within the last hour by devices that had one already.",
        SCOPE.where,
        NEUTRAL,
        whole,
    )
    heard = (Tile(panel, 5, 5) for panel in levels(edition, SCOPE.where, whole))
    tiles = (Tile(device_count(edition, SCOPE.where, whole), 3, 5), *heard, Tile(worst, 3, 5), Tile(flaps, 3, 5))
    return edition.section("Now", *tiles)


def _gone(edition: Edition, about: tuple[Column, ...], whole: grafana.DashboardLink) -> grafana.Panel:
    shown = ("reporting", "healthy", "flaps", "held", "missing")
    return table_of(
        edition.about("Not connected", "Devices without a live connection now.", whole, now=NOW, no_value=NONE_SUCH),
        [devices_where(PRESENCE.name, '"connected" = 0', ("connected", *shown), shown, where=SCOPE.where)],
        (
            *about,
            known(edition, PRESENCE, "reporting", "reporting"),
            known(edition, PRESENCE, "healthy", "healthy", steps=_UNWELL),
            known(edition, PRESENCE, "flaps", "reconnections"),
            known(edition, PRESENCE, "held", "stored"),
            known(edition, PRESENCE, "missing", "missing", steps=_MISSING),
        ),
        sort_by="org",
        descending=False,
    )


def _flapping(edition: Edition, about: tuple[Column, ...], whole: grafana.DashboardLink) -> grafana.Panel:
    shown = ("flaps", "connected")
    return table_of(
        edition.about(
            "Flapping",
            "Devices that made three or more connections within the last hour beside the one that they have.",
            whole,
            now=NOW,
            no_value=NONE_SUCH,
        ),
        [devices_where(PRESENCE.name, f'"flaps" >= {FLAPS_MANY}', shown, shown, where=SCOPE.where)],
        (
            *about,
            known(edition, PRESENCE, "flaps", "reconnections", steps=_FLAPS),
            known(edition, PRESENCE, "connected", "connected"),
        ),
        sort_by="flaps",
        descending=True,
    )


_UNEXPLAINED: Final = marked(
    "Gaps of the last day for which neither the device nor the server has a reason. It should be 0."
)
_LOST: Final = marked(
    "Gaps of the last day of what had been receipted and is not in the store: the server broke its promise. "
    "It must be 0."
)
_KEPT_RAW: Final = marked("Numbers in quarantine: they came, were not what they said, and are kept raw.")


def _records(edition: Edition, about: tuple[Column, ...], whole: grafana.DashboardLink) -> Section:
    numbers = (
        ("gaps_unexplained", "Unexplained gaps", _UNEXPLAINED, NONE_IS_GOOD),
        ("gaps_lost", "Lost gaps", _LOST, NONE_IS_GOOD),
        ("missing", "Missing", "Numbers that are not stored, whatever the reason.", NEUTRAL),
        ("quarantined", "Quarantined", _KEPT_RAW, SOME_IS_POOR),
    )
    return edition.section(
        "Records",
        *(
            Tile(number(edition, field, title, description, SCOPE.where, steps, whole), 6, 4)
            for field, title, description, steps in numbers
        ),
        Tile(_gap_table(edition, about, whole), 14, 9),
        Tile(_quarantine_table(edition, about, whole), 10, 9),
    )


def _gap_table(edition: Edition, about: tuple[Column, ...], whole: grafana.DashboardLink) -> grafana.Panel:
    shown = ("gaps_unexplained", "gaps_lost", "missing", "held")
    condition = '"gaps_unexplained" > 0 OR "gaps_lost" > 0'
    return table_of(
        edition.about(
            "Whose gaps", "Devices with gaps that are unexplained or lost.", whole, now=NOW, no_value=NONE_SUCH
        ),
        [devices_where(PRESENCE.name, condition, shown, shown, where=SCOPE.where)],
        (
            *about,
            known(edition, PRESENCE, "gaps_unexplained", "unexplained", steps=NONE_IS_GOOD),
            known(edition, PRESENCE, "gaps_lost", "lost", steps=NONE_IS_GOOD),
            known(edition, PRESENCE, "missing", "missing"),
            known(edition, PRESENCE, "held", "stored"),
        ),
        sort_by="gaps_lost",
        descending=True,
    )


def _quarantine_table(edition: Edition, about: tuple[Column, ...], whole: grafana.DashboardLink) -> grafana.Panel:
    shown = ("quarantined",)
    return table_of(
        edition.about("Whose quarantine", _KEPT_RAW, whole, now=NOW, no_value=NONE_SUCH),
        [devices_where(PRESENCE.name, '"quarantined" > 0', shown, shown, where=SCOPE.where)],
        (*about, known(edition, PRESENCE, "quarantined", "quarantined", steps=SOME_IS_POOR)),
        sort_by="quarantined",
        descending=True,
    )
