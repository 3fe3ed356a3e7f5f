"""The port :class:`fleet_server.registry.assignment_store.Assignments` in the operators' database."""

import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, false, func, insert, or_, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.assignment_tables import assignment as assignments
from fleet_server.adapters.sql.device_rows import below, device_rows_of
from fleet_server.adapters.sql.tables import device as devices
from fleet_server.adapters.sql.tables import duty_unit
from fleet_server.registry import assignments as rules
from fleet_server.registry.assignment_store import BEGINNING, After, AssignmentFilter
from fleet_server.registry.assignments import Act, Assignment, Correction, Handing, With
from fleet_server.registry.model import StaleError, UnknownError
from fleet_server.registry.store import Imported

ASSIGN_LOCK: Final = 0x6666_6173
"""Assignments are written one after the other, so that none is judged by what another is about to change."""
ID_BYTES: Final = 8


class SqlAssignments:
    """See the port."""

    def __init__(self, engine: Engine, *, new_id: Callable[[], str] = lambda: secrets.token_hex(ID_BYTES)) -> None:
        self._engine = engine
        self._new_id = new_id

    # asking

    def holder_at(self, device: str, at_ms: int, *, known_ms: int | None = None) -> Assignment | None:
        """See the port."""
        column = assignments.c
        # of intervals that share no moment the last that had begun covers it, or none does
        begun = (column.device == device, column.from_ms <= at_ms, counting(known_ms))
        query = select(assignments).where(*begun).order_by(column.from_ms.desc()).limit(1)
        with database.reading(self._engine) as connection:
            row = connection.execute(query).mappings().one_or_none()
        found = None if row is None else _assignment(row)
        return found if found is not None and found.covers(at_ms) else None

    def assignments(
        self, wanted: AssignmentFilter, *, known_ms: int | None = None, after: After = BEGINNING, rows_max: int
    ) -> Sequence[Assignment]:
        """See the port."""
        column = assignments.c
        same = and_(column.from_ms == after.from_ms, column.assignment > after.assignment)
        # an expression keeps the planner from reading all in this order, of which few last
        begins = column.from_ms + 0 if wanted.lasting else column.from_ms
        query = (
            select(assignments)
            .where(counting(known_ms), or_(begins > after.from_ms, same), *_chosen(wanted))
            .order_by(begins, column.assignment)
        )
        with database.reading(self._engine) as connection:
            return [_assignment(row) for row in connection.execute(query.limit(rows_max)).mappings()]

    def assignment(self, assignment: str) -> Assignment | None:
        """See the port."""
        with database.reading(self._engine) as connection:
            return _last(connection, assignment)

    def history(self, assignment: str) -> Sequence[Assignment]:
        """See the port."""
        query = select(assignments).where(assignments.c.assignment == assignment).order_by(assignments.c.revision)
        with database.reading(self._engine) as connection:
            return [_assignment(row) for row in connection.execute(query).mappings()]

    # saying

    def check_out(self, handing: Handing, *, now_ms: int, dry_run: bool = False) -> Assignment:
        """See the port."""
        with self._writing([handing.device], now_ms) as desk:
            made = desk.check_out(handing, self._new_id())
            if dry_run:
                desk.connection.rollback()
        return made

    def check_in(self, device: str, *, at_ms: int | None, reason: str, by: str, now_ms: int) -> Assignment:
        """See the port."""
        with self._writing([device], now_ms) as desk:
            now = desk.now_ms(device)
            held = desk.held(device, now if at_ms is None else at_ms)
            return desk.say(rules.checked_in(held, at_ms=at_ms, reason=reason, by=by, now_ms=now))

    def hand_over(self, handing: Handing, *, now_ms: int) -> Assignment:
        """See the port."""
        device = handing.device
        with self._writing([device], now_ms) as desk:
            now, path = desk.now_ms(device), desk.path(device)
            desk.check_unit(handing.whom.unit)
            held = desk.held(device, now if handing.from_ms is None else handing.from_ms)
            ended, begun = rules.handed_over(held, handing, name=self._new_id(), path=path, now_ms=now)
            desk.say(ended)
            return desk.say(begun)

    def correct(self, assignment: str, correction: Correction, *, expected: int | None, now_ms: int) -> Assignment:
        """See the port."""
        with self._writing([], now_ms) as desk:
            found = _last(desk.connection, assignment)
            if found is None:
                raise UnknownError("assignment", assignment)
            if expected not in {None, found.revision}:
                raise StaleError(found.revision)
            desk.check_unit(correction.unit)
            since_ms = min(found.from_ms, found.from_ms if correction.from_ms is None else correction.from_ms)
            held = desk.held(found.device, since_ms)
            return desk.say(rules.corrected(found, held, correction, now_ms=desk.now_ms(found.device)))

    def enter(self, rows: Sequence[Handing], *, now_ms: int, dry_run: bool) -> Imported:
        """See the port."""
        created: list[str] = []
        with self._writing([row.device for row in rows], now_ms) as desk:
            for device, some in groupby(sorted(rows, key=lambda row: row.device), key=lambda row: row.device):
                created += [device] * desk.enter(device, list(some), self._new_id)
            if dry_run:
                desk.connection.rollback()
        return Imported(tuple(created), (), len(rows) - len(created))

    @contextmanager
    def _writing(self, names: Sequence[str], now_ms: int) -> Iterator["_Desk"]:
        with database.writing(self._engine, lock=ASSIGN_LOCK) as connection:
            paths = {
                row.device: row.path
                for row in device_rows_of(connection, devices.c.device, sorted(set(names)))
                if row.registered_ms is not None
            }
            yield _Desk(connection, paths, now_ms)


class _Desk(NamedTuple):
    """One transaction. ``paths``: of registered devices."""

    connection: Connection
    paths: dict[str, str]
    clock_ms: int

    def now_ms(self, device: str) -> int:
        """A clock that was set back says nothing from before what was said of the device already."""
        newest = select(func.max(assignments.c.said_ms)).where(assignments.c.device == device)
        return max(self.clock_ms, self.connection.execute(newest).scalar_one() or 0)

    def path(self, device: str) -> str:
        """Raises UnknownError."""
        if device not in self.paths:
            raise UnknownError("device", device)
        return self.paths[device]

    def check_unit(self, unit: str | None) -> None:
        """Raises UnknownError."""
        if unit and self.connection.execute(select(duty_unit.c.unit).where(duty_unit.c.unit == unit)).first() is None:
            raise UnknownError("unit", unit)

    def held(self, device: str, since_ms: int) -> list[Assignment]:
        """Those of a device that count and end behind a moment, in their order."""
        column = assignments.c
        lasts = or_(column.to_ms.is_(None), column.to_ms > since_ms)
        query = select(assignments).where(column.device == device, counting(None), lasts).order_by(column.from_ms)
        return [_assignment(row) for row in self.connection.execute(query).mappings()]

    def check_out(self, handing: Handing, name: str) -> Assignment:
        """One that begins now, or did."""
        path, now_ms = self.path(handing.device), self.now_ms(handing.device)
        self.check_unit(handing.whom.unit)
        held = self.held(handing.device, now_ms if handing.from_ms is None else handing.from_ms)
        return self.say(rules.checked_out(held, handing, name=name, path=path, now_ms=now_ms))

    def enter(self, device: str, rows: Sequence[Handing], new_id: Callable[[], str]) -> int:
        """All of a device; how many are new."""
        path, now_ms = self.path(device), self.now_ms(device)
        held = self.held(device, min(row.from_ms or 0 for row in rows))
        there = {(each.whom, each.from_ms, each.to_ms) for each in held}
        begins = [each.from_ms for each in held]
        made: list[Assignment] = []
        for row in sorted(rows, key=lambda row: row.from_ms or 0):
            if (row.whom, row.from_ms, row.to_ms) in there:
                continue
            self.check_unit(row.whom.unit)
            # of intervals in order that share no moment, the last that begins before its end can touch it, or none
            behind = len(held) if row.to_ms is None else bisect_left(begins, row.to_ms)
            near = [*held[max(0, behind - 1) : behind], *made[-1:]]
            made.append(rules.checked_out(near, row, name=new_id(), path=path, now_ms=now_ms, act=Act.IMPORTED))
        if made:
            self.connection.execute(insert(assignments), [_columns(each) for each in made])
        return len(made)

    def say(self, made: Assignment) -> Assignment:
        """Enter a revision; the one before counts no more."""
        column = assignments.c
        before = and_(column.assignment == made.assignment, column.superseded_ms.is_(None))
        self.connection.execute(update(assignments).where(before).values(superseded_ms=made.said_ms))
        self.connection.execute(insert(assignments).values(_columns(made)))
        return made


def counting(known_ms: int | None) -> ColumnElement[bool]:
    """Rows that count, by what was known then, and were not withdrawn."""
    column = assignments.c
    if known_ms is None:
        return and_(column.superseded_ms.is_(None), column.withdrawn.is_(False))
    later = or_(column.superseded_ms.is_(None), column.superseded_ms > known_ms)
    return and_(column.said_ms <= known_ms, later, column.withdrawn.is_(False))


def _last(connection: Connection, name: str) -> Assignment | None:
    where = and_(assignments.c.assignment == name, assignments.c.superseded_ms.is_(None))
    row = connection.execute(select(assignments).where(where)).mappings().one_or_none()
    return None if row is None else _assignment(row)


def _chosen(wanted: AssignmentFilter) -> Iterator[ColumnElement[bool]]:
    column = assignments.c
    for name in ("device", "officer", "vehicle", "shift", "unit"):
        value = getattr(wanted, name)
        if value is not None:
            yield column[name] == value
    if wanted.to_ms is not None:
        yield column.from_ms < wanted.to_ms
    if wanted.from_ms is not None:
        yield or_(column.to_ms.is_(None), column.to_ms > wanted.from_ms)
    if wanted.lasting is not None:
        yield column.to_ms.is_(None) if wanted.lasting else column.to_ms.is_not(None)
    if wanted.path is not None:
        yield below(wanted.path, column.path)
    if wanted.within is not None:
        yield or_(false(), *(below(path, column.path) for path in wanted.within))


_SAME: Final = ("assignment", "revision", "device", "path", "from_ms", "to_ms", "withdrawn", "reason", "said_ms")


def _columns(made: Assignment) -> dict[str, Any]:
    same = {name: getattr(made, name) for name in _SAME}
    other = {"act": made.act.value, "unready": msgspec.json.encode(made.unready).decode(), "said_by": made.by}
    return {**same, **made.whom._asdict(), **other}


def _assignment(row: RowMapping) -> Assignment:
    same = {name: row[name] for name in _SAME}
    whom = With(*(row[name] for name in With._fields))
    unready = msgspec.json.decode(row["unready"], type=tuple[str, ...])
    return Assignment(**same, whom=whom, act=Act(row["act"]), unready=unready, by=row["said_by"])
