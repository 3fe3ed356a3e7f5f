"""Turns readings into sealed batches: which rows go together, and when a batch is closed.

Rule 1: within a batch time is the monotonic clock's; the date is that of its first row.
Rule 2: a batch is sealed when it is full, after ``seal_s``, when the clock's source or setting changes, at the stop.
Rule 3: when one stream is due, all are sealed, so that one transaction stores them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker_config import limits
from broker_config.telemetry import Batch, Record
from edge_agent.clock import Stamp

VALUE_CHARS_MAX: Final = 25
"""The longest number in JSON, with its comma."""


@dataclass(frozen=True, slots=True)
class BatchDraft:
    """A sealed batch that has no number yet. ``rows``: shape (n, fields)."""

    stream: str
    boot: str
    stamp: Stamp
    fields: tuple[str, ...]
    dt: list[int]
    rows: list[list[float | None]]

    @property
    def values(self) -> int:
        """How many it holds, for bounds in memory."""
        return len(self.rows) * len(self.fields)

    def numbered(self, life: str, seq: int, prev: str) -> Record:  # noqa: ARG002
        """The record; only journals are chained to *prev*."""
        return Batch(
            v=1,
            stream=self.stream,
            life=life,
            seq=seq,
            boot=self.boot,
            t0=self.stamp.t_ms,
            mono=self.stamp.mono_ms,
            clock=self.stamp.clock,
            fields=self.fields,
            dt=self.dt,
            rows=self.rows,
        )


@dataclass(slots=True)
class _Open:
    stamp: Stamp
    dt: list[int] = field(default_factory=list)
    rows: list[list[float | None]] = field(default_factory=list)


def fits(value: float | None) -> float | None:
    """The value as a batch may carry it: what is not finite, or past the contract's bound, is missing. What is merely
    implausible stays.
    """
    if value is None or not math.isfinite(value) or abs(value) > limits.VALUE_ABS_MAX:
        return None
    return value


def rows_max(fields: int) -> int:
    """So many rows of *fields* values always fit into a batch's bytes, compressed or not."""
    row_bytes = 2 + fields * VALUE_CHARS_MAX + 8  # brackets, values, dt
    return min(limits.BATCH_ROWS_MAX, (limits.BATCH_BYTES_MAX - 8 * limits.KIB) // row_bytes)


class Sampler:
    """The open batches. Rows of a stream come in the order of their monotonic time."""

    def __init__(self, streams: Mapping[str, tuple[str, ...]], *, boot: str, seal_ms: int) -> None:
        self._streams = streams
        self._boot = boot
        self._seal_ms = seal_ms
        self._open: dict[str, _Open] = {}

    def add(self, stream: str, values: Sequence[float | None], stamp: Stamp) -> list[BatchDraft]:
        """Take a row; returns the batch that had to be sealed before or with it."""
        fields = self._streams[stream]
        assert len(values) == len(fields)
        sealed: list[BatchDraft] = []
        batch = self._open.get(stream)
        if batch is not None and stamp.mono_ms - batch.stamp.mono_ms > limits.BATCH_SPAN_MS_MAX:
            sealed.append(self._seal(stream))
            batch = None
        if batch is None:
            batch = self._open[stream] = _Open(stamp)
        last = batch.dt[-1] if batch.dt else 0
        batch.dt.append(max(last, stamp.mono_ms - batch.stamp.mono_ms))
        batch.rows.append([fits(value) for value in values])
        if len(batch.rows) >= rows_max(len(fields)):
            sealed.append(self._seal(stream))
        return sealed

    def _seal(self, stream: str) -> BatchDraft:
        batch = self._open.pop(stream)
        return BatchDraft(stream, self._boot, batch.stamp, self._streams[stream], batch.dt, batch.rows)

    def due_ms(self) -> int | None:
        """When (monotonic) the oldest open batch is to be sealed; None if none is open."""
        if not self._open:
            return None
        return min(batch.stamp.mono_ms for batch in self._open.values()) + self._seal_ms

    def seal_due(self, mono_ms: int) -> list[BatchDraft]:
        """Everything open, if the oldest is due."""
        due = self.due_ms()
        return self.seal_all() if due is not None and mono_ms >= due else []

    def seal_all(self) -> list[BatchDraft]:
        """Everything open."""
        return [self._seal(stream) for stream in tuple(self._open)]
