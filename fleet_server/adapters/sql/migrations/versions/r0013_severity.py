"""A happening's severity beside its kind: alerts of one kind have several."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

ALARMS = (
    "broker.lost", "evidence.damaged", "gap.lost", "quarantine.filling", "site.disconnected", "store.refusing",
)  # fmt: skip
WARNINGS = (
    "device.disconnected", "device.silent", "device.unhealthy", "evidence.overdue", "evidence.unchecked",
    "gap.unexplained", "rollout.paused", "rollout.stopped", "webhook.failing",
)  # fmt: skip


def upgrade() -> None:
    """Add it, of what happened before by its kind."""
    op.add_column("happening", sa.Column("severity", sa.Text(), nullable=False, server_default="info"))
    happening = sa.table("happening", sa.column("kind", sa.Text()), sa.column("severity", sa.Text()))
    for severity, kinds in (("alarm", ALARMS), ("warning", WARNINGS)):
        op.execute(happening.update().where(happening.c.kind.in_(kinds)).values(severity=severity))
