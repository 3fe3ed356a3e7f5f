"""The port :class:`fleet_server.access.kept_answers.KeptAnswers` in the operator's database."""

from typing import Final

from sqlalchemy import Engine, delete, insert, select, update

from fleet_server.access.kept_answers import DIFFERENT, FRESH, KEPT_S, UNDER_WAY, UNDER_WAY_S_MAX, Begun, Kept
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import idempotency

CLAIM_LOCK: Final = 0x6666_6B61
"""Of those who look whether a key is claimed, one after the other."""


class SqlKeptAnswers:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    def begin(self, key: str, request: bytes, *, now_ms: int) -> Kept | Begun:
        """See the port."""
        column = idempotency.c
        with database.writing(self._engine, lock=CLAIM_LOCK) as connection:
            connection.execute(delete(idempotency).where(column.at_ms < now_ms - 1000 * KEPT_S))
            died = (column.status.is_(None), column.at_ms < now_ms - 1000 * UNDER_WAY_S_MAX)
            connection.execute(delete(idempotency).where(*died))
            row = connection.execute(select(idempotency).where(column.key == key)).one_or_none()
            if row is None:
                claim = {"key": key, "request": request, "at_ms": now_ms}
                connection.execute(insert(idempotency).values(**claim, content_type="", etag="", body=b""))
                return FRESH
        if row.request != request:
            return DIFFERENT
        return UNDER_WAY if row.status is None else Kept(row.status, row.content_type, row.etag, row.body)

    def finish(self, key: str, kept: Kept) -> None:
        """See the port."""
        values = {"status": kept.status, "content_type": kept.content_type, "etag": kept.etag, "body": kept.body}
        with database.writing(self._engine) as connection:
            connection.execute(update(idempotency).where(idempotency.c.key == key).values(values))

    def drop(self, key: str) -> None:
        """See the port."""
        with database.writing(self._engine) as connection:
            connection.execute(delete(idempotency).where(idempotency.c.key == key))
