"""The projection: the encoder alone, the whole way into VictoriaMetrics, and influxdb-client's own ways beside it.

``python -m tests.benchmarks.projection --devices 500 --minutes 20`` writes full batches (60 x 8) and single samples
into a store, then projects them from its log and again from its columns, and prints a table.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import WriteOptions
from influxdb_client.domain.write_precision import WritePrecision
from rich.console import Console
from rich.table import Table

from broker_config.telemetry import Batch, read
from fleet_server.adapters.influx import InfluxSettings, InfluxTarget
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.projection.feed import Feed, Readings
from fleet_server.projection.labels import Labels
from fleet_server.projection.points import encode
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.target import Target
from fleet_server.telemetry.store import Group
from tests.benchmarks import batches
from tests.servers import SeriesServer, victoria_metrics

SINK: Final = "influx"
BUCKET: Final = "bench"
DEVICES: Final = 500
POINTS_A_POST: Final = 5_000
GROUP_RECORDS: Final = 1_000
CLIENT_POINTS_MAX: Final = 40_000
"""Of the client's batching mode: it is slow enough to be measured with few."""
LABELS: Final = Labels("body_camera", "hq/station-07")
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Pace:
    """One way of writing; ``cpu_us``: of this process, per value."""

    what: str
    values: int
    seconds: float
    cpu_us: float

    @property
    def values_s(self) -> float:
        return self.values / self.seconds


class _OneLabel:
    def labels(self, device: str, at_ms: int) -> Labels:
        return LABELS


@dataclass(slots=True)
class _Clock:
    """Wall and processor time of a block."""

    seconds: float = 0.0
    cpu_s: float = 0.0

    def pace(self, what: str, values: int) -> Pace:
        return Pace(what, values, self.seconds, self.cpu_s / values * 1e6)


@contextmanager
def _timed() -> Iterator[_Clock]:
    clock, wall, cpu = _Clock(), time.perf_counter(), time.process_time()
    yield clock
    clock.seconds, clock.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


def run(directory: Path, *, rows: int, devices: int, minutes: int) -> list[Pace]:
    """Every way, the same batches of *rows* rows."""
    messages = list(batches.messages(devices, devices * minutes, rows=rows, burst=10, seed=SEED))
    values = len(messages) * rows * len(batches.FIELDS)
    made = [read(message.payload, message.content_type) for message in messages]
    readings = [
        Readings(_device(message), one.stream, one.seq, [one.t0 + dt for dt in one.dt], one.fields, one.rows)
        for message, one in zip(messages, made, strict=True)
        if isinstance(one, Batch)
    ]
    directory.mkdir(parents=True, exist_ok=True)
    with victoria_metrics(directory / "victoria") as server:
        paces = [_encoder(readings, values)]
        for gzip in (False, True):
            name = directory / f"gzip-{gzip}.db"
            paces += asyncio.run(_projected(name, server, messages, values, gzip=gzip))
        paces.append(_client(server, readings))
    return paces


def _encoder(readings: Sequence[Readings], values: int) -> Pace:
    with _timed() as clock:
        for one in readings:
            encode(one, LABELS)
    return clock.pace("encoder alone", values)


async def _projected(
    path: Path, server: SeriesServer, messages: Sequence[batches.Message], values: int, *, gzip: bool
) -> list[Pace]:
    late_ms = batches.T0_MS + 86_400_000
    store = SqliteStore(path, now_ms=batches.T0_MS)
    token = store.take_lease("bench", first=0, last=255, now_ms=late_ms, ttl_ms=3_600_000)
    store.restore()
    store.feed.add_sink(SINK)
    for group in _groups(messages):
        store.commit(group, token=token)
    how = ", gzip" if gzip else ""
    paces = [await _timed_drain(f"store's log -> VictoriaMetrics{how}", server, store.feed, values, gzip=gzip)]
    while store.seal(records_max=50_000, now_ms=late_ms):
        pass
    store.feed.mark_stale(SINK, from_ms=0, now_ms=late_ms)
    paces.append(await _timed_drain(f"its columns -> VictoriaMetrics{how}", server, store.feed, values, gzip=gzip))
    store.close()
    return paces


async def _timed_drain(what: str, server: SeriesServer, feed: Feed, values: int, *, gzip: bool) -> Pace:
    settings = InfluxSettings(
        url=server.url,
        flavour="v2",
        org="hq",
        bucket=BUCKET,
        token="",
        retention_d=0,
        manage=False,
        gzip=gzip,
    )

    def target() -> Target:
        return InfluxTarget(settings)

    projector = Projector(
        ProjectorSettings(SINK, POINTS_A_POST, 0),
        feed,
        _OneLabel(),
        None,
        new_target=target,
        now_ms=lambda: batches.T0_MS + 86_400_000,
        rng=random.Random(SEED),
    )
    with _timed() as clock:
        await projector.drain()
    status = projector.status()
    assert (status.points_written * len(batches.FIELDS), status.posts_failed) == (values, 0), status
    return clock.pace(what, values)


def _groups(messages: Sequence[batches.Message]) -> Iterator[Group]:
    rest = iter(messages)
    while part := list(islice(rest, GROUP_RECORDS)):
        group = Group(at_ms=batches.T0_MS)
        for message in part:
            record = read(message.payload, message.content_type)
            group.add(_device(message), message.properties[0][1], message.payload, record)
        yield group


def _device(message: batches.Message) -> str:
    return message.topic.split("/")[3]


def _client(server: SeriesServer, readings: Sequence[Readings]) -> Pace:
    """The client's batching mode with its ``Point``, as its documentation has it, until it is closed."""
    options = WriteOptions(batch_size=POINTS_A_POST, flush_interval=1_000, jitter_interval=0)
    count = 0
    with (
        _timed() as clock,
        InfluxDBClient(url=server.url, token="t", org="hq") as client,
        client.write_api(write_options=options) as api,
    ):
        for device, at_ms, fields, row in islice(_rows(readings), CLIENT_POINTS_MAX):
            point = Point("client").tag("device", device).tag("device_class", LABELS.device_class)
            point = point.tag("org", LABELS.org).time(at_ms, WritePrecision.MS)
            for name, value in zip(fields, row, strict=True):
                point = point.field(name, value)
            api.write(BUCKET, record=point)
            count += len(row)
    return clock.pace("influxdb-client, batching, Points", count)


def _rows(readings: Sequence[Readings]) -> Iterator[tuple[str, int, tuple[str, ...], Sequence[float | None]]]:
    for one in readings:
        for at_ms, row in zip(one.times_ms, one.rows, strict=True):
            yield one.device, at_ms, one.fields, row


def table(title: str, paces: Sequence[Pace]) -> Table:
    """Figures, and how many times the client's own way each is."""
    found = Table(title=title)
    for heading in ("way", "values/s", "CPU us/value", "of the client's batching"):
        found.add_column(heading, justify="left" if heading == "way" else "right")
    slowest = paces[-1].values_s
    for pace in paces:
        found.add_row(pace.what, f"{pace.values_s:,.0f}", f"{pace.cpu_us:.2f}", f"{pace.values_s / slowest:.1f}")
    return found


def both(directory: Path, *, minutes: int, devices: int = DEVICES) -> Iterator[tuple[str, list[Pace]]]:
    """(title, paces): of full batches, and of ten times as many single samples."""
    for rows, name, count in ((60, "full batches (60 x 8)", minutes), (1, "single samples (1 x 8)", 10 * minutes)):
        paces = run(directory / str(rows), rows=rows, devices=devices, minutes=count)
        yield f"projection of {name}, {count} of each of {devices} devices", paces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--minutes", type=int, default=10, help="batches of each device (single samples: ten times)")
    told = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
        for title, paces in both(Path(scratch), minutes=told.minutes, devices=told.devices):
            console.print(table(title, paces))


if __name__ == "__main__":
    main()
