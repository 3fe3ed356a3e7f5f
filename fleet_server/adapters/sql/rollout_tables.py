"""The tables of rollouts. What only the machine reads is JSON: ``plan``, ``head`` and each member's ``body``."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, Text

from fleet_server.adapters.sql.tables import metadata

rollout: Final = Table(
    "rollout",
    metadata,
    Column("rollout", Text, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("phase", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("plan", Text, nullable=False),
    Column("head", Text, nullable=False),
    Index(None, "created_ms", "rollout"),
    Index(None, "phase"),
)

rollout_member: Final = Table(
    "rollout_member",
    metadata,
    Column("rollout", Text, ForeignKey("rollout.rollout"), primary_key=True),
    Column("device", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "rollout", "state"),
)
