"""The batch store keeps what it committed, whatever it was doing when it died."""

import hashlib
import math
import sqlite3
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_config.telemetry import GENESIS, Reason
from fleet_server.adapters.sqlite_seal import UNMAPPED_WAIT_MS
from fleet_server.adapters.sqlite_store import SqliteStore, restore_backup, set_aside
from fleet_server.telemetry.store import (
    EventFact,
    FencedError,
    Gone,
    Group,
    LeaseHeldError,
    Quarantined,
    Silence,
    StatusSeen,
    StoreError,
    StreamKey,
)
from tests.fleet_server.store.fleet import (
    BOOT,
    HOUR_MS,
    LATE_MS,
    LIFE,
    START_MS,
    batch,
    group,
    held,
    journal,
    opened,
    plain,
    stored,
)

DAY = START_MS // HOUR_MS // 24
ALL = {"from_ms": START_MS - HOUR_MS, "to_ms": START_MS + 200 * HOUR_MS}
KEY = StreamKey("car-1", "power", LIFE)


def sealed_wholly(store: SqliteStore) -> None:
    while store.seal(records_max=1000, now_ms=LATE_MS):
        pass
    store.seal(records_max=1000, now_ms=LATE_MS + HOUR_MS)


def test_what_was_committed_is_there_after_a_restart_in_the_log_and_in_the_ledger(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    store.commit(group([("car-1", batch(seq, START_MS + seq)) for seq in (1, 2, 5)]), token=token)
    assert store.seal(records_max=10, now_ms=START_MS) == [(KEY, ((1, 2), (5, 5)))]
    store.commit(group([("car-1", batch(3, START_MS + 3)), ("car-2", batch(1, START_MS))]), token=token)
    store.close()
    store, token, restored = opened(tmp_path / "s.db")
    assert [(row.key, row.held, row.tail_seq, row.tail_ms) for row in restored.ledger] == [
        (KEY, ((1, 2), (5, 5)), 5, START_MS + 5)
    ]
    assert held(restored) == {KEY: [1, 2, 3, 5], ("car-2", "power", LIFE): [1]}
    assert store.unsealed_records == 2


def test_seal_takes_the_oldest_first_and_ends_with_nothing(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    for seq in range(1, 6):
        store.commit(group([("car-1", batch(seq, START_MS + seq))]), token=token)
    assert store.seal(records_max=2, now_ms=START_MS) == [(KEY, ((1, 2),))]
    assert store.seal(records_max=2, now_ms=START_MS) == [(KEY, ((3, 4),))]
    assert store.seal(records_max=2, now_ms=START_MS) == [(KEY, ((5, 5),))]
    assert store.seal(records_max=2, now_ms=START_MS) == []


def test_an_hour_that_is_over_becomes_one_part(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    batches = [batch(seq, START_MS + seq * 60_000) for seq in range(1, 31)]
    for one in batches:
        store.commit(group([("car-1", one)]), token=token)
        store.seal(records_max=10, now_ms=one.t0)
    assert store.parts() == 30
    store.seal(records_max=100, now_ms=LATE_MS)
    assert store.parts() == 1
    assert stored(store, "car-1", "power", **ALL, names=("a_pct", "b_mv")) == plain(batches, **ALL)
    # what comes later joins it, once its source has been quiet
    late = batch(31, START_MS + 90_500)
    store.commit(group([("car-1", late)], at_ms=LATE_MS), token=token)
    store.seal(records_max=100, now_ms=LATE_MS)
    assert store.parts() == 2
    store.seal(records_max=100, now_ms=LATE_MS + HOUR_MS)
    assert store.parts() == 1
    assert stored(store, "car-1", "power", **ALL, names=("a_pct", "b_mv")) == plain([*batches, late], **ALL)


def test_the_newest_row_is_by_time_not_by_arrival_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    live = batch(2, START_MS + 5000, dt=(0, 10), rows=[[1.0, None], [2.5, 3.0]])
    store.commit(group([("car-1", live)], at_ms=77), token=token)
    store.commit(group([("car-1", batch(1, START_MS))], at_ms=78), token=token)  # the backlog comes behind
    for step in ("before", "after"):
        newest = store.latest()
        assert [(row.device, row.at_ms, row.received_ms, row.values) for row in newest] == [
            ("car-1", START_MS + 5010, 77, {"a_pct": 2.5, "b_mv": 3.0})
        ], step
        assert store.latest("car-1") == newest
        assert store.latest("car-2") == []
        sealed_wholly(store)
        store.close()
        store, token, _ = opened(path)


def test_the_journal_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    first = journal(1, START_MS)
    made = group([("car-1", first)])
    second = journal(2, START_MS + 1, hashlib.sha256(made.payloads[0]).hexdigest())
    store.commit(made, token=token)
    store.seal(records_max=9, now_ms=START_MS)
    store.commit(group([("car-1", second)]), token=token)
    sealed_wholly(store)
    assert store.parts() == 1
    key = StreamKey("car-1", "journal", LIFE)
    assert store.sealed_crc(key, 1, START_MS) == zlib.crc32(made.payloads[0])
    both = [(1, made.payloads[0]), (2, group([("car-1", second)]).payloads[0])]
    assert store.journal("car-1", LIFE, first=1, last=9) == both
    assert store.series("car-1", "journal", **ALL).times_ms == []
    assert store.latest() == []


def test_a_part_of_the_journal_is_read_whether_it_is_sealed_or_not(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    made, prev = [], GENESIS
    for seq in range(1, 7):
        at_ms = START_MS + seq * (HOUR_MS if seq % 2 else 1_000)
        one = group([("car-1", journal(seq, at_ms, prev))], at_ms=at_ms)
        prev = hashlib.sha256(one.payloads[0]).hexdigest()
        made.append((seq, one.payloads[0]))
        store.commit(one, token=token)
        store.commit(group([("car-2", journal(seq, at_ms)), ("car-1", batch(seq, at_ms))]), token=token)
        if seq == 4:
            sealed_wholly(store)
    assert store.journal("car-1", LIFE, first=2, last=5) == made[1:5]
    assert store.journal("car-1", LIFE, first=1, last=6) == made
    assert store.journal("car-1", "c" * 16, first=1, last=6) == []
    assert store.journal("car-9", LIFE, first=1, last=6) == []
    sealed_wholly(store)
    assert store.journal("car-1", LIFE, first=5, last=5) == [made[4]]


def test_a_sealed_batch_is_recognised_by_its_checksum(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    made = group([("car-1", batch(1, START_MS)), ("car-1", batch(2, START_MS + 1, life="c" * 16))])
    store.commit(made, token=token)
    assert store.sealed_crc(KEY, 1, START_MS) is None  # not sealed yet: the ledger in memory knows it
    for _ in range(2):
        sealed_wholly(store)
        assert store.sealed_crc(KEY, 1, START_MS + 3) == zlib.crc32(made.payloads[0])
        assert store.sealed_crc(KEY, 2, START_MS) is None
        assert store.sealed_crc(KEY._replace(life="c" * 16), 2, START_MS) == zlib.crc32(made.payloads[1])
        assert store.sealed_crc(KEY, 1, START_MS + HOUR_MS) is None


# clocks that nobody set


def test_a_clock_that_nobody_set_is_mapped_by_another_batch_of_its_boot(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    unset = [batch(seq, 1000 * seq, mono=1000 * seq, src="none") for seq in (1, 2, 3)]
    other = batch(9, 1000, boot="c" * 16, mono=1000, src="none", stream="radio")  # another boot: nothing is known
    made = group([("car-1", unset[0]), ("car-1", unset[1]), ("car-1", other)])
    store.commit(made, token=token)
    assert dict(store.seal(records_max=9, now_ms=START_MS)) == {
        KEY: ((1, 2),),
        StreamKey("car-1", "radio", LIFE): ((9, 9),),
    }
    assert store.parts() == 0  # they wait
    assert store.sealed_crc(KEY, 2, 2000) == zlib.crc32(made.payloads[1])
    assert store.series("car-1", "power", from_ms=0, to_ms=HOUR_MS).times_ms == [1000, 2000]
    store.close()
    store, token, _ = opened(path)
    # synced by now: this boot began at START_MS
    store.commit(group([("car-1", batch(4, START_MS + 9000, mono=9000)), ("car-1", unset[2])]), token=token)
    for step in ("unsealed", "sealed", "merged", "restarted"):
        found = store.series("car-1", "power", **ALL)
        assert found.times_ms == [START_MS + ms for ms in (1000, 2000, 3000, 9000)], step
        assert found.columns["a_pct"] == [1.0, 2.0, 3.0, 4.0], step
        assert store.series("car-1", "power", from_ms=0, to_ms=HOUR_MS).times_ms == [], step
        if step == "unsealed":
            store.seal(records_max=9, now_ms=START_MS)
        elif step == "sealed":
            sealed_wholly(store)
        else:
            store.close()
            store, token, _ = opened(path)
    assert store.sealed_crc(KEY, 2, 2000) == zlib.crc32(made.payloads[1])  # found by the time that it told
    assert store.series("car-1", "radio", from_ms=0, to_ms=HOUR_MS).times_ms == [1000]  # still waiting, or given up


def test_what_is_never_mapped_is_sealed_as_it_told_after_the_wait(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    made = group([("car-1", batch(1, 5000, src="none"))])
    store.commit(made, token=token)
    store.seal(records_max=9, now_ms=START_MS + UNMAPPED_WAIT_MS - 1)
    assert store.parts() == 0
    assert store.seal(records_max=9, now_ms=START_MS + UNMAPPED_WAIT_MS) == []  # its number was told before
    assert store.parts() == 1
    assert store.sealed_crc(KEY, 1, 5000) == zlib.crc32(made.payloads[0])
    assert store.series("car-1", "power", from_ms=0, to_ms=HOUR_MS).times_ms == [5000]


def test_a_row_without_a_time_is_newest_only_where_there_is_no_other(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    ahead = batch(1, LATE_MS, boot="c" * 16, src="none")  # ten years ahead, and nobody set it
    store.commit(group([("car-1", ahead)]), token=token)
    assert [row.at_ms for row in store.latest()] == [LATE_MS]
    store.commit(group([("car-1", batch(2, START_MS))]), token=token)
    store.commit(group([("car-1", batch(3, LATE_MS, boot="c" * 16, src="none"))]), token=token)
    assert [row.at_ms for row in store.latest()] == [START_MS]


# facts beside the batches


def test_facts_are_kept_and_told(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    facts = Group(at_ms=5)
    event = EventFact(KEY, 1, 0, START_MS, BOOT, 5, "link.up", '{"attempts":1}')
    silence = Silence(KEY, 2, START_MS, START_MS + 500, BOOT, 1, BOOT, 501)
    facts.events = [event]
    facts.silences = [silence]
    facts.gone = [Gone(KEY, ((1, 4), (6, 6))), Gone(KEY, ((5, 5),))]
    facts.statuses = [StatusSeen("car-1", 5, b"old"), StatusSeen("car-1", 6, b"new")]
    store.commit(facts, token=token)
    store.close()
    store, token, restored = opened(path)
    assert restored.gone == [Gone(KEY, ((1, 6),))]
    assert restored.statuses == [StatusSeen("car-1", 6, b"new")]
    assert store.events("car-1", from_ms=START_MS, to_ms=START_MS + 1, rows_max=5) == [event]
    assert store.events("car-1", from_ms=START_MS + 1, to_ms=START_MS + 2, rows_max=5) == []
    assert store.events("car-2", from_ms=0, to_ms=LATE_MS, rows_max=5) == []
    for device in ("car-1", None):
        assert store.silences(device, from_ms=START_MS + 500, to_ms=LATE_MS, rows_max=5) == [silence]
        assert store.silences(device, from_ms=START_MS + 501, to_ms=LATE_MS, rows_max=5) == []
        assert store.silences(device, from_ms=0, to_ms=START_MS, rows_max=5) == []


def test_quarantine_is_kept_raw_until_its_replay_succeeded(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    poison = Group(at_ms=5)
    poison.quarantined = [
        Quarantined("car-1", "telemetry", f"power/{LIFE}/7", Reason.UNKNOWN_FIELD, "x", "application/json", b"{}?"),
        Quarantined("car-1", "telemetry", None, Reason.MALFORMED, "y", "application/json", b"\xff"),
    ]
    store.commit(poison, token=token)
    store.close()
    store, token, restored = opened(path)
    assert restored.quarantined == [("car-1", f"power/{LIFE}/7", zlib.crc32(b"{}?"))]
    assert restored.quarantine_bytes == 4
    rows = store.quarantine(after_id=0, rows_max=9)
    assert [(row.reason, row.payload, row.replayed_ms) for row in rows] == [
        ("unknown_field", b"{}?", None),
        ("malformed", b"\xff", None),
    ]
    assert store.quarantine(after_id=rows[0].id, rows_max=9) == rows[1:]
    store.replayed(rows[0].id, 99)
    store.replayed(rows[0].id, 100)
    with pytest.raises(KeyError):
        store.replayed(77, 1)
    assert [row.replayed_ms for row in store.quarantine(after_id=0, rows_max=1)] == [99]
    store.close()
    _, _, restored = opened(path)
    assert restored.quarantined == []
    assert restored.quarantine_bytes == 1


def test_retention_drops_whole_days_and_keeps_the_numbers(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    for day in range(3):
        store.commit(group([("car-1", batch(day + 1, START_MS + day * 24 * HOUR_MS))]), token=token)
    sealed_wholly(store)
    assert store.drop_before(DAY + 2) == 2
    assert store.series("car-1", "power", **ALL).columns["a_pct"] == [3.0]
    store.close()
    assert opened(tmp_path / "s.db")[2].ledger[0].held == ((1, 3),)


# leases


def test_a_lease_keeps_others_out_until_it_runs_out_and_then_fences(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store, token, _ = opened(path)
    other = SqliteStore(path, now_ms=1)
    with pytest.raises(LeaseHeldError) as held_by:
        other.take_lease("there", first=0, last=255, now_ms=START_MS + 999, ttl_ms=1000)
    assert (held_by.value.owner, held_by.value.until_ms) == ("here", START_MS + 1000)
    store.renew_lease(token=token, now_ms=START_MS + 500, ttl_ms=1000)
    with pytest.raises(LeaseHeldError):
        other.take_lease("there", first=0, last=255, now_ms=START_MS + 1000, ttl_ms=1000)
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    newer = other.take_lease("there", first=0, last=255, now_ms=START_MS + 1500, ttl_ms=1000)
    assert newer > token
    for refused in (
        lambda: store.commit(group([("car-1", batch(2, START_MS))]), token=token),
        lambda: store.renew_lease(token=token, now_ms=START_MS + 1500, ttl_ms=1),
        lambda: store.seal(records_max=10, now_ms=START_MS),
    ):
        with pytest.raises(FencedError):
            refused()
    store.drop_lease(token=token)  # another's by now: nothing happens
    restored = other.restore()
    assert held(restored) == {KEY: [1]}
    other.commit(group([("car-1", batch(2, START_MS))]), token=newer)
    other.drop_lease(token=newer)
    assert store.take_lease("here", first=0, last=255, now_ms=0, ttl_ms=1) > newer


def test_who_has_no_lease_cannot_seal(tmp_path: Path) -> None:
    with pytest.raises(FencedError, match="expected a lease"):
        SqliteStore(tmp_path / "s.db", now_ms=1).seal(records_max=1, now_ms=1)


# the file


def test_the_epoch_is_the_first_opening(tmp_path: Path) -> None:
    assert SqliteStore(tmp_path / "s.db", now_ms=123).store_epoch == 123
    assert SqliteStore(tmp_path / "s.db", now_ms=456).store_epoch == 123


@pytest.mark.parametrize(
    ("pragma", "told"), [("user_version = 3", "schema version 2, got 3"), ("application_id = 7", "got 0x7")]
)
def test_a_file_of_another_kind_or_a_newer_version_is_refused(tmp_path: Path, pragma: str, told: str) -> None:
    path = tmp_path / "s.db"
    SqliteStore(path, now_ms=1).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    with pytest.raises(StoreError, match=told):
        SqliteStore(path, now_ms=1)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(tmp_path / "s.db", now_ms=1)


@pytest.mark.parametrize(("now_ms", "epoch"), [(START_MS + 5, START_MS + 5), (3, START_MS + 1)])
def test_a_restored_backup_begins_a_new_epoch_and_fences_the_old(tmp_path: Path, now_ms: int, epoch: int) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    store.seal(records_max=1, now_ms=START_MS)
    store.commit(group([("car-1", batch(2, START_MS))]), token=token)
    store.backup(tmp_path / "copy.db")
    store.commit(group([("car-1", batch(3, START_MS))]), token=token)
    assert restore_backup(tmp_path / "copy.db", tmp_path / "new.db", now_ms) == epoch
    again, new_token, restored = opened(tmp_path / "new.db")
    assert restored.store_epoch == again.store_epoch == epoch
    assert held(restored) == {KEY: [1, 2]}
    assert new_token > token
    for path in (tmp_path / "s.db", tmp_path / "copy.db"):
        with pytest.raises(StoreError, match="expected no file"):
            store.backup(path)
    with pytest.raises(StoreError, match="expected no file"):
        restore_backup(tmp_path / "copy.db", tmp_path / "s.db", now_ms)


def test_a_store_is_set_aside_with_its_log_once_nobody_holds_it(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    store.renew_lease(token=token, now_ms=START_MS, ttl_ms=1000)
    with pytest.raises(StoreError, match="stop it first"):
        set_aside(tmp_path / "s.db", START_MS + 999)
    aside = set_aside(tmp_path / "s.db", START_MS + 1001)
    assert aside is not None
    assert not list(tmp_path.glob("s.db")) + list(tmp_path.glob("s.db-*"))
    _, _, restored = opened(aside)
    assert held(restored) == {KEY: [1]}
    assert set_aside(tmp_path / "s.db", START_MS) is None


def test_readers_see_every_commit_once_while_others_commit_and_seal(tmp_path: Path) -> None:
    store, token, _ = opened(tmp_path / "s.db")
    commits, failures = 200, list[BaseException]()
    done = threading.Event()

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # told by the test's own thread
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def seal() -> None:
        late = 0
        while not done.is_set():
            late += HOUR_MS
            store.seal(records_max=7, now_ms=LATE_MS + late)

    def read() -> None:
        seen = 0
        while not done.is_set():
            found = store.series("car-1", "power", **ALL)
            assert found.columns.get("a_pct", []) == [float(n) for n in range(1, len(found.times_ms) + 1)]
            assert len(found.times_ms) >= seen
            seen = len(found.times_ms)

    threads = [guarded(seal), guarded(read), guarded(read)]
    for seq in range(1, commits + 1):
        store.commit(group([("car-1", batch(seq, START_MS + seq * 1000))]), token=token)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.series("car-1", "power", **ALL).times_ms) == commits
    store.close()


# series == brute force


FIELDS = ("a_pct", "b_mv", "c_x")
VALUE = st.one_of(st.none(), st.integers(-1000, 1000).map(lambda n: n / 10), st.floats(-1e6, 1e6))


@st.composite
def life_of_a_stream(draw: st.DrawFn) -> list[tuple[int, list[int], tuple[str, ...], list[list[float | None]]]]:
    """(t0, dt, fields, rows) of batches in the order of their numbers; clocks jump, batches overlap."""
    out = []
    now_ms = START_MS + draw(st.integers(0, 2 * HOUR_MS))
    for _ in range(draw(st.integers(1, 12))):
        now_ms += draw(st.one_of(st.integers(0, 120_000), st.integers(-HOUR_MS, 2 * HOUR_MS)))
        dt = sorted(draw(st.lists(st.integers(0, 600_000), min_size=1, max_size=30)))
        fields = tuple(draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True)))
        rows = [[draw(VALUE) for _ in fields] for _ in dt]
        out.append((now_ms, dt, fields, rows))
    return out


@given(
    life_of_a_stream(),
    st.lists(st.sampled_from(["commit", "commit", "seal some", "seal", "merge", "restart"]), min_size=5, max_size=20),
    st.integers(-2 * HOUR_MS, 4 * HOUR_MS),
    st.integers(1, 12 * HOUR_MS),
    st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_series_is_brute_force_whatever_was_sealed_when(
    life: list[tuple[int, list[int], tuple[str, ...], list[list[float | None]]]],
    steps: list[str],
    start: int,
    span: int,
    points: int,
) -> None:
    batches = [batch(n, t0, dt=dt, fields=fields, rows=rows) for n, (t0, dt, fields, rows) in enumerate(life, 1)]
    waiting = list(batches)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        store, token, _ = opened(path)
        for step in [*steps, "rest"]:
            if step in {"commit", "rest"}:
                some, waiting = (waiting[:2], waiting[2:]) if step == "commit" else (waiting, [])
                records = [("car-1", one) for one in some] + [("car-2", one) for one in some]
                store.commit(group(records), token=token)
            elif step == "restart":
                store.close()
                store, token, _ = opened(path)
            else:
                now_ms = LATE_MS + HOUR_MS if step == "merge" else START_MS + HOUR_MS
                store.seal(records_max=1 if step == "seal some" else 1000, now_ms=now_ms)
        from_ms = START_MS + start
        between = {"from_ms": from_ms, "to_ms": from_ms + span}
        names = {name for one in batches for name in one.fields}
        rows = plain(batches, **between)
        assert stored(store, "car-1", "power", **between, names=sorted(names)) == rows
        found = store.series("car-1", "power", **between, points=points)
        assert found.rows_total == len(rows)
        assert len(found.times_ms) <= points
        seen = 0
        for at, bucket_ms in enumerate(found.times_ms):
            here = [dict(row) for time_ms, row in rows if bucket_ms <= time_ms < bucket_ms + found.bucket_ms]
            seen += len(here)
            for name, means in found.columns.items():
                values = [value for value in (row.get(name) for row in here) if value is not None]
                assert found.counts[name][at] == len(values)
                assert found.lows[name][at] == min(values, default=None)
                assert found.highs[name][at] == max(values, default=None)
                mean = means[at]
                if values:
                    assert mean is not None
                    assert math.isclose(mean, math.fsum(values) / len(values), rel_tol=1e-9, abs_tol=1e-9)
                else:
                    assert mean is None
        assert seen == len(rows)
        store.close()
