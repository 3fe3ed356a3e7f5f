"""Commands, and what becomes of them on each device."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "command",
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("safety", sa.Text(), nullable=False),
        sa.Column("needs", sa.Integer(), nullable=False),
        sa.Column("said_by", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("approved_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("command", name=op.f("pk_command")),
    )
    op.create_index(op.f("ix_command_created_ms_command"), "command", ["created_ms", "command"], unique=False)
    op.create_table(
        "command_target",
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("waits_for", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("order_bytes", sa.LargeBinary(), nullable=True),
        sa.Column("sent_ms", sa.BigInteger(), nullable=True),
        sa.Column("heard_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["command"], ["command.command"], name=op.f("fk_command_target_command")),
        sa.PrimaryKeyConstraint("command", "device", name=op.f("pk_command_target")),
    )
    op.create_index(
        op.f("ix_command_target_state_expires_ms"), "command_target", ["state", "expires_ms"], unique=False
    )
    op.create_index(op.f("ix_command_target_device_counter"), "command_target", ["device", "counter"], unique=False)
