"""What can happen to a fleet that somebody may want to be told. A closed list: receivers write rules for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from broker_config.text import shown
from fleet_server.texts import Language, Texts, marked

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
    ALERT_OPENED = "alert.opened"
    ALERT_CLEARED = "alert.cleared"
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
    Kind.ALERT_OPENED: Severity.ALARM,
    Kind.ALERT_CLEARED: Severity.ALARM,
    Kind.WEBHOOK_FAILING: Severity.WARNING,
    Kind.WEBHOOK_TEST: Severity.INFO,
}

WORDS: Final[Mapping[Kind, str]] = {
    Kind.DEVICE_CONNECTED: marked("{device} is connected"),
    Kind.DEVICE_DISCONNECTED: marked("{device} is not connected any more"),
    Kind.DEVICE_SILENT: marked("{device} is connected and does not report: nothing from {streams}"),
    Kind.DEVICE_REPORTING: marked("{device} reports again"),
    Kind.DEVICE_UNHEALTHY: marked("{device} is not well: {why}"),
    Kind.DEVICE_HEALTHY: marked("{device} is well again"),
    Kind.SITE_DISCONNECTED: marked("{org}: {count} of {devices} devices are not connected any more"),
    Kind.SITE_CONNECTED: marked("{org}: {count} of {devices} devices are connected"),
    Kind.GAP_UNEXPLAINED: marked("{device}: {count} gaps without a reason in {streams}"),
    Kind.GAP_LOST: marked("{device}: {count} gaps of what was receipted in {streams}: lost"),
    Kind.QUARANTINE_FILLING: marked("quarantine is {percent} % full; once it is, poison gets no receipts"),
    Kind.STORE_REFUSING: marked("the store takes nothing; devices hold what they have"),
    Kind.STORE_TAKING: marked("the store takes commits again"),
    Kind.BROKER_LOST: marked("the server has lost the broker; devices hold what they have"),
    Kind.BROKER_BACK: marked("the server has the broker again"),
    Kind.EVIDENCE_DAMAGED: marked("evidence: {count} found that are not as they should be: {what}"),
    Kind.EVIDENCE_SOUND: marked("evidence: all {count} pieces are as they should be again"),
    Kind.EVIDENCE_UNCHECKED: marked("evidence could not be read again: {why}"),
    Kind.EVIDENCE_DUE: marked("evidence: the retention of {count} pieces is over; their deletion waits for somebody"),
    Kind.ROLLOUT_PAUSED: marked("rollout {name} is paused: {why}"),
    Kind.ROLLOUT_STOPPED: marked("rollout {name} gives no more turns: {why}"),
    Kind.ROLLOUT_ENDED: marked("rollout {name} has ended: {why}"),
    Kind.EVIDENCE_OVERDUE: marked("{device}: {count} recordings not here a day later: {recordings}"),
    Kind.ALERT_OPENED: marked("{words}"),
    Kind.ALERT_CLEARED: marked("over: {words}"),
    Kind.WEBHOOK_FAILING: marked("webhook {webhook}: {why}"),
    Kind.WEBHOOK_TEST: marked("a test of webhook {webhook}"),
}
FIRST: Final[Mapping[Kind, str]] = {
    Kind.DEVICE_CONNECTED: marked("{device} is connected, for the first time"),
}
ONE: Final[Mapping[Kind, str]] = {
    Kind.GAP_UNEXPLAINED: marked("{device}: a gap without a reason in {streams}"),
    Kind.GAP_LOST: marked("{device}: a gap of what was receipted in {streams}: lost"),
    Kind.EVIDENCE_OVERDUE: marked("{device}: a recording not here a day later: {recordings}"),
}
"""Where the count is one."""
NOTHING_SAID: Final = {
    **dict.fromkeys(("words", "streams", "why", "what", "name", "recordings", "webhook"), ""),
    **dict.fromkeys(("count", "devices", "percent"), "?"),
}
"""What texts have a place for; what happened long ago may not say all of it."""
ENGLISH: Final = Texts(Language.EN)

ALERTS: Final = frozenset({Kind.ALERT_OPENED, Kind.ALERT_CLEARED})
"""Their ``data`` names the rule and its runbook page, and says severity, value, unit and words."""
ALERT_WORDS: Final[Mapping[Language, str]] = {Language.EN: "text_en", Language.ZH_HANS: "text_zh_hans"}
"""Under which name the ``data`` of an alert has its words."""

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
        """By its kind; an alert's is its rule's, and it clears with the one with which it opened, so that whoever is
        told the one is told the other.
        """
        if self.kind in ALERTS:
            return Severity(str(self.data.get("severity", SEVERITY[self.kind].value)))
        return SEVERITY[self.kind]


@dataclass(frozen=True, slots=True)
class Happening:
    """News that are recorded; ``id`` grows in the order in which readers of the feed see them."""

    id: int
    news: News


def names(found: list[str]) -> tuple[str, ...]:
    """The first of them, in order, as a happening spells them out."""
    return tuple(sorted(found)[:DATA_NAMES_MAX])


def text(news: News, words: Texts = ENGLISH) -> str:
    """One line for people, in the language of *words*."""
    found = values(news)
    if news.kind in ALERTS:
        found["words"] = str(news.data.get(ALERT_WORDS[words.language], news.data.get("alert", "")))
    return shown(words(key(news), **found), TEXT_CHARS_MAX)


def key(news: News) -> str:
    """Of its text in the catalogue."""
    if news.data.get("first"):
        return FIRST.get(news.kind, WORDS[news.kind])
    if news.data.get("count") == 1:
        return ONE.get(news.kind, WORDS[news.kind])
    return WORDS[news.kind]


def values(news: News) -> dict[str, str]:
    """What goes into its text."""
    said = {name: _listed(each) for name, each in news.data.items()}
    return {**NOTHING_SAID, **said, "device": news.device, "org": news.org}


def _listed(found: Datum) -> str:
    return ", ".join(found) if isinstance(found, tuple) else str(found)
