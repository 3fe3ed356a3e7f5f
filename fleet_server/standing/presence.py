"""What the server knows of each device: presence, and its gaps."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from fleet_server.projection.labels import Labels, LabelsOf
from fleet_server.standing.looking import portions
from fleet_server.standing.measures import PRESENCE
from fleet_server.standing.sample import Sample, sampled
from fleet_server.telemetry.view import DeviceSummary, Gap, GapReason, TelemetryView

DAY_MS: Final = 86_400_000
GAPS_EVERY_MS: Final = 300_000
"""Gaps cost more to find than the rest of presence, and are older news."""


class GapCounts(NamedTuple):
    """Of one device."""

    unexplained: int = 0
    explained: int = 0
    lost: int = 0


NO_GAPS: Final = GapCounts()


def gap_counts(gaps: Iterable[Gap]) -> dict[str, GapCounts]:
    """By device; one without gaps is not there. A silence that lasts is none yet: who is away says why once it is
    back, and who is connected and silent does not report, which is another fact.
    """
    counts = Counter((gap.device, gap.reason) for gap in gaps if not _lasts(gap))
    of: Counter[str] = Counter()
    for (device, _), count in counts.items():
        of[device] += count
    found = {}
    for device, count in of.items():
        unexplained, lost = counts[device, GapReason.UNEXPLAINED], counts[device, GapReason.LOST]
        found[device] = GapCounts(unexplained, count - unexplained - lost, lost)
    return found


def _lasts(gap: Gap) -> bool:
    return gap.open and gap.reason is GapReason.UNEXPLAINED


def sample(summary: DeviceSummary, gaps: GapCounts, labels: Labels, at_ms: int) -> Sample:
    """Of one device."""
    streams = summary.streams
    return sampled(
        PRESENCE,
        at_ms,
        {
            "connected": summary.connected,
            "reporting": summary.reporting,
            "healthy": summary.healthy,
            "flaps": summary.flaps,
            "held": sum(stream.held for stream in streams),
            "missing": sum(stream.missing for stream in streams),
            "quarantined": sum(stream.quarantined for stream in streams),
            "gaps_unexplained": gaps.unexplained,
            "gaps_explained": gaps.explained,
            "gaps_lost": gaps.lost,
        },
        device=summary.device,
        device_class=labels.device_class,
        org=labels.org,
    )


class PresenceLook:
    """At each device that was ever heard of."""

    def __init__(self, view: TelemetryView, labels: LabelsOf) -> None:
        self._view = view
        self._labels = labels
        self._gaps: dict[str, GapCounts] = {}
        self._gaps_ms: int | None = None

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        gaps_due = self._gaps_ms is None or at_ms - self._gaps_ms >= GAPS_EVERY_MS
        for names in portions(self._view.names()):
            if gaps_due:
                self._look_at_gaps(names, at_ms)
            found = [summary for name in names if (summary := self._view.device(name)) is not None]
            yield [self._sample(each, at_ms) for each in found]
        if gaps_due:
            self._gaps_ms = at_ms

    def _look_at_gaps(self, names: Iterable[str], at_ms: int) -> None:
        for name in names:
            gaps = self._view.gaps(name, from_ms=at_ms - DAY_MS, to_ms=at_ms)
            self._gaps[name] = gap_counts(gaps).get(name, NO_GAPS)

    def _sample(self, summary: DeviceSummary, at_ms: int) -> Sample:
        name = summary.device
        return sample(summary, self._gaps.get(name, NO_GAPS), self._labels.labels(name, at_ms), at_ms)
