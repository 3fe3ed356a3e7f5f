"""Files over the broker: how fast against the broker itself, how fairly, and what else on the line notices of them.

``python -m tests.benchmarks.uploads --what pipe`` sends a file until all of its chunks are durable, and before
and after it as many chunks of the same size through the same broker to a subscriber that forgets them; the reading
again is timed apart. Beside it a file goes by HTTPS, as from a dock, and one to tusd if that is on the path.
``--what dock`` has 54 devices begin at once. ``--what narrow`` uploads a file of 1 GiB over a line of 1 Mbit/s with
one queue of 128 KiB for all, and two minutes into it times readings that go the same way.
"""

import argparse
import asyncio
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import mqtt5
import uvloop

from broker_config import limits, topics, transfer
from broker_config.ids import DeviceId, device_id, server_client_id
from broker_config.telemetry import Batch, decode
from broker_config.topics import Up
from fleet_server.access import ca
from fleet_server.adapters.mqtt import QOS, Link, LinkSettings, connect, security, subscriptions
from fleet_server.evidence.service import CHANNELS
from tests.benchmarks import beside
from tests.benchmarks.broker_figures import Cpu, Dropped
from tests.benchmarks.data import data_of
from tests.faults.tap import TAP_SITE, numbers
from tests.faults.upload_rig import SETTINGS, UploadRig
from tests.fleet_server.evidence.served import Evidence, evidence_in
from tests.fleet_server.evidence.upload_rig import File, Identity, manifest_of
from tests.servers import HOST, Credentials
from tests.uploading import UploadingDevice

MIB: Final = limits.KIB**2
CHUNK_BYTES: Final = limits.CHUNK_BYTES_MAX
WINDOW_BYTES: Final = limits.UPLOAD_WINDOW_BYTES_MAX
DOCK_DEVICES: Final = 54
WAIT_S: Final = 600.0
CAMERA: Final = device_id("cam-1")
LINE_BYTES_S: Final = 125_000.0
SYS_S: Final = 2.5
"""The broker's figures come once a second."""
NARROW_FILE_MIB: Final = 1_024
INTO_S: Final = 120.0
"""Of the upload, before readings are timed."""
LATE_S: Final = 5.0
"""A reading of the last so many seconds may still be on its way."""


@dataclass(frozen=True)
class Line:
    """How a device's process reaches the broker."""

    port: int
    credentials: Credentials
    identity_pem: str
    serial: str

    @property
    def security(self) -> LinkSettings:
        context = security(self.credentials.ca, self.credentials.certificate, self.credentials.key)
        return LinkSettings(HOST, self.port, "", 30, context)


def line_of(evidence: Evidence, device: DeviceId) -> Line:
    identity = evidence.identity(device)
    return Line(evidence.broker.device_port, evidence.broker.device(device), identity.chain_pem, identity.serial)


# the device's process


def upload(
    lines: dict[DeviceId, Line], sizes: Sequence[int], told: "multiprocessing.Queue[tuple[str, float, float]]"
) -> None:
    """Every device sends a file of each size; tells when it was durable, and once all are receipted when that was;
    each time also what was sent again.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    devices = []
    for number, (name, line) in enumerate(lines.items()):
        key = load_pem_private_key(line.credentials.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        identity = Identity(name, line.identity_pem, key, line.serial)
        files = []
        for at, size in enumerate(sizes):
            data = data_of(1000 * number + at, size)
            files.append(
                File(
                    data,
                    manifest_of(data, name, chunk_bytes=CHUNK_BYTES, at_ms=time.time_ns() // 1_000_000),
                    identity,
                )
            )
        devices.append(UploadingDevice(replace(line.security, client_id=name), name, files))

    def tell(device: UploadingDevice, at_s: dict[str, float]) -> None:
        began_s = device.first_chunk_s or 0.0
        told.put((device.device, max(at_s.values()) - began_s, float(device.sent_bytes - sum(sizes))))

    async def all_of_them() -> None:
        running = asyncio.gather(*(device.run() for device in devices))
        for device in devices:
            while len(device.durable_s) < len(sizes):  # noqa: ASYNC110 - a device tells nobody
                await asyncio.sleep(0.005)
            tell(device, device.durable_s)
        await running

    uvloop.run(all_of_them())
    for device in devices:
        tell(device, device.receipted_s)


def publish(line: Line, device: DeviceId, chunks: int) -> None:
    """Only publish, as fast as a window of PUBACKs lets it."""

    async def run() -> None:
        link = await connect(
            replace(line.security, client_id=device),
            filters=[mqtt5.TopicFilter(topics.down_filter(device), max_qos=QOS)],
            will=None,
            clean_start=True,
            on_packets=_forget,
        )
        topic, payload = topics.up(device, Up.CHUNK), data_of(1, CHUNK_BYTES + transfer.HEADER_BYTES)
        for _ in range(chunks):
            while link.outstanding * CHUNK_BYTES >= WINDOW_BYTES:  # noqa: ASYNC110 - a link tells nobody
                await asyncio.sleep(0)
            link.send(link.publish(topic, payload, []))
        while link.outstanding:  # noqa: ASYNC110 - a link tells nobody
            await asyncio.sleep(0.001)
        link.disconnect()
        await link.gone

    uvloop.run(run())


def _forget(link: Link, packets: list[mqtt5.PublishPacket]) -> None:
    link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))


# the server's side


async def _pipe(evidence: Evidence, line: Line, chunks: int) -> float:
    """Bytes a second to a subscriber that forgets them."""
    done, seen, began_s = asyncio.Event(), 0, 0.0

    def take(link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        nonlocal seen, began_s
        began_s = began_s or time.monotonic()
        seen += len(packets)
        _forget(link, packets)
        if seen >= chunks:
            done.set()

    paths = evidence.broker.server()
    settings = LinkSettings(
        HOST,
        evidence.broker.server_port,
        server_client_id(evidence.broker.site, work="evidence"),
        30,
        security(paths.ca, paths.certificate, paths.key),
        session_expiry_s=0,
    )
    link = await connect(
        settings, filters=subscriptions(CHANNELS, 0, 255), will=None, clean_start=True, on_packets=take
    )
    sender = multiprocessing.get_context("spawn").Process(target=publish, args=(line, CAMERA, chunks))
    sender.start()
    async with asyncio.timeout(WAIT_S):
        await done.wait()
    seconds = time.monotonic() - began_s
    link.disconnect()
    await link.gone
    await asyncio.to_thread(sender.join)
    return chunks * CHUNK_BYTES / seconds


async def _uploads(
    evidence: Evidence, lines: dict[DeviceId, Line], sizes: Sequence[int], cpu: Cpu | None = None
) -> list[tuple[str, float, float]]:
    """First of each device when all was durable, then when all was receipted; *cpu* ends with the first."""
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[tuple[str, float, float]] = context.Queue()
    async with evidence.serving():
        sender = context.Process(target=upload, args=(lines, sizes, told))
        sender.start()
        if cpu is not None:
            cpu.begin()
        found: list[tuple[str, float, float]] = []
        deadline_s = time.monotonic() + WAIT_S
        while len(found) < 2 * len(lines):
            try:
                found.append(await asyncio.to_thread(told.get, True, 1.0))
                if cpu is not None and len(found) == len(lines):
                    cpu.end()
            except queue.Empty:
                if not sender.is_alive() or time.monotonic() > deadline_s:
                    raise AssertionError(f"the devices ended with {sender.exitcode}") from None
        await asyncio.to_thread(sender.join)
    return found


def pipe(directory: Path, *, mib: int, rounds: int) -> None:
    """The same bytes both ways, in turn."""
    ratios, size = [], mib * MIB
    for at in range(rounds):
        place = directory / f"pipe-{at}"
        place.mkdir()
        with evidence_in(place) as evidence:
            line, cpus = line_of(evidence, CAMERA), (Cpu(evidence.broker), Cpu(evidence.broker))
            before = _alone(evidence, line, size, cpus[0])
            durable, receipted = uvloop.run(_uploads(evidence, {CAMERA: line}, [size], cpus[1]))
            raw = (before + _alone(evidence, line, size, cpus[0])) / 2
            https = beside.https(place / "office", evidence, size, CHUNK_BYTES)
        tusd = beside.tusd(place / "tusd", size)
        rate = size / durable[1]
        ratios.append(rate / raw)
        print(
            f"{mib} MiB in chunks of {CHUNK_BYTES // limits.KIB} KiB: the pipe alone {raw / MIB:.1f} MiB/s"
            f" ({cpus[0].shown(size)}); until durable {rate / MIB:.1f} MiB/s, {rate / raw:.2f}"
            f" ({cpus[1].shown(size)});"
            f" until receipted {size / receipted[1] / MIB:.1f} MiB/s; sent again {durable[2] / MIB:.1f} MiB;"
            f" by HTTPS until durable {https / MIB:.1f} MiB/s;"
            f" {'no tusd' if tusd is None else f'tusd, no TLS and no sync, {tusd / MIB:.1f} MiB/s'}",
            flush=True,
        )
    print(f"until durable, of the pipe: {median(ratios):.2f} (median of {rounds})")


def _alone(evidence: Evidence, line: Line, size: int, cpu: Cpu) -> float:
    cpu.begin()
    rate = uvloop.run(_pipe(evidence, line, size // CHUNK_BYTES))
    cpu.end()
    return rate


def dock(directory: Path, *, mib: int) -> None:
    """All devices of a station at once."""
    with evidence_in(directory) as evidence:
        dropped, size = Dropped(evidence.broker), mib * MIB
        names = [device_id(f"cam-{number}") for number in range(DOCK_DEVICES)]
        lines = {name: line_of(evidence, name) for name in names}
        dropped.turn_on()

        async def all_at_once() -> list[tuple[str, float, float]]:
            await dropped.listen()
            found = await _uploads(evidence, lines, [size])
            await asyncio.sleep(SYS_S)
            return found

        found = uvloop.run(all_at_once())
    durable_s = [seconds for _, seconds, _ in found[:DOCK_DEVICES]]
    again = sum(again for _, _, again in found[:DOCK_DEVICES])
    assert dropped.said, "the broker told no figures"
    print(
        f"{DOCK_DEVICES} devices, {mib} MiB each: {DOCK_DEVICES * size / MIB / max(durable_s):.1f} MiB/s together;"
        f" the first was through after {min(durable_s):.1f} s, the last after {max(durable_s):.1f} s;"
        f" sent again {again / MIB:.2f} MiB; the broker dropped {max(dropped.said)} messages"
    )


class _Readings:
    """When each of the witness's numbers was heard at the broker."""

    def __init__(self) -> None:
        self.heard_s: dict[tuple[str, int], float] = {}

    def take(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        now_s = time.monotonic()
        _forget(link, packets)
        for packet in packets:
            record = decode(bytes(packet.payload), packet.content_type)
            if isinstance(record, Batch):
                for n in numbers(record)[-1:]:
                    self.heard_s.setdefault((record.stream, n), now_s)


def narrow(directory: Path, *, seconds: float) -> None:
    """Readings on a line that a file fills."""
    settings = replace(SETTINGS, link_bytes_s=0, agent_link_bytes_s=LINE_BYTES_S, every_s=0.25, seal_s=0.25)
    with UploadRig(directory, settings) as rig:
        rig.run()
        readings = _Readings()
        paths = rig.broker.credentials("_bench", _issued(rig))
        link_settings = LinkSettings(
            HOST,
            rig.broker.server_port,
            f"{server_client_id(TAP_SITE, work='evidence')}-b",
            30,
            security(paths.ca, paths.certificate, paths.key),
            session_expiry_s=0,
        )
        rig.background.call(_listen(link_settings, readings))
        for name, uploading in (("quiet", False), ("during an upload", True)):
            if uploading:
                rig.make(NARROW_FILE_MIB * MIB)
                rig.wait(
                    lambda: rig.upload_tap.window_bytes > 0,
                    "the upload has begun",
                    rig.agent,
                    rig.server,
                    seconds_max=WAIT_S,
                )
                time.sleep(INTO_S)
            began_s = time.monotonic()
            time.sleep(seconds)
            until_s = time.monotonic() - LATE_S
            heard_s = readings.heard_s
            delays = sorted(
                heard_s[each.stream, each.n] - each.at_s
                for each in rig.emitted()
                if began_s < each.at_s < until_s and (each.stream, each.n) in heard_s
            )
            at = {share: 1000 * delays[int(share * (len(delays) - 1))] for share in (0.5, 0.99, 1.0)}
            print(
                f"{name}: {len(delays)} readings from the sensor to the broker, p50 {at[0.5]:.0f} ms,"
                f" p99 {at[0.99]:.0f} ms, max {at[1.0]:.0f} ms; window {rig.upload_tap.window_bytes // 1024} KiB,"
                f" {rig.upload_tap.heard().bytes / MIB:.1f} MiB of chunks"
            )


def _issued(rig: UploadRig) -> ca.Issued:
    return ca.issue_server(rig.broker.server_ca, TAP_SITE, now=datetime.now(UTC))


async def _listen(settings: LinkSettings, readings: _Readings) -> None:
    filters = [mqtt5.TopicFilter("ff/1/+/+/up/telemetry", max_qos=QOS)]
    await connect(settings, filters=filters, will=None, clean_start=True, on_packets=readings.take)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["pipe", "dock", "narrow"], default="pipe")
    parser.add_argument("--mib", type=int, default=192, help="pipe: of the file; dock: of each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0, help="narrow: for how long, without and with")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fieldfleet-bench-", ignore_cleanup_errors=True) as scratch:
        match told.what:
            case "pipe":
                pipe(Path(scratch), mib=told.mib, rounds=told.rounds)
            case "dock":
                dock(Path(scratch), mib=told.mib)
            case _:
                narrow(Path(scratch) / "rig", seconds=told.seconds)


if __name__ == "__main__":
    main()
