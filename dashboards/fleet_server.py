"""The fleet server itself: what comes in, how soon it is receipted, and how near its bounds it is."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of, timeline_of
from dashboards.edition import Board, Edition, now_of
from dashboards.influxql import newest, over_time
from dashboards.layout import Section, Tile
from dashboards.measured import known
from dashboards.panels import (
    GREEN,
    NEUTRAL,
    ORANGE,
    PLAIN,
    RED,
    YES_IS_GOOD,
    Column,
    Step,
    stat_of,
)
from dashboards.presence import SILENT
from dashboards.units import SECONDS_A_DAY, SHARE, SPAN, grafana_unit, suffix
from fleet_server.standing.measures import MILLISECONDS, PER_SECOND, SERVER

NOW: Final = now_of(SERVER)
SITE: Final = "$timeFilter"
FULL: Final = (Step(None, GREEN), Step(0.5, ORANGE), Step(0.8, RED))
"""Of what there is a bound for."""
RECEIPT: Final = (Step(None, GREEN), Step(1_000, ORANGE), Step(5_000, RED))
COMMIT: Final = (Step(None, GREEN), Step(100, ORANGE), Step(500, RED))
BEHIND: Final = (Step(None, GREEN), Step(60, ORANGE), Step(600, RED))
DISK: Final = (Step(None, RED), Step(5e9, ORANGE), Step(20e9, PLAIN))
CA_DAYS: Final = (Step(None, RED), Step(90, ORANGE), Step(365, GREEN))
UNSEALED: Final = (Step(None, PLAIN), Step(1e6, ORANGE))


def fleet_server(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.FLEET_SERVER,
        "The fleet server",
        "What comes in, how soon it is receipted, and how near its bounds the server is",
        [_now(edition), _ingest(edition), _bounds(edition)],
    )


def _stat(
    edition: Edition, title: str, description: str, *columns: Column, steps: tuple[Step, ...] = NEUTRAL
) -> grafana.Panel:
    query = newest(SERVER.name, [column.name for column in columns], (), where=SITE)
    about = edition.about(title, description, now=NOW, no_value=SILENT)
    return stat_of(about, query, steps=steps, columns=columns)


def _now(edition: Edition) -> Section:
    works = _stat(
        edition,
        "Works",
        "Whether the server is connected to the broker, and its batch store takes what comes.",
        known(edition, SERVER, "broker_connected", "broker", steps=YES_IS_GOOD),
        known(edition, SERVER, "store_takes", "store", steps=YES_IS_GOOD),
    )
    latency = _stat(
        edition,
        "Latency",
        "From a record's arrival to its receipt, the oldest of the last interval; and a transaction of the store, "
        "the mean of it.",
        known(edition, SERVER, "receipt_age_ms", "oldest receipt", steps=RECEIPT),
        known(edition, SERVER, "commit_ms", "commit", steps=COMMIT),
    )
    waiting = _stat(
        edition,
        "Waiting",
        "Records that wait for a commit, and for how long the oldest point waits for the time-series server.",
        known(edition, SERVER, "queue_records", "records"),
        known(edition, SERVER, "sink_behind_s", "behind", steps=BEHIND),
    )
    quarantine = _stat(
        edition,
        "Quarantine",
        "Payloads that were not what they said, kept raw, and how much of what quarantine may hold they are.",
        known(edition, SERVER, "quarantine_bytes", "size"),
        known(edition, SERVER, "quarantine_share", "of its bound", steps=FULL),
    )
    room = _stat(
        edition,
        "Room",
        "What is left where the batch store is, and records that are not yet in columns.",
        known(edition, SERVER, "disk_free_bytes", "free", steps=DISK),
        known(edition, SERVER, "unsealed_records", "unsealed", steps=UNSEALED),
    )
    authority = stat_of(
        edition.about(
            "Devices' authority ends in",
            "Days until the authority ends that signs the devices' certificates; a new one is begun long before.",
            now=NOW,
            no_value=SILENT,
        ),
        f'SELECT last("ca_s") / {SECONDS_A_DAY} AS "days" FROM "{SERVER.name}" WHERE {SITE}',
        unit=suffix(edition.text("days")),
        steps=CA_DAYS,
    )
    return edition.section(
        "Now", *(Tile(each, 4, 6) for each in (works, latency, waiting, quarantine, room, authority))
    )


def _lines(
    edition: Edition,
    title: str,
    description: str,
    unit: str,
    steps: tuple[Step, ...],
    *columns: Column,
    how: str = "max",
    high: float | None = None,
) -> grafana.Panel:
    query = over_time(SERVER.name, [column.name for column in columns], where=SITE, how=how)
    about = edition.about(title, description)
    return lines_of(about, query, unit=unit, steps=steps, columns=columns, low=0, high=high)


def _ingest(edition: Edition) -> Section:
    ingest = _lines(
        edition,
        "Ingest",
        "Records that are committed each second, and those that came again though stored.",
        grafana_unit(PER_SECOND),
        NEUTRAL,
        known(edition, SERVER, "ingest", "committed"),
        known(edition, SERVER, "duplicates", "came again"),
        how="mean",
    )
    latency = _lines(
        edition,
        "Receipts and commits",
        "The oldest receipt and the slowest commit of each interval.",
        grafana_unit(MILLISECONDS),
        RECEIPT,
        known(edition, SERVER, "receipt_age_ms", "oldest receipt"),
        known(edition, SERVER, "commit_ms", "commit"),
    )
    about = edition.about(
        "Works over time",
        "When the server was connected to the broker, and when its store took commits. A hole is a time at which it "
        "said nothing.",
    )
    facts = [
        known(edition, SERVER, "broker_connected", "broker"),
        known(edition, SERVER, "store_takes", "store"),
    ]
    query = over_time(SERVER.name, [fact.name for fact in facts], where=SITE, how="min")
    works = timeline_of(about, query, unit=facts[0].unit, steps=YES_IS_GOOD, columns=facts)
    return edition.section("Over time", Tile(ingest, 9, 9), Tile(latency, 9, 9), Tile(works, 6, 9))


def _bounds(edition: Edition) -> Section:
    shares = _lines(
        edition,
        "How near its bounds",
        "Of what may wait for a commit, of what quarantine may hold, and of the budget of series, the share that is "
        "used. At 100 % what comes is refused, or the oldest is dropped, as the manual says.",
        SHARE,
        FULL,
        known(edition, SERVER, "queue_share", "queue"),
        known(edition, SERVER, "quarantine_share", "quarantine"),
        known(edition, SERVER, "series_share", "series"),
        high=1,
    )
    behind = _lines(
        edition,
        "Time-series server behind",
        "For how long the oldest point waits to be written. The series are a projection: they are written again.",
        SPAN,
        BEHIND,
        known(edition, SERVER, "sink_behind_s", "behind"),
    )
    series = _lines(
        edition,
        "Series",
        "Series in the time-series server. Each device has one for each of its streams; more than the budget is a "
        "mistake in naming.",
        grafana_unit("count"),
        NEUTRAL,
        known(edition, SERVER, "series", "series"),
    )
    return edition.section("Bounds", Tile(shares, 10, 9), Tile(behind, 7, 9), Tile(series, 7, 9))
