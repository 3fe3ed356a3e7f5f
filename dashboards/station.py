"""A station before its shift: what it has, what is fit to be given out, what will not last, what still drains."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.edition import SCOPES, Board, Edition, now_of
from dashboards.influxql import devices_where, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import class_column, devices, known, shared, summed
from dashboards.panels import (
    GREEN,
    ORANGE,
    PLAIN,
    RED,
    YES_IS_GOOD,
    Column,
    Step,
    stat_of,
    table_of,
)
from dashboards.presence import NONE_SUCH, NOW, SILENT, device_count, open_alerts
from dashboards.units import SPAN, grafana_unit
from fleet_server.standing.measures import BYTES, PRESENCE, READINESS, UPLOADS

SCOPE: Final = SCOPES[Board.STATION]
READY: Final = (Step(None, RED), Step(0.8, ORANGE), Step(0.95, GREEN))
FINISH: Final = (Step(None, GREEN), Step(4 * 3600, ORANGE), Step(8 * 3600, RED))
"""A dock that drains for longer than a shift does not have its cameras ready for the next."""
HOUR: Final = (Step(None, RED), Step(3600, ORANGE), Step(2 * 3600, PLAIN))
_READY_NOW: Final = now_of(READINESS)


def station(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.STATION,
        "Station",
        "What a station has, what is fit for the next shift, what will not last through this one, what still drains",
        [_now(edition), _shift(edition), _docks(edition)],
    )


def _now(edition: Edition) -> Section:
    to = edition.to(Board.FLEET, "Each device", keep=["org"])
    return edition.section(
        "Equipment",
        Tile(device_count(edition, SCOPE.where, to), 4, 5),
        Tile(_ready(edition), 7, 5),
        Tile(open_alerts(edition, SCOPE.where_node), 5, 5),
        Tile(_draining(edition), 8, 5),
        Tile(_by_class(edition), 24, 8),
    )


def _ready(edition: Edition) -> grafana.Panel:
    terms = ['mean("ready") AS "share"', *total("sum", "ready", "given_out")]
    queries = totals(READINESS.name, terms, where=SCOPE.where)
    columns = [
        shared(edition, "share", "of all", steps=READY),
        summed(edition, "ready", "ready"),
        summed(edition, "given_out", "given out"),
    ]
    about = edition.about(
        "Ready for the next shift",
        "Devices against which nothing speaks: battery, space, agent and self-test are as their class asks for.",
        now=_READY_NOW,
        no_value=SILENT,
    )
    return stat_of(about, *queries, columns=columns)


def _draining(edition: Edition) -> grafana.Panel:
    terms = ['count("files") AS "devices"', *total("sum", "left_bytes"), 'max("finish_s") AS "finish_s"']
    queries = totals(UPLOADS.name, terms, where=SCOPE.where)
    columns = [
        summed(edition, "devices", "devices"),
        Column(name="left_bytes", title=edition.text("still to come"), unit=grafana_unit(BYTES)),
        Column(name="finish_s", title=edition.text("until all is here"), unit=SPAN, steps=FINISH),
    ]
    about = edition.about(
        "Draining",
        "Devices whose files are on their way, in docks or over the air, and when the last of them is through.",
        edition.to(Board.EVIDENCE, "Evidence", keep=["org"]),
        now=now_of(UPLOADS),
        no_value=NONE_SUCH,
    )
    return stat_of(about, *queries, columns=columns)


def _by_class(edition: Edition) -> grafana.Panel:
    presence = ['count("connected") AS "devices"', *total("sum", "connected", "healthy")]
    fitness = ['mean("ready") AS "share"', *total("sum", "ready", "given_out", "in_effect")]
    queries = [
        query
        for measure, terms in ((PRESENCE, presence), (READINESS, fitness))
        for query in totals(measure.name, terms, where=SCOPE.where, by="device_class")
    ]
    columns = (
        class_column(edition),
        summed(edition, "devices", "devices"),
        summed(edition, "connected", "connected"),
        summed(edition, "healthy", "healthy"),
        summed(edition, "ready", "ready"),
        shared(edition, "share", "share ready", steps=READY, background=True),
        summed(edition, "given_out", "given out"),
        summed(edition, "in_effect", "as desired"),
    )
    about = edition.about(
        "By class",
        "How many of each kind there are, and how they stand. As desired: what a device reports is what is desired "
        "of it.",
        edition.to(Board.FLEET, "Each device", keep=["org"]),
        now=NOW,
        no_value="-",
    )
    return table_of(about, queries, columns, sort_by="device_class", descending=False)


def _shift(edition: Edition) -> Section:
    return edition.section("Shift", Tile(_not_ready(edition), 24, 8), Tile(_will_not_last(edition), 24, 8))


def _not_ready(edition: Edition) -> grafana.Panel:
    asked = {
        "battery_ok": "battery",
        "space_ok": "space",
        "agent_ok": "agent",
        "self_test_ok": "self-test",
        "given_out": "given out",
    }
    about = edition.about(
        "Not ready",
        "Devices that should not be given out as they are, and why: what is red is not as their class asks for. A "
        "dash is not asked of it, or not known.",
        now=_READY_NOW,
        no_value=NONE_SUCH,
    )
    columns = (
        *devices(edition, Board.STATION),
        *(
            known(edition, READINESS, name, title, steps=() if name == "given_out" else YES_IS_GOOD)
            for name, title in asked.items()
        ),
    )
    query = devices_where(READINESS.name, '"ready" = 0', ("ready", *asked), tuple(asked), where=SCOPE.where)
    return table_of(about, [query], columns, sort_by="org", descending=False)


def _will_not_last(edition: Edition) -> grafana.Panel:
    shown = ("battery_lasts_s", "space_lasts_s", "shift_left_s")
    about = edition.about(
        "Will not last the shift",
        "Devices whose battery or space, as it went lately, ends before the shift for which they were given out.",
        now=_READY_NOW,
        no_value=NONE_SUCH,
    )
    columns = (
        *devices(edition, Board.STATION),
        known(edition, READINESS, "battery_lasts_s", "battery lasts", steps=HOUR),
        known(edition, READINESS, "space_lasts_s", "space lasts", steps=HOUR),
        known(edition, READINESS, "shift_left_s", "left of the shift"),
    )
    condition = '"battery_lasts_s" < "shift_left_s" OR "space_lasts_s" < "shift_left_s"'
    query = devices_where(READINESS.name, condition, shown, shown, where=SCOPE.where)
    return table_of(about, [query], columns, sort_by="battery_lasts_s", descending=False)


def _docks(edition: Edition) -> Section:
    return edition.section("Docks", Tile(uploads_table(edition, SCOPE.where, Board.STATION), 24, 9))


def uploads_table(edition: Edition, where: str, board: Board) -> grafana.Panel:
    """A line for each device whose files are on their way."""
    about = edition.about(
        "On their way",
        "Devices whose files are on their way: what is still to come of them, how fast it comes, and when all of it "
        "is here.",
        edition.to(Board.EVIDENCE, "Evidence"),
        now=now_of(UPLOADS),
        no_value=NONE_SUCH,
    )
    columns = (
        *devices(edition, board),
        known(edition, UPLOADS, "files", "files"),
        known(edition, UPLOADS, "left_bytes", "still to come"),
        known(edition, UPLOADS, "goodput", "rate"),
        known(edition, UPLOADS, "finish_s", "until all is here", steps=FINISH),
    )
    query = devices_where(UPLOADS.name, '"files" > 0', UPLOADS.names, UPLOADS.names, where=where)
    return table_of(about, [query], columns, sort_by="finish_s", descending=True)
