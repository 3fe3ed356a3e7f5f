"""What it costs to measure how a fleet stands: ``python -m tests.benchmarks.standing --devices 2600 26000``.

A real ingest, store, registry and book of assignments, with devices that were born, reported and are given out. Each
look is made three times as the server makes it, and the last counts: what is looked for seldom is known by then. Told
are a look's seconds of processor time, its share of a core at its cadence, and its longest portion: a receipt may
wait for that.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from broker_config import device_classes, topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, StreamState, encode
from broker_config.telemetry import JOURNAL, Batch, Clock, Event
from fleet_server.registry import readiness
from fleet_server.registry.assignments import Handing, With
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from fleet_server.standing.coverage import CoverageLook
from fleet_server.standing.fitness import FitnessLook
from fleet_server.standing.held import Held
from fleet_server.standing.looking import Source
from fleet_server.standing.measures import COVERAGE, PRESENCE, READINESS
from fleet_server.standing.presence import PresenceLook
from tests.fleet_server.fleet import BOOT, HOUR_MS, LIFE, NOW, T0, Arrival, Fleet, journal, record

CLASS: Final = "body_camera"
DEVICES_A_COMMIT: Final = 500
LOOKS: Final = 3


class Cost(NamedTuple):
    """Of one look at all of them."""

    source: Source
    samples: int
    seconds: float
    longest_s: float


def arrivals(device: DeviceId) -> Iterator[Arrival]:
    """A birth, a row of each stream, and a self-test that passed."""
    streams = {name: spec for name, spec in device_classes.load(CLASS).streams.items() if name != JOURNAL}
    states = tuple(StreamState(name, LIFE, 1, 1, every_ms=60_000) for name in streams)
    born = Birth(1, "0" * 16, BOOT, 1, 30, "0.1.0", CLASS, CLASS, 0, 5_000, states)
    yield Arrival(topics.up(device, topics.Up.STATUS), encode(born))
    for name, spec in streams.items():
        rows: list[list[float | None]] = [[of.max for of in spec.fields.values()]]
        clock, fields = Clock("ntp", 0, 5), tuple(spec.fields)
        yield record(device, Batch(1, name, LIFE, 1, BOOT, NOW - 5_000, 1, clock, fields, [0], rows))
    tested = Event("command.done", {"name": "self.test", "passed": True})
    yield record(device, journal(1, t0=T0, events=[tested] * 50))


def filled(directory: Path, devices: int) -> Fleet:
    """All of them, at one node; every second one is given out."""
    fleet = Fleet(directory / "store.db")
    fleet.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=T0)
    names = [f"cam-{number:06d}" for number in range(devices)]
    rows = [Registration(name, CLASS, node="hq") for name in names]
    fleet.registry.import_devices(rows, now_ms=T0, dry_run=False)
    for start in range(0, devices, DEVICES_A_COMMIT):
        some = names[start : start + DEVICES_A_COMMIT]
        fleet.arrive(*(each for name in some for each in arrivals(DeviceId(name))), looking=False)
    while fleet.keeper.look():
        pass
    given = [Handing(name, With(officer=f"P{name}"), "bench", from_ms=T0) for name in names[::2]]
    for start in range(0, len(given), DEVICES_A_COMMIT):
        fleet.assignments.enter(given[start : start + DEVICES_A_COMMIT], now_ms=NOW, dry_run=False)
    return fleet


def costs(fleet: Fleet) -> Iterator[Cost]:
    """Of each look."""
    held = Held()
    fitness = FitnessLook(
        fleet.registry,
        fleet.view,
        fleet.registry,
        fleet.assignments,
        fleet.twins,
        dict,
        table=readiness.DEFAULTS,
        shift_ms=12 * HOUR_MS,
    )
    sources = (
        Source(PRESENCE, PresenceLook(fleet.view, fleet.registry).look),
        Source(READINESS, fitness.look),
        Source(COVERAGE, CoverageLook(held.samples, fleet.assignments).look),
    )
    for source in sources:
        for _ in range(LOOKS):
            cost = look(source, held)
        yield cost


def look(source: Source, held: Held) -> Cost:
    """Once at all of them."""
    samples, longest_s, began_s = 0, 0.0, time.thread_time()
    portions = source.look(NOW)
    while True:
        portion_s = time.perf_counter()
        portion = next(portions, None)
        if portion is None:
            break
        held.put(portion)
        samples += len(portion)
        longest_s = max(longest_s, time.perf_counter() - portion_s)
    return Cost(source, samples, time.thread_time() - began_s, longest_s)


def main() -> int:
    """Run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[2_600])
    chosen = parser.parse_args()
    table = Table(title="looks at how the fleet stands", title_justify="left")
    for name in ("devices", "measure", "samples", "s", "of a core", "longest portion, ms"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for devices in chosen.devices:
        with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
            fleet = filled(Path(scratch), devices)
            for cost in costs(fleet):
                measure = cost.source.measure
                share = f"{cost.seconds / measure.every_s:.1%}"
                figures = (f"{cost.seconds:.2f}", share, f"{1000 * cost.longest_s:.0f}")
                table.add_row(f"{devices:,}", measure.name, f"{cost.samples:,}", *figures)
            fleet.store.close()
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
