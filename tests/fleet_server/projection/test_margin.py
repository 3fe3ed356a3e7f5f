"""What a sink took in its last seconds is given again when it may have been restarted, and only then."""

from pathlib import Path

import pytest

from fleet_server.projection.margin import REWIND_MS, SETTLE_MS, Margin
from tests.fleet_server.projection.far_server import FarServer, Mode, far_server
from tests.fleet_server.projection.rig import SINK, expected, filled_store, projector, sealed_wholly, to
from tests.fleet_server.store.fleet import LATE_MS, START_MS, batch, group

T = 1_000_000


def test_what_was_given_settles_after_its_time() -> None:
    margin = Margin()
    for second in range(5):
        margin.gave(T + 1000 * second, second + 1)
    assert margin.settled(T + SETTLE_MS - 1) is None
    assert margin.settled(T + SETTLE_MS) == 1
    assert margin.settled(T + SETTLE_MS) is None
    assert margin.settled(T + SETTLE_MS + 3_500) == 4


def test_a_doubt_keeps_it_unsettled_until_it_is_given_again() -> None:
    margin = Margin()
    margin.gave(T, 7)
    margin.doubt()
    assert margin.rewind_due(T)
    assert margin.settled(T + 10 * SETTLE_MS) is None
    margin.rewound(T)
    assert not margin.rewind_due(T)
    margin.gave(T, 7)
    margin.doubt()  # a connection that breaks all the time
    assert [margin.rewind_due(T + after) for after in (1, REWIND_MS - 1, REWIND_MS)] == [False, False, True]


def test_a_doubt_about_nothing_is_none() -> None:
    margin = Margin()
    margin.doubt()
    assert not margin.rewind_due(T)


def test_many_gifts_of_one_second_are_remembered_as_one() -> None:
    margin = Margin()
    for number in range(900):
        margin.gave(T + number, number)
    assert len(margin._given) == 1


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_sink_that_lost_its_memory_is_given_it_again(tmp_path: Path, sealed: bool) -> None:
    store, token = filled_store(tmp_path / "s.db")
    made = [("car-1", batch(seq, START_MS + seq * 1000)) for seq in range(1, 9)]
    store.commit(group(made), token=token)
    if sealed:
        sealed_wholly(store)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url))
        await one.drain()
        far.points.clear()
        more = [("car-1", batch(9, START_MS + 9_000))]
        store.commit(group(more), token=token)
        far.then([Mode.RESET])
        await one.drain()
        assert far.points == expected(made + more)


async def test_what_is_settled_is_not_given_again(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    async with far_server(FarServer()) as far:
        await projector(store.feed, to(far.url)).drain()
        store.feed.settle(SINK, up_to=1, before_ms=2 * LATE_MS)
        far.points.clear()
        await projector(store.feed, to(far.url)).drain()
        assert far.points == {}


async def test_an_unsettled_commit_is_not_sealed_away_from_a_sink_that_keeps_up(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    commits = store.feed.commits(SINK, records_max=9, now_ms=START_MS)
    store.feed.advance(SINK, commits, (), now_ms=START_MS)
    sealed_wholly(store, START_MS)
    assert store.unsealed_records == 1
    store.feed.settle(SINK, up_to=1, before_ms=START_MS)
    sealed_wholly(store, START_MS)
    assert store.unsealed_records == 0
    assert store.feed.stale(SINK, places_max=9) == []
