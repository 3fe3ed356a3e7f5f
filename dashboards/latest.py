"""The newest readings of every device: a table for each stream of each device class, made from the class files."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from grafana_foundation_sdk.models import dashboard as grafana

from broker_config import device_classes
from broker_config.device_classes import BOARD, DeviceClass, Field, StreamSpec
from dashboards.edition import Edition
from dashboards.influxql import TAGS, newest
from dashboards.layout import Section, Tile
from dashboards.measured import read
from dashboards.panels import PLAIN, RED, Column, Step, table_of
from dashboards.scopes import Scope
from dashboards.words import CLASSES, FIELDS, STREAMS
from fleet_server.texts import marked

SILENT: Final = marked("no reading in this time")


def latest_sections(
    edition: Edition, scope: Scope, about: tuple[Column, ...], link: grafana.DashboardLink
) -> list[Section]:
    """A collapsed section for each class with its own streams, and one for the board that all of them are.

    *about*: the columns that say which device it is, one for each tag.
    """
    board = device_classes.load(BOARD)
    equipment = [device_classes.load(name) for name in device_classes.names() if name != BOARD]

    def section(kind: DeviceClass, tiles: Iterator[Tile]) -> Section:
        title = edition.text("Newest readings: {kind}", kind=edition.text(CLASSES[kind.name]))
        return Section(title, tuple(tiles), collapsed=True)

    def tiles(kind: DeviceClass, streams: dict[str, str]) -> Iterator[Tile]:
        for name, where in streams.items():
            yield Tile(_table(edition, kind, name, where, about, link), 12, 8)

    return [
        *(
            section(kind, tiles(kind, dict.fromkeys(_own_streams(kind, board), scope.and_class(kind.name))))
            for kind in equipment
        ),
        section(board, tiles(board, {name: _of_board(scope, name, equipment) for name in _read(board)})),
    ]


def _read(kind: DeviceClass) -> dict[str, StreamSpec]:
    """Without the journal: events, not readings."""
    return {name: spec for name, spec in kind.streams.items() if spec.fields}


def _own_streams(kind: DeviceClass, board: DeviceClass) -> dict[str, StreamSpec]:
    return {name: spec for name, spec in _read(kind).items() if spec != board.streams.get(name)}


def _of_board(scope: Scope, stream: str, equipment: Sequence[DeviceClass]) -> str:
    """But of those classes that have a stream of that name of their own."""
    spec = device_classes.load(BOARD).streams[stream]
    others = (other.name for other in equipment if other.streams[stream] != spec)
    return " AND ".join([scope.where, *(f"\"device_class\" != '{name}'" for name in others)])


def _table(
    edition: Edition,
    kind: DeviceClass,
    stream: str,
    where: str,
    about: tuple[Column, ...],
    link: grafana.DashboardLink,
) -> grafana.Panel:
    spec = kind.streams[stream]
    text = edition.text
    title = text("{kind}: {stream}", kind=text(CLASSES[kind.name]), stream=text(STREAMS[stream]))
    said = edition.about_named(title, _description(edition, spec), link, no_value=text(SILENT))
    columns = (
        *about,
        *(read(edition, kind.name, stream, field, steps=plausible(of)) for field, of in spec.fields.items()),
    )
    query = newest(stream, list(spec.fields), TAGS, where=where)
    return table_of(said, [query], columns, sort_by="device", descending=False)


def plausible(of: Field) -> tuple[Step, ...]:
    """Red outside the field's range; both ends belong to it, and a step holds from its value on.

    The first begins at the lowest number that JSON has, not at None: Grafana's library takes that for 0 where nobody
    has replaced it, and then never comes to the steps of negative values.
    """
    return (Step(-sys.float_info.max, RED), Step(of.min, PLAIN), Step(math.nextafter(of.max, math.inf), RED))


def _description(edition: Edition, spec: StreamSpec) -> str:
    text = edition.text
    told = [
        text("The newest readings, made every {every_s} s.", every_s=f"{spec.every_s:g}")
        if spec.every_s
        else text("The newest readings."),
        text("Red is outside of what is plausible."),
    ]
    fields = (
        text(
            "{field}: {description}; plausible from {low} to {high}",
            **_plausible_range(of),
            **_named(edition, name, of),
        )
        if of.description
        else text("{field}: plausible from {low} to {high}", **_plausible_range(of), field=text(FIELDS[name]))
        for name, of in spec.fields.items()
    )
    return " ".join(told) + "\n\n" + "\n".join(f"- {line}" for line in fields)


def _plausible_range(of: Field) -> dict[str, str]:
    return {"low": f"{of.min:g}", "high": f"{of.max:g}"}


def _named(edition: Edition, name: str, of: Field) -> dict[str, str]:
    return {"field": edition.text(FIELDS[name]), "description": edition.text(of.description)}
