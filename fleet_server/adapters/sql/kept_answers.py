"""The port :class:`fleet_server.access.kept_answers.KeptAnswers` in the operator's database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from broker_config.text import shown
from fleet_server.access.kept_answers import DIFFERENT, FRESH, KEPT_S, UNDER_WAY, UNDER_WAY_S_MAX, Begun, Kept
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.tables import idempotency
from fleet_server.telemetry.store import StoreError


class SqlKeptAnswers:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with database.writing(self._engine) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(shown(error)) from error

    def begin(self, key: str, request: bytes, *, now_ms: int) -> Kept | Begun:
        """See the port."""
        column = idempotency.c
        try:
            with database.writing(self._engine) as connection:
                connection.execute(delete(idempotency).where(column.at_ms < now_ms - 1000 * KEPT_S))
                died = (column.status.is_(None), column.at_ms < now_ms - 1000 * UNDER_WAY_S_MAX)
                connection.execute(delete(idempotency).where(*died))
                row = connection.execute(select(idempotency).where(column.key == key)).one_or_none()
                if row is None:
                    claim = {"key": key, "request": request, "at_ms": now_ms}
                    connection.execute(insert(idempotency).values(**claim, content_type="", etag="", body=b""))
                    return FRESH
        except IntegrityError:  # another was quicker between the look and the claim
            return UNDER_WAY
        except SQLAlchemyError as error:
            raise StoreError(shown(error)) from error
        if row.request != request:
            return DIFFERENT
        return UNDER_WAY if row.status is None else Kept(row.status, row.content_type, row.etag, row.body)

    def finish(self, key: str, kept: Kept) -> None:
        """See the port."""
        values = {"status": kept.status, "content_type": kept.content_type, "etag": kept.etag, "body": kept.body}
        with self._writing() as connection:
            connection.execute(update(idempotency).where(idempotency.c.key == key).values(values))

    def drop(self, key: str) -> None:
        """See the port."""
        with self._writing() as connection:
            connection.execute(delete(idempotency).where(idempotency.c.key == key))
