"""Subscriptions and their deliveries, as operators see and change them, in the operators' database."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import Engine, delete, func, insert, select, true, update
from sqlalchemy.engine import RowMapping

from fleet_server.adapters.sql import database, happenings
from fleet_server.adapters.sql.tables import delivery, happening, subscription
from fleet_server.outbound.happenings import Happening, Kind, News, Severity
from fleet_server.outbound.retries import State
from fleet_server.outbound.store import Delivery, FullError, StaleError
from fleet_server.outbound.subscriptions import MAIL_ID, SUBSCRIPTIONS_MAX, Choice, Sort, Subscription

NO_MAIL: Final = "the configuration names no mail"


class SqlSubscriptions:
    """A :class:`fleet_server.outbound.store.Subscriptions`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Subscription]:
        with database.reading(self._engine) as connection:
            rows = connection.execute(
                select(subscription).order_by(subscription.c.created_ms, subscription.c.id)
            ).mappings()
            return [of(row) for row in rows]

    def get(self, subscription_id: str) -> Subscription | None:
        with database.reading(self._engine) as connection:
            row = (
                connection.execute(select(subscription).where(subscription.c.id == subscription_id))
                .mappings()
                .one_or_none()
            )
        return None if row is None else of(row)

    def add(self, added: Subscription) -> None:
        with database.writing(self._engine) as connection:
            if connection.execute(select(func.count()).select_from(subscription)).scalar_one() >= SUBSCRIPTIONS_MAX:
                raise FullError
            connection.execute(insert(subscription).values(**_values(added)))

    def change(self, changed: Subscription) -> Subscription:
        stored = replace(changed, revision=changed.revision + 1)
        with database.writing(self._engine) as connection:
            done = connection.execute(
                update(subscription)
                .where(subscription.c.id == changed.id, subscription.c.revision == changed.revision)
                .values(**_values(stored))
            ).rowcount
            if not done:
                raise _stale(
                    connection.execute(
                        select(subscription.c.revision).where(subscription.c.id == changed.id)
                    ).scalar_one_or_none(),
                    changed.id,
                )
        return stored

    def remove(self, subscription_id: str, revision: int) -> None:
        with database.writing(self._engine) as connection:
            # the row first: who records a happening meanwhile waits for it, or adds what is removed below
            held = connection.execute(
                select(subscription.c.revision).where(subscription.c.id == subscription_id).with_for_update()
            ).scalar_one_or_none()
            if held != revision:
                raise _stale(held, subscription_id)
            connection.execute(delete(delivery).where(delivery.c.subscription == subscription_id))
            connection.execute(delete(subscription).where(subscription.c.id == subscription_id))

    def keep_mail(self, choice: Choice | None, *, now_ms: int) -> None:
        known = self.get(MAIL_ID)
        if known is None and choice is not None:
            made = Subscription(MAIL_ID, Sort.MAIL, "", "", choice, "[mail] of the configuration", "", 1, now_ms)
            with database.writing(self._engine) as connection:
                connection.execute(insert(subscription).values(**_values(made)))
        elif known is not None:
            kept = known.choice if choice is None else choice
            wanted = replace(known, choice=kept, disabled=NO_MAIL if choice is None else "")
            if wanted != known:
                self.change(wanted)

    def deliveries(
        self, subscription_id: str, *, before: int | None, state: State | None, rows_max: int
    ) -> list[Delivery]:
        with database.reading(self._engine) as connection:
            rows = connection.execute(
                select(*_DELIVERY)
                .join(happening, delivery.c.happening == happening.c.id)
                .where(
                    delivery.c.subscription == subscription_id,
                    true() if before is None else delivery.c.happening < before,
                    true() if state is None else delivery.c.state == state.value,
                )
                .order_by(delivery.c.happening.desc())
                .limit(rows_max)
            ).all()
        return [_delivery(row) for row in rows]

    def test(self, subscription_id: str, *, now_ms: int) -> Happening:
        with database.writing(self._engine) as connection:
            if not connection.execute(
                select(func.count()).select_from(subscription).where(subscription.c.id == subscription_id)
            ).scalar_one():
                raise KeyError(subscription_id)
            news = News(now_ms, Kind.WEBHOOK_TEST, data={"webhook": subscription_id})
            (recorded,) = happenings.add(connection, [news])
            connection.execute(insert(delivery), [pending(subscription_id, recorded.id, now_ms, now_ms)])
        return recorded

    def again(self, subscription_id: str, happening_id: int, *, now_ms: int) -> Delivery:
        chosen = (delivery.c.subscription == subscription_id) & (delivery.c.happening == happening_id)
        with database.writing(self._engine) as connection:
            connection.execute(
                update(delivery)
                .where(chosen)
                .values(
                    state=State.PENDING.value,
                    attempts=0,
                    since_ms=now_ms,
                    next_ms=now_ms,
                    error="",
                    changed_ms=now_ms,
                )
            )
            row = connection.execute(
                select(*_DELIVERY).join(happening, delivery.c.happening == happening.c.id).where(chosen)
            ).one_or_none()
        if row is None:
            raise KeyError(happening_id)
        return _delivery(row)


_DELIVERY: Final = (
    delivery.c.happening,
    happening.c.kind,
    happening.c.device,
    delivery.c.state,
    delivery.c.attempts,
    delivery.c.next_ms,
    delivery.c.status,
    delivery.c.error,
    delivery.c.changed_ms,
)


def _delivery(row: Sequence[Any]) -> Delivery:
    happening_id, kind, device, state, *rest = row
    return Delivery(happening_id, Kind(kind), device, State(state), *rest)


def pending(subscription_id: str, happening_id: int, now_ms: int, next_ms: int) -> dict[str, Any]:
    """The row of a delivery that was not tried yet."""
    return {
        "subscription": subscription_id,
        "happening": happening_id,
        "state": State.PENDING.value,
        "attempts": 0,
        "since_ms": now_ms,
        "next_ms": next_ms,
        "status": 0,
        "error": "",
        "changed_ms": now_ms,
    }


def of(row: RowMapping) -> Subscription:
    """A row of the table, whole."""
    kinds = frozenset(map(Kind, msgspec.json.decode(row["kinds"], type=list[str])))
    return Subscription(
        id=row["id"],
        sort=Sort(row["sort"]),
        url=row["url"],
        secret=row["secret"],
        choice=Choice(kinds, Severity(row["severity"]), row["org"]),
        note=row["note"],
        disabled=row["disabled"],
        revision=row["revision"],
        created_ms=row["created_ms"],
    )


def _values(each: Subscription) -> Mapping[str, Any]:
    return {
        "id": each.id,
        "sort": each.sort.value,
        "url": each.url,
        "secret": each.secret,
        "kinds": msgspec.json.encode(sorted(each.choice.kinds)).decode(),
        "severity": each.choice.severity.value,
        "org": each.choice.org,
        "note": each.note,
        "disabled": each.disabled,
        "revision": each.revision,
        "created_ms": each.created_ms,
    }


def _stale(revision: int | None, subscription_id: str) -> Exception:
    return KeyError(subscription_id) if revision is None else StaleError(revision)
