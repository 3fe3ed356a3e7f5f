"""Real servers for tests: on free loopback ports, with certificates of their own; programs are ended by pid."""

import asyncio
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from broker_config.embedded import CannotListenError, Embedded, EmbeddedSite
from broker_config.embedded.misbehaviour import Misbehaviour
from broker_config.ids import DeviceId, SiteId
from broker_config.render import mosquitto as rendering
from fleet_server.access import ca

HOST: Final = "127.0.0.1"
SITE: Final = SiteId("5e" * 32)
START_S_MAX: Final = 10.0
POLL_S: Final = 0.02
PORT_TRIES_MAX: Final = 3
SERIES_START_S_MAX: Final = 30.0
# Below the range that the kernel gives to outgoing connections, so that none of them takes the port of a broker
# that is down for a moment.
PORTS: Final = range(20_000, 32_000)
PORT_SHARES: Final = 40


class ServerFailedError(Exception):
    """A program did not start, or died; the message ends with what it logged."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one client needs for a connection, as paths."""

    certificate: Path
    key: Path
    ca: Path


def program(name: str) -> str | None:
    """The path of a server program; Debian puts some where a user's path does not look."""
    debian = [
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
        "/usr/sbin",
        "/usr/local/sbin",
    ]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(debian))


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that nobody listens on, from a share of the range that is this process's own:
    another test worker must not be given the same. Another program may still take one first.
    """
    free: list[int] = []
    share = PORTS[os.getpid() % PORT_SHARES :: PORT_SHARES]
    for port in random.sample(share, len(share)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            free.append(port)
        if len(free) == count:
            return free
    raise ServerFailedError(f"expected {count} free ports among {len(share)} of {PORTS}, got {len(free)}")


def free_port() -> int:
    """One of :func:`free_ports`."""
    return free_ports(1)[0]


def wait_until(ready: Callable[[], bool], what: str, seconds_max: float = START_S_MAX) -> None:
    """Poll until *ready*. Raises TimeoutError that names *what*."""
    deadline = time.monotonic() + seconds_max
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds_max} s")
        time.sleep(POLL_S)


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


@dataclass(slots=True)
class Site:
    """A broker's directory, ports and the two authorities that it trusts; and certificates that they sign."""

    directory: Path
    device_port: int
    server_port: int
    device_ca: ca.Issued
    server_ca: ca.Issued
    site: SiteId = SITE

    def device(self, device: DeviceId) -> Credentials:
        """The certificate of *device*, made when it is first asked for."""
        if not (self.directory / f"{device}.crt").exists():
            return self.credentials(device, ca.issue_device(self.device_ca, device, now=_now()))
        return self._paths(device)

    def server(self) -> Credentials:
        """The fleet server's certificate."""
        if not (self.directory / "_server.crt").exists():
            return self.credentials("_server", ca.issue_server(self.server_ca, self.site, now=_now()))
        return self._paths("_server")

    def credentials(self, name: str, issued: ca.Issued) -> Credentials:
        """Write any certificate beside the broker's own, as files called *name*."""
        paths = self._paths(name)
        paths.certificate.write_bytes(issued.certificate_pem)
        paths.key.write_bytes(issued.key_pem)
        return paths

    def _paths(self, name: str) -> Credentials:
        base = self.directory / name
        return Credentials(
            base.with_name(f"{name}.crt"), base.with_name(f"{name}.key"), self.directory / rendering.SERVER_CA_FILE
        )


@dataclass(slots=True)
class Mosquitto(Site):
    """Mosquitto with both listeners, as the product configures it."""

    crl: bytes | None = None
    persistent: bool = True
    _said: int = field(default=0, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Of the running program."""
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def data(self) -> Path:
        """What :meth:`wipe` wipes."""
        return self.directory / "data"

    def log(self) -> str:
        """All that it has said so far."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="backslashreplace")

    def configure(self) -> None:
        """Write the product's own rendering; counts from the next start."""
        crl_file = self.directory / "device-ca.crl"
        if self.crl is not None:
            crl_file.write_bytes(self.crl)
        site = rendering.MosquittoSite(
            site=self.site,
            directory=str(self.directory),
            device_host=HOST,
            device_port=self.device_port,
            server_host=HOST,
            server_port=self.server_port,
            crl_file=str(crl_file) if self.crl is not None else None,
            persistence_directory=str(self.data) if self.persistent else None,
            user=pwd.getpwuid(os.geteuid()).pw_name,
        )
        for name, text in rendering.render(site).items():
            (self.directory / name).write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until both listeners accept. Raises ServerFailedError."""
        assert self._process is None, "runs already"
        found = program("mosquitto")
        if found is None:
            raise ServerFailedError("no mosquitto on this machine")
        self.data.mkdir(exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._said = log.tell()
            self._process = subprocess.Popen(
                [found, "-c", str(self.directory / rendering.CONFIG_FILE)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._is_up, "mosquitto accepts")
        except (TimeoutError, ServerFailedError):
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order; it writes its data directory."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(kill=True)

    def restart(self) -> None:
        """Kill it if it runs, and start it on the same ports with what its data directory holds."""
        self.kill()
        self.configure()
        self.start()

    def wipe(self) -> None:
        """Empty the data directory of a broker that is not running."""
        assert self._process is None, "still running"
        shutil.rmtree(self.data, ignore_errors=True)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServerFailedError(f"mosquitto ended with {self._process.returncode}: {self.log()[-2000:]}")
        # The kernel accepts before there is anybody to end in order: it runs when it has seen who knocked.
        up = accepts(self.device_port) and accepts(self.server_port)
        return up and b"New connection from" in (self.directory / "log").read_bytes()[self._said :]

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(START_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(slots=True)
class EmbeddedBroker(Site):
    """The embedded broker in a thread of its own, with a loop of its own."""

    crl: bytes | None = None
    misbehaviour: Misbehaviour | None = None
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    _thread: threading.Thread | None = field(default=None, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _stop: asyncio.Event | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until both listeners accept. Raises CannotListenError."""
        assert self._thread is None, "runs already"
        started = threading.Event()
        failed: list[CannotListenError] = []

        def run() -> None:
            with asyncio.Runner(loop_factory=self.new_loop) as runner:
                runner.run(self._run(started, failed))

        thread = threading.Thread(target=run, name="embedded broker")
        thread.start()
        assert started.wait(START_S_MAX), "the embedded broker does not start"
        if failed:
            thread.join(START_S_MAX)
            raise failed[0]
        self._thread = thread

    def stop(self) -> None:
        """End it; everything that it held is gone."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(START_S_MAX)
        assert not thread.is_alive(), "the embedded broker does not stop"

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same ports."""
        self.stop()
        self.start()

    async def _run(self, started: threading.Event, failed: list[CannotListenError]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        crl_file = self.directory / "device-ca.crl"
        if self.crl is not None:
            crl_file.write_bytes(self.crl)
        site = EmbeddedSite(
            directory=self.directory,
            site=self.site,
            device_host=HOST,
            device_port=self.device_port,
            server_host=HOST,
            server_port=self.server_port,
            crl_file=crl_file if self.crl is not None else None,
        )
        broker = Embedded(site, misbehaviour=self.misbehaviour)
        try:
            await broker.start()
        except CannotListenError as error:
            failed.append(error)
            started.set()
            return
        started.set()
        await self._stop.wait()
        await broker.stop()


@contextmanager
def embedded(directory: Path, *, misbehaviour: Misbehaviour | None = None) -> Iterator[EmbeddedBroker]:
    """The embedded broker, running in this process, ended with the block whatever happened in it."""
    device_ca, server_ca = _authorities(directory)
    device_port, server_port = free_ports(2)
    broker = EmbeddedBroker(directory, device_port, server_port, device_ca, server_ca, misbehaviour=misbehaviour)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def _authorities(directory: Path) -> tuple[ca.Issued, ca.Issued]:
    """Write what both brokers need; the device authority and the server authority."""
    directory.mkdir(exist_ok=True)
    root = ca.new_root("fieldfleet test device root", now=_now())
    device_ca = ca.new_intermediate(root, "fieldfleet test devices", now=_now())
    server_ca = ca.new_ca("fieldfleet test server", now=_now())
    certificate = ca.issue_broker(server_ca, ["localhost", HOST], now=_now())
    (directory / rendering.BROKER_CERTIFICATE_FILE).write_bytes(certificate.certificate_pem)
    (directory / rendering.BROKER_KEY_FILE).write_bytes(certificate.key_pem)
    (directory / rendering.DEVICE_CA_FILE).write_bytes(device_ca.certificate_pem + root.certificate_pem)
    (directory / rendering.SERVER_CA_FILE).write_bytes(server_ca.certificate_pem)
    return device_ca, server_ca


def lay_out(directory: Path, *, persistent: bool = True) -> Mosquitto:
    """Certificates and rendered files of a Mosquitto that is not started yet."""
    device_ca, server_ca = _authorities(directory)
    device_port, server_port = free_ports(2)
    broker = Mosquitto(directory, device_port, server_port, device_ca, server_ca, persistent=persistent)
    broker.configure()
    return broker


@contextmanager
def mosquitto(directory: Path, *, persistent: bool = True) -> Iterator[Mosquitto]:
    """A running broker in *directory*, ended with the block whatever happened in it."""
    broker = lay_out(directory, persistent=persistent)
    try:
        _start_somewhere(broker)
        yield broker
    finally:
        broker.kill()


def _start_somewhere(broker: Mosquitto) -> None:
    for _ in range(PORT_TRIES_MAX - 1):
        try:
            broker.start()
        except ServerFailedError:
            if "Address already in use" not in broker.log():
                raise
            broker.device_port, broker.server_port = free_ports(2)
            broker.configure()
        else:
            return
    broker.start()


@dataclass(slots=True)
class SeriesServer:
    """A time-series server of Debian's, with its data in *directory*, at *url*."""

    directory: Path
    command: list[str]
    port: int
    ready_path: str
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers. Raises ServerFailedError."""
        assert self._process is None, "runs already"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(self._is_up, f"{self.command[0]} answers", SERIES_START_S_MAX)
        except (TimeoutError, ServerFailedError):
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def get(self, path: str, **query: str) -> bytes:
        """The body of an answer. Raises URLError."""
        with urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=START_S_MAX) as answer:
            body: bytes = answer.read()
        return body

    def post(self, path: str, **form: str) -> bytes:
        """The body of an answer. Raises URLError."""
        with urlopen(f"{self.url}{path}", data=urlencode(form).encode(), timeout=START_S_MAX) as answer:
            body: bytes = answer.read()
        return body

    def rows(self, database: str, query: str, *, none_yet: bool = False) -> list[dict[str, Any]]:
        """What InfluxQL answers, tags among the columns, times in ms; the answer must be without an error.

        *none_yet*: of a database that is not there, none.
        """
        (result,) = json.loads(self.post("/query", db=database, q=query, epoch="ms"))["results"]
        missing = none_yet and "database not found" in result.get("error", "")
        assert missing or "error" not in result, f"{query}: {result['error']}"
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], values, strict=True))}
            for series in result.get("series", ())
            for values in series["values"]
        ]

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.directory / "log").read_text(encoding="utf-8", errors="replace")
            raise ServerFailedError(f"{self.command[0]} ended with {self._process.returncode}: {log[-2000:]}")
        try:
            self.get(self.ready_path)
        except OSError:
            return False
        return True


@contextmanager
def _running(server: SeriesServer) -> Iterator[SeriesServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def influxd(directory: Path, *, guarded: bool = False) -> Iterator[SeriesServer]:
    """InfluxDB 1, ended with the block; it tells nobody of itself. *guarded*: it wants a password."""
    directory.mkdir(exist_ok=True)
    port, other_port = free_ports(2)
    config = directory / "influxdb.conf"
    config.write_text(
        f"""\
reporting-enabled = false
bind-address = "{HOST}:{other_port}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[monitor]
store-enabled = false
[http]
bind-address = "{HOST}:{port}"
log-enabled = false
auth-enabled = {"true" if guarded else "false"}
""",
        encoding="utf-8",
    )
    found = program("influxd") or "influxd"
    with _running(SeriesServer(directory, [found, "-config", str(config)], port, "/ping")) as server:
        yield server


@contextmanager
def victoria_metrics(directory: Path) -> Iterator[SeriesServer]:
    """VictoriaMetrics, ended with the block; the same sample twice is one there, as it is in InfluxDB."""
    directory.mkdir(exist_ok=True)
    port = free_port()
    options = [
        f"-httpListenAddr={HOST}:{port}",
        f"-storageDataPath={directory}/data",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",
        "-search.latencyOffset=0s",
        "-loggerLevel=ERROR",
    ]
    found = program("victoria-metrics") or "victoria-metrics"
    with _running(SeriesServer(directory, [found, *options], port, "/health")) as server:
        yield server


def _now() -> datetime:
    return datetime.now(UTC)
