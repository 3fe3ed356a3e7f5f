"""Alerts as they are shown. This is the port."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from fleet_server.alerting.saying import said
from fleet_server.outbound.happenings import SEVERITIES, Severity
from fleet_server.texts import Texts


class Alert(NamedTuple):
    """One rule, broken by one subject, or by many that share a cause: *grouped* names those then.

    ``rule``: also the name of its runbook page; ``org``: the organisation node it belongs to, empty: the site;
    ``device``: empty where it is of a node or the site; ``text``: a key of the catalogue, ``values`` go into it;
    ``unit``: of its ``value``, as SenML names it.
    """

    rule: str
    severity: Severity
    since_ms: int
    org: str
    device: str
    device_class: str
    text: str
    values: Mapping[str, str | float]
    grouped: tuple[str, ...] = ()
    unit: str = ""
    runbook: str = ""

    @property
    def subject(self) -> str:
        """Whom it is about: a device, a node's path, or nobody but the site."""
        return self.device or self.org

    def words(self, text: Texts) -> str:
        """One line for people."""
        value = said(text, self.values.get("value", ""), self.unit)
        return text(self.text, **{**self.values, "value": value})


def place_of(alert: Alert) -> tuple[int, int, str, str]:
    """In the order in which alerts are shown: alarms first, the oldest first; no other has the same."""
    return -SEVERITIES.index(alert.severity), alert.since_ms, alert.rule, alert.subject


class AlertsView(Protocol):
    """Any thread; a look at what is held in memory."""

    def alerts(self) -> list[Alert]:
        """Those that are open: alarms first, the oldest first."""
