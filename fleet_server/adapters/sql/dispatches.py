"""The port :class:`fleet_server.evidence.dispatches.Dispatches` in the operators' database."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, false, insert, or_, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.audit import APPEND_LOCK
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.device_rows import below, bound
from fleet_server.adapters.sql.evidence_tables import custody_event
from fleet_server.adapters.sql.evidence_tables import dispatch as dispatches
from fleet_server.evidence.custody import Act, Event
from fleet_server.evidence.dispatches import (
    DISPATCH,
    After,
    Dispatch,
    DispatchFilter,
    Explanation,
    Why,
)
from fleet_server.evidence.pieces import RefusedError, UnknownPieceError
from fleet_server.registry.store import Imported

_SAID: Final = ("path", "holder", "device", "unit", "kind", "begin_ms", "end_ms")
_UPDATE: Final = (
    update(dispatches)
    .where(dispatches.c.dispatch == bindparam("b_dispatch"))
    .values({name: bindparam(f"b_{name}") for name in _SAID})
)


class SqlDispatches:
    """See the port."""

    def __init__(self, log: CustodyLog) -> None:
        self._log = log

    def dispatch(self, dispatch: str) -> Dispatch | None:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            return next(_found(connection, [dispatch]), None)

    def dispatches(self, wanted: DispatchFilter, *, after: After | None, rows_max: int) -> Sequence[Dispatch]:
        """See the port."""
        column = dispatches.c
        query = select(dispatches).where(*_chosen(wanted)).order_by(column.begin_ms, column.dispatch)
        if after is not None:
            same = and_(column.begin_ms == after.begin_ms, column.dispatch > after.dispatch)
            query = query.where(or_(column.begin_ms > after.begin_ms, same))
        with database.reading(self._log.engine) as connection:
            return [_dispatch(row) for row in connection.execute(query.limit(rows_max)).mappings()]

    def put(self, rows: Sequence[Dispatch], *, dry_run: bool) -> Imported:
        """See the port."""
        # the lock of explaining, so that none is changed that is explained just then
        with database.writing(self._log.engine, lock=APPEND_LOCK) as connection:
            held = {each.dispatch: each for each in _found(connection, [row.dispatch for row in rows])}
            new = [row for row in rows if row.dispatch not in held]
            other = [row for row in rows if row.dispatch in held and _said(held[row.dispatch]) != _said(row)]
            locked = [row.dispatch for row in other if held[row.dispatch].explanation is not None]
            if locked:
                raise RefusedError(f"explained, and so not to be changed: {', '.join(locked[:10])}")
            if not dry_run:
                if new:
                    connection.execute(
                        insert(dispatches), [{"dispatch": each.dispatch, **_said(each)} for each in new]
                    )
                if other:
                    connection.execute(_UPDATE, [bound({"dispatch": each.dispatch, **_said(each)}) for each in other])
        created, changed = ([each.dispatch for each in some] for some in (new, other))
        return Imported(tuple(created), tuple(changed), len(rows) - len(new) - len(other))

    def explain(self, dispatch: str, why: Why, note: str, *, by: str, now_ms: int) -> Dispatch:
        """See the port."""

        def work(entering: Entering) -> Dispatch:
            connection = entering.connection
            found = next(_found(connection, [dispatch]), None)
            if found is None:
                raise UnknownPieceError("dispatch", dispatch)
            if found.explanation is not None:
                raise RefusedError(f"{dispatch} is explained already, and that is done once")
            values = {"why": why.value, "note": note, "explained_by": by, "explained_ms": now_ms}
            connection.execute(update(dispatches).where(dispatches.c.dispatch == dispatch).values(values))
            entering.event(Act(Event.DISPATCH_EXPLAINED, DISPATCH + dispatch, by, now_ms, {"why": why.value}, note))
            return next(_found(connection, [dispatch]))

        return self._log.entering(work)

    def erase_notes(self, dispatch: str, *, by: str, now_ms: int) -> int:
        """See the port."""
        subject = DISPATCH + dispatch
        written = (custody_event.c.subject == subject) & custody_event.c.note.is_not(None)

        def work(entering: Entering) -> int:
            connection = entering.connection
            if next(_found(connection, [dispatch]), None) is None:
                raise UnknownPieceError("dispatch", dispatch)
            erased = connection.execute(update(custody_event).where(written).values(note=None)).rowcount
            explained = (dispatches.c.dispatch == dispatch) & dispatches.c.why.is_not(None)
            connection.execute(update(dispatches).where(explained).values(note=""))
            if erased:
                entering.event(Act(Event.NOTES_ERASED, subject, by, now_ms, {"notes": str(erased)}))
            return erased

        return self._log.entering(work)


def _found(connection: Connection, names: Sequence[str]) -> Iterator[Dispatch]:
    for some in database.slices(names):
        for row in connection.execute(select(dispatches).where(dispatches.c.dispatch.in_(some))).mappings():
            yield _dispatch(row)


def _said(each: Dispatch) -> dict[str, Any]:
    return {name: getattr(each, name) for name in _SAID}


def _dispatch(row: RowMapping) -> Dispatch:
    told = row["why"]
    explanation = (
        None if told is None else Explanation(Why(told), row["note"], row["explained_by"], row["explained_ms"])
    )
    return Dispatch(row["dispatch"], **{name: row[name] for name in _SAID}, explanation=explanation)


def _chosen(wanted: DispatchFilter) -> Iterator[ColumnElement[bool]]:
    column = dispatches.c
    yield and_(column.begin_ms >= wanted.span.from_ms, column.begin_ms < wanted.span.to_ms)
    for name in ("holder", "device", "unit"):
        value = getattr(wanted, name)
        if value is not None:
            yield column[name] == value
    if wanted.path is not None:
        yield below(wanted.path, column.path)
    if wanted.within is not None:
        yield or_(false(), *(below(path, column.path) for path in wanted.within))
    if wanted.explained is not None:
        yield column.why.is_not(None) if wanted.explained else column.why.is_(None)
