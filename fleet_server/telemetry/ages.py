"""How old records were when they got their receipts: the oldest of the last half minute. Pure."""

from collections import deque
from typing import Final

WINDOW_MS: Final = 30_000
_STEP_MS: Final = 1_000


class Ages:
    """A value for each second of the window. One thread notes, any thread asks."""

    def __init__(self) -> None:
        self._of: deque[tuple[int, int]] = deque(maxlen=WINDOW_MS // _STEP_MS)

    def note(self, now_ms: int, age_ms: int) -> None:
        """At *now_ms* a record of that age got its receipt."""
        second = now_ms // _STEP_MS
        if self._of and self._of[-1][0] == second:
            age_ms = max(age_ms, self._of[-1][1])
            self._of[-1] = (second, age_ms)
        else:
            self._of.append((second, age_ms))

    def oldest_ms(self, now_ms: int) -> int | None:
        """Within the window; None: there was none."""
        oldest = now_ms // _STEP_MS - WINDOW_MS // _STEP_MS
        return max((age_ms for second, age_ms in list(self._of) if second > oldest), default=None)
