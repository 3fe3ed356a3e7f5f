"""Rollouts in either database."""

import pytest
from sqlalchemy import Engine, func, select

from fleet_server.adapters.sql import database, rollouts
from fleet_server.adapters.sql.rollout_tables import rollout_member
from fleet_server.adapters.sql.rollouts import SqlRollouts
from fleet_server.change.device_steps import changed
from fleet_server.change.rollout_plan import Ill, Plan
from fleet_server.change.rollout_state import Head, Member, Pause, PauseWhy, Phase, Rollout, State
from fleet_server.change.rollout_store import Before, Kept, MovedOnError, TooManyOpenError
from fleet_server.change.rollouts import in_phase

PLAN = Plan("video", "class/body_camera", {"video": "720p", "mute_allowed": None}, where="node==hq")
HEAD = Head(
    Phase.PAUSED,
    "token:ann",
    7,
    clock_ms=5,
    released={3: 2},
    accepted={Ill.FAILED: 1},
    pause=Pause(PauseWhy.RULE, "more than 3 %"),
    waits={"rate": 4},
)
CAM = Member(State.FAILED, 0, 3, released_ms=1, version=9, ill=Ill.HEALTH, reason="not healthy since")


@pytest.fixture
def store(engine: Engine) -> SqlRollouts:
    database.migrate(engine)
    return SqlRollouts(engine)


def rollout(number: int, **members: Member) -> Rollout:
    return Rollout(f"{number:016x}", changed(HEAD, created_ms=number), members or {"cam-7": CAM})


def kept(store: SqlRollouts, number: int) -> Kept:
    found = store.kept(f"{number:016x}")
    assert found is not None
    return found


def test_a_rollout_comes_back_as_it_was_stored(store: SqlRollouts) -> None:
    store.create(rollout(1), PLAN)
    assert kept(store, 1) == Kept(rollout(1), PLAN, 1)
    assert store.kept("f" * 16) is None
    assert store.listed("f" * 16) is None


def test_only_what_is_different_is_written(store: SqlRollouts, engine: Engine) -> None:
    queued = Member(State.QUEUED, 0, 0)
    store.create(rollout(1, a=queued, b=queued, c=queued), PLAN)
    before = kept(store, 1)
    members = {"a": queued, "b": changed(queued, state=State.OFFERED), "d": queued}
    after = store.put(before, changed(before.rollout, members=members))
    assert after.revision == 2
    assert kept(store, 1) == after
    with database.reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(rollout_member)).scalar_one() == 3


def test_of_two_who_change_a_rollout_at_once_one_learns_that_it_moved_on(store: SqlRollouts) -> None:
    store.create(rollout(1), PLAN)
    before = kept(store, 1)
    store.put(before, in_phase(before.rollout, Phase.RUNNING))
    with pytest.raises(MovedOnError) as caught:
        store.put(before, in_phase(before.rollout, Phase.CANCELING))
    assert caught.value.revision == 2
    assert kept(store, 1).rollout.head.phase is Phase.RUNNING


def test_rollouts_are_listed_newest_first_with_their_counts(store: SqlRollouts) -> None:
    for number in range(1, 6):
        store.create(rollout(number, a=CAM, b=CAM, c=Member(State.QUEUED, 0, 0)), PLAN)
    ended = kept(store, 5)
    store.put(ended, in_phase(ended.rollout, Phase.COMPLETED))
    first = store.all(phase=None, before=None, rows_max=2)
    assert [int(each.id, 16) for each in first] == [5, 4]
    assert first[1].counts == {State.FAILED: 2, State.QUEUED: 1}
    rest = store.all(phase=None, before=Before(first[-1].head.created_ms, first[-1].id), rows_max=9)
    assert [int(each.id, 16) for each in rest] == [3, 2, 1]
    assert [int(each.id, 16) for each in store.all(phase=Phase.COMPLETED, before=None, rows_max=9)] == [5]
    assert [(int(name, 16), revision) for name, revision in store.open()] == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_members_are_listed_by_device_and_state(store: SqlRollouts) -> None:
    store.create(rollout(1, a=CAM, b=Member(State.QUEUED, 0, 0), c=CAM), PLAN)
    listed = store.members(rollout(1).id, state=State.FAILED, after="", rows_max=9)
    assert listed == [("a", CAM), ("c", CAM)]
    assert store.members(rollout(1).id, state=None, after="a", rows_max=1) == [("b", Member(State.QUEUED, 0, 0))]


def test_how_many_are_open_is_bounded(store: SqlRollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "OPEN_MAX", 1)
    store.create(rollout(1), PLAN)
    with pytest.raises(TooManyOpenError):
        store.create(rollout(2), PLAN)
    first = kept(store, 1)
    store.put(first, in_phase(first.rollout, Phase.CANCELED))
    store.create(rollout(2), PLAN)
