"""The port :class:`fleet_server.change.store.LayerStore` in the operators' database."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, and_, delete, func, insert, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.twin_tables import config_group, config_group_member, config_layer
from fleet_server.adapters.sql.twins import TWIN_LOCK
from fleet_server.change.layers import (
    GROUPS_MAX,
    MEMBERS_MAX,
    Group,
    Layer,
    LayerDocument,
    Layering,
    LayerKind,
    LayerName,
    Leaf,
    revised,
)
from fleet_server.change.store import Revised, StaleError, TooManyError

_NO_MEMBERS: frozenset[str] = frozenset()


class SqlLayers:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    # layers

    def layering(self) -> Layering:
        """See the port."""
        with database.reading(self._engine) as connection:
            return Layering(_shared(connection), _groups(connection))

    def layer(self, name: LayerName) -> Layer | None:
        """See the port."""
        return self.layers([name]).get(name)

    def layers(self, names: Iterable[LayerName]) -> Mapping[LayerName, Layer]:
        """See the port."""
        kinds: dict[LayerKind, list[str]] = {}
        for name in names:
            kinds.setdefault(name.kind, []).append(name.name)
        with database.reading(self._engine) as connection:
            found = [_layer(row) for kind, those in kinds.items() for row in _rows(connection, kind, those)]
        return {layer.name: layer for layer in found}

    def all_layers(self) -> Sequence[Layer]:
        """See the port."""
        order = list(LayerKind)
        with database.reading(self._engine) as connection:
            return sorted(_shared(connection), key=lambda layer: (order.index(layer.name.kind), layer.name.name))

    def put_layer(
        self, name: LayerName, document: LayerDocument, *, expected: int | None, by: str, now_ms: int
    ) -> Layer:
        """See the port."""
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            row = next(iter(_rows(connection, name.kind, [name.name])), None)
            before = None if row is None else _layer(row)
            _expect(expected, 0 if before is None else before.revision)
            after = revised(name, before, document, at_ms=now_ms, by=by)
            if before is None:
                connection.execute(insert(config_layer).values(**_columns(after)))
            elif after is not before:
                chosen = and_(config_layer.c.kind == name.kind.value, config_layer.c.name == name.name)
                connection.execute(update(config_layer).where(chosen).values(**_columns(after)))
        return after

    # groups

    def groups(self) -> Sequence[Group]:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _groups(connection)

    def group(self, group: str) -> Group | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _group(connection, group)

    def put_group(
        self, group: str, priority: int, members: Iterable[str], *, expected: int | None, now_ms: int
    ) -> Revised:
        """See the port."""
        wanted = frozenset(members)
        if len(wanted) > MEMBERS_MAX:
            raise TooManyError(f"members: expected at most {MEMBERS_MAX}, got {len(wanted)}")
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            before = _group(connection, group)
            _expect(expected, 0 if before is None else before.revision)
            if before is not None and (before.priority, before.members) == (priority, wanted):
                return Revised(before, before)
            if before is None:
                if connection.execute(select(func.count()).select_from(config_group)).scalar_one() >= GROUPS_MAX:
                    raise TooManyError(f"expected at most {GROUPS_MAX} groups; drop one that is not needed any more")
                row = {"group": group, "priority": priority, "created_ms": now_ms, "revision": 1}
                connection.execute(insert(config_group).values(**row))
            else:
                chosen = config_group.c.group == group
                changed = {"priority": priority, "revision": before.revision + 1}
                connection.execute(update(config_group).where(chosen).values(**changed))
            held = _NO_MEMBERS if before is None else before.members
            for some in database.slices(sorted(held - wanted)):
                gone = and_(config_group_member.c.group == group, config_group_member.c.device.in_(some))
                connection.execute(delete(config_group_member).where(gone))
            if wanted - held:
                rows = [{"group": group, "device": device} for device in sorted(wanted - held)]
                connection.execute(insert(config_group_member), rows)
            return Revised(before, _group(connection, group))

    def drop_group(self, group: str, *, expected: int | None) -> Revised:
        """See the port."""
        with database.writing(self._engine, lock=TWIN_LOCK) as connection:
            before = _group(connection, group)
            _expect(expected, 0 if before is None else before.revision)
            connection.execute(delete(config_group_member).where(config_group_member.c.group == group))
            connection.execute(delete(config_group).where(config_group.c.group == group))
            chosen = and_(config_layer.c.kind == LayerKind.GROUP.value, config_layer.c.name == group)
            connection.execute(delete(config_layer).where(chosen))
        return Revised(before, None)


def _expect(expected: int | None, revision: int) -> None:
    if expected is not None and expected != revision:
        raise StaleError(revision)


def _shared(connection: Connection) -> list[Layer]:
    query = select(config_layer).where(config_layer.c.kind != LayerKind.DEVICE.value)
    return [_layer(row) for row in connection.execute(query)]


def _rows(connection: Connection, kind: LayerKind, names: Sequence[str]) -> list[Row[Any]]:
    column = config_layer.c
    return [
        row
        for some in database.slices(names)
        for row in connection.execute(select(config_layer).where(column.kind == kind.value, column.name.in_(some)))
    ]


def _layer(row: Row[Any]) -> Layer:
    leaves = msgspec.json.decode(row.leaves, type=dict[str, tuple[bool | int | float | str | None, int]])
    name = LayerName(LayerKind(row.kind), row.name)
    return Layer(name, row.revision, {each: Leaf(*pair) for each, pair in leaves.items()}, row.at_ms, row.by)


def _columns(layer: Layer) -> dict[str, Any]:
    return {
        "kind": layer.name.kind.value,
        "name": layer.name.name,
        "revision": layer.revision,
        "leaves": msgspec.json.encode(layer.leaves).decode(),
        "at_ms": layer.at_ms,
        "by": layer.by,
    }


def _group(connection: Connection, group: str) -> Group | None:
    row = connection.execute(select(config_group).where(config_group.c.group == group)).one_or_none()
    if row is None:
        return None
    query = select(config_group_member.c.device).where(config_group_member.c.group == group)
    return Group(
        row.group, row.priority, row.created_ms, row.revision, frozenset(connection.execute(query).scalars())
    )


def _groups(connection: Connection) -> list[Group]:
    members: dict[str, set[str]] = {}
    for group, device in connection.execute(select(config_group_member.c.group, config_group_member.c.device)):
        members.setdefault(group, set()).add(device)
    rows = connection.execute(select(config_group).order_by(config_group.c.group))
    return [
        Group(row.group, row.priority, row.created_ms, row.revision, frozenset(members.get(row.group, ())))
        for row in rows
    ]
