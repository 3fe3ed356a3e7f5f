"""The newest readings of every device: a table for each stream of each device class, made from the class files."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from broker_config import device_classes
from broker_config.device_classes import BOARD, DeviceClass, Field, StreamSpec
from dashboards.influxql import SELECTED, TAGS, newest, quoted
from dashboards.layout import Section, Tile
from dashboards.panels import PLAIN, RED, About, Column, Step, table_of
from dashboards.units import decimals, grafana_unit

SILENT: Final = "no reading in this time"


def latest_sections(about: tuple[Column, ...], links: tuple[grafana.DashboardLink, ...]) -> list[Section]:
    """A collapsed section for each class with its own streams, and one for the board that all of them are.

    *about*: the columns that say which device it is, one for each tag.
    """
    board = device_classes.load(BOARD)
    equipment = [device_classes.load(name) for name in device_classes.names() if name != BOARD]
    return [
        *(_section(kind, _own_streams(kind, board), _only(kind), about, links) for kind in equipment),
        _section(board, board.streams, "", about, links, without=equipment),
    ]


def _own_streams(kind: DeviceClass, board: DeviceClass) -> dict[str, StreamSpec]:
    return {name: spec for name, spec in kind.streams.items() if spec != board.streams.get(name)}


def _only(kind: DeviceClass) -> str:
    return f" AND \"device_class\" = '{kind.name}'"


def _section(
    kind: DeviceClass,
    streams: dict[str, StreamSpec],
    where: str,
    about: tuple[Column, ...],
    links: tuple[grafana.DashboardLink, ...],
    *,
    without: Sequence[DeviceClass] = (),
) -> Section:
    tiles = tuple(_tiles(kind, streams, where, about, links, without))
    return Section(f"Newest readings: {kind.name}", tiles, collapsed=True)


def _tiles(
    kind: DeviceClass,
    streams: dict[str, StreamSpec],
    where: str,
    about: tuple[Column, ...],
    links: tuple[grafana.DashboardLink, ...],
    without: Sequence[DeviceClass],
) -> Iterator[Tile]:
    for name, spec in streams.items():
        if not spec.fields:
            continue  # the journal: events, not readings
        others = "".join(
            f" AND \"device_class\" != '{other.name}'" for other in without if other.streams[name] != spec
        )
        query = newest(name, list(spec.fields), TAGS, where=f"{SELECTED}{where}{others}")
        columns = (*about, *(_column(field, of) for field, of in spec.fields.items()))
        said = About(title=f"{kind.name}: {name}", description=_description(name, spec), links=links, no_value=SILENT)
        yield Tile(table_of(said, [query], columns, sort_by="device", descending=False), 12, 8)


def _column(name: str, of: Field) -> Column:
    return Column(name=name, unit=grafana_unit(of.unit), decimals=decimals(of.unit), steps=plausible(of))


def plausible(of: Field) -> tuple[Step, ...]:
    """Red outside the field's range; both ends belong to it, and a step holds from its value on.

    The first begins at the lowest number that JSON has, not at None: Grafana's library takes that for 0 where nobody
    has replaced it, and then never comes to the steps of negative values.
    """
    return (Step(-sys.float_info.max, RED), Step(of.min, PLAIN), Step(math.nextafter(of.max, math.inf), RED))


def _description(name: str, spec: StreamSpec) -> str:
    every = f", every {spec.every_s:g} s" if spec.every_s else ""
    fields = "\n".join(
        f"- `{field}`{f': {of.description}' if of.description else ''}; plausible from {of.min:g} to {of.max:g}"
        for field, of in spec.fields.items()
    )
    return f"The newest readings of {quoted(name)}{every}. Red is outside of what is plausible.\n\n{fields}"
