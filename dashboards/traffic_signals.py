"""Traffic signals: what each crossing does, whether it is safe, and how its cabinet is."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of, timeline_of
from dashboards.edition import NOW, SCOPES, Board, Edition
from dashboards.influxql import newest, over_time, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import device_column, org_column, read, shared
from dashboards.panels import (
    GREEN,
    NONE_IS_GOOD,
    ORANGE,
    PLAIN,
    RED,
    SOME_IS_POOR,
    YES_IS_BAD,
    YES_IS_GOOD,
    Step,
    stat_of,
    table_of,
)
from dashboards.presence import NONE_SUCH, SILENT, levels
from dashboards.units import COUNT, grafana_unit
from dashboards.words import modes
from fleet_server.standing.measures import PRESENCE

CLASS: Final = "traffic_light"
SCOPE: Final = SCOPES[Board.TRAFFIC_SIGNALS]
MODE: Final = (Step(None, RED), Step(1, ORANGE), Step(2, GREEN), Step(4, "blue"))
"""Off, flash, fixed time and actuated, by hand."""
CABINET: Final = (Step(None, ORANGE), Step(-10, PLAIN), Step(50, ORANGE), Step(65, RED))
MAINS: Final = (Step(None, RED), Step(207, PLAIN), Step(253, RED))
"""230 V, ten per cent either way."""
UP: Final = (Step(None, RED), Step(0.95, ORANGE), Step(0.999, GREEN))


def traffic_signals(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.TRAFFIC_SIGNALS,
        "Traffic signals",
        "What each crossing does, whether it is safe, and how its cabinet is",
        [_now(edition), _each(edition), _cabinets(edition)],
    )


def _now(edition: Edition) -> Section:
    return edition.section(
        "Now",
        *(Tile(panel, 4, 5) for panel in levels(edition, SCOPE.where)),
        Tile(_conflicts(edition), 4, 5),
        Tile(_lamps(edition), 4, 5),
        Tile(_doors(edition), 4, 5),
    )


def _conflicts(edition: Edition) -> grafana.Panel:
    term = 'count("conflict_ok") - sum("conflict_ok") AS "conflicts"'
    queries = totals("monitor", [term], where=SCOPE.where)
    about = edition.about(
        "Conflicts", "Crossings whose conflict monitor sees a conflict. It must be 0.", now=NOW, no_value=SILENT
    )
    return stat_of(about, *queries, steps=NONE_IS_GOOD)


def _lamps(edition: Edition) -> grafana.Panel:
    queries = totals("lamps", total("sum", "failed"), where=SCOPE.where)
    about = edition.about("Lamps failed", "Lamps that do not draw their current.", now=NOW, no_value=SILENT)
    return stat_of(about, *queries, steps=SOME_IS_POOR)


def _doors(edition: Edition) -> grafana.Panel:
    queries = totals("cabinet", total("sum", "door_open"), where=SCOPE.where)
    about = edition.about("Open cabinets", "Cabinets whose door stands open.", now=NOW, no_value=SILENT)
    return stat_of(about, *queries, steps=SOME_IS_POOR)


def _each(edition: Edition) -> Section:
    return edition.section(
        "Crossings", Tile(_table(edition), 24, 10), Tile(_uptime(edition), 9, 10), Tile(_modes(edition), 15, 10)
    )


def _table(edition: Edition) -> grafana.Panel:
    shown = {
        "signal": ("mode", "plan", "cycle_s"),
        "monitor": ("conflict_ok",),
        "lamps": ("failed", "dimmed"),
        "cabinet": ("door_open", "temp_c", "mains_v"),
    }
    steps = {
        "mode": MODE,
        "conflict_ok": YES_IS_GOOD,
        "failed": SOME_IS_POOR,
        "door_open": YES_IS_BAD,
        "temp_c": CABINET,
        "mains_v": MAINS,
    }
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
        "Signals",
        "The newest readings of each crossing: mode and plan, conflict, lamps and cabinet. A click leads to "
        "everything about it.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    queries = [newest(stream, names, ("device", "org"), where=SCOPE.where) for stream, names in shown.items()]
    return table_of(about, queries, columns, sort_by="mode", descending=False)


def _uptime(edition: Edition) -> grafana.Panel:
    queries = [
        f'SELECT mean("connected") AS "connected" FROM "{PRESENCE.name}" WHERE {SCOPE.where} GROUP BY "device"',
        f'SELECT mean("conflict_ok") AS "conflict_ok" FROM "monitor" WHERE {SCOPE.where} GROUP BY "device"',
    ]
    columns = (
        device_column(edition),
        shared(edition, "connected", "connected", steps=UP),
        shared(edition, "conflict_ok", "free of conflict", steps=UP),
    )
    about = edition.about(
        "Uptime",
        "Of the time that is chosen above, the share in which each crossing was connected; and of its readings, the "
        "share without a conflict.",
        no_value=NONE_SUCH,
    )
    return table_of(about, queries, columns, sort_by="connected", descending=False)


def _modes(edition: Edition) -> grafana.Panel:
    about = edition.about(
        "Modes over time",
        "What each crossing did: red is off, orange flash, green fixed time or actuated, blue by hand. A hole is a "
        "time of which nothing is known.",
    )
    query = over_time("signal", ["mode"], where=SCOPE.where, by="device", how="last")
    return timeline_of(about, query, alias="$tag_device", unit=COUNT, steps=MODE, words=modes(edition.text), high=4)


def _cabinets(edition: Edition) -> Section:
    temperature = lines_of(
        edition.about("Temperature of the cabinets", "The highest in each cabinet in each interval."),
        over_time("cabinet", ["temp_c"], where=SCOPE.where, by="device", how="max"),
        alias="$tag_device",
        unit=grafana_unit("Cel"),
        steps=CABINET,
    )
    mains = lines_of(
        edition.about("Mains of the cabinets", "The lowest in each cabinet in each interval."),
        over_time("cabinet", ["mains_v"], where=SCOPE.where, by="device", how="min"),
        alias="$tag_device",
        unit=grafana_unit("V"),
        steps=MAINS,
    )
    return edition.section("Cabinets", Tile(temperature, 12, 8), Tile(mains, 12, 8))
