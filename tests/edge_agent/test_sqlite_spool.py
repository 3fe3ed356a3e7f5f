import hashlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config import telemetry
from broker_config.device_classes import SpoolClass
from broker_config.messages import Receipt
from broker_config.ranges import Ranges, both, normal
from broker_config.telemetry import Batch, Events, Key, parse_key
from edge_agent.adapters import files
from edge_agent.adapters.sqlite import SqliteSpool, read_only_ledgers
from edge_agent.clock import Stamp
from edge_agent.journal import EventsDraft
from edge_agent.spool import CorruptSpoolError, Ledger, SpoolFullError
from tests.disks import Disk, mounted
from tests.edge_agent.spool_writer import STREAMS, draft

LIFE, OTHER = "1" * 16, "2" * 16


def opened(path: Path, *, bytes_max: int = 1 << 20, new_life: str = LIFE) -> SqliteSpool:
    return SqliteSpool(path, streams=STREAMS, bytes_max=bytes_max, new_life=new_life)


def ledger(spool: SqliteSpool, stream: str, life: str = LIFE) -> Ledger:
    return next(x for x in spool.ledgers() if (x.stream, x.life) == (stream, life))


def receipt(stream: str, up_to: int, missing: Ranges = (), *, epoch: int = 1, conflict: Ranges = ()) -> Receipt:
    return Receipt(1, stream, LIFE, up_to, missing, conflict, epoch)


def fill(spool: SqliteSpool, stream: str, count: int) -> None:
    for number in range(count):
        spool.store([draft(stream, number)], dropped={})


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteSpool]:
    found = opened(tmp_path / "spool.db")
    yield found
    found.close(clean=True, floor_ms=0)


def test_numbers_have_no_holes_and_bytes_never_change(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db")
    fill(spool, "cpu", 3)
    before = [spool.read(Key("cpu", LIFE, n)) for n in (1, 2, 3)]
    spool.close(clean=True, floor_ms=7)
    again = opened(tmp_path / "spool.db", new_life=OTHER)
    assert (again.clean, again.floor_ms) == (True, 7)
    assert [again.read(Key("cpu", LIFE, n)) for n in (1, 2, 3)] == before
    stored = again.store([draft("cpu", 3)], dropped={})
    assert stored.keys == (Key("cpu", LIFE, 4),)


def test_a_spool_that_was_not_closed_says_so(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db")
    assert spool.clean  # nothing has died yet
    assert not opened(tmp_path / "spool.db").clean


def test_the_journal_is_chained_over_restarts(tmp_path: Path) -> None:
    event = telemetry.Event("agent.start", {})
    for _ in range(3):
        spool = opened(tmp_path / "spool.db")
        stamp = Stamp(0, 0, telemetry.Clock("none", 0, 0))
        spool.store([EventsDraft("b" * 16, stamp, [0], [event])] * 2, dropped={})
    previous = telemetry.GENESIS
    for seq in range(1, 7):
        found = spool.read(Key("journal", LIFE, seq))
        assert found is not None
        record = telemetry.decode(*found)
        assert isinstance(record, Events)
        assert record.prev == previous
        previous = hashlib.sha256(found[0]).hexdigest()


def test_a_receipt_only_marks(spool: SqliteSpool) -> None:
    fill(spool, "cpu", 5)
    spool.mark(receipt("cpu", 4, ((2, 2),)), now_ms=None, new_life=OTHER)
    assert ledger(spool, "cpu").waiting == ((2, 2), (5, 5))
    assert ledger(spool, "cpu").held == ((1, 5),)


def test_marks_reach_the_disk_with_the_next_batch_or_a_flush(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db")
    fill(spool, "cpu", 2)
    spool.mark(receipt("cpu", 2, epoch=0), now_ms=None, new_life=OTHER)
    assert read_only_ledgers(tmp_path / "spool.db")[0][0].receipted == ()
    spool.flush(floor_ms=0)
    assert read_only_ledgers(tmp_path / "spool.db")[0][0].receipted == ((1, 2),)


def test_another_store_is_offered_everything_again(spool: SqliteSpool) -> None:
    fill(spool, "cpu", 3)
    fill(spool, "memory", 2)
    spool.mark(receipt("cpu", 3, epoch=5), now_ms=None, new_life=OTHER)
    spool.mark(receipt("memory", 2, epoch=5), now_ms=None, new_life=OTHER)
    marked = spool.mark(receipt("cpu", 1, epoch=6), now_ms=None, new_life=OTHER)
    assert marked.epoch_raised
    assert ledger(spool, "cpu").waiting == ((2, 3),)
    assert ledger(spool, "memory").waiting == ((1, 2),)
    assert spool.mark(receipt("cpu", 3, epoch=5), now_ms=None, new_life=OTHER).ignored
    assert ledger(spool, "cpu").waiting == ((2, 3),)


def test_a_conflict_gives_new_batches_a_new_life_and_leaves_old_keys(spool: SqliteSpool) -> None:
    fill(spool, "cpu", 2)
    conflict = receipt("cpu", 1, conflict=((1, 1),))
    assert spool.mark(conflict, now_ms=None, new_life=OTHER).life_changed
    assert not spool.mark(conflict, now_ms=None, new_life="3" * 16).life_changed  # it is old news
    stored = spool.store([draft("cpu", 9)], dropped={})
    assert stored.keys == (Key("cpu", OTHER, 1),)
    assert ledger(spool, "cpu").waiting == ((2, 2),)
    assert spool.read(Key("cpu", LIFE, 2)) is not None


def test_under_the_quota_what_has_a_receipt_goes_first_then_bulk(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db", bytes_max=20 * 350)
    fill(spool, "memory", 6)
    fill(spool, "cpu", 6)
    spool.mark(receipt("memory", 3), now_ms=None, new_life=OTHER)
    fill(spool, "memory", 24)
    assert ledger(spool, "memory").trimmed[0] == (1, 3)
    assert ledger(spool, "cpu").held == ()  # bulk went before any waiting batch of memory
    assert ledger(spool, "cpu").gone == ((1, 6),)
    assert sum(x.bytes for x in spool.ledgers()) <= 20 * 350
    for x in spool.ledgers():
        for low, high in x.held:
            assert all(spool.read(Key(x.stream, x.life, n)) is not None for n in range(low, high + 1))


def test_what_was_receipted_long_ago_is_trimmed(spool: SqliteSpool) -> None:
    fill(spool, "cpu", 5)
    spool.mark(receipt("cpu", 3), now_ms=1_000, new_life=OTHER)
    assert spool.trim(now_ms=1_999, hold_ms=1_000) == 0
    assert spool.trim(now_ms=2_000, hold_ms=1_000) == 3
    assert ledger(spool, "cpu").held == ((4, 5),)
    assert spool.read(Key("cpu", LIFE, 3)) is None


def test_batches_that_never_reached_the_disk_leave_tombstones(spool: SqliteSpool) -> None:
    fill(spool, "cpu", 2)
    stored = spool.store([draft("cpu", 9)], dropped={"cpu": 3, "memory": 1})
    assert stored.keys == (Key("cpu", LIFE, 6),)
    assert stored.evicted == {"cpu": 3, "memory": 1}
    assert ledger(spool, "cpu").gone == ((3, 5),)


STEPS = ["begin", "insert", "evict", "commit", "committed"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_any_step_nothing_told_is_lost_and_no_number_is_given_twice(
    tmp_path: Path, step: str, seed: int
) -> None:
    path = tmp_path / "spool.db"
    bytes_max = 25 * 330  # so that there is something to evict
    at = random.Random(f"{step}{seed}").randint(1, 25)
    command = [sys.executable, "-m", "tests.edge_agent.spool_writer", str(path), step, str(at), str(bytes_max)]
    told: dict[Key, float] = {}
    for _ in range(2):  # the second run meets what the first left
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode in {-9, 0}, done.stderr.decode()
        for line in done.stdout.decode().splitlines():
            text, told_number = line.split()
            key = parse_key(text)
            assert key not in told
            told[key] = float(told_number)
    spool = opened(path, bytes_max=bytes_max)
    for key, number in told.items():
        kept = ledger(spool, key.stream, key.life)
        one = ((key.seq, key.seq),)
        found = spool.read(key)
        if found is None:
            assert both(one, normal((*kept.gone, *kept.trimmed))) == one
        else:
            record = telemetry.decode(*found)
            assert isinstance(record, Batch)
            assert record.rows == [[number]]
            assert both(one, kept.held) == one


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],  # cut to nothing is a spool that was never made
        lambda data: b"no spool" + data[8:],
        lambda data: data[:100] + b"\xff" * 2_000 + data[2_100:],
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" * len(data),
    ],
)
def test_a_damaged_file_is_noticed_and_never_taken_for_another(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    path = tmp_path / "spool.db"
    spool = opened(path)
    fill(spool, "cpu", 30)
    spool.close(clean=True, floor_ms=0)
    path.write_bytes(damage(path.read_bytes()))
    try:
        again = opened(path, new_life=OTHER)
        for n in range(1, 31):
            again.read(Key("cpu", LIFE, n))
        fill(again, "cpu", 30)
        assert again.made_anew
        assert again.ledgers()[0].life == OTHER
    except CorruptSpoolError:
        aside = files.set_aside(path)
        assert (tmp_path / aside).exists()
        assert opened(path, new_life=OTHER).made_anew


def test_somebody_elses_database_is_no_spool(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "spool.db")
    db.execute("CREATE TABLE precious (x)")
    db.close()
    with pytest.raises(CorruptSpoolError, match="expected a spool of version 1"):
        opened(tmp_path / "spool.db")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", 256 * 1024) as disk:
        yield disk


@pytest.mark.root("mounts a small file system")
def test_a_full_disk_takes_nothing_loses_nothing_and_heals(small_disk: Disk) -> None:
    spool = opened(small_disk.path / "spool.db", bytes_max=1 << 30)
    (small_disk.path / "other").write_bytes(b"x" * 120_000)
    with pytest.raises(SpoolFullError):
        fill(spool, "cpu", 2_000)
    told = ledger(spool, "cpu").last
    assert told > 1
    assert all(spool.read(Key("cpu", LIFE, n)) is not None for n in range(1, told + 1))
    (small_disk.path / "other").unlink()
    stored = spool.store([draft("cpu", 0)], dropped={"cpu": 2})
    assert stored.keys == (Key("cpu", LIFE, told + 3),)
    assert ledger(spool, "cpu").gone == ((told + 1, told + 2),)


@pytest.mark.root("mounts a small file system")
def test_a_disk_that_turned_read_only_takes_nothing_and_heals(small_disk: Disk) -> None:
    spool = opened(small_disk.path / "spool.db")
    fill(spool, "cpu", 1)
    spool.close(clean=True, floor_ms=0)
    small_disk.read_only(on=True)
    with pytest.raises(SpoolFullError):
        opened(small_disk.path / "spool.db")
    small_disk.read_only(on=False)
    again = opened(small_disk.path / "spool.db")
    fill(again, "cpu", 1)
    assert ledger(again, "cpu").last == 2
    again.close(clean=True, floor_ms=0)


def test_classes_are_those_of_the_streams(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "spool.db", streams={"memory": SpoolClass.BULK}, bytes_max=700, new_life=LIFE)
    fill(spool, "memory", 8)
    assert spool.ledgers()[0].gone[0][0] == 1
