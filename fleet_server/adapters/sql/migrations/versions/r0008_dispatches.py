"""Dispatches of the control room, and pieces by their officer."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "dispatch",
        sa.Column("dispatch", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("begin_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("explained_by", sa.Text(), nullable=True),
        sa.Column("explained_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("dispatch", name=op.f("pk_dispatch")),
    )
    op.create_index(op.f("ix_dispatch_begin_ms_dispatch"), "dispatch", ["begin_ms", "dispatch"], unique=False)
    op.create_index(op.f("ix_dispatch_path_begin_ms"), "dispatch", ["path", "begin_ms"], unique=False)
    op.create_index(op.f("ix_dispatch_holder_begin_ms"), "dispatch", ["holder", "begin_ms"], unique=False)
    op.create_index(op.f("ix_dispatch_device_begin_ms"), "dispatch", ["device", "begin_ms"], unique=False)
    op.create_index(op.f("ix_evidence_piece_holder_begin_ms"), "evidence_piece", ["holder", "begin_ms"], unique=False)
