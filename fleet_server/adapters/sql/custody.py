"""Enters custody events: the entry of the audit log and what it is about are one transaction.

So there is no order of the two to be mended at a start: a server that is killed leaves both, or neither. The lock of
the audit log is held meanwhile, so that numbers of a subject have no holes whoever acts at once.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, Engine, insert, select

from fleet_server.access.audit import AuditError, Draft, Head, Place
from fleet_server.access.auditor import Auditor
from fleet_server.adapters.sql import audit, database
from fleet_server.adapters.sql.evidence_tables import custody_event
from fleet_server.adapters.sql.tables import audit_entry
from fleet_server.evidence.custody import ACTIONS, SALT_BYTES, Act, Entered, Last, drafted, last_of
from fleet_server.telemetry.store import StoreError

T = TypeVar("T")


class Entering:
    """A transaction that may enter events; ``connection``: for what they are about."""

    def __init__(self, connection: Connection, waiting: Sequence[Draft]) -> None:
        """*waiting*: goes before them."""
        self.connection = connection
        self.head = audit.append_in(connection, audit.newest_head(connection), waiting)

    def event(self, act: Act) -> Place:
        """Enter it behind its subject's last; where it is."""
        last, salt = self._last(act.subject), secrets.token_hex(SALT_BYTES) if act.note else ""
        place = Place(self.head.log, self.head.size)
        self.head = audit.append_in(self.connection, self.head, [drafted(act, last, salt=salt)])
        row = {"subject": act.subject, "number": last.events, "log": place.log, "entry": place.number}
        kept = {"digest": self.head.prev, "salt": salt, "note": act.note or None}
        self.connection.execute(insert(custody_event).values({**row, **kept}))
        return place

    def _last(self, subject: str) -> Last:
        """By the log itself: an index that somebody has changed must not make a number be given twice."""
        column = audit_entry.c
        query = select(column.entry).where(column.subject == subject, column.action.in_(ACTIONS))
        newest = query.order_by(column.log.desc(), column.number.desc()).limit(1)
        raw = self.connection.execute(newest).scalar_one_or_none()
        try:
            return Last() if raw is None else last_of(bytes(raw))
        except AuditError as error:
            raise StoreError(f"the last event of {subject}: {error}") from error


class CustodyLog:
    """The custody events of the audit log. Any thread may call."""

    def __init__(self, engine: Engine, auditor: Auditor) -> None:
        """Of a database that is migrated, the one of *auditor*'s log."""
        self.engine = engine
        self._auditor = auditor

    def entering(self, work: Callable[[Entering], T]) -> T:
        """Do *work* in one transaction, with the events that it enters. Durable once it returns.

        Raises:
            StoreError, BrokenLogError: nothing of it was done; and whatever *work* raises, with the same.
        """
        done: list[T] = []

        def append(waiting: Sequence[Draft]) -> Head:
            with database.writing(self.engine, lock=audit.APPEND_LOCK) as connection:
                entering = Entering(connection, waiting)
                done.append(work(entering))
            return entering.head

        self._auditor.record_with(append)
        return done[0]

    def history(self, subject: str, *, from_number: int, rows_max: int) -> list[Entered]:
        """The subject's events by number."""
        event, entry = custody_event.c, audit_entry.c
        query = (
            select(event.log, event.entry, event.number, entry.entry.label("raw"), event.salt, event.note)
            .join(audit_entry, (entry.log == event.log) & (entry.number == event.entry))
            .where(event.subject == subject, event.number >= from_number)
        )
        with database.reading(self.engine) as connection:
            rows = connection.execute(query.order_by(event.number).limit(rows_max)).all()
        return [Entered(row.log, row.entry, row.number, bytes(row.raw), row.salt, row.note) for row in rows]
