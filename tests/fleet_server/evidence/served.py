"""Uploads as the server takes them, in this process, over a real Mosquitto."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from broker_config import limits
from broker_config.ids import DeviceId, server_client_id
from fleet_server.access import ca
from fleet_server.access.signing import Issuer, Policy
from fleet_server.adapters.incoming_files import ContentDirectory, IncomingDirectory, crcs_of, read_again
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
from tests.orders import RealSigner
from tests.servers import HOST, Mosquitto, mosquitto
from tests.uploading import UploadingDevice

CHUNK: Final = limits.CHUNK_BYTES_MIN


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
    async def serving(self, *authorities: x509.Certificate) -> AsyncIterator[UploadService]:
        """*authorities*: other than the broker's."""
        uploads, windows = SqliteUploads(self.directory / "uploads.db"), Windows()
        incoming, content = IncomingDirectory(self.directory / "incoming"), self.content()
        finisher = Finisher(
            uploads,
            incoming,
            content,
            None,
            self.register,
            read_again=read_again,
            crcs_of=crcs_of,
            now_ms=now_ms,
        )
        chain = authorities or (ca.certificate_of(self.broker.device_ca),)
        trust = Trust(chain, lambda _serial: None, timedelta(days=1))
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


@contextlib.contextmanager
def evidence_in(directory: Path) -> Iterator[Evidence]:
    """A broker, a key and an empty store."""
    (directory / "key.pem").write_bytes(new_key_pem())
    (directory / "key.pem").chmod(0o600)
    (directory / "evidence").mkdir()
    key = FileKey.read(directory / "key.pem")
    with mosquitto(directory / "broker") as broker:
        issuer = Issuer(key, Policy(broker.site), last=0, reserve=lambda _counter: None)
        yield Evidence(directory / "evidence", broker, RealSigner(issuer), key)
