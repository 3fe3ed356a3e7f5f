"""Rollouts and their members."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "rollout",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("head", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", name=op.f("pk_rollout")),
    )
    op.create_index(op.f("ix_rollout_created_ms_rollout"), "rollout", ["created_ms", "rollout"], unique=False)
    op.create_index(op.f("ix_rollout_phase"), "rollout", ["phase"], unique=False)
    op.create_table(
        "rollout_member",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.rollout"], name=op.f("fk_rollout_member_rollout_rollout")),
        sa.PrimaryKeyConstraint("rollout", "device", name=op.f("pk_rollout_member")),
    )
    op.create_index(op.f("ix_rollout_member_rollout_state"), "rollout_member", ["rollout", "state"], unique=False)
