"""Whether the server hears the fleet: while it has no broker, and until devices had time to come back, it does not
know of any device that it is away. Pure.
"""

from collections.abc import Iterable

from fleet_server.standing.measures import PRESENCE
from fleet_server.standing.sample import Sample


class Hearing:
    """*settle_ms*: how long devices may take to come back."""

    def __init__(self, settle_ms: int) -> None:
        self._settle_ms = settle_ms
        self._since_ms: int | None = None

    def heard(self, samples: Iterable[Sample], now_ms: int, *, connected: bool) -> list[Sample]:
        """Of *samples*, what may be believed now. *connected*: the server, to its broker."""
        if not connected:
            self._since_ms = None
        elif self._since_ms is None:
            self._since_ms = now_ms
        judges = self._since_ms is not None and now_ms - self._since_ms >= self._settle_ms
        return [sample for sample in samples if judges or sample.measure is not PRESENCE]
