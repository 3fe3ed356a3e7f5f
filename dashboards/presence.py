"""Panels that more than one dashboard has: how many are connected, reporting, healthy, and where; open alerts."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of, timeline_of
from dashboards.edition import Board, Edition, now_of
from dashboards.influxql import over_time, total, totals
from dashboards.measured import org_column, shared, summed
from dashboards.panels import ALL_IS_GOOD, NONE_IS_GOOD, SOME_IS_POOR, Column, Step, stat_of, table_of
from dashboards.units import SHARE
from fleet_server.standing.measures import ALERTS, PRESENCE
from fleet_server.texts import marked

SILENT: Final = marked("server silent")
"""Where there should always be a number: neither 0 nor good, but not known."""
NONE_SUCH: Final = marked("none")
NOW: Final = now_of(PRESENCE)

FACTS: Final = (
    ("connected", marked("Connected"), marked("Devices with a live connection to the broker.")),
    ("reporting", marked("Reporting"), marked("Devices of which every stream with a cadence keeps it.")),
    ("healthy", marked("Healthy"), marked("Devices whose journal says nothing is wrong.")),
)
"""Field, title, description of the levels that a device can be on."""


def device_count(edition: Edition, where: str, *links: grafana.DashboardLink) -> grafana.Panel:
    """How many devices the server knows of."""
    return stat_of(
        edition.about("Devices", "Devices that the server knows of.", *links, now=NOW, no_value=SILENT),
        *totals(PRESENCE.name, ['count("connected") AS "devices"'], where=where),
    )


def levels(edition: Edition, where: str, *links: grafana.DashboardLink) -> list[grafana.Panel]:
    """A number and a share for each fact."""
    return [
        stat_of(
            edition.about(title, description, *links, now=NOW, no_value=SILENT),
            *totals(PRESENCE.name, [*total("sum", fact), f'mean("{fact}") AS "share"'], where=where),
            columns=[
                summed(edition, fact, "devices"),
                shared(edition, "share", "of all", steps=ALL_IS_GOOD),
            ],
        )
        for fact, title, description in FACTS
    ]


def number(
    edition: Edition,
    field: str,
    title: str,
    description: str,
    where: str,
    steps: tuple[Step, ...],
    *links: grafana.DashboardLink,
) -> grafana.Panel:
    """The sum of a field over all devices."""
    queries = totals(PRESENCE.name, total("sum", field), where=where)
    return stat_of(edition.about(title, description, *links, now=NOW, no_value=SILENT), *queries, steps=steps)


def node_queries(where: str, sums: tuple[str, ...]) -> list[str]:
    """A row for each node: devices, share connected, connected, and *sums*."""
    counts = ['count("connected") AS "devices"', 'mean("connected") AS "share"', *total("sum", "connected")]
    return totals(PRESENCE.name, [*counts, *total("sum", *sums)], where=where, by="org")


def node_columns(edition: Edition, board: Board) -> tuple[Column, ...]:
    """Of :func:`node_queries` with what every dashboard shows of a node; a click on it leads to *board*."""
    return (
        org_column(edition, board),
        shared(edition, "share", "share", steps=ALL_IS_GOOD, background=True),
        summed(edition, "devices", "devices"),
        summed(edition, "connected", "connected"),
        summed(edition, "reporting", "reporting"),
        summed(edition, "healthy", "healthy"),
        summed(edition, "gaps_unexplained", "unexplained gaps", steps=NONE_IS_GOOD),
    )


def node_table(edition: Edition, board: Board, where: str, *links: grafana.DashboardLink) -> grafana.Panel:
    """Every node with devices of its own."""
    more = ("reporting", "healthy", "gaps_unexplained", "gaps_lost", "quarantined")
    columns = (
        *node_columns(edition, board),
        summed(edition, "gaps_lost", "lost gaps", steps=NONE_IS_GOOD),
        summed(edition, "quarantined", "quarantined", steps=SOME_IS_POOR),
    )
    about = edition.about(
        "Organisation nodes",
        "Every node that has devices of its own, the worst first. A site that is out is a red line of 0 %; its "
        "devices are below. A click on a node shows it and what is below it.",
        *links,
        now=NOW,
        no_value="-",
    )
    return table_of(about, node_queries(where, more), columns, sort_by="share", descending=False)


def node_timeline(edition: Edition, where: str, *links: grafana.DashboardLink) -> grafana.Panel:
    """A band for each node."""
    about = edition.about(
        "Connected over time",
        "Share of each node's devices that was connected. A red block is a site that was out; a hole is a time at "
        "which the server itself said nothing.",
        *links,
    )
    query = over_time(PRESENCE.name, ["connected"], where=where, by="org")
    return timeline_of(about, query, alias="$tag_org", unit=SHARE, steps=ALL_IS_GOOD)


def shares_over_time(edition: Edition, where: str, *links: grafana.DashboardLink) -> grafana.Panel:
    """Three lines for all that is chosen."""
    about = edition.about(
        "All that is chosen, over time",
        "Share of the chosen devices that was connected, reporting, healthy. A hole is a time at which the server "
        "itself said nothing.",
        *links,
    )
    columns = [shared(edition, fact, title, steps=ALL_IS_GOOD) for fact, title, _ in FACTS]
    query = over_time(PRESENCE.name, [fact for fact, _, _ in FACTS], where=where)
    return lines_of(about, query, unit=SHARE, steps=ALL_IS_GOOD, columns=columns, low=0, high=1)


def open_alerts(edition: Edition, where_node: str) -> grafana.Panel:
    """Of the nodes that are chosen."""
    queries = totals(ALERTS.name, total("sum", *ALERTS.names), where=where_node, of="org")
    columns = [
        summed(edition, "alarms", "alarms", steps=NONE_IS_GOOD),
        summed(edition, "warnings", "warnings", steps=SOME_IS_POOR),
    ]
    about = edition.about(
        "Open alerts",
        "Alerts that are open now. A site that is out is one of them, not forty.",
        edition.to(Board.FLEET, "The fleet by organisation node", keep=["org"]),
        *edition.to_pages("Each alert, and what to do about it", "/alerts"),
        now=now_of(ALERTS),
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)
