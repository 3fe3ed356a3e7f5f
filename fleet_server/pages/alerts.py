"""``/alerts``: what is wrong now, whose it is, and since when."""

from collections.abc import Callable
from typing import Final, TypeAlias

from fastapi import APIRouter, Request
from starlette.responses import Response

from fleet_server.alerting.view import Alert
from fleet_server.pages.shell import PageRoute, Shell
from fleet_server.pages.words import SEVERITIES
from fleet_server.registry.store import Registry
from fleet_server.texts import marked

REFRESH_S: Final = 5
ALERTS_SHOWN_MAX: Final = 500

Open: TypeAlias = Callable[[], list[Alert]]
"""Those that who acts may see."""


def routes(shell: Shell, registry: Registry, alerts: Open) -> APIRouter:
    """The page of alerts."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/alerts")
    def listed(request: Request) -> Response:
        text = shell.texts(request)
        found = alerts()
        names = {placed.path: placed.node for placed in registry.nodes()}
        return shell.page(
            request,
            "alerts.html",
            text(marked("Alerts")),
            refresh_s=REFRESH_S,
            alerts=[
                (alert, SEVERITIES[alert.severity], alert.words(text), names.get(alert.org))
                for alert in found[:ALERTS_SHOWN_MAX]
            ],
            more=max(0, len(found) - ALERTS_SHOWN_MAX),
        )

    return router
