"""What the API, the commands and the pages may ask of telemetry. This is the port; ``service`` answers it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker_config.telemetry import Clock
from fleet_server.telemetry.store import EventFact, Latest, QuarantineRow, Series


class GapReason(StrEnum):
    """Why readings are not there."""

    OFF = "off"
    REBOOTING = "rebooting"
    EVICTED = "evicted"
    QUARANTINED = "quarantined"
    WAITING = "waiting"
    LOST = "lost"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Gap:
    """Readings that are not there. A gap of numbers has ``first_seq``; a silence has 0 there and has times.

    ``from_ms``/``to_ms``: None if not known; ``to_ms`` None with ``open`` set: it lasts still.
    """

    device: str
    stream: str
    life: str
    reason: GapReason
    first_seq: int
    last_seq: int
    from_ms: int | None
    to_ms: int | None
    open: bool
    detail: str


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """One numbered stream as the server holds it; ``missing`` counts numbers up to ``last`` that are not held."""

    stream: str
    life: str
    last: int
    held: int
    missing: int
    quarantined: int
    gone: int


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """A device as the server knows it; times are ms since the epoch, None is never.

    Its presence (``connected`` to ``why``) is as ``presence.Presence`` says.
    """

    device: str
    device_class: str
    agent: str
    connected: bool
    reporting: bool
    healthy: bool
    since_ms: int | None
    flaps: int
    why: tuple[str, ...]
    last_status_ms: int | None
    last_record_ms: int | None
    boot: str
    streams: tuple[StreamSummary, ...]


def never_heard_of(device: str) -> DeviceSummary:
    """The summary of a device that is only registered."""
    return DeviceSummary(
        device=device,
        device_class="",
        agent="",
        connected=False,
        reporting=False,
        healthy=False,
        since_ms=None,
        flaps=0,
        why=(),
        last_status_ms=None,
        last_record_ms=None,
        boot="",
        streams=(),
    )


@dataclass(frozen=True, slots=True)
class DevicePresence:
    """A device's three facts without its streams: cheap enough to ask of a whole fleet every few seconds.

    ``overdue``: streams with a cadence of which nothing comes; ``faults``: what its journal says is wrong.
    ``ended_ms``: when it was said that its last connection had ended; *connected* follows a little later.
    ``stopped``: it was said that its agent was asked to stop. ``clock``: how far the times of its last record can be
    trusted, None if none has come since the server's start.
    """

    device: str
    device_class: str
    connected: bool
    overdue: tuple[str, ...]
    faults: tuple[str, ...]
    ended_ms: int | None = None
    stopped: bool = False
    clock: Clock | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a device says of itself in its last birth; all empty, and ``at_ms`` None, if it never did."""

    device: str
    device_class: str
    agent: str
    hardware: str
    profile: str
    profile_digest: str
    at_ms: int | None


@dataclass(frozen=True, slots=True)
class IngestFacts:
    """Counters since the server's start, and what it is."""

    store_epoch: int
    connected: bool
    records_stored: int
    records_duplicate: int
    records_quarantined: int
    messages_dropped: int
    receipts_sent: int
    commits: int
    commit_failures: int
    quarantine_bytes: int
    unsealed_records: int
    commits_ms: float = 0.0
    """How long the commits took together."""
    receipt_age_ms: float | None = None
    """From a record's arrival to its receipt, the oldest of the last half minute; None: there was none."""
    queue_records: int = 0
    """Records that wait for a commit."""
    queue_share: float = 0.0
    """Of what may wait."""


class TelemetryView(Protocol):
    """Reads; safe from any thread."""

    def facts(self) -> IngestFacts:
        """How ingest is doing."""

    def devices(self) -> list[DeviceSummary]:
        """Every device ever heard of, by id."""

    def device(self, device: str) -> DeviceSummary | None:
        """One of them."""

    def names(self) -> list[str]:
        """Every device ever heard of, in the order they were first heard of."""

    def presence_of(self, device: str) -> DevicePresence | None:
        """One of them, at a fraction of :meth:`device`'s cost."""

    def news(self, devices_max: int) -> list[Heard]:
        """Devices that are new or say something new of themselves since the last call; first all. For one caller."""

    def latest(self, device: str | None = None) -> list[Latest]:
        """The newest row of every stream."""

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        """See :meth:`fleet_server.telemetry.store.BatchStore.series`."""

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        """Journal events, oldest first."""

    def gaps(self, device: str | None, *, from_ms: int, to_ms: int) -> list[Gap]:
        """Every gap that touches the range, with its reason."""

    def gaps_of_numbers(self, device: str) -> list[Gap]:
        """A device's gaps that are no silences, at a ledger's cost."""

    def silences(self, *, from_ms: int, to_ms: int) -> list[Gap]:
        """Every device's silences that have ended and touch the range."""

    def quarantine(self, *, after_id: int, rows_max: int) -> list[QuarantineRow]:
        """Quarantined messages in the order they came."""

    def replay(self, row_id: int) -> str:
        """Admit a quarantined message again (a newer device class may know it now).

        Returns:
            ``stored``, or why it is still refused.

        Raises:
            KeyError: there is no such row.
        """
