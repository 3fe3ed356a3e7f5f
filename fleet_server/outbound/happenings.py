"""What can happen to a fleet that somebody may want to be told. A closed list: receivers write rules for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from broker_config.text import shown

DATA_NAMES_MAX: Final = 20
"""Names that one happening spells out; ``count`` says how many there are."""
TEXT_CHARS_MAX: Final = 300


class Kind(StrEnum):
    """What happened; kept as it is written."""

    DEVICE_CONNECTED = "device.connected"
    DEVICE_DISCONNECTED = "device.disconnected"
    DEVICE_SILENT = "device.silent"
    DEVICE_REPORTING = "device.reporting"
    DEVICE_UNHEALTHY = "device.unhealthy"
    DEVICE_HEALTHY = "device.healthy"
    SITE_DISCONNECTED = "site.disconnected"
    SITE_CONNECTED = "site.connected"
    GAP_UNEXPLAINED = "gap.unexplained"
    GAP_LOST = "gap.lost"
    QUARANTINE_FILLING = "quarantine.filling"
    STORE_REFUSING = "store.refusing"
    STORE_TAKING = "store.taking"
    BROKER_LOST = "broker.lost"
    BROKER_BACK = "broker.back"
    EVIDENCE_DAMAGED = "evidence.damaged"
    EVIDENCE_SOUND = "evidence.sound"
    EVIDENCE_UNCHECKED = "evidence.unchecked"
    EVIDENCE_DUE = "evidence.due"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_STOPPED = "rollout.stopped"
    ROLLOUT_ENDED = "rollout.ended"
    EVIDENCE_OVERDUE = "evidence.overdue"
    WEBHOOK_FAILING = "webhook.failing"
    WEBHOOK_TEST = "webhook.test"


class Severity(StrEnum):
    """How much of a hurry there is."""

    INFO = "info"
    WARNING = "warning"
    ALARM = "alarm"


SEVERITIES: Final = tuple(Severity)
"""The least first."""

SEVERITY: Final[Mapping[Kind, Severity]] = {
    Kind.DEVICE_CONNECTED: Severity.INFO,
    Kind.DEVICE_DISCONNECTED: Severity.WARNING,
    Kind.DEVICE_SILENT: Severity.WARNING,
    Kind.DEVICE_REPORTING: Severity.INFO,
    Kind.DEVICE_UNHEALTHY: Severity.WARNING,
    Kind.DEVICE_HEALTHY: Severity.INFO,
    Kind.SITE_DISCONNECTED: Severity.ALARM,
    Kind.SITE_CONNECTED: Severity.INFO,
    Kind.GAP_UNEXPLAINED: Severity.WARNING,
    Kind.GAP_LOST: Severity.ALARM,
    Kind.QUARANTINE_FILLING: Severity.ALARM,
    Kind.STORE_REFUSING: Severity.ALARM,
    Kind.STORE_TAKING: Severity.INFO,
    Kind.BROKER_LOST: Severity.ALARM,
    Kind.BROKER_BACK: Severity.INFO,
    Kind.EVIDENCE_DAMAGED: Severity.ALARM,
    Kind.EVIDENCE_SOUND: Severity.INFO,
    Kind.EVIDENCE_UNCHECKED: Severity.WARNING,
    Kind.EVIDENCE_DUE: Severity.INFO,
    Kind.ROLLOUT_PAUSED: Severity.WARNING,
    Kind.ROLLOUT_STOPPED: Severity.WARNING,
    Kind.ROLLOUT_ENDED: Severity.INFO,
    Kind.EVIDENCE_OVERDUE: Severity.WARNING,
    Kind.WEBHOOK_FAILING: Severity.WARNING,
    Kind.WEBHOOK_TEST: Severity.INFO,
}

Datum: TypeAlias = str | int | bool | tuple[str, ...]
Data: TypeAlias = Mapping[str, Datum]
"""Flat, so that a receiver's rule needs no path."""


@dataclass(frozen=True, slots=True)
class News:
    """Something that happened and is not recorded yet.

    ``device``: empty if it is about none. ``org``: the path of the organisation node; empty if it is about the server
    itself.
    """

    at_ms: int
    kind: Kind
    device: str = ""
    device_class: str = ""
    org: str = ""
    data: Data = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        """By its kind."""
        return SEVERITY[self.kind]


@dataclass(frozen=True, slots=True)
class Happening:
    """News that are recorded; ``id`` grows in the order in which readers of the feed see them."""

    id: int
    news: News


def names(found: list[str]) -> tuple[str, ...]:
    """The first of them, in order, as a happening spells them out."""
    return tuple(sorted(found)[:DATA_NAMES_MAX])


def text(news: News) -> str:
    """One line for people."""
    return shown(_text(news), TEXT_CHARS_MAX)


def _text(news: News) -> str:
    device, data = news.device, news.data
    match news.kind:
        case Kind.DEVICE_CONNECTED:
            return f"{device} is connected" + (", for the first time" if data.get("first") else "")
        case Kind.DEVICE_DISCONNECTED:
            return f"{device} is not connected any more"
        case Kind.DEVICE_SILENT:
            return f"{device} is connected and does not report: nothing from {_listed(data.get('streams'))}"
        case Kind.DEVICE_REPORTING:
            return f"{device} reports again"
        case Kind.DEVICE_UNHEALTHY:
            return f"{device} is not well: {_listed(data.get('why'))}"
        case Kind.DEVICE_HEALTHY:
            return f"{device} is well again"
        case Kind.SITE_DISCONNECTED:
            return f"{news.org}: {data.get('count')} of {data.get('devices')} devices are not connected any more"
        case Kind.SITE_CONNECTED:
            return f"{news.org}: {data.get('count')} of {data.get('devices')} devices are connected"
        case Kind.GAP_UNEXPLAINED:
            return f"{device}: {_gaps(data)} without a reason in {_listed(data.get('streams'))}"
        case Kind.GAP_LOST:
            return f"{device}: {_gaps(data)} of what was receipted in {_listed(data.get('streams'))}: lost"
        case Kind.QUARANTINE_FILLING:
            return f"quarantine is {data.get('percent')} % full; once it is, poison gets no receipts"
        case Kind.STORE_REFUSING:
            return "the store takes nothing; devices hold what they have"
        case Kind.STORE_TAKING:
            return "the store takes commits again"
        case Kind.BROKER_LOST:
            return "the server has lost the broker; devices hold what they have"
        case Kind.BROKER_BACK:
            return "the server has the broker again"
        case Kind.EVIDENCE_DAMAGED:
            return f"evidence: {data.get('count')} found that are not as they should be: {_listed(data.get('what'))}"
        case Kind.EVIDENCE_SOUND:
            return f"evidence: all {data.get('count')} pieces are as they should be again"
        case Kind.EVIDENCE_UNCHECKED:
            return f"evidence could not be read again: {data.get('why')}"
        case Kind.EVIDENCE_DUE:
            return f"evidence: the retention of {data.get('count')} pieces is over; their deletion waits for somebody"
        case Kind.ROLLOUT_PAUSED:
            return f"rollout {data.get('name')} is paused: {data.get('why')}"
        case Kind.ROLLOUT_STOPPED:
            return f"rollout {data.get('name')} gives no more turns: {data.get('why')}"
        case Kind.ROLLOUT_ENDED:
            return f"rollout {data.get('name')} has ended: {data.get('why')}"
        case Kind.EVIDENCE_OVERDUE:
            count = "a recording" if data.get("count") == 1 else f"{data.get('count')} recordings"
            return f"{device}: {count} not here a day later: {_listed(data.get('recordings'))}"
        case Kind.WEBHOOK_FAILING:
            return f"webhook {data.get('webhook')}: {data.get('why')}"
        case Kind.WEBHOOK_TEST:
            return f"a test of webhook {data.get('webhook')}"
        case other:
            assert_never(other)


def _gaps(data: Data) -> str:
    return "a gap" if data.get("count") == 1 else f"{data.get('count')} gaps"


def _listed(found: Datum | None) -> str:
    return ", ".join(found) if isinstance(found, tuple) else str(found or "")
