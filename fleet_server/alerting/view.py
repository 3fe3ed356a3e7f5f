"""Alerts as they are shown. This is the port."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from fleet_server.outbound.happenings import Severity
from fleet_server.texts import Texts


class Alert(NamedTuple):
    """One rule, broken by one subject, or by many that share a cause: *grouped* names those then.

    ``rule``: also the name of its runbook page; ``org``: the organisation node it belongs to, empty: the site;
    ``device``: empty where it is of a node or the site; ``text``: a key of the catalogue, ``values`` go into it.
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

    def words(self, text: Texts) -> str:
        """One line for people."""
        return text(self.text, **self.values)


class AlertsView(Protocol):
    """Any thread; a look at what is held in memory."""

    def alerts(self) -> list[Alert]:
        """Those that are open: alarms first, the oldest first."""
