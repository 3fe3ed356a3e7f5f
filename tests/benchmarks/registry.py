"""The admin API with many registered devices: what a list, a filter and a device page take, and how that grows.

``python -m tests.benchmarks.registry --devices 1000,10000,100000`` registers so many devices over the API (one CSV),
each with a birth and two streams in the real ingest and batch store, and asks a real server on loopback, one request
after the other, from another process. Prints a table, and with ``--report`` JSON.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from rich.console import Console
from rich.table import Table

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, StreamState, encode
from broker_config.telemetry import Batch, Clock
from fleet_server.api.app import create_app
from tests.fleet_server.fleet import BOOT, LIFE, NOW, T0, TOKEN, Arrival, Fleet, record
from tests.servers import HOST, accepts, free_port, wait_until

STATIONS: Final = 23
POSTS: Final = 20
UNITS: Final = 48
CLASSES: Final = ("body_camera", "in_car_terminal", "traffic_light", "interrogation_room", "host")
STREAMS: Final = ("cpu", "memory")
CSV: Final = {"Content-Type": "text/csv"}
REQUESTS: Final = 300
COMMIT_DEVICES: Final = 1_000
TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Question:
    """``path``: with ``{device}`` and ``{station}``, which differ from one request to the next."""

    name: str
    path: str


QUESTIONS: Final = (
    Question("first page, 100 devices", "/v1/devices"),
    Question("a page somewhere", "/v1/devices?cursor={cursor}"),
    Question("of a class", "/v1/devices?device_class=body_camera&cursor={cursor}"),
    Question("of a station, with its posts", "/v1/devices?node={station}"),
    Question("of the centre, all below it", "/v1/devices?node=hq&cursor={cursor}"),
    Question("of a unit", "/v1/devices?unit={unit}"),
    Question("not connected, of a station (none is)", "/v1/devices?node={station}&connected=false"),
    Question("connected (all are)", "/v1/devices?connected=true"),
    Question("only heard of (none is)", "/v1/devices?registered=false"),
    Question("by the beginning of the id", "/v1/devices?text={device}"),
    Question("a device page", "/v1/devices/{device}"),
    Question("its newest readings", "/v1/devices/{device}/latest"),
    Question("its registration", "/v1/devices/{device}/registration"),
    Question("newest readings, 100 rows", "/v1/latest?cursor={row_cursor}"),
    Question("the fleet by place", "/v1/fleet"),
)


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds of one question."""

    name: str
    devices: int
    p50_ms: float
    p99_ms: float
    most_ms: float


def name_of(at: int) -> str:
    """The id of a device."""
    return f"dev-{at:06d}"


@contextmanager
def served(devices: int) -> Iterator[tuple[int, float]]:
    """A server with so many devices; its port, and seconds of the import."""
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
        fleet = Fleet(Path(scratch) / "store.db")
        port = free_port()
        app = create_app(fleet.ports, clock=lambda: NOW)
        server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_until(lambda: accepts(port), "the API accepts")
            import_s = register(port, devices)
            _hear(fleet, devices)
            yield port, import_s
        finally:
            server.should_exit = True
            thread.join()
            fleet.store.close()


def _client(port: int) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://{HOST}:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=TIMEOUT_S
    )


def register(port: int, devices: int) -> float:
    """So many devices, over the API; the seconds of the import."""
    stations = "".join(f"station-{at},station,Station {at},hq\n" for at in range(STATIONS))
    posts = "".join(f"post-{at},post,Post {at},station-{at}\n" for at in range(POSTS))
    units = "".join(f"unit-{at},Unit {at},hq\n" for at in range(UNITS))
    rows = "".join(
        f"{name_of(at)},{CLASSES[at % len(CLASSES)]},SN-{at:08d},{_node(at)},unit-{at % UNITS}\n"
        for at in range(devices)
    )
    with _client(port) as client:
        for path, csv in (
            ("org-nodes", "node,kind,name,parent\nhq,centre,Command centre,\n" + stations + posts),
            ("duty-units", "unit,name,node\n" + units),
        ):
            client.post(f"/v1/imports/{path}", content=csv, headers=CSV).raise_for_status()
        began = time.perf_counter()
        csv = "device,device_class,serial,node,unit\n" + rows
        client.post("/v1/imports/devices", content=csv, headers=CSV).raise_for_status()
        return time.perf_counter() - began


def _node(at: int) -> str:
    return f"post-{at % POSTS}" if at % 7 == 0 else f"station-{at % STATIONS}"


def _hear(fleet: Fleet, devices: int) -> None:
    states = tuple(StreamState(stream, LIFE, 1, 1, every_ms=10_000) for stream in STREAMS)
    for start in range(0, devices, COMMIT_DEVICES):
        arrivals: list[Arrival] = []
        for at in range(start, min(start + COMMIT_DEVICES, devices)):
            device = DeviceId(name_of(at))
            said = Birth(1, f"{at:016x}", BOOT, 1, 30, "0.1.0", CLASSES[at % len(CLASSES)], "host", 0, 5000, states)
            arrivals.append(Arrival(topics.up(device, topics.Up.STATUS), encode(said)))
            for stream in STREAMS:
                batch = Batch(1, stream, LIFE, 1, BOOT, T0, 1, Clock("ntp", 0, 5), (f"{stream}_pct",), [0], [[12.5]])
                arrivals.append(record(device, batch))
        fleet.arrive(*arrivals)


def ask(port: int, devices: int, seed: int) -> list[Took]:
    """Every question REQUESTS times."""
    rng = random.Random(seed)
    out: list[Took] = []
    with _client(port) as client:
        for question in QUESTIONS:
            times_ms: list[float] = []
            for _ in range(REQUESTS):
                path = question.path.format(**_parts(rng, devices))
                began = time.perf_counter()
                answer = client.get(path)
                times_ms.append(1000 * (time.perf_counter() - began))
                answer.raise_for_status()
            times_ms.sort()
            p50, p99 = times_ms[len(times_ms) // 2], times_ms[int(len(times_ms) * 0.99)]
            out.append(Took(question.name, devices, p50, p99, times_ms[-1]))
    return out


def _parts(rng: random.Random, devices: int) -> dict[str, str]:
    from fleet_server.api.pages import write_cursor

    at = rng.randrange(devices)
    return {
        "device": name_of(at),
        "station": f"station-{at % STATIONS}",
        "unit": f"unit-{at % UNITS}",
        "cursor": write_cursor(name_of(at)),
        "row_cursor": write_cursor((name_of(at), "cpu")),
    }


def main() -> None:
    """Run, print a table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="1000,10000,100000", help="how many; several with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    sizes = [int(each) for each in chosen.devices.split(",")]
    took: list[Took] = []
    imports_s: dict[int, float] = {}
    for devices in sizes:
        # the server in a process of its own, so that the client's work is not in its interpreter
        with served(devices) as (port, import_s), multiprocessing.get_context("spawn").Pool(1) as pool:
            imports_s[devices] = import_s
            took += pool.apply(ask, (port, devices, chosen.seed))
    table = Table(title=f"milliseconds, p50 and p99 of {REQUESTS} requests, one after the other")
    table.add_column("question")
    for devices in sizes:
        table.add_column(f"{devices:,} devices", justify="right")
    table.add_row("(import by one CSV, s)", *(f"{imports_s[devices]:.1f}" for devices in sizes))
    for question in QUESTIONS:
        rows = [each for each in took if each.name == question.name]
        table.add_row(question.name, *(f"{each.p50_ms:.1f}  {each.p99_ms:.1f}" for each in rows))
    Console(width=120).print(table)
    if chosen.report:
        document = {"import_s": imports_s, "took": [asdict(each) for each in took]}
        chosen.report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
