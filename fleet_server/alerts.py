"""Wires alerts: how the fleet stands, readings, where they are kept and told, and the thread that looks."""

from collections.abc import Callable

from sqlalchemy import Engine

from fleet_server.adapters.sql.alerts import SqlAlerts
from fleet_server.adapters.sql.outbox import SqlOutbox
from fleet_server.alerting.engine import Alerts, Settings
from fleet_server.alerting.rules import RULES
from fleet_server.config import Config
from fleet_server.projection.labels import LabelsOf
from fleet_server.standing.sample import Standing
from fleet_server.telemetry.view import TelemetryView
from fleet_server.threads import Resumed


def alerts_of(
    config: Config,
    engine: Engine,
    standing: Standing,
    view: TelemetryView,
    labels: LabelsOf,
    *,
    told: Callable[[], None],
    now_ms: Callable[[], int],
) -> Alerts:
    """Over ports that are not scoped; *told*: is called once something was."""
    table = config.alerts
    settings = Settings(
        {rule.name: rule for rule in RULES if rule.name not in table.off},
        patience=table.patience,
        settle_s=config.outbound.settle_s,
        look_s=table.look_s,
    )
    kept = SqlAlerts(SqlOutbox(engine), now_ms=now_ms, told=told)
    return Alerts(standing, view, labels, kept, settings, now_ms=now_ms)


def running(alerts: Alerts) -> Resumed:
    """The thread that looks."""
    return Resumed("alerts", alerts.run)
