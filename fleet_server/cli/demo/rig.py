"""The demo's site: made as any site is, with one device that reports this machine's own readings every second."""

import getpass
import random
import re
import shutil
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from broker_config.ids import DeviceId, device_id
from fleet_server import site as plan
from fleet_server.adapters import site_directory
from fleet_server.cli.server import Place

DEVICE_CLASS: Final = "host"
DEVICE_NAME_CHARS_MAX: Final = 63
EVERY_S: Final = 1
SEAL_S: Final = 1
STOP_DRAIN_S: Final = 5
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

PROFILE: Final = f"""\
# This machine as a device of class "host", read every second so that there is something to see.
device_class = "{DEVICE_CLASS}"

[[wires]]
stream = "cpu"
driver = "host.cpu"
every_s = {EVERY_S}

[[wires]]
stream = "memory"
driver = "host.memory"
every_s = {EVERY_S}

[[wires]]
stream = "storage"
driver = "host.storage"
every_s = {EVERY_S}
options = {{ path = "{{state_dir}}" }}

[[wires]]
stream = "network"
driver = "host.network"
every_s = {EVERY_S}

[[wires]]
stream = "temperature"
driver = "host.temperature"
every_s = {EVERY_S}
optional = true
"""


class NoBrokerError(Exception):
    """There is no Mosquitto on this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Rig:
    """Where everything of a demo is."""

    directory: Path
    device: DeviceId
    broker_program: str
    device_port: int
    server_port: int
    place: Place

    @property
    def broker_directory(self) -> Path:
        """Where the broker is started."""
        return self.directory / plan.BROKER_DIRECTORY

    @property
    def server_config(self) -> Path:
        """For ``fleet-server run``."""
        return self.directory / plan.SERVER_CONFIG

    @property
    def agent_config(self) -> Path:
        """For ``edge-agent run``."""
        return self.directory / "devices" / self.device / plan.AGENT_CONFIG

    def log(self, name: str) -> Path:
        """Of one program."""
        return self.directory / f"{name}.log"


def find_broker() -> str:
    """The path of Mosquitto. Raises NoBrokerError."""
    found = shutil.which(MOSQUITTO) or shutil.which(MOSQUITTO, path=SYSTEM_DIRECTORIES)
    if found is None:
        raise NoBrokerError("Mosquitto is not installed, and the demo needs it: sudo apt-get install mosquitto")
    return found


def build(directory: Path, *, broker_program: str, now: datetime) -> Rig:
    """Make the site and its device below *directory*.

    Raises:
        SiteError: *directory* is not empty, or cannot be made.
    """
    device_port, server_port, api_port = free_ports(3)
    site = site_directory.create(
        directory,
        hosts=(plan.HOST_ALWAYS[0],),
        device_port=device_port,
        server_port=server_port,
        api_port=api_port,
        # so that a broker that root starts can read root's files
        broker_user=getpass.getuser(),
        now=now,
    )
    device = this_machine(socket.gethostname())
    made = site_directory.add_device(directory, device, DEVICE_CLASS, now=now)
    (made / "profile.toml").write_text(PROFILE, encoding="utf-8")
    config = made / plan.AGENT_CONFIG
    text = config.read_text(encoding="utf-8").replace(
        f'profile = "{DEVICE_CLASS}"\n',
        f'profile = "profile.toml"\nseal_s = {SEAL_S}\nstop_drain_s = {STOP_DRAIN_S}\n',
    )
    config.write_text(text, encoding="utf-8")
    place = Place(f"http://{plan.LOOPBACK}:{site.api_port}", directory / plan.TOKEN_FILE)
    return Rig(directory, device, broker_program, device_port, server_port, place)


def this_machine(host_name: str) -> DeviceId:
    """A device id made of a host's name."""
    name = re.sub(r"[^a-z0-9]+", "-", host_name.lower()).strip("-")
    return device_id(f"demo-{name or 'host'}"[:DEVICE_NAME_CHARS_MAX])


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
