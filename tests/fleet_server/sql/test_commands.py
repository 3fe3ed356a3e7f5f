"""Commands in either database: an order is kept before it is said, and what a device says is taken once."""

from typing import Any, Final

import pytest
from sqlalchemy import Engine

from broker_config.device_classes import SafetyClass
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.commands import SqlCommands
from fleet_server.change.command_store import (
    After,
    CommandFilter,
    Meant,
    NotWaitingError,
    Signed,
    StaleOrderError,
    UnknownCommandError,
)
from fleet_server.change.commands import GRACE_MS, Command, Count, State, Target, Word

NOW: Final = 1_000_000
FIRST: Final = "0" * 15 + "1"
SECOND: Final = "0" * 15 + "2"
CAM: Final = Meant("cam-7", "hq/station-7")
CAR: Final = Meant("car-7", "hq/station-9")


@pytest.fixture
def store(engine: Engine) -> SqlCommands:
    database.migrate(engine)
    return SqlCommands(engine)


def made(store: SqlCommands, command: str = FIRST, *meant: Meant, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "command": command, "name": "locate", "parameters": {"for_s": 5}, "safety": SafetyClass.HARMLESS, "needs": 1,
        "by": "ann", "created_ms": NOW, "expires_ms": NOW + 60_000,
    }  # fmt: skip
    made = Command(**{**fields, **changes})
    store.create(made, meant or (CAM,))
    return made


def order(name: str = FIRST, device: str = "cam-7", counter: int = 5) -> Signed:
    return Signed(name, device, counter, b"%d" % counter)


def only(store: SqlCommands, name: str = FIRST) -> Target:
    (found,) = store.targets(name, rows_max=9)
    return found


def said(store: SqlCommands, name: str = FIRST, device: str = "cam-7", counter: int = 5) -> None:
    store.sent(store.signed([order(name, device, counter)]), now_ms=NOW + 1)


def word(state: State, name: str = FIRST, device: str = "cam-7", **more: Any) -> Word:
    return Word(device, name, state, **more)


def test_what_was_asked_is_told_as_it_was_asked(store: SqlCommands) -> None:
    command = made(store, FIRST, CAM, CAR)
    assert store.command(FIRST) == command
    assert store.command(SECOND) is None
    assert [each.device for each in store.targets(FIRST, rows_max=9)] == ["cam-7", "car-7"]
    assert [each.device for each in store.targets(FIRST, after="cam-7", rows_max=9)] == ["car-7"]
    assert store.counts([FIRST], None) == {FIRST: [Count(State.CREATED, "", 2)]}


def test_from_asked_to_done(store: SqlCommands) -> None:
    made(store)
    ((command, waiting),) = store.to_sign(rows_max=9)
    assert (command.name, waiting.state) == ("locate", State.CREATED)
    (kept,) = store.signed([order()])
    assert (kept.state, kept.order) == (State.SIGNED, b"5")
    assert store.to_sign(rows_max=9) == []
    assert store.to_send(rows_max=9) == [kept]
    store.sent([kept], now_ms=NOW + 1)
    assert store.to_send(rows_max=9) == []
    assert [each.order for each in store.said_to("cam-7")] == [b"5"]
    assert store.unheard(since_ms=NOW) == 1
    (changed,) = store.hear([word(State.OBEYED), word(State.DONE, result={"n": 1})], now_ms=NOW + 2)
    assert (changed.state, changed.result, changed.ended_ms) == (State.DONE, {"n": 1}, NOW + 2)
    assert only(store) == changed
    assert (store.said_to("cam-7"), store.unheard(since_ms=NOW), store.waiting(late_after_ms=0)) == ([], 0, {})


def test_an_answer_that_comes_before_it_is_written_down_as_said_stays(store: SqlCommands) -> None:
    made(store)
    kept = store.signed([order()])
    store.hear([word(State.DONE)], now_ms=NOW + 1)
    store.sent(kept, now_ms=NOW + 2)
    assert only(store).state is State.DONE


def test_an_order_that_comes_too_late_is_not_kept(store: SqlCommands) -> None:
    made(store)
    assert store.cancel(FIRST, within=None, now_ms=NOW) == 1
    assert store.signed([order()]) == []
    assert (only(store).state, only(store).order) == (State.CANCELLED, b"")
    with pytest.raises(UnknownCommandError):
        store.cancel(SECOND, within=None, now_ms=NOW)


def test_who_could_not_obey_yet_is_known_and_told_again(store: SqlCommands) -> None:
    made(store)
    said(store)
    store.hear([word(State.REFUSED, reason="clock_not_set")], now_ms=NOW + 5)
    assert (store.not_yet(before_ms=NOW + 4), store.not_yet(before_ms=NOW + 5)) == ([], ["cam-7"])
    assert [each.order for each in store.said_to("cam-7")] == [b"5"]
    store.hear([word(State.DONE)], now_ms=NOW + 6)
    assert store.not_yet(before_ms=NOW + 9) == []


def test_of_what_was_said_nothing_is_taken_back(store: SqlCommands) -> None:
    made(store, FIRST, CAM, CAR)
    said(store)
    assert store.cancel(FIRST, within=None, now_ms=NOW) == 1
    assert store.counts([FIRST], None)[FIRST] == [Count(State.CANCELLED, "", 1), Count(State.SENT, "", 1)]


def test_older_orders_of_a_device_come_first(store: SqlCommands) -> None:
    made(store, FIRST)
    made(store, SECOND)
    said(store, SECOND, counter=9)
    said(store, FIRST, counter=7)
    assert [each.counter for each in store.said_to("cam-7")] == [7, 9]


def test_what_a_stranger_says_changes_nothing(store: SqlCommands) -> None:
    made(store)
    said(store)
    assert store.hear([word(State.DONE, device="car-7"), word(State.DONE, SECOND)], now_ms=NOW) == []
    assert only(store).state is State.SENT


def test_what_had_expired_is_closed_by_a_late_word(store: SqlCommands) -> None:
    made(store)
    said(store)
    late_ms = NOW + 60_000 + GRACE_MS
    assert (store.expire(now_ms=late_ms - 1), store.expire(now_ms=late_ms)) == (0, 1)
    assert (only(store).state, only(store).reason) == (State.EXPIRED, "sent")
    assert store.waiting(late_after_ms=NOW) == {"cam-7": NOW + 1}
    assert store.waiting(late_after_ms=late_ms) == {}
    store.hear([word(State.DONE)], now_ms=late_ms + 5)
    assert only(store).state is State.DONE


def test_what_needs_two_waits_for_the_orders_that_were_shown(store: SqlCommands) -> None:
    made(store, FIRST, CAM, CAR, needs=2)
    assert store.to_sign(rows_max=9) == []
    both = [order(), order(device="car-7", counter=6)]
    store.prepared(both)
    with pytest.raises(NotWaitingError):
        store.approve(FIRST, both[:1], by="ben", now_ms=NOW)
    with pytest.raises(StaleOrderError):  # an order of an earlier showing
        store.approve(FIRST, [order(counter=4), both[1]], by="ben", now_ms=NOW)
    assert store.to_send(rows_max=9) == []
    store.approve(FIRST, both, by="ben", now_ms=NOW + 3)
    assert [each.device for each in store.to_send(rows_max=9)] == ["cam-7", "car-7"]
    approved = store.command(FIRST)
    assert approved is not None
    assert (approved.approved_by, approved.approved_ms) == ("ben", NOW + 3)
    with pytest.raises(NotWaitingError):
        store.prepared(both)


def test_an_order_that_another_command_overtook_is_not_approved(store: SqlCommands) -> None:
    made(store, FIRST, needs=2)
    store.prepared([order(counter=5)])
    made(store, SECOND)
    said(store, SECOND, counter=6)
    with pytest.raises(StaleOrderError, match="cam-7"):
        store.approve(FIRST, [order(counter=5)], by="ben", now_ms=NOW)


def test_lists_are_the_newest_first_and_are_filtered(store: SqlCommands) -> None:
    made(store, FIRST, CAM, created_ms=NOW)
    made(store, SECOND, CAR, created_ms=NOW + 1, name="reboot", by="ben")

    def names(after: After | None = None, **wanted: Any) -> list[str]:
        return [each.command for each in store.commands(CommandFilter(**wanted), after=after, rows_max=9)]

    assert names() == [SECOND, FIRST]
    assert names(After(NOW + 1, SECOND)) == [FIRST]
    assert names(device="cam-7") == names(name="locate") == names(by="ann") == [FIRST]
    assert names(within=("hq/station-9",)) == [SECOND]
    assert names(within=()) == []
    store.cancel(FIRST, within=None, now_ms=NOW)
    assert (names(open=True), names(open=False)) == ([SECOND], [FIRST])


def test_who_may_only_at_a_node_sees_and_takes_back_only_what_is_there(store: SqlCommands) -> None:
    made(store, FIRST, CAM, CAR)
    within = ("hq/station-7",)
    assert store.counts([FIRST], within) == {FIRST: [Count(State.CREATED, "", 1)]}
    assert [each.device for each in store.targets(FIRST, within=within, rows_max=9)] == ["cam-7"]
    assert store.cancel(FIRST, within=within, now_ms=NOW) == 1
    assert [each.state for each in store.targets(FIRST, rows_max=9)] == [State.CANCELLED, State.CREATED]
