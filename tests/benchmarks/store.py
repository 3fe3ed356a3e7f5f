"""The batch store alone, no broker: commit rate, bytes a value once sealed, seal rate, query times.

``python -m tests.benchmarks.store --devices 2000 --minutes 60`` writes single samples (a row a minute of eight
fields) of that many devices, then full batches (60 rows a minute) of fewer, then a day of a few of each, into files
in a temporary folder, and prints one JSON line a figure. Readings walk at the resolution of real sensors; they are
made and decoded before the clock starts. Bytes a value are those of the whole file, ledger and newest rows included.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from broker_config import telemetry
from broker_config.telemetry import Batch, Clock
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.telemetry.store import Group

HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
START_MS: Final = 1_767_225_600_000
LATE_MS: Final = START_MS + 100 * HOUR_MS
QUERY_RUNS: Final = 9


class Sensor(NamedTuple):
    """A reading that walks."""

    name: str
    start: float
    step: float
    decimals: int


SENSORS: Final = (
    Sensor("battery_pct", 83.4, 0.1, 1),
    Sensor("battery_temp_c", 31.2, 0.1, 1),
    Sensor("charging", 1.0, 0.0, 0),
    Sensor("supply_v", 12.613, 0.004, 3),
    Sensor("current_ma", 412.5, 3.0, 1),
    Sensor("free_bytes", 51_234_567_168.0, 65_536.0, 0),
    Sensor("rssi_dbm", -71.0, 1.0, 0),
    Sensor("cpu_pct", 12.25, 0.8, 2),
)
FIELDS: Final = tuple(sensor.name for sensor in SENSORS)


class Walk:
    """One device's readings."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._now = [sensor.start * self._random.uniform(0.9, 1.1) for sensor in SENSORS]
        self._life = f"{self._random.getrandbits(64):016x}"
        self._boot = f"{self._random.getrandbits(64):016x}"
        self._seq = 0

    def _row(self) -> list[float | None]:
        gauss = self._random.gauss
        self._now = [now + gauss(0, s.step) if s.step else 1.0 for now, s in zip(self._now, SENSORS, strict=True)]
        return [float(round(now, sensor.decimals)) for now, sensor in zip(self._now, SENSORS, strict=True)]

    def batch(self, t0: int, rows: int) -> Batch:
        """The next batch: *rows* rows, a second apart as a scheduler keeps it."""
        self._seq += 1
        t0 += self._random.randint(0, 3)
        return Batch(
            v=1,
            stream="power",
            life=self._life,
            seq=self._seq,
            boot=self._boot,
            t0=t0,
            mono=t0 - START_MS + 48_211,
            clock=Clock("ntp", -12, 40),
            fields=FIELDS,
            dt=[0, *(second * 1000 + self._random.randint(0, 3) for second in range(1, rows))],
            rows=[self._row() for _ in range(rows)],
        )


def groups(devices: int, minutes: int, rows: int, group_records: int) -> Iterator[Group]:
    """What ingest would hand over: every device once a minute."""
    walks = [Walk(seed) for seed in range(devices)]
    for minute in range(minutes):
        now_ms = START_MS + minute * MINUTE_MS
        for first in range(0, devices, group_records):
            group = Group(at_ms=now_ms)
            for device in range(first, min(first + group_records, devices)):
                batch = walks[device].batch(now_ms + device % 50 * 17, rows)
                key = telemetry.key_text(batch.stream, batch.life, batch.seq)
                group.add(f"car-{device:05}", key, telemetry.encode(batch)[0], batch)
            yield group


def tell(name: str, **figures: float) -> None:
    print(json.dumps({"what": name, **{key: round(value, 3) for key, value in figures.items()}}), flush=True)


def timed_ms(question: Callable[[], object]) -> float:
    """Median, the first run left out."""
    question()
    taken = []
    for _ in range(QUERY_RUNS):
        start = time.perf_counter()
        question()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def file_bytes(path: Path) -> int:
    """Database, and what of it is still in its write-ahead log."""
    return sum(part.stat().st_size for part in path.parent.glob(path.name + "*"))


def run(name: str, folder: Path, args: argparse.Namespace, *, devices: int, minutes: int, rows: int) -> None:
    path = folder / f"{name}.db"
    store = SqliteStore(path, now_ms=START_MS)
    token = store.take_lease("bench", first=0, last=255, now_ms=START_MS, ttl_ms=HOUR_MS)
    store.restore()
    records = payload_bytes = 0
    seconds = seal_seconds = 0.0
    pending = 0
    for group in groups(devices, minutes, rows, args.group):
        start = time.perf_counter()
        store.commit(group, token=token)
        seconds += time.perf_counter() - start
        records += len(group.payloads)
        payload_bytes += sum(map(len, group.payloads))
        pending += len(group.payloads)
        if pending >= args.seal_every:
            start = time.perf_counter()
            while store.seal(records_max=args.seal_records, now_ms=group.at_ms):
                pass
            seal_seconds += time.perf_counter() - start
            pending = 0
    values = records * rows * len(FIELDS)
    tell(
        f"{name}: commit",
        records_s=records / seconds,
        values_s=values / seconds,
        payload_bytes=payload_bytes / records,
    )
    if name == "singles":
        tell(f"{name}: last of all, {devices} streams", ms=timed_ms(store.latest))
        hour = {"from_ms": START_MS, "to_ms": START_MS + HOUR_MS}
        tell(
            f"{name}: 1 h raw, as far as not sealed", ms=timed_ms(lambda: store.series("car-00000", "power", **hour))
        )
    start = time.perf_counter()
    while store.seal(records_max=args.seal_records, now_ms=LATE_MS):
        pass
    before = -1
    while before != (before := store.parts() + file_bytes(path)):  # what is over is merged, free pages given back
        store.seal(records_max=args.seal_records, now_ms=LATE_MS + HOUR_MS)
    seal_seconds += time.perf_counter() - start
    store.close()
    tell(f"{name}: seal and merge", mvalues_s=values / seal_seconds / 1e6, records_s=records / seal_seconds)
    tell(f"{name}: on disk", bytes_a_value=file_bytes(path) / values, file_bytes=file_bytes(path))
    hour = {"from_ms": START_MS, "to_ms": START_MS + HOUR_MS}
    day = {"from_ms": START_MS, "to_ms": START_MS + 24 * HOUR_MS}
    tell(f"{name}: 1 h raw", ms=timed_ms(lambda: store.series("car-00000", "power", **hour)))
    tell(
        f"{name}: {minutes / 60:g} h to 300",
        ms=timed_ms(lambda: store.series("car-00000", "power", **day, points=300)),
    )
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--full-devices", type=int, default=40)
    parser.add_argument(
        "--day-devices", type=int, default=10, help="devices that report for 24 h, for the 24 h query"
    )
    parser.add_argument("--group", type=int, default=500, help="records in one commit")
    parser.add_argument("--seal-every", type=int, default=50_000, help="records between seals")
    parser.add_argument("--seal-records", type=int, default=50_000)
    parser.add_argument("--dir", type=Path, default=None, help="where the files go; a disk that syncs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        run("singles", Path(folder), args, devices=args.devices, minutes=args.minutes, rows=1)
        run("full", Path(folder), args, devices=args.full_devices, minutes=args.minutes, rows=60)
        run("singles of a day", Path(folder), args, devices=args.day_devices, minutes=24 * 60, rows=1)
        run("full of a day", Path(folder), args, devices=max(1, args.day_devices // 3), minutes=24 * 60, rows=60)


if __name__ == "__main__":
    main()
