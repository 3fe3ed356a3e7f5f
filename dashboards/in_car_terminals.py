"""In-car terminals: where the cars are, and whether supply, cameras and radio are as they should be."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from dashboards.charts import lines_of, map_of
from dashboards.edition import NOW, SCOPES, Board, Edition
from dashboards.influxql import devices_where, newest, over_time, total, totals
from dashboards.layout import Section, Tile
from dashboards.measured import device_column, org_column, read, summed
from dashboards.panels import GREEN, NEUTRAL, NONE_IS_GOOD, ORANGE, PLAIN, RED, Step, stat_of, table_of
from dashboards.presence import NONE_SUCH, SILENT, levels
from dashboards.units import grafana_unit

CLASS: Final = "in_car_terminal"
SCOPE: Final = SCOPES[Board.IN_CAR_TERMINALS]
SUPPLY: Final = (Step(None, RED), Step(11.8, ORANGE), Step(12.2, GREEN))
"""Of a 12 V battery: below 11.8 V it is all but empty."""
RADIO: Final = (Step(None, RED), Step(-110, ORANGE), Step(-95, GREEN))
COOLANT: Final = (Step(None, PLAIN), Step(105, ORANGE), Step(115, RED))
OLD: Final = (Step(None, GREEN), Step(10, ORANGE), Step(60, RED))
"""Of a position, in seconds."""


def in_car_terminals(edition: Edition) -> grafana.Dashboard:
    """The whole dashboard."""
    return edition.dashboard(
        Board.IN_CAR_TERMINALS,
        "In-car terminals",
        "Where the cars are, and whether supply, cameras and radio are as they should be",
        [_now(edition), _where(edition), _over_time(edition)],
    )


def _now(edition: Edition) -> Section:
    return edition.section(
        "Now",
        *(Tile(panel, 4, 5) for panel in levels(edition, SCOPE.where)),
        Tile(_driving(edition), 4, 5),
        Tile(_cameras(edition), 5, 5),
        Tile(_lowest_supply(edition), 3, 5),
    )


def _driving(edition: Edition) -> grafana.Panel:
    queries = totals("vehicle", total("sum", "ignition"), where=SCOPE.where)
    about = edition.about("Ignition on", "Cars that are driven, or may be at any moment.", now=NOW, no_value=SILENT)
    return stat_of(about, *queries, steps=NEUTRAL)


def _cameras(edition: Edition) -> grafana.Panel:
    terms = ['sum("n_total") - sum("n_ok") AS "without"', *total("sum", "n_total")]
    queries = totals("channels", terms, where=SCOPE.where)
    columns = [
        summed(edition, "without", "without a picture", steps=NONE_IS_GOOD),
        summed(edition, "n_total", "cameras there should be"),
    ]
    about = edition.about(
        "Camera channels", "Cameras of the cars that deliver no picture, of all.", now=NOW, no_value=SILENT
    )
    return stat_of(about, *queries, columns=columns)


def _lowest_supply(edition: Edition) -> grafana.Panel:
    queries = totals("vehicle", total("min", "supply_v"), where=SCOPE.where)
    about = edition.about(
        "Lowest supply", "The lowest supply of all cars: a battery that goes flat.", now=NOW, no_value=SILENT
    )
    return stat_of(about, *queries, unit=grafana_unit("V"), steps=SUPPLY)


def _where(edition: Edition) -> Section:
    return edition.section("Cars", Tile(_map(edition), 24, 12), Tile(_table(edition), 24, 10))


def _map(edition: Edition) -> grafana.Panel:
    shown = ("lat", "lon", "speed_mps", "age_s", "fix")
    about = edition.about(
        "Where the cars are",
        "The newest positions that have a fix; red is older than a minute. A click on a mark tells what it is.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    columns = (
        device_column(edition),
        org_column(edition, Board.STATION),
        *(read(edition, CLASS, "gnss", name, steps=OLD if name == "age_s" else ()) for name in shown),
    )
    query = devices_where("gnss", '"fix" >= 2', shown, shown, where=SCOPE.where)
    return map_of(about, query, columns, by="age_s", steps=NEUTRAL)


def _table(edition: Edition) -> grafana.Panel:
    shown = {
        "vehicle": ("ignition", "supply_v", "coolant_c"),
        "channels": ("n_ok", "n_total"),
        "radio": ("rssi_dbm",),
        "gnss": ("age_s", "fix"),
    }
    steps = {"supply_v": SUPPLY, "coolant_c": COOLANT, "rssi_dbm": RADIO, "age_s": OLD}
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
        "Terminals",
        "The newest readings of each car: supply, cameras, radio and position. A click leads to everything about it.",
        now=NOW,
        no_value=NONE_SUCH,
    )
    queries = [newest(stream, names, ("device", "org"), where=SCOPE.where) for stream, names in shown.items()]
    return table_of(about, queries, columns, sort_by="supply_v", descending=False)


def _over_time(edition: Edition) -> Section:
    supply = lines_of(
        edition.about("Supply over time", "The lowest supply of each car in each interval."),
        over_time("vehicle", ["supply_v"], where=SCOPE.where, by="device", how="min"),
        alias="$tag_device",
        unit=grafana_unit("V"),
        steps=SUPPLY,
    )
    radio = lines_of(
        edition.about("Radio over time", "The mean strength of each car's signal in each interval."),
        over_time("radio", ["rssi_dbm"], where=SCOPE.where, by="device"),
        alias="$tag_device",
        unit=grafana_unit("dBm"),
        steps=RADIO,
    )
    return edition.section("Over time", Tile(supply, 12, 9), Tile(radio, 12, 9))
