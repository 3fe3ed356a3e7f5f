"""Ingest, stored and receipted, against what the same broker delivers to a subscriber that does nothing.

Each consumer drains the same backlog of a QoS 1 session over the server's listener with mutual TLS: first a null
subscriber on our own link (it acknowledges and forgets), then the whole server side (admission, ledger, commit with
fsync, a receipt per device and ten messages), then paho's client doing nothing but acknowledge. Rates are from the
first byte asked for to the last message acknowledged (stored and receipted, for the server).
"""

import asyncio
import gc
import random
import shutil
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import mqtt5
import paho.mqtt.client as paho
import uvloop
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker_config.ids import DeviceId, SiteId
from broker_config.mac import MacKey, Purpose
from broker_config.policy import server
from broker_config.topics import ROOT
from fleet_server.access import ca
from fleet_server.access.keys import MasterKey, derive
from fleet_server.adapters.mqtt import INGESTED, QOS, Link, LinkSettings, connect, security, subscriptions
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.telemetry.ingest import IngestSettings
from fleet_server.telemetry.service import Service, ServiceSettings
from tests.benchmarks.batches import KNOWN, Message, messages
from tests.servers import HOST, lay_out

GATEWAY: Final = SiteId("6a" * 32)
"""Another site's name, which the benchmark's broker lets publish for every device; no role of the product."""
SESSION_S: Final = 3600
FILL_WINDOW: Final = 2_000
DRAIN_WAIT_S: Final = 300.0
RECEIPT_EVERY: Final = 10
GC_ALLOCATIONS: Final = 50_000
"""As in ``fleet_server.running``."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One drain. ``cpu_us`` is this process's time a message."""

    consumer: str
    messages: int
    seconds: float
    cpu_s: float
    values: int
    receipts: int = 0
    bytes_a_value: float = 0.0

    @property
    def messages_s(self) -> float:
        return self.messages / self.seconds

    @property
    def values_s(self) -> float:
        return self.values / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.messages * 1e6


class Bench:
    """A broker for loads: the product's rendering, with room for a backlog and a gateway that may fill it."""

    def __init__(self, directory: Path) -> None:
        self.broker = lay_out(directory, persistent=False)
        config = directory / "mosquitto.conf"
        lines = config.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not line.startswith(("max_queued_", "log_dest", "log_type"))]
        config.write_text("\n".join([*kept, "max_queued_messages 0", "max_queued_bytes 0", ""]), encoding="utf-8")
        access = directory / "acl"
        text = access.read_text(encoding="utf-8")
        access.write_text(f"user {server(GATEWAY).name}\ntopic write {ROOT}/+/+/up/#\n\n{text}", encoding="utf-8")
        gateway = self.broker.credentials("_gateway", ca.issue_server(self.broker.server_ca, GATEWAY, now=_utc_now()))
        own = self.broker.server()
        self.gateway_security = security(gateway.ca, gateway.certificate, gateway.key)
        self.security = security(own.ca, own.certificate, own.key)
        self.master = MasterKey.new()

    def settings(self, client_id: str, context: ssl.SSLContext) -> LinkSettings:
        return LinkSettings(HOST, self.broker.server_port, client_id, 60, context, SESSION_S)

    async def fill(self, client_id: str, load: Sequence[Message]) -> None:
        """Leave *load* in the queue of *client_id*'s session."""
        nothing = _ignore
        session = await connect(
            self.settings(client_id, self.security),
            filters=subscriptions(INGESTED, 0, 255),
            will=None,
            clean_start=True,
            on_packets=nothing,
        )
        session.disconnect()
        await session.gone
        gateway = await connect(
            self.settings("_gateway", self.gateway_security),
            filters=[mqtt5.TopicFilter("ff/1/server/state")],
            will=None,
            clean_start=True,
            on_packets=nothing,
        )
        for message in load:
            while gateway.outstanding >= FILL_WINDOW and not gateway.gone.done():  # noqa: ASYNC110 - a load, not a service
                await asyncio.sleep(0.001)
            packet = mqtt5.PublishPacket(
                message.topic,
                message.payload,
                qos=QOS,
                packet_id=gateway.take_id(),
                content_type=message.content_type,
                user_properties=message.properties,
            )
            gateway.send(packet.write())
        while gateway.outstanding and not gateway.gone.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not gateway.gone.done(), "the broker closed the gateway's connection"
        gateway.disconnect()
        await gateway.gone

    async def null(self, load: Sequence[Message], values: int) -> Rate:
        """What the broker delivers at most: each message acknowledged as it comes, and forgotten."""
        await self.fill("_null", load)
        done, seen = asyncio.Event(), 0

        def take(link: Link, packets: list[mqtt5.PublishPacket]) -> None:
            nonlocal seen
            seen += len(packets)
            link.send(link.acknowledge([p.packet_id for p in packets if p.packet_id is not None]))
            if seen >= len(load):
                done.set()

        started_s, cpu_s = time.perf_counter(), time.process_time()
        link = await connect(
            self.settings("_null", self.security),
            filters=subscriptions(INGESTED, 0, 255),
            will=None,
            clean_start=False,
            on_packets=take,
        )
        async with asyncio.timeout(DRAIN_WAIT_S):
            await done.wait()
        rate = Rate(
            "null subscriber", len(load), time.perf_counter() - started_s, time.process_time() - cpu_s, values
        )
        link.disconnect()
        return rate

    async def stored(self, load: Sequence[Message], values: int, directory: Path) -> Rate:
        """The server's side of telemetry, until the last message is committed and its receipt sent."""
        client_id = "_ingest"
        await self.fill(client_id, load)
        store = SqliteStore(directory / "telemetry.db", now_ms=_now_ms())

        def mac_key(purpose: Purpose, device: DeviceId, _kid: str) -> MacKey:
            return derive(self.master, purpose, device)

        service = Service(
            ServiceSettings(
                shards=(0, 255),
                lease_ttl_s=60,
                group_wait_ms=20,
                seal_every_s=3600,
                seal_records_max=50_000,
                ingest=IngestSettings(3_000, RECEIPT_EVERY, 1_000, 1 << 26),
            ),
            self.settings(client_id, self.security),
            store,
            mac_key=mac_key,
            owner="benchmark",
            now_ms=_now_ms,
            rng=random.Random(1),
            known=KNOWN,
        )
        stop = asyncio.Event()
        started_s, cpu_s = time.perf_counter(), time.process_time()
        running = asyncio.create_task(service.run(stop))
        await service.started.wait()
        async with asyncio.timeout(DRAIN_WAIT_S):
            while service.facts().records_stored < len(load) or not service.committed:
                await asyncio.sleep(0.002)
                if running.done():
                    running.result()
        seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        facts = service.facts()
        stop.set()
        await running
        assert facts.records_quarantined == facts.records_duplicate == 0, facts
        store.close()
        size_bytes = sealed_bytes(directory / "telemetry.db")
        return Rate(
            "stored and receipted", len(load), seconds, cpu_s, values, facts.receipts_sent, size_bytes / values
        )

    async def paho(self, load: Sequence[Message], values: int) -> Rate:
        """paho's client, acknowledging by hand and doing nothing else."""
        client_id = "_paho"
        await self.fill(client_id, load)
        return await asyncio.to_thread(self._paho, client_id, len(load), values)

    def _paho(self, client_id: str, count: int, values: int) -> Rate:
        done, seen = threading.Event(), 0
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=True)

        def take(_: paho.Client, __: object, message: paho.MQTTMessage) -> None:
            nonlocal seen
            client.ack(message.mid, message.qos)
            seen += 1
            if seen >= count:
                done.set()

        client.on_message = take
        client.tls_set_context(self.security)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S
        properties.ReceiveMaximum = 65_535
        started_s, cpu_s = time.perf_counter(), time.process_time()
        client.connect(HOST, self.broker.server_port, clean_start=False, properties=properties)
        client.loop_start()
        assert done.wait(DRAIN_WAIT_S), f"paho stopped at {seen} of {count}"
        rate = Rate("paho, null", count, time.perf_counter() - started_s, time.process_time() - cpu_s, values)
        client.disconnect()
        client.loop_stop()
        return rate


def sealed_bytes(path: Path) -> int:
    """What a store takes once all of it is sealed: pages in use, whole."""
    store = SqliteStore(path, now_ms=_now_ms())
    try:
        token = store.take_lease("benchmark", first=0, last=255, now_ms=_now_ms(), ttl_ms=600_000)
        store.restore()
        while store.seal(records_max=1_000_000, now_ms=_now_ms()):
            pass
        store.drop_lease(token=token)
    finally:
        store.close()
    with closing(sqlite3.connect(path)) as connection:
        pages, free, page_bytes = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * page_bytes)


def _ignore(link: Link, packets: Iterable[mqtt5.PublishPacket]) -> None:
    link.send(link.acknowledge([p.packet_id for p in packets if p.packet_id is not None]))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _utc_now() -> datetime:
    return datetime.now(UTC)


def run(directory: Path, *, rows: int, devices: int, burst: int, count: int, rounds: int) -> list[list[Rate]]:
    """Each consumer once a round, in turn, on one broker."""
    load = list(messages(devices, count, rows=rows, burst=burst, seed=7))
    gc.collect()
    gc.freeze()  # as the server does: the load is not to be looked through while something is measured
    gc.set_threshold(GC_ALLOCATIONS)
    values = count * rows * 8
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    bench = Bench(directory / "broker")
    bench.broker.start()
    try:
        out = []
        for number in range(rounds):
            stored_in = directory / str(number)
            stored_in.mkdir()
            out.append(
                [
                    uvloop.run(bench.null(load, values)),
                    uvloop.run(bench.stored(load, values, stored_in)),
                    uvloop.run(bench.paho(load, values)),
                ]
            )
        return out
    finally:
        bench.broker.kill()
