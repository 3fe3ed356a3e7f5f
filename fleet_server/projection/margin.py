"""How far a sink had come when, so that what it may have lost is written again. Values only.

A server that says it has points may have them in memory only: VictoriaMetrics that is killed loses what it took in
its last seconds. So what a sink was given stays *unsettled* for SETTLE_MS, and if the sink may have been restarted
meanwhile it is given that again: the same points.
"""

from collections import deque
from typing import Final

SETTLE_MS: Final = 10_000
"""After so long a sink has on its medium what it took."""
REWIND_MS: Final = 60_000
"""Between two rewinds at least: over a connection that breaks all the time there must be progress too."""
_STEP_MS: Final = 1_000


class Margin:
    """For one sink; times are ms of one clock."""

    def __init__(self) -> None:
        self._given: deque[tuple[int, int]] = deque()
        self._up_to = 0
        self._in_doubt = False
        self._rewound_ms: int | None = None

    def gave(self, now_ms: int, up_to: int | None = None) -> None:
        """The sink took commits *up_to* a number, or other points."""
        self._up_to = self._up_to if up_to is None else up_to
        if self._given and now_ms // _STEP_MS == self._given[-1][0] // _STEP_MS:
            self._given.pop()
        self._given.append((now_ms, self._up_to))

    def doubt(self) -> None:
        """The sink may have been restarted."""
        self._in_doubt = bool(self._given)

    def settled(self, now_ms: int) -> int | None:
        """The commit up to which nothing will be given again, if that is news."""
        found = None
        while not self._in_doubt and self._given and self._given[0][0] <= now_ms - SETTLE_MS:
            found = self._given.popleft()[1]
        return found

    def rewind_due(self, now_ms: int) -> bool:
        """Whether what is not settled must be given again now."""
        return self._in_doubt and (self._rewound_ms is None or now_ms - self._rewound_ms >= REWIND_MS)

    def rewound(self, now_ms: int) -> None:
        """It will be."""
        self._given.clear()
        self._in_doubt, self._rewound_ms = False, now_ms
