"""The outbox in the operators' database: what is recorded together, what is due, what became of it."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, Engine, bindparam, delete, func, insert, select, true, update

from broker_config.text import shown
from fleet_server.adapters.sql import database, happenings, subscriptions
from fleet_server.adapters.sql.happenings import FEED, PRUNED
from fleet_server.adapters.sql.tables import delivery, device, happening, subscription, watched
from fleet_server.outbound.happenings import Happening, News
from fleet_server.outbound.memory import Changes
from fleet_server.outbound.retries import State
from fleet_server.outbound.store import (
    HAPPENING_MS_MAX,
    HAPPENINGS_MAX,
    PENDING_MAX,
    PRUNE_ROWS_MAX,
    Due,
    Recorded,
    Settled,
)
from fleet_server.outbound.subscriptions import Sort, Subscription, takers
from fleet_server.outbound.watch import Told

ERROR_CHARS_MAX: Final = 200
TOO_MANY: Final = "too many deliveries waited"
TOO_OLD: Final = "not delivered in time"


class SqlOutbox:
    """A :class:`fleet_server.outbound.store.Outbox`.

    ``digest_ms``: how long a happening waits for others that go into the same mail.
    """

    def __init__(self, engine: Engine, *, digest_ms: int = 0, pending_max: int = PENDING_MAX) -> None:
        self._engine = engine
        self._digest_ms = digest_ms
        self._pending_max = pending_max

    def remembered(self) -> list[tuple[str, str, str]]:
        with database.reading(self._engine) as connection:
            rows = connection.execute(select(watched.c.topic, watched.c.name, watched.c.value)).all()
        return [(row.topic, row.name, row.value) for row in rows]

    def record(self, news: Sequence[News], changes: Changes, told: Mapping[str, Told], *, now_ms: int) -> Recorded:
        with database.writing(self._engine) as connection:
            recorded = happenings.add(connection, news)
            overflowed = self._deliver_to_all(connection, recorded, now_ms)
            _remember(connection, changes)
            _show(connection, told)
        return Recorded(tuple(recorded), overflowed)

    def reconcile(self, told: Mapping[str, Told]) -> int:
        with database.writing(self._engine) as connection:
            rows = connection.execute(
                select(device.c.device, device.c.connected, device.c.reporting, device.c.healthy)
            ).all()
            behind = {
                name: told[name] for name, *facts in rows if name in told and tuple(facts) != _facts(told[name])
            }
            _show(connection, behind)
        return len(behind)

    def serving(self) -> list[Subscription]:
        with database.reading(self._engine) as connection:
            return _serving(connection)

    def due(self, subscription: str, now_ms: int, *, rows_max: int, sweep: bool) -> tuple[list[Due], int | None]:
        waiting = (delivery.c.subscription == subscription) & (delivery.c.state == State.PENDING.value)
        with database.reading(self._engine) as connection:
            next_ms = connection.execute(select(func.min(delivery.c.next_ms)).where(waiting)).scalar_one()
            if next_ms is None or next_ms > now_ms:
                return [], next_ms
            rows = connection.execute(
                select(*happenings.COLUMNS, delivery.c.attempts, delivery.c.since_ms)
                .join(delivery, delivery.c.happening == happening.c.id)
                .where(waiting, true() if sweep else delivery.c.next_ms <= now_ms)
                .order_by(happening.c.id)
                .limit(rows_max)
            ).all()
        return [Due(happenings.of(row[:-2]), row.attempts, row.since_ms) for row in rows], next_ms

    def settle(self, subscription: str, settled: Sequence[Settled], *, now_ms: int, hurry: bool) -> None:
        with database.writing(self._engine) as connection:
            for happening_id, attempt, decision in settled:
                # a delivery that was removed, or parked by an operator's hand, meanwhile is not found: that is well
                connection.execute(
                    update(delivery)
                    .where(delivery.c.subscription == subscription, delivery.c.happening == happening_id)
                    .values(
                        state=decision.state.value,
                        attempts=delivery.c.attempts + 1,
                        next_ms=decision.next_ms,
                        status=attempt.status,
                        error=shown(attempt.error, ERROR_CHARS_MAX),
                        changed_ms=now_ms,
                    )
                )
            gone = next((each.attempt for each in settled if each.decision.disables), None)
            if gone is not None:
                _disable(connection, subscription, f"the receiver answered {gone.status}", now_ms)
            elif hurry:
                connection.execute(
                    update(delivery)
                    .where(
                        delivery.c.subscription == subscription,
                        delivery.c.state == State.PENDING.value,
                        delivery.c.next_ms > now_ms,
                    )
                    .values(next_ms=now_ms)
                )

    def park_older(self, since_ms: int, *, now_ms: int) -> int:
        with database.writing(self._engine) as connection:
            return connection.execute(
                update(delivery)
                .where(delivery.c.state == State.PENDING.value, delivery.c.since_ms < since_ms)
                .values(state=State.PARKED.value, error=TOO_OLD, changed_ms=now_ms)
            ).rowcount

    def prune(self, now_ms: int) -> int:
        with database.writing(self._engine) as connection:
            newest = connection.execute(select(func.max(happening.c.id))).scalar_one() or 0
            old = (happening.c.at_ms < now_ms - HAPPENING_MS_MAX) | (happening.c.id <= newest - HAPPENINGS_MAX)
            waits = select(delivery.c.happening).where(delivery.c.state == State.PENDING.value)
            ids = (
                connection.execute(
                    select(happening.c.id)
                    # the newest stays: ids are told by it
                    .where(old, happening.c.id < newest, happening.c.id.not_in(waits))
                    .order_by(happening.c.id)
                    .limit(PRUNE_ROWS_MAX)
                )
                .scalars()
                .all()
            )
            if ids:
                connection.execute(delete(delivery).where(delivery.c.happening.in_(ids)))
                connection.execute(delete(happening).where(happening.c.id.in_(ids)))
                _remember(connection, {(FEED, PRUNED): str(ids[-1])})
        return len(ids)

    def _deliver_to_all(
        self, connection: Connection, recorded: Sequence[Happening], now_ms: int
    ) -> Mapping[str, int]:
        serving = _serving(connection) if recorded else []
        rows = [
            subscriptions.pending(
                each.id, one.id, now_ms, now_ms + (self._digest_ms if each.sort is Sort.MAIL else 0)
            )
            for one in recorded
            for each in takers(serving, one.news)
        ]
        if not rows:
            return {}
        connection.execute(insert(delivery), rows)
        parked = {
            name: self._bound(connection, name, now_ms) for name in sorted({row["subscription"] for row in rows})
        }
        return {name: count for name, count in parked.items() if count}

    def _bound(self, connection: Connection, name: str, now_ms: int) -> int:
        waiting = (delivery.c.subscription == name) & (delivery.c.state == State.PENDING.value)
        over = connection.execute(select(func.count()).select_from(delivery).where(waiting)).scalar_one()
        over -= self._pending_max
        if over <= 0:
            return 0
        oldest = select(delivery.c.happening).where(waiting).order_by(delivery.c.happening).limit(over).subquery()
        connection.execute(
            update(delivery)
            .where(delivery.c.subscription == name, delivery.c.happening.in_(select(oldest.c.happening)))
            .values(state=State.PARKED.value, error=TOO_MANY, changed_ms=now_ms)
        )
        return over


def _serving(connection: Connection) -> list[Subscription]:
    rows = connection.execute(
        select(subscription).where(subscription.c.disabled == "").order_by(subscription.c.created_ms)
    ).mappings()
    return [subscriptions.of(row) for row in rows]


def _disable(connection: Connection, name: str, why: str, now_ms: int) -> None:
    connection.execute(
        update(subscription)
        .where(subscription.c.id == name)
        .values(disabled=why, revision=subscription.c.revision + 1)
    )
    connection.execute(
        update(delivery)
        .where(delivery.c.subscription == name, delivery.c.state == State.PENDING.value)
        .values(state=State.PARKED.value, error=why, changed_ms=now_ms)
    )


def _remember(connection: Connection, changes: Changes) -> None:
    if not changes:
        return
    connection.execute(
        delete(watched).where(watched.c.topic == bindparam("t"), watched.c.name == bindparam("n")),
        [{"t": topic, "n": name} for topic, name in changes],
    )
    kept = [
        {"topic": topic, "name": name, "value": value}
        for (topic, name), value in changes.items()
        if value is not None
    ]
    if kept:
        connection.execute(insert(watched), kept)


def _show(connection: Connection, told: Mapping[str, Told]) -> None:
    if told:
        connection.execute(
            update(device)
            .where(device.c.device == bindparam("name"))
            .values(connected=bindparam("c"), reporting=bindparam("r"), healthy=bindparam("h")),
            [dict(zip(("name", "c", "r", "h"), (name, *_facts(each)), strict=True)) for name, each in told.items()],
        )


def _facts(told: Told) -> tuple[bool, bool, bool]:
    """As the registry shows them: nobody knows of a device that is away that it reports."""
    return told.connected, told.connected and told.reporting, told.healthy
