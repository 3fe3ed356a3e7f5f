"""What a sink holds, once it answers, is what the batch store holds, whatever it did before."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker_config.telemetry import Batch
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import LeftOutReason
from fleet_server.projection.projector import DAY_MS
from fleet_server.projection.verdict import BACKOFF_S_CAP
from fleet_server.projection.view import SinkState
from tests.fleet_server.projection.far_server import FAULTS, RETRY_AFTER_S, FarServer, Mode, far_server
from tests.fleet_server.projection.rig import (
    SEED,
    SINK,
    Pauses,
    expected,
    filled_store,
    projector,
    sealed_wholly,
    to,
)
from tests.fleet_server.store.fleet import HOUR_MS, LATE_MS, START_MS, batch, group, journal

DEVICES = ("car-1", "cam-2")
BATCHES = 30


def records(rng: random.Random, batches: int = BATCHES, *, first: int = 1) -> list[tuple[str, Batch]]:
    """Batches of two devices over some hours, with missing values and rows of one millisecond."""
    made = []
    for seq in range(first, first + batches):
        for device in DEVICES:
            rows = [[rng.choice((None, round(rng.gauss(0, 99), 3))), rng.random()] for _ in range(20)]
            dt = sorted(rng.randrange(60_000) for _ in rows)
            dt[1:3] = [dt[1], dt[1]]
            made.append((device, batch(seq, START_MS + seq * HOUR_MS // 10, dt=dt, rows=rows)))
    return made


def commit(store: SqliteStore, token: int, made: Sequence[tuple[str, Batch]], *, at_once: int = 4) -> None:
    for start in range(0, len(made), at_once):
        store.commit(group(made[start : start + at_once]), token=token)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("flavour", ["v2", "v1"])
@pytest.mark.parametrize("gzip", [False, True])
async def test_a_sink_holds_what_the_store_holds(tmp_path: Path, sealed: bool, flavour: str, gzip: bool) -> None:
    store, token = filled_store(tmp_path / "s.db")
    made = records(random.Random(SEED))
    commit(store, token, made)
    store.commit(group([("car-1", journal(1, START_MS))]), token=token)
    if sealed:
        sealed_wholly(store)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url, flavour=flavour, gzip=gzip))
        await one.drain()
        assert far.points == expected(made)
        status = one.status()
        assert status.state is SinkState.OK
        assert (status.behind_commits, status.stale_places, status.oldest_age_ms) == (0, 0, 0)
        assert status.points_written == len(expected(made))


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_that_passes_costs_nothing(tmp_path: Path, fault: Mode) -> None:
    store, token = filled_store(tmp_path / "s.db")
    made = records(random.Random(SEED))
    commit(store, token, made)
    async with far_server(FarServer()) as far:
        far.then([fault, Mode.GOOD, fault, fault])
        await projector(store.feed, to(far.url), points_max=100).drain()
        assert far.points == expected(made)


async def test_any_run_of_faults_ends_in_the_same_points(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    store, token = filled_store(tmp_path / "s.db")
    made: list[tuple[str, Batch]] = []
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), points_max=100)
        for turn in range(8):
            more = records(rng, 6, first=1 + 6 * turn)
            made += more
            commit(store, token, more)
            far.then(rng.choices(FAULTS, k=rng.randrange(30)))
            if rng.random() < 0.5:
                sealed_wholly(store)
            await one.drain()
            assert far.points == expected(made), f"turn {turn}"


async def test_a_server_that_forgets_is_caught(tmp_path: Path) -> None:
    """The negative control: the comparison sees a loss."""
    store, token = filled_store(tmp_path / "s.db")
    made = records(random.Random(SEED))
    commit(store, token, made)
    async with far_server(FarServer()) as far:
        far.then([Mode.FORGETS])
        one = projector(store.feed, to(far.url), points_max=100)
        await one.drain()
        assert far.points != expected(made)
        one.rebuild(0)  # and a rebuild makes it good, of what is sealed and what is not
        await one.drain()
        assert far.points == expected(made)


@pytest.mark.parametrize("refusal", [400, 422])
async def test_a_bad_point_costs_only_itself(tmp_path: Path, refusal: int) -> None:
    store, token = filled_store(tmp_path / "s.db")
    made = records(random.Random(SEED))
    commit(store, token, made)
    bad = batch(1, START_MS, stream="bad", rows=[[1.0, 2.0]])
    store.commit(group([("car-1", bad)]), token=token)
    async with far_server(FarServer(poison="bad,", refusal=refusal)) as far:
        one = projector(store.feed, to(far.url))
        await one.drain()
        assert far.points == expected(made)
        status = one.status()
        assert (status.points_refused, status.dead_letters, status.behind_commits) == (1, 1, 0)
        (letter,) = store.feed.dead_letters(SINK, rows_max=10)
        assert letter.line.startswith(b"bad,device=car-1,")
        assert letter.reason == f"{refusal}: partial write: bad,"
        assert len(far.answers) < 40  # about 2 log2 of a thousand


async def test_when_no_point_was_ever_taken_it_is_not_the_points(tmp_path: Path) -> None:
    """A wrong organisation is a 400 too: nothing is buried for it."""
    store, token = filled_store(tmp_path / "s.db")
    made = records(random.Random(SEED))
    commit(store, token, made)
    async with far_server(FarServer(poison="power")) as far:
        pauses = Pauses()
        one = projector(store.feed, to(far.url), sleep=pauses)
        stops = _Stop(pauses, after=2)
        one._sleep = stops  # the second time it is tried again
        with pytest.raises(_Stopped):
            await one.drain()
        assert one.status().state is SinkState.REFUSED
        assert one.status().dead_letters == 0
        assert one.status().behind_commits > 0


async def test_bad_points_before_the_first_good_one_are_no_reason_to_stop(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    bad = batch(1, START_MS, stream="bad", dt=range(300))
    good = batch(1, START_MS, dt=range(300))
    store.commit(group([("car-1", bad), ("car-1", good)]), token=token)
    async with far_server(FarServer(poison="bad,")) as far:
        one = projector(store.feed, to(far.url))
        await one.drain()
        assert far.points == expected([("car-1", good)])
        assert one.status().points_refused == 300


async def test_pauses_are_what_the_server_asks_for_else_grow_to_a_bound(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    commit(store, token, records(random.Random(SEED), 1))
    async with far_server(FarServer()) as far:
        far.then([Mode.TOO_MANY, *[Mode.UNAVAILABLE] * 40])
        pauses = Pauses()
        one = projector(store.feed, to(far.url), sleep=pauses)
        await one.drain()
        assert pauses.asked_s[0] == RETRY_AFTER_S
        assert max(pauses.asked_s) <= BACKOFF_S_CAP
        assert max(pauses.asked_s) > BACKOFF_S_CAP / 2
        assert one.status().state is SinkState.OK


async def test_who_is_not_let_in_stops_says_so_and_is_let_in_later(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    made = records(random.Random(SEED), 1)
    commit(store, token, made)
    async with far_server(FarServer()) as far:
        far.always = Mode.UNAUTHORIZED
        one = projector(store.feed, to(far.url))
        one._sleep = _Stop(Pauses(), after=1)
        with pytest.raises(_Stopped):
            await one.drain()
        assert one.status().state is SinkState.REFUSED
        assert one.status().last_error == "answered 401: unauthorized access"
        assert far.points == {}
        far.always = Mode.GOOD
        one._sleep = Pauses()
        await one.drain()
        assert far.points == expected(made)


async def test_nobody_there_is_waited_for(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    commit(store, token, records(random.Random(SEED), 1))
    one = projector(store.feed, to("http://127.0.0.1:1"))
    one._sleep = _Stop(Pauses(), after=3)
    with pytest.raises(_Stopped):
        await one.drain()
    assert one.status().state is SinkState.WAITING
    assert one.status().last_error.startswith("no answer: ")


async def test_what_the_sink_would_not_keep_is_left_out_and_counted(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    now_ms = START_MS + 10 * DAY_MS
    kept = batch(2, now_ms - DAY_MS)
    old = batch(1, now_ms - 8 * DAY_MS)
    ahead = batch(3, now_ms + HOUR_MS)
    store.commit(group([("car-1", one) for one in (old, kept, ahead)]), token=token)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url), now_ms=now_ms, retention_d=7)
        await one.drain()
        assert far.points == expected([("car-1", kept)])
        left = one.status().points_left_out
        assert (left[LeftOutReason.TOO_OLD], left[LeftOutReason.AHEAD]) == (1, 1)


async def test_a_clock_that_nobody_set_is_projected_once_it_is_mapped(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    unset = batch(1, 1_000, mono=5_000, src="none", dt=(0, 10))
    known = batch(2, START_MS + 60_000, mono=65_000)
    store.commit(group([("car-1", unset)]), token=token)
    async with far_server(FarServer()) as far:
        one = projector(store.feed, to(far.url))
        await one.drain()
        assert far.points == {}
        assert one.status().points_left_out[LeftOutReason.CLOCK_UNSET] == 2
        sealed_wholly(store, START_MS)
        store.commit(group([("car-1", known)]), token=token)
        sealed_wholly(store, START_MS)  # maps the first by the second
        await one.drain()
        mapped = batch(1, START_MS, mono=5_000, dt=(0, 10))
        assert far.points == expected([("car-1", mapped), ("car-1", known)])


class _Stopped(Exception):  # noqa: N818
    pass


class _Stop:
    """Ends a projector that would wait for ever, after so many pauses."""

    def __init__(self, pauses: Pauses, *, after: int) -> None:
        self._pauses = pauses
        self._after = after

    async def __call__(self, seconds: float) -> None:
        await self._pauses(seconds)
        if len(self._pauses.asked_s) >= self._after:
            raise _Stopped


assert LATE_MS > START_MS + BATCHES * HOUR_MS
