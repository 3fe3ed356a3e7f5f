"""The port :class:`fleet_server.change.rollout_store.RolloutStore` in the operators' database."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Row, and_, bindparam, delete, func, insert, or_, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.device_rows import bound
from fleet_server.adapters.sql.rollout_tables import rollout as rollouts
from fleet_server.adapters.sql.rollout_tables import rollout_member as members_
from fleet_server.change.rollout_plan import Plan
from fleet_server.change.rollout_state import ENDS, Head, Member, Phase, Rollout, State
from fleet_server.change.rollout_store import OPEN_MAX, Before, Kept, Listed, MovedOnError, TooManyOpenError

ROLLOUT_LOCK: Final = 0x6666_726F
_ENDED: Final = [phase.value for phase in ENDS]
_UPDATE: Final = (
    update(members_)
    .where(members_.c.rollout == bindparam("b_rollout"), members_.c.device == bindparam("b_device"))
    .values(state=bindparam("b_state"), body=bindparam("b_body"))
)


class SqlRollouts:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    def create(self, rollout: Rollout, plan: Plan) -> None:
        """See the port."""
        with database.writing(self._engine, lock=ROLLOUT_LOCK) as connection:
            open_ = select(func.count()).select_from(rollouts).where(rollouts.c.phase.not_in(_ENDED))
            if connection.execute(open_).scalar_one() >= OPEN_MAX:
                raise TooManyOpenError(f"expected at most {OPEN_MAX} rollouts that have not ended")
            row = {
                "rollout": rollout.id,
                "created_ms": rollout.head.created_ms,
                "revision": 1,
                "plan": _text(plan),
                **_head_columns(rollout.head),
            }
            connection.execute(insert(rollouts).values(**row))
            _add(connection, rollout.id, rollout.members)

    def put(self, before: Kept, after: Rollout) -> Kept:
        """See the port."""
        held = before.rollout.members
        different = {name: each for name, each in after.members.items() if held.get(name) != each}
        with database.writing(self._engine) as connection:
            chosen = and_(rollouts.c.rollout == after.id, rollouts.c.revision == before.revision)
            values = {"revision": before.revision + 1, **_head_columns(after.head)}
            if connection.execute(update(rollouts).where(chosen).values(**values)).rowcount != 1:
                query = select(rollouts.c.revision).where(rollouts.c.rollout == after.id)
                raise MovedOnError(connection.execute(query).scalar_one())
            for some in database.slices(sorted(held.keys() - after.members.keys())):
                gone = and_(members_.c.rollout == after.id, members_.c.device.in_(some))
                connection.execute(delete(members_).where(gone))
            _add(connection, after.id, {name: each for name, each in different.items() if name not in held})
            changed = [
                bound({"rollout": after.id, "device": name, "state": each.state.value, "body": _text(each)})
                for name, each in different.items()
                if name in held
            ]
            if changed:
                connection.execute(_UPDATE, changed)
        return Kept(after, before.plan, before.revision + 1)

    def kept(self, rollout: str) -> Kept | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            row = connection.execute(select(rollouts).where(rollouts.c.rollout == rollout)).one_or_none()
            if row is None:
                return None
            query = select(members_.c.device, members_.c.body).where(members_.c.rollout == rollout)
            found = {device: _member(body) for device, body in connection.execute(query)}
        return Kept(Rollout(rollout, _head(row), found), _plan(row), row.revision)

    def open(self) -> Sequence[tuple[str, int]]:
        """See the port."""
        column = rollouts.c
        query = select(column.rollout, column.revision).where(column.phase.not_in(_ENDED))
        with database.reading(self._engine) as connection:
            return [
                (name, revision)
                for name, revision in connection.execute(query.order_by(column.created_ms, column.rollout))
            ]

    def listed(self, rollout: str) -> Listed | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            row = connection.execute(select(rollouts).where(rollouts.c.rollout == rollout)).one_or_none()
            return None if row is None else _listed(connection, [row])[0]

    def all(self, *, phase: Phase | None, before: Before | None, rows_max: int) -> Sequence[Listed]:
        """See the port."""
        column = rollouts.c
        query = select(rollouts).order_by(column.created_ms.desc(), column.rollout.desc()).limit(rows_max)
        if phase is not None:
            query = query.where(column.phase == phase.value)
        if before is not None:
            same = and_(column.created_ms == before.created_ms, column.rollout < before.id)
            query = query.where(or_(column.created_ms < before.created_ms, same))
        with database.reading(self._engine) as connection:
            return _listed(connection, connection.execute(query).all())

    def members(
        self, rollout: str, *, state: State | None, after: str, rows_max: int
    ) -> Sequence[tuple[str, Member]]:
        """See the port."""
        column = members_.c
        query = select(column.device, column.body).where(column.rollout == rollout, column.device > after)
        if state is not None:
            query = query.where(column.state == state.value)
        with database.reading(self._engine) as connection:
            rows = connection.execute(query.order_by(column.device).limit(rows_max))
            return [(device, _member(body)) for device, body in rows]


def _add(connection: Connection, rollout: str, members: Mapping[str, Member]) -> None:
    rows = [
        {"rollout": rollout, "device": name, "state": each.state.value, "body": _text(each)}
        for name, each in members.items()
    ]
    if rows:
        connection.execute(insert(members_), rows)


def _listed(connection: Connection, rows: Sequence[Row[Any]]) -> list[Listed]:
    column = members_.c
    counts: dict[str, dict[State, int]] = {row.rollout: {} for row in rows}
    for some in database.slices(list(counts)):
        query = select(column.rollout, column.state, func.count()).where(column.rollout.in_(some))
        for rollout, state, count in connection.execute(query.group_by(column.rollout, column.state)):
            counts[rollout][State(state)] = count
    return [Listed(row.rollout, _head(row), _plan(row), row.revision, counts[row.rollout]) for row in rows]


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _head_columns(head: Head) -> dict[str, Any]:
    return {"phase": head.phase.value, "head": _text(head)}


def _head(row: Row[Any]) -> Head:
    return msgspec.json.decode(row.head, type=Head)


def _plan(row: Row[Any]) -> Plan:
    return msgspec.json.decode(row.plan, type=Plan)


def _member(body: str) -> Member:
    return msgspec.json.decode(body, type=Member)
