"""Wires what gives devices their identities and takes them: authority, store, listener, the list of the revoked."""

import logging
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from broker_config.enrolment import BrokerPlace
from broker_config.ids import SiteId, device_id
from broker_config.text import shown
from fleet_server.access.audit import Draft
from fleet_server.access.ca import CaError
from fleet_server.access.enroller import Enroller, EnrolmentSettings
from fleet_server.access.revocation import BrokerError, Revoker
from fleet_server.adapters import benches
from fleet_server.adapters.audit_facts import auditor, is_connected
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.broker_door import Door, DoorSettings
from fleet_server.adapters.revocation_list import CrlFile
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.adapters.trusted import Trusted
from fleet_server.api.app import Enrolling
from fleet_server.api.enrolling import create_app
from fleet_server.api.listener import HttpsListener
from fleet_server.config import Config, DeviceCa, EnrolmentTable
from fleet_server.evidence.docking import Docking
from fleet_server.registry.store import Registry
from fleet_server.releases.store import Releases
from fleet_server.telemetry.store import StoreError
from fleet_server.telemetry.view import TelemetryView

FRESHEN_S: Final = 3_600.0
"""How often the list of revoked devices is looked at; it is good for weeks."""
STOP_S: Final = 5.0

if TYPE_CHECKING:
    from fleet_server.releasing import Releasing

logger = logging.getLogger(__name__)


class Identities:
    """What runs beside telemetry: made, opened, started, stopped, in this order."""

    def __init__(
        self,
        device_ca: DeviceCa,
        table: EnrolmentTable,
        trusted: Trusted,
        door: DoorSettings,
        site: SiteId,
        releasing: "Releasing | None",
        *,
        now_ms: Callable[[], int],
    ) -> None:
        """Raises CaError, OSError: a file or the port is not to be had."""
        self._device_ca = device_ca
        self._table = table
        self._trusted = trusted
        self._now_ms = now_ms
        self._keys = FileKeys(device_ca.cert_file, device_ca.key, device_ca.formers)
        self._server_ca_pem = table.server_ca_file.read_text(encoding="ascii")
        family = socket.AF_INET6 if ":" in table.host else socket.AF_INET
        self._socket = socket.create_server((table.host, table.port), family=family)
        self._door = Door(door)
        self._site = site
        self._releasing = releasing
        self._listener: HttpsListener | None = None
        self._stopping = threading.Event()
        self._freshening = threading.Thread(target=self._freshen, name="revocations", daemon=True)
        self.enrolling: Enrolling

    @property
    def releases(self) -> Releases | None:
        """What the listener gives; None: nobody releases here."""
        return None if self._releasing is None else self._releasing.releases

    def open(self, engine: Engine, registry: Registry, view: TelemetryView) -> None:
        """On the operators' database, migrated."""
        table = self._table

        def class_of(device: str) -> str | None:
            found = registry.device(device)
            return None if found is None or found.registered_ms is None else found.registration.device_class

        crl = CrlFile(self._device_ca.crl_file, self._keys, self._device_ca.root_crl_file)
        unknown = self._device_ca.renew_unknown
        settings = EnrolmentSettings(
            broker=BrokerPlace(table.broker_host, table.broker_port),
            url=table.url,
            server_ca_pem=self._server_ca_pem,
            signers=self._trusted.signers_json,
            steps=self._trusted.steps,
            leaf_life=timedelta(days=self._device_ca.leaf_d),
            grace=timedelta(days=self._device_ca.grace_d),
            adopts=lambda serial: unknown and not crl.has(serial),
            release_root=lambda: "" if self._releasing is None else self._releasing.releases.root(),
        )
        store = SqlEnrolments(engine)
        enroller = Enroller(settings, self._keys, store, class_of, self._trusted.master, now_ms=self._now_ms)

        def connected(device: str) -> bool:
            return is_connected(view, device)

        def bench(device: str) -> list[str]:
            directory = self._device_ca.benches_dir
            return [] if directory is None else benches.certificates(directory, device_id(device))

        revoker = Revoker(self._keys, store, crl, self._door, connected, now_ms=self._now_ms, benches=bench)
        audited = auditor(
            store,
            view,
            self._keys,
            crl,
            self._device_ca.crl_file.parent,
            self._site,
            now_ms=self._now_ms,
        )
        self.enrolling = Enrolling(enroller, store, revoker, audited)

    def start(self, record: Callable[[Draft], object], docking: Docking | None = None) -> None:
        """Listen to devices; *docking*: also for their files. *record* enters facts into the audit log."""
        self._listener = HttpsListener(
            create_app(self.enrolling.enroller, docking, self.releases),
            self._socket,
            cert_file=self._table.cert_file,
            key_file=self._table.key_file,
            name="enrolment",
        )
        if self._releasing is not None:
            self._releasing.start(record)
        self._freshening.start()  # first: after a rollover the broker has yet to read the new authority's list
        self._listener.start()

    def _freshen(self) -> None:
        """At the start, because the database may have come from a backup; then whenever it is due."""
        while not self._stopping.is_set():
            try:
                self.enrolling.revoker.keep_fresh()
            except (BrokerError, CaError, OSError, StoreError) as error:
                logger.warning("the list of revoked devices: %s", shown(error, 300))
            self._stopping.wait(FRESHEN_S)

    def stop(self) -> None:
        """In order."""
        self._stopping.set()
        if self._releasing is not None:
            self._releasing.stop()
        self._freshening.join(STOP_S)
        if self._listener is not None:
            self._listener.stop()


def made_from(config: Config, trusted: Trusted, *, now_ms: Callable[[], int]) -> Identities | None:
    """None: the configuration has no ``[enrolment]``. Raises CaError, OSError."""
    if config.enrolment is None or config.device_ca is None:
        return None
    broker = config.broker
    door = DoorSettings(
        host=broker.host,
        server_port=broker.port,
        device_port=config.enrolment.broker_port,
        ca_file=broker.ca_file,
        cert_file=broker.cert_file,
        key_file=broker.key_file,
        reload_command=broker.reload_command,
        reload_pid_file=broker.reload_pid_file,
        crl_file=config.device_ca.crl_file,
    )
    site, table = SiteId(config.site_id), config.releases
    releasing = None
    if table is not None:
        from fleet_server.releasing import Releasing  # noqa: PLC0415  # python-tuf, with what it may sign with

        releasing = Releasing(table, config.state_dir)
    return Identities(config.device_ca, config.enrolment, trusted, door, site, releasing, now_ms=now_ms)
