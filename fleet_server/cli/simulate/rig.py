"""The site that a simulation runs on, the programs that serve it, and what of it is for a bench only.

What no real site has lies in ``bench-only/``: short-lived certificates of simulated devices, and a gateway that the
access list of this one site lets speak for every device. The product's own rendering knows no such role.
"""

import getpass
import hashlib
import os
import resource
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from broker_config.ids import DeviceId, SiteId, server_user
from broker_config.render import mosquitto
from broker_config.topics import ROOT, Down
from fleet_server import config
from fleet_server import site as plan
from fleet_server.access import ca, keys
from fleet_server.adapters import site_directory
from fleet_server.adapters.files import PRIVATE_DIRECTORY, PRIVATE_FILE
from fleet_server.adapters.mqtt import security
from fleet_server.cli.demo import rig as demo
from fleet_server.cli.demo.fleet import Broker
from fleet_server.cli.demo.programs import Part
from fleet_server.cli.server import Place

BENCH_ONLY: Final = "bench-only"
CERTIFICATE_DAYS: Final = 1
GATEWAY: Final = SiteId(hashlib.sha256(b"fieldfleet simulate: bench-only gateway").hexdigest())
"""Another site's name: whoever proves it is no server of this one."""
GATEWAY_CLIENT: Final = "_bench-only-gateway"
RECEIPTS: Final = f"{ROOT}/+/+/dn/{Down.RECEIPT}"
SESSIONS_MAX: Final = 15_000
FILES_KEPT: Final = 500
"""Of the files that a process may open, so many are for other things than sessions."""
SERVER_STOP_S_MAX: Final = 30.0
BROKER_STOP_S_MAX: Final = 10.0
BROKER: Final = "broker"
SERVER: Final = "server"
NAME: Final = "sim-{:06d}"


@dataclass(frozen=True, slots=True)
class Rig:
    """Where everything is. ``broker`` and ``server`` are None where somebody else runs them."""

    directory: Path
    site: plan.Site
    place: Place
    broker: Part | None = None
    server: Part | None = None

    @property
    def bench_only(self) -> Path:
        """What no real site has."""
        return self.directory / BENCH_ONLY

    @property
    def host(self) -> str:
        """Of the broker; an address where there is one, because a name would be looked up for each session."""
        return plan.LOOPBACK if self.site.hosts[0] == plan.HOST_ALWAYS[0] else self.site.hosts[0]

    def master(self) -> keys.MasterKey:
        """What every device's keys are derived from. Raises OSError, BadMasterKeyError."""
        return keys.MasterKey.parse((self.directory / plan.MASTER_KEY_FILE).read_text(encoding="ascii"))

    def reconnects_a_second_max(self) -> int:
        """What the server's configuration states. Raises ConfigError."""
        path = self.directory / plan.SERVER_CONFIG
        return config.parse(config.read_text(path), base=path.parent).broker.reconnects_a_second_max

    def stored_bytes(self) -> int:
        """What the server's store takes on the disk, its write-ahead log included."""
        state = self.directory / "server" / "state"
        return sum(path.stat().st_size for path in state.glob("*") if path.is_file())


def names(count: int) -> list[DeviceId]:
    """Of simulated devices."""
    return [DeviceId(NAME.format(number)) for number in range(1, count + 1)]


def build(
    directory: Path, *, broker: Broker, gateway: bool, reconnects_a_second_max: int | None, now: datetime
) -> Rig:
    """Make a site below *directory*, with a gateway if it is asked for.

    *reconnects_a_second_max*: for the server's configuration; None is its default.

    Raises:
        SiteError: *directory* is not empty, or cannot be made.
        NoBrokerError: Mosquitto is asked for and not there.
    """
    program = demo.find_broker() if broker is Broker.MOSQUITTO else None
    device_port, server_port, api_port = demo.free_ports(3)
    site = site_directory.create(
        directory,
        hosts=(plan.HOST_ALWAYS[0],),
        device_port=device_port,
        server_port=server_port,
        api_port=api_port,
        broker_user=getpass.getuser(),
        now=now,
    )
    (directory / BENCH_ONLY).mkdir(mode=PRIVATE_DIRECTORY)
    if gateway:
        _allow_gateway(directory, now)
    if reconnects_a_second_max is not None:
        _state_rate(directory / plan.SERVER_CONFIG, reconnects_a_second_max)
    return Rig(
        directory,
        site,
        Place(f"http://{plan.LOOPBACK}:{site.api_port}", directory / plan.TOKEN_FILE),
        _broker(directory, site, program),
        _server(directory),
    )


def found(directory: Path, place: Place) -> Rig:
    """A site whose broker and server run already.

    Raises:
        ConfigError: *directory* is no site.
    """
    rig = Rig(directory, site_directory.read_site(directory), place)
    rig.bench_only.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    return rig


def _state_rate(path: Path, reconnects_a_second_max: int) -> None:
    table = "[broker]\n"
    text = path.read_text(encoding="utf-8")
    stated = text.replace(table, f"{table}reconnects_a_second_max = {reconnects_a_second_max}\n", 1)
    path.write_text(stated, encoding="utf-8")


def _allow_gateway(directory: Path, now: datetime) -> None:
    issued = ca.issue_server(_issued(directory, plan.SERVER_CA), GATEWAY, now=now, days=CERTIFICATE_DAYS)
    _write_private(directory / BENCH_ONLY / "gateway.crt", issued.certificate_pem)
    _write_private(directory / BENCH_ONLY / "gateway.key", issued.key_pem)
    access = directory / plan.BROKER_DIRECTORY / mosquitto.ACL_FILE
    lines = (
        "",
        "# bench-only, by `fieldfleet simulate`: a gateway that speaks for every device. Never on a real site.",
        f"user {server_user(GATEWAY)}",
        f"topic write {ROOT}/+/+/up/#",
        f"topic read {RECEIPTS}",
        "",
    )
    with access.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines))


def gateway_security(rig: Rig) -> ssl.SSLContext:
    """What proves the gateway. Raises OSError: this site has none."""
    at = rig.bench_only
    return security(rig.directory / f"{plan.SERVER_CA}.crt", at / "gateway.crt", at / "gateway.key")


def mint(rig: Rig, devices: Sequence[DeviceId], *, now: datetime) -> list[Path]:
    """A short-lived certificate with its key for each of *devices*, one file each.

    Raises:
        OSError: the site's device authority cannot be read.
        CaError: it is none.
    """
    authority = _issued(rig.directory, plan.DEVICE_CA)
    directory = rig.bench_only / "devices"
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    made: list[Path] = []
    for device in devices:
        issued = ca.issue_device(authority, device, now=now, days=CERTIFICATE_DAYS)
        path = directory / f"{device}.pem"
        _write_private(path, issued.certificate_pem + issued.key_pem)
        made.append(path)
    return made


def device_security(rig: Rig, certificate: Path) -> ssl.SSLContext:
    """Mutual TLS of one device. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(rig.directory / f"{plan.SERVER_CA}.crt")
    context.load_cert_chain(certificate)
    return context


def sessions_fit() -> int:
    """Raise the bound on open files as far as we may; how many sessions fit under it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return SESSIONS_MAX
    return min(SESSIONS_MAX, hard - FILES_KEPT)


def processor_s(pid: int) -> float:
    """Processor time that a process has used, its threads' included; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # the name in parentheses may hold anything; utime and stime are the 12th and 13th behind it
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _broker(directory: Path, site: plan.Site, program: str | None) -> Part:
    at = directory / plan.BROKER_DIRECTORY
    if program is not None:
        return _part(directory, BROKER, [program, "-c", plan.BROKER_CONFIG], at, BROKER_STOP_S_MAX)
    command = [sys.executable, "-m", "broker_config.embedded", "--directory", str(at), "--site", site.site_id]
    command += ["--device-host", plan.LOOPBACK, "--device-port", str(site.device_port)]
    command += ["--server-host", plan.LOOPBACK, "--server-port", str(site.server_port)]
    return _part(directory, BROKER, command, at, BROKER_STOP_S_MAX)


def _server(directory: Path) -> Part:
    config = directory / plan.SERVER_CONFIG
    command = [sys.executable, "-m", "fleet_server", "run", "--config", str(config)]
    return _part(directory, SERVER, command, config.parent, SERVER_STOP_S_MAX)


def _part(directory: Path, name: str, command: list[str], at: Path, stop_s_max: float) -> Part:
    # SQLite's temporary files go with the directory
    environment = {"TMPDIR": str(directory / BENCH_ONLY)}
    return Part(name, command, at, directory / f"{name}.log", stop_s_max, environment)


def _issued(directory: Path, name: str) -> ca.Issued:
    return ca.Issued((directory / f"{name}.crt").read_bytes(), (directory / f"{name}.key").read_bytes())


def _write_private(path: Path, content: bytes) -> None:
    """Not durably: a simulation that the power cuts is begun anew."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, PRIVATE_FILE)) as file:
        file.write(content)
