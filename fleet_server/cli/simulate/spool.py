"""One stream's numbers in a simulated device's memory: what is held, what is in flight, what is gone. Pure.

Unlike an agent's spool nothing is kept once it is receipted, because there is no server to restore.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from broker_config.messages import Receipt, StreamState, lowest
from broker_config.ranges import Ranges, both, count, minus, normal
from broker_config.telemetry import GENESIS

RESEND_JITTER: Final = 0.5
"""A receipt is waited for between once and 1.5 times the wait."""
OFFER_SPREAD_S: Final = 2.0
"""Over this long what is in flight goes out again on a new connection."""

Uniform: TypeAlias = Callable[[float, float], float]


class Payload(NamedTuple):
    """A sealed batch as it is published."""

    body: bytes
    content_type: str


class Line:
    """One (stream, life). ``tip``: SHA-256 of the newest batch's bytes, kept of the journal alone. ``lost``: numbers
    that a receipt misses though an earlier one had them.
    """

    __slots__ = ("_flying", "_unsent", "gone", "held", "last", "life", "lost", "stream", "tip")

    def __init__(self, stream: str, life: str) -> None:
        self.stream = stream
        self.life = life
        self.last = 0
        self.tip = GENESIS
        self.held: dict[int, Payload] = {}
        self.gone: Ranges = ()
        self.lost: Ranges = ()
        self._unsent: deque[int] = deque()
        self._flying: dict[int, float] = {}

    @property
    def in_flight(self) -> int:
        """Sent and not receipted."""
        return len(self._flying)

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for room in the window."""
        return bool(self._unsent)

    @property
    def receipted(self) -> int:
        """Numbers that a receipt covers."""
        return self.last - len(self.held) - count(self.gone)

    @property
    def next_s(self) -> float | None:
        """When something in flight is to be sent again."""
        return min(self._flying.values(), default=None)

    def keep(self, payload: Payload) -> None:
        """Take the next number."""
        self.last += 1
        self.held[self.last] = payload
        self._unsent.append(self.last)

    def bury(self, batches: int) -> None:
        """Numbers for batches that had to be dropped: tombstones."""
        if batches:
            self.gone = normal((*self.gone, (self.last + 1, self.last + batches)))
            self.last += batches

    def offer_again(self, now_s: float, uniform: Uniform) -> None:
        """Everything in flight goes out again, spread out: whoever had it may have lost it."""
        for seq in self._flying:
            self._flying[seq] = now_s + uniform(0.0, OFFER_SPREAD_S)

    def take(self, now_s: float, *, room: int, wait_s: float, uniform: Uniform) -> list[int]:
        """What goes out now: what was waited for too long, then up to *room* that was never sent."""
        out = [seq for seq, at_s in self._flying.items() if at_s <= now_s]
        out += [self._unsent.popleft() for _ in range(min(room, len(self._unsent)))]
        for seq in out:
            self._flying[seq] = now_s + wait_s * (1.0 + uniform(0.0, RESEND_JITTER))
        return out

    def mark(self, receipt: Receipt) -> bool:
        """Let go of what an authentic receipt covers; whether it misses something that is not held, which a birth
        has to explain.
        """
        missing = normal(receipt.missing)
        held = normal((seq, seq) for seq in self.held)
        covered = minus(((1, receipt.up_to),), missing)
        for low, high in both(held, covered):
            for seq in range(low, high + 1):
                del self.held[seq]
                self._flying.pop(seq, None)
        if self._unsent and self._unsent[0] <= receipt.up_to:
            self._unsent = deque(seq for seq in self._unsent if seq in self.held)
        unheld = minus(both(missing, ((1, self.last),)), held)
        self.lost = normal((*self.lost, *minus(unheld, self.gone)))
        return bool(unheld)

    def state(self, every_ms: int) -> StreamState:
        """What a birth says of it: below ``first`` and between what is held, all that is not gone was receipted."""
        first = min(self.held, default=self.last + 1)
        held = normal((seq, seq) for seq in self.held)
        trimmed = minus(((first, self.last),), (*held, *self.gone))
        return StreamState(self.stream, self.life, first, self.last, lowest(self.gone), lowest(trimmed), every_ms)
