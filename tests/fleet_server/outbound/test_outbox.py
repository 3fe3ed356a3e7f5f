"""What is recorded together is kept together, in the order in which readers see it, on either database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from sqlalchemy import Engine, insert, select

from fleet_server.adapters.sql import database
from fleet_server.adapters.sql import outbox as adapter
from fleet_server.adapters.sql.happenings import SqlFeed
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.adapters.sql.subscriptions import SqlSubscriptions
from fleet_server.adapters.sql.tables import device
from fleet_server.outbound import memory
from fleet_server.outbound.happenings import Data, Kind, News
from fleet_server.outbound.retries import Attempt, Decision, State
from fleet_server.outbound.store import HAPPENING_MS_MAX, Filter, Settled
from fleet_server.outbound.subscriptions import Choice, Sort, Subscription
from fleet_server.outbound.watch import Told
from fleet_server.telemetry.store import StoreError

T0: Final = 1_767_254_400_000
ALL: Final = Filter()
UP: Final = Told(connected=True, reporting=True, healthy=True)
DOWN: Final = Told(connected=False, reporting=True, healthy=False, faults=("spool.full",))


def news(count: int = 1, *, at_ms: int = T0, data: Data | None = None) -> list[News]:
    return [News(at_ms, Kind.DEVICE_CONNECTED, f"cam-{n}", "body_camera", "hq", data or {}) for n in range(count)]


def ids(feed: SqlFeed, after: int = 0) -> list[int]:
    return [each.id for each in feed.after(after, ALL, rows_max=100_000).happenings]


@pytest.fixture
def outbox(engine: Engine) -> SqlOutbox:
    database.migrate(engine)
    return SqlOutbox(engine)


@pytest.fixture
def subscriptions(engine: Engine, outbox: SqlOutbox) -> SqlSubscriptions:
    return SqlSubscriptions(engine)


def subscribe(subscriptions: SqlSubscriptions, name: str = "w0001") -> Subscription:
    added = Subscription(name, Sort.WEBHOOK, "https://x.example.org/", "whsec_eA==", Choice(), "", "", 1, T0)
    subscriptions.add(added)
    return added


def register(engine: Engine, *names: str) -> None:
    empty = dict.fromkeys(("path", "note", "agent", "hardware", "profile", "profile_digest", "reported_class"), "")
    facts = dict.fromkeys(("connected", "reporting", "healthy"), False)
    with database.writing(engine) as connection:
        for name in names:
            connection.execute(insert(device).values(device=name, device_class="host", revision=1, **empty, **facts))


def shown(engine: Engine) -> dict[str, tuple[bool, bool, bool]]:
    with database.reading(engine) as connection:
        rows = connection.execute(select(device.c.device, device.c.connected, device.c.reporting, device.c.healthy))
        return {name: (bool(a), bool(b), bool(c)) for name, a, b, c in rows}


def test_what_is_recorded_comes_back_as_it_was(engine: Engine, outbox: SqlOutbox) -> None:
    data: Data = {"count": 3, "names": ("cam-1", "cam-2"), "first": True, "why": "it \x00 \u2028 '; DROP TABLE \\ 警"}
    recorded = outbox.record(news(2, data=data), {}, {}, now_ms=T0)
    page = SqlFeed(engine).after(0, ALL, rows_max=10)
    assert page.happenings == recorded.happenings
    assert page.happenings[0].news.data == data
    assert (page.up_to, page.newest, page.pruned) == (2, 2, 0)


def test_the_three_facts_are_shown_where_the_registry_has_the_device(engine: Engine, outbox: SqlOutbox) -> None:
    register(engine, "cam-1", "cam-2")
    outbox.record([], memory.devices({"cam-1": UP, "cam-3": UP}), {"cam-1": UP, "cam-3": UP}, now_ms=T0)
    assert shown(engine) == {"cam-1": (True, True, True), "cam-2": (False, False, False)}
    # one that is away does not report, whatever was last told of that
    outbox.record([], memory.devices({"cam-1": DOWN}), {"cam-1": DOWN}, now_ms=T0)
    assert shown(engine)["cam-1"] == (False, False, False)
    register(engine, "cam-3")  # heard of before it was registered
    told = memory.read(outbox.remembered()).devices
    assert told == {"cam-1": DOWN, "cam-3": UP}
    assert outbox.reconcile(told) == 1
    assert shown(engine)["cam-3"] == (True, True, True)
    assert outbox.reconcile(told) == 0


def test_what_fails_half_way_is_not_recorded_at_all(
    engine: Engine, outbox: SqlOutbox, subscriptions: SqlSubscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(subscriptions)
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "_show", lambda connection, _told: connection.exec_driver_sql("SELECT no_such_column"))
        with pytest.raises(StoreError):
            outbox.record(news(3), memory.devices({"cam-1": UP}), {"cam-1": UP}, now_ms=T0)
    assert (ids(SqlFeed(engine)), outbox.remembered()) == ([], [])
    assert subscriptions.deliveries("w0001", before=None, state=None, rows_max=10) == []
    outbox.record(news(3), {}, {}, now_ms=T0)
    assert len(ids(SqlFeed(engine))) == 3


def test_a_reader_sees_every_id_in_order_while_many_record(engine: Engine, outbox: SqlOutbox) -> None:
    """Ids are given before they are committed: who reads 6 before 5 is there would never read 5."""
    feed = SqlFeed(engine)
    done = threading.Event()
    found: list[int] = []

    def read() -> None:
        place = 0
        while True:
            last = done.is_set()
            page = feed.after(place, ALL, rows_max=50)
            found.extend(each.id for each in page.happenings)
            place = page.up_to
            if last and not page.happenings:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(outbox.record, news(3), {}, {}, now_ms=T0) for _ in range(200)]:
            each.result()
    done.set()
    reader.join()
    assert len(found) == 600
    assert found == sorted(found)
    assert found == ids(feed)


def test_ids_are_never_given_again(engine: Engine, outbox: SqlOutbox) -> None:
    outbox.record(news(5), {}, {}, now_ms=T0)
    (last,) = (each.id for each in outbox.record(news(at_ms=T0), {}, {}, now_ms=T0).happenings)
    later_ms = T0 + HAPPENING_MS_MAX + 1
    assert outbox.prune(later_ms) == 5  # the newest stays
    (again,) = (each.id for each in outbox.record(news(at_ms=later_ms), {}, {}, now_ms=later_ms).happenings)
    assert again > last
    assert outbox.prune(later_ms) == 1
    page = SqlFeed(engine).after(0, ALL, rows_max=10)
    assert ([each.id for each in page.happenings], page.pruned) == ([again], last)


def test_what_still_waits_is_kept_however_old_it_is(
    engine: Engine, outbox: SqlOutbox, subscriptions: SqlSubscriptions
) -> None:
    subscribe(subscriptions)
    first, second = (each.id for each in outbox.record(news(2), {}, {}, now_ms=T0).happenings)
    delivered = [Settled(first, Attempt(204), Decision(State.DELIVERED))]
    outbox.settle("w0001", delivered, now_ms=T0, hurry=False)
    later_ms = T0 + HAPPENING_MS_MAX + 1
    outbox.record(news(at_ms=later_ms), {}, {}, now_ms=later_ms)
    assert outbox.prune(later_ms) == 1
    assert ids(SqlFeed(engine))[0] == second


def test_too_many_are_not_kept(engine: Engine, outbox: SqlOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "HAPPENINGS_MAX", 100)
    monkeypatch.setattr(adapter, "PRUNE_ROWS_MAX", 40)
    outbox.record(news(250), {}, {}, now_ms=T0)
    assert [outbox.prune(T0) for _ in range(5)] == [40, 40, 40, 30, 0]
    assert len(ids(SqlFeed(engine))) == 100


def test_due_come_in_order_and_say_when_the_next_is(outbox: SqlOutbox, subscriptions: SqlSubscriptions) -> None:
    subscribe(subscriptions)
    found = [each.id for each in outbox.record(news(5), {}, {}, now_ms=T0).happenings]
    later = Decision(State.PENDING, T0 + 9_000)
    outbox.settle("w0001", [Settled(found[1], Attempt(500, "no"), later)], now_ms=T0, hurry=False)
    due, _ = outbox.due("w0001", T0, rows_max=3, sweep=False)
    assert [each.happening.id for each in due] == [found[0], found[2], found[3]]
    swept, _ = outbox.due("w0001", T0, rows_max=9, sweep=True)
    assert [(each.happening.id, each.attempts) for each in swept] == [(id_, int(id_ == found[1])) for id_ in found]
    rest = [Settled(id_, Attempt(204), Decision(State.DELIVERED)) for id_ in found if id_ != found[1]]
    outbox.settle("w0001", rest, now_ms=T0, hurry=False)
    assert outbox.due("w0001", T0, rows_max=9, sweep=True) == ([], T0 + 9_000)
    outbox.settle("w0001", [], now_ms=T0, hurry=True)
    assert [each.happening.id for each in outbox.due("w0001", T0, rows_max=9, sweep=False)[0]] == [found[1]]


def test_a_subscription_that_is_taken_away_takes_along_what_waits(
    outbox: SqlOutbox, subscriptions: SqlSubscriptions
) -> None:
    added = subscribe(subscriptions)
    outbox.record(news(5), {}, {}, now_ms=T0)
    subscriptions.remove("w0001", added.revision)
    assert outbox.serving() == []
    # what was under way meanwhile finds nothing to settle
    outbox.settle("w0001", [Settled(1, Attempt(204), Decision(State.DELIVERED))], now_ms=T0, hurry=True)
    assert outbox.record(news(1), {}, {}, now_ms=T0).overflowed == {}
    with pytest.raises(KeyError):
        subscriptions.test("w0001", now_ms=T0)


def test_subscriptions_come_and_go_while_happenings_are_recorded(
    engine: Engine, outbox: SqlOutbox, subscriptions: SqlSubscriptions
) -> None:
    """A record that meets a subscription on its way out fails as a whole, and is made again by who wanted it."""
    recorded = 0

    def record() -> None:
        nonlocal recorded
        for _ in range(40):
            while True:
                try:
                    outbox.record(news(1), {}, {}, now_ms=T0)
                except StoreError:
                    continue
                recorded += 1
                break

    def change() -> None:
        for n in range(20):
            added = subscribe(subscriptions, f"w{n:04}")
            subscriptions.remove(added.id, added.revision)

    threads = [threading.Thread(target=work) for work in (record, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(SqlFeed(engine))) == recorded == 40


def test_a_secret_is_not_shown_by_accident(subscriptions: SqlSubscriptions) -> None:
    assert "whsec" not in repr(subscribe(subscriptions))
