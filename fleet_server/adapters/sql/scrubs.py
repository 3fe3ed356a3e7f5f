"""The port :class:`fleet_server.evidence.scrub.Scrubs` in the operators' database."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import RowMapping, insert, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.evidence_tables import evidence_piece as pieces
from fleet_server.adapters.sql.evidence_tables import evidence_scrub as scrubs
from fleet_server.evidence.custody import SERVER, STORE, Act, Entered, Event
from fleet_server.evidence.pieces import Damage
from fleet_server.evidence.scrub import Scrub


class SqlScrubs:
    """See the port."""

    def __init__(self, log: CustodyLog) -> None:
        self._log = log

    def events(self, piece: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """See the port."""
        return self._log.history(piece, from_number=from_number, rows_max=rows_max)

    def mark(self, piece: str, damage: Damage, *, copy: str, now_ms: int) -> None:
        """See the port."""

        def work(entering: Entering) -> None:
            changed = update(pieces).where(pieces.c.piece == piece).values(damage=damage.value)
            entering.connection.execute(changed)
            event = Event.SOUND if damage is Damage.NONE else Event.DAMAGED
            data = {} if damage is Damage.NONE else {"what": damage.value, "copy": copy}
            entering.event(Act(event, piece, SERVER, now_ms, data))

        self._log.entering(work)

    def keep(self, scrub: Scrub) -> None:
        """See the port."""

        def work(entering: Entering) -> None:
            row = {**scrub._asdict(), "names": msgspec.json.encode(scrub.names).decode()}
            entering.connection.execute(insert(scrubs).values(row))
            told = ("pieces", "bytes", "missing", "altered", "unreadable", "unlike_log", "unexpected")
            data = {name: str(getattr(scrub, name)) for name in told}
            finished = {"finished": "false" if scrub.why else "true"}
            entering.event(Act(Event.SCRUBBED, STORE, SERVER, scrub.ended_ms, {**data, **finished}))

        self._log.entering(work)

    def all(self, *, before_ms: int | None, rows_max: int) -> Sequence[Scrub]:
        """See the port."""
        column = scrubs.c
        query = select(scrubs).where(*([] if before_ms is None else [column.begun_ms < before_ms]))
        with database.reading(self._log.engine) as connection:
            rows = connection.execute(query.order_by(column.begun_ms.desc()).limit(rows_max)).mappings()
            return [_scrub(row) for row in rows]


def _scrub(row: RowMapping) -> Scrub:
    return Scrub(**{**row, "names": msgspec.json.decode(row["names"], type=tuple[str, ...])})
