"""Evidence: an index of pieces and physical items, custody events, holds, retention, deletions, scrubs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables."""
    _pieces()
    _what_happens_to_them()


def _pieces() -> None:
    op.create_table(
        "evidence_piece",
        sa.Column("piece", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("device_class", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("file_class", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("recording", sa.Text(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("last", sa.Boolean(), nullable=False),
        sa.Column("begin_ms", sa.BigInteger(), nullable=False),
        sa.Column("begin_unc_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_unc_ms", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("journal_life", sa.Text(), nullable=False),
        sa.Column("journal_first", sa.BigInteger(), nullable=False),
        sa.Column("journal_last", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("offered_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("damage", sa.Text(), nullable=False),
        sa.Column("log", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("piece", name=op.f("pk_evidence_piece")),
    )
    op.create_index(op.f("ix_evidence_piece_device_begin_ms"), "evidence_piece", ["device", "begin_ms"], unique=False)
    op.create_index(
        op.f("ix_evidence_piece_path_received_ms"), "evidence_piece", ["path", "received_ms"], unique=False
    )
    op.create_index(
        op.f("ix_evidence_piece_received_ms_piece"), "evidence_piece", ["received_ms", "piece"], unique=False
    )
    op.create_index(
        op.f("ix_evidence_piece_recording_segment"), "evidence_piece", ["recording", "segment"], unique=False
    )
    op.create_index(op.f("ix_evidence_piece_sha256"), "evidence_piece", ["sha256"], unique=False)
    op.create_index(
        op.f("ix_evidence_piece_state_received_ms"), "evidence_piece", ["state", "received_ms"], unique=False
    )
    op.create_table(
        "evidence_class",
        sa.Column("piece", sa.Text(), nullable=False),
        sa.Column("evidence_class", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["piece"], ["evidence_piece.piece"], name=op.f("fk_evidence_class_piece")),
        sa.PrimaryKeyConstraint("piece", "evidence_class", name=op.f("pk_evidence_class")),
    )
    op.create_index(
        op.f("ix_evidence_class_evidence_class_piece"), "evidence_class", ["evidence_class", "piece"], unique=False
    )
    op.create_table(
        "evidence_deletion",
        sa.Column("deletion", sa.Text(), nullable=False),
        sa.Column("piece", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("approved_ms", sa.BigInteger(), nullable=True),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column("withdrawn_ms", sa.BigInteger(), nullable=True),
        sa.Column("done_ms", sa.BigInteger(), nullable=True),
        sa.Column("gone_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["piece"], ["evidence_piece.piece"], name=op.f("fk_evidence_deletion_piece")),
        sa.PrimaryKeyConstraint("deletion", name=op.f("pk_evidence_deletion")),
    )
    op.create_index(op.f("ix_evidence_deletion_done_ms"), "evidence_deletion", ["done_ms"], unique=False)
    op.create_index(op.f("ix_evidence_deletion_piece"), "evidence_deletion", ["piece"], unique=False)
    op.create_table(
        "evidence_hold",
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("piece", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.Text(), nullable=False),
        sa.Column("placed_ms", sa.BigInteger(), nullable=False),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.Column("released_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["piece"], ["evidence_piece.piece"], name=op.f("fk_evidence_hold_piece")),
        sa.PrimaryKeyConstraint("hold", "piece", name=op.f("pk_evidence_hold")),
    )
    op.create_index(
        op.f("ix_evidence_hold_piece_released_ms"), "evidence_hold", ["piece", "released_ms"], unique=False
    )


def _what_happens_to_them() -> None:
    op.create_table(
        "audit_timestamp",
        sa.Column("log", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("tsa", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log", "size", name=op.f("pk_audit_timestamp")),
    )
    op.create_table(
        "custody_event",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("subject", "number", name=op.f("pk_custody_event")),
    )
    op.create_index(op.f("ix_custody_event_log_entry"), "custody_event", ["log", "entry"], unique=True)
    op.create_table(
        "evidence_item",
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("case_name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("with_whom", sa.Text(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=True),
        sa.Column("taken_in_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item", name=op.f("pk_evidence_item")),
    )
    op.create_index(op.f("ix_evidence_item_case_name"), "evidence_item", ["case_name"], unique=False)
    op.create_index(op.f("ix_evidence_item_path_item"), "evidence_item", ["path", "item"], unique=False)
    op.create_index(op.f("ix_evidence_item_state_item"), "evidence_item", ["state", "item"], unique=False)
    op.create_table(
        "evidence_scrub",
        sa.Column("begun_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.Column("pieces", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column("altered", sa.BigInteger(), nullable=False),
        sa.Column("unreadable", sa.BigInteger(), nullable=False),
        sa.Column("unlike_log", sa.BigInteger(), nullable=False),
        sa.Column("unexpected", sa.BigInteger(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("begun_ms", name=op.f("pk_evidence_scrub")),
    )
    op.create_table(
        "retention_change",
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("evidence_class", sa.Text(), nullable=False),
        sa.Column("keep_d", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_ms", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("approved_ms", sa.BigInteger(), nullable=True),
        sa.Column("effective_ms", sa.BigInteger(), nullable=True),
        sa.Column("withdrawn_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("change", name=op.f("pk_retention_change")),
    )
    op.create_index(
        op.f("ix_retention_change_evidence_class_effective_ms"),
        "retention_change",
        ["evidence_class", "effective_ms"],
        unique=False,
    )
