"""What the API answers with. Times are as ``times`` says; what is not known is null."""

from pydantic import BaseModel, Field

from fleet_server.api.times import TimeAt, TimeMs, rfc3339
from fleet_server.registry import model as registry
from fleet_server.telemetry import store, view
from fleet_server.telemetry.view import GapReason

Readings = dict[str, float | None]


class Health(BaseModel):
    """Whether the server can do its work. Nothing else is told without a token."""

    status: str = Field(description="`ok`, or `degraded`: the broker is not connected.", examples=["ok"])


class Stream(BaseModel):
    """One numbered stream of a device, as the server holds it."""

    stream: str = Field(examples=["cpu"])
    life: str = Field(description="Of the spool that numbers it, 16 hex digits.", examples=["9f0c2b1a77d3e458"])
    last: int = Field(description="The highest number known to have been given; 0 is none.", examples=[10421])
    held: int = Field(description="Numbers stored.", examples=[10419])
    missing: int = Field(description="Numbers up to `last` that are not stored.", examples=[2])
    quarantined: int = Field(description="Numbers in quarantine.", examples=[0])
    gone: int = Field(description="Numbers that the device evicted before a receipt.", examples=[0])

    @classmethod
    def of(cls, summary: view.StreamSummary) -> "Stream":
        """As the view has it."""
        return cls(
            stream=summary.stream,
            life=summary.life,
            last=summary.last,
            held=summary.held,
            missing=summary.missing,
            quarantined=summary.quarantined,
            gone=summary.gone,
        )


class Device(BaseModel):
    """A device that was registered, or heard of at least once."""

    device: str = Field(examples=["car-7"])
    device_class: str = Field(description="As registered, else as it says; empty if neither.", examples=["host"])
    registered: bool = Field(description="Whether an operator ever said anything of it.")
    serial: str | None = Field(examples=["AX-1047-22"])
    node: str | None = Field(description="The organisation node it belongs to.", examples=["station-7"])
    org: str | None = Field(description="The node's path from the root.", examples=["hq/station-7"])
    unit: str | None = Field(description="The duty unit that has it.", examples=["unit-4"])
    reported_class: str = Field(description="What it says it is.", examples=["host"])
    agent: str = Field(description="The agent's version.", examples=["fieldfleet/0.1.0"])
    hardware: str = Field(description="What its board calls itself.", examples=["Raspberry Pi 4 Model B"])
    profile: str = Field(description="How it is wired.", examples=["host"])
    profile_digest: str = Field(description="SHA-256 of the profile.", examples=["9f0c2b1a" * 8])
    connected: bool = Field(description="By its last birth or will; expires by itself.")
    reporting: bool = Field(description="Every stream with a cadence keeps it.")
    healthy: bool = Field(description="By its own journal: drivers read, the spool takes batches, the clock is set.")
    since_ms: TimeMs | None = Field(description="When `connected` became what it is.")
    since_at: TimeAt
    flaps: int = Field(description="Connections made within the last hour beside the one it has.", examples=[0])
    why: list[str] = Field(description="What keeps it from reporting and from being healthy.", examples=[[]])
    boot: str = Field(description="Of its last birth, 16 hex digits.", examples=["5c1d7a90be2f4436"])
    last_status_ms: TimeMs | None
    last_status_at: TimeAt
    last_record_ms: TimeMs | None
    last_record_at: TimeAt
    streams: list[Stream]

    @classmethod
    def of(cls, entry: registry.Device | None, summary: view.DeviceSummary) -> "Device":
        """As the registry and the view have it; *entry* is None for a second, until the registry has heard of it."""
        said = registry.Registration(summary.device, "") if entry is None else entry.registration
        reported = registry.Reported() if entry is None else entry.reported
        return cls(
            device=said.device,
            device_class=said.device_class or summary.device_class,
            registered=entry is not None and entry.registered_ms is not None,
            serial=said.serial,
            node=said.node,
            org=(entry.path or None) if entry is not None else None,
            unit=said.unit,
            reported_class=summary.device_class or reported.device_class,
            agent=summary.agent or reported.agent,
            hardware=reported.hardware,
            profile=reported.profile,
            profile_digest=reported.profile_digest,
            connected=summary.connected,
            reporting=summary.reporting,
            healthy=summary.healthy,
            since_ms=summary.since_ms,
            since_at=rfc3339(summary.since_ms),
            flaps=summary.flaps,
            why=list(summary.why),
            boot=summary.boot,
            last_status_ms=summary.last_status_ms,
            last_status_at=rfc3339(summary.last_status_ms),
            last_record_ms=summary.last_record_ms,
            last_record_at=rfc3339(summary.last_record_ms),
            streams=[Stream.of(stream) for stream in summary.streams],
        )


class Latest(BaseModel):
    """The newest readings of a stream; `time_ms` as the device knew it, `received_ms` by the server's clock."""

    device: str = Field(examples=["car-7"])
    stream: str = Field(examples=["cpu"])
    time_ms: TimeMs
    time_at: TimeAt
    received_ms: TimeMs
    received_at: TimeAt
    values: Readings = Field(examples=[{"cpu_pct": 12.5, "load_1m": 0.42}])

    @classmethod
    def of(cls, latest: store.Latest) -> "Latest":
        """As the store has it."""
        return cls(
            device=latest.device,
            stream=latest.stream,
            time_ms=latest.at_ms,
            time_at=rfc3339(latest.at_ms),
            received_ms=latest.received_ms,
            received_at=rfc3339(latest.received_ms),
            values=latest.values,
        )


class Series(BaseModel):
    """Readings of one stream in columns, oldest first; every column is as long as `times_ms`.

    With `points` they are buckets of `bucket_ms`: `times_ms` their starts, `columns` the means, and `lows`, `highs`
    and `counts` what each holds. Without, `bucket_ms` is 0 and those three are empty.
    """

    device: str = Field(examples=["car-7"])
    stream: str = Field(examples=["cpu"])
    from_ms: TimeMs
    from_at: TimeAt
    to_ms: TimeMs
    to_at: TimeAt
    bucket_ms: int = Field(examples=[12_000])
    rows_total: int = Field(description="Raw rows in the range.", examples=[360])
    times_ms: list[int] = Field(examples=[[1767254400000, 1767254412000]])
    columns: dict[str, list[float | None]] = Field(examples=[{"cpu_pct": [12.5, None]}])
    lows: dict[str, list[float | None]]
    highs: dict[str, list[float | None]]
    counts: dict[str, list[int]]


class Event(BaseModel):
    """Something that happened on a device, as its journal tells it."""

    time_ms: TimeMs
    time_at: TimeAt
    kind: str = Field(examples=["agent.start"])
    data: dict[str, float | bool | str | None] = Field(examples=[{"clean": True}])
    boot: str = Field(examples=["5c1d7a90be2f4436"])
    mono_ms: int = Field(description="Ms since the board booted.", examples=[48_211])
    stream: str = Field(examples=["journal"])
    life: str = Field(examples=["9f0c2b1a77d3e458"])
    seq: int = Field(examples=[17])
    place: int = Field(description="Its place in the record, from 0.", examples=[0])


class Gap(BaseModel):
    """Readings that are not there, and why.

    A gap of numbers has `first_seq` to `last_seq`; a cadence that fell silent has null there, and its times. `open`:
    it lasts still.
    """

    device: str = Field(examples=["car-7"])
    stream: str = Field(examples=["cpu"])
    life: str = Field(examples=["9f0c2b1a77d3e458"])
    reason: GapReason
    first_seq: int | None = Field(examples=[18])
    last_seq: int | None = Field(examples=[19])
    from_ms: TimeMs | None
    from_at: TimeAt
    to_ms: TimeMs | None
    to_at: TimeAt
    open: bool
    detail: str = Field(examples=["agent.stop, then agent.start after 61 s"])

    @classmethod
    def of(cls, gap: view.Gap) -> "Gap":
        """As the view has it."""
        return cls(
            device=gap.device,
            stream=gap.stream,
            life=gap.life,
            reason=gap.reason,
            first_seq=gap.first_seq or None,
            last_seq=gap.last_seq or None,
            from_ms=gap.from_ms,
            from_at=rfc3339(gap.from_ms),
            to_ms=gap.to_ms,
            to_at=rfc3339(gap.to_ms),
            open=gap.open,
            detail=gap.detail,
        )


class Quarantined(BaseModel):
    """A message that was not what it said. Its bytes are at `/v1/quarantine/{id}`."""

    id: int = Field(examples=[3])
    received_ms: TimeMs
    received_at: TimeAt
    device: str = Field(examples=["car-7"])
    channel: str = Field(examples=["telemetry"])
    key: str | None = Field(description="STREAM/LIFE/SEQ, null if unreadable.", examples=["cpu/9f0c2b1a77d3e458/18"])
    reason: str = Field(examples=["unknown_field"])
    detail: str = Field(examples=["cpu has no field 'mood'"])
    content_type: str = Field(examples=["application/json"])
    payload_bytes: int = Field(examples=[312])
    replayed_ms: TimeMs | None
    replayed_at: TimeAt

    @classmethod
    def of(cls, row: store.QuarantineRow) -> "Quarantined":
        """As the store has it."""
        return cls(
            id=row.id,
            received_ms=row.at_ms,
            received_at=rfc3339(row.at_ms),
            device=row.device,
            channel=row.channel,
            key=row.key,
            reason=row.reason,
            detail=row.detail,
            content_type=row.content_type,
            payload_bytes=len(row.payload),
            replayed_ms=row.replayed_ms,
            replayed_at=rfc3339(row.replayed_ms),
        )


class Replayed(BaseModel):
    """A quarantined message that is stored by now."""

    id: int = Field(examples=[3])
    outcome: str = Field(examples=["stored"])


class Facts(BaseModel):
    """How ingest is doing: what it is, and counters since the server's start."""

    store_epoch: int = Field(description="Begins anew when the store was restored.", examples=[1])
    connected: bool = Field(description="To the broker.")
    records_stored: int = Field(examples=[10_419])
    records_duplicate: int = Field(description="Sent again though stored.", examples=[3])
    records_quarantined: int = Field(examples=[0])
    messages_dropped: int = Field(description="On topics of no device, or in the wrong shard.", examples=[0])
    receipts_sent: int = Field(examples=[1_203])
    commits: int = Field(examples=[998])
    commit_failures: int = Field(examples=[0])
    quarantine_bytes: int = Field(examples=[0])
    unsealed_records: int = Field(description="Stored, not yet in columns.", examples=[120])


class DevicePage(BaseModel):
    """Devices by id; `next` is null on the last page."""

    devices: list[Device]
    next: str | None = Field(description="The cursor of the next page.")


class LatestPage(BaseModel):
    """Newest readings by device and stream; `next` is null on the last page."""

    latest: list[Latest]
    next: str | None = Field(description="The cursor of the next page.")


class EventPage(BaseModel):
    """Events, oldest first; `next` is null on the last page."""

    device: str
    events: list[Event]
    next: str | None = Field(description="The cursor of the next page.")


class GapPage(BaseModel):
    """Gaps by device, stream and number or time; `next` is null on the last page."""

    gaps: list[Gap]
    next: str | None = Field(description="The cursor of the next page.")


class QuarantinePage(BaseModel):
    """Quarantined messages in the order they came; `next` is null on the last page."""

    quarantined: list[Quarantined]
    next: str | None = Field(description="The cursor of the next page.")
