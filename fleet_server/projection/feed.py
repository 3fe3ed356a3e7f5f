"""What a projection reads of the batch store, and how it says how far it came. This is the port.

A *sink* has a cursor: the number of the commit up to which everything was answered with success. What is sealed
into columns before the sink had it, and what gets its time only later, is remembered as *stale places*, a few bytes
for each stream and hour, and read again from the columns: so a sink that is away for days holds up nothing.
Both change only when the caller says that the sink has it; a repetition gives the same points. What it has stays
*unsettled* until the caller says that it cannot be lost there any more.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, TypeAlias

SINK_PATIENCE_MS: Final = 120_000
"""A sink that moved, or had nothing to do, within this time keeps the sealer behind its cursor."""
NO_HOUR: Final = 2**53
"""No hour is as late."""


class UnknownSinkError(Exception):
    """No sink of that name; nothing was changed."""


class LeftOutReason(StrEnum):
    """Why readings are not projected."""

    CLOCK_UNSET = "clock_unset"
    """Their clock was set by nobody; once it is mapped they are projected under the mapped time."""
    UNREADABLE = "unreadable"
    """An older contract admitted what this one refuses."""
    TOO_OLD = "too_old"
    """Beyond the sink's retention."""
    AHEAD = "ahead"
    """Further ahead of the server's clock than is believed."""
    UNSPEAKABLE = "unspeakable"
    """A name or a label that has no place in the sink's language."""
    SERIES = "series"
    """Of a series that would be one more than the budget has."""
    NOT_ANSWERING = "not_answering"
    """State of a moment in which the sink did not answer; it is not kept."""


class Readings(NamedTuple):
    """One batch. ``times_ms``: shape (rows,), ascending, mapped; ``rows``: shape (rows, fields), None is missing."""

    device: str
    stream: str
    seq: int
    times_ms: Sequence[int]
    fields: tuple[str, ...]
    rows: Sequence[Sequence[float | None]]


class LeftOut(NamedTuple):
    """Readings that are not given out."""

    reason: LeftOutReason
    points: int


Item: TypeAlias = Readings | LeftOut


class Commits(NamedTuple):
    """Commits *after* a cursor and *up_to* a number; equal if there are none. ``items`` are decoded when read."""

    after: int
    up_to: int
    items: Iterator[Item]


class StalePlace(NamedTuple):
    """An hour (since the epoch) of a stream that must be written again. ``mark`` changes if it becomes so anew."""

    device: str
    stream: str
    series: int
    hour: int
    mark: int


class Refused(NamedTuple):
    """A point that the sink takes under no circumstances."""

    line: bytes
    reason: str


class DeadLetter(NamedTuple):
    """A refused point as it is kept, for people to look at."""

    at_ms: int
    line: bytes
    reason: str


class Behind(NamedTuple):
    """What a sink has still to take. ``oldest_ms``: when the first of it was stored or became stale; None if none."""

    commits: int
    stale_places: int
    oldest_ms: int | None
    refused: int
    """Points that it ever refused; the newest few of them are kept."""


class Feed(Protocol):
    """Any thread; ``advance`` and ``written`` are for one thread a sink.

    Trusted as the batch store is.
    """

    def add_sink(self, name: str) -> None:
        """Begin a sink at what is not sealed yet; a no-op if it is there. Durable."""

    def forget_sink(self, name: str) -> None:
        """Forget a sink and all it has still to take. Durable."""

    def sinks(self) -> list[str]:
        """Every sink that the store remembers."""

    def commits(self, sink: str, *, records_max: int, now_ms: int) -> Commits:
        """The oldest commits that *sink* has not had: at least one, and no more once *records_max* is reached.

        Raises:
            UnknownSinkError, StoreError
        """

    def stale(self, sink: str, *, places_max: int, before_hour: int = NO_HOUR) -> list[StalePlace]:
        """Stale places of hours before that one, the newest first."""

    def read(self, place: StalePlace) -> Iterator[Item]:
        """Everything that is sealed there."""

    def advance(self, sink: str, commits: Commits, refused: Sequence[Refused], *, now_ms: int) -> bool:
        """The sink has all of *commits* but *refused*; durable.

        Returns:
            False, with nothing changed, if the cursor was moved meanwhile: by the sealer, or for a rebuild.
        """

    def written(self, sink: str, places: Sequence[StalePlace], refused: Sequence[Refused], *, now_ms: int) -> None:
        """The sink has all of *places* but *refused*; those that became stale anew stay. Durable."""

    def settle(self, sink: str, *, up_to: int, before_ms: int) -> None:
        """Commits *up_to* that, and places written by *before_ms*, will not be asked for again by ``rewind``."""

    def rewind(self, sink: str, *, now_ms: int) -> None:
        """Begin again at what is not settled: commits are given again, places are stale again. Durable."""

    def mark_stale(self, sink: str, *, from_ms: int, now_ms: int) -> int:
        """Have every hour from *from_ms* on written again, and what is not sealed yet.

        Returns:
            How many hours of streams.

        Works beside a server that runs. A crash leaves a part of them marked.

        Raises:
            UnknownSinkError, StoreError
        """

    def behind(self, sink: str, *, before_hour: int = NO_HOUR) -> Behind:
        """How far *sink* is behind; stale places of hours before that one. Raises UnknownSinkError, StoreError."""

    def series(self) -> list[tuple[str, str]]:
        """Device and stream of every series that is in columns. Raises StoreError."""

    def dead_letters(self, sink: str, *, rows_max: int) -> list[DeadLetter]:
        """Refused points that are kept, the newest first."""
