"""Twins over a real Mosquitto: devices are played, the database and the signer's core are real."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mqtt5
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine

from broker_config import signing, topics, twin
from broker_config.ids import DeviceId, server_client_id
from broker_config.signing import Kind, pre_authentication
from broker_config.topics import Up
from broker_config.twin import AskTwin, BadTwinError, ChangeState, Desired, Reported, SettingValue, TwinState
from fleet_server.access.signing import Issuer, Policy
from fleet_server.adapters.mqtt import QOS, Link, LinkSettings, connect, security
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.twins import SqlTwins
from fleet_server.change.service import TwinService, TwinSettings
from fleet_server.change.twins import Drift, Versions, Wish
from fleet_server.telemetry.store import StoreError
from tests.fleet_server.telemetry.service_rig import now_ms, until
from tests.orders import RealSigner
from tests.servers import HOST, Mosquitto, mosquitto

pytestmark = pytest.mark.server("mosquitto")

CAMERA = DeviceId("cam-7")
HOUR_MS = 3_600_000


class Flaky(SqlTwins):
    """``down``: as if the database was away."""

    down = False

    def report(self, said: Sequence[tuple[str, Reported]], *, now_ms: int) -> Mapping[str, Versions]:
        if self.down:
            raise StoreError("the database is away")
        return super().report(said, now_ms=now_ms)


@dataclass
class Server:
    """What a twin service stands on; ``serving`` is one process of it."""

    broker: Mosquitto
    twins: Flaky
    signer: RealSigner
    key: FileKey
    known: set[str] = field(default_factory=lambda: {CAMERA})
    connected: set[str] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[TwinService]:
        paths = self.broker.server()
        link = LinkSettings(
            HOST,
            self.broker.server_port,
            server_client_id(self.broker.site, work="twins"),
            30,
            security(paths.ca, paths.certificate, paths.key),
        )
        service = TwinService(
            TwinSettings(lifetime_ms=HOUR_MS),
            link,
            self.twins,
            self.signer,
            known=self.known.__contains__,
            connected=self.connected.__contains__,
            now_ms=now_ms,
            rng=random.Random(1),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        try:
            await until(lambda: task.done() or service.facts().connected, "twins are linked")
            yield service
        finally:
            stop.set()
            await task

    def desire(self, **config: SettingValue) -> Mapping[str, int]:
        return self.twins.desire([Wish(CAMERA, config, {}, "test", "test")], now_ms=now_ms())

    @contextlib.asynccontextmanager
    async def device(self, device: DeviceId = CAMERA) -> AsyncIterator["Device"]:
        paths = self.broker.device(device)
        context = security(paths.ca, paths.certificate, paths.key)
        played = Device(device, self)
        link = await connect(
            LinkSettings(HOST, self.broker.device_port, device, 30, context, session_expiry_s=0),
            filters=[mqtt5.TopicFilter(topics.down_filter(device), max_qos=QOS)],
            will=None,
            clean_start=True,
            on_packets=played.take,
        )
        played.link = link
        self.connected.add(device)
        try:
            yield played
        finally:
            link.disconnect()


class Device:
    """Says what it is told to, and keeps what it hears."""

    def __init__(self, device: DeviceId, server: Server) -> None:
        self.device = device
        self.link: Link
        self.orders: list[bytes] = []
        self.hints: list[TwinState] = []
        self._server = server

    def take(self, link: Link, packets: list[mqtt5.PublishPacket]) -> None:
        for packet in packets:
            payload = bytes(packet.payload or b"")
            try:
                self.hints.append(twin.decode_state(payload))
            except BadTwinError:
                self.orders.append(payload)
        link.send(link.acknowledge([packet.packet_id for packet in packets if packet.packet_id is not None]))

    def say(self, said: Reported | AskTwin | bytes, topic: str = "") -> None:
        payload = said if isinstance(said, bytes) else twin.encode(said)
        self.link.send(self.link.publish(topic or topics.up(self.device, Up.TWIN), payload, []))

    def desired(self, order: bytes) -> Desired:
        """Of an order that is rightly signed and for it."""
        envelope = signing.decode_envelope(order)
        claims = signing.decode_claims(envelope)
        assert (claims.kind, claims.target, claims.site) == (Kind.TWIN, self.device, self._server.broker.site)
        assert claims.expires_ms - claims.issued_ms == HOUR_MS
        signed = pre_authentication(envelope.payload_type, envelope.payload)
        public = Ed25519PublicKey.from_public_bytes(self._server.key.public)
        public.verify(envelope.signatures[0].sig, signed)
        return twin.decode_desired(claims)


def said(version: int, desired: int = 0, **config: SettingValue) -> Reported:
    return Reported(1, version, "ab" * 8, desired, desired, ChangeState.CURRENT, config)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = database.connect(database.sqlite_url(tmp_path / "operators.db"))
    database.migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def server(tmp_path: Path, engine: Engine) -> Iterator[Server]:
    (tmp_path / "key.pem").write_bytes(new_key_pem())
    (tmp_path / "key.pem").chmod(0o600)
    key = FileKey.read(tmp_path / "key.pem")
    with mosquitto(tmp_path / "broker") as broker:
        issuer = Issuer(key, Policy(broker.site), last=0, reserve=lambda _counter: None)
        yield Server(broker, Flaky(engine), RealSigner(issuer), key)


async def test_who_asks_gets_a_signed_order_for_what_is_newer(server: Server) -> None:
    version = server.desire(video="720p")[CAMERA]
    async with server.serving(), server.device() as device:
        device.say(AskTwin(1, 0))
        await until(lambda: bool(device.orders), "an order")
        assert device.desired(device.orders[0]) == Desired(1, version, {"video": "720p"})
        device.say(AskTwin(1, version))
        await until(lambda: bool(device.hints), "a hint")
        assert device.hints == [TwinState(1, version, 0)]
        assert len(device.orders) == 1


async def test_an_order_is_signed_once_for_who_asks_again_soon(server: Server) -> None:
    server.desire(video="720p")
    async with server.serving() as service, server.device() as device:
        for asked in range(1, 4):
            device.say(AskTwin(1, 0))
            await until(lambda asked=asked: len(device.orders) == asked, "an order")  # type: ignore[misc]
        assert len(set(device.orders)) == len(server.signer.asked) == 1
        assert service.facts().counts["ordered"] == 3


async def test_what_is_reported_is_kept_before_it_is_answered(server: Server) -> None:
    version = server.desire(video="720p")[CAMERA]
    async with server.serving() as service, server.device() as device:
        server.twins.down = True
        device.say(said(5, version, video="720p"))
        device.say(said(6, version, video="1080p"))
        await until(lambda: service.facts().counts.get("store_failures", 0) > 0, "the database was asked")
        assert device.hints == []
        server.twins.down = False
        await until(lambda: bool(device.hints), "an answer")
        assert device.hints[-1] == TwinState(1, version, 6)
        found = server.twins.twin(CAMERA)
        assert found.report is not None
        assert (found.report.reported.version, found.drift) == (6, Drift.DRIFTED)
        answers = service.facts().counts["reported"]
        device.say(said(5, version, video="720p"))  # late
        await until(lambda: service.facts().counts["reported"] > answers, "an answer")
        assert server.twins.twin(CAMERA).reported_version == 6


async def test_who_is_connected_is_told_at_once(server: Server) -> None:
    async with server.serving() as service, server.device() as device:
        service.published({**server.desire(video="720p"), "cam-99": 4})
        await until(lambda: bool(device.orders), "an order")
        assert device.desired(device.orders[0]).config == {"video": "720p"}
        assert [request.target for request in server.signer.asked] == [CAMERA]


async def test_a_restored_server_is_obeyed(server: Server) -> None:
    old = server.desire(video="720p")[CAMERA]
    newer = old + HOUR_MS
    async with server.serving(), server.device() as device:
        device.say(said(5, newer, video="1080p"))
        device.say(AskTwin(1, newer))
        await until(lambda: bool(device.orders), "an order")
        desired = device.desired(device.orders[0])
        assert desired.version > newer
        assert desired.config == {"video": "720p"}


async def test_without_a_signer_orders_wait(server: Server) -> None:
    server.desire(video="720p")
    server.signer.down = True
    async with server.serving() as service, server.device() as device:
        device.say(AskTwin(1, 0))
        await until(lambda: service.facts().counts.get("sign_failures", 0) > 0, "the signer was asked")
        assert (device.orders, service.facts().orders_due) == ([], 1)
        server.signer.down = False
        await until(lambda: bool(device.orders), "an order")


async def test_what_cannot_be_a_twins_message_is_dropped_and_counted(server: Server) -> None:
    other = "00" if topics.up(CAMERA, Up.TWIN).split("/")[2] != "00" else "01"
    foreign = f"ff/1/{other}/{CAMERA}/up/twin"
    async with server.serving() as service, server.device() as device, server.device(DeviceId("cam-8")) as stranger:
        device.say(b"no json")
        device.say(AskTwin(1, 0), topic=foreign)
        stranger.say(said(1))
        await until(lambda: service.facts().counts.get("malformed", 0) == 2, "both are counted")
        await until(lambda: service.facts().counts.get("strangers", 0) == 1, "the stranger is counted")
        device.say(AskTwin(1, 0))
        await until(lambda: bool(device.hints), "an answer")
        assert (device.hints, stranger.hints) == ([TwinState(1, 0, 0)], [])
        assert server.twins.twin("cam-8").report is None


async def test_a_server_that_comes_back_knows_what_was_said(server: Server) -> None:
    async with server.device() as device:
        async with server.serving():
            device.say(said(5, video="720p"))
            await until(lambda: bool(device.hints), "an answer")
        version = server.desire(video="1080p")[CAMERA]
        async with server.serving():
            device.say(AskTwin(1, 0))
            await until(lambda: bool(device.orders), "an order")
            assert device.desired(device.orders[0]).version == version
            assert server.twins.twin(CAMERA).reported_version == 5
