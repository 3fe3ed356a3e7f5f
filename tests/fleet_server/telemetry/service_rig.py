"""A service over a real store, a device over a real broker, and a broker that says what a real one would not."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Self

import mqtt5

from broker_config import topics
from broker_config.ids import DeviceId, server_client_id
from broker_config.messages import Receipt, Time, decode
from fleet_server.access.keys import derive
from fleet_server.adapters.mqtt import Link, LinkSettings, connect, security
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.telemetry.admission import KnownStreams
from fleet_server.telemetry.ingest import IngestSettings
from fleet_server.telemetry.service import Service, ServiceSettings
from tests.fleet_server.fleet import Arrival
from tests.fleet_server.telemetry.messages import CAR, KNOWN, MASTER
from tests.servers import HOST, Mosquitto

WAIT_S: Final = 15.0
POLL_S: Final = 0.01
SETTINGS: Final = ServiceSettings(
    shards=(0, 255),
    lease_ttl_s=5.0,
    group_wait_ms=5,
    seal_every_s=3_600,
    seal_records_max=1_000,
    ingest=IngestSettings(
        group_records_max=1, receipt_every=1, receipt_linger_ms=5, quarantine_bytes_max=10_000, group_records_min=1
    ),
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def until(ready: Callable[[], bool], what: str) -> None:
    """Poll until *ready*. Raises TimeoutError that names *what*."""
    deadline_s = time.monotonic() + WAIT_S
    while not ready():
        if time.monotonic() > deadline_s:
            raise TimeoutError(what)
        await asyncio.sleep(POLL_S)


class Gate:
    """A store's failpoint: whoever commits waits here while it is shut, and fails while *error* is set."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.error: Callable[[], BaseException] | None = None
        self.step = "commit.begin"
        self.tries = 0

    def __call__(self, step: str) -> None:
        if step != self.step:
            return
        self.tries += 1
        self.reached.set()
        assert self.open.wait(WAIT_S), "nobody opened the gate"
        if self.error is not None:
            raise self.error()


class Running:
    """A service at work."""

    def __init__(
        self,
        path: Path,
        link: LinkSettings,
        *,
        owner: str = "first",
        settings: ServiceSettings = SETTINGS,
        known: KnownStreams | None = KNOWN,
    ) -> None:
        self.gate = Gate()
        self.store = SqliteStore(path, now_ms=now_ms(), failpoint=self.gate)
        self.stop = asyncio.Event()
        self.service = Service(
            settings,
            link,
            self.store,
            mac_key=lambda purpose, device, _kid: derive(MASTER, purpose, device),
            owner=owner,
            now_ms=now_ms,
            rng=random.Random(1),
            known=known,
        )
        self.task = asyncio.create_task(self.service.run(self.stop))

    async def linked(self) -> None:
        await until(lambda: self.task.done() or self._is_linked(), "the service is linked")
        assert not self.task.done(), self.task

    def _is_linked(self) -> bool:
        return self.service.started.is_set() and self.service.facts().connected

    async def end(self) -> None:
        """Stop it; whatever it ended with is no matter here."""
        self.stop.set()
        self.gate.error = None
        self.gate.open.set()
        await asyncio.wait([self.task], timeout=WAIT_S)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.store.close()


@contextlib.asynccontextmanager
async def serving(
    path: Path,
    link: LinkSettings,
    *,
    owner: str = "first",
    settings: ServiceSettings = SETTINGS,
    known: KnownStreams | None = KNOWN,
) -> AsyncIterator[Running]:
    """A service, stopped with the block. *known* None: the streams of every device class."""
    running = Running(path, link, owner=owner, settings=settings, known=known)
    try:
        yield running
    finally:
        await running.end()


def server_link(broker: Mosquitto) -> LinkSettings:
    """How the server connects."""
    paths = broker.server()
    context = security(paths.ca, paths.certificate, paths.key)
    return LinkSettings(HOST, broker.server_port, server_client_id(broker.site), 30, context)


class Device:
    """One device's connection: what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Receipt | Time] = []
        self.commands: list[bytes] = []
        self._link: Link

    async def connect(self, broker: Mosquitto, device: DeviceId = CAR) -> None:
        paths = broker.device(device)
        context = security(paths.ca, paths.certificate, paths.key)
        self._link = await connect(
            LinkSettings(HOST, broker.device_port, device, 30, context, session_expiry_s=60),
            filters=[mqtt5.TopicFilter(topics.down_filter(device), max_qos=mqtt5.QoS.AT_LEAST_ONCE)],
            will=None,
            clean_start=True,
            on_packets=self._on_packets,
        )

    def _on_packets(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        for packet in packets:
            if packet.topic.endswith(topics.Down.COMMAND):
                self.commands.append(bytes(packet.payload or b""))
                continue
            timely = packet.topic.endswith(topics.Down.TIME)
            self.told.append(decode(packet.payload, Time) if timely else decode(packet.payload, Receipt))
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))

    def say(self, *arrivals: Arrival) -> None:
        for one in arrivals:
            packet = mqtt5.PublishPacket(
                one.topic,
                one.payload,
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                packet_id=self._link.take_id(),
                content_type=one.content_type,
                user_properties=one.user_properties,
            )
            self._link.send(packet.write())

    @property
    def unacknowledged(self) -> int:
        """Messages that the broker has not taken yet."""
        return self._link.outstanding

    @property
    def receipts(self) -> list[Receipt]:
        return [told for told in self.told if isinstance(told, Receipt)]

    @property
    def times(self) -> list[Time]:
        return [told for told in self.told if isinstance(told, Time)]

    async def receipted(self, up_to: int) -> None:
        await until(lambda: any(told.up_to >= up_to for told in self.receipts), f"a receipt up to {up_to}")

    async def leave(self) -> None:
        self._link.disconnect()
        await self._link.gone


class Scripted:
    """A broker of one client, without security, that *on_packet* makes say anything.

    ``heard``: each connection's packets, in order.
    """

    def __init__(self, on_packet: Callable[["Scripted", int, mqtt5.Packet], bytes]) -> None:
        self.heard: list[list[mqtt5.Packet]] = []
        self._on_packet = on_packet
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def link(self) -> LinkSettings:
        """How to connect to it."""
        return LinkSettings(HOST, self._server.sockets[0].getsockname()[1], "scripted", 30, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, buffer = len(self.heard), b""
        self.heard.append([])
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while data := await reader.read(65_536):
                buffer += data
                while buffer:
                    try:
                        packet, size = mqtt5.read(memoryview(buffer))
                    except IndexError:
                        break
                    buffer = buffer[size:]
                    self.heard[connection].append(packet)
                    writer.write(self._on_packet(self, connection, packet))
                await writer.drain()
