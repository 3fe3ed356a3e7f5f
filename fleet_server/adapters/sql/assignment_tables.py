"""The table of assignments: who had which device when, as it was said at any time."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text, and_

from fleet_server.adapters.sql.tables import metadata

# A row a revision. Of a row that was written only ``superseded_ms`` is ever set, once: when the next revision of the
# same assignment was said; null: it counts. ``unready``: a JSON list of rules that were broken. No reference to the
# device: what is forgotten was with somebody all the same.
assignment: Final = Table(
    "assignment",
    metadata,
    Column("assignment", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("officer", Text, nullable=False),
    Column("vehicle", Text, nullable=False),
    Column("shift", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("to_ms", BigInteger),
    Column("withdrawn", Boolean, nullable=False),
    Column("act", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("unready", Text, nullable=False),
    Column("said_by", Text, nullable=False),
    Column("said_ms", BigInteger, nullable=False),
    Column("superseded_ms", BigInteger),
    Index(None, "device", "from_ms"),
    Index(None, "officer", "from_ms"),
    Index(None, "from_ms", "assignment"),
)

_lasts: Final = and_(
    assignment.c.superseded_ms.is_(None), assignment.c.to_ms.is_(None), assignment.c.withdrawn.is_(False)
)
# A device is with one at a time, whoever writes here.
Index("ix_assignment_lasting", assignment.c.device, unique=True, sqlite_where=_lasts, postgresql_where=_lasts)
