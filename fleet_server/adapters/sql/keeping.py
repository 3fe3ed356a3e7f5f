"""The port :class:`fleet_server.evidence.store.Keeping` in the operators' database."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, or_, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.evidence_tables import custody_event, evidence_deletion, retention_change
from fleet_server.adapters.sql.evidence_tables import evidence_class as classes
from fleet_server.adapters.sql.evidence_tables import evidence_hold as holds
from fleet_server.adapters.sql.pieces import known
from fleet_server.evidence.custody import Act, Entered, Event
from fleet_server.evidence.pieces import CLASSES_MAX, Hold, Piece, RefusedError, State, UnknownPieceError

HOLDS_MAX: Final = 64
"""Of one piece at once."""


class SqlKeeping:
    """See the port."""

    def __init__(self, log: CustodyLog) -> None:
        self._log = log

    def history(self, piece: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            known(connection, piece)
        return self._log.history(piece, from_number=from_number, rows_max=rows_max)

    def record(self, piece: str, event: Event, *, by: str, data: Mapping[str, str], now_ms: int) -> Piece:
        """See the port."""

        def work(entering: Entering) -> Piece:
            found = _kept(entering.connection, piece)
            entering.event(Act(event, piece, by, now_ms, data))
            return found

        return self._log.entering(work)

    def classify(self, piece: str, *, add: Sequence[str], remove: Sequence[str], by: str, now_ms: int) -> Piece:
        """See the port."""

        def work(entering: Entering) -> Piece:
            connection = entering.connection
            found = _kept(connection, piece)
            wanted = (set(found.classes) - set(remove)) | set(add)
            _check_classes(connection, wanted - set(found.classes), len(wanted))
            if wanted == set(found.classes):
                return found
            connection.execute(delete(classes).where(classes.c.piece == piece))
            if wanted:
                rows = [{"piece": piece, "evidence_class": name} for name in sorted(wanted)]
                connection.execute(insert(classes), rows)
            entering.event(Act(Event.CLASSIFIED, piece, by, now_ms, {"classes": ",".join(sorted(wanted))}))
            return known(connection, piece)

        return self._log.entering(work)

    def hold(self, piece: str, hold: str, reason: str, *, by: str, now_ms: int) -> Piece:
        """See the port."""

        def work(entering: Entering) -> Piece:
            connection = entering.connection
            found = _kept(connection, piece)
            if hold in found.holds:
                return found
            if len(found.holds) >= HOLDS_MAX:
                raise RefusedError(f"{piece}: at most {HOLDS_MAX} holds")
            this = and_(holds.c.piece == piece, holds.c.hold == hold)
            connection.execute(delete(holds).where(this))  # one that was released; the log tells of it
            row = {"hold": hold, "piece": piece, "reason": reason, "placed_by": by, "placed_ms": now_ms}
            connection.execute(insert(holds).values(row))
            entering.event(Act(Event.HELD, piece, by, now_ms, {"hold": hold}, reason))
            return known(connection, piece)

        return self._log.entering(work)

    def release(self, piece: str, hold: str, reason: str, *, by: str, now_ms: int) -> Piece:
        """See the port."""

        def work(entering: Entering) -> Piece:
            connection = entering.connection
            if hold not in _kept(connection, piece).holds:
                raise UnknownPieceError("hold", f"{hold} of {piece}")
            this = and_(holds.c.piece == piece, holds.c.hold == hold)
            connection.execute(update(holds).where(this).values(released_by=by, released_ms=now_ms))
            entering.event(Act(Event.RELEASED, piece, by, now_ms, {"hold": hold}, reason))
            return known(connection, piece)

        return self._log.entering(work)

    def erase_notes(self, piece: str, *, by: str, now_ms: int) -> int:
        """See the port."""
        written = (custody_event.c.subject == piece) & custody_event.c.note.is_not(None)

        def work(entering: Entering) -> int:
            connection = entering.connection
            known(connection, piece)
            erased = connection.execute(update(custody_event).where(written).values(note=None)).rowcount
            for table in (holds, evidence_deletion):
                connection.execute(update(table).where(table.c.piece == piece).values(reason=""))
            if erased:
                entering.event(Act(Event.NOTES_ERASED, piece, by, now_ms, {"notes": str(erased)}))
            return erased

        return self._log.entering(work)

    def holds(self, *, hold: str | None, piece: str | None, after: tuple[str, str], rows_max: int) -> Sequence[Hold]:
        """See the port."""
        column = holds.c
        query = select(holds).where(
            or_(column.hold > after[0], and_(column.hold == after[0], column.piece > after[1])),
            *([] if hold is None else [column.hold == hold]),
            *([] if piece is None else [column.piece == piece]),
        )
        with database.reading(self._log.engine) as connection:
            rows = connection.execute(query.order_by(column.hold, column.piece).limit(rows_max)).mappings()
            return [_hold(row) for row in rows]


def _kept(connection: Connection, piece: str) -> Piece:
    found = known(connection, piece)
    if found.state is State.DELETED:
        raise RefusedError(f"{piece} is deleted")
    return found


def _check_classes(connection: Connection, new: set[str], count: int) -> None:
    if count > CLASSES_MAX:
        raise RefusedError(f"expected at most {CLASSES_MAX} classes, got {count}")
    column = retention_change.c
    for name in sorted(new):
        agreed = select(func.count()).where(column.evidence_class == name, column.effective_ms.is_not(None))
        if not connection.execute(agreed).scalar_one():
            raise UnknownPieceError("class", name)


def _hold(row: RowMapping) -> Hold:
    return Hold(**{name: row[name] for name in Hold._fields})
