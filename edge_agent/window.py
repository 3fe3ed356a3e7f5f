"""Decides what is sent next, and what is sent again.

Rule 1: at most ``in_flight_max`` records are sent and not receipted; what the receipt wait leaves unanswered goes out
again, with jitter.
Rule 2: what was just stored goes first, what waits in the spool behind it, the journal first of that.
Rule 3: nothing here knows how to send. ``take`` says which records go out now, and counts them as sent.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from broker_config.messages import Receipt
from broker_config.ranges import Range, RangeSet, both, minus, normal
from broker_config.telemetry import JOURNAL, Key
from edge_agent.spool import Ledger, unheld

LIVE_MAX: Final = 256
"""Just stored and not sent yet; what does not fit is found again in the spool."""
RESEND_JITTER: Final = 0.5
"""A receipt is waited for between once and 1.5 times the wait."""
OFFER_SPREAD_S: Final = 2.0
"""Over this long the records in flight are offered again when the server may have lost them."""

_NONE: Final = RangeSet()

Uniform: TypeAlias = Callable[[float, float], float]


def _within(number: int, ranges: Iterable[Range]) -> bool:
    return any(low <= number <= high for low, high in ranges)


class Window:
    """What is in flight. Times are seconds of any clock that never jumps."""

    def __init__(self, *, in_flight_max: int, wait_s: float, uniform: Uniform) -> None:
        self._in_flight_max = in_flight_max
        self._wait_s = wait_s
        self._uniform = uniform
        self._flying: dict[Key, float] = {}
        self._live: deque[Key] = deque()
        self._cursor: dict[tuple[str, str], int] = {}
        self._unsent: dict[tuple[str, str], RangeSet] = {}
        self._found: dict[tuple[str, str], RangeSet] = {}
        self._backlog = True

    @property
    def in_flight(self) -> int:
        """Records sent and not receipted."""
        return len(self._flying)

    def stored(self, keys: Iterable[Key]) -> None:
        """These have just reached the spool."""
        for key in keys:
            self._unsent.setdefault((key.stream, key.life), RangeSet()).add(key.seq)
            if len(self._live) < LIVE_MAX:
                self._live.append(key)
            else:
                self._look_again(key.stream, key.life, key.seq)

    def offer_again(self, now_s: float) -> None:
        """A new connection, or a server that may be another one: everything in flight goes out again, spread out, and
        the spool is looked through from its beginning.
        """
        spread_s = min(OFFER_SPREAD_S, self._wait_s)
        for key in self._flying:
            self._flying[key] = now_s + self._uniform(0.0, spread_s)
        self._cursor.clear()
        self._backlog = True

    def found(self, ledgers: Iterable[Ledger]) -> None:
        """What the spool holds without a receipt as this run begins: an earlier run may have sent it, or not."""
        self._found = {(x.stream, x.life): RangeSet(x.waiting) for x in ledgers if x.waiting}

    def doubts(self, receipt: Receipt) -> bool:
        """Whether it is worth comparing the receipt's tip with what is held under that number."""
        return receipt.tip is not None and bool(self._found.get((receipt.stream, receipt.life)))

    def doubted(self, ledger: Ledger, receipt: Receipt, *, diverged: bool) -> Receipt:
        """The receipt, but for numbers that were never sent: what the server has under those was sent before the
        spool was put back from an older image. That is a conflict, whether the server can see it or not, and to mark
        them would lose what is here.

        Args:
            ledger: of the receipt's stream and life.
            receipt: authentic.
            diverged: the server has another batch than the spool under the receipt's newest number. Then nothing that
                this run has found and not sent is taken for sent.
        """
        at = (receipt.stream, receipt.life)
        unsent = self._unsent.get(at, _NONE).ranges()
        if diverged:
            unsent = normal((*unsent, *self._found.get(at, _NONE).ranges()))
        if not unsent:
            return receipt
        covered = minus(((1, receipt.up_to),), receipt.missing)
        never = both(both(covered, unsent), ledger.held)
        if not never:
            return receipt
        return msgspec.structs.replace(
            receipt,
            missing=normal((*receipt.missing, *never)),
            conflict=normal((*receipt.conflict, *never)),
        )

    def told(self, ledger: Ledger, receipt: Receipt) -> bool:
        """A receipt has been marked in *ledger*. Returns whether it misses something that is not held, which a birth
        then has to explain.
        """
        for key in [k for k in self._flying if k.stream == ledger.stream and k.life == ledger.life]:
            if _within(key.seq, ledger.receipted):
                del self._flying[key]
        held = both(receipt.missing, ledger.held)
        if held:
            self._look_again(ledger.stream, ledger.life, held[0][0])
        return bool(unheld(ledger, receipt.missing))

    def _look_again(self, stream: str, life: str, seq: int) -> None:
        at = (stream, life)
        self._cursor[at] = min(self._cursor.get(at, 0), seq - 1)
        self._backlog = True

    def forget(self, key: Key) -> None:
        """It is not held any more."""
        self._flying.pop(key, None)

    def take(self, ledgers: Sequence[Ledger], now_s: float) -> list[Key]:
        """What goes out now, in this order."""
        out = [key for key, at_s in self._flying.items() if at_s <= now_s]
        by_life = {(ledger.stream, ledger.life): ledger for ledger in ledgers}
        while self._live and len(self._flying) < self._in_flight_max:
            key = self._live.popleft()
            ledger = by_life.get((key.stream, key.life))
            if key not in self._flying and ledger is not None and _within(key.seq, ledger.waiting):
                out.append(key)
                self._flying[key] = now_s
        room = self._in_flight_max - len(self._flying)
        if room > 0 and self._backlog:
            for key in self._from_spool(ledgers, room):
                out.append(key)
                self._flying[key] = now_s
        for key in out:
            for numbers in (self._unsent, self._found):
                unsent = numbers.get((key.stream, key.life))
                if unsent and key.seq in unsent:
                    unsent.remove(key.seq)
            self._flying[key] = now_s + self._wait_s * (1.0 + self._uniform(0.0, RESEND_JITTER))
        return out

    def _from_spool(self, ledgers: Sequence[Ledger], room: int) -> list[Key]:
        """Up to *room* waiting records that are not in flight; moves the cursors past them."""
        soon = set(self._live)
        queues: list[deque[Key]] = []
        for ledger in sorted(ledgers, key=lambda ledger: ledger.stream != JOURNAL):
            at = (ledger.stream, ledger.life)
            found: deque[Key] = deque()
            for low, high in minus(ledger.waiting, ((1, self._cursor.get(at, 0)),)):
                for seq in range(low, high + 1):
                    if len(found) >= room:
                        break
                    key = Key(*at, seq)
                    if key not in self._flying and key not in soon:
                        found.append(key)
            queues.append(found)
        out: list[Key] = []
        # one of each stream in turn, so that a long backlog of one does not hold up the others
        while len(out) < room and any(queues):
            for queue in queues:
                if queue and len(out) < room:
                    key = queue.popleft()
                    self._cursor[key.stream, key.life] = key.seq
                    out.append(key)
        self._backlog = len(out) == room
        return out

    def next_s(self) -> float | None:
        """When the next record in flight is to be sent again; None if there is none."""
        return min(self._flying.values(), default=None)
