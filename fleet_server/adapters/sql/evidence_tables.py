"""The tables of evidence: an index of pieces and physical items, and of what happened to each.

The audit log says what happened; these find it. A row of ``custody_event`` names an entry of the log, and holds what
people wrote beside it, which the log has as a salted hash only.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from fleet_server.adapters.sql.tables import metadata

# ``path``: of the organisation node as at arrival, empty: no place. ``state``: see evidence.pieces.State;
# ``damage``: what the last scrub found, empty if nothing. ``log``, ``entry``: where evidence.verified is.
evidence_piece: Final = Table(
    "evidence_piece",
    metadata,
    Column("piece", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("device_class", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("file_class", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("recording", Text, nullable=False),
    Column("segment", Integer, nullable=False),
    Column("last", Boolean, nullable=False),
    Column("begin_ms", BigInteger, nullable=False),
    Column("begin_unc_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("end_unc_ms", BigInteger, nullable=False),
    Column("clock", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("journal_life", Text, nullable=False),
    Column("journal_first", BigInteger, nullable=False),
    Column("journal_last", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("certificate", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("offered_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("damage", Text, nullable=False),
    Column("log", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Index(None, "path", "received_ms"),
    Index(None, "device", "begin_ms"),
    Index(None, "holder", "begin_ms"),
    Index(None, "recording", "segment"),
    Index(None, "sha256"),
    Index(None, "received_ms", "piece"),
    Index(None, "state", "received_ms"),
)

# Of a piece there may be several; of none it is unclassified.
evidence_class: Final = Table(
    "evidence_class",
    metadata,
    Column("piece", Text, ForeignKey("evidence_piece.piece"), primary_key=True),
    Column("evidence_class", Text, primary_key=True),
    Index(None, "evidence_class", "piece"),
)

# ``released_ms`` null: it holds.
evidence_hold: Final = Table(
    "evidence_hold",
    metadata,
    Column("hold", Text, primary_key=True),
    Column("piece", Text, ForeignKey("evidence_piece.piece"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("placed_by", Text, nullable=False),
    Column("placed_ms", BigInteger, nullable=False),
    Column("released_by", Text),
    Column("released_ms", BigInteger),
    Index(None, "piece", "released_ms"),
)

# ``subject``: a piece, ``item:ID`` or ``class:NAME``; ``number``: from 0 without holes; ``digest``: of the entry.
# ``note``: what somebody wrote; null: there was none, or it was erased. The log has SHA-256 over salt, NUL and note.
custody_event: Final = Table(
    "custody_event",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("log", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("note", Text),
    Index(None, "log", "entry", unique=True),
)

# ``done_ms``: when the piece was deleted; ``gone_ms``: when its content was seen to be gone from every copy, or to
# belong to another piece.
evidence_deletion: Final = Table(
    "evidence_deletion",
    metadata,
    Column("deletion", Text, primary_key=True),
    Column("piece", Text, ForeignKey("evidence_piece.piece"), nullable=False),
    Column("cause", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
    Column("approved_by", Text),
    Column("approved_ms", BigInteger),
    Column("withdrawn_by", Text),
    Column("withdrawn_ms", BigInteger),
    Column("done_ms", BigInteger),
    Column("gone_ms", BigInteger),
    Index(None, "piece"),
    Index(None, "done_ms"),
)

# ``keep_d`` null: for ever.
retention_change: Final = Table(
    "retention_change",
    metadata,
    Column("change", Text, primary_key=True),
    Column("evidence_class", Text, nullable=False),
    Column("keep_d", Integer),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_ms", BigInteger, nullable=False),
    Column("approved_by", Text),
    Column("approved_ms", BigInteger),
    Column("effective_ms", BigInteger),
    Column("withdrawn_ms", BigInteger),
    Index(None, "evidence_class", "effective_ms"),
)

evidence_scrub: Final = Table(
    "evidence_scrub",
    metadata,
    Column("begun_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("pieces", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("missing", BigInteger, nullable=False),
    Column("altered", BigInteger, nullable=False),
    Column("unreadable", BigInteger, nullable=False),
    Column("unlike_log", BigInteger, nullable=False),
    Column("unexpected", BigInteger, nullable=False),
    Column("names", Text, nullable=False),  # a JSON list of the first of them
    Column("why", Text, nullable=False),  # it was not finished; empty: it was
)

# ``place``: where it is kept; ``with_whom``: who has it meanwhile, or for good.
evidence_item: Final = Table(
    "evidence_item",
    metadata,
    Column("item", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("case_name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("with_whom", Text, nullable=False),
    Column("due_ms", BigInteger),
    Column("taken_in_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Index(None, "path", "item"),
    Index(None, "state", "item"),
    Index(None, "case_name"),
)

# As the control room has them; ``path``: of the node as at import. ``explained_*`` null: nobody has explained it.
dispatch: Final = Table(
    "dispatch",
    metadata,
    Column("dispatch", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("begin_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    Column("why", Text),
    Column("note", Text),
    Column("explained_by", Text),
    Column("explained_ms", BigInteger),
    Index(None, "begin_ms", "dispatch"),
    Index(None, "path", "begin_ms"),
    Index(None, "holder", "begin_ms"),
    Index(None, "device", "begin_ms"),
)

# RFC 3161 answers over the note of a checkpoint.
audit_timestamp: Final = Table(
    "audit_timestamp",
    metadata,
    Column("log", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("tsa", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("token", LargeBinary, nullable=False),
)
