"""``/v1/health``, ``/v1/facts`` and ``/metrics``: how the server itself is doing."""

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from fastapi import Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_server import metrics
from fleet_server.access.auditor import Auditor
from fleet_server.api import models
from fleet_server.api.routes import Routes
from fleet_server.change.facts import CommandFacts, TwinFacts
from fleet_server.evidence.facts import EvidenceFacts
from fleet_server.evidence.pieces import CustodyFacts
from fleet_server.projection.view import SinkStatus, SinkView
from fleet_server.registry.store import Registry
from fleet_server.telemetry.view import IngestFacts, TelemetryView

OK: Final = "ok"
DEGRADED: Final = "degraded"

F = TypeVar("F")


class ExpositionResponse(Response):
    """The text format of Prometheus."""

    media_type = "text/plain; version=0.0.4"


def open_routes(view: TelemetryView, auditor: Auditor) -> Routes:
    """What is told without a token."""
    router = Routes(tags=["operations"])

    @router.get("/v1/health", summary="Whether the server can work")
    def health() -> models.Health:
        """For a supervisor: `ok`, or `degraded` while the broker is not connected, or the audit log is broken."""
        sound = view.facts().connected and not auditor.facts().fault
        return models.Health(status=OK if sound else DEGRADED)

    return router


def routes(
    view: TelemetryView,
    registry: Registry,
    sinks: SinkView,
    auditor: Auditor,
    uploads: Callable[[], EvidenceFacts | None],
    custody: Callable[[], CustodyFacts | None],
    twins: Callable[[], TwinFacts | None],
    commands: Callable[[], CommandFacts | None],
) -> Routes:
    """The routes of the server's own state."""
    router = Routes(tags=["operations"])
    collectors = CollectorRegistry()
    collectors.register(_Facts(view, registry, sinks))
    collectors.register(_AuditFacts(auditor))
    collectors.register(_Of(uploads, metrics.EVIDENCE))
    collectors.register(_Of(custody, metrics.CUSTODY))
    collectors.register(_Of(twins, metrics.TWINS))
    collectors.register(_Of(commands, metrics.COMMANDS))
    ProcessCollector(registry=collectors)

    @router.get("/v1/facts", summary="How ingest is doing")
    def facts() -> models.Facts:
        """Counters since the server's start."""
        return _facts(view.facts())

    @router.get("/metrics", summary="The same for Prometheus", response_class=ExpositionResponse)
    def exposition() -> ExpositionResponse:
        """The server's own metrics."""
        return ExpositionResponse(generate_latest(collectors))

    return router


class _Facts(Collector):
    """Reads the view when it is scraped, so that nothing is counted twice."""

    def __init__(self, view: TelemetryView, registry: Registry, sinks: SinkView) -> None:
        self._view = view
        self._registry = registry
        self._sinks = sinks

    def collect(self) -> Iterator[Metric]:
        yield from _read(self._view.facts(), metrics.INGEST)
        tallies = self._registry.tallies()
        for name, description, value in (
            (metrics.DEVICES, "Devices registered or ever heard of.", sum(each.devices for each in tallies)),
            (metrics.DEVICES_CONNECTED, "Devices connected now.", sum(each.connected for each in tallies)),
            (metrics.DEVICES_REPORTING, "Devices that keep their cadence.", sum(each.reporting for each in tallies)),
            (metrics.DEVICES_HEALTHY, "Devices with no fault in the journal.", sum(each.healthy for each in tallies)),
        ):
            yield GaugeMetricFamily(name, description, value=value)
        yield from _of_sinks(self._sinks.sinks())


def _of_sinks(sinks: list[SinkStatus]) -> Iterator[Metric]:
    for metric in metrics.SINK:
        labelled = CounterMetricFamily if metric.kind is metrics.Kind.COUNTER else GaugeMetricFamily
        family = labelled(metric.name, metric.description, labels=["sink"])
        for status in sinks:
            family.add_metric([status.name], metric.value(status))
        yield family
    left_out = CounterMetricFamily(metrics.SINK_POINTS_LEFT_OUT, "Points not written.", labels=["sink", "reason"])
    for status in sinks:
        for reason, count in status.points_left_out.items():
            left_out.add_metric([status.name, reason], count)
    yield left_out


class _AuditFacts(Collector):
    """How the audit log is."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def collect(self) -> Iterator[Metric]:
        facts = self._auditor.facts()
        for name, description, value in (
            (metrics.AUDIT_ENTRIES, "Entries of the audit log.", facts.entries),
            (metrics.AUDIT_SIGNED, "Entries that the last checkpoint covers.", facts.signed),
            (metrics.AUDIT_WAITING, "Outcomes that the store has not taken yet.", facts.waiting),
            (metrics.AUDIT_BROKEN, "1 while the log is not the one that was signed.", 1 if facts.fault else 0),
        ):
            yield GaugeMetricFamily(name, description, value=value)


class _Of(Collector, Generic[F]):
    """Facts by their table; nothing where there are none."""

    def __init__(self, facts: Callable[[], F | None], table: tuple[metrics.Metric[F], ...]) -> None:
        self._facts = facts
        self._table = table

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        if facts is not None:
            yield from _read(facts, self._table)


def _read(facts: F, table: tuple[metrics.Metric[F], ...]) -> Iterator[Metric]:
    for metric in table:
        family = CounterMetricFamily if metric.kind is metrics.Kind.COUNTER else GaugeMetricFamily
        yield family(metric.name, metric.description, value=metric.value(facts))


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
