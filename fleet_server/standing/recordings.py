"""What each device recorded in the last day, against what is verified; and lateness of all of them together."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from statistics import median, quantiles
from typing import Final, NamedTuple, Protocol

from fleet_server.evidence.ledger import DAY_MS, Row, Span, Standing
from fleet_server.evidence.reconciling import TooMuchError
from fleet_server.projection.labels import Labels, LabelsOf
from fleet_server.registry.store import Registry
from fleet_server.standing.fitness import every_device
from fleet_server.standing.measures import RECORDINGS
from fleet_server.standing.sample import Sample, sampled

DEVICES_A_PORTION: Final = 5
"""A device's ledger is milliseconds of work."""


class Rows(Protocol):
    """What is asked of the books; see :class:`fleet_server.evidence.reconciling.Books`."""

    def rows(self, device: str, span: Span, *, now_ms: int) -> list[Row]:
        """Recordings that began in that time. Raises StoreError, TooMuchError."""


class Lateness(NamedTuple):
    """Seconds from recorded to verified: of half, of nine of ten, of 99 of 100."""

    p50_s: float
    p90_s: float
    p99_s: float


def lateness_s(rows: Sequence[Row]) -> list[float]:
    """Of each that ended and is verified."""
    return [
        max(0, row.done_ms - row.end_ms) / 1000
        for row in rows
        if row.standing is Standing.VERIFIED and row.done_ms is not None and row.end_ms is not None
    ]


def lateness(found_s: Sequence[float]) -> Lateness | None:
    """Of all of them; None: there are none."""
    if not found_s:
        return None
    if len(found_s) == 1:
        return Lateness(*(3 * (found_s[0],)))
    cuts = quantiles(found_s, n=100, method="inclusive")
    return Lateness(cuts[49], cuts[89], cuts[98])


def sample(device: str, rows: Sequence[Row], overdue: int | None, labels: Labels, at_ms: int) -> Sample:
    """*rows*: of the last day; *overdue*: of the last week, None: nobody has looked yet."""
    late_s = lateness_s(rows)
    values = {
        "expected": len(rows),
        "verified": sum(row.standing is Standing.VERIFIED for row in rows),
        "overdue": overdue,
        "lateness_s": median(late_s) if late_s else None,
    }
    return sampled(RECORDINGS, at_ms, values, device=device, device_class=labels.device_class, org=labels.org)


class RecordingsLook:
    """At each device of a class that makes files. *overdue*: of each device, how many recordings are; None: nobody
    has looked yet.
    """

    def __init__(
        self,
        registry: Registry,
        books: Rows,
        labels: LabelsOf,
        overdue: Callable[[], Mapping[str, int] | None],
        *,
        classes: Collection[str],
    ) -> None:
        self._registry = registry
        self._books = books
        self._labels = labels
        self._overdue = overdue
        self._classes = classes
        self._late_s: dict[str, list[float]] = {}

    def lateness(self) -> Lateness | None:
        """Of the whole fleet, as of the last look."""
        return lateness([each for found in self._late_s.values() for each in found])

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        overdue = self._overdue()
        seen: dict[str, list[float]] = {}
        for page in every_device(self._registry, at_once=DEVICES_A_PORTION):
            found = []
            for entry in page:
                if entry.registration.device_class not in self._classes:
                    continue
                device = entry.device
                try:
                    rows = self._books.rows(device, Span(at_ms - DAY_MS, at_ms), now_ms=at_ms)
                except TooMuchError:
                    continue
                seen[device] = lateness_s(rows)
                late = None if overdue is None else overdue.get(device, 0)
                found.append(sample(device, rows, late, self._labels.labels(device, at_ms), at_ms))
            yield found
        self._late_s = seen
