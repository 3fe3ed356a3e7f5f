"""``/v1/alerts``: what is wrong now."""

from typing import Annotated, Final, NamedTuple

from fastapi import Query
from pydantic import BaseModel, Field

from broker_config.ids import DEVICE_ID_PATTERN
from fleet_server.alerting.view import Alert, AlertsView, place_of
from fleet_server.api import pages
from fleet_server.api.routes import Routes
from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.outbound.happenings import SEVERITIES, Severity
from fleet_server.registry.model import PATH_PATTERN
from fleet_server.registry.tree import is_below
from fleet_server.texts import Language, Texts

PATH_CHARS_MAX: Final = 512
TEXTS: Final = {language: Texts(language) for language in Language}


class OpenAlert(BaseModel):
    """A rule that is broken, by a device, a place, or the server."""

    rule: str = Field(examples=["signal-conflict"])
    severity: Severity
    since_ms: TimeMs
    since_at: TimeAt
    org: str | None = Field(description="The place that it belongs to: its path; null: the server.")
    device: str | None = Field(description="null: it is of a place, or the server.")
    device_class: str | None
    text: str = Field(examples=["light-7 (hq/station-7): the conflict monitor sees a conflict"])
    texts: dict[Language, str] = Field(description="The same in each language.")
    value: float | None = Field(description="What is wrong as a number.")
    unit: str = Field(description="Of the value, as SenML names it.", examples=["ms"])
    grouped: list[str] = Field(description="Devices that it is told for together.")
    runbook: str = Field(examples=["docs/runbooks/signal-conflict.md"])

    @classmethod
    def of(cls, alert: Alert) -> "OpenAlert":
        """As it stands."""
        texts = {language: alert.words(text) for language, text in TEXTS.items()}
        value = alert.values.get("value")
        return cls(
            rule=alert.rule,
            severity=alert.severity,
            since_ms=alert.since_ms,
            since_at=rfc3339(alert.since_ms),
            org=alert.org or None,
            device=alert.device or None,
            device_class=alert.device_class or None,
            text=texts[Language.EN],
            texts=texts,
            value=value if isinstance(value, float) else None,
            unit=alert.unit,
            grouped=list(alert.grouped),
            runbook=alert.runbook,
        )


class OpenAlerts(BaseModel):
    """A page of them."""

    alerts: list[OpenAlert]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class _Place(NamedTuple):
    urgency: int
    since_ms: pages.RowNumber
    rule: str
    subject: str


FIRST: Final = _Place(-len(SEVERITIES), 0, "", "")


def routes(alerts: AlertsView) -> Routes:
    """The route of alerts."""
    router = Routes(tags=["alerts"])

    @router.get("/v1/alerts", summary="What is wrong now")
    def listed(
        severity: Annotated[Severity, Query(description="Only of at least this severity.")] = Severity.INFO,
        device: Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN, description="Only of this device.")] = None,
        org: Annotated[
            str | None,
            Query(pattern=PATH_PATTERN, max_length=PATH_CHARS_MAX, description="Only of this place or below."),
        ] = None,
        limit: pages.Limit = pages.LIMIT_DEFAULT,
        cursor: pages.Cursor = None,
    ) -> OpenAlerts:
        """Alarms first, the oldest first. A device that is away with its whole place is in the place's alert."""
        after = pages.read_cursor(cursor, _Place, FIRST)
        least = SEVERITIES.index(severity)
        found = (
            alert
            for alert in alerts.alerts()
            if place_of(alert) > after
            and SEVERITIES.index(alert.severity) >= least
            and (device is None or alert.device == device)
            and (org is None or (alert.org != "" and is_below(alert.org, org)))
        )
        page, follows = pages.cut(found, limit)
        return OpenAlerts(
            alerts=[OpenAlert.of(alert) for alert in page],
            next=pages.write_cursor(place_of(page[-1])) if follows else None,
        )

    return router
