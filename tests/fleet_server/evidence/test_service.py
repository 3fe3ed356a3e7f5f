"""Files over a real Mosquitto: server, broker and link may go at any moment."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker_config import limits, signing
from broker_config.ids import DeviceId, server_client_id
from broker_config.signing import Kind, pre_authentication
from broker_config.transfer import StorageClass
from fleet_server.access import ca
from fleet_server.access.signing import Issuer, Policy, Request, SignerError
from fleet_server.adapters.incoming_files import ContentDirectory, IncomingDirectory, read_again
from fleet_server.adapters.mqtt import LinkSettings, security
from fleet_server.adapters.signing_key import FileKey, new_key_pem
from fleet_server.adapters.sqlite_uploads import SqliteUploads
from fleet_server.evidence.admission import Trust
from fleet_server.evidence.finishing import Finisher
from fleet_server.evidence.service import UploadService, UploadSettings
from fleet_server.evidence.transfer import Transfer
from fleet_server.evidence.underway import UnderWay
from fleet_server.evidence.windows import Windows
from tests.fleet_server.evidence.upload_rig import BOUNDS, File, Identity, SqliteRegister, manifest_of
from tests.fleet_server.telemetry.service_rig import now_ms, until
from tests.servers import HOST, Mosquitto, mosquitto
from tests.uploading import UploadingDevice

pytestmark = pytest.mark.server("mosquitto")
CHUNK = limits.CHUNK_BYTES_MIN


@dataclass
class RealSigner:
    """The signer's own core in this process. ``down``: as if its process was away."""

    issuer: Issuer
    down: bool = False
    asked: list[Request] = field(default_factory=list)

    def sign(self, request: Request) -> bytes:
        if self.down:
            raise SignerError("the signer cannot be reached")
        self.asked.append(request)
        return signing.encode(self.issuer.sign(request, now_ms=now_ms(), mono_ms=now_ms()))


@dataclass
class Evidence:
    """What serves uploads over *broker* from *directory*; ``serving`` is one process of it."""

    directory: Path
    broker: Mosquitto
    signer: RealSigner
    key: FileKey

    @property
    def register(self) -> SqliteRegister:
        return SqliteRegister(self.directory / "register.db")

    def content(self) -> ContentDirectory:
        return ContentDirectory(self.directory)

    def identity(self, device: DeviceId) -> Identity:
        paths = self.broker.device(device)
        issued = ca.Issued(paths.certificate.read_bytes(), paths.key.read_bytes())
        return Identity.of(issued, device, self.broker.device_ca.certificate_pem)

    def device(self, device: DeviceId, *files: File) -> UploadingDevice:
        paths = self.broker.device(device)
        context = security(paths.ca, paths.certificate, paths.key)
        return UploadingDevice(LinkSettings(HOST, self.broker.device_port, device, 30, context), device, files)

    def file(self, device: DeviceId, size: int, seed: int = 1, *, chunk_bytes: int = CHUNK) -> File:
        data = random.Random(seed).randbytes(size)
        at_ms = now_ms()
        return File(data, manifest_of(data, device, chunk_bytes=chunk_bytes, at_ms=at_ms), self.identity(device))

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[UploadService]:
        uploads, windows = SqliteUploads(self.directory / "uploads.db"), Windows()
        incoming, content = IncomingDirectory(self.directory / "incoming"), self.content()
        finisher = Finisher(uploads, incoming, content, None, self.register, read_again=read_again, now_ms=now_ms)
        trust = Trust((ca.certificate_of(self.broker.device_ca),), lambda _serial: None, timedelta(days=1))
        transfer = Transfer(UnderWay(uploads, incoming, windows), trust, BOUNDS, has_content=content.exists)
        paths = self.broker.server()
        link = LinkSettings(
            HOST,
            self.broker.server_port,
            server_client_id(self.broker.site, work="evidence"),
            30,
            security(paths.ca, paths.certificate, paths.key),
        )
        service = UploadService(
            UploadSettings(),
            link,
            transfer,
            finisher,
            uploads,
            windows,
            self.signer,
            now_ms=now_ms,
            rng=random.Random(1),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        try:
            await until(lambda: task.done() or service.facts().connected, "uploads are linked")
            yield service
        finally:
            stop.set()
            await task
            uploads.close()
            incoming.close()


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    (tmp_path / "key.pem").write_bytes(new_key_pem())
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "evidence").mkdir()
    key = FileKey.read(tmp_path / "key.pem")
    with mosquitto(tmp_path / "broker") as broker:
        issuer = Issuer(key, Policy(broker.site), last=0, reserve=lambda _counter: None)
        yield Evidence(tmp_path / "evidence", broker, RealSigner(issuer), key)


CAMERA = DeviceId("cam-7")
WAIT_S = 30


async def test_files_are_kept_and_their_receipt_is_signed_for_their_device(evidence: Evidence) -> None:
    files = [evidence.file(CAMERA, 20 * CHUNK + n, seed=n) for n in range(12)]
    device = evidence.device(CAMERA, *files)
    async with evidence.serving() as service:
        await asyncio.wait_for(device.run(), WAIT_S)
        facts = service.facts()
    for file in files:
        with evidence.content().open(file.manifest.sha256) as kept:
            assert kept.read() == file.data
        told = device.receipts[file.upload]
        assert (told.sha256, told.size, told.storage_class) == (
            file.manifest.sha256,
            len(file.data),
            StorageClass.LOGGED,
        )
        envelope = signing.decode_envelope(device.envelopes[file.upload])
        claims = signing.decode_claims(envelope)
        assert (claims.kind, claims.target, claims.site) == (Kind.EVIDENCE_RECEIPT, CAMERA, evidence.broker.site)
        signed = pre_authentication(envelope.payload_type, envelope.payload)
        Ed25519PublicKey.from_public_bytes(evidence.key.public).verify(envelope.signatures[0].sig, signed)
    assert sorted(evidence.register.entered()) == sorted(file.upload for file in files)
    assert (facts.count("kept"), facts.open_uploads, facts.count("malformed")) == (12, 0, 0)
    assert len(evidence.signer.asked) < 12  # several in one signature


async def test_a_server_that_goes_and_comes_back_goes_on(evidence: Evidence) -> None:
    file = evidence.file(CAMERA, 600 * CHUNK)
    device = evidence.device(CAMERA, file)
    running = asyncio.create_task(device.run())
    async with evidence.serving() as service:
        await until(lambda: service.facts().count("chunks") > 20, "some chunks")
    assert device.receipts == {}
    async with evidence.serving() as service:
        await asyncio.wait_for(running, WAIT_S)
        assert service.facts().count("chunks") < 600 - 20
    with evidence.content().open(file.manifest.sha256) as kept:
        assert kept.read() == file.data


async def test_a_broker_that_forgets_everything_costs_a_window(evidence: Evidence) -> None:
    file = evidence.file(CAMERA, 900 * CHUNK)
    device = evidence.device(CAMERA, file)
    running = asyncio.create_task(device.run())
    async with evidence.serving() as service:
        await until(lambda: service.facts().count("chunks") > 20, "some chunks")
        window_bytes = limits.UPLOAD_WINDOW_BYTES_MAX
        evidence.broker.kill()
        evidence.broker.wipe()
        await asyncio.to_thread(evidence.broker.start)
        await asyncio.wait_for(running, WAIT_S)
    assert device.sent_bytes <= len(file.data) + window_bytes
    with evidence.content().open(file.manifest.sha256) as kept:
        assert kept.read() == file.data


async def test_without_a_signer_there_is_no_receipt_until_it_is_back(evidence: Evidence) -> None:
    evidence.signer.down = True
    file = evidence.file(CAMERA, 5 * CHUNK)
    device = evidence.device(CAMERA, file)
    async with evidence.serving() as service:
        running = asyncio.create_task(device.run())
        await until(lambda: service.facts().sign_failures > 0, "the signer was asked")
        assert device.receipts == {}
        evidence.signer.down = False
        await asyncio.wait_for(running, WAIT_S)
    assert file.upload in device.receipts


async def test_many_devices_at_once_all_get_through(evidence: Evidence) -> None:
    names = [DeviceId(f"cam-{n}") for n in range(12)]
    devices = [evidence.device(name, evidence.file(name, 40 * CHUNK, seed=n)) for n, name in enumerate(names)]
    async with evidence.serving():
        await asyncio.wait_for(asyncio.gather(*(device.run() for device in devices)), 2 * WAIT_S)
    assert all(len(device.receipts) == 1 for device in devices)
