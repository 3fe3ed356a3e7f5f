"""How many alerts are open at each organisation node."""

from collections import Counter
from collections.abc import Iterable, Iterator

from fleet_server.alerting.view import Alert, AlertsView
from fleet_server.outbound.happenings import Severity
from fleet_server.standing.measures import ALERTS
from fleet_server.standing.sample import Sample, sampled


def samples(alerts: Iterable[Alert], at_ms: int) -> list[Sample]:
    """Of each node that has some, and of the site itself always, without a node."""
    counts = Counter((alert.org, alert.severity) for alert in alerts)
    nodes = {"", *(org for org, _ in counts)}
    return [
        sampled(
            ALERTS,
            at_ms,
            {"alarms": counts[org, Severity.ALARM], "warnings": counts[org, Severity.WARNING]},
            org=org,
        )
        for org in sorted(nodes)
    ]


class AlertsLook:
    """At those that are open."""

    def __init__(self, view: AlertsView) -> None:
        self._view = view

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        yield samples(self._view.alerts(), at_ms)
