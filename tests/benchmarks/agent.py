"""What an agent takes of its host: memory, processor, flash; four host streams over TLS to a real Mosquitto."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.servers import HOST, accepts, free_port, program, wait_until

DAY_S: Final = 86_400
SETTLE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class AgentCost:
    """Measured over ``seconds`` after the agent had settled."""

    seconds: float
    rss_bytes: int
    pss_bytes: int
    core_share: float
    written_bytes_a_day: int


def run(directory: Path, *, seconds: float) -> AgentCost:
    """An agent at its shipped profile's cadence, a server that receipts it, a broker between them."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    site = directory / "site"
    ports = [free_port() for _ in range(3)]
    fleet_server = [sys.executable, "-m", "fleet_server"]
    subprocess.run(
        [
            *fleet_server, "init", "--dir", str(site), "--host", HOST, "--broker-user", "root",
            "--device-port", str(ports[0]), "--server-port", str(ports[1]), "--api-port", str(ports[2]),
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    subprocess.run(
        [*fleet_server, "add-device", "bench-1", "--dir", str(site)], check=True, stdout=subprocess.DEVNULL
    )
    with contextlib.ExitStack() as stack:
        for command in (
            [program("mosquitto") or "mosquitto", "-c", str(site / "broker" / "mosquitto.conf")],
            [*fleet_server, "run", "--config", str(site / "server" / "fleet-server.toml")],
        ):
            stack.enter_context(_running(command, site / "broker"))
        wait_until(lambda: all(accepts(port) for port in ports), "broker and server listen", 30)
        agent = stack.enter_context(
            _running(
                [
                    sys.executable,
                    "-m",
                    "edge_agent",
                    "run",
                    "--config",
                    str(site / "devices" / "bench-1" / "agent.toml"),
                ],
                site,
            )
        )
        return _measured(psutil.Process(agent.pid), seconds)


def _measured(process: psutil.Process, seconds: float) -> AgentCost:
    wait_until(lambda: bool(process.net_connections()), "the agent is connected")
    time.sleep(SETTLE_S)
    before, written, started_s = process.cpu_times(), process.io_counters().write_bytes, time.monotonic()
    time.sleep(seconds)
    after, took_s = process.cpu_times(), time.monotonic() - started_s
    used_s = after.user + after.system - before.user - before.system
    memory = process.memory_full_info()
    written = process.io_counters().write_bytes - written
    return AgentCost(took_s, memory.rss, memory.pss, used_s / took_s, int(written / took_s * DAY_S))


@contextlib.contextmanager
def _running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
