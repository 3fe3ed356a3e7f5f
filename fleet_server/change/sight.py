"""What is known of devices when a rollout is looked at: from the registry, telemetry, twins and groups.

Any thread; every call may raise StoreError.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from fleet_server.change.bringing import Brought
from fleet_server.change.layers import Placed
from fleet_server.change.rollout_plan import Control
from fleet_server.change.rollout_state import Known, Meant
from fleet_server.change.selector import CONFIG, OF_THE_SERVER, Fact, Selector, named
from fleet_server.change.store import LayerStore, TwinStore
from fleet_server.registry.model import Device, DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.telemetry.view import TelemetryView

FLEET_MS: Final = 5_000
"""For so long what the registry says is taken as it is."""
DEVICES_A_READ: Final = 5_000
MEASURED_MAX: Final = 200
"""Devices on either side of a comparison."""
MEASURE_MS_MIN: Final = 600_000
MEASURE_MS_MAX: Final = 86_400_000


class Presence(NamedTuple):
    """``excused``: it said that it was switched off."""

    present: bool
    excused: bool
    healthy: bool


class Sight:
    """See the module's docstring."""

    def __init__(
        self,
        registry: Registry,
        view: TelemetryView,
        twins: TwinStore,
        layers: LayerStore,
        *,
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._view = view
        self._twins = twins
        self._layers = layers
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self._fleet: Mapping[str, Device] = {}
        self._fleet_ms: int | None = None

    def fleet(self) -> Mapping[str, Device]:
        """Every device that the registry has, as of ``FLEET_MS`` ago at the most."""
        at_ms = self._monotonic_ms()
        if self._fleet_ms is None or at_ms - self._fleet_ms >= FLEET_MS:
            self._fleet, self._fleet_ms = self._read(), at_ms
        return self._fleet

    def _read(self) -> Mapping[str, Device]:
        found: dict[str, Device] = {}
        after = ""
        while True:
            page = self._registry.devices(DeviceFilter(), after=after, rows_max=DEVICES_A_READ)
            found.update({device.device: device for device in page})
            if len(page) < DEVICES_A_READ:
                return found
            after = page[-1].device

    def presence(self, device: Device) -> Presence:
        """Now. Of devices of another server's shards: as that one last recorded it."""
        found = self._view.presence_of(device.device)
        if found is None:
            return Presence(device.facts.connected, excused=False, healthy=device.facts.healthy)
        return Presence(found.connected, found.stopped, bool(found.device_class) and not found.faults)

    def known(
        self,
        device: Device,
        groups: tuple[str, ...],
        brought: Brought | None = None,
        *,
        newer: frozenset[str] = frozenset(),
        waves: frozenset[int] = frozenset(),
    ) -> Known:
        """All that a look needs of it; *brought* None: how it stands does not matter now. *newer*: rollouts."""
        presence = self.presence(device)
        return Known(
            device_class=device.registration.device_class,
            station=device.path,
            unit=device.registration.unit or "",
            pairs=groups,
            present=presence.present,
            excused=presence.excused,
            healthy=presence.healthy,
            meant=Meant.OLD if brought is None else brought.meant,
            version=0 if brought is None else brought.version,
            shown=None if brought is None else brought.shown,
            taken=brought is not None and brought.held_by in newer,
            refused="" if brought is None else brought.refused,
            waves=waves,
            registered=device.registered_ms is not None,
        )

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Device -> the groups that it is in."""
        out: dict[str, tuple[str, ...]] = {}
        for group in self._layers.groups():
            for member in group.members:
                out[member] = (*out.get(member, ()), group.group)
        return out

    def fitting(self, selector: Selector, devices: Collection[str]) -> frozenset[str]:
        """Those of *devices* that *selector* means."""
        facts = named(selector)
        fleet = self.fleet()
        groups = self.groups() if "group" in facts else {}
        drifts = self._twins.drifts(sorted(devices)) if "drift" in facts else {}
        settings = self._settings(devices) if any(fact.startswith(CONFIG) for fact in facts) else {}
        readings = self._readings() if any(_is_reading(fact) for fact in facts) else {}

        def known_of(name: str) -> Callable[[str], Fact | None]:
            device = fleet[name]
            presence = self.presence(device) if facts & {"connected", "healthy"} else None
            said = device.reported

            def known(fact: str) -> Fact | None:
                match fact:
                    case "device":
                        return name
                    case "class":
                        return device.registration.device_class or None
                    case "node":
                        return device.path or None
                    case "unit":
                        return device.registration.unit
                    case "group":
                        return frozenset(groups.get(name, ()))
                    case "connected" | "healthy" if presence is not None:
                        return presence.present if fact == "connected" else presence.healthy
                    case "reporting":
                        return device.facts.reporting
                    case "agent" | "profile" | "hardware":
                        return getattr(said, fact) or None
                    case "drift":
                        drift = drifts.get(name)
                        return None if drift is None else drift.value
                if fact.startswith(CONFIG):
                    return settings.get(name, {}).get(fact.removeprefix(CONFIG))
                return readings.get((name, fact))

            return known

        return frozenset(name for name in devices if name in fleet and selector.holds(known_of(name)))

    def _settings(self, devices: Collection[str]) -> Mapping[str, Mapping[str, Fact]]:
        twins = self._twins.twins(sorted(devices))
        return {name: twin.report.reported.config for name, twin in twins.items() if twin.report is not None}

    def _readings(self) -> Mapping[tuple[str, str], float]:
        return {
            (row.device, f"{row.stream}.{field}"): value
            for row in self._view.latest()
            for field, value in row.values.items()
            if value is not None
        }

    def others_working(self, members: Collection[str]) -> Mapping[tuple[str, str], int]:
        """(unit, class) -> devices that work and are no members."""
        working: Counter[tuple[str, str]] = Counter()
        for name, device in self.fleet().items():
            unit = device.registration.unit
            if unit and name not in members:
                seen = self.presence(device)
                working[unit, device.registration.device_class] += seen.present and seen.healthy
        return working

    def measures(
        self, control: Control, wave: Sequence[str], controls: Sequence[str], *, soak_ms: int
    ) -> Mapping[str, Mapping[str, float]]:
        """Fact -> device -> its mean over the soak, at least over ``MEASURE_MS_MIN``."""
        to_ms = self._now_ms()
        from_ms = to_ms - max(MEASURE_MS_MIN, min(soak_ms, MEASURE_MS_MAX))
        out: dict[str, dict[str, float]] = {}
        for metric in control.metrics:
            stream, _, field = metric.fact.partition(".")
            found = out[metric.fact] = {}
            for device in (*wave[:MEASURED_MAX], *controls[:MEASURED_MAX]):
                series = self._view.series(device, stream, from_ms=from_ms, to_ms=to_ms, points=1)
                values = [value for value in series.columns.get(field, ()) if value is not None]
                if values:
                    found[device] = sum(values) / len(values)
        return out


def placed(device: Device) -> Placed:
    """What of it decides which layers count."""
    return Placed(device.device, device.registration.device_class, device.path)


def _is_reading(fact: str) -> bool:
    return fact not in OF_THE_SERVER and not fact.startswith(CONFIG)
