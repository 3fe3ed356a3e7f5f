"""The command centre: what there is, what of it is heard, whole and safe, on one page."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import map_of
from dashboards.edition import NOW as STREAM_NOW
from dashboards.edition import SCOPES, Board, Edition, now_of
from dashboards.influxql import devices_where, newest, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import class_column, device_column, org_column, read, shared, summed
from dashboards.panels import (
    GREEN,
    NEUTRAL,
    NONE_IS_GOOD,
    ORANGE,
    PLAIN,
    RED,
    SOME_IS_POOR,
    Step,
    stat_of,
    table_of,
)
from dashboards.presence import (
    NONE_SUCH,
    NOW,
    SILENT,
    levels,
    node_columns,
    node_queries,
    node_timeline,
    number,
    open_alerts,
)
from fleet_server.standing.measures import ALERTS, PRESENCE, RECORDINGS, ROLLOUTS

SCOPE: Final = SCOPES[Board.COMMAND_CENTRE]
WHOLE: Final = (Step(None, RED), Step(0.99, ORANGE), Step(0.9999, GREEN))
"""Of what was numbered and is stored: one in a hundred missing is much."""
VERIFIED: Final = (Step(None, RED), Step(0.9, ORANGE), Step(0.99, GREEN))


def command_centre(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.COMMAND_CENTRE,
        "Command centre",
        "What there is, what of it is heard, whole and safe: the whole fleet on one page",
        [_levels(edition), _wrong(edition), _nodes(edition)],
    )


def _levels(edition: Edition) -> Section:
    to = edition.to(Board.FLEET, "The fleet by organisation node", keep=["org"])
    tiles = [Tile(panel, 5, 5) for panel in levels(edition, SCOPE.where, to)]
    return edition.section("Heard", *tiles, Tile(_completeness(edition), 5, 5), Tile(_unexplained(edition), 4, 5))


def _completeness(edition: Edition) -> grafana.Panel:
    about = edition.about(
        "Completeness",
        "Of all that devices numbered, the share that is stored. What is not is missing, whatever the reason.",
        edition.to(Board.FLEET, "Whose records are missing", keep=["org"]),
        now=NOW,
        no_value=SILENT,
    )
    share = 'sum("held") / (sum("held") + sum("missing")) AS "completeness"'
    queries = totals(PRESENCE.name, [share, *total("sum", "missing")], where=SCOPE.where)
    columns = [
        shared(edition, "completeness", "stored", steps=WHOLE),
        summed(edition, "missing", "missing"),
    ]
    return stat_of(about, *queries, columns=columns)


def _unexplained(edition: Edition) -> grafana.Panel:
    return number(
        edition,
        "gaps_unexplained",
        "Unexplained gaps",
        "Gaps of the last day for which neither the device nor the server has a reason. It should be 0.",
        SCOPE.where,
        NONE_IS_GOOD,
        edition.to(Board.FLEET, "Whose gaps", keep=["org"]),
    )


def _wrong(edition: Edition) -> Section:
    return edition.section(
        "Alarms, evidence, changes",
        Tile(open_alerts(edition, SCOPE.where_node), 6, 5),
        Tile(_evidence(edition), 9, 5),
        Tile(_rollouts(edition), 9, 5),
    )


def _evidence(edition: Edition) -> grafana.Panel:
    terms = ['sum("verified") / sum("expected") AS "share"', *total("sum", "overdue")]
    queries = totals(RECORDINGS.name, terms, where=SCOPE.where)
    columns = [
        shared(edition, "share", "verified", steps=VERIFIED),
        summed(edition, "overdue", "overdue", steps=NONE_IS_GOOD),
    ]
    about = edition.about(
        "Evidence of the last day",
        "Of the recordings that journals tell of, the share that is whole and verified; and how many of the last "
        "week are not here a day later.",
        edition.to(Board.EVIDENCE, "Evidence", keep=["org"]),
        now=now_of(RECORDINGS),
        no_value=NONE_SUCH,
    )
    return stat_of(about, *queries, columns=columns)


def _rollouts(edition: Edition) -> grafana.Panel:
    columns = [
        summed(edition, "under_way", "under way"),
        summed(edition, "paused", "paused", steps=SOME_IS_POOR),
        summed(edition, "waiting", "devices waiting"),
        summed(edition, "failed", "devices failed", steps=NONE_IS_GOOD),
    ]
    about = edition.about(
        "Rollouts",
        "Rollouts that have not ended, and how their devices stand. They are the whole site's.",
        now=now_of(ROLLOUTS),
        no_value=SILENT,
    )
    query = newest(ROLLOUTS.name, [column.name for column in columns], (), where="$timeFilter")
    return stat_of(about, query, steps=NEUTRAL, columns=columns)


def _nodes(edition: Edition) -> Section:
    return edition.section(
        "Stations",
        Tile(_table(edition), 13, 12),
        Tile(_map(edition), 11, 12),
        Tile(node_timeline(edition, SCOPE.where, edition.to(Board.FLEET, "The fleet by organisation node")), 24, 8),
    )


def _table(edition: Edition) -> grafana.Panel:
    about = edition.about(
        "By station",
        "Every node that has devices of its own, the worst first. A click on one leads to its equipment.",
        edition.to(Board.STATION, "Station", keep=["org"]),
        now=NOW,
        no_value="-",
    )
    queries = node_queries(SCOPE.where, ("reporting", "healthy", "gaps_unexplained"))
    of_nodes = f"{SCOPE.where_node} AND \"org\" != ''"  # not what is of the site itself
    queries += totals(ALERTS.name, total("sum", "alarms"), where=of_nodes, by="org", of="org")
    columns = (*node_columns(edition, Board.STATION), summed(edition, "alarms", "alarms", steps=NONE_IS_GOOD))
    return table_of(about, queries, columns, sort_by="share", descending=False)


def _map(edition: Edition) -> grafana.Panel:
    shown = ("lat", "lon", "speed_mps", "age_s", "fix")
    about = edition.about(
        "Where they are",
        "The newest positions of cars and cameras that have a fix; red is older than a minute. What the ground is "
        "drawn with is set at Grafana; without the internet it is tiles of the site's own.",
        edition.to(Board.IN_CAR_TERMINALS, "In-car terminals", keep=["org"]),
        now=STREAM_NOW,
        no_value=NONE_SUCH,
    )
    columns = (
        device_column(edition),
        class_column(edition),
        org_column(edition, Board.STATION),
        *(read(edition, "in_car_terminal", "gnss", name, steps=OLD if name == "age_s" else ()) for name in shown),
    )
    query = devices_where("gnss", '"fix" >= 2', shown, shown, where=SCOPE.where)
    return map_of(about, query, columns, by="age_s", steps=(Step(None, PLAIN),))


OLD: Final = (Step(None, GREEN), Step(10, ORANGE), Step(60, RED))
"""Of a position, in seconds."""
