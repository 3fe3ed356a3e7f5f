"""The batch store: the store of record, and the only ground of a receipt. This is its port.

One writer thread calls ``commit`` and the lease, one ``seal`` beside it; readers call the rest from any thread.
Trusted: whoever can write here can make devices delete what was never kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from broker_config.ranges import Ranges
from broker_config.telemetry import Reason, Record

NO_TIME: Final = -(2**63)
"""Below every time: of a row whose clock nobody set."""
UNSEALED_RECORDS_MAX: Final = 500_000
"""So many unsealed records are sealed at once, whatever the time and whoever has not read them: their index is in
memory."""


class StoreError(Exception):
    """The store could not do it; nothing of the call was stored."""


class StoreFullError(StoreError):
    """No space, or the medium is read-only. It may heal; nothing is receipted until then."""


class FencedError(StoreError):
    """Another server owns these shards now. This one must stop writing for good."""


class LeaseHeldError(StoreError):
    """Another server's lease has not run out; *until_ms* says when it does."""

    def __init__(self, owner: str, until_ms: int) -> None:
        super().__init__(f"shards are leased to {owner} until {until_ms}")
        self.owner = owner
        self.until_ms = until_ms


class StreamKey(NamedTuple):
    """One numbered sequence of one device."""

    device: str
    stream: str
    life: str


class Gone(NamedTuple):
    """Numbers that a device evicted before they were receipted."""

    key: StreamKey
    ranges: Ranges


class Silence(NamedTuple):
    """A cadence that fell silent between two neighbouring numbers of a stream, ``seq - 1`` and ``seq``.

    Times are ms since the epoch as the device knew them; ``boot`` and ``mono`` of both ends let the journal's
    events be placed between them whatever the clock did.
    """

    key: StreamKey
    seq: int
    from_ms: int
    to_ms: int
    from_boot: str
    from_mono: int
    to_boot: str
    to_mono: int


class EventFact(NamedTuple):
    """One journal event; ``place`` counts from 0 in its batch, ``data_json`` is a flat JSON object."""

    key: StreamKey
    seq: int
    place: int
    at_ms: int
    boot: str
    mono: int
    kind: str
    data_json: str


class Quarantined(NamedTuple):
    """A message that was not what it said: kept raw, receipted if its key could be read."""

    device: str
    channel: str
    key: str | None
    reason: Reason
    detail: str
    content_type: str
    payload: bytes


class StatusSeen(NamedTuple):
    """What a device last said of itself; ``payload`` is the JSON of its newest birth and of the will that counts."""

    device: str
    at_ms: int
    payload: bytes


@dataclass(slots=True)
class Group:
    """What one transaction stores. ``streams``, ``keys``, ``payloads`` and ``newest_ms`` are parallel.

    ``streams`` are (device, stream); ``keys`` are ``STREAM/LIFE/SEQ`` texts; ``payloads`` as received (compressed
    ones begin with byte 0x78); ``newest_ms`` the time of each batch's last row, NO_TIME where nobody set the clock.
    ``unset``: those by their place, decoded. ``boots``: (device, boot) -> epoch minus monotonic clock, of boots
    whose clock was set for the first time. Decoded records are not kept: at tens of thousands a second the memory
    they hold costs as much as decoding them.
    """

    at_ms: int
    streams: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    newest_ms: list[int] = field(default_factory=list)
    unset: dict[int, Record] = field(default_factory=dict)
    boots: dict[tuple[str, str], int] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    events: list[EventFact] = field(default_factory=list)
    statuses: list[StatusSeen] = field(default_factory=list)

    def add(self, device: str, key: str, payload: bytes, record: Record) -> None:
        """Put one record in; ingest's hot path spells this out."""
        if record.clock.src == "none":
            self.unset[len(self.payloads)] = record
            self.newest_ms.append(NO_TIME)
        else:
            self.newest_ms.append(record.t0 + record.dt[-1])
            self.boots.setdefault((device, record.boot), record.t0 - record.mono)
        self.streams.append((device, record.stream))
        self.keys.append(key)
        self.payloads.append(payload)

    def __bool__(self) -> bool:
        return bool(self.payloads or self.quarantined or self.gone or self.silences or self.statuses)


class LedgerRow(NamedTuple):
    """A stream as sealed: numbers whose batches are in chunks (or unmapped).

    ``tail_*``: the end of the batch with the highest held number, for silence across a restart, and the CRC-32 of its
    payload; ``tail_boot`` is empty if there is none.
    """

    key: StreamKey
    held: Ranges
    tail_seq: int
    tail_boot: str
    tail_mono: int
    tail_ms: int
    tail_crc: int


class Unsealed(NamedTuple):
    """One commit that is not sealed yet; lists are parallel, as in :class:`Group`."""

    at_ms: int
    devices: list[str]
    keys: list[str]
    payloads: list[bytes]


@dataclass(frozen=True, slots=True)
class Restored:
    """All that the in-memory ledger is rebuilt from at start."""

    store_epoch: int
    ledger: list[LedgerRow]
    unsealed: Iterator[Unsealed]
    quarantined: list[tuple[str, str, int]]
    """(device, key text, crc32 of the payload) of every quarantined message whose key could be read."""
    gone: list[Gone]
    statuses: list[StatusSeen]
    quarantine_bytes: int


class Series(NamedTuple):
    """Readings of one stream, oldest first.

    ``times_ms``: shape (n,). ``columns``: field -> shape (n,), None is missing. ``lows``/``highs``/``counts`` are
    filled only when downsampled: then ``times_ms`` are the buckets' starts and ``columns`` their means.
    ``rows_total``: raw rows in the range.
    """

    times_ms: list[int]
    columns: dict[str, list[float | None]]
    lows: dict[str, list[float | None]]
    highs: dict[str, list[float | None]]
    counts: dict[str, list[int]]
    rows_total: int
    bucket_ms: int


class Latest(NamedTuple):
    """The newest row of a stream."""

    device: str
    stream: str
    at_ms: int
    received_ms: int
    values: dict[str, float | None]


class QuarantineRow(NamedTuple):
    """A quarantined message as stored."""

    id: int
    at_ms: int
    device: str
    channel: str
    key: str | None
    reason: str
    detail: str
    content_type: str
    payload: bytes
    replayed_ms: int | None


class BatchStore(Protocol):
    """See the module's docstring for who may call what."""

    def take_lease(self, owner: str, *, first: int, last: int, now_ms: int, ttl_ms: int) -> int:
        """Own shards *first* to *last*; return a fencing token greater than any before. Durable.

        Raises:
            LeaseHeldError: somebody else's lease has not run out.
        """

    def renew_lease(self, *, token: int, now_ms: int, ttl_ms: int) -> None:
        """Hold on to it. Raises FencedError if another token was given out since."""

    def drop_lease(self, *, token: int) -> None:
        """Let go at once; a no-op if it is another's by now."""

    def restore(self) -> Restored:
        """Everything the ledger is rebuilt from. Called once, before the first commit."""

    def commit(self, group: Group, *, token: int) -> None:
        """Store all of *group* or nothing; durable (fsync) once it returns. Checks *token* in the transaction.

        Raises:
            FencedError, StoreFullError, StoreError: nothing was stored.
        """

    def seal(self, *, records_max: int, now_ms: int) -> Sequence[tuple[StreamKey, Ranges]]:
        """Move the oldest unsealed commits into columnar chunks; return what was sealed, empty when none is left.

        A crash in between repeats the work and never loses or doubles a row.
        """

    def sealed_crc(self, key: StreamKey, seq: int, t0_ms: int) -> int | None:
        """CRC-32 of the payload of a sealed batch, looked for in the hour of *t0_ms*; None if it is not there."""

    def latest(self, device: str | None = None) -> list[Latest]:
        """The newest row of every stream (of one device)."""

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        """Rows with ``from_ms <= time < to_ms``; at most *points* buckets of equal width if given."""

    def events(self, device: str, *, from_ms: int, to_ms: int, rows_max: int) -> list[EventFact]:
        """Journal events of a device, oldest first."""

    def journal(self, device: str, life: str, *, first: int, last: int) -> list[tuple[int, bytes]]:
        """Batches *first* to *last* of a device's journal, number and payload as received, ascending; those that are
        there. What they say is in :meth:`events`; these are what its hash chain is about.
        """

    def silences(self, device: str | None, *, from_ms: int, to_ms: int, rows_max: int) -> list[Silence]:
        """Silences that touch the range, oldest first."""

    def quarantine(self, *, after_id: int, rows_max: int) -> list[QuarantineRow]:
        """Quarantined messages in the order they came."""

    def replayed(self, row_id: int, now_ms: int) -> None:
        """Mark a quarantined row whose batch is a record now; its key counts as quarantined no more. Durable."""

    @property
    def unsealed_records(self) -> int:
        """Records that wait for the sealer."""
