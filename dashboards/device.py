"""One device: everything about it on one page, what is missing of it, and what happened to it."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from broker_config import device_classes
from broker_config.device_classes import BOARD, StreamSpec
from dashboards.charts import lines_of, timeline_of
from dashboards.edition import SCOPES, Board, Edition, now_of
from dashboards.happenings import happenings, happenings_table
from dashboards.influxql import newest, over_time
from dashboards.layout import Section, Tile
from dashboards.measured import class_column, known, org_column, read
from dashboards.panels import (
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
from dashboards.station import FINISH, HOUR
from dashboards.units import COUNT, SECONDS_A_DAY, suffix
from dashboards.words import CLASSES, STREAMS
from fleet_server.standing.measures import PRESENCE, READINESS, RECORDINGS, UPLOADS, Measure

PLACES: Final = frozenset({"lat", "lon"})
"""On a map, not on a line."""
SCOPE: Final = SCOPES[Board.DEVICE]
CERTIFICATE_DAYS: Final = (Step(None, RED), Step(7, ORANGE), Step(21, PLAIN))
CLOCK: Final = (Step(-60_000, RED), Step(-1_000, PLAIN), Step(1_000, RED))


def device(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.DEVICE,
        "One device",
        "Everything about one device: how it stands, what is missing of it, its readings, what happened to it",
        [_now(edition), _records(edition), _past(edition), *_readings(edition)],
        annotations=[happenings(edition, SCOPE.where)],
    )


def _stat(
    edition: Edition, measure: Measure, title: str, description: str, *columns: Column, no_value: str = SILENT
) -> grafana.Panel:
    query = newest(measure.name, [column.name for column in columns], (), where=SCOPE.where)
    links = (
        edition.to(Board.COMMAND_CENTRE, "Command centre"),
        *edition.to_pages("Who has it, and why something is missing", "/devices/${device}"),
    )
    about = edition.about(title, description, *links, now=now_of(measure), no_value=no_value)
    return stat_of(about, query, steps=NEUTRAL, columns=columns)


def _now(edition: Edition) -> Section:
    stands = _stat(
        edition,
        PRESENCE,
        "Stands",
        "What the server knows of it now.",
        known(edition, PRESENCE, "connected", "connected", steps=YES_IS_GOOD),
        known(edition, PRESENCE, "reporting", "reporting", steps=YES_IS_GOOD),
        known(edition, PRESENCE, "healthy", "healthy", steps=YES_IS_GOOD),
    )
    ready = _stat(
        edition,
        READINESS,
        "Ready",
        "Whether it is fit to be given out, and whether it is as it is desired to be.",
        known(edition, READINESS, "ready", "ready", steps=YES_IS_GOOD),
        known(edition, READINESS, "given_out", "given out"),
        known(edition, READINESS, "in_effect", "as desired", steps=YES_IS_GOOD),
    )
    lasts = _stat(
        edition,
        READINESS,
        "Lasts",
        "Until its battery and its space end, as they went lately, and what is left of its shift.",
        known(edition, READINESS, "battery_lasts_s", "battery lasts", steps=HOUR),
        known(edition, READINESS, "space_lasts_s", "space lasts", steps=HOUR),
        known(edition, READINESS, "shift_left_s", "left of the shift"),
        no_value=NONE_SUCH,
    )
    clock = _stat(
        edition,
        READINESS,
        "Clock",
        "How far its clock was off the server's as last measured, and how far it may be off as it says.",
        known(edition, READINESS, "clock_off_ms", "off by", steps=CLOCK),
        known(edition, READINESS, "clock_unc_ms", "may be off by", steps=CLOCK),
        no_value=NONE_SUCH,
    )
    certificate = stat_of(
        edition.about(
            "Certificate ends in",
            "Days until its certificate ends. It renews it by itself long before.",
            now=now_of(READINESS),
            no_value=NONE_SUCH,
        ),
        f'SELECT last("certificate_s") / {SECONDS_A_DAY} AS "days" FROM "{READINESS.name}" WHERE {SCOPE.where}',
        unit=suffix(edition.text("days")),
        steps=CERTIFICATE_DAYS,
    )
    first = (Tile(_who(edition), 8, 5), Tile(stands, 8, 5), Tile(ready, 8, 5))
    return edition.section("Now", *first, Tile(lasts, 10, 5), Tile(clock, 8, 5), Tile(certificate, 6, 5))


def _who(edition: Edition) -> grafana.Panel:
    columns = (
        class_column(edition),
        org_column(edition, Board.STATION),
        known(edition, PRESENCE, "flaps", "reconnections", steps=(Step(None, PLAIN), Step(3, ORANGE))),
    )
    about = edition.about(
        "What it is, and where it belongs",
        "Its class and its organisation node; a click on the node leads to its equipment. Reconnections are those of "
        "the last hour. Who has it is said by the fleet server alone: names of people are not among the series.",
        edition.to(Board.COMMAND_CENTRE, "Command centre"),
        *edition.to_pages("Who has it, and why something is missing", "/devices/${device}"),
        now=now_of(PRESENCE),
        no_value=NONE_SUCH,
    )
    query = newest(PRESENCE.name, ["flaps"], ("device_class", "org"), where=SCOPE.where)
    return table_of(about, [query], columns, sort_by="org", descending=False)


def _records(edition: Edition) -> Section:
    gaps = _stat(
        edition,
        PRESENCE,
        "Gaps of the last day",
        "What is not there, and whether there is a reason: eviction, a restart, a clock that was set. Lost is what "
        "had been receipted: an alarm.",
        known(edition, PRESENCE, "gaps_unexplained", "without a reason", steps=NONE_IS_GOOD),
        known(edition, PRESENCE, "gaps_explained", "with a reason"),
        known(edition, PRESENCE, "gaps_lost", "lost", steps=NONE_IS_GOOD),
    )
    records = _stat(
        edition,
        PRESENCE,
        "Records",
        "Numbers of its streams that are stored, missing, or in quarantine.",
        known(edition, PRESENCE, "held", "stored"),
        known(edition, PRESENCE, "missing", "missing"),
        known(edition, PRESENCE, "quarantined", "quarantined", steps=SOME_IS_POOR),
    )
    recordings = _stat(
        edition,
        RECORDINGS,
        "Recordings of the last day, of this device",
        "What its journal tells of, against verified files. Overdue are those of the last week, a day later.",
        known(edition, RECORDINGS, "expected", "recordings"),
        known(edition, RECORDINGS, "verified", "verified"),
        known(edition, RECORDINGS, "overdue", "overdue", steps=NONE_IS_GOOD),
        no_value=NONE_SUCH,
    )
    uploads = _stat(
        edition,
        UPLOADS,
        "Files on their way",
        "What is still to come of its files, how fast, and until when.",
        known(edition, UPLOADS, "left_bytes", "still to come"),
        known(edition, UPLOADS, "goodput", "rate"),
        known(edition, UPLOADS, "finish_s", "until all is here", steps=FINISH),
        no_value=NONE_SUCH,
    )
    tiles = (Tile(gaps, 6, 6), Tile(records, 6, 6), Tile(recordings, 6, 6), Tile(uploads, 6, 6))
    return edition.section("Records and recordings", *tiles)


def _past(edition: Edition) -> Section:
    facts = [
        known(edition, PRESENCE, name, title)
        for name, title in (("connected", "connected"), ("reporting", "reporting"), ("healthy", "healthy"))
    ]
    about = edition.about(
        "How it stood over time",
        "When it was connected, reporting, healthy. What happened to it is marked below. A hole is a time at which "
        "the server itself said nothing.",
    )
    query = over_time(PRESENCE.name, [fact.name for fact in facts], where=SCOPE.where, how="min")
    stood = timeline_of(about, query, unit=facts[0].unit, steps=YES_IS_GOOD, columns=facts)
    gaps = lines_of(
        edition.about(
            "Missing over time",
            "Numbers that were missing: a line that falls is what was delivered later.",
        ),
        over_time(PRESENCE.name, ["missing", "quarantined"], where=SCOPE.where, how="max"),
        unit=COUNT,
        columns=[
            known(edition, PRESENCE, "missing", "missing"),
            known(edition, PRESENCE, "quarantined", "quarantined"),
        ],
        low=0,
    )
    table = happenings_table(edition, SCOPE.where)
    return edition.section("What happened", Tile(stood, 12, 7), Tile(gaps, 12, 7), Tile(table, 24, 9))


def _readings(edition: Edition) -> list[Section]:
    """A collapsed section for each class: which of them the device is, only InfluxDB knows."""
    board = device_classes.load(BOARD)
    out = []
    for name in (*CLASSES,):
        own = device_classes.load(name).streams
        streams = {
            stream: spec
            for stream, spec in own.items()
            if spec.fields and (name == BOARD or spec != board.streams.get(stream))
        }
        tiles = [Tile(_lines(edition, name, stream, spec), 8, 8) for stream, spec in streams.items()]
        title = edition.text("Readings: {kind}", kind=edition.text(CLASSES[name]))
        out.append(Section(title, tuple(tiles), collapsed=True))
    return out


def _lines(edition: Edition, device_class: str, stream: str, spec: StreamSpec) -> grafana.Panel:
    about = edition.about_named(
        edition.text(
            "{kind}: {stream}", kind=edition.text(CLASSES[device_class]), stream=edition.text(STREAMS[stream])
        ),
        edition.text("The mean of its readings in each interval. A hole is a time without any."),
    )
    shown = [name for name, of in spec.fields.items() if of.unit not in PLACES]
    columns = [read(edition, device_class, stream, name) for name in shown]
    return lines_of(about, over_time(stream, shown, where=SCOPE.where), unit=COUNT, columns=columns)
