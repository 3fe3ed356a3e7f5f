"""Evidence: from recorded to verified, how late, how long the space lasts, and whether what is kept is sound."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of
from dashboards.edition import SCOPES, Board, Edition, now_of
from dashboards.influxql import devices_where, newest, over_time, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import devices, known, org_column, shared, summed
from dashboards.panels import (
    GREEN,
    NEUTRAL,
    NONE_IS_GOOD,
    ORANGE,
    PLAIN,
    RED,
    SOME_IS_POOR,
    YES_IS_GOOD,
    Column,
    Step,
    stat_of,
    table_of,
)
from dashboards.presence import NONE_SUCH, SILENT
from dashboards.station import uploads_table
from dashboards.units import SECONDS_A_DAY, SPAN, grafana_unit, suffix
from fleet_server.standing.measures import BYTES, EVIDENCE, RECORDINGS

SCOPE: Final = SCOPES[Board.EVIDENCE]
NOW: Final = now_of(EVIDENCE)
SITE: Final = "$timeFilter"
VERIFIED: Final = (Step(None, RED), Step(0.9, ORANGE), Step(0.99, GREEN))
DAYS_LEFT: Final = (Step(None, RED), Step(14, ORANGE), Step(45, GREEN))
"""Disks are ordered in weeks."""
LATE: Final = (Step(None, GREEN), Step(12 * 3600, ORANGE), Step(SECONDS_A_DAY, RED))
SCRUB_AGE: Final = (Step(None, GREEN), Step(1.5, ORANGE), Step(3, RED))
"""In days; it is made every night."""


def evidence(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.EVIDENCE,
        "Evidence",
        "From recorded to verified: how much, how late, how long the space lasts, and whether what is kept is sound",
        [_arrival(edition), _kept(edition), _late(edition), _uploads(edition)],
    )


def _arrival(edition: Edition) -> Section:
    return edition.section(
        "From recorded to verified",
        Tile(_verified(edition), 7, 5),
        Tile(_lateness(edition), 7, 5),
        Tile(_under_way(edition), 10, 5),
        Tile(_lateness_over_time(edition), 12, 9),
        Tile(_by_node(edition), 12, 9),
    )


def _verified(edition: Edition) -> grafana.Panel:
    share = 'sum("verified") / sum("expected") AS "share"'
    terms = [share, *total("sum", "expected", "overdue")]
    queries = totals(RECORDINGS.name, terms, where=SCOPE.where)
    columns = [
        shared(edition, "share", "verified", steps=VERIFIED),
        summed(edition, "expected", "recordings"),
        summed(edition, "overdue", "overdue", steps=NONE_IS_GOOD),
    ]
    about = edition.about(
        "Recordings of the last day",
        "Recordings that the devices' journals tell of: the share that is whole and verified, and those of the last "
        "week that are not here a day later.",
        now=now_of(RECORDINGS),
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)


_PERCENTILES: Final = {
    "lateness_p50_s": "half of them",
    "lateness_p90_s": "nine of ten",
    "lateness_p99_s": "99 of 100",
}


def _lateness(edition: Edition) -> grafana.Panel:
    columns = [known(edition, EVIDENCE, name, title, steps=LATE) for name, title in _PERCENTILES.items()]
    about = edition.about(
        "Verified within",
        "From the end of a recording until it was verified, of those of the last day.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    query = newest(EVIDENCE.name, list(_PERCENTILES), (), where=SITE)
    return stat_of(about, query, columns=columns)


def _under_way(edition: Edition) -> grafana.Panel:
    columns = [
        known(edition, EVIDENCE, "open_uploads", "on their way"),
        known(edition, EVIDENCE, "stale_uploads", "continued by nobody", steps=SOME_IS_POOR),
        known(edition, EVIDENCE, "unreplicated", "without a second copy", steps=SOME_IS_POOR),
    ]
    about = edition.about(
        "Files under way",
        "Files that are on their way; those of them that no device continues; and pieces whose second copy is still "
        "to be made.",
        now=NOW,
        no_value=SILENT,
    )
    query = newest(EVIDENCE.name, [column.name for column in columns], (), where=SITE)
    return stat_of(about, query, steps=NEUTRAL, columns=columns)


def _lateness_over_time(edition: Edition) -> grafana.Panel:
    about = edition.about(
        "Lateness over time",
        "From the end of a recording until it was verified: half, nine of ten, and 99 of 100 of the last day's.",
    )
    columns = [known(edition, EVIDENCE, name, title) for name, title in _PERCENTILES.items()]
    query = over_time(EVIDENCE.name, list(_PERCENTILES), where=SITE, how="max")
    return lines_of(about, query, unit=SPAN, steps=LATE, columns=columns, low=0)


def _by_node(edition: Edition) -> grafana.Panel:
    names = ("expected", "verified", "overdue")
    terms = ['sum("verified") / sum("expected") AS "share"', *total("sum", *names)]
    columns = (
        org_column(edition, Board.STATION),
        shared(edition, "share", "share", steps=VERIFIED, background=True),
        summed(edition, "expected", "recordings"),
        summed(edition, "verified", "verified"),
        summed(edition, "overdue", "overdue", steps=NONE_IS_GOOD),
    )
    about = edition.about(
        "Recordings by station",
        "The recordings of the last day of each node's devices, those with the most overdue first.",
        edition.to(Board.STATION, "Station", keep=["org"]),
        now=now_of(RECORDINGS),
        no_value=NONE_SUCH,
    )
    queries = totals(RECORDINGS.name, terms, where=SCOPE.where, by="org")
    return table_of(about, queries, columns, sort_by="overdue", descending=True)


def _kept(edition: Edition) -> Section:
    return edition.section(
        "What is kept",
        Tile(_storage(edition), 8, 6),
        Tile(_days_left(edition), 4, 6),
        Tile(_sound(edition), 8, 6),
        Tile(_scrub_age(edition), 4, 6),
    )


def _storage(edition: Edition) -> grafana.Panel:
    size = grafana_unit(BYTES)
    columns = [
        known(edition, EVIDENCE, "pieces", "pieces"),
        Column(name="bytes", title=edition.text("together"), unit=size),
        Column(name="free_bytes", title=edition.text("free"), unit=size),
    ]
    about = edition.about(
        "Storage", "Pieces of evidence that are kept, and the room that is left for more.", now=NOW, no_value=SILENT
    )
    query = newest(EVIDENCE.name, [column.name for column in columns], (), where=SITE)
    return stat_of(about, query, steps=NEUTRAL, columns=columns)


def _in_days(field: str) -> str:
    return f'SELECT last("{field}") / {SECONDS_A_DAY} AS "days" FROM "{EVIDENCE.name}" WHERE {SITE}'


def _days_left(edition: Edition) -> grafana.Panel:
    about = edition.about(
        "Space lasts",
        "Days until there is no room for evidence, as the last week went. Disks are ordered in weeks.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    return stat_of(about, _in_days("space_lasts_s"), unit=suffix(edition.text("days")), steps=DAYS_LEFT)


def _sound(edition: Edition) -> grafana.Panel:
    columns = [
        known(edition, EVIDENCE, "log_good", "custody log is sound", steps=YES_IS_GOOD),
        known(edition, EVIDENCE, "damaged", "damaged pieces", steps=NONE_IS_GOOD),
        known(edition, EVIDENCE, "deletions_waiting", "deletions waiting", steps=SOME_IS_POOR),
    ]
    about = edition.about(
        "Custody",
        "Whether the custody log is what was signed, and what the last scrub, which reads everything again, found.",
        now=NOW,
        no_value=SILENT,
    )
    query = newest(EVIDENCE.name, [column.name for column in columns], (), where=SITE)
    return stat_of(about, query, steps=NEUTRAL, columns=columns)


def _scrub_age(edition: Edition) -> grafana.Panel:
    about = edition.about(
        "Last scrub", "Days since the last scrub ended. It is made every night.", now=NOW, no_value=NONE_SUCH
    )
    return stat_of(about, _in_days("scrub_age_s"), unit=suffix(edition.text("days")), steps=SCRUB_AGE)


def _late(edition: Edition) -> Section:
    columns = (
        *devices(edition, Board.STATION),
        known(edition, RECORDINGS, "expected", "recordings"),
        known(edition, RECORDINGS, "verified", "verified"),
        known(edition, RECORDINGS, "overdue", "overdue", steps=(Step(None, PLAIN), Step(1, RED))),
        known(edition, RECORDINGS, "lateness_s", "median lateness", steps=LATE),
    )
    about = edition.about(
        "Whose recordings are overdue",
        "Devices with recordings of the last week that are not here a day later, the most first.",
        now=now_of(RECORDINGS),
        no_value=NONE_SUCH,
    )
    query = devices_where(RECORDINGS.name, '"overdue" > 0', RECORDINGS.names, RECORDINGS.names, where=SCOPE.where)
    table = table_of(about, [query], columns, sort_by="overdue", descending=True)
    return edition.section("Overdue", Tile(table, 24, 9))


def _uploads(edition: Edition) -> Section:
    return edition.section("Uploads", Tile(uploads_table(edition, SCOPE.where, Board.STATION), 24, 9))
