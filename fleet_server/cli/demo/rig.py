"""The demo's site: made as any site is, with four devices that enrol; and every program that makes it live."""

import getpass
import random
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final, assert_never

from broker_config.ids import DeviceId
from fleet_server import site as plan
from fleet_server.adapters import site_directory
from fleet_server.adapters.files import make_private_directory
from fleet_server.cli.demo.fleet import FLEET, LOGS, VIDEO, Broker, Instrument, Member, agent_config, hastened
from fleet_server.cli.demo.outages import Kind, Outage
from fleet_server.cli.demo.programs import Part
from fleet_server.cli.server import Place

PORTS_DIRECTORY: Final = "ports"
TEMPORARY_DIRECTORY: Final = "tmp"
# Below the range that the kernel gives to outgoing connections.
PORTS: Final = range(20_000, 32_000)
PORT_TRIES_MAX: Final = 200
MOSQUITTO: Final = "mosquitto"
SYSTEM_DIRECTORIES: Final = "/usr/sbin:/usr/local/sbin"
"""Where Debian puts servers, which is not on every user's path."""
CONFINED_WORDS: Final = "Unable to open config file"
CONFINED_HINT: Final = (
    "Ubuntu from 25.04 on lets Mosquitto read /etc/mosquitto only (AppArmor); for the demo: sudo aa-disable mosquitto"
)

AGENT_STOP_S_MAX: Final = 15.0
SERVER_STOP_S_MAX: Final = 10.0
STOP_S_MAX: Final = 5.0
PROFILES_OF: Final = "edge_agent"
"""The package whose ``profiles`` are read; it is found, not imported."""
BROKER: Final = "broker"
SERVER: Final = "server"
SIGNER: Final = "signer"
FFMPEG: Final = "ffmpeg"
RECORDINGS_MAX: Final = 100_000
RECORDING_S: Final = 6.0
SEGMENT_S: Final = 2.0
LOG_EVERY_S: Final = 2.0
FILES: Final = Path("state/files")
"""Below a device's directory: where the agent looks for what it is to upload."""


class NoBrokerError(Exception):
    """There is no Mosquitto on this machine; the message says how to get it."""


class NoAgentError(Exception):
    """The agent's package is not installed beside ours; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Rig:
    """Where everything of a demo is, and the parts that make it. ``links``: the port that each device connects to;
    ``networked``: that of each instrument that is on a network.
    """

    directory: Path
    site: plan.Site
    broker: Part
    links: Mapping[DeviceId, int]
    networked: Mapping[tuple[DeviceId, str], int]
    place: Place
    profiles: Path

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """In the order in which they are shown."""
        return tuple(member.device for member in FLEET)

    def server(self) -> Part:
        """``fleet-server run``."""
        config = self.directory / plan.SERVER_CONFIG
        command = [sys.executable, "-m", "fleet_server", "run", "--config", str(config)]
        return _part(self.directory, SERVER, command, config.parent, SERVER_STOP_S_MAX)

    def signer(self) -> Part:
        """``fleet-server signer``."""
        config = self.directory / plan.SERVER_CONFIG
        command = [sys.executable, "-m", "fleet_server", "signer", "--config", str(config)]
        return _part(self.directory, SIGNER, command, config.parent, STOP_S_MAX)

    def recorder(self, device: DeviceId) -> Part:
        """What makes the device's files, one recording behind the other: video if there is ffmpeg, else logs."""
        command = [sys.executable, "-m", "firmware_bridge.peripherals.recorder", "--prefix", "demo"]
        command += ["--folder", str(self.files(device)), "--recordings", str(RECORDINGS_MAX)]
        if has_video():
            command += ["--seconds", str(RECORDING_S), "--segment-s", str(SEGMENT_S)]
        else:
            command += ["--logs", "--seconds", str(LOG_EVERY_S)]
        return _part(self.directory, f"recorder of {device}", command, self.directory, STOP_S_MAX)

    def files(self, device: DeviceId) -> Path:
        """The folder from which the device uploads."""
        return self.directory / "devices" / device / FILES / (VIDEO if has_video() else LOGS)

    @property
    def recording(self) -> tuple[DeviceId, ...]:
        """Devices that make files."""
        return tuple(member.device for member in FLEET if member.records)

    def agent(self, device: DeviceId) -> Part:
        """``edge-agent run`` of one device."""
        config = self.agent_config(device)
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
        return _part(self.directory, f"agent of {device}", command, config.parent, AGENT_STOP_S_MAX)

    def link(self, device: DeviceId) -> Part:
        """The network between a device and the broker."""
        ports = ["--listen", str(self.links[device]), "--to", str(self.site.device_port)]
        command = [sys.executable, "-m", "fleet_server.cli.demo.link", *ports]
        return _part(self.directory, f"link of {device}", command, self.directory, STOP_S_MAX)

    def instruments(self, device: DeviceId) -> list[Part]:
        """What is plugged into a device."""
        (member,) = (member for member in FLEET if member.device == device)
        return [self._instrument(device, instrument) for instrument in member.instruments]

    def _instrument(self, device: DeviceId, instrument: Instrument) -> Part:
        port = self.port(device, instrument)
        command = [sys.executable, "-m", "firmware_bridge.peripherals", instrument.kind, "--link", str(port)]
        command += ["--seed", str(instrument.seed)]
        if instrument.network:
            command += ["--port", str(self.networked[device, instrument.address])]
        return _part(self.directory, f"{instrument.kind} of {device}", command, self.directory, STOP_S_MAX)

    def port(self, device: DeviceId, instrument: Instrument) -> Path:
        """The link to the terminal at whose far end an instrument is played, or the mark that it is at its port."""
        return self.directory / "devices" / device / PORTS_DIRECTORY / instrument.address

    def plugged(self) -> bool:
        """Whether every instrument is there."""
        return all(self.port(member.device, each).exists() for member in FLEET for each in member.instruments)

    def enrol(self, device: DeviceId, claim: str) -> Part:
        """``edge-agent enroll`` of one device."""
        at = self.directory / "devices" / device
        command = [sys.executable, "-m", "edge_agent", "enroll", "--claim", claim, "--dir", str(at)]
        command += ["--server", f"https://{plan.LOOPBACK}:{self.site.enrolment_port}"]
        command += ["--ca", str(self.directory / plan.SERVER_CONFIG_DIRECTORY / "server-ca.crt")]
        return _part(self.directory, f"enrolment of {device}", command, self.directory, STOP_S_MAX)

    def wire(self, member: Member) -> None:
        """Make an enrolled device one of the demo: a cadence that one can watch, its instruments, its link."""
        at = self.directory / "devices" / member.device
        profile = (self.profiles / f"{member.device_class}.toml").read_text(encoding="utf-8")
        (at / "profile.toml").write_text(hastened(profile), encoding="utf-8")
        config = self.agent_config(member.device)
        text = config.read_text(encoding="utf-8")
        addresses = {each.address: self._address(member.device, each) for each in member.instruments}
        text = agent_config(text, member=member, link_port=self.links[member.device], addresses=addresses)
        config.write_text(text, encoding="utf-8")

    def _address(self, device: DeviceId, instrument: Instrument) -> str:
        """As the device's profile takes it."""
        if instrument.network:
            return f"udp:{plan.LOOPBACK}:{self.networked[device, instrument.address]}"
        return str(self.port(device, instrument))

    def agent_config(self, device: DeviceId) -> Path:
        """For ``edge-agent``."""
        return self.directory / "devices" / device / plan.AGENT_CONFIG

    def parts(self, outage: Outage) -> list[Part]:
        """What goes down with *outage*."""
        if outage.device is None:
            return [self.broker]
        match outage.kind:
            case Kind.LINK:
                return [self.link(outage.device)]
            case Kind.AGENT:
                return [self.agent(outage.device)]
            case Kind.INSTRUMENTS:
                return self.instruments(outage.device)
            case Kind.BROKER:
                return [self.broker]
            case _:
                assert_never(outage.kind)


def has_video() -> bool:
    """Whether there is what makes video here."""
    return shutil.which(FFMPEG) is not None


def find_broker() -> str:
    """The path of Mosquitto. Raises NoBrokerError."""
    found = shutil.which(MOSQUITTO) or shutil.which(MOSQUITTO, path=SYSTEM_DIRECTORIES)
    if found is None:
        raise NoBrokerError(
            "Mosquitto is not installed: sudo apt-get install mosquitto, or leave --broker out for the embedded one"
        )
    return found


def build(directory: Path, *, broker: Broker, now: datetime) -> Rig:
    """Make the site below *directory*, and for each device the place where its instruments are.

    Raises:
        SiteError: *directory* is not empty, or cannot be made.
        NoBrokerError: Mosquitto is asked for and not there.
        NoAgentError: the agent is not installed.
    """
    program = find_broker() if broker is Broker.MOSQUITTO else None
    profiles = _profiles()
    on_networks = [(member.device, each.address) for member in FLEET for each in member.instruments if each.network]
    device_port, server_port, api_port, enrolment_port, *others = free_ports(4 + len(FLEET) + len(on_networks))
    site = site_directory.create(
        directory,
        hosts=(plan.HOST_ALWAYS[0],),
        device_port=device_port,
        server_port=server_port,
        api_port=api_port,
        enrolment_port=enrolment_port,
        # so that a broker that root starts can read root's files
        broker_user=getpass.getuser(),
        now=now,
    )
    (directory / TEMPORARY_DIRECTORY).mkdir()
    for member in FLEET:
        make_private_directory(directory / "devices" / member.device / PORTS_DIRECTORY)
    place = Place(f"http://{plan.LOOPBACK}:{site.api_port}", directory / plan.TOKEN_FILE)
    links = dict(zip((member.device for member in FLEET), others[: len(FLEET)], strict=True))
    networked = dict(zip(on_networks, others[len(FLEET) :], strict=True))
    return Rig(directory, site, _broker(directory, site, program), links, networked, place, profiles)


def _broker(directory: Path, site: plan.Site, mosquitto: str | None) -> Part:
    """Mosquitto at the path that is given, or the embedded broker, on the same files and ports."""
    at = directory / plan.BROKER_DIRECTORY
    if mosquitto is not None:
        return _part(directory, BROKER, [mosquitto, "-c", plan.BROKER_CONFIG], at, STOP_S_MAX)
    command = [sys.executable, "-m", "broker_config.embedded", "--directory", str(at), "--site", site.site_id]
    command += ["--device-host", plan.LOOPBACK, "--device-port", str(site.device_port)]
    command += ["--server-host", plan.LOOPBACK, "--server-port", str(site.server_port)]
    command += ["--crl-file", plan.CRL_FILE, "--pid-file", plan.PID_FILE]
    return _part(directory, BROKER, command, at, STOP_S_MAX)


def _part(directory: Path, name: str, command: list[str], at: Path, stop_s_max: float) -> Part:
    """Its temporary files are in *directory*, so that they go with it."""
    return Part(
        name=name,
        command=command,
        directory=at,
        log=directory / f"{name.replace(' ', '-')}.log",
        stop_s_max=stop_s_max,
        environment={"TMPDIR": str(directory / TEMPORARY_DIRECTORY)},
    )


def _profiles() -> Path:
    """Where the shipped profiles are."""
    found = find_spec(PROFILES_OF)
    if found is None or found.origin is None:
        raise NoAgentError("the agent is not installed here: pip install 'fieldfleet[agent,bridge,server]'")
    return Path(found.origin).parent / "profiles"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now. Raises OSError: none are left."""
    found: list[int] = []
    for port in random.sample(PORTS, PORT_TRIES_MAX):
        if len(found) == count:
            break
        with socket.socket() as probe:
            if probe.connect_ex((plan.LOOPBACK, port)) != 0:
                found.append(port)
    if len(found) < count:
        raise OSError(f"fewer than {count} free ports among {PORT_TRIES_MAX}")
    return found


def accepts(port: int) -> bool:
    """Whether somebody listens on the loopback's *port*."""
    with socket.socket() as probe:
        return probe.connect_ex((plan.LOOPBACK, port)) == 0
