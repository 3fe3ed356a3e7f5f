"""The tables of commands."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from fleet_server.adapters.sql.tables import metadata

command: Final = Table(
    "command",
    metadata,
    Column("command", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("parameters", Text, nullable=False),  # JSON
    Column("safety", Text, nullable=False),
    Column("needs", Integer, nullable=False),
    Column("said_by", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("approved_ms", BigInteger),
    Index(None, "created_ms", "command"),
)

# ``order_bytes``: the envelope, as long as it may be said again; null: none.
command_target: Final = Table(
    "command_target",
    metadata,
    Column("command", Text, ForeignKey("command.command"), primary_key=True),
    Column("device", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("waits_for", Text, nullable=False),
    Column("result", Text, nullable=False),  # JSON
    Column("counter", BigInteger, nullable=False),
    Column("order_bytes", LargeBinary),
    Column("sent_ms", BigInteger),
    Column("heard_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Index(None, "state", "expires_ms"),
    Index(None, "device", "counter"),
)
