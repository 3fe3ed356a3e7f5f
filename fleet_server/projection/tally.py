"""What a sink's projector remembers of how it goes: its state, counters, and the last thing that went wrong."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from broker_config.text import shown
from fleet_server.projection.feed import Behind, LeftOut, LeftOutReason
from fleet_server.projection.target import NO_ANSWER, Answer
from fleet_server.projection.view import SinkState, SinkStatus

BEHIND_MS: Final = 10_000
"""Having something older than this still to write is being behind."""
AWAY: Final = frozenset({SinkState.REFUSED, SinkState.WAITING, SinkState.FAILED})


class Tally:
    """Counters are written by one thread and read by any."""

    def __init__(self) -> None:
        self.state = SinkState.STARTING
        self.written = 0
        self.refused = 0
        self.late = 0
        self.posts = 0
        self.posts_failed = 0
        self.left_out: Counter[LeftOutReason] = Counter()
        self._error = ""
        self._error_ms: int | None = None
        self._written_ms: int | None = None

    def took(self, now_ms: int) -> bool:
        """The sink took points; whether that is news."""
        was, self.state = self.state, SinkState.OK
        self._written_ms = now_ms
        return was in AWAY

    def note(self, text: str, now_ms: int) -> None:
        """Something went wrong that stops nothing."""
        self._error, self._error_ms = shown(text), now_ms

    def failed(self, state: SinkState, text: str, now_ms: int) -> bool:
        """The sink takes nothing, for the reason that *state* says; whether that is news."""
        was, self.state = self.state, state
        self.note(text, now_ms)
        return was is not state

    def leave_out(self, left: Iterable[LeftOut]) -> None:
        """Count them."""
        for one in left:
            self.left_out[one.reason] += one.points

    def status(self, name: str, behind: Behind, now_ms: int, *, series: int, series_max: int) -> SinkStatus:
        """All of it, beside what the store knows."""
        age_ms = 0 if behind.oldest_ms is None else max(0, now_ms - behind.oldest_ms)
        late = behind.stale_places > 0 or age_ms > BEHIND_MS
        return SinkStatus(
            name=name,
            state=SinkState.BEHIND if late and self.state is SinkState.OK else self.state,
            behind_commits=behind.commits,
            stale_places=behind.stale_places,
            oldest_age_ms=age_ms,
            points_written=self.written,
            points_refused=self.refused,
            points_left_out={reason: self.left_out[reason] for reason in LeftOutReason},
            dead_letters=behind.refused,
            posts=self.posts,
            posts_failed=self.posts_failed,
            last_error=self._error,
            last_error_ms=self._error_ms,
            last_written_ms=self._written_ms,
            points_late=self.late,
            series=series,
            series_max=series_max,
        )


def told(answer: Answer) -> str:
    """An answer that is no success, in words."""
    if answer.status == NO_ANSWER:
        return f"no answer: {shown(answer.text)}"
    return f"answered {answer.status}: {shown(answer.text)}" if answer.text else f"answered {answer.status}"
