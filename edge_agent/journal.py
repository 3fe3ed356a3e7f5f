"""What happened to this device, for the server to explain silences by: events in chained batches.

Each kind that is not bounded otherwise has a bucket, so that a flapping link cannot flood the journal; what a
bucket held back is counted in ``suppressed`` of the next event of that kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from broker_config import limits
from broker_config.telemetry import JOURNAL, Event, Events, Record
from broker_config.text import shown
from edge_agent.clock import Stamp

Data: TypeAlias = Mapping[str, float | bool | str | None]

BURST_MAX: Final = 20
"""Events of one kind in a row."""
REFILL_S: Final = 60.0
"""After a burst, one event of that kind in this time."""


class Kind(StrEnum):
    """Names as the device class declares them."""

    AGENT_START = "agent.start"
    AGENT_STOP = "agent.stop"
    CLOCK_SET = "clock.set"
    CLOCK_SOURCE = "clock.source"
    COMMAND_DEFERRED = "command.deferred"
    COMMAND_DONE = "command.done"
    COMMAND_FAILED = "command.failed"
    COMMAND_INTERRUPTED = "command.interrupted"
    COMMAND_OBEYED = "command.obeyed"
    COMMAND_REFUSED = "command.refused"
    CONFIG_APPLIED = "config.applied"
    CONFIG_CONFIRMED = "config.confirmed"
    CONFIG_DEFERRED = "config.deferred"
    CONFIG_FAILED = "config.failed"
    CONFIG_REFUSED = "config.refused"
    CONFIG_REVERTED = "config.reverted"
    CONFIG_TAKEN = "config.taken"
    DRIVER_FAULT = "driver.fault"
    DRIVER_OK = "driver.ok"
    FILE_CHANGED = "file.changed"
    FILE_DELETED = "file.deleted"
    FILE_LEFT = "file.left"
    FILE_RECEIPTED = "file.receipted"
    FILE_REFUSED = "file.refused"
    FILE_SEALED = "file.sealed"
    FILES_FULL = "files.full"
    FILES_NEW = "files.new"
    FILES_OK = "files.ok"
    LEASE_HELD = "lease.held"
    LEASE_RELEASED = "lease.released"
    LINK_DOWN = "link.down"
    LINK_UP = "link.up"
    LOST_MODE = "lost.mode"
    RECORDING_CLOSED = "recording.closed"
    RECORDING_OPENED = "recording.opened"
    RECORDING_SKIPPED = "recording.skipped"
    SPOOL_EVICTED = "spool.evicted"
    SPOOL_FULL = "spool.full"
    SPOOL_NEW = "spool.new"
    SPOOL_OK = "spool.ok"


UNBOUNDED: Final = frozenset(
    {
        Kind.AGENT_START,
        Kind.AGENT_STOP,
        Kind.SPOOL_NEW,
        Kind.COMMAND_DEFERRED,
        Kind.COMMAND_DONE,
        Kind.COMMAND_FAILED,
        Kind.COMMAND_INTERRUPTED,
        Kind.COMMAND_OBEYED,
        Kind.COMMAND_REFUSED,
        Kind.CONFIG_APPLIED,
        Kind.CONFIG_CONFIRMED,
        Kind.CONFIG_FAILED,
        Kind.CONFIG_REFUSED,
        Kind.CONFIG_REVERTED,
        Kind.CONFIG_TAKEN,
        Kind.FILE_CHANGED,
        Kind.FILE_DELETED,
        Kind.FILE_RECEIPTED,
        Kind.FILE_SEALED,
        Kind.RECORDING_CLOSED,
        Kind.RECORDING_OPENED,
        Kind.RECORDING_SKIPPED,
    }
)
"""At most once a run, once a signature, once a file or recording, or (refusals) once a reason and minute."""


@dataclass(frozen=True, slots=True)
class EventsDraft:
    """A sealed batch of events that has no number yet."""

    boot: str
    stamp: Stamp
    dt: list[int]
    events: list[Event]
    stream: str = JOURNAL

    @property
    def values(self) -> int:
        """How many it holds, for bounds in memory."""
        return sum(1 + len(event.data) for event in self.events)

    def numbered(self, life: str, seq: int, prev: str) -> Record:
        """The record, chained to the digest of the one before."""
        return Events(
            v=1,
            stream=self.stream,
            life=life,
            seq=seq,
            boot=self.boot,
            t0=self.stamp.t_ms,
            mono=self.stamp.mono_ms,
            clock=self.stamp.clock,
            prev=prev,
            dt=self.dt,
            events=self.events,
        )


@dataclass(slots=True)
class _Bucket:
    level: float
    at_ms: int
    suppressed: int = 0


@dataclass(slots=True)
class Journal:
    """The events that are not sealed yet."""

    boot: str
    seal_ms: int
    _stamp: Stamp | None = None
    _dt: list[int] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _buckets: dict[Kind, _Bucket] = field(default_factory=dict)

    def add(self, kind: Kind, data: Data, stamp: Stamp) -> list[EventsDraft]:
        """Write an event down, if its bucket allows; returns the batch that had to be sealed before or with it."""
        suppressed = self._take(kind, stamp.mono_ms)
        if suppressed is None:
            return []
        sealed: list[EventsDraft] = []
        if self._stamp is not None and stamp.mono_ms - self._stamp.mono_ms > limits.BATCH_SPAN_MS_MAX:
            sealed += self.seal()
        if self._stamp is None:
            self._stamp = stamp
        told = {name: shown(value) if isinstance(value, str) else value for name, value in data.items()}
        if suppressed:
            told["suppressed"] = suppressed
        self._dt.append(max(self._dt[-1] if self._dt else 0, stamp.mono_ms - self._stamp.mono_ms))
        self._events.append(Event(kind.value, told))
        if len(self._events) >= limits.EVENTS_MAX:
            sealed += self.seal()
        return sealed

    def _take(self, kind: Kind, mono_ms: int) -> int | None:
        """How many were held back before this one; None: hold this one back too."""
        if kind in UNBOUNDED:
            return 0
        bucket = self._buckets.setdefault(kind, _Bucket(BURST_MAX, mono_ms))
        bucket.level = min(BURST_MAX, bucket.level + max(0, mono_ms - bucket.at_ms) / 1000 / REFILL_S)
        bucket.at_ms = mono_ms
        if bucket.level < 1:
            bucket.suppressed += 1
            return None
        bucket.level -= 1
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed

    def due_ms(self) -> int | None:
        """When (monotonic) the open batch is to be sealed; None if there is none."""
        return None if self._stamp is None else self._stamp.mono_ms + self.seal_ms

    def seal(self) -> list[EventsDraft]:
        """The open batch, if there is one."""
        if self._stamp is None:
            return []
        draft = EventsDraft(self.boot, self._stamp, self._dt, self._events)
        self._stamp, self._dt, self._events = None, [], []
        return [draft]
