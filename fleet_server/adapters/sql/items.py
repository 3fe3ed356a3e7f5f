"""The port :class:`fleet_server.evidence.items.Items` in the operators' database."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, false, insert, or_, select, update

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.custody import CustodyLog, Entering
from fleet_server.adapters.sql.device_rows import below
from fleet_server.adapters.sql.evidence_tables import evidence_item as items
from fleet_server.evidence.custody import ITEM, Act, Entered, Event
from fleet_server.evidence.items import EVENTS, TRANSITIONS, Doing, Item, ItemAct, ItemState, refusal, words
from fleet_server.evidence.pieces import RefusedError, UnknownPieceError


class SqlItems:
    """See the port."""

    def __init__(self, log: CustodyLog) -> None:
        self._log = log

    def item(self, item: str) -> Item | None:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            return _find(connection, item)

    def items(
        self,
        *,
        state: ItemState | None,
        case_name: str | None,
        within: Sequence[str] | None,
        after: str,
        rows_max: int,
    ) -> Sequence[Item]:
        """See the port."""
        column = items.c
        query = select(items).where(
            column.item > after,
            *([] if state is None else [column.state == state.value]),
            *([] if case_name is None else [column.case_name == case_name]),
            *([] if within is None else [or_(false(), *(below(path, column.path) for path in within))]),
        )
        with database.reading(self._log.engine) as connection:
            rows = connection.execute(query.order_by(column.item).limit(rows_max)).mappings()
            return [_item(row) for row in rows]

    def take_in(
        self, item: str, *, path: str, description: str, case_name: str, note: str, by: str, now_ms: int
    ) -> Item:
        """See the port."""
        made = Item(item, path, description, case_name, ItemState.TAKEN_IN, "", "", None, now_ms, now_ms)

        def work(entering: Entering) -> Item:
            if _find(entering.connection, item) is not None:
                raise RefusedError(f"there is an item {item} already")
            row = {name: getattr(made, name) for name in Item.__slots__}
            entering.connection.execute(insert(items).values({**row, "state": made.state.value}))
            said = words(description=description, case=case_name, note=note)
            entering.event(Act(Event.ITEM_TAKEN_IN, ITEM + item, by, now_ms, note=said))
            return made

        return self._log.entering(work)

    def do(self, item: str, doing: Doing, *, by: str, now_ms: int) -> Item:
        """See the port."""

        def work(entering: Entering) -> Item:
            found = _known(entering.connection, item)
            why = refusal(found.state, doing)
            if why:
                raise RefusedError(f"{item}: {why}")
            state = TRANSITIONS[found.state, doing.act]
            values = {
                "state": state.value,
                "place": doing.place if doing.act is ItemAct.STORE else found.place,
                "with_whom": doing.with_whom,
                "due_ms": doing.due_ms,
                "changed_ms": now_ms,
            }
            entering.connection.execute(update(items).where(items.c.item == item).values(values))
            said = words(place=doing.place, with_whom=doing.with_whom, due_ms=doing.due_ms, note=doing.note)
            entering.event(Act(EVENTS[doing.act], ITEM + item, by, now_ms, {"state": state.value}, said))
            return _known(entering.connection, item)

        return self._log.entering(work)

    def history(self, item: str, *, from_number: int, rows_max: int) -> Sequence[Entered]:
        """See the port."""
        with database.reading(self._log.engine) as connection:
            _known(connection, item)
        return self._log.history(ITEM + item, from_number=from_number, rows_max=rows_max)


def _find(connection: Connection, item: str) -> Item | None:
    row = connection.execute(select(items).where(items.c.item == item)).mappings().one_or_none()
    return None if row is None else _item(row)


def _known(connection: Connection, item: str) -> Item:
    found = _find(connection, item)
    if found is None:
        raise UnknownPieceError("item", item)
    return found


def _item(row: RowMapping) -> Item:
    return Item(**{**row, "state": ItemState(row["state"])})
