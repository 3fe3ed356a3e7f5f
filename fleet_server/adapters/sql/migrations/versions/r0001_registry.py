"""Organisation, duty units, devices with their places in time, and answers kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "device_place",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("device_class", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "from_ms", name=op.f("pk_device_place")),
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_at_ms"), "idempotency", ["at_ms"], unique=False)
    op.create_table(
        "org_node",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["parent"], ["org_node.node"], name=op.f("fk_org_node_parent")),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_org_node")),
        sa.UniqueConstraint("path", name=op.f("uq_org_node_path")),
    )
    op.create_index(op.f("ix_org_node_parent"), "org_node", ["parent"], unique=False)
    op.create_table(
        "duty_unit",
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["org_node.node"], name=op.f("fk_duty_unit_node")),
        sa.PrimaryKeyConstraint("unit", name=op.f("pk_duty_unit")),
    )
    op.create_index(op.f("ix_duty_unit_node"), "duty_unit", ["node"], unique=False)
    op.create_table(
        "device",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("device_class", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=True),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("registered_ms", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("profile_digest", sa.Text(), nullable=False),
        sa.Column("reported_class", sa.Text(), nullable=False),
        sa.Column("reported_ms", sa.BigInteger(), nullable=True),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("reporting", sa.Boolean(), nullable=False),
        sa.Column("healthy", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["org_node.node"], name=op.f("fk_device_node")),
        sa.ForeignKeyConstraint(["unit"], ["duty_unit.unit"], name=op.f("fk_device_unit")),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_device")),
        sa.UniqueConstraint("serial", name=op.f("uq_device_serial")),
    )
    op.create_index(op.f("ix_device_connected_device"), "device", ["connected", "device"], unique=False)
    op.create_index(op.f("ix_device_device_class_device"), "device", ["device_class", "device"], unique=False)
    op.create_index(op.f("ix_device_healthy_device"), "device", ["healthy", "device"], unique=False)
    op.create_index(op.f("ix_device_node"), "device", ["node"], unique=False)
    op.create_index(op.f("ix_device_path_device"), "device", ["path", "device"], unique=False)
    op.create_index(op.f("ix_device_reporting_device"), "device", ["reporting", "device"], unique=False)
    op.create_index(
        "ix_device_tally", "device", ["path", "device_class", "connected", "reporting", "healthy"], unique=False
    )
    op.create_index(op.f("ix_device_unit_device"), "device", ["unit", "device"], unique=False)
