"""What the server knows of each device, as readings of one moment. Values only."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from fleet_server.metrics import PRESENCE, PRESENCE_FIELDS
from fleet_server.projection.feed import Readings
from fleet_server.telemetry.view import DeviceSummary, Gap, GapReason

FIELDS: Final = tuple(field.name for field in PRESENCE_FIELDS)


class GapCounts(NamedTuple):
    """Of one device."""

    unexplained: int = 0
    lost: int = 0


NO_GAPS: Final = GapCounts()


def gap_counts(gaps: Iterable[Gap]) -> dict[str, GapCounts]:
    """By device; one without such gaps is not there."""
    counts = Counter((gap.device, gap.reason) for gap in gaps)
    return {
        device: GapCounts(counts[device, GapReason.UNEXPLAINED], counts[device, GapReason.LOST])
        for device, reason in counts
        if reason in (GapReason.UNEXPLAINED, GapReason.LOST)
    }


def readings(devices: Iterable[DeviceSummary], gaps: Mapping[str, GapCounts], at_ms: int) -> Iterator[Readings]:
    """A point for each device."""
    for summary in devices:
        streams, counts = summary.streams, gaps.get(summary.device, NO_GAPS)
        values = {
            "connected": summary.connected,
            "reporting": summary.reporting,
            "healthy": summary.healthy,
            "flaps": summary.flaps,
            "held": sum(stream.held for stream in streams),
            "missing": sum(stream.missing for stream in streams),
            "quarantined": sum(stream.quarantined for stream in streams),
            "gaps_unexplained": counts.unexplained,
            "gaps_lost": counts.lost,
        }
        yield Readings(summary.device, PRESENCE, 0, (at_ms,), FIELDS, [[float(values[name]) for name in FIELDS]])


class Moments:
    """When presence is due: once in *every_s*, 0 is never. What is missed is not made up."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s: float | None = None

    def due(self, now_s: float) -> int | None:
        """How many moments went by since the last; None: it is not due."""
        if not self._every_s or (self._due_s is not None and now_s < self._due_s):
            return None
        due_s = now_s if self._due_s is None else self._due_s
        missed = int((now_s - due_s) // self._every_s)
        self._due_s = due_s + (missed + 1) * self._every_s
        return missed
