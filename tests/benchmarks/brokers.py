"""The embedded broker against Mosquitto: ``python -m tests.benchmarks.brokers``.

Each is a program of its own over the same two TLS listeners, with the product's own certificates and policy. Devices
fill the session of a server that is away (taken), the server comes back and drains it as a null subscriber that
acknowledges and forgets (delivered); then many devices connect and say nothing (memory of an idle session). A
message is a small batch of 200 bytes with its two user properties, at QoS 1.
"""

import argparse
import asyncio
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import mqtt5

from broker_config import topics
from broker_config.ids import device_id
from broker_config.topics import Up, up
from fleet_server.adapters.mqtt import INGESTED, QOS, Link, LinkSettings, connect, security, subscriptions
from tests.servers import HOST, Mosquitto, accepts, lay_out, wait_until

DEVICES: Final = 20
WINDOW: Final = 200
"""Publications of one device without a PUBACK."""
PAYLOAD: Final = b"x" * 200
SESSION_S: Final = 3_600
WAIT_S: Final = 300.0
PAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one broker; ``cpu_us``: the broker's own time for a message, taken and delivered."""

    broker: str
    taken_s: float
    delivered_s: float
    cpu_us: float
    start_rss_kib: int
    idle_session_kib: float


@contextmanager
def running(name: str, site: Mosquitto) -> Iterator[int]:
    """A broker's process id."""
    if name == "mosquitto":
        site.start()
        try:
            yield site.pid
        finally:
            site.kill()
        return
    ports = ["--device-port", str(site.device_port), "--server-port", str(site.server_port)]
    command = [sys.executable, "-m", "broker_config.embedded", "--directory", str(site.directory), *ports]
    with subprocess.Popen([*command, "--device-host", HOST], stderr=subprocess.DEVNULL) as program:
        try:
            wait_until(lambda: accepts(site.device_port) and accepts(site.server_port), "the embedded broker accepts")
            yield program.pid
        finally:
            program.terminate()


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _forget(link: Link, packets: list[mqtt5.PublishPacket]) -> None:
    link.send(link.acknowledge([p.packet_id for p in packets if p.packet_id is not None]))


def _server_settings(site: Mosquitto) -> LinkSettings:
    own = site.server()
    return LinkSettings(
        HOST, site.server_port, "_null", 60, security(own.ca, own.certificate, own.key), session_expiry_s=SESSION_S
    )


async def _device(site: Mosquitto, number: int) -> tuple[Link, str]:
    name = device_id(f"bench-{number}")
    own = site.device(name)
    context: ssl.SSLContext = security(own.ca, own.certificate, own.key)
    wanted = mqtt5.TopicFilter(topics.down_filter(name), max_qos=QOS)
    link = await connect(
        LinkSettings(HOST, site.device_port, name, 60, context, session_expiry_s=0),
        filters=[wanted],
        will=None,
        clean_start=True,
        on_packets=_forget,
    )
    return link, up(name, Up.TELEMETRY)


async def fill(site: Mosquitto, messages: int) -> float:
    """Let devices publish *messages* to a session whose server is away; seconds until all are acknowledged."""
    absent = await connect(
        _server_settings(site),
        filters=subscriptions(INGESTED, 0, 255),
        will=None,
        clean_start=True,
        on_packets=_forget,
    )
    absent.disconnect()
    await absent.gone
    devices = [await _device(site, number) for number in range(DEVICES)]
    started_s = time.perf_counter()

    async def publish(link: Link, topic: str) -> None:
        for number in range(messages // DEVICES):
            while link.outstanding >= WINDOW:  # noqa: ASYNC110 - a link tells nobody
                await asyncio.sleep(0)
            link.send(link.publish(topic, PAYLOAD, [("key", f"power/0123456789abcdef/{number}"), ("last", "9")]))
        while link.outstanding:  # noqa: ASYNC110 - a link tells nobody
            await asyncio.sleep(0.001)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(publish(*device) for device in devices))
    seconds = time.perf_counter() - started_s
    for link, _ in devices:
        link.disconnect()
        await link.gone
    return seconds


async def drain(site: Mosquitto, messages: int) -> float:
    """Take what :func:`fill` left, acknowledge and forget it; seconds."""
    done, seen = asyncio.Event(), 0

    def take(link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        nonlocal seen
        seen += len(packets)
        _forget(link, packets)
        if seen >= messages:
            done.set()

    started_s = time.perf_counter()
    link = await connect(
        _server_settings(site), filters=subscriptions(INGESTED, 0, 255), will=None, clean_start=False, on_packets=take
    )
    async with asyncio.timeout(WAIT_S):
        await done.wait()
    seconds = time.perf_counter() - started_s
    link.disconnect()
    await link.gone
    return seconds


async def idle(site: Mosquitto, pid: int, sessions: int) -> float:
    """KiB that one silent, connected device costs the broker."""
    before_kib = rss_kib(pid)
    links = [(await _device(site, number))[0] for number in range(1_000, 1_000 + sessions)]
    cost_kib = (rss_kib(pid) - before_kib) / sessions
    for link in links:
        link.close("done")
    return cost_kib


def measure(name: str, directory: Path, *, messages: int, sessions: int) -> Figures:
    """One broker from its start to its end."""
    site = lay_out(directory, persistent=False)
    with running(name, site) as pid:
        start_kib = rss_kib(pid)
        idle_kib = asyncio.run(idle(site, pid, sessions))
        before_s = cpu_s(pid)
        fill_s = asyncio.run(fill(site, messages))
        drain_s = asyncio.run(drain(site, messages))
        spent_s = cpu_s(pid) - before_s
    return Figures(name, messages / fill_s, messages / drain_s, spent_s / messages * 1e6, start_kib, idle_kib)


def main() -> None:
    """Each broker in turn, a few rounds, and the ratios of the rounds' best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {options.messages} messages, {options.sessions} idle sessions")
    best: dict[str, Figures] = {}
    for _ in range(options.rounds):
        for name in ("mosquitto", "embedded"):
            with tempfile.TemporaryDirectory() as directory:
                figures = measure(
                    name, Path(directory) / "broker", messages=options.messages, sessions=options.sessions
                )
            print(
                f"{name:10} taken {figures.taken_s:7.0f}/s  delivered {figures.delivered_s:7.0f}/s  "
                f"{figures.cpu_us:5.0f} us/message  RSS {figures.start_rss_kib / PAGE:5.1f} MiB at start, "
                f"{figures.idle_session_kib:5.1f} KiB an idle session"
            )
            if name not in best or figures.delivered_s > best[name].delivered_s:
                best[name] = figures
    ours, theirs = best["embedded"], best["mosquitto"]
    print(
        f"embedded / mosquitto: taken {ours.taken_s / theirs.taken_s:.2f}, "
        f"delivered {ours.delivered_s / theirs.delivered_s:.2f}, processor {ours.cpu_us / theirs.cpu_us:.2f}, "
        f"idle session {ours.idle_session_kib / theirs.idle_session_kib:.2f}"
    )


if __name__ == "__main__":
    main()
