"""Whatever the sealer does meanwhile, a sink is given every reading, and a repetition is the same."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from broker_config.telemetry import Batch
from fleet_server.adapters import sqlite_feed, sqlite_seal
from fleet_server.adapters import sqlite_schema as schema
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import (
    SINK_PATIENCE_MS,
    Behind,
    Commits,
    LeftOut,
    LeftOutReason,
    Readings,
    Refused,
    UnknownSinkError,
)
from tests.fleet_server.projection.rig import SINK, filled_store, sealed_wholly
from tests.fleet_server.store.fleet import HOUR_MS, LATE_MS, START_MS, batch, group, journal, opened
from tests.fleet_server.store.test_faults import ROOT

NOTHING = Behind(0, 0, None, 0)


def one_by_one(store: SqliteStore, token: int, seqs: range) -> None:
    """A commit each, an hour apart."""
    for seq in seqs:
        store.commit(group([("car-1", batch(seq, START_MS + seq * HOUR_MS, dt=(0, 7)))], START_MS), token=token)


def taken(store: SqliteStore, now_ms: int = START_MS) -> Commits:
    return store.feed.commits(SINK, records_max=1000, now_ms=now_ms)


def advance(store: SqliteStore, now_ms: int = START_MS) -> bool:
    """The sink has all, and for long."""
    commits = taken(store)
    done = store.feed.advance(SINK, commits, (), now_ms=now_ms)
    store.feed.settle(SINK, up_to=commits.up_to, before_ms=now_ms)
    return done


def stale_hours(store: SqliteStore) -> list[int]:
    return [place.hour - START_MS // HOUR_MS for place in store.feed.stale(SINK, places_max=1000)]


def read_stale(store: SqliteStore) -> list[Readings]:
    places = store.feed.stale(SINK, places_max=1000)
    items = [item for place in places for item in store.feed.read(place)]
    assert all(isinstance(item, Readings) for item in items)
    return sorted([item for item in items if isinstance(item, Readings)], key=lambda item: (item.device, item.seq))


def readings(made: Batch, device: str = "car-1") -> Readings:
    return Readings(
        device, made.stream, made.seq, [made.t0 + dt for dt in made.dt], made.fields, [list(row) for row in made.rows]
    )


def same(found: Readings) -> Readings:
    return found._replace(times_ms=list(found.times_ms), rows=[list(row) for row in found.rows])


def test_a_sink_is_given_each_commit_in_order_and_again_until_it_says_so(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 4))
    store.commit(group([("car-1", journal(1, START_MS))]), token=token)
    for _ in range(2):
        first = store.feed.commits(SINK, records_max=2, now_ms=START_MS)
        assert (first.after, first.up_to) == (0, 2)
        assert [same(one) for one in first.items if isinstance(one, Readings)] == [
            readings(batch(seq, START_MS + seq * HOUR_MS, dt=(0, 7))) for seq in (1, 2)
        ]
    assert store.feed.behind(SINK) == Behind(4, 0, START_MS, 0)
    assert store.feed.advance(SINK, first, (), now_ms=START_MS)
    assert [one.seq for one in taken(store).items if isinstance(one, Readings)] == [3]  # and not the journal
    assert advance(store)
    assert store.feed.behind(SINK) == NOTHING


def test_a_sink_that_keeps_up_keeps_the_sealer_behind_it(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 3))
    advance(store)
    one_by_one(store, token, range(3, 5))
    sealed_wholly(store, START_MS + SINK_PATIENCE_MS - 1)
    assert store.unsealed_records == 2
    assert store.feed.behind(SINK) == Behind(2, 0, START_MS, 0)


def test_a_sink_that_is_stuck_holds_nothing_and_loses_nothing(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 3))
    advance(store)
    one_by_one(store, token, range(3, 6))
    now_ms = START_MS + SINK_PATIENCE_MS
    sealed_wholly(store, now_ms)
    assert store.unsealed_records == 0
    assert stale_hours(store) == [5, 4, 3]  # the newest first; what it had is not among them
    assert store.feed.behind(SINK) == Behind(0, 3, now_ms, 0)
    assert [same(one) for one in read_stale(store)] == [
        readings(batch(seq, START_MS + seq * HOUR_MS, dt=(0, 7))) for seq in (3, 4, 5)
    ]


def test_a_sink_that_is_only_slow_holds_no_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_seal, "UNSEALED_RECORDS_MAX", 10)
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 2))
    advance(store)
    one_by_one(store, token, range(2, 12))
    while store.seal(records_max=2, now_ms=START_MS):
        pass
    assert store.unsealed_records == 9  # below the bound it waits again, for what the sink has not had
    assert stale_hours(store) == [2]


def test_an_outage_costs_a_row_for_an_hour_of_a_stream(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    for minute in range(180):
        made = [(device, batch(minute + 1, START_MS + minute * 60_000)) for device in ("car-1", "car-2")]
        store.commit(group(made), token=token)
        if minute % 10 == 9:
            sealed_wholly(store)
    assert sorted(stale_hours(store)) == [0, 0, 1, 1, 2, 2]


def test_what_is_sealed_while_a_sink_reads_it_is_told_again(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 3))
    commits = taken(store)
    sealed_wholly(store)
    assert not store.feed.advance(SINK, commits, (), now_ms=START_MS)
    assert stale_hours(store) == [2, 1]
    assert store.feed.behind(SINK).commits == 0


def test_a_place_that_becomes_stale_while_it_is_written_stays_so(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    sealed_wholly(store)
    places = store.feed.stale(SINK, places_max=10)
    store.commit(group([("car-1", batch(2, START_MS + 1000))]), token=token)
    sealed_wholly(store)
    store.feed.written(SINK, places, (), now_ms=START_MS)
    assert stale_hours(store) == [0]
    assert [one.seq for one in read_stale(store)] == [1, 2]
    store.feed.written(SINK, store.feed.stale(SINK, places_max=10), (), now_ms=START_MS)
    assert store.feed.behind(SINK) == NOTHING


def test_merged_hours_tell_the_same_readings(tmp_path: Path) -> None:
    """Of batches that overlap, of two lives, with other fields: numbers and rows are found in the columns."""
    made = [
        batch(1, START_MS, dt=range(20)),
        batch(2, START_MS + 10, dt=range(20)),
        batch(1, START_MS + 15, life="c3" * 8, dt=(0, 5), fields=("b_mv", "c_v")),
        batch(3, START_MS + 12, dt=(0, 0, 0), rows=[[None, 1.0], [None, None], [2.0, -0.0]]),
        batch(7, START_MS + 300_000),
    ]
    store, token = filled_store(tmp_path / "s.db")
    for one in made:
        store.commit(group([("car-1", one)]), token=token)
        store.seal(records_max=1, now_ms=START_MS)
    before = store.parts()
    store.seal(records_max=1000, now_ms=LATE_MS)
    assert (before, store.parts()) == (len(made), 1)

    def told(one: Readings) -> list[tuple[int, int, dict[str, float]]]:
        return [
            (one.seq, at, {name: value for name, value in zip(one.fields, row, strict=True) if value is not None})
            for at, row in zip(one.times_ms, one.rows, strict=True)
        ]

    found = [told(one) for one in read_stale(store)]
    assert sorted(found, key=repr) == sorted((told(readings(one)) for one in made), key=repr)


def test_a_mapped_clock_makes_its_place_stale_even_for_a_sink_that_had_it(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, 1_000, mono=5_000, src="none"))]), token=token)
    assert list(taken(store).items) == [LeftOut(LeftOutReason.CLOCK_UNSET, 1)]
    advance(store)
    store.commit(group([("car-1", batch(2, START_MS + 10_000, mono=15_000))]), token=token)
    advance(store)
    sealed_wholly(store, START_MS)
    assert stale_hours(store) == [0]
    assert [(one.seq, list(one.times_ms)) for one in read_stale(store)] == [(1, [START_MS]), (2, [START_MS + 10_000])]


def test_what_was_given_up_unmapped_is_not_told_under_the_time_that_nobody_set(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, 1_000, mono=5_000, src="none"))]), token=token)
    sealed_wholly(store, START_MS)
    sealed_wholly(store, LATE_MS)  # after a week and more
    (place,) = store.feed.stale(SINK, places_max=10)
    assert list(store.feed.read(place)) == [LeftOut(LeftOutReason.CLOCK_UNSET, 1)]


def test_a_rebuild_marks_hours_and_begins_again_at_what_is_not_sealed(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 60))
    store.commit(group([("car-1", journal(1, START_MS + 59 * HOUR_MS))]), token=token)
    advance(store)
    sealed_wholly(store, START_MS)
    one_by_one(store, token, range(60, 61))
    advance(store)
    assert store.feed.behind(SINK) == NOTHING
    other = SqliteStore(tmp_path / "s.db", now_ms=START_MS)  # as the command does, beside the server
    assert other.feed.mark_stale(SINK, from_ms=START_MS + 30 * HOUR_MS, now_ms=START_MS) == 30
    assert sorted(stale_hours(store)) == list(range(30, 60))
    assert [one.seq for one in taken(store).items if isinstance(one, Readings)] == [60]
    with pytest.raises(UnknownSinkError):
        other.feed.mark_stale("other", from_ms=0, now_ms=START_MS)


def test_a_rebuild_while_a_sink_reads_is_not_overtaken(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 2))
    advance(store)
    one_by_one(store, token, range(2, 3))
    commits = taken(store)
    store.feed.mark_stale(SINK, from_ms=0, now_ms=START_MS)
    assert not store.feed.advance(SINK, commits, (), now_ms=START_MS)
    assert [one.seq for one in taken(store).items if isinstance(one, Readings)] == [1, 2]


def test_retention_forgets_stale_hours_too(tmp_path: Path) -> None:
    store, token = filled_store(tmp_path / "s.db")
    one_by_one(store, token, range(1, 60))
    sealed_wholly(store)
    day = (START_MS + 50 * HOUR_MS) // (24 * HOUR_MS)
    store.drop_before(day)
    assert min(stale_hours(store)) * HOUR_MS + START_MS >= day * 24 * HOUR_MS


def test_a_new_sink_begins_at_what_is_not_sealed_and_a_forgotten_one_leaves_nothing(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    one_by_one(store, token, range(1, 3))
    sealed_wholly(store)
    one_by_one(store, token, range(3, 4))
    store.feed.add_sink(SINK)
    assert [one.seq for one in taken(store).items if isinstance(one, Readings)] == [3]
    store.feed.mark_stale(SINK, from_ms=0, now_ms=START_MS)
    store.feed.advance(SINK, taken(store), [Refused(b"line", "no")], now_ms=START_MS)
    store.feed.forget_sink(SINK)
    assert store.feed.sinks() == []
    with pytest.raises(UnknownSinkError):
        taken(store)
    store.feed.add_sink(SINK)
    assert (stale_hours(store), store.feed.dead_letters(SINK, rows_max=9)) == ([], [])


def test_refused_points_are_kept_up_to_a_bound_and_counted_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_feed, "DEAD_LETTERS_MAX", 3)
    store, token = filled_store(tmp_path / "s.db")
    for seq in range(1, 6):
        one_by_one(store, token, range(seq, seq + 1))
        refused = [Refused(b"line %d" % seq, "no"), Refused(b"again", "no")]
        store.feed.advance(SINK, taken(store), refused, now_ms=START_MS)
    assert store.feed.behind(SINK).refused == 10
    assert {letter.line for letter in store.feed.dead_letters(SINK, rows_max=9)} == {b"line 1", b"again", b"line 2"}


def test_without_a_sink_nothing_is_marked(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    one_by_one(store, token, range(1, 3))
    sealed_wholly(store)
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        assert connection.execute("SELECT count(*) FROM stale").fetchone() == (0,)


def test_a_store_of_version_1_is_brought_to_version_2_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    one_by_one(store, token, range(1, 3))
    sealed_wholly(store)
    one_by_one(store, token, range(3, 4))
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        for table in ("sink", "stale", "unsettled", "dead_letter"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    store, token, restored = opened(path)
    assert [row.held for row in restored.ledger] == [((1, 2),)]
    store.feed.add_sink(SINK)
    assert [one.seq for one in taken(store).items if isinstance(one, Readings)] == [3]
    store.feed.mark_stale(SINK, from_ms=0, now_ms=START_MS)
    assert [one.seq for one in read_stale(store)] == [1, 2]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)


@pytest.mark.parametrize(
    "failpoint",
    [
        "advance.begin", "advance.stored", "advance.done", "written.begin", "written.stored", "written.done",
        "seal.encoded", "seal.inserted", "seal.deleted", "seal.done", "merge.encoded", "merge.stored", "merge.done",
    ],
)  # fmt: skip
def test_a_kill_at_each_step_leaves_nothing_untold(tmp_path: Path, failpoint: str) -> None:
    """What a program said that the sink had, and what it is given after its death, is all there is."""
    path = tmp_path / "s.db"
    told: set[int] = set()
    stored = 0
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-m", "tests.fleet_server.projection.reader", str(path), failpoint],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert process.returncode == -signal.SIGKILL
        for line in process.stdout.splitlines():
            kind, *numbers = line.split()
            if kind == "stored":
                stored = int(numbers[0])
            else:
                told.update(map(int, numbers))
    store, _, _ = opened(path)
    found = {one.seq for one in taken(store).items if isinstance(one, Readings)}
    found |= {one.seq for one in read_stale(store)}
    assert told | found >= set(range(1, stored + 1))
    store.close()
