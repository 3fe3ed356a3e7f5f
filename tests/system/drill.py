"""A site on which every hour of a rule passes in a second: real programs, whose clock is moved; devices are played.

The rules' thresholds and times are as they are shipped. The server looks more often than elsewhere, and some of
what it does now and then it does at once (:mod:`tests.system.hasty`).
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from broker_config.ids import DeviceId
from fleet_server.access import ca
from fleet_server.adapters.sqlite_backup import restore_backup, set_aside
from fleet_server.adapters.sqlite_store import SqliteStore
from fleet_server.cli.server import Json
from fleet_server.parts import DATABASE_FILE, STORE_FILE
from fleet_server.releases.newest import TIMESTAMP_DAYS
from fleet_server.releases.targets import TARGETS_DAYS, renewed
from tests.disks import Disk
from tests.releases import SERVER, Repository
from tests.servers import Credentials, SeriesServer, influxd, wait_until
from tests.system.fleets import Fleet, is_healthy, running
from tests.system.hasty import CLOCK, HASTY, MovedClock
from tests.system.played import Played
from tests.system.test_commands import signing

GIB: Final = 1024**3
DISK_BYTES: Final = 16 * GIB
REPLICA_BYTES: Final = 64 * 1024**2
PACE: Final = 60
SERIES_MAX: Final = 100
QUARANTINE_BYTES: Final = 4_000
AUTHORITY_D: Final = 100
RELEASES_D: Final = 20
FRESH_D: Final = 1
LOOKED_S_MAX: Final = 1.5
"""Of the test's time: by then the server has looked at everything."""
STEPS_MAX: Final = 25
BACK_S_MAX: Final = 60.0
TABLES: Final = """
[measuring]
pace = {pace}

[alerts]
look_s = 0.2

[releases]
directory = "releases"

[ingest]
quarantine_bytes_max = {quarantine}

[influx]
url = "{influx}"
flavour = "v1"
retention_d = 30
series_max = {series_max}
"""


class Of(NamedTuple):
    """``subject``: a device, a node's path, or empty for the site."""

    rule: str
    subject: str = ""


class Lasted(NamedTuple):
    """By the site's clock. ``told_after_s``: since it was seen to be wrong; ``lasted_s``: None: it lasts."""

    of: Of
    told_after_s: float
    lasted_s: float | None


def _nothing() -> None:
    pass


class Drill:
    """``now_ms``: the site's time. What is :attr:`played` tells its readings at each step of it."""

    def __init__(self, fleet: Fleet, clock: MovedClock, disk: Disk, replica: Disk, influx: SeriesServer) -> None:
        self.fleet = fleet
        self.disk_bytes = DISK_BYTES
        self.replica = replica
        self.influx = influx
        self.played: list[Played] = []
        self.each_step: list[Callable[[], None]] = []
        self._disk = disk
        self._clock = clock
        self._ahead_s = 0
        self._while_down: Callable[[], None] = _nothing

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + 1_000 * self._ahead_s

    # its clock

    def passes(self, seconds: int) -> None:
        """Of the site's time; then everybody tells how it is."""
        self._ahead_s += seconds
        self._clock.say(self._ahead_s)
        for act in self.each_step:
            act()
        for device in self.played:
            if device.connected:
                device.tell()

    # its disk

    def resize(self, bytes_max: int) -> None:
        """Of the disk that the server's state is on."""
        self.disk_bytes = bytes_max
        self._disk.resize(bytes_max)

    # its devices

    def credentials(self, device: DeviceId) -> Credentials:
        """As a bench makes them."""
        at = self.fleet.device_directory(device)
        if not at.exists():
            at.mkdir(parents=True)
            base = self.fleet.directory / "ca/device-ca"
            issuer = ca.Issued(base.with_suffix(".crt").read_bytes(), base.with_suffix(".key").read_bytes())
            issued = ca.issue_device(issuer, device, now=datetime.now(UTC))
            (at / "device.crt").write_bytes(issued.certificate_pem + issuer.certificate_pem)
            (at / "device.key").write_bytes(issued.key_pem)
        return self.fleet.credentials(device)

    def registered(self, device: str, device_class: str, node: str = "hq") -> None:
        said: Json = {"device_class": device_class, "node": node}
        self.put(f"/v1/devices/{device}/registration", said)

    def play(self, device: str, device_class: str) -> Played:
        """Registered and connected."""
        self.registered(device, device_class)
        name = DeviceId(device)
        made = Played(name, device_class, self.fleet.device_port, self.credentials(name), self.now_ms)
        made.connect()
        self.played.append(made)
        return made

    # its server

    def put(self, path: str, said: Json) -> None:
        self.fleet.server.send("PUT", path, json=said, headers={"If-None-Match": "*"})

    def restart(self, *replaced: tuple[str, str]) -> None:
        """With each text of its configuration replaced by another."""
        config = self.config
        text = config.read_text()
        for before, after in replaced:
            assert before in text
            text = text.replace(before, after)
        config.write_text(text)
        assert self.fleet.program.stop() == 0
        self._while_down()
        self.fleet.program.start()
        wait_until(lambda: is_healthy(self.fleet.server), "the server is back", BACK_S_MAX)
        for device in self.played:
            if device.connected:
                device.tell()

    def sign_releases(self) -> None:
        """Persons sign the same list anew, and so does a server."""
        now = datetime.fromtimestamp(self.now_ms() / 1_000, UTC)
        repository = released(self.fleet.directory, now)
        repository.adopt(renewed(repository.publisher.targets(), now=now))

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """What is restarted within has of telemetry what there is now: see ``fleet-server restore``."""
        store, backup = self.state / STORE_FILE, self.fleet.directory / "backup.db"
        copied = SqliteStore(store, now_ms=self.now_ms())
        copied.backup(backup)
        copied.close()

        def restored() -> None:
            now_ms = self.now_ms()
            set_aside(store, now_ms=now_ms)
            restore_backup(backup, store, now_ms=now_ms)

        self._while_down = restored
        yield
        self._while_down = _nothing

    @contextmanager
    def locked(self) -> Iterator[sqlite3.Connection]:
        """The lock of the store, from the first ``BEGIN IMMEDIATE`` on."""
        connection = sqlite3.connect(self.state / STORE_FILE, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
        finally:
            connection.close()

    def altered_below(self) -> None:
        """What the log of custody was signed with is not there any more."""
        connection = sqlite3.connect(self.state / DATABASE_FILE)
        with connection:
            for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {trigger}")
            connection.execute("UPDATE audit_checkpoint SET note = 'nothing'")
        connection.close()

    @property
    def config(self) -> Path:
        return self.fleet.directory / "server/fleet-server.toml"

    @property
    def state(self) -> Path:
        return self.fleet.directory / "server/state"

    # its alerts

    def alerts(self) -> set[Of]:
        """What is open."""
        found = cast("dict[str, Any]", self.fleet.server.get("/v1/alerts"))["alerts"]
        return {Of(each["rule"], each["device"] or each["org"] or "") for each in found}

    def table(self) -> list[Lasted]:
        """All that was ever told, oldest first."""
        found: dict[Of, Lasted] = {}
        opened_ms: dict[Of, int] = {}
        for each in self._happenings():
            of, at_ms = Of(each["data"]["alert"], each["device"] or each["org"] or ""), each["time_ms"]
            if each["kind"] == "alert.opened":
                opened_ms[of] = at_ms
                found.setdefault(of, Lasted(of, (at_ms - each["data"]["since_ms"]) / 1_000, None))
            elif found[of].lasted_s is None:
                found[of] = found[of]._replace(lasted_s=(at_ms - opened_ms[of]) / 1_000)
        return list(found.values())

    def _happenings(self) -> list[dict[str, Any]]:
        path = "/v1/happenings?kinds=alert.opened,alert.cleared&limit=1000"
        found: list[dict[str, Any]] = cast("dict[str, Any]", self.fleet.server.get(path))["happenings"]
        return found[::-1]

    def open(self, alerts: set[Of], *, step_s: int) -> None:
        """Time passes until all of *alerts* are open, and were told."""
        self._until(lambda: alerts - self.alerts(), "expected to open", step_s)
        assert alerts <= {each.of for each in self.table()}

    def clear(self, alerts: set[Of], *, step_s: int) -> None:
        """Time passes until none of *alerts* is open, and all are told to be over."""
        self._until(lambda: alerts & self.alerts(), "expected to clear", step_s)
        assert alerts <= {each.of for each in self.table() if each.lasted_s is not None}

    def _until(self, left: Callable[[], set[Of]], what: str, step_s: int) -> None:
        """Time passes in steps. Raises TimeoutError: says what is left."""
        for _ in range(STEPS_MAX):
            try:
                wait_until(lambda: not left(), what, LOOKED_S_MAX)
            except TimeoutError:
                self.passes(step_s)
            else:
                return
        names = ", ".join(f"{each.rule} {each.subject}".strip() for each in sorted(left()))
        raise TimeoutError(f"{what} within {STEPS_MAX} steps of {step_s} s: {names}")


@contextmanager
def drilling(directory: Path) -> Iterator[Drill]:
    """On Mosquitto and InfluxDB 1, with disks of its own; needs root."""
    clock = MovedClock(directory / "clock")
    environment = {CLOCK: str(directory / "clock")}
    disks: dict[str, Disk] = {}

    def laid_out(site: Path) -> None:
        _short_authority(site)
        _old_releases(site)
        config = site / "server/fleet-server.toml"
        # the broker's clock is not moved, and the server's lists of revoked devices would be of tomorrow
        text = _without_line("reload_pid_file", config.read_text())
        broker = site / "broker/mosquitto.conf"
        broker.write_text(_without_line("crlfile", broker.read_text()))
        text = text.replace('directory = "state/evidence"', 'directory = "state/evidence"\nreplica = "replica"')
        config.write_text(text.replace("[audit]", "[audit]\ncheckpoint_s = 0.5"))
        for name, size in (("state", DISK_BYTES), ("replica", REPLICA_BYTES)):
            disks[name] = Disk(site / "server" / name, size)
            stack.callback(disks[name].close)

    with ExitStack() as stack:
        influx = stack.enter_context(influxd(directory / "influx"))
        tables = TABLES.format(pace=PACE, influx=influx.url, series_max=SERIES_MAX, quarantine=QUARANTINE_BYTES)
        fleet = stack.enter_context(
            running(
                directory / "site",
                "mosquitto",
                tables=tables,
                laid_out=laid_out,
                server=HASTY,
                environment=environment,
            )
        )
        signing(fleet, python=HASTY, environment=environment)
        drill = Drill(fleet, clock, disks["state"], disks["replica"], influx)
        try:
            yield drill
        finally:
            for device in drill.played:
                device.vanish()


def released(site: Path, now: datetime) -> Repository:
    """The site's releases, for who signs them at that time."""
    return Repository(site / "server/releases", lambda: now)


def _old_releases(site: Path) -> None:
    """What persons signed ends in RELEASES_D, and what a server signed in FRESH_D; none signs anew by itself."""
    now = datetime.now(UTC)
    released(site, now - timedelta(days=TARGETS_DAYS - RELEASES_D)).begin()
    released(site, now - timedelta(days=TIMESTAMP_DAYS - FRESH_D)).publisher.refresh(SERVER, force=True)


def _without_line(start: str, text: str) -> str:
    found = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(start))
    assert found != text, f"expected a line that begins with {start}"
    return found


def _short_authority(site: Path) -> None:
    """Devices' authority ends in AUTHORITY_D."""
    root = ca.Issued(*((site / f"ca/device-root.{end}").read_bytes() for end in ("crt", "key")))
    made = ca.new_intermediate(root, "fieldfleet device CA", now=datetime.now(UTC), days=AUTHORITY_D)
    for place in (site / "ca", site / "server"):
        behind = b"" if place.name == "ca" else root.certificate_pem
        (place / "device-ca.crt").write_bytes(made.certificate_pem + behind)
        (place / "device-ca.key").write_bytes(made.key_pem)
    (site / "broker/device-ca.crt").write_bytes(made.certificate_pem + root.certificate_pem)
    crl = ca.revocation_list(made, [], now=datetime.now(UTC)) + (site / "server/device-root.crl").read_bytes()
    (site / "broker/device-ca.crl").write_bytes(crl)
