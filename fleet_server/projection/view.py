"""How the sinks are doing, for the API, the metrics and the commands. This is the port."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fleet_server.projection.feed import DeadLetter, LeftOutReason


class SinkState(StrEnum):
    """The first that is true."""

    REFUSED = "refused"
    """It takes nothing until somebody changes something; ``last_error`` says what. Tried again slowly."""
    WAITING = "waiting"
    """It does not answer, or asked for patience. Tried again for ever."""
    FAILED = "failed"
    """A mistake of ours, or the store could not be read. Tried again slowly."""
    STARTING = "starting"
    """Nothing was written yet."""
    BEHIND = "behind"
    """It takes points, and has more than a moment's to take."""
    OK = "ok"


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """Counters are from 0 at the server's start, but for ``dead_letters``."""

    name: str
    state: SinkState
    behind_commits: int
    stale_places: int
    """Hours of streams that are written again, from columns."""
    oldest_age_ms: int
    """For how long the oldest of what it has still to take has been waiting; 0 is nothing."""
    points_written: int
    points_refused: int
    points_left_out: Mapping[LeftOutReason, int]
    """Every reason."""
    dead_letters: int
    """Points that it ever refused; the first thousand are kept."""
    posts: int
    posts_failed: int
    last_error: str
    """The last thing that went wrong, in one line; empty if nothing ever did."""
    last_error_ms: int | None
    last_written_ms: int | None
    points_late: int = 0
    """Points of another time than is believed or kept, that are in the bucket for those."""
    series: int = 0
    """Series that it was given since the server's start."""
    series_max: int = 1
    """Of those, at most."""


class SinkView(Protocol):
    """Safe from any thread."""

    def sinks(self) -> list[SinkStatus]:
        """Every sink that is configured. Raises StoreError."""

    def rebuild(self, sink: str, from_ms: int) -> int:
        """Write everything from *from_ms* on again, beside what is new; return how many hours of streams that is.

        Raises:
            UnknownSinkError, StoreError
        """

    def dead_letters(self, sink: str, *, rows_max: int) -> list[DeadLetter]:
        """Points that the sink refused, the newest first. Raises UnknownSinkError, StoreError."""
