"""Wires what takes files of devices: directories, what is under way, the link, the threads."""

import asyncio
import random
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.ids import DeviceId
from broker_config.text import shown
from broker_config.transfer import Code, DownMessage
from fleet_server.access.ca import CaError, vouching
from fleet_server.access.enrolment import Certificate
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.incoming_files import ContentDirectory, IncomingDirectory, crcs_of, read_again
from fleet_server.adapters.signer_socket import SocketSigner
from fleet_server.adapters.sqlite_uploads import SqliteUploads
from fleet_server.broker_links import link_settings
from fleet_server.config import Config, ConfigError, DeviceCa, Evidence
from fleet_server.evidence.admission import BUSY_AGAIN_S, Bounds, RefusedError, Trust
from fleet_server.evidence.arrival import Register
from fleet_server.evidence.facts import EvidenceFacts, Progress
from fleet_server.evidence.finishing import Copying, Finisher
from fleet_server.evidence.service import UploadService, UploadSettings
from fleet_server.evidence.transfer import Transfer
from fleet_server.evidence.underway import Put, Said, UnderWay
from fleet_server.evidence.uploads import UploadError
from fleet_server.evidence.windows import Windows
from fleet_server.telemetry.store import StoreError
from fleet_server.threads import Looped

UPLOADS_FILE: Final = "uploads.db"
INCOMING: Final = "incoming"


class Uploads:
    """What runs beside telemetry, in a thread and a loop of its own: made, opened, started, stopped, in this order.

    ``content``: what is kept; ``replica``: second copies, None: there are none.
    """

    def __init__(
        self,
        config: Config,
        table: Evidence,
        device_ca: DeviceCa,
        security: ssl.SSLContext,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        """Raises ConfigError, OSError: a directory or the devices' authority is not to be had."""
        self._config = config
        self._table = table
        self._security = security
        self._now_ms = now_ms
        self._chain = _chain(device_ca)
        self._grace = timedelta(days=device_ca.grace_d)
        self._incoming = IncomingDirectory(table.directory / INCOMING)
        self.content = ContentDirectory(table.directory)
        self.replica = _replica(table)
        assert config.signer.socket_file is not None
        self.signer = SocketSigner(config.signer.socket_file)
        self.receipt_life_ms = config.signer.lifetime_ms_max
        self._thread = Looped("uploads", self._serve)
        self._service: UploadService | None = None
        self._register: Register
        self._certificate: Callable[[str], Certificate | None]

    def open(self, register: Register, certificate: Callable[[str], Certificate | None]) -> None:
        """*register*: where what arrived is entered. *certificate*: what the database knows of one, by its serial;
        raises StoreError.
        """
        self._register = register
        self._certificate = certificate

    def start(self) -> None:
        """Take files."""
        self._thread.start()

    def stop(self) -> None:
        """In order; what is under way goes on at the next start."""
        self._thread.stop()

    def say(self, said: Said | Put) -> list[DownMessage]:
        """See :class:`fleet_server.evidence.docking.Docking`."""
        if self._service is None:
            raise UploadError("the server is not ready")
        return self._service.say(said)

    def receipt(self, device: DeviceId, upload: str) -> bytes | None:
        """See :class:`fleet_server.evidence.docking.Docking`."""
        return None if self._service is None else self._service.receipt(device, upload)

    @property
    def roots(self) -> tuple[str, ...]:
        """The devices' authorities that nobody stands above, PEM."""
        roots = (each for each in self._chain if each.subject == each.issuer)
        return tuple(each.public_bytes(Encoding.PEM).decode("ascii") for each in roots)

    def facts(self) -> EvidenceFacts | None:
        """None: it has not begun."""
        return None if self._service is None else self._service.facts()

    def progress(self) -> list[Progress]:
        """Of each file that is on its way; none before it has begun."""
        return [] if self._service is None else self._service.progress()

    @property
    def free_bytes(self) -> int:
        """Left where files are kept."""
        return self._incoming.disk()[1]

    async def _serve(self, stop: asyncio.Event) -> None:
        uploads = SqliteUploads(self._table.directory / UPLOADS_FILE)
        try:
            self._service = self._made(uploads)
            await self._service.run(stop)
        finally:
            uploads.close()
            self._incoming.close()

    def _made(self, uploads: SqliteUploads) -> UploadService:
        config, table = self._config, self._table
        windows = Windows(rate_bytes_s=table.site_bytes_s_max)
        finisher = Finisher(
            uploads,
            self._incoming,
            self.content,
            self.replica,
            self._register,
            read_again=read_again,
            crcs_of=crcs_of,
            now_ms=self._now_ms,
        )
        transfer = Transfer(
            UnderWay(uploads, self._incoming, windows),
            Trust(self._chain, self._revoked_ms, self._grace),
            Bounds(table.disk_share_max, table.device_bytes_a_day_max),
            has_content=self.content.exists,
        )
        return UploadService(
            UploadSettings(config.shards, table.incoming_keep_d, self.receipt_life_ms),
            link_settings(config, self._security, work="evidence"),
            transfer,
            finisher,
            uploads,
            windows,
            self.signer,
            now_ms=self._now_ms,
            rng=random.Random(),  # noqa: S311 - jitter
        )

    def _revoked_ms(self, serial: str) -> int | None:
        try:
            known = self._certificate(serial)
        except StoreError as error:
            raise RefusedError(Code.BUSY, shown(error), again_s=BUSY_AGAIN_S) from error
        return None if known is None else known.revoked_ms


def made_from(config: Config, security: ssl.SSLContext, *, now_ms: Callable[[], int]) -> Uploads | None:
    """None: the configuration has no ``[evidence]``. Raises ConfigError, OSError."""
    if config.evidence is None or config.device_ca is None:
        return None
    return Uploads(config, config.evidence, config.device_ca, security, now_ms=now_ms)


def _replica(table: Evidence) -> Copying | None:
    """Where second copies go. Raises ConfigError, OSError."""
    if table.replica is not None:
        return ContentDirectory(table.replica, "replica")
    if table.s3 is None:
        return None
    from fleet_server.adapters.s3_content import S3Content, S3Settings  # noqa: PLC0415 - 10 MB, only if wanted

    s3 = table.s3
    lines = s3.credentials_file.read_text(encoding="ascii").split()
    if len(lines) != 2:
        raise ConfigError(
            "evidence.s3.credentials_file", (f"expected two lines, access key and secret, got {len(lines)}",)
        )
    access, secret = lines
    return S3Content(S3Settings(s3.endpoint, s3.bucket, s3.prefix, s3.region, access, secret, s3.lock_d, s3.ca_file))


def _chain(device_ca: DeviceCa) -> tuple[x509.Certificate, ...]:
    """All whose devices' files are taken: what a device made before its authority was followed by another, too."""
    try:
        return vouching(FileKeys(device_ca.cert_file, device_ca.key, device_ca.formers))
    except CaError as error:
        raise ConfigError("device_ca", (shown(error, 300),)) from error
