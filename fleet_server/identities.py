"""Wires what gives devices their identities: the authority's files, the store, the listener."""

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from broker_config.enrolment import BrokerPlace
from fleet_server.access.enroller import Enroller, EnrolmentSettings
from fleet_server.access.keys import MasterKey
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.api.app import Enrolling
from fleet_server.api.enrolling import create_app
from fleet_server.api.listener import HttpsListener
from fleet_server.config import Config, DeviceCa, EnrolmentTable
from fleet_server.registry.store import Registry

SIGNERS_BYTES_MAX: Final = 65_536


class Identities:
    """What runs beside telemetry: made, opened, started, stopped, in this order."""

    def __init__(
        self, device_ca: DeviceCa, table: EnrolmentTable, master: MasterKey, *, now_ms: Callable[[], int]
    ) -> None:
        """Raises CaError, OSError: a file or the port is not to be had."""
        self._device_ca = device_ca
        self._table = table
        self._master = master
        self._now_ms = now_ms
        self._keys = FileKeys(device_ca.cert_file, device_ca.key_file)
        self._server_ca_pem = table.server_ca_file.read_text(encoding="ascii")
        family = socket.AF_INET6 if ":" in table.host else socket.AF_INET
        self._socket = socket.create_server((table.host, table.port), family=family)
        self._listener: HttpsListener | None = None
        self.enrolling: Enrolling

    def open(self, engine: Engine, registry: Registry) -> None:
        """On the operators' database, migrated."""
        table = self._table

        def class_of(device: str) -> str | None:
            found = registry.device(device)
            return None if found is None or found.registered_ms is None else found.registration.device_class

        settings = EnrolmentSettings(
            broker=BrokerPlace(table.broker_host, table.broker_port),
            url=table.url,
            server_ca_pem=self._server_ca_pem,
            signers=lambda: _signers(table.signers_file),
            leaf_life=timedelta(days=self._device_ca.leaf_d),
            grace=timedelta(days=self._device_ca.grace_d),
        )
        store = SqlEnrolments(engine)
        enroller = Enroller(settings, self._keys, store, class_of, self._master, now_ms=self._now_ms)
        self.enrolling = Enrolling(enroller, store)

    def start(self) -> None:
        """Listen to devices."""
        self._listener = HttpsListener(
            create_app(self.enrolling.enroller),
            self._socket,
            cert_file=self._table.cert_file,
            key_file=self._table.key_file,
            name="enrolment",
        )
        self._listener.start()

    def stop(self) -> None:
        """In order."""
        if self._listener is not None:
            self._listener.stop()


def made_from(config: Config, master: MasterKey, *, now_ms: Callable[[], int]) -> Identities | None:
    """None: the configuration has no ``[enrolment]``. Raises CaError, OSError."""
    if config.enrolment is None or config.device_ca is None:
        return None
    return Identities(config.device_ca, config.enrolment, master, now_ms=now_ms)


def _signers(path: Path | None) -> str:
    """Read each time, so that a rotation reaches who enrols next; empty if the site has none."""
    if path is None or not path.is_file():
        return ""
    return path.read_bytes()[:SIGNERS_BYTES_MAX].decode("utf-8", "replace")
