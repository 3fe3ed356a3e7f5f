"""Every table of the operator's database. ``migrations`` make them; a test holds the two to each other.

Times are ms since the epoch. ``revision`` counts the changes that operators made to a row, from 1; it is the row's
ETag. Names are checked before they come here, so that the tables hold no patterns.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

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
    Index("ix_device_tally", "path", "device_class", "connected", "reporting", "healthy"),  # counted from it alone
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

# The audit log, all three only ever added to; triggers stop accidents, checkpoints show the rest. ``entry`` is what
# counts, the columns beside it only find it.
audit_entry: Final = Table(
    "audit_entry",
    metadata,
    Column("log", BigInteger, primary_key=True, autoincrement=False),  # when it began
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # from 0
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("entry", LargeBinary, nullable=False),  # canonical bytes
    Index(None, "at_ms"),
    Index(None, "actor", "log", "number"),
    Index(None, "action", "log", "number"),
    Index(None, "subject", "log", "number"),
)

audit_node: Final = Table(
    "audit_node",
    metadata,
    Column("log", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),  # tlog.place
    Column("hash", LargeBinary, nullable=False),
)

audit_checkpoint: Final = Table(
    "audit_checkpoint",
    metadata,
    Column("log", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

# The feed. Ids are never given again, and are seen in their order: who adds one holds the table until it commits.
happening: Final = Table(
    "happening",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("device_class", Text, nullable=False),
    Column("org", Text, nullable=False),
    Column("data", Text, nullable=False),  # a flat JSON object
    Column("severity", Text, nullable=False),
    Index(None, "device", "id"),
    Index(None, "kind", "id"),
    Index(None, "at_ms"),
    sqlite_autoincrement=True,
)

# Whoever reads ``secret`` can speak as this server to the receiver.
subscription: Final = Table(
    "subscription",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sort", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("kinds", Text, nullable=False),  # a JSON list; empty: all
    Column("severity", Text, nullable=False),
    Column("org", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("disabled", Text, nullable=False),  # why; empty: it is served
    Column("revision", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

delivery: Final = Table(
    "delivery",
    metadata,
    Column("subscription", Text, ForeignKey("subscription.id"), primary_key=True),
    Column("happening", BigInteger, ForeignKey("happening.id"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),  # of the last answer; 0: there was none
    Column("error", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Index(None, "subscription", "state", "next_ms"),
    Index(None, "happening"),
)

# What the watches have told, so that a restart tells nothing twice.
watched: Final = Table(
    "watched",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# Tokens of programs and people; ``digest``: SHA-256 of the secret.
token: Final = Table(
    "token",
    metadata,
    Column("token", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("made_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("pending", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("used_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

# ``node`` empty: everywhere.
token_grant: Final = Table(
    "token_grant",
    metadata,
    Column("token", Text, ForeignKey("token.token"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Index(None, "node"),
)

# ``digest``: SHA-256 of the code. A device has at most one that is neither redeemed nor withdrawn.
claim: Final = Table(
    "claim",
    metadata,
    Column("claim", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("device", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("redeemed_ms", BigInteger),
    Column("withdrawn_ms", BigInteger),
    Column("serial", Text),
    Index(None, "device"),
)

# Only ever added to: what a certificate was stays known when it has expired.
certificate: Final = Table(
    "certificate",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("key_digest", Text, nullable=False, unique=True),
    Column("key_kind", Text, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("connected_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("reason", Text),
    Index(None, "device"),
    Index(None, "state", "not_after_ms"),
)

# People who sign in. ``proposed_by``: who proposed the grants that wait for a second person.
person: Final = Table(
    "person",
    metadata,
    Column("person", Text, primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("proposed_by", Text),
    Column("revision", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("disabled_ms", BigInteger),
    UniqueConstraint("issuer", "subject"),
)

# ``given``: by hand, by a group of the last sign-in, or only proposed.
person_grant: Final = Table(
    "person_grant",
    metadata,
    Column("person", Text, ForeignKey("person.person"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("given", Text, primary_key=True),
    Index(None, "node"),
)

# ``digest``: SHA-256 of what is in the cookie.
session: Final = Table(
    "session",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("person", Text, ForeignKey("person.person"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Index(None, "expires_ms"),
    Index(None, "person", "created_ms"),
)
