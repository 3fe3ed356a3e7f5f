"""A projector over a real store; the points that must come of it, by brute force; and lines taken apart again."""

import asyncio
import itertools
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from broker_config.telemetry import Batch
from fleet_server.adapters.influx import InfluxSettings, InfluxTarget
from fleet_server.adapters.sqlite_access import Failpoint, nothing
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.annotations import Happened
from fleet_server.projection.feed import Feed
from fleet_server.projection.labels import Labels
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.series import SERIES_MAX
from fleet_server.projection.target import Target
from fleet_server.standing.sample import Following
from tests.fleet_server.store.fleet import LATE_MS, opened

SINK: Final = "influx"
SEED: Final = 20260101


class Name(NamedTuple):
    """What makes a point the point it is."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    time_ns: int


Points: TypeAlias = dict[Name, dict[str, float]]
"""By name: field -> value."""


class ClassLabels:
    """Labels that a test chooses: by the beginning of a device's id, with everything in them that must be escaped."""

    def labels(self, device: str, at_ms: int) -> Labels:
        return Labels(device.partition("-")[0], "hq, east/station = 7")


def expected(records: Iterable[tuple[str, Batch]]) -> Points:
    """The points of (device, batch) as the design says them."""
    found: Points = {}
    for device, batch in records:
        labels = ClassLabels().labels(device, batch.t0)
        tags = (("device", device), ("device_class", labels.device_class), ("org", labels.org))
        for number, (dt, row) in enumerate(zip(batch.dt, batch.rows, strict=True)):
            values = {field: value for field, value in zip(batch.fields, row, strict=True) if value is not None}
            if values:
                time_ns = (batch.t0 + dt) * 10**6 + batch.seq % 1000 * 1000 + number
                found[Name(batch.stream, tags, time_ns)] = values
    return found


_PART: Final = re.compile(r"(?:\\.|[^\\, ])+")


def parsed(line: str) -> tuple[Name, dict[str, float]]:
    """A line of the protocol, read as its specification says and not as the encoder happens to write it."""
    head, values, time_ns = re.split(r"(?<!\\) ", line)
    measurement, *tags = _PART.findall(head)
    pairs = tuple((name, _plain(value)) for name, value in (re.split(r"(?<!\\)=", tag) for tag in tags))
    fields = {name: float(value) for name, value in (part.split("=") for part in values.split(","))}
    return Name(_plain(measurement), pairs, int(time_ns)), fields


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def add(points: Points, body: bytes) -> int:
    """What a server does with lines: the same name again takes the fields over. Returns how many lines there were."""
    lines = body.decode().split("\n")
    for line in lines:
        name, fields = parsed(line)
        points.setdefault(name, {}).update(fields)
    return len(lines)


def filled_store(path: Path, failpoint: Failpoint = nothing) -> tuple[SqliteStore, int]:
    """A store with its lease and its sink."""
    store, token, _ = opened(path, failpoint)
    store.feed.add_sink(SINK)
    return store, token


def sealed_wholly(store: SqliteStore, now_ms: int = LATE_MS) -> None:
    """As far as the sinks let it."""
    while store.seal(records_max=1_000, now_ms=now_ms):
        pass


class Pauses:
    """Takes every pause for over, and keeps how long it was to be."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        await asyncio.sleep(0)


def influx(url: str, *, flavour: str = "v2", manage: bool = False, gzip: bool = False) -> InfluxSettings:
    return InfluxSettings(
        url=url, flavour=flavour, org="hq", bucket="fleet", token="", retention_d=0, manage=manage, gzip=gzip
    )


def projector(
    feed: Feed,
    target: Callable[[], Target],
    *,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    now_ms: int = LATE_MS,
    points_max: int = 1_000,
    retention_d: int = 0,
    standing: Following | None = None,
    late: Callable[[], Target] | None = None,
    series_max: int = SERIES_MAX,
    happened: Happened | None = None,
) -> Projector:
    return Projector(
        ProjectorSettings(SINK, points_max, retention_d, series_max),
        feed,
        ClassLabels(),
        standing,
        new_target=target,
        new_late=late,
        happened=happened,
        now_ms=ticking(now_ms),
        rng=random.Random(SEED),
        sleep=Pauses() if sleep is None else sleep,
    )


def ticking(from_ms: int) -> Callable[[], int]:
    """A clock that goes on by half a second whenever it is looked at."""
    times = itertools.count(from_ms, 500)
    return lambda: next(times)


def to(url: str, **options: bool | str) -> Callable[[], Target]:
    """What makes a target in the loop that runs it."""
    settings = influx(url, **options)  # type: ignore[arg-type]

    def made() -> Target:
        return InfluxTarget(settings)

    return made
