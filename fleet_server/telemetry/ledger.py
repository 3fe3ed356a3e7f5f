"""Which numbers of a stream are held, gone and missed, and where its cadence fell silent. Pure values.

One :class:`StreamLedger` for each (device, stream, life), owned by ingest alone. It runs ahead of the store by the
commits under way; whatever is told to a device is taken from it when a commit's group closes and sent after that
commit, so nobody is told of a number before it is durable.
"""

from array import array
from enum import Enum
from typing import Final, TypeAlias

from broker_config.ranges import Range, Ranges, RangeSet, holes, minus, normal
from broker_config.telemetry import Record
from fleet_server.telemetry.store import Silence, StreamKey

EDGES_MAX: Final = 1_024
"""Ends of batches kept beside holes, to see silence once the hole is filled."""
SILENCE_CADENCES: Final = 3
"""This many cadences without a row are a silence."""


class Verdict(Enum):
    """What a number that came is."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    SEALED = "sealed"
    """Held, and its checksum is only in the store: ask there."""


NEW: Final = Verdict.NEW
"""An enumeration's member costs a look-up each time it is named."""

Edge: TypeAlias = tuple[str, int, int]
"""One end of a batch: the board's boot, its monotonic ms, and ms since the epoch as the device knew it."""
NO_EDGE: Final[Edge] = ("", 0, 0)


class StreamLedger:
    """Everything known of one stream's numbers.

    ``top``: the highest received. ``last``: the newest number that anything has proved to exist, ``last_text`` as it
    last came. ``behind``: numbers held that the device says it has not given yet (a spool restored from an old
    image). ``heard_ms``: when the newest batch came, by the server's clock; before any, the first birth.
    ``since_receipt``: messages since its last receipt, ``since_receipt_ms``: when the first of them came.
    ``silence_ms``: between two neighbouring batches, more than this is a silence; 0 is no cadence. ``set_boot``: the
    last boot whose offset to the epoch was handed to the store.

    A fleet's ledgers do not fit into a processor's cache, so what each message touches of one is kept to few words.
    """

    __slots__ = (
        "_crcs",
        "_crcs_first",
        "_ends",
        "_odd_crcs",
        "_received",
        "_received_top",
        "_sealed_tip",
        "_starts",
        "behind",
        "conflicts",
        "gone",
        "heard_ms",
        "key",
        "last",
        "last_text",
        "place",
        "quarantined",
        "quarantined_crcs",
        "set_boot",
        "silence_ms",
        "since_receipt",
        "since_receipt_ms",
        "tail",
        "tail_seq",
        "top",
    )

    def __init__(self, key: StreamKey) -> None:
        self.key = key
        self.place = (key.device, key.stream)
        self.set_boot = ""
        self._received = RangeSet()
        self._received_top = 0
        self.quarantined = RangeSet()
        self.quarantined_crcs: dict[int, int] = {}
        self.gone = RangeSet()
        self.conflicts: dict[int, int] = {}
        self.last = 0
        self.last_text = ""
        self.top = 0
        self.behind: Range | None = None
        self.heard_ms = 0
        self.silence_ms = 0
        self.tail_seq = 0
        self.tail = NO_EDGE
        self.since_receipt = 0
        self.since_receipt_ms = 0
        # checksums of what is not sealed: four bytes each while numbers come in order
        self._crcs = array("I")
        self._crcs_first = 1
        self._odd_crcs: dict[int, int] = {}
        self._sealed_tip = (0, -1)
        self._ends: dict[int, Edge] = {}
        self._starts: dict[int, Edge] = {}

    @property
    def received(self) -> RangeSet:
        """Stored, quarantined or gone: what a receipt covers. For the owner alone: others ask :meth:`seen`."""
        if self._received_top < self.top:  # numbers in order were only counted until somebody asked
            self._received.add(self._received_top + 1, self.top)
            self._received_top = self.top
        return self._received

    def seen(self) -> Ranges:
        """What :attr:`received` holds, changing nothing: for any thread, while the owner goes on.

        In this order: whatever was counted and not yet entered when ``top`` was read has no hole in it.
        """
        top, entered = self.top, self._received_top
        held = self._received.ranges()
        return normal((*held, (entered + 1, top))) if entered < top else held

    def unseen(self) -> Ranges:
        """:meth:`missing`, for any thread."""
        last = self.last
        return holes(self.seen(), last)

    def _receive(self, low: int, high: int) -> None:
        self.received.add(low, high)
        if high > self.top:
            self.top = self._received_top = high
            self.last = max(self.last, high)

    def judge(self, seq: int, crc: int) -> Verdict:
        """What a batch with this number and checksum is; changes nothing."""
        if seq > self.top or seq not in self.received or seq in self.gone:
            return NEW  # gone, and here all the same: it was under way when the device evicted it
        known = self.quarantined_crcs.get(seq)
        if known is None:
            known = self._crc(seq)
        if known is None:
            return Verdict.SEALED
        if known == crc or self.conflicts.get(seq) == crc:
            return Verdict.DUPLICATE
        return Verdict.CONFLICT

    def hold(self, seq: int, crc: int, record: Record) -> tuple[Silence, ...]:
        """Take a new number in; return the silences that it ends or begins. The hot path: keep it flat."""
        if seq == self.top + 1:
            self.top = seq
            if seq > self.last:  # noqa: PLR1730 - max() costs three times as much
                self.last = seq
        else:
            self._receive(seq, seq)
            if seq in self.gone:
                self.gone.remove(seq)
        crcs = self._crcs
        if seq == self._crcs_first + len(crcs):
            crcs.append(crc)
        elif not crcs:
            self._crcs_first = seq
            crcs.append(crc)
        else:
            self._odd_crcs[seq] = crc
        dt, boot, mono, t0 = record.dt, record.boot, record.mono, record.t0
        if seq != self.tail_seq + 1:
            after = dt[-1]
            return self._hold_apart(seq, (boot, mono + dt[0], t0 + dt[0]), (boot, mono + after, t0 + after))
        before = self.tail
        after = dt[-1]
        self.tail = (boot, mono + after, t0 + after)
        self.tail_seq = seq
        if not self.silence_ms or not before[0]:
            return ()
        if boot == before[0] and 0 <= mono + dt[0] - before[1] <= self.silence_ms:
            return ()
        return self._silence(seq, before, (boot, mono + dt[0], t0 + dt[0]))

    def hold_unread(self, seq: int, crc: int) -> None:
        """:meth:`hold` of a batch that was stored once and can be read no more: beside it no silence is seen."""
        self._receive(seq, seq)
        self._odd_crcs[seq] = crc

    def _hold_apart(self, seq: int, start: Edge, end: Edge) -> tuple[Silence, ...]:
        """A number that does not follow the highest: beyond a hole, or inside one."""
        if seq > self.tail_seq:
            if self.tail_seq:
                _remember(self._ends, self.tail_seq, self.tail)
            _remember(self._starts, seq, start)
            self.tail, self.tail_seq = end, seq
            return ()
        found: tuple[Silence, ...] = ()
        before = self._ends.pop(seq - 1, None)
        if before is None:
            _remember(self._starts, seq, start)
        else:
            found += self._silence(seq, before, start)
        after = self._starts.pop(seq + 1, None)
        if after is None:
            _remember(self._ends, seq, end)
        else:
            found += self._silence(seq + 1, end, after)
        return found

    def _silence(self, seq: int, before: Edge, after: Edge) -> tuple[Silence, ...]:
        if not self.silence_ms:
            return ()
        (from_boot, from_mono, from_ms), (to_boot, to_mono, to_ms) = before, after
        length_ms = to_mono - from_mono if from_boot == to_boot else to_ms - from_ms
        if 0 <= length_ms <= self.silence_ms:
            return ()
        return (Silence(self.key, seq, from_ms, to_ms, from_boot, from_mono, to_boot, to_mono),)

    def quarantine(self, seq: int, crc: int) -> None:
        """A number whose batch is kept raw in quarantine: receipted, and not stored."""
        self._receive(seq, seq)
        if seq in self.gone:  # as in :meth:`hold`: it was under way
            self.gone.remove(seq)
        self.quarantined.add(seq)
        self.quarantined_crcs[seq] = crc

    def conflict(self, seq: int, crc: int) -> None:
        """Held with other bytes than these."""
        self.conflicts[seq] = crc

    def declare_gone(self, ranges: Ranges) -> Ranges:
        """Numbers that the device has evicted; return those that are news."""
        news = minus(ranges, self.received.ranges())
        for low, high in news:
            self._receive(low, high)
            self.gone.add(low, high)
        return news

    def restore(self, held: Ranges, tail_seq: int, tail: Edge, tail_crc: int) -> None:
        """What the store had sealed of it."""
        self._sealed_tip = (tail_seq, tail_crc)
        for low, high in held:
            self._receive(low, high)
        self.tail_seq, self.tail = tail_seq, tail

    def sealed(self, ranges: Ranges) -> None:
        """These are in chunks now; their checksums are there, but for the newest, which receipts name."""
        for low, high in ranges:
            crc = self._crc(high) if high > self._sealed_tip[0] else None
            if crc is not None:
                self._sealed_tip = (high, crc)
            first = self._crcs_first
            if low <= first <= high:
                del self._crcs[: high - first + 1]
                self._crcs_first = high + 1
        if self._odd_crcs:
            self._odd_crcs = {
                seq: crc for seq, crc in self._odd_crcs.items() if not any(low <= seq <= high for low, high in ranges)
            }

    def missing(self, up_to: int | None = None) -> Ranges:
        """Numbers up to *up_to* (default: the newest proved) that are neither held, quarantined nor gone."""
        return self.received.holes(self.last if up_to is None else up_to)

    def tip(self) -> int | None:
        """The checksum of the highest number received, None if it is gone."""
        crc = self.quarantined_crcs.get(self.top)
        if crc is None:
            crc = self._crc(self.top)
        if crc is None and self._sealed_tip[0] == self.top and self.top not in self.gone:
            crc = self._sealed_tip[1]
        return crc

    def _crc(self, seq: int) -> int | None:
        at = seq - self._crcs_first
        if 0 <= at < len(self._crcs):
            return self._crcs[at]
        return self._odd_crcs.get(seq)


def _remember(edges: dict[int, Edge], seq: int, edge: Edge) -> None:
    edges[seq] = edge
    if len(edges) > EDGES_MAX:
        del edges[next(iter(edges))]
