"""Sets of numbers as sorted inclusive ranges: what receipts miss, what a device has gone, what a ledger holds.

A :data:`Ranges` is a tuple of ``(low, high)``, ascending, never touching: ``((1, 4), (6, 9))``.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
Ranges: TypeAlias = tuple[Range, ...]


def normal(ranges: Iterable[Range]) -> Ranges:
    """The same numbers in normal form; a range whose low exceeds its high holds nothing."""
    out: list[Range] = []
    for low, high in sorted(r for r in ranges if r[0] <= r[1]):
        if out and low <= out[-1][1] + 1:
            if high > out[-1][1]:
                out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return tuple(out)


def from_numbers(numbers: Iterable[int]) -> Ranges:
    """The ranges that hold just these numbers."""
    return normal((n, n) for n in numbers)


def minus(ranges: Iterable[Range], other: Iterable[Range]) -> Ranges:
    """What is in *ranges* and not in *other*."""
    cut = normal(other)
    out: list[Range] = []
    for low, high in normal(ranges):
        start = low
        for other_low, other_high in cut:
            if other_high < start:
                continue
            if other_low > high:
                break
            if other_low > start:
                out.append((start, other_low - 1))
            start = other_high + 1
        if start <= high:
            out.append((start, high))
    return tuple(out)


def both(ranges: Iterable[Range], other: Iterable[Range]) -> Ranges:
    """What is in both."""
    first = normal(ranges)
    return minus(first, minus(first, other))


def holes(ranges: Iterable[Range], up_to: int) -> Ranges:
    """What *ranges*, which must be normal, do not hold of 1 to *up_to*."""
    out: list[Range] = []
    start = 1
    for low, high in ranges:
        if low > up_to:
            break
        if low > start:
            out.append((start, low - 1))
        start = high + 1
    if start <= up_to:
        out.append((start, up_to))
    return tuple(out)


def count(ranges: Iterable[Range]) -> int:
    """How many numbers there are in *ranges*, which must be normal."""
    return sum(high - low + 1 for low, high in ranges)


class RangeSet:
    """A growing set of numbers. ``add`` is constant time when numbers come in order.

    One thread changes it; others may read meanwhile, because lows and highs are only ever replaced together.
    Bound: the ranges kept are at most one more than the holes, which receipts and births bound.
    """

    __slots__ = ("_held",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._hold(normal(ranges))

    def _hold(self, held: Ranges) -> None:
        self._held = [low for low, _ in held], [high for _, high in held]

    def __contains__(self, number: int) -> bool:
        lows, highs = self._held
        at = bisect_right(lows, number) - 1
        return at >= 0 and number <= highs[at]

    def __bool__(self) -> bool:
        return bool(self._held[0])

    def add(self, low: int, high: int | None = None) -> None:
        """Hold *low* (to *high*)."""
        high = low if high is None else high
        lows, highs = self._held
        if highs and low == highs[-1] + 1:  # in order: the common case
            highs[-1] = high
            return
        first = bisect_left(highs, low - 1)
        last = bisect_right(lows, high + 1)
        if first < last:
            low, high = min(low, lows[first]), max(high, highs[last - 1])
        self._held = [*lows[:first], low, *lows[last:]], [*highs[:first], high, *highs[last:]]

    def remove(self, low: int, high: int | None = None) -> None:
        """Hold *low* (to *high*) no more; linear in the ranges held."""
        self._hold(minus(self.ranges(), ((low, low if high is None else high),)))

    @property
    def last(self) -> int:
        """The highest number held; 0 is none."""
        highs = self._held[1]
        return highs[-1] if highs else 0

    def ranges(self) -> Ranges:
        """Everything held."""
        return tuple(zip(*self._held, strict=True))

    def holes(self, up_to: int) -> Ranges:
        """What is not held of 1 to *up_to*."""
        lows, highs = self._held
        if len(lows) == 1 and lows[0] <= 1 and highs[0] >= up_to:
            return ()
        return holes(zip(lows, highs, strict=True), up_to)
