"""How often somebody may try: a bucket a name, that fills with time. Pure: the time is an argument."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

NAMES_MAX: Final = 10_000
"""Buckets kept; beyond them the one longest not asked for is forgotten, and so is full again."""


@dataclass(frozen=True, slots=True)
class Rate:
    """*burst* at once, and so many again each *every_s*."""

    burst: int
    every_s: float


class Buckets:
    """One for each name. Not for several threads at once."""

    def __init__(self, rate: Rate, *, names_max: int = NAMES_MAX) -> None:
        self._rate = rate
        self._names_max = names_max
        self._held: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, name: bytes, *, now_s: float) -> float:
        """Take one; 0 if there was one, else after how many seconds there will be."""
        burst, fill = self._rate.burst, self._rate.burst / self._rate.every_s
        held, since_s = self._held.pop(name, (float(burst), now_s))
        held = min(float(burst), held + (now_s - since_s) * fill)
        wait_s = 0.0 if held >= 1 else (1 - held) / fill
        self._held[name] = (held - 1 if held >= 1 else held, now_s)
        while len(self._held) > self._names_max:
            self._held.popitem(last=False)
        return wait_s
