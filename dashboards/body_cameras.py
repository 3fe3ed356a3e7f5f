"""Body cameras: whether every officer has one that works, and how each of them does."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of
from dashboards.edition import NOW, SCOPES, Board, Edition, now_of
from dashboards.influxql import newest, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import device_column, known, org_column, read, shared, summed
from dashboards.panels import (
    GREEN,
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
from dashboards.presence import NONE_SUCH, SILENT, levels
from dashboards.units import SHARE, grafana_unit
from fleet_server.standing.measures import BYTES, COVERAGE, READINESS, RECORDINGS

CLASS: Final = "body_camera"
SCOPE: Final = SCOPES[Board.BODY_CAMERAS]
GOAL: Final = (Step(None, RED), Step(0.9, ORANGE), Step(1, GREEN))
"""Of officers: the goal is all of them."""
BATTERY: Final = (Step(None, RED), Step(20, ORANGE), Step(50, PLAIN))
CLOCK_OFF_MS_MAX: Final = 1_000
"""Two recordings of one event a second apart are hard to lay beside each other."""
CLOCK_OFF: Final = (
    Step(-60_000, RED),
    Step(-CLOCK_OFF_MS_MAX, PLAIN),
    Step(CLOCK_OFF_MS_MAX, RED),
)
CLOCK_UNC: Final = (Step(None, PLAIN), Step(CLOCK_OFF_MS_MAX, RED))
_SHARE: Final = 'sum("covered") / sum("officers") AS "share"'


def body_cameras(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.BODY_CAMERAS,
        "Body cameras",
        "Whether every officer has a camera that works, what records, what waits for upload, whose clock is off",
        [_coverage(edition), _now(edition), _each(edition)],
    )


def _coverage(edition: Edition) -> Section:
    return edition.section(
        "Coverage",
        Tile(_covered(edition), 7, 9),
        Tile(_by_node(edition), 10, 9),
        Tile(_covered_over_time(edition), 7, 9),
    )


def _covered(edition: Edition) -> grafana.Panel:
    terms = [_SHARE, *total("sum", "covered", "officers", "spare")]
    queries = totals(COVERAGE.name, terms, where=SCOPE.where_node, of="org")
    columns = [
        shared(edition, "share", "of the officers", steps=GOAL),
        summed(edition, "covered", "covered"),
        summed(edition, "officers", "officers"),
        summed(edition, "spare", "spare"),
    ]
    about = edition.about(
        "Officers with a working camera",
        "Officers who have been given anything, and have a body camera that works among it. The goal is 100 %.",
        edition.to(Board.STATION, "Station", keep=["org"]),
        *edition.to_pages("Who has none", "/coverage"),
        now=now_of(COVERAGE),
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)


def _by_node(edition: Edition) -> grafana.Panel:
    terms = [_SHARE, *total("sum", *COVERAGE.names)]
    queries = totals(COVERAGE.name, terms, where=SCOPE.where_node, by="org", of="org")
    columns = (
        org_column(edition, Board.STATION),
        shared(edition, "share", "share", steps=GOAL, background=True),
        summed(edition, "officers", "officers"),
        summed(edition, "covered", "covered"),
        summed(edition, "cameras", "cameras"),
        summed(edition, "spare", "spare"),
    )
    about = edition.about(
        "Coverage by station",
        "The same for each node that has officers, the worst first. Spare cameras are ready and given to nobody.",
        edition.to(Board.STATION, "Station", keep=["org"]),
        now=now_of(COVERAGE),
        no_value=NONE_SUCH,
    )
    return table_of(about, queries, columns, sort_by="share", descending=False)


def _covered_over_time(edition: Edition) -> grafana.Panel:
    query = (
        f'SELECT {_SHARE} FROM "{COVERAGE.name}" WHERE {SCOPE.where_node} '
        f'GROUP BY time($__interval), "org" fill(null)'
    )
    about = edition.about(
        "Coverage over time",
        "Share of each node's officers who had a camera that worked. The goal is 100 %.",
    )
    return lines_of(about, query, alias="$tag_org", unit=SHARE, steps=GOAL, low=0, high=1)


def _now(edition: Edition) -> Section:
    presence = levels(edition, SCOPE.where)
    return edition.section(
        "Now",
        *(Tile(panel, 4, 5) for panel in presence),
        Tile(_recording(edition), 4, 5),
        Tile(_backlog(edition), 4, 5),
        Tile(_overdue(edition), 4, 5),
    )


def _recording(edition: Edition) -> grafana.Panel:
    queries = totals("recorder", total("sum", "recording"), where=SCOPE.where)
    about = edition.about("Recording now", "Cameras that record at this moment.", now=NOW, no_value=SILENT)
    return stat_of(about, *queries, steps=NEUTRAL)


def _backlog(edition: Edition) -> grafana.Panel:
    terms = total("sum", "files", "bytes")
    queries = totals("backlog", terms, where=SCOPE.where)
    columns = [
        summed(edition, "files", "files"),
        Column(name="bytes", title=edition.text("size"), unit=grafana_unit(BYTES)),
    ]
    about = edition.about(
        "Backlog",
        "Recordings on cameras that wait for upload.",
        edition.to(Board.EVIDENCE, "Evidence", keep=["org"]),
        now=NOW,
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)


def _overdue(edition: Edition) -> grafana.Panel:
    queries = totals(RECORDINGS.name, total("sum", "overdue"), where=SCOPE.where)
    about = edition.about(
        "Overdue recordings",
        "Recordings of the last week that are not here a day later.",
        edition.to(Board.EVIDENCE, "Evidence", keep=["org"]),
        now=now_of(RECORDINGS),
        no_value=NONE_SUCH,
    )
    return stat_of(about, *queries, steps=NONE_IS_GOOD)


def _each(edition: Edition) -> Section:
    return edition.section("Each camera", Tile(_cameras(edition), 15, 12), Tile(_clocks(edition), 9, 12))


def _cameras(edition: Edition) -> grafana.Panel:
    shown = {
        "recorder": ("recording",),
        "power": ("battery_pct", "charging"),
        "storage": ("free_bytes", "write_errors"),
        "backlog": ("files", "bytes"),
    }
    steps: dict[str, tuple[Step, ...]] = {"battery_pct": BATTERY, "write_errors": SOME_IS_POOR}
    columns = (
        device_column(edition),
        org_column(edition, Board.STATION),
        *(
            read(edition, CLASS, stream, name, steps=steps.get(name, ()))
            for stream, names in shown.items()
            for name in names
        ),
    )
    about = edition.about(
        "Cameras",
        "The newest readings of each camera: whether it records, its battery and card, and what waits for upload. A "
        "click leads to everything about it.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    tags = ("device", "org")
    queries = [newest(stream, names, tags, where=SCOPE.where) for stream, names in shown.items()]
    return table_of(about, queries, columns, sort_by="battery_pct", descending=False)


def _clocks(edition: Edition) -> grafana.Panel:
    names = ("clock_off_ms", "clock_unc_ms")
    columns = (
        device_column(edition),
        org_column(edition, Board.STATION),
        known(edition, READINESS, "clock_off_ms", "off by", steps=CLOCK_OFF),
        known(edition, READINESS, "clock_unc_ms", "may be off by", steps=CLOCK_UNC),
    )
    about = edition.about(
        "Clock error",
        "How far each clock was off the server's as last measured, and how far it may be off as it says. "
        "More than a second is red: recordings of one event are laid beside each other.",
        now=now_of(READINESS),
        no_value=NONE_SUCH,
    )
    query = newest(READINESS.name, names, ("device", "org"), where=SCOPE.where)
    return table_of(about, [query], columns, sort_by="clock_unc_ms", descending=True)
