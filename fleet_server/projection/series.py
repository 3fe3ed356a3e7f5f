"""How many series a sink is given: a server of time series holds each in memory, so there is a budget. Values only.

A series is a measurement with the values of its tags. One that was given goes on; one more than the budget is not
begun, and its points are left out and counted. Series are counted anew at each start, those that the batch store has
in columns first.
"""

from collections.abc import Hashable
from typing import Final

SERIES_MAX: Final = 200_000
"""2,600 devices have some 25,000; of each InfluxDB holds about a kilobyte in memory."""


class SeriesBudget:
    """For one bucket; one thread asks."""

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self.series_max = series_max
        # hashes: that two of a hundred thousand are the same is as likely as one in a billion
        self._known: set[int] = set()

    @property
    def series(self) -> int:
        """That were admitted."""
        return len(self._known)

    def admits(self, *series: Hashable) -> bool:
        """Whether points of that series may be written."""
        key = hash(series)
        if key in self._known:
            return True
        if len(self._known) >= self.series_max:
            return False
        self._known.add(key)
        return True
