"""Strangers at the door, counted: one entry a source and minute, whatever they send. Values only."""

from collections import Counter
from typing import Final

from fleet_server.access.audit import Draft, Phase, bounded

MINUTE_MS: Final = 60_000
SOURCES_MAX: Final = 256
"""A minute; the others are counted together."""
OTHERS: Final = "others"
REFUSED: Final = "auth.refused"


class RefusalTally:
    """Of requests that bore no token of ours. What is not yet due is lost if the server dies: a minute's counts."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._minute = 0

    def note(self, source: str, *, now_ms: int) -> list[Draft]:
        """Count one more; the entries of minutes that are over."""
        over = self.due(now_ms=now_ms)
        name = bounded(source)
        self._counts[name if name in self._counts or len(self._counts) < SOURCES_MAX else OTHERS] += 1
        return over

    def due(self, *, now_ms: int, closing: bool = False) -> list[Draft]:
        """The entries of minutes that are over; of this one too when *closing*."""
        minute = now_ms // MINUTE_MS
        if minute == self._minute and not closing:
            return []
        drafts = [
            Draft(
                phase=Phase.FACT,
                at_ms=self._minute * MINUTE_MS,
                actor="",
                source=source,
                action=REFUSED,
                outcome="401",
                count=count,
            )
            for source, count in sorted(self._counts.items())
        ]
        self._counts.clear()
        self._minute = minute
        return drafts
