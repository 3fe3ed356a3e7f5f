"""Files on their way from each device: what is left, how fast it comes, when it is here."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from fleet_server.evidence.facts import Progress
from fleet_server.projection.labels import Labels, LabelsOf
from fleet_server.standing.measures import UPLOADS
from fleet_server.standing.sample import Sample, sampled

MINUTE_MS: Final = 60_000
SPAN_MS_MIN: Final = 1_000
"""Over less nothing is said of how fast it is."""


class Seen(NamedTuple):
    """All that was on its way, by upload."""

    at_ms: int
    under_way: dict[str, Progress]


def came_bytes(before: Seen, now: Seen) -> dict[str, int]:
    """Device -> what became durable between; what is not under way any more is all here."""
    came: dict[str, int] = {}
    for upload, each in now.under_way.items():
        was = before.under_way.get(upload)
        had = 0 if was is None else was.size - was.left
        came[each.device] = came.get(each.device, 0) + max(0, each.size - each.left - had)
    for upload, was in before.under_way.items():
        if upload not in now.under_way:
            came[was.device] = came.get(was.device, 0) + was.left
    return came


def sample(device: str, files: Sequence[Progress], goodput: float | None, labels: Labels, at_ms: int) -> Sample:
    """*goodput*: bytes a second; None: not known yet."""
    left = sum(each.left for each in files)
    values = {
        "files": len(files),
        "left_bytes": left,
        "goodput": goodput,
        "finish_s": left / goodput if goodput else None,
    }
    return sampled(UPLOADS, at_ms, values, device=device, device_class=labels.device_class, org=labels.org)


class UploadsLook:
    """*under_way*: every file that is on its way."""

    def __init__(self, under_way: Callable[[], Sequence[Progress]], labels: LabelsOf) -> None:
        self._under_way = under_way
        self._labels = labels
        self._seen: list[Seen] = []

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        found = list(self._under_way())
        now = Seen(at_ms, {each.upload: each for each in found})
        recent = [seen for seen in self._seen if at_ms - seen.at_ms <= MINUTE_MS]
        goodputs = self._goodputs(recent, now)
        self._seen = [*recent, now]
        of_device: dict[str, list[Progress]] = {}
        for each in found:
            of_device.setdefault(each.device, []).append(each)
        yield [
            sample(device, files, goodputs.get(device), self._labels.labels(device, at_ms), at_ms)
            for device, files in of_device.items()
        ]

    @staticmethod
    def _goodputs(recent: Sequence[Seen], now: Seen) -> dict[str, float]:
        """Over the last minute, or as much of it as was seen."""
        if not recent or now.at_ms - recent[0].at_ms < SPAN_MS_MIN:
            return {}
        came: dict[str, int] = {}
        for before, after in zip(recent, [*recent[1:], now], strict=True):
            for device, more in came_bytes(before, after).items():
                came[device] = came.get(device, 0) + more
        return {device: 1000 * more / (now.at_ms - recent[0].at_ms) for device, more in came.items()}
