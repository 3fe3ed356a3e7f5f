"""``python -m tests.benchmarks.hotplug``: what an unplugged instrument costs an agent, and how soon it works again.

A real agent with its class's shipped profile at its own cadences, a real Mosquitto, and instruments behind pseudo
terminals with a symbolic link to each, as udev's are. A cable is pulled, stays out, and is put in again.

Example: python -m tests.benchmarks.hotplug --classes in_car_terminal --away-s 30 --rounds 5
"""

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from broker_config.telemetry import JOURNAL, Batch, Events
from edge_agent import config
from firmware_bridge.peripherals.play import Cable
from tests.edge_agent import rig as rigs
from tests.edge_agent.test_profiles import CABLES, address_in, lay_out, plugged
from tests.servers import mosquitto

SETTLE_S: Final = 1.0
WAIT_S: Final = 90.0
"""The longest cadence is half a minute."""


@dataclass(frozen=True, slots=True)
class Plugging:
    """Of one time. ``fault_s``: from the pull to the moment that the journal has for the fault of the last stream;
    ``core_share``: of one core, while it was out; ``again_s``: from plugging in to the moment of the row in which the
    last of its streams reads whole again.
    """

    fault_s: float
    core_share: float
    again_s: float


async def measured(directory: Path, name: str, address: str, *, away_s: float, rounds: int) -> list[Plugging]:
    """Pull the cable *address* of a device of class *name* so many times."""
    with mosquitto(directory / "broker") as broker:
        (directory / "device").mkdir()
        rig = lay_out(directory / "device", name, broker=broker)
        at = address_in(rig.directory, address)
        streams = {wire.stream for wire in config.load(rig.config).profile.wires if at in repr(wire.options)}
        async with plugged(rig.directory, name) as cables, rigs.server(broker) as server:
            with rigs.agent(rig) as process:
                await server.until(lambda: streams <= set(whole_since(server, streams, 0)), "whole readings", WAIT_S)
                out = [await _once(server, process.pid, cables[address], streams, away_s) for _ in range(rounds)]
                assert await rigs.stop(process) == 0
    return out


async def _once(server: rigs.Server, pid: int, cable: Cable, streams: set[str], away_s: float) -> Plugging:
    pulled_ms = _now_ms()
    cable.unplug()
    await server.until(lambda: streams <= set(faults(server, pulled_ms)), "the faults", WAIT_S)
    await asyncio.sleep(SETTLE_S)
    share = await _core_share(psutil.Process(pid), away_s)
    plugged_ms = _now_ms()
    cable.plug()
    await server.until(
        lambda: streams <= set(whole_since(server, streams, plugged_ms)), "whole readings again", WAIT_S
    )
    fault_ms = max(faults(server, pulled_ms)[stream] for stream in streams)
    again_ms = max(whole_since(server, streams, plugged_ms)[stream] for stream in streams)
    return Plugging((fault_ms - pulled_ms) / 1000, share, (again_ms - plugged_ms) / 1000)


async def _core_share(process: psutil.Process, seconds: float) -> float:
    before, began_s = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after, took_s = process.cpu_times(), time.monotonic() - began_s
    return (after.user + after.system - before.user - before.system) / took_s


def whole_since(server: rigs.Server, streams: set[str], from_ms: int) -> dict[str, int]:
    """Of *streams* those with a row without null at or after *from_ms*: the time of the first, in ms since the epoch
    by the device's clock, which is this machine's.
    """
    found: dict[str, int] = {}
    for stream in streams:
        for record in server.decoded(stream):
            assert isinstance(record, Batch)
            for dt, values in zip(record.dt, record.rows, strict=True):
                if record.t0 + dt >= from_ms and None not in values:
                    found[stream] = min(found.get(stream, record.t0 + dt), record.t0 + dt)
    return found


def faults(server: rigs.Server, from_ms: int) -> dict[object, int]:
    """Stream -> when the first fault of it since *from_ms* was."""
    found: dict[object, int] = {}
    for record in server.decoded(JOURNAL):
        if isinstance(record, Events):
            for dt, event in zip(record.dt, record.events, strict=True):
                if event.kind == "driver.fault" and record.t0 + dt >= from_ms:
                    found.setdefault(event.data["stream"], record.t0 + dt)
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", choices=list(CABLES), default=list(CABLES))
    parser.add_argument("--cable", default="", help="only the one of that name")
    parser.add_argument("--away-s", type=float, default=20.0, help="for so long the agent's processor time is taken")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    print(f"{'class':<20}{'cable':<14}{'fault after':>14}{'of a core':>12}{'works again':>14}")
    for name in chosen.classes:
        for address in (each for each in CABLES[name] if chosen.cable in {"", each}):
            with tempfile.TemporaryDirectory(prefix="fieldfleet-hotplug-") as scratch:
                work = measured(Path(scratch), name, address, away_s=chosen.away_s, rounds=chosen.rounds)
                for each in asyncio.run(work):
                    print(
                        f"{name:<20}{address:<14}{each.fault_s:>12.2f} s{100 * each.core_share:>10.2f} %"
                        f"{each.again_s:>12.2f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
