"""Interviews of the last day in each room, and what was recorded of them."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from fleet_server.evidence.interviews import Cause, Gap, Interview
from fleet_server.evidence.ledger import DAY_MS, Span
from fleet_server.evidence.reconciling import TooMuchError
from fleet_server.projection.labels import Labels, LabelsOf
from fleet_server.registry.model import Device, DeviceFilter
from fleet_server.registry.store import Registry
from fleet_server.standing.measures import INTERVIEWS
from fleet_server.standing.sample import Sample, sampled

ROOM: Final = "interrogation_room"
ROOMS_A_PORTION: Final = 5


class Held(Protocol):
    """What is asked of the books; see :class:`fleet_server.evidence.reconciling.Books`."""

    def interviews(self, device: str, span: Span, *, now_ms: int) -> list[Interview]:
        """Those that began in that time. Raises StoreError, TooMuchError."""


def gaps(interview: Interview) -> tuple[Gap, ...]:
    """What was not recorded as far as can be told: a recording that is still to come is none, and of an interview
    that goes on only what the recorder itself says is missing.
    """
    if interview.end is None:
        return interview.told
    return tuple(gap for gap in interview.gaps if gap.cause is not Cause.NOT_HERE)


def sample(room: str, found: Sequence[Interview], labels: Labels, at_ms: int) -> Sample:
    """*found*: oldest first."""
    missing = [gap for interview in found for gap in gaps(interview)]
    ended = [interview for interview in found if interview.end is not None]
    length_ms = sum(interview.length_ms for interview in ended)
    gone_ms = sum(min(_together_ms(gaps(each)), each.length_ms) for each in ended)
    values = {
        "sessions": len(found),
        "under_way": bool(found) and found[-1].end is None,
        "covered": 1 - gone_ms / length_ms if length_ms else None,
        "gaps": len(missing),
        "gap_s": _together_ms(missing) / 1000,
        "gaps_unexplained": sum(gap.cause is Cause.UNEXPLAINED for gap in missing),
    }
    return sampled(INTERVIEWS, at_ms, values, device=room, device_class=labels.device_class, org=labels.org)


def _together_ms(found: Sequence[Gap]) -> int:
    return sum(gap.part.to_ms - gap.part.from_ms for gap in found)


class InterviewsLook:
    """At each room."""

    def __init__(self, registry: Registry, books: Held, labels: LabelsOf) -> None:
        self._registry = registry
        self._books = books
        self._labels = labels

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        after = ""
        while page := self._registry.devices(DeviceFilter(device_class=ROOM), after=after, rows_max=ROOMS_A_PORTION):
            yield [found for entry in page if (found := self._room(entry, at_ms)) is not None]
            after = page[-1].device

    def _room(self, entry: Device, at_ms: int) -> Sample | None:
        device = entry.device
        try:
            found = self._books.interviews(device, Span(at_ms - DAY_MS, at_ms), now_ms=at_ms)
        except TooMuchError:
            return None
        return sample(device, found, self._labels.labels(device, at_ms), at_ms)
