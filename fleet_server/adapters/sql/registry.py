"""The port :class:`fleet_server.registry.store.Registry` in the operator's database.

Device, node and unit are each written by one rule: what is to be there is compared with what is, and only the
difference is written. A single change is an import of one row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import true as sql_true

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.device_rows import (
    NOTHING_REPORTED,
    UPDATE_DEVICE,
    UPDATE_REPORTED,
    below,
    bound,
    conditions,
    device_of,
    device_rows_of,
    heard_again,
    heard_first,
    is_news,
    registration_of,
    said_columns,
)
from fleet_server.adapters.sql.org_rows import check_children, node_columns, nodes_by_name, put_units, units_by_name
from fleet_server.adapters.sql.tables import device as devices
from fleet_server.adapters.sql.tables import device_place, duty_unit, org_node, person_grant, token_grant
from fleet_server.projection.labels import Labels
from fleet_server.registry import tree
from fleet_server.registry.model import (
    NODES_MAX,
    Device,
    DeviceFilter,
    DutyUnit,
    FullError,
    HeldUnit,
    InUseError,
    OrgNode,
    PlacedNode,
    Registration,
    Reported,
    StaleError,
    TakenError,
    Tally,
    UnknownError,
)
from fleet_server.registry.places import Place, Places
from fleet_server.registry.store import Imported


class SqlRegistry:
    """See the module's docstring. One process owns a database's registry: labels are kept in its memory."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated. Raises StoreError."""
        self._engine = engine
        self._changing = Lock()
        self._tell_placed: list[Callable[[Sequence[str]], None]] = []
        with database.reading(self._engine) as connection:
            rows = connection.execute(select(device_place).order_by(device_place.c.device, device_place.c.from_ms))
            self._places = Places(Place(*row) for row in rows)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, list[Place]]]:
        """A transaction, and the places that count once it is committed."""
        places: list[Place] = []
        with self._changing:
            with database.writing(self._engine) as connection:
                yield connection, places
                if places:
                    connection.execute(insert(device_place), [place._asdict() for place in places])
            for place in places:
                self._places.add(place)
        if places:
            for tell in self._tell_placed:
                tell([place.device for place in places])

    # devices

    def device(self, device: str) -> Device | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            row = connection.execute(select(devices).where(devices.c.device == device)).one_or_none()
        return None if row is None else device_of(row)

    def devices(self, wanted: DeviceFilter, *, after: str, rows_max: int) -> Sequence[Device]:
        """See the port."""
        query = select(devices).where(devices.c.device > after, *conditions(wanted))
        with database.reading(self._engine) as connection:
            rows = connection.execute(query.order_by(devices.c.device).limit(rows_max)).all()
        return [device_of(row) for row in rows]

    def tallies(self) -> Sequence[Tally]:
        """See the port."""
        place = (devices.c.path, devices.c.device_class)
        facts = (devices.c.connected, devices.c.reporting, devices.c.healthy)
        counts = [func.count().filter(fact.is_(sql_true())) for fact in facts]
        with database.reading(self._engine) as connection:
            rows = connection.execute(select(*place, func.count(), *counts).group_by(*place).order_by(*place)).all()
        return [Tally(*row) for row in rows]

    def register(self, registration: Registration, *, expected: int | None, create: bool, now_ms: int) -> Device:
        """See the port."""
        with self._writing() as (connection, places):
            row = connection.execute(select(devices).where(devices.c.device == registration.device)).one_or_none()
            if row is None and not create:
                raise UnknownError("device", registration.device)
            _expect(expected, 0 if row is None else row.revision)
            self._apply(connection, [registration], places, now_ms)
            row = connection.execute(select(devices).where(devices.c.device == registration.device)).one()
        return device_of(row)

    def forget(self, device: str, *, expected: int | None, now_ms: int) -> None:
        """See the port."""
        with self._writing() as (connection, places):
            row = connection.execute(select(devices).where(devices.c.device == device)).one_or_none()
            if row is None or row.registered_ms is None:
                raise UnknownError("device", device)
            _expect(expected, row.revision)
            self._place(places, device, row.reported_class, "", now_ms)
            if row.reported_ms is None:
                connection.execute(delete(devices).where(devices.c.device == device))
            else:
                said = dict.fromkeys(("serial", "node", "unit", "registered_ms"))
                bare = {"device_class": row.reported_class, "path": "", "note": "", "revision": 0, **said}
                connection.execute(update(devices).where(devices.c.device == device).values(bare))

    def import_devices(self, rows: Sequence[Registration], *, now_ms: int, dry_run: bool) -> Imported:
        """See the port."""
        with self._writing() as (connection, places):
            imported = self._apply(connection, rows, places, now_ms)
            if dry_run:
                places.clear()
                connection.rollback()
        return imported

    def _apply(
        self, connection: Connection, rows: Sequence[Registration], places: list[Place], now_ms: int
    ) -> Imported:
        paths = {row.node: row.path for row in connection.execute(select(org_node.c.node, org_node.c.path))}
        units = set(connection.execute(select(duty_unit.c.unit)).scalars())
        held = {row.device: row for row in device_rows_of(connection, devices.c.device, [row.device for row in rows])}
        created: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for wanted in rows:
            _known(wanted, paths, units)
            before = held.get(wanted.device)
            path = "" if wanted.node is None else paths[wanted.node]
            if before is not None and before.registered_ms is not None and registration_of(before) == wanted:
                continue
            said = said_columns(wanted, path)
            if before is None:
                created.append({**NOTHING_REPORTED, **said, "registered_ms": now_ms, "revision": 1})
            else:
                first = now_ms if before.registered_ms is None else before.registered_ms
                changed.append({**said, "registered_ms": first, "revision": before.revision + 1})
            if before is None or (before.device_class, before.path) != (wanted.device_class, path):
                self._place(places, wanted.device, wanted.device_class, path, now_ms)
        self._serials(connection, [*created, *changed], {name: row.serial for name, row in held.items()})
        if created:
            connection.execute(insert(devices), created)
        if changed:
            connection.execute(UPDATE_DEVICE, [bound(row) for row in changed])
        return Imported(
            tuple(row["device"] for row in created),
            tuple(row["device"] for row in changed),
            len(rows) - len(created) - len(changed),
        )

    def _serials(self, connection: Connection, rows: Sequence[dict[str, Any]], held: dict[str, str | None]) -> None:
        """Refuse a serial that another device keeps, and free those that change hands."""
        changing = {row["device"] for row in rows}
        taking: dict[str, str] = {}
        for row in rows:
            serial = row["serial"]
            if serial is not None and taking.setdefault(serial, row["device"]) != row["device"]:
                raise TakenError(f"{row['device']}: serial {serial} is given to {taking[serial]} as well")
        for other in device_rows_of(connection, devices.c.serial, list(taking)):
            if other.device not in changing:
                raise TakenError(f"{taking[other.serial]}: serial {other.serial} is {other.device}'s")
        freed = [row["device"] for row in rows if held.get(row["device"]) not in {None, row["serial"]}]
        for names in database.slices(freed):
            connection.execute(update(devices).where(devices.c.device.in_(names)).values(serial=None))

    def _place(self, places: list[Place], device: str, device_class: str, path: str, now_ms: int) -> None:
        newest = self._places.newest_ms(device)
        places.append(Place(device, now_ms if newest is None else max(now_ms, newest + 1), device_class, path))

    def heard(self, said: Iterable[tuple[str, Reported]], *, now_ms: int) -> None:
        """See the port."""
        found = dict(said)
        with self._writing() as (connection, places):
            held = {row.device: row for row in device_rows_of(connection, devices.c.device, list(found))}
            new = [name for name in found if name not in held]
            if new:
                connection.execute(insert(devices), [heard_first(name, found[name]) for name in new])
            again = [(held[name], said) for name, said in found.items() if name in held and is_news(held[name], said)]
            if again:
                connection.execute(UPDATE_REPORTED, [heard_again(row, reported) for row, reported in again])
            for name in new:
                self._place(places, name, found[name].device_class, "", now_ms)
            for row, reported in again:
                if row.registered_ms is None and row.device_class != reported.device_class:
                    self._place(places, row.device, reported.device_class, row.path, now_ms)

    def knows(self, device: str) -> bool:
        """See the port."""
        return self._places.newest_ms(device) is not None

    def placed(self, devices_: Sequence[str] | None) -> Sequence[tuple[str, str, str]]:
        """See the port."""
        query = select(devices.c.device, devices.c.device_class, devices.c.path)
        with database.reading(self._engine) as connection:
            if devices_ is None:
                return [tuple(row) for row in connection.execute(query.order_by(devices.c.device))]
            return [
                tuple(row)
                for some in database.slices(devices_)
                for row in connection.execute(query.where(devices.c.device.in_(some)))
            ]

    def when_placed(self, tell: Callable[[Sequence[str]], None]) -> None:
        """See the port."""
        self._tell_placed.append(tell)

    def labels(self, device: str, at_ms: int) -> Labels:
        """See the port."""
        return self._places.labels(device, at_ms)

    # the organisation

    def nodes(self) -> Sequence[PlacedNode]:
        """See the port."""
        with database.reading(self._engine) as connection:
            return sorted(nodes_by_name(connection).values(), key=lambda placed: placed.path)

    def put_node(self, node: OrgNode, *, expected: int | None, create: bool, now_ms: int) -> PlacedNode:
        """See the port."""
        with self._writing() as (connection, places):
            held = nodes_by_name(connection)
            _expect_one(held.get(node.node), "node", node.node, expected, create=create)
            self._put_nodes(connection, [node], held, places, now_ms)
            return nodes_by_name(connection)[node.node]

    def drop_node(self, node: str, *, expected: int | None) -> None:
        """See the port."""
        with self._writing() as (connection, _):
            _expect_one(nodes_by_name(connection).get(node), "node", node, expected, create=False)
            for what, column in (
                ("nodes stand below it", org_node.c.parent),
                ("units belong to it", duty_unit.c.node),
                ("devices belong to it", devices.c.node),
                ("grants are for it", token_grant.c.node),
                ("grants of persons are for it", person_grant.c.node),
            ):
                _unused(connection, column, node, what)
            connection.execute(delete(org_node).where(org_node.c.node == node))

    def import_nodes(self, rows: Sequence[OrgNode], *, now_ms: int, dry_run: bool) -> Imported:
        """See the port."""
        with self._writing() as (connection, places):
            imported = self._put_nodes(connection, tree.in_order(rows), nodes_by_name(connection), places, now_ms)
            if dry_run:
                places.clear()
                connection.rollback()
        return imported

    def _put_nodes(
        self,
        connection: Connection,
        rows: Sequence[OrgNode],
        held: dict[str, PlacedNode],
        places: list[Place],
        now_ms: int,
    ) -> Imported:
        created: list[str] = []
        changed: list[str] = []
        for node in rows:
            before = held.get(node.node)
            if before is not None and before.node == node:
                continue
            path = tree.path_of(node, held)
            if before is None:
                created.append(node.node)
                held[node.node] = PlacedNode(node, path, 1)
                connection.execute(insert(org_node).values(**node_columns(held[node.node])))
                continue
            changed.append(node.node)
            held[node.node] = PlacedNode(node, path, before.revision + 1)
            check_children(node, held)
            where = org_node.c.node == node.node
            connection.execute(update(org_node).where(where).values(**node_columns(held[node.node])))
            if path != before.path:
                self._move(connection, before.path, path, held, places, now_ms)
        if created and len(held) > NODES_MAX:
            raise FullError("node", NODES_MAX)
        return Imported(tuple(created), tuple(changed), len(rows) - len(created) - len(changed))

    def _move(
        self,
        connection: Connection,
        old: str,
        new: str,
        held: dict[str, PlacedNode],
        places: list[Place],
        now_ms: int,
    ) -> None:
        """What stands below the node that moved, and the devices there."""
        for name, placed in list(held.items()):
            path = tree.moved(old, new, [placed.path]).get(placed.path)
            if path is not None and path != placed.path:
                held[name] = PlacedNode(placed.node, path, placed.revision)
                connection.execute(update(org_node).where(org_node.c.node == name).values(path=path))
        rows = connection.execute(
            select(devices.c.device, devices.c.device_class, devices.c.path).where(below(old))
        ).all()
        for row in rows:
            path = tree.moved(old, new, [row.path])[row.path]
            connection.execute(update(devices).where(devices.c.device == row.device).values(path=path))
            self._place(places, row.device, row.device_class, path, now_ms)

    # duty units

    def units(self) -> Sequence[HeldUnit]:
        """See the port."""
        with database.reading(self._engine) as connection:
            return sorted(units_by_name(connection).values(), key=lambda held: held.unit.unit)

    def put_unit(self, unit: DutyUnit, *, expected: int | None, create: bool) -> HeldUnit:
        """See the port."""
        with self._writing() as (connection, _):
            held = units_by_name(connection)
            _expect_one(held.get(unit.unit), "unit", unit.unit, expected, create=create)
            put_units(connection, [unit], held)
            return units_by_name(connection)[unit.unit]

    def drop_unit(self, unit: str, *, expected: int | None) -> None:
        """See the port."""
        with self._writing() as (connection, _):
            _expect_one(units_by_name(connection).get(unit), "unit", unit, expected, create=False)
            _unused(connection, devices.c.unit, unit, "devices belong to it")
            connection.execute(delete(duty_unit).where(duty_unit.c.unit == unit))

    def import_units(self, rows: Sequence[DutyUnit], *, dry_run: bool) -> Imported:
        """See the port."""
        with self._writing() as (connection, _):
            imported = put_units(connection, rows, units_by_name(connection))
            if dry_run:
                connection.rollback()
        return imported


def _expect(expected: int | None, revision: int) -> None:
    if expected is not None and expected != revision:
        raise StaleError(revision)


def _expect_one(
    held: PlacedNode | HeldUnit | None, what: str, name: str, expected: int | None, *, create: bool
) -> None:
    if held is None and not create:
        raise UnknownError(what, name)
    _expect(expected, 0 if held is None else held.revision)


def _unused(connection: Connection, column: ColumnElement[Any], name: str, what: str) -> None:
    count = connection.execute(select(func.count()).where(column == name)).scalar_one()
    if count:
        raise InUseError(f"{name}: {count} {what}")


def _known(wanted: Registration, paths: dict[str, str], units: set[str]) -> None:
    if wanted.node is not None and wanted.node not in paths:
        raise UnknownError("node", wanted.node)
    if wanted.unit is not None and wanted.unit not in units:
        raise UnknownError("unit", wanted.unit)
