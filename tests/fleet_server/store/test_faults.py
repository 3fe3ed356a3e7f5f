"""Killed, out of space, fenced: what was committed is there, what was not is wholly absent."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server.adapters import sqlite_schema as schema
from fleet_server.telemetry.store import StoreFullError, StreamKey
from tests.disks import Disk, mounted
from tests.fleet_server.store import writer
from tests.fleet_server.store.fleet import HOUR_MS, LATE_MS, LIFE, START_MS, batch, group, held, opened

ROOT = Path(__file__).parents[3]
KILLS = 12
SEED = 20260101
TMPFS_BYTES = 4 * 1024 * 1024
DISK_FULL_BY = 1000


def started(path: Path, *failpoint: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fleet_server.store.writer", str(path), *failpoint],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_whole(path: Path, told: int) -> int:
    """Every device has the numbers 1 to some last that is at least *told*, once, as rows too; return that last."""
    store, _, restored = opened(path)
    numbers = held(restored)
    last = max((found[-1] for found in numbers.values()), default=0)
    assert last >= told
    assert last <= told + 1  # at most the one whose line was not written any more
    want = list(range(1, last + 1))
    assert numbers == ({StreamKey(device, "power", LIFE): want for device in writer.DEVICES} if last else {})
    for device in writer.DEVICES:
        found = store.series(device, "power", from_ms=START_MS, to_ms=LATE_MS)
        assert found.times_ms == [START_MS + n * 1000 for n in want]
        assert found.columns.get("a_pct", []) == [float(n) for n in want]
    assert [row.values["a_pct"] for row in store.latest()] == ([float(last)] * len(writer.DEVICES) if last else [])
    store.close()
    return last


def test_a_writer_killed_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    path = tmp_path / "s.db"
    told = 0
    for _ in range(KILLS):
        process = started(path)
        assert process.stdout is not None
        with process.stdout:
            for _ in range(rng.randint(1, 25)):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:  # what it had said before it died
                if line.endswith("\n"):
                    told = int(line)
        assert process.wait() == -signal.SIGKILL
        told = check_whole(path, told)


@pytest.mark.parametrize(
    "failpoint",
    [
        "commit.begin",
        "commit.inserted",
        "commit.done",
        "seal.encoded",
        "seal.inserted",
        "seal.deleted",
        "seal.done",
        "merge.encoded",
        "merge.stored",
        "merge.done",
    ],
)
def test_a_kill_at_each_step_repeats_the_work(tmp_path: Path, failpoint: str) -> None:
    path = tmp_path / "s.db"
    told = 0
    for _ in range(2):
        process = started(path, failpoint)
        said, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        told = check_whole(path, int(said.split()[-1]) if said else told)
    store, _, _ = opened(path)
    while store.seal(records_max=1000, now_ms=LATE_MS):
        pass
    store.seal(records_max=1000, now_ms=LATE_MS * 2)
    assert store.parts() == len(writer.DEVICES)
    store.close()
    assert check_whole(path, told) == told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "small", TMPFS_BYTES) as disk:
        yield disk


@pytest.mark.root("mounts a small file system")
def test_a_full_disk_stores_nothing_and_heals_when_there_is_space(small_disk: Disk) -> None:
    path = small_disk.path / "s.db"
    store, token, _ = opened(path)
    store.commit(group([("car-1", batch(1, START_MS))]), token=token)
    small_disk.fill()
    rng = random.Random(1)
    stored = refused = 1
    for seq in range(2, DISK_FULL_BY):
        rows = [[rng.random(), rng.random()] for _ in range(500)]
        try:
            store.commit(group([("car-1", batch(seq, START_MS + seq, dt=range(500), rows=rows))]), token=token)
            stored = seq
        except StoreFullError:
            refused = seq
            break
    assert refused == stored + 1
    for _ in range(3):  # and goes on refusing; what is stored can be read
        with pytest.raises(StoreFullError):
            store.commit(group([("car-1", batch(refused, START_MS + refused * 1000))]), token=token)
        assert store.unsealed_records == stored
        assert len(store.latest()) == 1
    small_disk.free()
    store.commit(group([("car-1", batch(refused, START_MS + refused * 1000))]), token=token)
    store.close()
    store, _, restored = opened(path)
    assert held(restored) == {StreamKey("car-1", "power", LIFE): list(range(1, refused + 1))}


@pytest.mark.root("mounts a small file system")
def test_a_seal_on_a_full_disk_changes_nothing_and_heals(small_disk: Disk) -> None:
    store, token, _ = opened(small_disk.path / "s.db")
    rng = random.Random(1)
    for seq in range(1, 101):
        rows = [[rng.random(), rng.random()] for _ in range(50)]
        store.commit(group([("car-1", batch(seq, START_MS + seq * 60_000, dt=range(50), rows=rows))]), token=token)
    before = store.series("car-1", "power", from_ms=START_MS, to_ms=LATE_MS)
    small_disk.fill()
    with pytest.raises(StoreFullError):
        store.seal(records_max=100, now_ms=LATE_MS)
    assert store.series("car-1", "power", from_ms=START_MS, to_ms=LATE_MS) == before
    small_disk.free()
    while store.seal(records_max=50, now_ms=LATE_MS):
        pass
    store.seal(records_max=50, now_ms=LATE_MS + HOUR_MS)
    assert store.unsealed_records == 0
    assert store.series("car-1", "power", from_ms=START_MS, to_ms=LATE_MS) == before


def test_a_read_only_file_is_the_kind_of_error_that_may_heal(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    opened(path)[0].close()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        with pytest.raises(sqlite3.OperationalError) as refused:
            connection.execute("DELETE FROM meta")
        assert isinstance(schema.translated(refused.value), StoreFullError)
