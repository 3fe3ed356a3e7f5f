"""Rows of twins: what is newest of each device, its histories, and what one transaction writes of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, Table, and_, bindparam, delete, insert, select, update
from sqlalchemy.sql import ColumnElement

from broker_config.twin import ChangeState, Reported, SettingValue
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.device_rows import bound
from fleet_server.adapters.sql.twin_documents import Documents, config_body, digest
from fleet_server.adapters.sql.twin_tables import twin as twins
from fleet_server.adapters.sql.twin_tables import twin_desired, twin_reported
from fleet_server.change.twins import HISTORY_MAX, Aim, Drift, Report, Versions, Wish, drift, next_version

_TWIN: Final = tuple(column.name for column in twins.c if column.name != "device")
_UPDATE: Final = (
    update(twins)
    .where(twins.c.device == bindparam("b_device"))
    .values({name: bindparam(f"b_{name}") for name in _TWIN})
)
_SOURCED: Final = (
    update(twin_desired)
    .where(twin_desired.c.device == bindparam("b_device"), twin_desired.c.number == bindparam("b_number"))
    .values(provenance=bindparam("b_provenance"))
)
_SAID_AGAIN: Final = (
    update(twin_reported)
    .where(twin_reported.c.device == bindparam("b_device"), twin_reported.c.number == bindparam("b_number"))
    .values(version=bindparam("b_version"), boot=bindparam("b_boot"))
)
_PRUNE: Final = {
    table: delete(table).where(table.c.device == bindparam("b_device"), table.c.number <= bindparam("b_number"))
    for table in (twin_desired, twin_reported)
}


class Held(NamedTuple):
    """A row of ``twin``; a device that has none has this one."""

    device: str
    desired_version: int = 0
    desired_number: int = 0
    document: str = ""
    reported_version: int = 0
    reported_number: int = 0
    taken: int = 0
    drift: str = Drift.NEVER_REPORTED.value
    held_by: str = ""


class Writing:
    """What one transaction writes of twins, put together first and written in a few statements."""

    def __init__(self, connection: Connection, documents: Documents, devices: Iterable[str]) -> None:
        self.connection = connection
        self._documents = documents
        self._before = held_of(connection, devices)
        self._after: dict[str, Held] = {}
        self._bodies: dict[str, str] = {}
        self.desired: list[dict[str, Any]] = []
        self.reported: list[dict[str, Any]] = []
        self.sourced: list[dict[str, Any]] = []
        self.said_again: list[dict[str, Any]] = []

    def held(self, device: str) -> Held:
        return self._after.get(device) or self._before.get(device) or Held(device)

    def put(self, held: Held) -> None:
        self._after[held.device] = held

    def body(self, body: str) -> str:
        """Its digest."""
        name = digest(body)
        self._bodies[name] = body
        return name

    def write(self) -> None:
        self._documents.store(self.connection, self._bodies)
        new = [held._asdict() for held in self._after.values() if held.device not in self._before]
        changed = [bound(held._asdict()) for held in self._after.values() if held.device in self._before]
        for statement, rows in (
            (insert(twins), new),
            (_UPDATE, changed),
            (insert(twin_desired), self.desired),
            (insert(twin_reported), self.reported),
            (_SOURCED, self.sourced),
            (_SAID_AGAIN, self.said_again),
        ):
            if rows:
                self.connection.execute(statement, rows)
        for table, entries in ((twin_desired, self.desired), (twin_reported, self.reported)):
            old = [
                bound({"device": entry["device"], "number": entry["number"] - HISTORY_MAX})
                for entry in entries
                if entry["number"] > HISTORY_MAX
            ]
            if old:
                self.connection.execute(_PRUNE[table], old)


def desire(writing: Writing, wish: Wish, document: str, provenance: str, now_ms: int) -> int:
    """The new version."""
    held = writing.held(wish.device)
    version = next_version(held.desired_version, held.taken, now_ms)
    number = held.desired_number + 1
    writing.desired.append(
        {
            "device": wish.device,
            "number": number,
            "version": version,
            "at_ms": now_ms,
            "document": document,
            "provenance": provenance,
            "by": wish.by,
            "origin": wish.origin,
            "rollout": wish.rollout,
            "confirm_s": wish.confirm_s,
            "apply_window": "" if wish.window is None else msgspec.json.encode(wish.window).decode(),
        }
    )
    writing.put(
        held._replace(
            desired_version=version,
            desired_number=number,
            document=document,
            drift=Drift.PENDING.value if held.reported_version else Drift.NEVER_REPORTED.value,
            held_by="",
        )
    )
    return version


def report(
    writing: Writing, device: str, reported: Reported, before: Reported | None, aim: Aim | None, now_ms: int
) -> None:
    held = writing.held(device)
    again = before is not None and _content(before) == _content(reported)
    number = held.reported_number if again else held.reported_number + 1
    if again:
        row = {"device": device, "number": number, "version": reported.version, "boot": reported.boot}
        writing.said_again.append(bound(row))
    else:
        writing.reported.append(
            {
                "device": device,
                "number": number,
                "version": reported.version,
                "at_ms": now_ms,
                "boot": reported.boot,
                "desired": reported.desired,
                "in_force": reported.in_force,
                "state": reported.state.value,
                "reason": reported.reason,
                "waits_for": reported.waits_for,
                "document": writing.body(config_body(reported.config)),
            }
        )
    writing.put(
        held._replace(
            reported_version=reported.version,
            reported_number=number,
            taken=reported.desired,
            drift=drift(aim, Report(now_ms, reported)).value,
        )
    )


def _content(reported: Reported) -> tuple[object, ...]:
    """What of a report makes another entry of the history."""
    return (
        reported.desired,
        reported.in_force,
        reported.state,
        reported.reason,
        reported.waits_for,
        config_body(reported.config),  # as text: true is not 1
    )


def reported_of(row: Row[Any], config: Mapping[str, SettingValue]) -> Reported:
    return Reported(
        1,
        row.version,
        row.boot,
        row.desired,
        row.in_force,
        ChangeState(row.state),
        dict(config),
        row.reason,
        row.waits_for,
    )


def versions_of(held: Held) -> Versions:
    return Versions(held.desired_version, held.reported_version, held.taken)


def held_of(connection: Connection, devices: Iterable[str]) -> dict[str, Held]:
    out: dict[str, Held] = {}
    for some in database.slices(list(devices)):
        for row in connection.execute(select(twins).where(twins.c.device.in_(some))):
            out[row.device] = Held(*row)
    return out


def newest_of(
    connection: Connection, table: Table, number: ColumnElement[int], devices: Iterable[str]
) -> dict[str, Row[Any]]:
    out: dict[str, Row[Any]] = {}
    joined = and_(table.c.device == twins.c.device, table.c.number == number)
    for some in database.slices(list(devices)):
        for row in connection.execute(select(table).join(twins, joined).where(twins.c.device.in_(some))):
            out[row.device] = row
    return out


def history_of(
    connection: Connection, table: Table, device: str, before: int | None, rows_max: int
) -> Sequence[Row[Any]]:
    query = select(table).where(table.c.device == device)
    if before is not None:
        query = query.where(table.c.version < before)
    return connection.execute(query.order_by(table.c.number.desc()).limit(rows_max)).all()
