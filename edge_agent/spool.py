"""Decides what the device keeps, what it evicts, and what it says of that; and the spool's port.

Every number that was ever given is in exactly one of three places: held (its bytes are here), gone (evicted before
a receipt: a tombstone) or trimmed (evicted after one). A receipt only marks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from broker_config import limits
from broker_config.device_classes import SpoolClass
from broker_config.messages import Receipt, StreamState
from broker_config.ranges import Range, Ranges, both, minus, normal
from broker_config.telemetry import GENESIS, JOURNAL, Key, Record

PASSED_MAX: Final = 64
"""Marks of time kept per stream, from which it is known what was receipted ``hold_h`` ago."""
PASSED_EVERY_MS: Final = 3_600_000

_RANK: Final = {SpoolClass.BULK: 0, SpoolClass.NORMAL: 1, SpoolClass.KEEP: 2}


class SpoolError(Exception):
    """The spool could not do it; nothing of the call was stored."""


class SpoolFullError(SpoolError):
    """The disk takes nothing: full, read-only, or failing. It may heal."""


class CorruptSpoolError(SpoolError):
    """The file is no spool, or a damaged one; it has to be set aside."""


class Draft(Protocol):
    """A sealed record that has no number yet."""

    @property
    def stream(self) -> str:
        """Whose numbers it takes."""

    @property
    def values(self) -> int:
        """How many it holds, for bounds in memory."""

    def numbered(self, life: str, seq: int, prev: str) -> Record:
        """The record; *prev* is the SHA-256 (hex) of the bytes before it in the same life."""


class Passed(NamedTuple):
    """At *at_ms* everything up to *up_to* had been receipted."""

    at_ms: int
    up_to: int


class Ledger(Struct, frozen=True, omit_defaults=True):
    """One (stream, life) but for the batches themselves. ``order``: place in the spool's whole order of the newest
    batch; ``tip``: SHA-256 of its bytes, of the journal only; ``bytes``: what the held ones take.
    """

    stream: str
    life: str
    current: bool = True
    last: int = 0
    order: int = 0
    bytes: int = 0
    tip: str = GENESIS
    gone: Ranges = ()
    trimmed: Ranges = ()
    receipted: Ranges = ()
    passed: tuple[Passed, ...] = ()

    @property
    def held(self) -> Ranges:
        """Numbers whose bytes are here."""
        return minus(((1, self.last),), (*self.gone, *self.trimmed))

    @property
    def waiting(self) -> Ranges:
        """Numbers whose bytes are here and that have no receipt."""
        return minus(((1, self.last),), (*self.gone, *self.trimmed, *self.receipted))


class Head(NamedTuple):
    """The oldest batch of its kind in one ledger: what could be evicted next from there."""

    stream: str
    life: str
    spool_class: SpoolClass
    seq: int
    order: int
    receipted: bool


class Marked(NamedTuple):
    """What a receipt did. ``ignored``: it is of an older store or of a life that is not here; ``epoch_raised``: it is
    of another store than the one known so far.
    """

    ignored: bool
    epoch_raised: bool
    life_changed: bool
    unheld: bool


class Stored(NamedTuple):
    """``keys``: of the drafts, in their order; ``evicted``: stream -> batches dropped before a receipt."""

    keys: tuple[Key, ...]
    evicted: Mapping[str, int]


def heads(ledger: Ledger, spool_class: SpoolClass) -> list[Head]:
    """The oldest receipted and the oldest waiting batch; ``order`` is not known here and is 0."""
    out: list[Head] = []
    for numbers, receipted in ((both(ledger.held, ledger.receipted), True), (ledger.waiting, False)):
        if numbers:
            out.append(Head(ledger.stream, ledger.life, spool_class, numbers[0][0], 0, receipted))
    return out


def next_eviction(candidates: Iterable[Head]) -> Head | None:
    """What to drop first: the oldest that is receipted; then bulk, normal, keep, oldest first; the journal last."""

    def rank(head: Head) -> tuple[bool, bool, int, int]:
        if head.receipted:
            return False, False, 0, head.order
        return True, head.stream == JOURNAL, _RANK[head.spool_class], head.order

    return min(candidates, key=rank, default=None)


def evict(ledger: Ledger, seq: int, bytes_freed: int) -> Ledger:
    """*seq* is dropped: a tombstone if there is no receipt for it."""
    receipted = bool(both(((seq, seq),), ledger.receipted))
    one: Range = (seq, seq)
    if receipted:
        return msgspec.structs.replace(
            ledger, trimmed=normal((*ledger.trimmed, one)), bytes=ledger.bytes - bytes_freed
        )
    return msgspec.structs.replace(ledger, gone=normal((*ledger.gone, one)), bytes=ledger.bytes - bytes_freed)


def drop_unstored(ledger: Ledger, count: int) -> Ledger:
    """*count* batches never reached the disk: each takes a number, and a tombstone with it."""
    last = ledger.last + count
    return msgspec.structs.replace(ledger, last=last, gone=normal((*ledger.gone, (ledger.last + 1, last))))


def apply_receipt(ledger: Ledger, receipt: Receipt, now_ms: int | None) -> Ledger:
    """Mark what is committed, and un-mark what the server says it misses. *now_ms*: None if nobody vouches for the
    time; then the hold does not begin.
    """
    committed = minus(((1, min(receipt.up_to, ledger.last)),), receipt.missing)
    receipted = normal((*minus(ledger.receipted, receipt.missing), *committed))
    passed = ledger.passed
    up_to = receipted[0][1] if receipted and receipted[0][0] == 1 else 0
    if now_ms is not None and up_to > (passed[-1].up_to if passed else 0):
        passed = tuple(p for p in passed if p.at_ms <= now_ms)  # the clock was moved back: those say nothing
        if not passed or now_ms - passed[-1].at_ms >= PASSED_EVERY_MS:
            passed = (*passed, Passed(now_ms, up_to))[-PASSED_MAX:]
    return msgspec.structs.replace(ledger, receipted=receipted, passed=passed)


def forget_receipts(ledger: Ledger) -> Ledger:
    """The server's store is another one: everything that is here is offered again."""
    return msgspec.structs.replace(ledger, receipted=(), passed=())


def held_long_enough(ledger: Ledger, *, now_ms: int, hold_ms: int) -> Ranges:
    """Held numbers whose receipt is older than *hold_ms*."""
    up_to = max((p.up_to for p in ledger.passed if p.at_ms <= now_ms - hold_ms), default=0)
    return both(ledger.held, both(((1, up_to),), ledger.receipted))


def unheld(ledger: Ledger, missing: Iterable[Range]) -> Ranges:
    """What the server misses and this device has not got."""
    return minus(missing, ledger.held)


def stream_state(ledger: Ledger, every_ms: int) -> StreamState:
    """What a birth says of one stream.

    Where there are more ranges than fit, those that the server has not yet taken note of go first, and ``first`` is
    lowered to the first that had to be left out, so that none of them can pass for receipted.
    """
    held = ledger.held
    first = held[0][0] if held else ledger.last + 1
    gone = ledger.gone
    if len(gone) > limits.RANGES_MAX:
        untold = minus(gone, ledger.receipted)
        gone = untold[: limits.RANGES_MAX]
        left_out = untold[limits.RANGES_MAX :]
        if left_out:
            first = min(first, left_out[0][0])
    trimmed = both(ledger.trimmed, ((first, ledger.last),))[: limits.RANGES_MAX]
    return StreamState(ledger.stream, ledger.life, first, ledger.last, gone, trimmed, every_ms)


def told(ledgers: Sequence[Ledger]) -> list[Ledger]:
    """Which ledgers a birth names: the current ones, then those with something left to say, oldest first."""
    current = [ledger for ledger in ledgers if ledger.current]
    others = [ledger for ledger in ledgers if not ledger.current and not finished(ledger)]
    return [*current, *others][: limits.STREAMS_MAX]


def finished(ledger: Ledger) -> bool:
    """A life that is over, with nothing held and every tombstone taken note of."""
    return not ledger.current and not ledger.held and not minus(ledger.gone, ledger.receipted)


class Spool(Protocol):
    """The device's write-ahead log. One caller at a time.

    What ``store`` returned is durable. Marks are kept in memory and written with the next ``store``, at the latest by
    ``flush``; losing some costs a repetition, never a record.
    """

    def store(self, drafts: Sequence[Draft], *, dropped: Mapping[str, int]) -> Stored:
        """Number and keep *drafts* in one transaction, evicting what the quota asks for; *dropped* (stream -> count)
        take numbers before them, and tombstones.

        Raises:
            SpoolFullError, CorruptSpoolError, SpoolError: nothing was stored.
        """

    def mark(self, receipt: Receipt, *, now_ms: int | None, new_life: str) -> Marked:
        """Take an authentic receipt. *new_life* is for the case that it names a conflict. Raises SpoolError."""

    def flush(self, *, floor_ms: int) -> None:
        """Write down what is only in memory, and the clock's floor. Raises SpoolError."""

    def trim(self, *, now_ms: int, hold_ms: int) -> int:
        """Drop what has been receipted for longer than *hold_ms*, at most a bounded number; returns how many."""

    def read(self, key: Key) -> tuple[bytes, str] | None:
        """Payload and content type; None if it is not held."""

    def ledgers(self) -> Sequence[Ledger]:
        """All, in the order of their making."""

    @property
    def store_epoch(self) -> int:
        """The newest that an authentic receipt told; 0 is none."""
