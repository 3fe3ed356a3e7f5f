"""The tables of twins, layers and groups.

``number`` counts the entries of one device's history from 1, so that the oldest can go by a range of the key. A
document or its provenance is stored once, however many devices have it: ``twin_document`` is named by its digest.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text

from fleet_server.adapters.sql.tables import metadata

# What is newest of each device. ``document``: of what is desired; ``taken``: the newest version that the device says
# it took up; ``drift``: as twins.drift says, kept so that it can be asked for; ``held_by``: a rollout, empty: none.
twin: Final = Table(
    "twin",
    metadata,
    Column("device", Text, primary_key=True),
    Column("desired_version", BigInteger, nullable=False),
    Column("desired_number", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("reported_version", BigInteger, nullable=False),
    Column("reported_number", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False),
    Column("drift", Text, nullable=False),
    Column("held_by", Text, nullable=False),
    Index(None, "drift", "device"),
    Index(None, "held_by"),
)

twin_desired: Final = Table(
    "twin_desired",
    metadata,
    Column("device", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("confirm_s", Integer, nullable=False),
    Column("apply_window", Text, nullable=False),  # JSON; empty: at any time
)

# ``version`` grows while a device says the same again; ``at_ms``: when it said it first.
twin_reported: Final = Table(
    "twin_reported",
    metadata,
    Column("device", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("boot", Text, nullable=False),
    Column("desired", BigInteger, nullable=False),
    Column("in_force", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("waits_for", Text, nullable=False),
    Column("document", Text, nullable=False),
)

twin_document: Final = Table(
    "twin_document",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("body", Text, nullable=False),  # JSON, its names sorted
)

# ``leaves``: JSON, setting -> [value, revision that gave it].
config_layer: Final = Table(
    "config_layer",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # empty for the fleet
    Column("revision", BigInteger, nullable=False),
    Column("leaves", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
)

config_group: Final = Table(
    "config_group",
    metadata,
    Column("group", Text, primary_key=True),
    Column("priority", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

config_group_member: Final = Table(
    "config_group_member",
    metadata,
    Column("group", Text, ForeignKey("config_group.group"), primary_key=True),
    Column("device", Text, primary_key=True),
)
