"""The port :class:`fleet_server.evidence.store.Retention` in the operators' database."""

import secrets
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, insert, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.evidence_tables import retention_change as changes
from fleet_server.evidence.custody import CLASS, Act, Event
from fleet_server.evidence.pieces import (
    BEGINNING,
    UNCLASSIFIED,
    After,
    PieceFilter,
    Pieces,
    RefusedError,
    SecondPersonError,
    State,
    UnknownPieceError,
)
from fleet_server.evidence.retention import (
    CHANGE_DELAY_D,
    CLASSES_MAX,
    DAY_MS,
    OPEN_CHANGES_MAX,
    Change,
    Rules,
    due,
    rules_at,
)
from fleet_server.evidence.store import Effect, Effects

ID_BYTES: Final = 8
PIECES_A_READ: Final = 500
EFFECTS_SHOWN_MAX: Final = 100


class SqlRetention:
    """See the port."""

    def __init__(self, log: CustodyLog, pieces: Pieces, *, delay_ms: int = CHANGE_DELAY_D * DAY_MS) -> None:
        self._log = log
        self._pieces = pieces
        self._delay_ms = delay_ms

    def changes(self) -> Sequence[Change]:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            return all_of(connection)

    def rules(self, *, now_ms: int) -> Rules:
        """See the port."""
        return rules_at(self.changes(), now_ms=now_ms)

    def effects(self, evidence_class: str, keep_d: int | None, *, now_ms: int) -> Effects:
        """See the port."""
        before = self.rules(now_ms=now_ms)
        after = {**before, evidence_class: keep_d}
        pieces = changed = due_now = held = 0
        first: list[Effect] = []
        at = BEGINNING
        wanted = PieceFilter(evidence_class=evidence_class, state=State.KEPT)
        while True:
            page = self._pieces.pieces(wanted, after=at, rows_max=PIECES_A_READ)
            for piece in page:
                pieces += 1
                effect = Effect(piece, due(piece, before), due(piece, after))
                over = effect.after.at_ms is not None and effect.after.at_ms <= now_ms
                due_now += over
                held += over and bool(piece.holds)
                if effect.before.at_ms != effect.after.at_ms:
                    changed += 1
                    first += [effect] if len(first) < EFFECTS_SHOWN_MAX else []
            if len(page) < PIECES_A_READ:
                return Effects(pieces, changed, due_now, held, tuple(first))
            at = After(page[-1].received_ms, page[-1].piece)

    def propose(self, evidence_class: str, keep_d: int | None, reason: str, *, by: str, now_ms: int) -> Change:
        """See the port."""
        change = Change(secrets.token_hex(ID_BYTES), evidence_class, keep_d, reason, by, now_ms)

        def work(entering: Entering) -> Change:
            held = all_of(entering.connection)
            waiting = [each for each in held if each.waits]
            if evidence_class == UNCLASSIFIED:
                raise RefusedError(f"{UNCLASSIFIED} is what nobody has classified: it is kept for ever")
            if any(each.evidence_class == evidence_class for each in waiting):
                raise RefusedError(f"{evidence_class}: a change waits already; withdraw it, or have it approved")
            if len({each.evidence_class for each in held} | {evidence_class}) > CLASSES_MAX:
                raise RefusedError(f"expected at most {CLASSES_MAX} classes")
            if len(waiting) >= OPEN_CHANGES_MAX:
                raise RefusedError(f"{OPEN_CHANGES_MAX} changes wait already")
            row = {name: getattr(change, name) for name in Change.__slots__}
            entering.connection.execute(insert(changes).values(row))
            keep = "for_ever" if keep_d is None else str(keep_d)
            data = {"change": change.change, "keep_d": keep}
            entering.event(Act(Event.RETENTION_PROPOSED, CLASS + evidence_class, by, now_ms, data, reason))
            return change

        return self._log.entering(work)

    def approve(self, change: str, *, by: str, now_ms: int) -> Change:
        """See the port."""

        def work(entering: Entering) -> Change:
            found = _waiting(entering.connection, change)
            if found.proposed_by == by:
                raise SecondPersonError(f"{by} proposed it: another one must agree")
            effective_ms = now_ms + self._delay_ms
            _set(entering.connection, change, approved_by=by, approved_ms=now_ms, effective_ms=effective_ms)
            data = {"change": change, "effective_ms": str(effective_ms), "proposed_by": found.proposed_by}
            entering.event(Act(Event.RETENTION_APPROVED, CLASS + found.evidence_class, by, now_ms, data))
            return _known(entering.connection, change)

        return self._log.entering(work)

    def withdraw(self, change: str, *, by: str, now_ms: int) -> Change:
        """See the port."""

        def work(entering: Entering) -> Change:
            found = _known(entering.connection, change)
            if found.withdrawn_ms is not None:
                return found
            if found.effective_ms is not None and found.effective_ms <= now_ms:
                raise RefusedError("it counts already: propose another")
            _set(entering.connection, change, withdrawn_ms=now_ms, effective_ms=None)
            subject = CLASS + found.evidence_class
            entering.event(Act(Event.RETENTION_WITHDRAWN, subject, by, now_ms, {"change": change}))
            return _known(entering.connection, change)

        return self._log.entering(work)


def all_of(connection: Connection) -> list[Change]:
    """Every change, the oldest first, in a transaction."""
    rows = connection.execute(select(changes).order_by(changes.c.proposed_ms, changes.c.change)).mappings()
    return [Change(**row) for row in rows]


def _known(connection: Connection, change: str) -> Change:
    row = connection.execute(select(changes).where(changes.c.change == change)).mappings().one_or_none()
    if row is None:
        raise UnknownPieceError("change", change)
    return Change(**row)


def _waiting(connection: Connection, change: str) -> Change:
    found = _known(connection, change)
    if not found.waits:
        raise RefusedError("it does not wait for anybody")
    return found


def _set(connection: Connection, change: str, **values: str | int | None) -> None:
    connection.execute(update(changes).where(changes.c.change == change).values(values))
