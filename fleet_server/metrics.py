"""The server's own metrics: every name, with its unit, in one table. Dashboards take names from here."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar

from fleet_server.change.facts import CommandFacts, TwinFacts
from fleet_server.evidence.facts import EvidenceFacts
from fleet_server.evidence.pieces import CustodyFacts
from fleet_server.projection.view import SinkState, SinkStatus
from fleet_server.telemetry.view import IngestFacts

PREFIX: Final = "fieldfleet_"


class Counting(Protocol):
    """Facts with counts since the server's start."""

    def count(self, name: str) -> float:
        """One of them; 0 if it never happened."""


F = TypeVar("F")
C = TypeVar("C", bound=Counting)


class Kind(StrEnum):
    """A counter only grows, from 0 at the server's start, and its name ends in ``_total``."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric(Generic[F]):
    """One metric of the facts *F*. Those of a sink have the label ``sink``, all others none."""

    name: str
    kind: Kind
    description: str
    value: Callable[[F], float]


def _counter(name: str, description: str, value: Callable[[F], float]) -> Metric[F]:
    return Metric(f"{PREFIX}{name}_total", Kind.COUNTER, description, value)


def _gauge(name: str, description: str, value: Callable[[F], float]) -> Metric[F]:
    return Metric(f"{PREFIX}{name}", Kind.GAUGE, description, value)


def _counted(name: str, description: str, counted: str) -> Metric[C]:
    return _counter(name, description, lambda facts: facts.count(counted))


INGEST: Final[tuple[Metric[IngestFacts], ...]] = (
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


SINK: Final[tuple[Metric[SinkStatus], ...]] = (
    _gauge("sink_taking", "1 while the sink takes points.", lambda s: s.state in {SinkState.OK, SinkState.BEHIND}),
    _gauge("sink_behind_commits", "Commits that the sink has not had.", lambda s: s.behind_commits),
    _gauge("sink_stale_places", "Hours of streams that are to be written again.", lambda s: s.stale_places),
    _gauge("sink_oldest_age_ms", "For how long the oldest of what it has not had waits.", lambda s: s.oldest_age_ms),
    _counter("sink_points_written", "Points that it took.", lambda s: s.points_written),
    _counter("sink_points_refused", "Points that it takes under no circumstances.", lambda s: s.points_refused),
    _counter("sink_points_late", "Points too old or too far ahead, kept elsewhere.", lambda s: s.points_late),
    _gauge("sink_series", "Series that it was given.", lambda s: s.series),
    _counter("sink_posts", "Requests to write.", lambda s: s.posts),
    _counter("sink_posts_failed", "Requests that were not answered with success.", lambda s: s.posts_failed),
)


EVIDENCE: Final[tuple[Metric[EvidenceFacts], ...]] = (
    _gauge("evidence_broker_connected", "1 while uploads have their link to the broker.", lambda f: f.connected),
    _gauge("evidence_open_uploads", "Files that are on their way.", lambda f: f.open_uploads),
    _gauge("evidence_stale_uploads", "Of them, those that nobody continues.", lambda f: f.stale_uploads),
    _gauge("evidence_unreplicated", "Files kept whose second copy is still to be made.", lambda f: f.unreplicated),
    _gauge("evidence_receipts_waiting", "Files kept that wait for a signature.", lambda f: f.receipts_waiting),
    _gauge("evidence_window_bytes", "What devices may have under way.", lambda f: f.window_bytes),
    _gauge("evidence_devices_waiting", "Devices that wait for their turn.", lambda f: f.devices_waiting),
    _counted("evidence_bytes", "Bytes of files made durable.", "bytes"),
    _counted("evidence_chunks", "Chunks made durable.", "chunks"),
    _counted("evidence_duplicate_bytes", "Bytes that came again though durable.", "duplicate_bytes"),
    _counted("evidence_files_kept", "Files read again and kept.", "kept"),
    _counted("evidence_damaged_chunks", "Chunks that were not on the disk as they came.", "damaged_chunks"),
    _counted("evidence_conflicts", "Chunks that came again with other bytes: a security event.", "conflict"),
    _counted("evidence_foreign", "Messages about another device's upload: a security event.", "foreign"),
    _counted("evidence_false_files", "Files that are not what their manifest says.", "false"),
    _counted("evidence_malformed", "Messages that are none, or damaged.", "malformed"),
    _counted("evidence_refused_identity", "Offers that are not the device's.", "refused_identity"),
    _counted("evidence_refused_disk", "Offers turned away for now: the disk is full.", "refused_disk"),
    _counted("evidence_refused_quota", "Offers turned away for now: too much in a day.", "refused_quota"),
    _counted("evidence_write_failures", "Writes and commits that the disk did not take.", "write_failures"),
    _counted("evidence_finish_failures", "Files whose last steps are tried again.", "finish_failures"),
    _counter("evidence_receipts", "Files receipted.", lambda f: float(f.receipts_sent)),
    _counter(
        "evidence_sign_failures", "Receipts that the signer did not sign at once.", lambda f: float(f.sign_failures)
    ),
)


CUSTODY: Final[tuple[Metric[CustodyFacts], ...]] = (
    _gauge("custody_pieces", "Pieces of evidence that are kept.", lambda f: f.totals.pieces),
    _gauge("custody_bytes", "Their sizes together.", lambda f: f.totals.bytes_held),
    _gauge("custody_damaged_pieces", "Those that the last scrub found something of.", lambda f: f.totals.damaged),
    _gauge("custody_deleted_pieces", "Pieces deleted ever.", lambda f: f.totals.deleted),
    _gauge(
        "custody_deletions_waiting",
        "Deletions asked for that may still be done.",
        lambda f: f.deletions_waiting,
    ),
    _gauge("custody_scrub_found", "What the last scrub found.", lambda f: f.scrub_found),
    _gauge("custody_scrub_ended_ms", "When the last scrub ended, ms since the epoch; 0: none.", lambda f: f.scrub_ms),
)


TWINS: Final[tuple[Metric[TwinFacts], ...]] = (
    _gauge("twins_broker_connected", "1 while twins have their link to the broker.", lambda f: float(f.connected)),
    _gauge("twins_orders_due", "Devices that wait for a signed order.", lambda f: float(f.orders_due)),
    _counted("twins_reported", "Reports of devices that were kept, or were known.", "reported"),
    _counted("twins_asked", "Devices that asked what is desired.", "asked"),
    _counted("twins_ordered", "Orders that were said.", "ordered"),
    _counted("twins_malformed", "Messages that are none of a twin's.", "malformed"),
    _counted("twins_strangers", "Messages of devices that the registry does not know.", "strangers"),
    _counted("twins_untold", "What there was no room for at the broker; devices ask again.", "untold"),
    _counted("twins_sign_failures", "Tries to have orders signed that failed.", "sign_failures"),
    _counted("twins_store_failures", "Tries to keep reports that failed.", "store_failures"),
)

COMMANDS: Final[tuple[Metric[CommandFacts], ...]] = (
    _gauge("commands_broker_connected", "1 while commands have their link to the broker.", lambda f: f.connected),
    _gauge("commands_devices_waiting", "Devices that have still to say how one ended.", lambda f: f.devices_waiting),
    _counted("commands_said", "Orders that were said.", "said"),
    _counted("commands_heard", "Words of devices that changed how a command stands.", "heard"),
    _counted("commands_from_journal", "Of them, those that only a journal told.", "from_journal"),
    _counted("commands_expired", "Orders whose time was over before they were heard.", "expired"),
    _counted("commands_malformed", "Messages that are none of a command's.", "malformed"),
    _counted("commands_sign_failures", "Tries to have orders signed that failed.", "sign_failures"),
    _counted("commands_store_failures", "Tries to keep words that failed.", "store_failures"),
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
