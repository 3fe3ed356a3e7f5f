"""``/v1/health``, ``/v1/facts`` and ``/metrics``: how the server itself is doing."""

from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_server import metrics
from fleet_server.api import models
from fleet_server.telemetry.view import IngestFacts, TelemetryView

OK: Final = "ok"
DEGRADED: Final = "degraded"


class ExpositionResponse(Response):
    """The text format of Prometheus."""

    media_type = "text/plain; version=0.0.4"


def open_routes(view: TelemetryView) -> APIRouter:
    """What is told without a token."""
    router = APIRouter(tags=["operations"])

    @router.get("/v1/health", summary="Whether the server can work")
    def health() -> models.Health:
        """For a supervisor: `ok`, or `degraded` while the broker is not connected."""
        return models.Health(status=OK if view.facts().connected else DEGRADED)

    return router


def routes(view: TelemetryView) -> APIRouter:
    """The routes of the server's own state."""
    router = APIRouter(tags=["operations"])
    registry = CollectorRegistry()
    registry.register(_Facts(view))
    ProcessCollector(registry=registry)

    @router.get("/v1/facts", summary="How ingest is doing")
    def facts() -> models.Facts:
        """Counters since the server's start."""
        return _facts(view.facts())

    @router.get("/metrics", summary="The same for Prometheus", response_class=ExpositionResponse)
    def exposition() -> ExpositionResponse:
        """The server's own metrics."""
        return ExpositionResponse(generate_latest(registry))

    return router


class _Facts(Collector):
    """Reads the view when it is scraped, so that nothing is counted twice."""

    def __init__(self, view: TelemetryView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        facts = self._view.facts()
        for metric in metrics.INGEST:
            family = CounterMetricFamily if metric.kind is metrics.Kind.COUNTER else GaugeMetricFamily
            yield family(metric.name, metric.description, value=metric.value(facts))
        devices = self._view.devices()
        yield GaugeMetricFamily(metrics.DEVICES, "Devices ever heard of.", value=len(devices))
        connected = sum(device.connected for device in devices)
        yield GaugeMetricFamily(metrics.DEVICES_CONNECTED, "Devices connected now.", value=connected)
        reporting = sum(device.reporting for device in devices)
        yield GaugeMetricFamily(
            metrics.DEVICES_REPORTING, "Devices whose streams keep their cadence.", value=reporting
        )
        healthy = sum(device.healthy for device in devices)
        yield GaugeMetricFamily(
            metrics.DEVICES_HEALTHY, "Devices whose journal says nothing is wrong.", value=healthy
        )


def _facts(facts: IngestFacts) -> models.Facts:
    return models.Facts(
        store_epoch=facts.store_epoch,
        connected=facts.connected,
        records_stored=facts.records_stored,
        records_duplicate=facts.records_duplicate,
        records_quarantined=facts.records_quarantined,
        messages_dropped=facts.messages_dropped,
        receipts_sent=facts.receipts_sent,
        commits=facts.commits,
        commit_failures=facts.commit_failures,
        quarantine_bytes=facts.quarantine_bytes,
        unsealed_records=facts.unsealed_records,
    )
