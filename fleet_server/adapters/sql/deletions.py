"""The port :class:`fleet_server.evidence.store.Deletions` in the operators' database, and the carrying out of them.

The holds, the rules and the second person are looked at in the transaction that deletes, under the lock of the audit
log, which whoever places a hold takes too. The row of the piece stays, as its tombstone. Its content goes afterwards,
in a transaction of its own that excludes arrivals: never while another piece has the same.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, func, insert, or_, select, true, update

from fleet_server.adapters.sql import audit, database
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.evidence_tables import evidence_deletion as deletions
from fleet_server.adapters.sql.evidence_tables import evidence_piece as pieces
from fleet_server.adapters.sql.pieces import known
from fleet_server.adapters.sql.retention import all_of
from fleet_server.evidence.content import Content
from fleet_server.evidence.custody import SERVER, Act, Event
from fleet_server.evidence.pieces import Piece, RefusedError, SecondPersonError, State, UnknownPieceError
from fleet_server.evidence.retention import (
    DAY_MS,
    DELETION_DELAY_D,
    DELETIONS_A_DAY_MAX,
    Cause,
    Deletion,
    Rules,
    rules_at,
    why_not_ask,
    why_not_delete,
)
from fleet_server.evidence.store import Doing

ID_BYTES: Final = 8
_OPEN: Final = deletions.c.done_ms.is_(None) & deletions.c.withdrawn_ms.is_(None)


class SqlDeletions:
    """See the port, and :class:`fleet_server.evidence.store.Carrying`."""

    def __init__(
        self,
        log: CustodyLog,
        *,
        delay_ms: int = DELETION_DELAY_D * DAY_MS,
        a_day_max: int = DELETIONS_A_DAY_MAX,
    ) -> None:
        self._log = log
        self._delay_ms = delay_ms
        self._a_day_max = a_day_max

    def ask(self, piece: str, reason: str, *, by: str, now_ms: int) -> Deletion:
        """See the port."""
        return self._ask(piece, reason, Cause.ASKED, by, now_ms)

    def ask_due(self, piece: str, *, now_ms: int) -> Deletion:
        """See the port."""
        return self._ask(piece, "", Cause.RETENTION, SERVER, now_ms)

    def _ask(self, piece: str, reason: str, cause: Cause, by: str, now_ms: int) -> Deletion:
        made = Deletion(secrets.token_hex(ID_BYTES), piece, cause, reason, by, now_ms)

        def work(entering: Entering) -> Deletion:
            connection = entering.connection
            found = known(connection, piece)
            why = why_not_ask(found, _rules(connection, now_ms), cause, now_ms=now_ms)
            if why:
                raise RefusedError(f"{piece}: {why}")
            if connection.execute(select(func.count()).where(deletions.c.piece == piece, _OPEN)).scalar_one():
                raise RefusedError(f"{piece}: its deletion is asked for already")
            row: dict[str, Any] = {name: getattr(made, name) for name in Deletion.__slots__}
            connection.execute(insert(deletions).values({**row, "cause": cause.value}))
            data = {"deletion": made.deletion, "cause": cause.value}
            entering.event(Act(Event.DELETION_ASKED, piece, by, now_ms, data, reason))
            return made

        return self._log.entering(work)

    def approve(self, deletion: str, *, by: str, now_ms: int) -> Deletion:
        """See the port."""

        def work(entering: Entering) -> Deletion:
            connection = entering.connection
            found = _opened(connection, deletion)
            if found.asked_by == by:
                raise SecondPersonError(f"{by} asked for it: another one must agree")
            if found.approved_by is not None:
                return found
            why = why_not_ask(known(connection, found.piece), _rules(connection, now_ms), found.cause, now_ms=now_ms)
            if why:
                raise RefusedError(f"{found.piece}: {why}")
            _set(connection, deletion, approved_by=by, approved_ms=now_ms)
            data = {"deletion": deletion, "asked_by": found.asked_by}
            entering.event(Act(Event.DELETION_APPROVED, found.piece, by, now_ms, data))
            return _known(connection, deletion)

        return self._log.entering(work)

    def withdraw(self, deletion: str, reason: str, *, by: str, now_ms: int) -> Deletion:
        """See the port."""

        def work(entering: Entering) -> Deletion:
            found = _opened(entering.connection, deletion)
            _set(entering.connection, deletion, withdrawn_by=by, withdrawn_ms=now_ms)
            data = {"deletion": deletion}
            entering.event(Act(Event.DELETION_WITHDRAWN, found.piece, by, now_ms, data, reason))
            return _known(entering.connection, deletion)

        return self._log.entering(work)

    def deletions(
        self, *, open_only: bool, after: tuple[int, str], rows_max: int
    ) -> Sequence[tuple[Deletion, Piece]]:
        """See the port."""
        column = deletions.c
        behind = or_(column.asked_ms > after[0], and_(column.asked_ms == after[0], column.deletion > after[1]))
        query = select(deletions).where(behind, _OPEN if open_only else true())
        with database.reading(self._log.engine) as connection:
            rows = connection.execute(query.order_by(column.asked_ms, column.deletion).limit(rows_max)).mappings()
            return [(_deletion(row), known(connection, row["piece"])) for row in rows.all()]

    def deletion(self, deletion: str) -> tuple[Deletion, Piece] | None:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            try:
                found = _known(connection, deletion)
            except UnknownPieceError:
                return None
            return found, known(connection, found.piece)

    # carrying them out

    def approved(self, *, now_ms: int, rows_max: int) -> list[str]:
        """See the port."""
        column = deletions.c
        ready = _OPEN & column.approved_by.is_not(None) & (column.asked_ms <= now_ms - self._delay_ms)
        query = select(column.deletion).where(ready).order_by(column.asked_ms, column.deletion).limit(rows_max)
        with database.reading(self._log.engine) as connection:
            return list(connection.execute(query).scalars())

    def carry_out(self, deletion: str, *, now_ms: int) -> Doing:
        """See the port."""

        def work(entering: Entering) -> Doing:
            connection = entering.connection
            found = _known(connection, deletion)
            piece = known(connection, found.piece)
            rules = _rules(connection, now_ms)
            why = why_not_delete(found, piece, rules, delay_ms=self._delay_ms, now_ms=now_ms)
            if not why and self._done_since(connection, now_ms - DAY_MS) >= self._a_day_max:
                why = f"{self._a_day_max} pieces were deleted within a day"
            if why:
                return Doing(found, why)
            gone = {"state": State.DELETED.value}
            connection.execute(update(pieces).where(pieces.c.piece == piece.piece).values(gone))
            _set(connection, deletion, done_ms=now_ms)
            data = {
                "deletion": deletion,
                "cause": found.cause.value,
                "asked_by": found.asked_by,
                "approved_by": found.approved_by or "",
                "sha256": piece.sha256,
            }
            entering.event(Act(Event.DELETED, piece.piece, SERVER, now_ms, data))
            return Doing(_known(connection, deletion), "")

        return self._log.entering(work)

    def unfinished(self, *, rows_max: int) -> list[str]:
        """See the port."""
        column = deletions.c
        query = select(column.deletion).where(column.done_ms.is_not(None), column.gone_ms.is_(None))
        with database.reading(self._log.engine) as connection:
            return list(connection.execute(query.order_by(column.done_ms).limit(rows_max)).scalars())

    def remove_content(self, deletion: str, copies: Sequence[Content], *, now_ms: int) -> bool:
        """See the port."""
        with database.writing(self._log.engine, lock=audit.APPEND_LOCK) as connection:
            found = _known(connection, deletion)
            piece = known(connection, found.piece)
            assert piece.state is State.DELETED
            same = (pieces.c.sha256 == piece.sha256) & (pieces.c.state == State.KEPT.value)
            shared = connection.execute(select(func.count()).where(same)).scalar_one()
            if not shared:
                for copy in copies:
                    copy.remove(piece.sha256)
            _set(connection, deletion, gone_ms=now_ms)
        return not shared

    def _done_since(self, connection: Connection, since_ms: int) -> int:
        return connection.execute(select(func.count()).where(deletions.c.done_ms > since_ms)).scalar_one()


def _rules(connection: Connection, now_ms: int) -> Rules:
    return rules_at(all_of(connection), now_ms=now_ms)


def _known(connection: Connection, deletion: str) -> Deletion:
    row = connection.execute(select(deletions).where(deletions.c.deletion == deletion)).mappings().one_or_none()
    if row is None:
        raise UnknownPieceError("deletion", deletion)
    return _deletion(row)


def _opened(connection: Connection, deletion: str) -> Deletion:
    found = _known(connection, deletion)
    if not found.is_open:
        raise RefusedError(f"{deletion} is {'done' if found.done_ms is not None else 'withdrawn'} already")
    return found


def _deletion(row: RowMapping) -> Deletion:
    return Deletion(**{**row, "cause": Cause(row["cause"])})


def _set(connection: Connection, deletion: str, **values: str | int) -> None:
    connection.execute(update(deletions).where(deletions.c.deletion == deletion).values(values))
