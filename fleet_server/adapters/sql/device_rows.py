"""Rows of devices, and what asks for some of them: as the registry's values, and as columns."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, false, func, or_, select, update
from sqlalchemy import true as sql_true

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import device as devices
from fleet_server.adapters.sql.twin_tables import twin
from fleet_server.change.twins import Drift
from fleet_server.registry.model import PATH_SEPARATOR, Device, DeviceFilter, Facts, Registration, Reported

_AFTER_SEPARATOR: Final = chr(ord(PATH_SEPARATOR) + 1)


def device_rows_of(connection: Connection, column: ColumnElement[Any], names: Sequence[str]) -> Iterator[Row[Any]]:
    for some in database.slices(names):
        yield from connection.execute(select(devices).where(column.in_(some)))


def conditions(wanted: DeviceFilter) -> Iterator[ColumnElement[bool]]:
    column = devices.c
    if wanted.device_class is not None:
        yield column.device_class == wanted.device_class
    if wanted.unit is not None:
        yield column.unit == wanted.unit
    for fact, value in (
        (column.connected, wanted.connected),
        (column.reporting, wanted.reporting),
        (column.healthy, wanted.healthy),
    ):
        if value is not None:
            yield fact.is_(sql_true() if value else false())
    if wanted.registered is not None:
        yield column.registered_ms.is_not(None) if wanted.registered else column.registered_ms.is_(None)
    if wanted.path is not None:
        yield below(wanted.path)
    if wanted.within is not None:
        yield or_(false(), *(below(path) for path in wanted.within))
    if wanted.drift == Drift.NEVER_REPORTED:
        yield column.device.not_in(select(twin.c.device).where(twin.c.drift != wanted.drift))
    elif wanted.drift is not None:
        yield column.device.in_(select(twin.c.device).where(twin.c.drift == wanted.drift))
    if wanted.text is not None:
        yield or_(column.device.startswith(wanted.text, autoescape=True), _begins(column.serial, wanted.text))


def _begins(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    # not LIKE, which SQLite compares without regard to case
    return and_(column >= text, func.substr(column, 1, len(text)) == text)


def below(path: str, column: ColumnElement[str] = devices.c.path) -> ColumnElement[bool]:
    """The node at *path*, and what stands below it: one range of the index and one place."""
    low, high = path + PATH_SEPARATOR, path + _AFTER_SEPARATOR
    if PATH_SEPARATOR not in path:
        # most of the fleet is below the root, and sorting that by id costs more than reading a page in its order:
        # an expression keeps the planner from the index
        column = column + ""
    return or_(column == path, and_(column >= low, column < high))


NOTHING_REPORTED: Final[dict[str, Any]] = {
    "agent": "",
    "hardware": "",
    "profile": "",
    "profile_digest": "",
    "reported_class": "",
    "reported_ms": None,
    "connected": False,
    "reporting": False,
    "healthy": False,
}
_SAID: Final = ("device_class", "serial", "node", "path", "unit", "note", "registered_ms", "revision")
UPDATE_DEVICE: Final = (
    update(devices)
    .where(devices.c.device == bindparam("b_device"))
    .values({name: bindparam("b_" + name) for name in _SAID})
)
_REPORTED: Final = ("device_class", "agent", "hardware", "profile", "profile_digest", "reported_class", "reported_ms")
UPDATE_REPORTED: Final = (
    update(devices)
    .where(devices.c.device == bindparam("b_device"))
    .values({name: bindparam("b_" + name) for name in _REPORTED})
)


def said_columns(wanted: Registration, path: str) -> dict[str, Any]:
    return {
        "device": wanted.device,
        "device_class": wanted.device_class,
        "serial": wanted.serial,
        "node": wanted.node,
        "path": path,
        "unit": wanted.unit,
        "note": wanted.note,
    }


def _reported_columns(reported: Reported) -> dict[str, Any]:
    return {
        "agent": reported.agent,
        "hardware": reported.hardware,
        "profile": reported.profile,
        "profile_digest": reported.profile_digest,
        "reported_class": reported.device_class,
        "reported_ms": reported.at_ms,
    }


def heard_first(name: str, reported: Reported) -> dict[str, Any]:
    bare = said_columns(Registration(name, reported.device_class), "")
    return {**NOTHING_REPORTED, **bare, "registered_ms": None, "revision": 0, **_reported_columns(reported)}


def heard_again(row: Row[Any], reported: Reported) -> dict[str, Any]:
    device_class = reported.device_class if row.registered_ms is None else row.device_class
    return bound({"device": row.device, "device_class": device_class, **_reported_columns(reported)})


def bound(columns: dict[str, Any]) -> dict[str, Any]:
    """As the prepared updates name them: a column's own name is taken by SET."""
    return {"b_" + name: value for name, value in columns.items()}


def registration_of(row: Row[Any]) -> Registration:
    return Registration(row.device, row.device_class, row.serial, row.node, row.unit, row.note)


def device_of(row: Row[Any]) -> Device:
    return Device(
        registration_of(row),
        row.path,
        row.registered_ms,
        row.revision,
        _reported(row),
        Facts(row.connected, row.reporting, row.healthy),
    )


def is_news(row: Row[Any], said: Reported) -> bool:
    return said.at_ms is not None and replace(_reported(row), at_ms=said.at_ms) != said


def _reported(row: Row[Any]) -> Reported:
    return Reported(row.reported_class, row.agent, row.hardware, row.profile, row.profile_digest, row.reported_ms)
