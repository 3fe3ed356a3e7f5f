"""A server's room of change over a real database, and devices that are played: they do what is desired of them."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from broker_config.twin import ChangeState, Reported, SettingValue
from fleet_server.adapters.sql import database
from fleet_server.adapters.sql.config_layers import SqlLayers
from fleet_server.adapters.sql.registry import SqlRegistry
from fleet_server.adapters.sql.rollouts import SqlRollouts
from fleet_server.adapters.sql.twins import SqlTwins
from fleet_server.change.bringing import Bringing
from fleet_server.change.composing import Composer
from fleet_server.change.planning import Planner
from fleet_server.change.rolling import Rolling
from fleet_server.change.rollout_state import Head, Member, State
from fleet_server.change.sight import Sight
from fleet_server.outbound.happenings import News
from fleet_server.registry.model import NodeKind, OrgNode, Registration
from fleet_server.telemetry.store import EventFact, Latest, QuarantineRow, Series
from fleet_server.telemetry.view import DevicePresence, DeviceSummary, Gap, Heard, IngestFacts

NOW_MS: Final = 1_767_225_600_000
CAMERA: Final = "body_camera"
DATABASE: Final = "operators.db"
BOOT: Final = "ab" * 8


@dataclass
class Device:
    """``does``: what becomes of a change here, but for the defaults, which always do; None: it takes nothing up.
    ``lies``: it says that it is current, and its settings are others.
    """

    connected: bool = True
    stopped: bool = False
    faults: tuple[str, ...] = ()
    does: ChangeState | None = ChangeState.CURRENT
    lies: bool = False
    reading: float = 80.0
    in_force: int = 0
    config: Mapping[str, SettingValue] = field(default_factory=dict)
    said: int = 0


class View:
    """A :class:`fleet_server.telemetry.view.TelemetryView` of played devices."""

    def __init__(self, devices: dict[str, Device]) -> None:
        self._devices = devices

    def presence_of(self, device: str) -> DevicePresence | None:
        """See the port."""
        found = self._devices.get(device)
        if found is None:
            return None
        return DevicePresence(device, CAMERA, found.connected, (), found.faults, stopped=found.stopped)

    def latest(self, device: str | None = None) -> list[Latest]:
        """See the port."""
        return [
            Latest(name, "power", NOW_MS, NOW_MS, {"battery_pct": each.reading})
            for name, each in self._devices.items()
            if device in {None, name}
        ]

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        """See the port."""
        values: list[float | None] = [self._devices[device].reading]
        return Series([from_ms], {"battery_pct": values} if stream == "power" else {}, {}, {}, {}, 1, to_ms)

    def facts(self) -> IngestFacts:
        """Nobody asks."""
        raise NotImplementedError

    def devices(self) -> list[DeviceSummary]:
        """Nobody asks."""
        raise NotImplementedError

    def device(self, device: str) -> DeviceSummary | None:
        """Nobody asks."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Nobody asks."""
        raise NotImplementedError

    def news(self, devices_max: int) -> list[Heard]:
        """Nobody asks."""
        raise NotImplementedError

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        """Nobody asks."""
        raise NotImplementedError

    def gaps(self, device: str | None, *, from_ms: int, to_ms: int) -> list[Gap]:
        """Nobody asks."""
        raise NotImplementedError

    def gaps_of_numbers(self, device: str) -> list[Gap]:
        """Nobody asks."""
        raise NotImplementedError

    def silences(self, *, from_ms: int, to_ms: int) -> list[Gap]:
        """Nobody asks."""
        raise NotImplementedError

    def quarantine(self, *, after_id: int, rows_max: int) -> list[QuarantineRow]:
        """Nobody asks."""
        raise NotImplementedError

    def replay(self, row_id: int) -> str:
        """Nobody asks."""
        raise NotImplementedError


@cache
def _empty() -> bytes:
    """A migrated database; making one takes seconds."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / DATABASE
        engine = database.connect(database.sqlite_url(file))
        database.migrate(engine)
        engine.dispose()
        return file.read_bytes()


def migrated_once(directory: Path) -> None:
    """Put an empty database into *directory*."""
    (directory / DATABASE).write_bytes(_empty())


class Played:
    """``pass_`` lets time go by: the server looks, and each device does what is desired of it."""

    def __init__(self, directory: Path, count: int) -> None:
        self.engine = database.connect(database.sqlite_url(directory / DATABASE))
        database.migrate(self.engine)
        self.registry = SqlRegistry(self.engine)
        self.fleet: dict[str, Device] = {}
        self.view = View(self.fleet)
        self.news: list[News] = []
        self.ms = 0
        self.lost = False
        self.registry.put_node(OrgNode("hq", NodeKind.CENTRE, "Centre"), expected=None, create=True, now_ms=0)
        for number in range(2):
            node = OrgNode(f"station-{number}", NodeKind.STATION, f"Station {number}", "hq")
            self.registry.put_node(node, expected=None, create=True, now_ms=0)
        for number in range(count):
            self.add(f"cam-{number:02}", f"station-{number % 2}")
        self.begin()

    def add(self, name: str, node: str = "station-0", device_class: str = CAMERA) -> None:
        """A device more."""
        self.fleet[name] = Device()
        self.registry.register(Registration(name, device_class, node=node), expected=None, create=True, now_ms=0)

    def begin(self) -> None:
        """A server that knows what is in the database, and nothing else."""
        self.twins, self.layers = SqlTwins(self.engine), SqlLayers(self.engine)
        self.composer = Composer(
            self.twins, self.layers, self.registry, published=lambda _: None, now_ms=lambda: NOW_MS + self.ms
        )
        sight = Sight(
            self.registry,
            self.view,
            self.twins,
            self.layers,
            now_ms=lambda: NOW_MS + self.ms,
            monotonic_ms=lambda: self.ms,
        )
        bringing = Bringing(
            self.twins, self.layers, self.composer, published=lambda _: None, now_ms=lambda: NOW_MS + self.ms
        )
        self.rolling = Rolling(
            SqlRollouts(self.engine),
            sight,
            bringing,
            Planner(sight, bringing, self.layers),
            tell=self.news.extend,
            now_ms=lambda: NOW_MS + self.ms,
            monotonic_ms=lambda: self.ms,
        )
        while self.composer.turn():
            pass

    def pass_(self, seconds: int, *, every_s: int = 1) -> None:
        """Time goes by."""
        for _ in range(0, seconds, every_s):
            self.ms += 1000 * every_s
            self.rolling.turn()
            while self.composer.turn():
                pass
            self.devices_do()

    def devices_do(self) -> None:
        """Each connected device does what is desired of it, and says so."""
        said = []
        for name, twin in self.twins.twins(sorted(self.fleet)).items():
            device = self.fleet[name]
            if twin.aim is None or not device.connected or device.does is None:
                continue
            if twin.report is not None and twin.report.reported.desired == twin.aim.version:
                continue
            state = device.does if twin.aim.config else ChangeState.CURRENT
            if state is ChangeState.CURRENT:
                device.in_force = twin.aim.version
                device.config = {"video": "1440p"} if device.lies else twin.aim.config
            device.said += 1
            waits_for = "recording" if state is ChangeState.DEFERRED else ""
            reported = Reported(
                1,
                device.said,
                BOOT,
                twin.aim.version,
                device.in_force,
                state,
                dict(device.config),
                waits_for=waits_for,
            )
            said.append((name, reported))
        if said:
            self.twins.report(said, now_ms=NOW_MS + self.ms)

    def members(self, rollout: str) -> dict[str, Member]:
        """As they are kept."""
        kept = self.rolling.store.kept(rollout)
        assert kept is not None
        return kept.rollout.members

    def head(self, rollout: str) -> Head:
        """As it is kept."""
        kept = self.rolling.store.kept(rollout)
        assert kept is not None
        return kept.rollout.head

    def states(self, rollout: str) -> dict[State, int]:
        """How many are in each."""
        listed = self.rolling.store.listed(rollout)
        assert listed is not None
        return listed.counts

    def having(self, setting: str, value: SettingValue) -> set[str]:
        """Devices that have it in force."""
        return {name for name, device in self.fleet.items() if device.config.get(setting) == value}

    def desired(self, name: str) -> Mapping[str, SettingValue]:
        """What is desired of it."""
        return self.twins.configs([name]).get(name, {})

    def until(self, condition: Callable[[], bool], *, seconds_max: int = 600, every_s: int = 1) -> None:
        """Let time go by until it is so."""
        for _ in range(0, seconds_max, every_s):
            if condition():
                return
            self.pass_(every_s, every_s=every_s)
        raise AssertionError(f"not so after {seconds_max} s")
