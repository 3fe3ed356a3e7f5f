"""How many connections may be begun now, so that no second sees more than the stated rate. Pure."""

from collections import deque
from collections.abc import Iterable
from typing import Final

WINDOW_S: Final = 1.0
BURST_S: Final = 0.1
"""What was not used of the rate is saved for so long."""


class Gate:
    """At most *rate* a second, in any second, evenly spread; 0 is no bound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._began: deque[float] = deque(maxlen=rate or 1)
        self._next_s = 0.0

    def take(self, wanted: int, now_s: float) -> int:
        """How many of *wanted* may go at *now_s*, which never falls; they count as gone."""
        if not self._rate:
            return wanted
        self._next_s = max(self._next_s, now_s - BURST_S)
        taken = 0
        while taken < wanted and self._next_s <= now_s and self._is_room(now_s):
            self._began.append(now_s)
            self._next_s += WINDOW_S / self._rate
            taken += 1
        return taken

    def _is_room(self, now_s: float) -> bool:
        return len(self._began) < self._rate or now_s - self._began[0] >= WINDOW_S


def peak_a_second(times_s: Iterable[float]) -> int:
    """The most of *times_s* within any one second."""
    within: deque[float] = deque()
    most = 0
    for at_s in sorted(times_s):
        within.append(at_s)
        while at_s - within[0] >= WINDOW_S:
            within.popleft()
        most = max(most, len(within))
    return most
