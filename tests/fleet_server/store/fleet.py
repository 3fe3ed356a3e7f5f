"""Made records and groups for the store's tests, and the plain answer that the store must agree with."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from broker_config import telemetry
from broker_config.telemetry import Batch, Clock, Event, Events, Record
from fleet_server.adapters.sqlite_access import Failpoint, nothing
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.telemetry.store import Group, Restored

HOUR_MS = 3_600_000
START_MS = 490_000 * HOUR_MS
LATE_MS = START_MS + 1000 * HOUR_MS
LIFE = "a1" * 8
BOOT = "b2" * 8
Row: TypeAlias = tuple[int, tuple[tuple[str, float | None], ...]]


def batch(
    seq: int,
    t0: int,
    *,
    stream: str = "power",
    life: str = LIFE,
    boot: str = BOOT,
    mono: int | None = None,
    src: Literal["none", "ntp", "gnss", "server"] = "ntp",
    fields: Sequence[str] = ("a_pct", "b_mv"),
    dt: Sequence[int] = (0,),
    rows: Sequence[Sequence[float | None]] | None = None,
) -> Batch:
    made = [[float(seq) + at / 10 for _ in fields] for at in range(len(dt))] if rows is None else rows
    return Batch(
        v=1,
        stream=stream,
        life=life,
        seq=seq,
        boot=boot,
        t0=t0,
        mono=max(0, t0 - START_MS) if mono is None else mono,
        clock=Clock(src, 0, 5),
        fields=tuple(fields),
        dt=list(dt),
        rows=[list(row) for row in made],
    )


def journal(seq: int, t0: int, prev: str = telemetry.GENESIS) -> Events:
    return Events(
        v=1,
        stream=telemetry.JOURNAL,
        life=LIFE,
        seq=seq,
        boot=BOOT,
        t0=t0,
        mono=5,
        clock=Clock("ntp", 0, 5),
        prev=prev,
        dt=[0],
        events=[Event("agent.start", {"clean": True})],
    )


def group(records: Iterable[tuple[str, Record]], at_ms: int = START_MS) -> Group:
    made = Group(at_ms=at_ms)
    for device, record in records:
        key = telemetry.key_text(record.stream, record.life, record.seq)
        made.add(device, key, telemetry.encode(record)[0], record)
    return made


def opened(path: Path, failpoint: Failpoint = nothing) -> tuple[SqliteStore, int, Restored]:
    """A store with its lease, restored."""
    store = SqliteStore(path, now_ms=START_MS, failpoint=failpoint)
    token = store.take_lease("here", first=0, last=255, now_ms=START_MS, ttl_ms=1000)
    return store, token, store.restore()


def held(restored: Restored) -> dict[tuple[str, str, str], list[int]]:
    """Every number in the ledger and in the log, as often as it is there."""
    numbers: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in restored.ledger:
        for low, high in row.held:
            numbers[row.key].extend(range(low, high + 1))
    for commit in restored.unsealed:
        for device, text in zip(commit.devices, commit.keys, strict=True):
            key = telemetry.parse_key(text)
            numbers[device, key.stream, key.life].append(key.seq)
    return {key: sorted(found) for key, found in numbers.items()}


def plain(batches: Iterable[Batch], from_ms: int, to_ms: int) -> list[Row]:
    """Rows in the range, by brute force; a field that a batch lacks is None."""
    ordered = list(batches)
    names = sorted({name for one in ordered for name in one.fields})
    out: list[Row] = []
    for one in ordered:
        for dt, row in zip(one.dt, one.rows, strict=True):
            if from_ms <= one.t0 + dt < to_ms:
                values = dict(zip(one.fields, row, strict=True))
                out.append((one.t0 + dt, tuple((name, values.get(name)) for name in names)))
    return sorted(out, key=repr)


def stored(store: SqliteStore, device: str, stream: str, from_ms: int, to_ms: int, names: Sequence[str]) -> list[Row]:
    """What the store says, in the form of :func:`plain`; checks that it ascends."""
    found = store.series(device, stream, from_ms=from_ms, to_ms=to_ms)
    assert found.times_ms == sorted(found.times_ms)
    assert found.rows_total == len(found.times_ms)
    out: list[Row] = []
    for at, time_ms in enumerate(found.times_ms):
        out.append((time_ms, tuple((n, found.columns[n][at] if n in found.columns else None) for n in sorted(names))))
    return sorted(out, key=repr)
