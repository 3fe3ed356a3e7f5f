"""The product as it runs, on one machine, with everything that can go wrong in reach.

    far end --ascii_query--> edge-agent --TLS--> proxy --> Mosquitto <-- proxy <--TLS-- fleet-server --> store
                                                              ^ tap

A site made as an operator makes it; only its times are shorter, its disks smaller, and its links cuttable.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from broker_config.ids import DeviceId, device_id, server_client_id, server_user
from broker_config.mac import MacKey, Purpose
from broker_config.render import mosquitto as rendering
from fleet_server.access import ca
from fleet_server.access.keys import MasterKey, derive
from fleet_server.adapters import mqtt, site_directory
from fleet_server.site import MASTER_KEY_FILE, SERVER_CONFIG, TOKEN_FILE
from tests.disks import Disk
from tests.faults.api import Api, ApiDownError, Json
from tests.faults.background import Background
from tests.faults.programs import ROOT, LyingClock, Program, faketime_library, why_no_disks
from tests.faults.proxy import Proxy
from tests.faults.tap import TAP_SITE, Tap
from tests.faults.witness import CARRIERS, DEVICE_CLASS, Emitted
from tests.faults.witness import read as read_witness
from tests.servers import HOST, Credentials, Mosquitto, free_ports, wait_until

SETTLE_S_MAX: Final = 60.0
DEVICE: Final = device_id("car-7")


@dataclass(frozen=True, slots=True, kw_only=True)
class RigSettings:
    """Times that let a fault and its healing pass in seconds; everything else is the product's default."""

    every_s: float = 0.25
    deadline_s: float = 2.0
    seal_s: float = 0.75
    stop_drain_s: float = 2.0
    keep_alive_s: int = 2
    receipt_wait_s: float = 1.0
    backoff_s_min: float = 0.05
    backoff_s_cap: float = 0.4
    stable_s: float = 1.0
    hold_h: float = 48.0
    spool_bytes_max: int = 128 * 1024
    """About a minute of readings: what was receipted is soon trimmed, so that a receipt is all that holds it."""
    ntp: str = "kernel"
    rtt_ms_max: int = 10_000
    lease_ttl_s: float = 0.8
    store_seal_every_s: float = 3.0
    receipt_linger_ms: int = 300
    quarantine_bytes_max: int = 4 * 1024 * 1024
    agent_disk_bytes: int = 24 * 1024 * 1024
    server_disk_bytes: int = 96 * 1024 * 1024
    server_module: str = "fleet_server"
    link_bytes_s: float = 0
    """Of both links; 0 is as fast as it goes."""
    agent_link_bytes_s: float = 0
    """Of the agent's alone."""

    @property
    def silence_s(self) -> float:
        """Between two batches, more than this is a silence."""
        return 3 * self.every_s + self.seal_s


class Rig:
    """Everything is laid out when made and runs once entered; leaving ends it all, whatever happened."""

    def __init__(self, directory: Path, settings: RigSettings | None = None, *, disks: bool = False) -> None:
        self.directory = directory
        self.settings = settings or RigSettings()
        self.witness_file = directory / "witness"
        self.agent_disk: Disk | None = None
        self.server_disk: Disk | None = None
        self._disks = disks and why_no_disks() is None
        self._exit = ExitStack()
        directory.mkdir(parents=True, exist_ok=True)
        self.site_directory = directory / "site"
        device_port, server_port, api_port = free_ports(3)
        self.site = site_directory.create(
            self.site_directory,
            hosts=(HOST,),
            device_port=device_port,
            server_port=server_port,
            api_port=api_port,
            broker_user=pwd.getpwuid(os.geteuid()).pw_name,
            now=datetime.now(UTC),
        )
        site_directory.add_device(self.site_directory, DEVICE, DEVICE_CLASS, now=datetime.now(UTC))
        self.broker = Mosquitto(
            self.site_directory / "broker",
            device_port,
            server_port,
            self._authority("device-ca"),
            self._authority("server-ca"),
            site=self.site.site_id,
        )
        self.master = MasterKey.parse((self.site_directory / MASTER_KEY_FILE).read_text("ascii"))
        self.api = Api(
            f"http://{HOST}:{self.site.api_port}", (self.site_directory / TOKEN_FILE).read_text("ascii").strip()
        )
        self.agent = Program(
            "edge-agent",
            [sys.executable, "-m", "edge_agent", "run", "--config", str(self.agent_file)],
            directory / "agent.log",
        )
        self.server = Program(
            "fleet-server",
            [sys.executable, "-m", self.settings.server_module, "run", "--config", str(self.server_file)],
            directory / "server.log",
        )
        self.clock = LyingClock(directory / "clock")

    # where things are

    @property
    def agent_directory(self) -> Path:
        """The device's own."""
        return self.site_directory / "devices" / DEVICE

    @property
    def agent_file(self) -> Path:
        """``agent.toml``."""
        return self.agent_directory / "agent.toml"

    @property
    def agent_state(self) -> Path:
        """Where the spool is."""
        return self.agent_directory / "state"

    @property
    def server_file(self) -> Path:
        """``fleet-server.toml``."""
        return self.site_directory / SERVER_CONFIG

    @property
    def server_state(self) -> Path:
        """Where the store is."""
        return self.server_file.parent / "state"

    def device_key(self, purpose: Purpose, device: DeviceId = DEVICE) -> MacKey:
        """What the server signs with."""
        return derive(self.master, purpose, device)

    def device_credentials(self, device: DeviceId) -> Credentials:
        """The certificate of any device of this site."""
        return self.broker.device(device)

    # its life

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _begin(self) -> None:
        background = Background()
        self._exit.callback(background.close)
        self.background = background
        self._configure_broker()
        self._exit.callback(self.broker.kill)
        self.broker.start()
        self.agent_link = self._proxy(self.broker.device_port, self.settings.agent_link_bytes_s)
        self.server_link = self._proxy(self.broker.server_port)
        self.tap = Tap(self._tap_settings(), DEVICE, self.device_key(Purpose.RECEIPT))
        background.keep(self.tap.run())
        if self._disks:
            self.agent_disk = Disk(self.agent_state, self.settings.agent_disk_bytes)
            self._exit.callback(self.agent_disk.close)
            self.server_disk = Disk(self.server_state, self.settings.server_disk_bytes)
            self._exit.callback(self.server_disk.close)
        self.ports = self._far_end()
        self.configure_server()
        self.configure_agent()
        self._exit.callback(self.server.kill)
        self._exit.callback(self.agent.kill)

    def run(self) -> None:
        """Server and agent too, until the first reading of each stream is receipted."""
        self.start_server()
        wait_until(lambda: self.tap.connected, "the tap listens")
        self.agent.start()
        self.settle()

    def _authority(self, name: str) -> ca.Issued:
        base = self.site_directory / "ca" / name
        return ca.Issued(base.with_suffix(".crt").read_bytes(), base.with_suffix(".key").read_bytes())

    def _configure_broker(self) -> None:
        self.broker.configure()
        with (self.broker.directory / rendering.ACL_FILE).open("a", encoding="utf-8") as acl:
            acl.write(
                f"\n# The tap of a fault run, which may hear and say everything.\nuser {server_user(TAP_SITE)}\n"
            )
            acl.write("topic readwrite ff/1/#\n")

    def _tap_settings(self) -> mqtt.LinkSettings:
        issued = ca.issue_server(self.broker.server_ca, TAP_SITE, now=datetime.now(UTC))
        paths = self.broker.credentials("_tap", issued)
        return mqtt.LinkSettings(
            host=HOST,
            port=self.broker.server_port,
            client_id=server_client_id(TAP_SITE),
            keep_alive_s=30,
            security=mqtt.security(paths.ca, paths.certificate, paths.key),
            session_expiry_s=0,
        )

    def _proxy(self, port: int, rate_bytes_s: float = 0) -> Proxy:
        proxy = Proxy(port, rate_bytes_s=rate_bytes_s or self.settings.link_bytes_s)
        self.background.call(proxy.start())
        return proxy

    def _far_end(self) -> dict[str, int]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.far_end", "--witness", str(self.witness_file)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

        self._exit.callback(end)
        assert process.stdout is not None
        ports: dict[str, int] = json.loads(process.stdout.readline())
        return ports

    # configuration

    def configure_server(self, **changes: object) -> None:
        """Write ``fleet-server.toml``; counts from the server's next start. *changes*: of the settings."""
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        s = self.settings
        self.server_file.write_text(
            f"""\
site_id = "{self.site.site_id}"
state_dir = "state"

[broker]
host = "{HOST}"
port = {self.server_link.port}
ca_file = "server-ca.crt"
cert_file = "server.crt"
key_file = "server.key"
keep_alive_s = {s.keep_alive_s}

[mac]
master_key_file = "master.key"

[signer]
socket_file = "state/signer.sock"
key_file = "signing.key"
counter_file = "state/signer.counter"

[lease]
ttl_s = {s.lease_ttl_s}

[ingest]
receipt_linger_ms = {s.receipt_linger_ms}
quarantine_bytes_max = {s.quarantine_bytes_max}

[seal]
every_s = {s.store_seal_every_s}

[api]
port = {self.site.api_port}
token_file = "api-token"

[audit]
key_file = "audit.key"
""",
            encoding="utf-8",
        )

    def configure_agent(self, **changes: object) -> None:
        """Write ``agent.toml`` and its profile; counts from the agent's next start. *changes*: of the settings."""
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        s = self.settings
        self.agent_file.write_text(
            f"""\
device = "{DEVICE}"
device_class = "{DEVICE_CLASS}"
profile = "./profile.toml"
state_dir = "state"
seal_s = {s.seal_s}
stop_drain_s = {s.stop_drain_s}

[broker]
host = "{HOST}"
port = {self.agent_link.port}
ca_file = "server-ca.crt"
cert_file = "device.crt"
key_file = "device.key"
keep_alive_s = {s.keep_alive_s}

[receipts]
mac_file = "mac.json"
receipt_wait_s = {s.receipt_wait_s}

[orders]
signers_file = "signers.json"

[spool]
bytes_max = {s.spool_bytes_max}
hold_h = {s.hold_h}

[backoff]
s_min = {s.backoff_s_min}
s_cap = {s.backoff_s_cap}
stable_s = {s.stable_s}

[clock]
rtt_ms_max = {s.rtt_ms_max}

[system]
ntp = "{s.ntp}"
""",
            encoding="utf-8",
        )
        wires = [
            f"""
[[wires]]
stream = "{stream}"
driver = "ascii_query"
every_s = {s.every_s}
deadline_s = {s.deadline_s}
options = {{ at = "tcp:{HOST}:{self.ports[stream]}" }}
"""
            for stream in CARRIERS
        ]
        (self.agent_directory / "profile.toml").write_text(
            f'device_class = "{DEVICE_CLASS}"\n{"".join(wires)}', encoding="utf-8"
        )

    # doing

    def start_server(self) -> None:
        """Start it and wait until it is connected to the broker."""
        self.server.start()
        self.wait(lambda: self.api.linked, "the server serves", self.server)

    def wait(self, ready: Callable[[], bool], what: str, *alive: Program, seconds_max: float = SETTLE_S_MAX) -> None:
        """Poll until *ready*; a program of *alive* that ends meanwhile ends the waiting too, with its last words."""

        def looked() -> bool:
            for program in alive:
                if not program.running:
                    raise AssertionError(f"{what}: {program.name} has ended: {program.log()[-2000:]}")
            return ready()

        try:
            wait_until(looked, what, seconds_max)
        except TimeoutError as error:
            logs = "\n".join(f"--- {p.name}\n{p.log()[-3000:]}" for p in (self.agent, self.server))
            raise AssertionError(f"{error}\n{logs}") from error

    def settle(self) -> float:
        """Wait until of every stream a reading emitted from now on is receipted; return how long it took."""
        began_s = time.monotonic()
        newest: dict[str, int] = {}
        for emitted in self.emitted():
            newest[emitted.stream] = emitted.n

        def settled() -> bool:
            return all(self.tap.newest_receipted(stream) > newest.get(stream, 0) for stream in CARRIERS)

        self.wait(settled, "a reading of each stream, emitted from now on, is receipted", self.agent)
        return time.monotonic() - began_s

    def drained(self) -> bool:
        """Whether there is no number that the server knows of and the device still holds."""
        try:
            return next(self.api.pages("/v1/gaps", "gaps", device=DEVICE, reason="waiting"), None) is None
        except ApiDownError:
            return False

    def emitted(self) -> list[Emitted]:
        """What the far end gave away until now."""
        return read_witness(self.witness_file) if self.witness_file.exists() else []

    def server_command(self, *arguments: str) -> str:
        """``fleet-server ARGUMENTS --config ...``, and what it prints."""
        name, *rest = arguments
        done = subprocess.run(
            [sys.executable, "-m", "fleet_server", name, "--config", str(self.server_file), *rest],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"fleet-server {name}: exit code {done.returncode}: {done.stderr[-2000:]}"
        return done.stdout

    def keep_image(self, image: Path) -> None:
        """Copy the spool of an agent that does not run."""
        assert not self.agent.running
        shutil.rmtree(image, ignore_errors=True)
        shutil.copytree(self.agent_state, image)

    def put_image_back(self, image: Path) -> None:
        """The spool is what it was when *image* was taken."""
        assert not self.agent.running
        for path in self.agent_state.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(image, self.agent_state, dirs_exist_ok=True)

    def gaps(self, *, from_ms: int, to_ms: int) -> list[Json]:
        """What the server says is not there."""
        return list(self.api.pages("/v1/gaps", "gaps", device=DEVICE, **{"from": from_ms, "to": to_ms}))

    def lie(self, on: bool) -> None:
        """Whether the agent's next process has a clock that lies."""
        assert faketime_library() is not None
        self.agent.environment = dict(self.clock.environment) if on else {}


def epoch_ms() -> int:
    """The machine's clock, which is the server's too."""
    return time.time_ns() // 1_000_000
