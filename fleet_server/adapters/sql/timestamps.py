"""The port :class:`fleet_server.access.timestamps.Timestamps` in the operators' database."""

from collections.abc import Sequence

from sqlalchemy import Engine, func, insert, select

from fleet_server.access.timestamps import Timestamp
from fleet_server.adapters.sql import audit, database
from fleet_server.adapters.sql.evidence_tables import audit_timestamp as timestamps


class SqlTimestamps:
    """See the port."""

    def __init__(self, engine: Engine) -> None:
        """Of a database that is migrated."""
        self._engine = engine

    def newest(self, log: int) -> int:
        """See the port."""
        query = select(func.max(timestamps.c.size)).where(timestamps.c.log == log)
        with database.reading(self._engine) as connection:
            return connection.execute(query).scalar_one() or 0

    def keep(self, timestamp: Timestamp) -> None:
        """See the port."""
        column = timestamps.c
        same = select(func.count()).where(column.log == timestamp.log, column.size == timestamp.size)
        with database.writing(self._engine, lock=audit.APPEND_LOCK) as connection:
            if not connection.execute(same).scalar_one():
                connection.execute(insert(timestamps).values(timestamp._asdict()))

    def all(self, log: int, *, from_size: int, rows_max: int) -> Sequence[Timestamp]:
        """See the port."""
        column = timestamps.c
        query = select(timestamps).where(column.log == log, column.size >= from_size).order_by(column.size)
        with database.reading(self._engine) as connection:
            return [Timestamp(**row) for row in connection.execute(query.limit(rows_max)).mappings()]
