"""How long pages take with a whole bureau's devices in memory: ``python -m tests.benchmarks.pages --devices 2600``.

Without a socket and with nobody else there: what the server itself does for one request, session and all.
"""

import argparse
import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx

from broker_config.ids import DeviceId
from fleet_server.access.visits import Visits
from fleet_server.api.app import create_app
from fleet_server.pages.app import Beside, add_pages
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from tests.fleet_server.fleet import NOW, T0, TOKEN, Arrival, Fleet, birth, cpu, record

STATIONS = 23
POSTS = 20
ARRIVALS_A_COMMIT = 400
BATCHES = 120
"""Of the one device whose page has charts: ten minutes of a second each."""
ORIGIN = "http://127.0.0.1:8470"
PATHS = ("/", "/nodes/hq", "/nodes/station-3", "/devices", "/devices/dev-0000", "/evidence", "/rollouts", "/alerts")


def bureau(path: Path, devices: int) -> Fleet:
    """A centre, its stations and posts; devices spread over the stations, each heard of."""
    fleet = Fleet(path)
    nodes = [OrgNode("hq", NodeKind.CENTRE, "Command centre")]
    nodes += [OrgNode(f"station-{n}", NodeKind.STATION, f"Station {n}", "hq") for n in range(STATIONS)]
    nodes += [OrgNode(f"post-{n}", NodeKind.POST, f"Post {n}", f"station-{n % STATIONS}") for n in range(POSTS)]
    fleet.registry.import_nodes(nodes, now_ms=T0, dry_run=False)
    names = [DeviceId(f"dev-{n:04}") for n in range(devices)]
    said = [Registration(name, "host", node=f"station-{n % STATIONS}") for n, name in enumerate(names)]
    fleet.registry.import_devices(said, now_ms=T0, dry_run=False)
    arrivals: list[Arrival] = []
    for name in names:
        arrivals += [birth(name), record(name, cpu(1, t0=T0))]
        if len(arrivals) >= ARRIVALS_A_COMMIT:
            fleet.arrive(*arrivals)
            arrivals = []
    more = [record(names[0], cpu(seq, t0=T0 + 5_000 * (seq - 1))) for seq in range(2, BATCHES + 1)]
    fleet.arrive(*arrivals, *more)
    return fleet


async def times_ms(fleet: Fleet, rounds: int) -> dict[str, list[float]]:
    """Of each path."""
    ports = replace(fleet.ports, visits=Visits(fleet.people))
    app = create_app(ports, clock=lambda: NOW)
    add_pages(app, ports, Beside(), clock=lambda: NOW)
    found: dict[str, list[float]] = {path: [] for path in PATHS}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
        await client.post("/sign-in", data={"token": TOKEN}, headers={"Origin": ORIGIN})
        for _ in range(rounds):
            for path, times in found.items():
                began_s = time.perf_counter()
                answer = await client.get(path)
                times.append(1_000 * (time.perf_counter() - began_s))
                assert answer.status_code == 200, path
    return found


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_600)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldfleet-pages-") as scratch:
        fleet = bureau(Path(scratch) / "store.db", chosen.devices)
        for path, times in asyncio.run(times_ms(fleet, chosen.rounds)).items():
            print(f"{path:20} median {median(times):5.1f} ms, at most {max(times):5.1f} ms")
        fleet.store.close()


if __name__ == "__main__":
    main()
