"""What counts as wrong: one table, for the server's own alerts, for Grafana's and for the runbooks.

Rule 1: a rule looks at one field, of a measure of ours or of a device's stream, so that the server and a query of the
time-series server judge by the same number.
Rule 2: what is not known changes nothing: silence neither opens an alert nor clears one.
Rule 3: a rule clears further off than it fires, or holds for a while, so that nothing flaps around a threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from broker_config import device_classes
from fleet_server.outbound.happenings import Severity
from fleet_server.standing.measures import (
    BY_NAME,
    EVIDENCE,
    INTERVIEWS,
    PRESENCE,
    READINESS,
    RECORDINGS,
    ROLLOUTS,
    SERVER,
    Field,
    Measure,
    Of,
)
from fleet_server.texts import marked

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
GIB: Final = 1024**3

FIXED: Final = ("host", "interrogation_room", "traffic_light")
"""Classes that are never switched off in the ordinary course of things."""
CARRIED: Final = ("body_camera", "in_car_terminal")

RUNBOOKS: Final = "docs/runbooks"


class Way(StrEnum):
    """On which side of its threshold a value is wrong; ``off``: too far from 0, whichever way."""

    ABOVE = "above"
    BELOW = "below"
    OFF = "off"


class Kin(StrEnum):
    """How alerts of one node belong together.

    ``away``: the device is not there; such alerts are told by the node's, while it stands. ``outage``: that one.
    """

    NONE = ""
    AWAY = "away"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Rule:
    """``name``: also of its runbook page.

    *of*: a measure, or the name of a stream of *classes*. The value is *field*, less *minus* of the same measure;
    wrong while it is on that *way* of *fires*, strictly. It fires after *fires_s* of that, and clears after
    *clears_s* on the other side of *clears*, or at it. *only*: a field that is 1 where the rule applies; where it is
    0, nothing is wrong. *classes*: of devices, none: all. *title*, *text*: keys of the catalogue; into *text* go
    ``device``, ``org`` and ``value`` (with its unit), and of an outage ``count`` and ``devices``.
    """

    name: str
    severity: Severity
    of: Measure | str
    field: str
    way: Way
    fires: float
    clears: float
    fires_s: int
    clears_s: int
    title: str
    text: str
    minus: str = ""
    only: str = ""
    classes: tuple[str, ...] = ()
    kin: Kin = Kin.NONE

    @property
    def measurement(self) -> str:
        """What its field is of, by name."""
        return self.of if isinstance(self.of, str) else self.of.name

    @property
    def subject(self) -> Of:
        """What is wrong, where it is broken."""
        if self.kin is Kin.OUTAGE:
            return Of.NODE
        return Of.DEVICE if isinstance(self.of, str) else self.of.of

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Where its field is looked up: its measure; or its stream, in each class that it applies to."""
        if isinstance(self.of, str):
            return tuple(stream_measure(name, self.of) for name in self.classes)
        return (self.of,)

    @property
    def unit(self) -> str:
        """Of its value, as SenML names it; of an outage's it is a count of devices."""
        if self.kin is Kin.OUTAGE:
            return "count"
        (unit,) = {each.unit for measure in self.measures for each in measure.fields if each.name == self.field}
        return unit

    @property
    def runbook(self) -> str:
        """Its page, from the root of the documentation."""
        return f"{RUNBOOKS}/{self.name}.md"

    def wrong(self, value: float) -> bool:
        """Whether it is on the wrong side of the threshold at which the rule fires."""
        match self.way:
            case Way.ABOVE:
                return value > self.fires
            case Way.BELOW:
                return value < self.fires
            case Way.OFF:
                return abs(value) > self.fires

    def well(self, value: float) -> bool:
        """Whether it is far enough on the good side to clear."""
        match self.way:
            case Way.ABOVE:
                return value <= self.clears
            case Way.BELOW:
                return value >= self.clears
            case Way.OFF:
                return abs(value) <= self.clears


Streams: TypeAlias = Mapping[tuple[str, str], Measure]


def stream_measure(device_class: str, stream: str) -> Measure:
    """A stream as a measure: of each device, its fields and cadence. Raises KeyError, UnknownClassError."""
    spec = device_classes.load(device_class).streams[stream]
    fields = tuple(Field(name, each.unit, each.description) for name, each in spec.fields.items())
    return Measure(stream, Of.DEVICE, int(spec.every_s), "", fields)


def streams(rules: tuple[Rule, ...]) -> Streams:
    """Every stream that *rules* look at, by class and name."""
    return {
        (name, rule.of): stream_measure(name, rule.of)
        for rule in rules
        if isinstance(rule.of, str)
        for name in rule.classes
    }


_ALARM: Final = Severity.ALARM
_WARNING: Final = Severity.WARNING
_NO: Final = 0.5
"""Between no and yes."""


RULES: Final = (
    Rule(
        "site-outage", _ALARM, PRESENCE, "connected", Way.BELOW, _NO, _NO, MINUTE_S, MINUTE_S,
        marked("Site outage"),
        marked("{org}: {count} of {devices} devices are not connected"),
        classes=FIXED, kin=Kin.OUTAGE,
    ),
    Rule(
        "device-dead", _ALARM, PRESENCE, "connected", Way.BELOW, _NO, _NO, 5 * MINUTE_S, 30,
        marked("Device not connected"),
        marked("{device} ({org}) is not connected"),
        classes=FIXED, kin=Kin.AWAY,
    ),
    Rule(
        "device-away", _WARNING, PRESENCE, "connected", Way.BELOW, _NO, _NO, 3 * DAY_S, 30,
        marked("Carried device away for long"),
        marked("{device} ({org}) has not been connected for three days"),
        classes=CARRIED, kin=Kin.AWAY,
    ),
    Rule(
        "device-silent", _WARNING, PRESENCE, "reporting", Way.BELOW, _NO, _NO, 10 * MINUTE_S, 30,
        marked("Device connected and silent"),
        marked("{device} ({org}) is connected and does not report"),
        only="connected",
    ),
    Rule(
        "device-unhealthy", _WARNING, PRESENCE, "healthy", Way.BELOW, _NO, _NO, 5 * MINUTE_S, MINUTE_S,
        marked("Device not well"),
        marked("{device} ({org}): its journal tells of a fault that lasts"),
    ),
    Rule(
        "gap-unexplained", _WARNING, PRESENCE, "gaps_unexplained", Way.ABOVE, 0, 0, 5 * MINUTE_S, MINUTE_S,
        marked("Gap without a reason"),
        marked("{device} ({org}): {value} gaps of the last day have no reason"),
    ),
    Rule(
        "gap-lost", _ALARM, PRESENCE, "gaps_lost", Way.ABOVE, 0, 0, 0, MINUTE_S,
        marked("Receipted readings lost"),
        marked("{device} ({org}): {value} gaps of what was receipted"),
    ),
    Rule(
        "interview-gap", _ALARM, INTERVIEWS, "gaps_unexplained", Way.ABOVE, 0, 0, 0, MINUTE_S,
        marked("Interview with a gap"),
        marked("{device} ({org}): {value} gaps without a reason in interviews of the last day"),
        classes=("interrogation_room",),
    ),
    Rule(
        "recording-gap", _ALARM, "av", "gap_ms", Way.ABOVE, 0, 0, 0, MINUTE_S,
        marked("Running recording with a gap"),
        marked("{device} ({org}): {value} are missing in the running recording"),
        classes=("interrogation_room",),
    ),
    Rule(
        "signal-conflict", _ALARM, "monitor", "conflict_ok", Way.BELOW, _NO, _NO, 0, MINUTE_S,
        marked("Conflict at a signal"),
        marked("{device} ({org}): the conflict monitor sees a conflict"),
        classes=("traffic_light",),
    ),
    Rule(
        "signal-flash", _ALARM, "signal", "mode", Way.BELOW, 1.5, 1.5, 30, MINUTE_S,
        marked("Signal dark or flashing"),
        marked("{device} ({org}): the signals flash or are off (mode {value})"),
        classes=("traffic_light",),
    ),
    Rule(
        "lamp-failed", _WARNING, "lamps", "failed", Way.ABOVE, 0, 0, MINUTE_S, MINUTE_S,
        marked("Signal lamp failed"),
        marked("{device} ({org}): {value} lamps do not draw their current"),
        classes=("traffic_light",),
    ),
    Rule(
        "space-short", _WARNING, READINESS, "space_lasts_s", Way.BELOW, 0, 10 * MINUTE_S, 2 * MINUTE_S, 2 * MINUTE_S,
        marked("Full before the shift ends"),
        marked("{device} ({org}) will be full {value} before the shift ends"),
        minus="shift_left_s", only="given_out",
    ),
    Rule(
        "battery-short", _WARNING, READINESS, "battery_lasts_s", Way.BELOW, 0, 10 * MINUTE_S, 2 * MINUTE_S,
        2 * MINUTE_S,
        marked("Battery empty before the shift ends"),
        marked("{device} ({org}): the battery will be empty {value} before the shift ends"),
        minus="shift_left_s", only="given_out",
    ),
    Rule(
        "upload-overdue", _WARNING, RECORDINGS, "overdue", Way.ABOVE, 0, 0, 0, 0,
        marked("Recording overdue"),
        marked("{device} ({org}): {value} recordings are not here a day later"),
    ),
    Rule(
        "device-certificate", _WARNING, READINESS, "certificate_s", Way.BELOW, 5 * DAY_S, 6 * DAY_S, 5 * MINUTE_S, 0,
        marked("Device certificate ends soon"),
        marked("{device} ({org}): its certificate ends in {value}"),
    ),
    Rule(
        "authority-ends", _WARNING, SERVER, "ca_s", Way.BELOW, 180 * DAY_S, 200 * DAY_S, 5 * MINUTE_S, 0,
        marked("Devices' authority ends soon"),
        marked("the authority that signs devices ends in {value}"),
    ),
    Rule(
        "releases-end", _WARNING, SERVER, "releases_s", Way.BELOW, 30 * DAY_S, 31 * DAY_S, 5 * MINUTE_S, 0,
        marked("Releases have to be signed anew"),
        marked("what persons signed of releases ends in {value}"),
    ),
    Rule(
        "releases-stale", _WARNING, SERVER, "releases_fresh_s", Way.BELOW, 2 * DAY_S, 3 * DAY_S, 5 * MINUTE_S, 0,
        marked("Releases are not kept fresh"),
        marked("devices refuse every release in {value}"),
    ),
    Rule(
        "clock-off", _WARNING, READINESS, "clock_off_ms", Way.OFF, 2_000, 1_000, 2 * MINUTE_S, 2 * MINUTE_S,
        marked("Clock wrong"),
        marked("{device} ({org}): its clock is off by {value}"),
    ),
    Rule(
        "not-in-effect", _WARNING, READINESS, "in_effect", Way.BELOW, _NO, _NO, HOUR_S, 0,
        marked("Configuration not in effect"),
        marked("{device} ({org}) has not had its desired configuration in effect for an hour"),
    ),
    Rule(
        "rollout-paused", _WARNING, ROLLOUTS, "paused", Way.ABOVE, 0, 0, 0, 0,
        marked("Rollout paused"),
        marked("{value} rollouts are paused"),
    ),
    Rule(
        "store-refusing", _ALARM, SERVER, "store_takes", Way.BELOW, _NO, _NO, 10, 10,
        marked("Store takes nothing"),
        marked("the batch store takes nothing; devices hold what they have"),
    ),
    Rule(
        "receipts-late", _WARNING, SERVER, "receipt_age_ms", Way.ABOVE, 10_000, 5_000, MINUTE_S, MINUTE_S,
        marked("Receipts late"),
        marked("records wait {value} for their receipt"),
    ),
    Rule(
        "broker-lost", _ALARM, SERVER, "broker_connected", Way.BELOW, _NO, _NO, 15, 10,
        marked("Broker lost"),
        marked("the server is not connected to the broker; devices hold what they have"),
    ),
    Rule(
        "quarantine-filling", _ALARM, SERVER, "quarantine_share", Way.ABOVE, 0.8, 0.6, 0, MINUTE_S,
        marked("Quarantine filling"),
        marked("quarantine is {value} full; once it is, poison gets no receipts"),
    ),
    Rule(
        "series-budget", _WARNING, SERVER, "series_share", Way.ABOVE, 0.9, 0.8, 5 * MINUTE_S, 5 * MINUTE_S,
        marked("Budget of series nearly used"),
        marked("{value} of the budget of series is used; beyond it new series are left out"),
    ),
    Rule(
        "sink-behind", _WARNING, SERVER, "sink_behind_s", Way.ABOVE, 5 * MINUTE_S, MINUTE_S, 5 * MINUTE_S, MINUTE_S,
        marked("Time series behind"),
        marked("points have been waiting {value} for the time-series server; dashboards are old"),
    ),
    Rule(
        "disk-short", _ALARM, SERVER, "disk_free_bytes", Way.BELOW, 5 * GIB, 6 * GIB, MINUTE_S, MINUTE_S,
        marked("Server's disk nearly full"),
        marked("{value} are left where the batch store is"),
    ),
    Rule(
        "evidence-space", _WARNING, EVIDENCE, "space_lasts_s", Way.BELOW, 7 * DAY_S, 8 * DAY_S, HOUR_S, HOUR_S,
        marked("Evidence store nearly full"),
        marked("the evidence store is full in {value}, as the last week went"),
    ),
    Rule(
        "evidence-damaged", _ALARM, EVIDENCE, "damaged", Way.ABOVE, 0, 0, 0, 0,
        marked("Evidence damaged"),
        marked("the last scrub found {value} pieces that are not as they should be"),
    ),
    Rule(
        "scrub-old", _WARNING, EVIDENCE, "scrub_age_s", Way.ABOVE, 49 * HOUR_S, 36 * HOUR_S, 0, 0,
        marked("Evidence not read again"),
        marked("evidence was last read again {value} ago"),
    ),
    Rule(
        "custody-log", _ALARM, EVIDENCE, "log_good", Way.BELOW, _NO, _NO, 0, 0,
        marked("Custody log not good"),
        marked("the custody log is not what was signed; every change is refused"),
    ),
    Rule(
        "second-copy", _WARNING, EVIDENCE, "unreplicated", Way.ABOVE, 0, 0, HOUR_S, 0,
        marked("Second copies missing"),
        marked("{value} pieces of evidence have no second copy yet"),
    ),
)  # fmt: skip
RULE: Final[Mapping[str, Rule]] = {rule.name: rule for rule in RULES}

assert all(BY_NAME.get(rule.measurement, rule.of) is rule.of for rule in RULES), "a stream is named as a measure"
