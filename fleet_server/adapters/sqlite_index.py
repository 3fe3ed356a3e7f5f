"""What the batch store holds in memory: for every stream its newest row and where its unsealed records are.

Any thread may call; each method takes the lock for itself. Rebuilt at start, changed only after a commit.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Final

from broker_config.telemetry import JOURNAL, Batch
from fleet_server.adapters.sqlite_log import record_of
from fleet_server.telemetry.store import NO_TIME, Group, Latest

PLACE_BITS: Final = 20
RECORDS_IN_COMMIT_MAX: Final = 1 << PLACE_BITS
"""A place is ``log id << PLACE_BITS | position in the commit``, so that an array of them ascends."""


class Tail:
    """One stream: its newest row and the places of its unsealed records, ascending.

    ``rank``: what newer is judged by: the row's time, or NO_TIME while its clock maps to nothing. ``fields`` is
    empty while there is no row. ``payload``: the batch that holds the row, while nobody has asked for it.
    """

    __slots__ = ("at_ms", "fields", "payload", "places", "rank", "received_ms", "row")

    def __init__(self) -> None:
        self.rank = NO_TIME
        self.at_ms = NO_TIME
        self.received_ms = 0
        self.fields: tuple[str, ...] = ()
        self.row: Sequence[float | None] = ()
        self.payload: bytes | None = None
        self.places = array("q")

    def set_newest(
        self, rank: int, at_ms: int, received_ms: int, fields: tuple[str, ...], row: Sequence[float | None]
    ) -> None:
        """Take this row for the newest."""
        self.rank, self.at_ms, self.received_ms = rank, at_ms, received_ms
        if fields != self.fields:  # else keep what is there: each decoded batch brings its own copy of the names
            self.fields = fields
        self.row = row
        self.payload = None

    def read(self) -> "Tail":
        """Itself, with its row decoded."""
        if self.payload is not None:
            record = record_of(self.payload)
            assert isinstance(record, Batch)
            self.set_newest(self.rank, self.at_ms, self.received_ms, record.fields, record.rows[-1])
        return self


class Index:
    """(device, stream) -> :class:`Tail`, and (device, boot) -> what to add to the monotonic clock."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tails: dict[tuple[str, str], Tail] = {}
        self._streams: dict[str, list[str]] = {}
        self._offsets: dict[tuple[str, str], int] = {}
        self.unsealed_records = 0

    def offset_ms(self, device: str, boot: str) -> int | None:
        """Epoch minus monotonic clock of one boot, if any batch of it had a clock that was set."""
        return self._offsets.get((device, boot))

    def add_offsets(self, offsets: Iterable[tuple[str, str, int]]) -> None:
        """(device, boot, offset): the first known of a boot stays."""
        with self._lock:
            for device, boot, offset_ms in offsets:
                self._offsets.setdefault((device, boot), offset_ms)

    def drop_offsets(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget boots that the store has forgotten."""
        with self._lock:
            for key in keys:
                self._offsets.pop(key, None)

    def add(self, log_id: int, group: Group) -> None:
        """What one commit stored."""
        tails = self._tails
        place, at_ms = log_id << PLACE_BITS, group.at_ms
        with self._lock:
            self.unsealed_records += len(group.payloads)
            for key, payload, rank in zip(group.streams, group.payloads, group.newest_ms, strict=True):
                tail = tails.get(key)
                if tail is None:
                    tail = self._new(*key)
                if key[1] != JOURNAL:
                    tail.places.append(place)
                    if rank > tail.rank:  # 60,000 times a second: the row is read when somebody asks for it
                        tail.rank = tail.at_ms = rank
                        tail.received_ms = at_ms
                        tail.payload = payload
                place += 1
        for number, record in group.unset.items():
            if isinstance(record, Batch):
                self.note(group.streams[number][0], record, at_ms)

    def add_places(self, places: Iterable[tuple[str, str, int]], records: int) -> None:
        """(device, stream, place) of unsealed records, ascending; at start."""
        with self._lock:
            self.unsealed_records += records
            for device, stream, place in places:
                self._tail(device, stream).places.append(place)

    def note(self, device: str, record: Batch, received_ms: int) -> None:
        """A record that may hold the stream's newest row."""
        with self._lock:
            tail = self._tail(device, record.stream)
            at_ms = record.t0 + record.dt[-1]
            if record.clock.src == "none":
                self._note_unset(tail, device, record, received_ms)
            elif at_ms > tail.rank:
                tail.set_newest(at_ms, at_ms, received_ms, record.fields, record.rows[-1])

    def _note_unset(self, tail: Tail, device: str, record: Batch, received_ms: int) -> None:
        """A row whose clock nobody set: ranks by its mapped time, or below every other row if it has none."""
        offset_ms = self._offsets.get((device, record.boot))
        if offset_ms is not None:
            at_ms = record.mono + record.dt[-1] + offset_ms
            if at_ms > tail.rank:
                tail.set_newest(at_ms, at_ms, received_ms, record.fields, record.rows[-1])
        elif tail.rank == NO_TIME:
            tail.set_newest(NO_TIME, record.t0 + record.dt[-1], received_ms, record.fields, record.rows[-1])

    def tail(self, device: str, stream: str) -> Tail:
        """One stream's, made if it is new; only for the writer, and at start."""
        with self._lock:
            return self._tail(device, stream)

    def _tail(self, device: str, stream: str) -> Tail:
        return self._tails.get((device, stream)) or self._new(device, stream)

    def _new(self, device: str, stream: str) -> Tail:
        self._streams.setdefault(device, []).append(stream)
        tail = self._tails[device, stream] = Tail()
        return tail

    def places(self, device: str, stream: str) -> "array[int]":
        """A copy of where the unsealed records of a stream are, ascending."""
        with self._lock:
            tail = self._tails.get((device, stream))
            return array("q") if tail is None else tail.places[:]

    def sealed(self, log_id: int, streams: Iterable[tuple[str, str]], records: int) -> None:
        """Every log row up to *log_id* is sealed; *streams* are those that had records there."""
        bound = (log_id + 1) << PLACE_BITS
        with self._lock:
            self.unsealed_records -= records
            for key in streams:
                tail = self._tails.get(key)
                if tail is not None:
                    del tail.places[: bisect_left(tail.places, bound)]

    def latest(self, device: str | None) -> list[Latest]:
        """The newest row of every stream (of one device)."""
        with self._lock:
            keys = self._tails if device is None else [(device, stream) for stream in self._streams.get(device, ())]
            return [
                Latest(*key, tail.at_ms, tail.received_ms, dict(zip(tail.fields, tail.row, strict=True)))
                for key, tail in ((key, self._tails[key]) for key in keys)
                if tail.read().fields
            ]
