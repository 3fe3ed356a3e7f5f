"""Every table of the operator's database. ``migrations`` make them; a test holds the two to each other.

Times are ms since the epoch. ``revision`` counts the changes that operators made to a row, from 1; it is the row's
ETag. Names are checked before they come here, so that the tables hold no patterns.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

org_node: Final = Table(
    "org_node",
    metadata,
    Column("node", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("parent", Text, ForeignKey("org_node.node")),
    Column("path", Text, nullable=False, unique=True),  # the nodes from the root to this one, / between
    Column("revision", BigInteger, nullable=False),
    Index(None, "parent"),
)

duty_unit: Final = Table(
    "duty_unit",
    metadata,
    Column("unit", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("node", Text, ForeignKey("org_node.node")),
    Column("revision", BigInteger, nullable=False),
    Index(None, "node"),
)

# What operators say (up to revision), what the device's last birth said (up to reported_ms), and the three facts of
# presence as last told. ``path`` is the node's, so that a subtree is a range of one index.
device: Final = Table(
    "device",
    metadata,
    Column("device", Text, primary_key=True),
    Column("device_class", Text, nullable=False),
    Column("serial", Text, unique=True),
    Column("node", Text, ForeignKey("org_node.node")),
    Column("path", Text, nullable=False),
    Column("unit", Text, ForeignKey("duty_unit.unit")),
    Column("note", Text, nullable=False),
    Column("registered_ms", BigInteger),  # null: it was only heard of
    Column("revision", BigInteger, nullable=False),
    Column("agent", Text, nullable=False),
    Column("hardware", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("profile_digest", Text, nullable=False),
    Column("reported_class", Text, nullable=False),
    Column("reported_ms", BigInteger),
    Column("connected", Boolean, nullable=False),
    Column("reporting", Boolean, nullable=False),
    Column("healthy", Boolean, nullable=False),
    Index(None, "device_class", "device"),
    Index(None, "path", "device"),
    Index(None, "unit", "device"),
    Index(None, "node"),
    Index(None, "connected", "device"),
    Index(None, "reporting", "device"),
    Index(None, "healthy", "device"),
)

# Only ever added to: a rebuilt time series finds the labels of the first time. ``path`` empty: no place.
device_place: Final = Table(
    "device_place",
    metadata,
    Column("device", Text, primary_key=True),
    Column("from_ms", BigInteger, primary_key=True),
    Column("device_class", Text, nullable=False),
    Column("path", Text, nullable=False),
)

# Answers kept for a client that repeats its request; ``status`` null: the first is under way.
idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),
    Column("request", LargeBinary, nullable=False),  # SHA-256 of method, path, query and body
    Column("at_ms", BigInteger, nullable=False),
    Column("status", Integer),
    Column("content_type", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index(None, "at_ms"),
)
