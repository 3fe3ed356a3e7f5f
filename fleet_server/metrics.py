"""The server's own metrics: every name, with its unit, in one table. Dashboards take names from here."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_server.change.facts import TwinFacts
from fleet_server.evidence.facts import EvidenceFacts
from fleet_server.evidence.pieces import CustodyFacts
from fleet_server.projection.view import SinkState, SinkStatus
from fleet_server.telemetry.view import IngestFacts

PREFIX: Final = "fieldfleet_"


class Kind(StrEnum):
    """A counter only grows, from 0 at the server's start, and its name ends in ``_total``."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric without labels."""

    name: str
    kind: Kind
    description: str
    value: Callable[[IngestFacts], float]


def _counter(name: str, description: str, value: Callable[[IngestFacts], float]) -> Metric:
    return Metric(f"{PREFIX}{name}_total", Kind.COUNTER, description, value)


def _gauge(name: str, description: str, value: Callable[[IngestFacts], float]) -> Metric:
    return Metric(f"{PREFIX}{name}", Kind.GAUGE, description, value)


INGEST: Final = (
    _gauge("broker_connected", "1 while the server is connected to the broker.", lambda f: f.connected),
    _gauge("store_epoch", "The store's epoch; a new one follows a restore.", lambda f: f.store_epoch),
    _counter("records_stored", "Records committed.", lambda f: f.records_stored),
    _counter("records_duplicate", "Records that came again though stored.", lambda f: f.records_duplicate),
    _counter("records_quarantined", "Records that were not what they said.", lambda f: f.records_quarantined),
    _counter("messages_dropped", "Messages on no device's topic.", lambda f: f.messages_dropped),
    _counter("receipts_sent", "Receipts published.", lambda f: f.receipts_sent),
    _counter("commits", "Transactions of the batch store.", lambda f: f.commits),
    _counter("commit_failures", "Transactions that the batch store refused.", lambda f: f.commit_failures),
    _gauge("quarantine_bytes", "Payloads in quarantine.", lambda f: f.quarantine_bytes),
    _gauge("unsealed_records", "Records stored and not yet in columns.", lambda f: f.unsealed_records),
)


@dataclass(frozen=True, slots=True)
class SinkMetric:
    """A metric of a projection's sink; its one label is ``sink``."""

    name: str
    kind: Kind
    description: str
    value: Callable[[SinkStatus], float]


def _sink_counter(name: str, description: str, value: Callable[[SinkStatus], float]) -> SinkMetric:
    return SinkMetric(f"{PREFIX}sink_{name}_total", Kind.COUNTER, description, value)


def _sink_gauge(name: str, description: str, value: Callable[[SinkStatus], float]) -> SinkMetric:
    return SinkMetric(f"{PREFIX}sink_{name}", Kind.GAUGE, description, value)


SINK: Final = (
    _sink_gauge("taking", "1 while the sink takes points.", lambda s: s.state in {SinkState.OK, SinkState.BEHIND}),
    _sink_gauge("behind_commits", "Commits that the sink has not had.", lambda s: s.behind_commits),
    _sink_gauge("stale_places", "Hours of streams that are to be written again.", lambda s: s.stale_places),
    _sink_gauge("oldest_age_ms", "For how long the oldest of what it has not had waits.", lambda s: s.oldest_age_ms),
    _sink_counter("points_written", "Points that it took.", lambda s: s.points_written),
    _sink_counter("points_refused", "Points that it takes under no circumstances.", lambda s: s.points_refused),
    _sink_counter("posts", "Requests to write.", lambda s: s.posts),
    _sink_counter("posts_failed", "Requests that were not answered with success.", lambda s: s.posts_failed),
)


@dataclass(frozen=True, slots=True)
class EvidenceMetric:
    """A metric of uploads, without labels."""

    name: str
    kind: Kind
    description: str
    value: Callable[[EvidenceFacts], float]


def _evidence_counter(name: str, description: str, counted: str) -> EvidenceMetric:
    return EvidenceMetric(f"{PREFIX}evidence_{name}_total", Kind.COUNTER, description, lambda f: f.count(counted))


def _evidence_gauge(name: str, description: str, value: Callable[[EvidenceFacts], float]) -> EvidenceMetric:
    return EvidenceMetric(f"{PREFIX}evidence_{name}", Kind.GAUGE, description, value)


EVIDENCE: Final = (
    _evidence_gauge("broker_connected", "1 while uploads have their link to the broker.", lambda f: f.connected),
    _evidence_gauge("open_uploads", "Files that are on their way.", lambda f: f.open_uploads),
    _evidence_gauge("stale_uploads", "Of them, those that nobody continues.", lambda f: f.stale_uploads),
    _evidence_gauge("unreplicated", "Files kept whose second copy is still to be made.", lambda f: f.unreplicated),
    _evidence_gauge("receipts_waiting", "Files kept that wait for a signature.", lambda f: f.receipts_waiting),
    _evidence_gauge("window_bytes", "What devices may have under way.", lambda f: f.window_bytes),
    _evidence_gauge("devices_waiting", "Devices that wait for their turn.", lambda f: f.devices_waiting),
    _evidence_counter("bytes", "Bytes of files made durable.", "bytes"),
    _evidence_counter("chunks", "Chunks made durable.", "chunks"),
    _evidence_counter("duplicate_bytes", "Bytes that came again though durable.", "duplicate_bytes"),
    _evidence_counter("files_kept", "Files read again and kept.", "kept"),
    _evidence_counter("damaged_chunks", "Chunks that were not on the disk as they came.", "damaged_chunks"),
    _evidence_counter("conflicts", "Chunks that came again with other bytes: a security event.", "conflict"),
    _evidence_counter("foreign", "Messages about another device's upload: a security event.", "foreign"),
    _evidence_counter("false_files", "Files that are not what their manifest says.", "false"),
    _evidence_counter("malformed", "Messages that are none, or damaged.", "malformed"),
    _evidence_counter("refused_identity", "Offers that are not the device's.", "refused_identity"),
    _evidence_counter("refused_disk", "Offers turned away for now: the disk is full.", "refused_disk"),
    _evidence_counter("refused_quota", "Offers turned away for now: too much in a day.", "refused_quota"),
    _evidence_counter("write_failures", "Writes and commits that the disk did not take.", "write_failures"),
    _evidence_counter("finish_failures", "Files whose last steps are tried again.", "finish_failures"),
    EvidenceMetric(
        f"{PREFIX}evidence_receipts_total", Kind.COUNTER, "Files receipted.", lambda f: float(f.receipts_sent)
    ),
    EvidenceMetric(
        f"{PREFIX}evidence_sign_failures_total",
        Kind.COUNTER,
        "Receipts that the signer did not sign at once.",
        lambda f: float(f.sign_failures),
    ),
)


@dataclass(frozen=True, slots=True)
class CustodyMetric:
    """A gauge of what is kept, as of the last look, some minutes ago at most."""

    name: str
    description: str
    value: Callable[[CustodyFacts], float]


def _custody(name: str, description: str, value: Callable[[CustodyFacts], float]) -> CustodyMetric:
    return CustodyMetric(f"{PREFIX}custody_{name}", description, value)


CUSTODY: Final = (
    _custody("pieces", "Pieces of evidence that are kept.", lambda f: f.totals.pieces),
    _custody("bytes", "Their sizes together.", lambda f: f.totals.bytes_held),
    _custody("damaged_pieces", "Those that the last scrub found something of.", lambda f: f.totals.damaged),
    _custody("deleted_pieces", "Pieces deleted ever.", lambda f: f.totals.deleted),
    _custody(
        "deletions_waiting", "Deletions that were asked for and may still be done.", lambda f: f.deletions_waiting
    ),
    _custody("scrub_found", "What the last scrub found.", lambda f: f.scrub_found),
    _custody("scrub_ended_ms", "When the last scrub ended, ms since the epoch; 0: none did.", lambda f: f.scrub_ms),
)


@dataclass(frozen=True, slots=True)
class TwinMetric:
    """A metric of twins, without labels."""

    name: str
    kind: Kind
    description: str
    value: Callable[[TwinFacts], float]


def _twin_counter(name: str, description: str, counted: str) -> TwinMetric:
    return TwinMetric(f"{PREFIX}twins_{name}_total", Kind.COUNTER, description, lambda f: f.count(counted))


def _twin_gauge(name: str, description: str, value: Callable[[TwinFacts], float]) -> TwinMetric:
    return TwinMetric(f"{PREFIX}twins_{name}", Kind.GAUGE, description, value)


TWINS: Final = (
    _twin_gauge("broker_connected", "1 while twins have their link to the broker.", lambda f: float(f.connected)),
    _twin_gauge("orders_due", "Devices that wait for a signed order.", lambda f: float(f.orders_due)),
    _twin_counter("reported", "Reports of devices that were kept, or were known.", "reported"),
    _twin_counter("asked", "Devices that asked what is desired.", "asked"),
    _twin_counter("ordered", "Orders that were said.", "ordered"),
    _twin_counter("malformed", "Messages that are none of a twin's.", "malformed"),
    _twin_counter("strangers", "Messages of devices that the registry does not know.", "strangers"),
    _twin_counter("untold", "What there was no room for at the broker; devices ask again.", "untold"),
    _twin_counter("sign_failures", "Tries to have orders signed that failed.", "sign_failures"),
    _twin_counter("store_failures", "Tries to keep reports that failed.", "store_failures"),
)

SINK_POINTS_LEFT_OUT: Final = f"{PREFIX}sink_points_left_out_total"
"""Counter, labels ``sink`` and ``reason``: points that are not written, from :attr:`SinkStatus.points_left_out`."""
DEVICES: Final = f"{PREFIX}devices"
DEVICES_CONNECTED: Final = f"{PREFIX}devices_connected"
DEVICES_REPORTING: Final = f"{PREFIX}devices_reporting"
DEVICES_HEALTHY: Final = f"{PREFIX}devices_healthy"

AUDIT_ENTRIES: Final = f"{PREFIX}audit_entries"
AUDIT_SIGNED: Final = f"{PREFIX}audit_signed_entries"
AUDIT_WAITING: Final = f"{PREFIX}audit_waiting"
AUDIT_BROKEN: Final = f"{PREFIX}audit_broken"

PRESENCE: Final = "presence"
"""Measurement of the time series: what the server knows of each device, once in ``influx.presence_every_s``."""


@dataclass(frozen=True, slots=True)
class PresenceField:
    """A field of :data:`PRESENCE`; ``unit`` as SenML names it."""

    name: str
    unit: str
    description: str


PRESENCE_FIELDS: Final = (
    PresenceField("connected", "/", "1 while it is connected"),
    PresenceField("reporting", "/", "1 while every stream with a cadence keeps it"),
    PresenceField("healthy", "/", "1 while its journal says nothing is wrong"),
    PresenceField("flaps", "count", "connections made within the last hour beside the one it has"),
    PresenceField("held", "count", "numbers stored"),
    PresenceField("missing", "count", "numbers that are not stored"),
    PresenceField("quarantined", "count", "numbers in quarantine"),
    PresenceField("gaps_unexplained", "count", "gaps of the last day without a reason"),
    PresenceField("gaps_lost", "count", "gaps of the last day of what was receipted: an alarm"),
)
