"""Which contents of evidence the index says are kept."""

from sqlalchemy import Engine, select

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.evidence_tables import evidence_piece
from fleet_server.evidence.pieces import State


def kept_contents(engine: Engine) -> frozenset[str]:
    """Their SHA-256. Raises StoreError."""
    query = select(evidence_piece.c.sha256).where(evidence_piece.c.state == State.KEPT.value).distinct()
    with database.reading(engine) as connection:
        return frozenset(connection.execute(query).scalars())
