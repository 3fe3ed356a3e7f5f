"""Twins, layers and groups."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "twin",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("desired_version", sa.BigInteger(), nullable=False),
        sa.Column("desired_number", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("reported_version", sa.BigInteger(), nullable=False),
        sa.Column("reported_number", sa.BigInteger(), nullable=False),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.Column("drift", sa.Text(), nullable=False),
        sa.Column("held_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_twin")),
    )
    op.create_index(op.f("ix_twin_drift_device"), "twin", ["drift", "device"], unique=False)
    op.create_index(op.f("ix_twin_held_by"), "twin", ["held_by"], unique=False)
    op.create_table(
        "twin_desired",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("confirm_s", sa.Integer(), nullable=False),
        sa.Column("apply_window", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "number", name=op.f("pk_twin_desired")),
    )
    op.create_table(
        "twin_reported",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("desired", sa.BigInteger(), nullable=False),
        sa.Column("in_force", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("waits_for", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "number", name=op.f("pk_twin_reported")),
    )
    op.create_table(
        "twin_document",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_twin_document")),
    )
    op.create_table(
        "config_layer",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("leaves", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_config_layer")),
    )
    op.create_table(
        "config_group",
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group", name=op.f("pk_config_group")),
    )
    op.create_table(
        "config_group_member",
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["group"], ["config_group.group"], name=op.f("fk_config_group_member_group")),
        sa.PrimaryKeyConstraint("group", "device", name=op.f("pk_config_group_member")),
    )
