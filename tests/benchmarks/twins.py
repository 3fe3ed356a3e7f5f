"""Twins: how long a configuration takes to all devices, and what the API does meanwhile.

``python -m tests.benchmarks.twins --what publish --devices 100000``: so many registered devices, five changes of the
fleet's layer; how long until what is desired of each is committed, and the API's answers meanwhile, asked one after
the other from another process.

``--what confirm --devices 2600``: so many simulated devices with sessions of their own over mutual TLS; Mosquitto,
``fleet-server`` and its signer as processes; from the change of the fleet's layer until the server has committed what
each reports, and has told it so.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, TypeAlias

import httpx
import uvicorn
import uvloop

from broker_config.mac import Purpose
from fleet_server import site as plan
from fleet_server.access.keys import derive
from fleet_server.api.app import create_app
from fleet_server.cli.demo import rig as demo
from fleet_server.cli.demo.fleet import Broker
from fleet_server.cli.demo.programs import Part, Programs, running
from fleet_server.cli.server import CommandError, Json, Server, connect
from fleet_server.cli.simulate import readings, sessions
from fleet_server.cli.simulate import rig as rigs
from fleet_server.cli.simulate.device import Device, Habits, Keys
from fleet_server.cli.simulate.twin import Confirmed as Confirmation
from fleet_server.telemetry import reconnects
from tests.benchmarks import registry
from tests.benchmarks.registry import name_of
from tests.fleet_server.fleet import NOW, TOKEN, Fleet
from tests.servers import HOST, accepts, free_port, wait_until

LAYER: Final = "/v1/config/layers/fleet"
QUIET_S: Final = 5.0
CHANGES: Final = 5
"""One after the other: of fewer there are not enough calls for a p99."""
START_S_MAX: Final = 60.0
CONFIRM_S_MAX: Final = 120.0
CONNECT_RATE: Final = 200
EVERY_S: Final = 10.0
RECEIPT_WAIT_S: Final = 15.0


OVERALL: Final = "the API, all of these"
Asked: TypeAlias = dict[str, tuple[int, float, float]]
"""Sort of request -> (how many, p50 and p99 in ms)."""


@dataclass(frozen=True, slots=True)
class Published:
    """``seconds``: of one change. ``quiet``, ``meanwhile``: of the API before and while it was published, of each
    sort of request.
    """

    devices: int
    seconds: float
    quiet: Asked
    meanwhile: Asked


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Seconds from the change until the server's word came back that it is in force, over all devices."""

    devices: int
    confirmed: int
    p50_s: float
    p99_s: float
    most_s: float


def percentile(values: list[float], share: float) -> float:
    """Of values that need not be sorted; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


# Publish ------------------------------------------------------------------------------------------------------------


def publish(devices: int) -> Published:
    """Changes for so many twins."""
    with _served(devices) as (port, fleet), _asking(port, devices) as asked:
        stop = threading.Event()
        thread = threading.Thread(target=fleet.composer.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: fleet.composer.idle, "what it begins with is done", seconds_max=CONFIRM_S_MAX)
            asked()
            time.sleep(QUIET_S)
            quiet, began_s = asked(), time.perf_counter()
            for change in range(CHANGES):
                _put(port, keep_alive_s=45 + change)
                wait_until(lambda: fleet.composer.idle, "all is published", seconds_max=10 * CONFIRM_S_MAX)
            seconds, meanwhile = (time.perf_counter() - began_s) / CHANGES, asked()
        finally:
            stop.set()
            fleet.composer.wake()
            thread.join()
    return Published(devices, seconds, quiet, meanwhile)


@contextmanager
def _served(devices: int) -> Iterator[tuple[int, Fleet]]:
    """The API of so many registered devices."""
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch:
        fleet, port = Fleet(Path(scratch) / "store.db"), free_port()
        app = create_app(fleet.ports, clock=lambda: NOW)
        server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_until(lambda: accepts(port), "the API accepts")
            registry.register(port, devices)
            yield port, fleet
        finally:
            server.should_exit = True
            thread.join()
            fleet.store.close()


def _put(port: int, **settings: object) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "If-Match": "*"}
    body = {"settings": settings}
    httpx.put(f"http://{HOST}:{port}{LAYER}", json=body, headers=headers, timeout=CONFIRM_S_MAX).raise_for_status()


@contextmanager
def _asking(port: int, devices: int) -> Iterator[Callable[[], Asked]]:
    """Another process that asks one thing after the other; a call tells what it took since the last one."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_ask, args=(port, devices, theirs), daemon=True)
    process.start()

    def asked() -> Asked:
        ours.send(True)
        taken: dict[str, list[float]] = ours.recv()
        taken[OVERALL] = [ms for sort in taken.values() for ms in sort]
        return {sort: (len(ms), percentile(ms, 0.5), percentile(ms, 0.99)) for sort, ms in taken.items()}

    try:
        yield asked
    finally:
        ours.send(False)
        process.join()


def _ask(port: int, devices: int, theirs: "Connection[dict[str, list[float]], bool]") -> None:
    """Until it is told to end: a twin, a page of devices, and a change of one device's own settings, in turn."""
    rng = random.Random(1)
    taken: dict[str, list[float]] = {}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    changes = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
    with httpx.Client(base_url=f"http://{HOST}:{port}", headers=headers, timeout=CONFIRM_S_MAX) as client:
        for at in itertools.count():
            device = name_of(rng.randrange(devices))
            began_s = time.perf_counter()
            match at % 10:
                case 0 | 4 | 7:
                    sort = "a device is set"
                    body = json.dumps({"broker_port": rng.randrange(1, 65_536)})
                    answer = client.patch(f"/v1/twins/{device}", content=body, headers=changes)
                case 1 | 2 | 3:
                    sort = "a list of devices"
                    answer = client.get(f"/v1/devices?text={device[:7]}")
                case _:
                    sort = "a twin"
                    answer = client.get(f"/v1/twins/{device}")
            answer.raise_for_status()
            taken.setdefault(sort, []).append(1000 * (time.perf_counter() - began_s))
            if theirs.poll():
                if not theirs.recv():
                    return
                theirs.send(taken)
                taken = {}


# Confirm ------------------------------------------------------------------------------------------------------------


def confirm(devices: int, broker: Broker) -> Confirmed:
    """One change for so many sessions."""
    rigs.sessions_fit()
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-") as scratch, running() as programs:
        rig = rigs.build(
            Path(scratch) / "site", broker=broker, gateway=False, reconnects_a_second_max=None, now=datetime.now(UTC)
        )
        with connect(rig.place) as server:
            _start(rig, programs, server)
            fleet = _fleet(rig, devices)
            waits_s = uvloop.run(_confirmed(fleet, server))
    return Confirmed(
        devices,
        len(waits_s),
        percentile(waits_s, 0.5),
        percentile(waits_s, 0.99),
        max(waits_s, default=0.0),
    )


def _start(rig: rigs.Rig, programs: Programs, server: Server) -> None:
    assert rig.broker is not None
    assert rig.server is not None
    programs.start(rig.broker).wait_until(lambda: demo.accepts(rig.site.server_port), seconds_max=START_S_MAX)
    config = rig.directory / plan.SERVER_CONFIG
    command = [sys.executable, "-m", "fleet_server", "signer", "--config", str(config)]
    log = rig.directory / "signer.log"
    programs.start(Part("signer", command, config.parent, log, START_S_MAX, {}))
    programs.start(rig.server).wait_until(lambda: _is_healthy(server), seconds_max=START_S_MAX)


def _is_healthy(server: Server) -> bool:
    try:
        return server.get("/v1/health") == {"status": "ok"}
    except CommandError:
        return False


def _fleet(rig: rigs.Rig, devices: int) -> sessions.Sessions:
    names = rigs.names(devices)
    certificates = rigs.mint(rig, names, now=datetime.now(UTC))
    rng = random.Random(1)
    habits = Habits(readings.signals("host", ("network",)), EVERY_S, 1, "host", receipt_wait_s=RECEIPT_WAIT_S)
    master, begin = rig.master(), sessions.moment()
    made = [
        Device(
            name,
            habits,
            Keys(derive(master, Purpose.RECEIPT, name), derive(master, Purpose.TIME, name)),
            rng,
            begin,
            life=secrets.token_hex(8),
        )
        for name in names
    ]
    spread_s = reconnects.spread_ms(devices, a_second_max=CONNECT_RATE) / 1000
    for device in made:
        device.switch_on(sessions.moment().s + rng.uniform(0.0, spread_s))
    endpoint = sessions.Endpoint(
        rig.host,
        rig.site.device_port,
        habits.keep_alive_s,
        lambda at: rigs.device_security(rig, certificates[at]),
    )
    return sessions.Sessions(made, endpoint, connect_rate=CONNECT_RATE, rng=rng)


async def _confirmed(fleet: sessions.Sessions, server: Server) -> list[float]:
    """Seconds of each that confirmed."""
    everybody = fleet.devices
    await fleet.run(_or_after(CONFIRM_S_MAX, lambda: fleet.held == len(everybody)))
    await fleet.run(_or_after(CONFIRM_S_MAX, lambda: all(each.twin.next_s is None for each in everybody)))
    loop, began_s = asyncio.get_running_loop(), time.monotonic()
    body: Json = {"settings": {"keep_alive_s": 45}}
    headers = {"If-None-Match": "*"}
    putting = loop.run_in_executor(None, lambda: server.send("PUT", LAYER, json=body, headers=headers))
    await fleet.run(_or_after(CONFIRM_S_MAX, lambda: all(_newest(each) for each in everybody)))
    await putting
    waits_s = [newest.s - began_s for each in everybody if (newest := _newest(each)) is not None]
    await fleet.leave()
    return waits_s


def _newest(device: Device) -> Confirmation | None:
    return next((each for each in reversed(device.twin.confirmed) if each.version), None)


def _or_after(seconds: float, ready: Callable[[], bool]) -> Callable[[], bool]:
    until_s = time.monotonic() + seconds
    return lambda: time.monotonic() > until_s or ready()


def main() -> None:
    """Run, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("publish", "confirm"), required=True)
    parser.add_argument("--devices", type=int, default=2_600)
    parser.add_argument("--broker", type=Broker, choices=list(Broker), default=Broker.MOSQUITTO)
    parser.add_argument("--report", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    if chosen.what == "publish":
        found: Published | Confirmed = publish(chosen.devices)
    else:
        found = confirm(chosen.devices, chosen.broker)
    document = {"load": os.getloadavg(), **asdict(found)}
    print(json.dumps(document, indent=1))
    if chosen.report:
        chosen.report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
