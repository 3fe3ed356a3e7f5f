"""Looks at each device of the registry: is it fit for the next shift, who has it, how long will it last?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from fleet_server.change.twins import Drift
from fleet_server.projection.labels import LabelsOf
from fleet_server.registry import readiness as rules
from fleet_server.registry.assignment_store import BEGINNING, After, AssignmentFilter, Holders
from fleet_server.registry.assignments import Assignment
from fleet_server.registry.model import Device, DeviceFilter
from fleet_server.registry.readiness import HOUR_MS, Known, Reading, SelfTest, Table
from fleet_server.registry.store import Registry
from fleet_server.standing.forecast import GAP_MS_MAX, LASTS_S_MAX, Readings
from fleet_server.standing.looking import PORTION
from fleet_server.standing.readiness import (
    BATTERY,
    EVENTS_MAX,
    FREE_SPACE,
    Fitness,
    last_self_test,
    reading_of,
    sample,
)
from fleet_server.standing.sample import Sample
from fleet_server.telemetry.view import TelemetryView

SELF_TESTS_EVERY_MS: Final = 600_000
"""To find one, a day or two of a journal is read."""
CERTIFICATES_EVERY_MS: Final = 600_000
HELD_A_READ: Final = 1_000
CHARGING: Final = "charging"
BATTERY_RISE_PCT: Final = 2.0
SPACE_RISE_BYTES: Final = 256 * 1024 * 1024


class Drifts(Protocol):
    """What is asked of twins; see :class:`fleet_server.change.store.TwinStore`."""

    def drifts(self, devices: Sequence[str]) -> Mapping[str, Drift]:
        """The state of each that has one."""


def lasting(holders: Holders) -> Iterator[Assignment]:
    """Every assignment that has not ended."""
    after = BEGINNING
    while True:
        page = holders.assignments(AssignmentFilter(lasting=True), after=after, rows_max=HELD_A_READ)
        yield from page
        if len(page) < HELD_A_READ:
            return
        after = After(page[-1].from_ms, page[-1].assignment)


def every_device(registry: Registry, *, at_once: int = PORTION) -> Iterator[Sequence[Device]]:
    """Those of the registry, by id."""
    after = ""
    while page := registry.devices(DeviceFilter(), after=after, rows_max=at_once):
        yield page
        if len(page) < at_once:
            return
        after = page[-1].device


class _Supply:
    """What is left of something, and until when."""

    def __init__(self, rise_max: float) -> None:
        self._rise_max = rise_max
        self._of: dict[str, Readings] = {}
        self._lasts_s: dict[str, float | None] = {}

    def lasts_s(self, device: str, reading: Reading | None, at_ms: int, *, filling: bool = False) -> float | None:
        """With *reading*, the newest; what is *filling* lasts, whatever was before."""
        if reading is None or filling or at_ms - reading.at_ms > GAP_MS_MAX:
            self._of.pop(device, None)
            self._lasts_s.pop(device, None)
            return LASTS_S_MAX if filling else None
        readings = self._of.setdefault(device, Readings(self._rise_max))
        if readings.add(reading.at_ms, reading.value):
            self._lasts_s[device] = readings.lasts_s()
        return self._lasts_s.get(device)


class _Tested(NamedTuple):
    looked_ms: int
    test: SelfTest | None


class FitnessLook:
    """*certificates*: when each device's newest good one ends; *drifts* None: this server changes no devices."""

    def __init__(
        self,
        registry: Registry,
        view: TelemetryView,
        labels: LabelsOf,
        holders: Holders,
        drifts: Drifts | None,
        certificates: Callable[[], Mapping[str, int]],
        *,
        table: Table,
        shift_ms: int,
    ) -> None:
        self._registry = registry
        self._view = view
        self._labels = labels
        self._holders = holders
        self._drifts = drifts
        self._read_certificates = certificates
        self._table = table
        self._shift_ms = shift_ms
        self._certificates: Mapping[str, int] = {}
        self._certificates_ms: int | None = None
        self._battery = _Supply(BATTERY_RISE_PCT)
        self._space = _Supply(SPACE_RISE_BYTES)
        self._tests: dict[str, _Tested] = {}

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        if self._certificates_ms is None or at_ms - self._certificates_ms >= CERTIFICATES_EVERY_MS:
            self._certificates, self._certificates_ms = self._read_certificates(), at_ms
        held = {each.device: each for each in lasting(self._holders)}
        for page in every_device(self._registry):
            drifts = {} if self._drifts is None else self._drifts.drifts([each.device for each in page])
            yield [self._sample(each, held.get(each.device), drifts.get(each.device), at_ms) for each in page]

    def _sample(self, entry: Device, held: Assignment | None, drift: Drift | None, at_ms: int) -> Sample:
        device, view = entry.device, self._view
        latest = view.latest(device)
        battery, space = reading_of(latest, *BATTERY), reading_of(latest, *FREE_SPACE)
        charging = reading_of(latest, BATTERY[0], CHARGING)
        presence = view.presence_of(device)
        certificate_ms = self._certificates.get(device)
        known = Known(
            device_class=entry.registration.device_class,
            battery_pct=battery,
            free_bytes=space,
            self_test=self._self_test(entry, at_ms),
            agent=entry.reported.agent,
            faults=None if presence is None else (*presence.faults, *presence.overdue),
            certificate_ms=certificate_ms,
        )
        fitness = Fitness(
            device,
            rules.judge(known, self._table, now_ms=at_ms),
            held,
            drift,
            self._battery.lasts_s(device, battery, at_ms, filling=charging is not None and charging.value > 0),
            self._space.lasts_s(device, space, at_ms),
            certificate_ms,
            None if presence is None else presence.clock,
        )
        return sample(fitness, self._labels.labels(device, at_ms), at_ms, shift_ms=self._shift_ms)

    def _self_test(self, entry: Device, at_ms: int) -> SelfTest | None:
        asked = self._table.get(entry.registration.device_class)
        if asked is None or asked.self_test_h_max is None:
            return None
        found = self._tests.get(entry.device)
        if found is None or at_ms - found.looked_ms >= SELF_TESTS_EVERY_MS:
            from_ms = at_ms - int(2 * asked.self_test_h_max * HOUR_MS)
            # one of a device's clock that is a little ahead counts
            events = self._view.events(entry.device, from_ms=from_ms, to_ms=at_ms + HOUR_MS, rows_max=EVENTS_MAX + 1)
            found = _Tested(at_ms, None if len(events) > EVENTS_MAX else last_self_test(events))
            self._tests[entry.device] = found
        return found.test
