"""When something that is used up is used up: the slope of its last readings, by Theil and Sen, so that a reading or
two that are wrong change nothing. Pure.
"""

from array import array
from itertools import combinations
from statistics import median
from typing import Final

READINGS_MAX: Final = 24
"""Of one quantity; when there are so many, every second one goes and they are taken half as often."""
SPACING_MS_MIN: Final = 15_000
SPACING_MS_MAX: Final = 300_000
SPAN_MS_MIN: Final = 300_000
"""Over less than this nothing is told."""
GAP_MS_MAX: Final = 1_800_000
"""What was before so long a silence says nothing of now."""
LASTS_S_MAX: Final = 30 * 86_400.0
"""Beyond that it lasts, and that is all that can be said."""


class Readings:
    """The last readings of one quantity, thinned out: some two hours of them, unless it is said otherwise."""

    __slots__ = ("_rise_max", "_spacing_ms", "_spacing_ms_max", "_times_ms", "_values")

    def __init__(self, rise_max: float, *, spacing_ms_max: int = SPACING_MS_MAX) -> None:
        """*rise_max*: more than that from one reading to the next is a refill, and what was before counts no more.
        *spacing_ms_max*: READINGS_MAX times that is how far back it looks.
        """
        self._rise_max = rise_max
        self._spacing_ms_max = spacing_ms_max
        self._times_ms = array("q")
        self._values = array("d")
        self._spacing_ms = SPACING_MS_MIN

    def add(self, at_ms: int, value: float) -> bool:
        """Whether it was taken: not what is too near to the one before, or older."""
        if self._times_ms:
            since_ms = at_ms - self._times_ms[-1]
            if since_ms > max(GAP_MS_MAX, 2 * self._spacing_ms) or value - self._values[-1] > self._rise_max:
                self.clear()
            elif since_ms < self._spacing_ms:
                return False
        if len(self._times_ms) == READINGS_MAX:
            if self._spacing_ms < self._spacing_ms_max:
                self._spacing_ms = min(2 * self._spacing_ms, self._spacing_ms_max)
                del self._times_ms[::2], self._values[::2]
            else:
                del self._times_ms[0], self._values[0]
        self._times_ms.append(at_ms)
        self._values.append(value)
        return True

    def clear(self) -> None:
        """What was before says nothing any more."""
        del self._times_ms[:], self._values[:]
        self._spacing_ms = SPACING_MS_MIN

    def lasts_s(self, *, empty: float = 0.0) -> float | None:
        """From the last reading until it is *empty*, at most LASTS_S_MAX; None: not enough is known."""
        return lasts_s(self._times_ms, self._values, empty=empty)


def lasts_s(times_ms: "array[int]", values: "array[float]", *, empty: float = 0.0) -> float | None:
    """See :meth:`Readings.lasts_s`; *times_ms* ascending, as many as *values*."""
    if len(times_ms) < 3 or times_ms[-1] - times_ms[0] < SPAN_MS_MIN:
        return None
    slope = slope_a_second(times_ms, values)
    if slope >= 0:
        return LASTS_S_MAX
    return min(max(0.0, (values[-1] - empty) / -slope), LASTS_S_MAX)


def slope_a_second(times_ms: "array[int]", values: "array[float]") -> float:
    """The median of the slopes between any two; at least two times, ascending."""
    pairs = combinations(zip(times_ms, values, strict=True), 2)
    return 1000 * median((later - earlier) / (to_ms - from_ms) for (from_ms, earlier), (to_ms, later) in pairs)
