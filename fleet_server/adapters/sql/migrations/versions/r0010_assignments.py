"""Who has which device when."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "assignment",
        sa.Column("assignment", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("officer", sa.Text(), nullable=False),
        sa.Column("vehicle", sa.Text(), nullable=False),
        sa.Column("shift", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("to_ms", sa.BigInteger(), nullable=True),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("unready", sa.Text(), nullable=False),
        sa.Column("said_by", sa.Text(), nullable=False),
        sa.Column("said_ms", sa.BigInteger(), nullable=False),
        sa.Column("superseded_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("assignment", "revision", name=op.f("pk_assignment")),
    )
    op.create_index(op.f("ix_assignment_device_from_ms"), "assignment", ["device", "from_ms"], unique=False)
    op.create_index(op.f("ix_assignment_officer_from_ms"), "assignment", ["officer", "from_ms"], unique=False)
    op.create_index(op.f("ix_assignment_from_ms_assignment"), "assignment", ["from_ms", "assignment"], unique=False)
    lasting = sa.text("superseded_ms IS NULL AND to_ms IS NULL AND withdrawn IS false")
    op.create_index(
        "ix_assignment_lasting",
        "assignment",
        ["device"],
        unique=True,
        sqlite_where=sa.text("superseded_ms IS NULL AND to_ms IS NULL AND withdrawn IS 0"),
        postgresql_where=lasting,
    )
