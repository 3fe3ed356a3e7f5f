"""An enrolment listener as the product has it, on loopback, with a clock that a test sets."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp

from broker_config import signing
from broker_config.enrolment import BrokerPlace
from broker_config.trust import STEPS_MAX
from fleet_server.access import ca
from fleet_server.access.enroller import Enroller, EnrolmentSettings
from fleet_server.access.keys import MasterKey
from fleet_server.adapters.authority import FileKeys
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.enrolment import SqlEnrolments
from fleet_server.api.enrolling import create_app
from fleet_server.api.listener import HttpsListener
from fleet_server.evidence.docking import Docking
from fleet_server.releases.store import Releases
from tests.servers import HOST, accepts, free_port, wait_until
from tests.steps import ROOTS

REGISTERED: Final = frozenset({"car-7", "car-8"})
DAY_MS: Final = 86_400_000


@dataclass
class Office:
    """Where devices get their identities. ``now_ms`` is what its clock says."""

    directory: Path
    port: int
    enroller: Enroller
    store: SqlEnrolments
    keys: FileKeys
    clock: list[int] = field(default_factory=list)
    adopted: set[int] = field(default_factory=set)
    """Serials that the list of revoked devices does not have, while the operator lets what is unknown renew."""

    steps: list[str] = field(default_factory=list)
    """Of the signers: what it says follows version 1, whether it does or not."""
    masters: list[MasterKey] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.directory / "server-ca.crt"

    def claim(self, device: str = "car-7", life_ms: int = 3_600_000) -> str:
        (made,) = self.enroller.make_claims([device], made_by="operator", life_ms=life_ms)
        return made.code

    def later(self, days: float) -> None:
        """Set its clock forward."""
        self.clock[0] += int(days * DAY_MS)


def class_of(device: str) -> str | None:
    """What the registry would say."""
    return "host" if device in REGISTERED else None


@contextmanager
def office(
    directory: Path,
    *,
    old: bool = False,
    docking: Docking | None = None,
    releases: Releases | None = None,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Iterator[Office]:
    """Running, and ended with the block. *old*: the authority signed itself, as on sites of before. *docking*: it
    takes files, too. *releases*: it gives images. *around*: what stands between it and the devices.
    """
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    root, server_ca = ca.new_root("root", now=now), ca.new_ca("server", now=now)
    authority = ca.new_ca("devices", now=now) if old else ca.new_intermediate(root, "devices", now=now)
    own = ca.issue_broker(server_ca, [HOST], now=now)
    for name, data in {
        "device-ca.crt": authority.certificate_pem + (b"" if old else root.certificate_pem),
        "device-ca.key": authority.key_pem,
        "server-ca.crt": server_ca.certificate_pem,
        "enrolment.crt": own.certificate_pem,
        "enrolment.key": own.key_pem,
    }.items():
        (directory / name).write_bytes(data)
    engine = database.connect(database.sqlite_url(directory / "operators.db"))
    database.migrate(engine)
    clock = [int(now.timestamp() * 1000)]
    keys = FileKeys(directory / "device-ca.crt", directory / "device-ca.key")
    store = SqlEnrolments(engine)
    port, adopted = free_port(), set[int]()
    steps: list[str] = []
    masters = [MasterKey(b"\1" * 32)]
    settings = EnrolmentSettings(
        broker=BrokerPlace("localhost", 8883),
        url=f"https://{HOST}:{port}",
        server_ca_pem=server_ca.certificate_pem.decode(),
        signers=lambda: signing.encode(ROOTS).decode(),
        steps=lambda version: tuple(steps[version - 1 :][:STEPS_MAX]),
        leaf_life=timedelta(days=30),
        adopts=lambda serial: serial in adopted,
        release_root=lambda: "" if releases is None else releases.root(),
    )
    enroller = Enroller(settings, keys, store, class_of, lambda: masters[-1], now_ms=lambda: clock[0])
    listener = HttpsListener(
        around(create_app(enroller, docking, releases)),
        socket.create_server((HOST, port)),
        cert_file=directory / "enrolment.crt",
        key_file=directory / "enrolment.key",
        name="enrolment",
    )
    listener.start()
    try:
        wait_until(lambda: accepts(port), "the listener accepts")
        yield Office(directory, port, enroller, store, keys, clock, adopted, steps, masters)
    finally:
        listener.stop()
        engine.dispose()
