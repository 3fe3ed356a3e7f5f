"""What happened, as annotations: points of strings, under the time at which it happened. Values only.

The last of them are written again at each start: the same points. A point's time has its number in it, so that two
that happened in one millisecond stay two.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from fleet_server.projection.points import NS_A_MS, Lines, tags
from fleet_server.standing.measures import HAPPENING, HAPPENING_FIELDS

LOOK_S: Final = 2.0
"""Between two looks for something new."""
ROWS_MAX: Final = 500
AGAIN_MAX: Final = 1_000
"""So many of the newest are written at the start: more than that does not happen while a sink is away for minutes."""


class Annotation(NamedTuple):
    """``values``: in the order of HAPPENING_FIELDS; ``device``, ``device_class``, ``org``: empty if it is of none."""

    id: int
    at_ms: int
    device: str
    device_class: str
    org: str
    values: tuple[str, ...]


class Happened(Protocol):
    """What happened, by number. Any thread. Raises StoreError."""

    def newest(self) -> int:
        """The highest number; 0: nothing ever happened."""

    def after(self, number: int, *, rows_max: int) -> tuple[Sequence[Annotation], int]:
        """What has a higher one, in order; and up to which all was looked at."""


def annotated(annotation: Annotation) -> Lines:
    """Its line. Raises UnspeakableError."""
    of = tags(annotation.device, annotation.device_class, annotation.org)
    fields = ",".join(
        f'{name}="{_string(value)}"' for name, value in zip(HAPPENING_FIELDS, annotation.values, strict=True)
    )
    time_ns = annotation.at_ms * NS_A_MS + annotation.id % NS_A_MS
    return Lines(f"{HAPPENING}{of} {fields} {time_ns}".encode("utf-8", "replace"), 1)


def _string(text: str) -> str:
    """As a field is written; a line has no line breaks."""
    return " ".join(text.splitlines()).replace("\\", "\\\\").replace('"', '\\"')


class Annotating:
    """How far a sink has come with them; one task."""

    def __init__(self, happened: Happened) -> None:
        self._happened = happened
        self._mark: int | None = None
        self._next = 0
        self._due_s = 0.0

    def due(self, now_s: float) -> Sequence[Annotation]:
        """What is to be written now; :meth:`written` once it is. Raises StoreError."""
        if now_s < self._due_s:
            self._next = self._mark or 0
            return ()
        if self._mark is None:
            self._mark = max(0, self._happened.newest() - AGAIN_MAX)
        found, self._next = self._happened.after(self._mark, rows_max=ROWS_MAX)
        if len(found) < ROWS_MAX:
            self._due_s = now_s + LOOK_S
        return found

    def written(self) -> None:
        """All of it is."""
        if self._mark is not None:
            self._mark = self._next
