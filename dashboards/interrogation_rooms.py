"""Interrogation rooms: whether interviews were recorded without a gap, and how the rooms are."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of
from dashboards.edition import NOW, SCOPES, Board, Edition, now_of
from dashboards.influxql import newest, over_time, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import device_column, known, org_column, read, shared, summed
from dashboards.panels import (
    GREEN,
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
from dashboards.units import SPAN, grafana_unit
from fleet_server.standing.measures import INTERVIEWS

CLASS: Final = "interrogation_room"
SCOPE: Final = SCOPES[Board.INTERROGATION_ROOMS]
COVERED: Final = (Step(None, RED), Step(0.999, ORANGE), Step(1, GREEN))
"""An interview is recorded whole, or somebody has to say why not."""
WARM: Final = (Step(None, ORANGE), Step(17, PLAIN), Step(28, ORANGE))
HUMID: Final = (Step(None, ORANGE), Step(25, PLAIN), Step(65, ORANGE))
OFFSET: Final = (Step(-60_000, RED), Step(-100, PLAIN), Step(100, RED))
UNSURE: Final = (Step(None, PLAIN), Step(500, ORANGE), Step(1_000, RED))
GAP: Final = (Step(None, PLAIN), Step(1, RED))
SOUND: Final = (Step(None, RED), Step(-60, PLAIN), Step(-1, ORANGE))
"""Below the first nothing is heard, above the last it is cut off."""


def interrogation_rooms(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.INTERROGATION_ROOMS,
        "Interrogation rooms",
        "Whether interviews were recorded without a gap, and how the rooms and their clocks are",
        [_now(edition), _rooms(edition), _environment(edition)],
    )


def _now(edition: Edition) -> Section:
    return edition.section(
        "Interviews of the last day",
        *(Tile(panel, 4, 5) for panel in levels(edition, SCOPE.where)),
        Tile(_sessions(edition), 4, 5),
        Tile(_coverage(edition), 4, 5),
        Tile(_gaps(edition), 4, 5),
    )


def _sessions(edition: Edition) -> grafana.Panel:
    terms = total("sum", "sessions", "under_way")
    queries = totals(INTERVIEWS.name, terms, where=SCOPE.where)
    columns = [summed(edition, "sessions", "interviews"), summed(edition, "under_way", "going on now")]
    about = edition.about(
        "Interviews",
        "Interviews that began in the last day, and those that go on now.",
        now=now_of(INTERVIEWS),
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)


def _coverage(edition: Edition) -> grafana.Panel:
    terms = ['mean("covered") AS "share"', 'min("covered") AS "least"']
    queries = totals(INTERVIEWS.name, terms, where=SCOPE.where)
    columns = [
        shared(edition, "share", "recorded, mean of the rooms", steps=COVERED),
        shared(edition, "least", "in the worst room", steps=COVERED),
    ]
    about = edition.about(
        "Recorded",
        "Of the time of the interviews that ended, the share that was recorded. What is not needs a reason.",
        now=now_of(INTERVIEWS),
        no_value=NONE_SUCH,
    )
    return stat_of(about, *queries, columns=columns)


def _gaps(edition: Edition) -> grafana.Panel:
    names = ("gaps", "gaps_unexplained", "gap_s")
    queries = totals(INTERVIEWS.name, total("sum", *names), where=SCOPE.where)
    columns = [
        summed(edition, "gaps_unexplained", "without a reason", steps=NONE_IS_GOOD),
        summed(edition, "gaps", "gaps", steps=SOME_IS_POOR),
        Column(name="gap_s", title=edition.text("together"), unit=SPAN),
    ]
    about = edition.about(
        "Gaps in recordings",
        "Gaps in the recordings of interviews. Those without a reason are an alarm.",
        now=now_of(INTERVIEWS),
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)


def _rooms(edition: Edition) -> Section:
    return edition.section("Rooms", Tile(_table(edition), 24, 8), Tile(_readings(edition), 24, 8))


def _table(edition: Edition) -> grafana.Panel:
    columns = (
        device_column(edition),
        org_column(edition, Board.STATION),
        known(edition, INTERVIEWS, "under_way", "going on now"),
        known(edition, INTERVIEWS, "sessions", "interviews"),
        known(edition, INTERVIEWS, "covered", "recorded", steps=COVERED, background=True),
        known(edition, INTERVIEWS, "gaps", "gaps", steps=SOME_IS_POOR),
        known(edition, INTERVIEWS, "gap_s", "together"),
        known(edition, INTERVIEWS, "gaps_unexplained", "without a reason", steps=NONE_IS_GOOD),
    )
    about = edition.about(
        "Interviews by room",
        "The interviews of the last day in each room, how much of them was recorded, and the gaps. A click leads to "
        "everything about the room.",
        now=now_of(INTERVIEWS),
        no_value=NONE_SUCH,
    )
    query = newest(INTERVIEWS.name, INTERVIEWS.names, ("device", "org"), where=SCOPE.where)
    return table_of(about, [query], columns, sort_by="covered", descending=False)


def _readings(edition: Edition) -> grafana.Panel:
    shown = {
        "room": ("occupied", "door_open", "temp_c", "humidity_pct"),
        "av": ("channels_ok", "audio_dbfs", "gap_ms"),
        "clock": ("offset_ms", "unc_ms"),
    }
    steps = {
        "temp_c": WARM,
        "humidity_pct": HUMID,
        "audio_dbfs": SOUND,
        "gap_ms": GAP,
        "offset_ms": OFFSET,
        "unc_ms": UNSURE,
    }
    columns = (
        device_column(edition),
        *(
            read(edition, CLASS, stream, name, steps=steps.get(name, ()))
            for stream, names in shown.items()
            for name in names
        ),
    )
    about = edition.about(
        "Rooms now",
        "The newest readings of each room: who is in it, sound and picture, and the clock of its board.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    queries = [newest(stream, names, ("device",), where=SCOPE.where) for stream, names in shown.items()]
    return table_of(about, queries, columns, sort_by="unc_ms", descending=True)


def _environment(edition: Edition) -> Section:
    def lines(title: str, description: str, stream: str, field: str, unit: str, steps: tuple[Step, ...]) -> Tile:
        query = over_time(stream, [field], where=SCOPE.where, by="device")
        about = edition.about(title, description)
        return Tile(lines_of(about, query, alias="$tag_device", unit=grafana_unit(unit), steps=steps), 8, 8)

    return edition.section(
        "Environment and clock",
        lines("Temperature of the rooms", "The mean in each interval.", "room", "temp_c", "Cel", WARM),
        lines("Humidity of the rooms", "The mean in each interval.", "room", "humidity_pct", "%RH", HUMID),
        lines(
            "Clock of the rooms",
            "By how much each board's clock may be off, as its kernel says; the mean in each interval.",
            "clock",
            "unc_ms",
            "ms",
            UNSURE,
        ),
    )
