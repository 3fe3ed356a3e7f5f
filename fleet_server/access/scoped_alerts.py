"""Alerts as somebody sees them who may only act at some nodes."""

from collections.abc import Callable

from fleet_server.access.roles import Scope
from fleet_server.alerting.view import Alert, AlertsView


class ScopedAlerts:
    """A :class:`fleet_server.alerting.view.AlertsView`: of their nodes, and of no server."""

    def __init__(self, inner: AlertsView, scope: Callable[[], Scope]) -> None:
        self._inner = inner
        self._scope = scope

    def alerts(self) -> list[Alert]:
        """See the port."""
        scope = self._scope()
        return [alert for alert in self._inner.alerts() if scope.everywhere or scope.covers(alert.org)]
