"""What is to be written as lines, as far as it can be said and the budget of series has room; the rest is counted."""

from collections.abc import Callable
from typing import Final

import structlog

from fleet_server.projection.annotations import Annotation, annotated
from fleet_server.projection.feed import LeftOutReason, Readings
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.points import Lines, UnspeakableError, encode, measured
from fleet_server.projection.series import SeriesBudget
from fleet_server.projection.tally import Tally
from fleet_server.standing.measures import HAPPENING
from fleet_server.standing.sample import Sample

log = structlog.get_logger()

NOTHING: Final = Lines(b"", 0)


class Encoding:
    """For one sink's task."""

    def __init__(self, labels: LabelsOf, budget: SeriesBudget, tally: Tally, now_ms: Callable[[], int]) -> None:
        self._labels = labels
        self._budget = budget
        self._tally = tally
        self._now_ms = now_ms

    def known(self, stream: str, device: str, at_ms: int) -> None:
        """A series that is there goes on."""
        self._budget.admits(stream, device, self._labels.labels(device, at_ms))

    def readings(self, readings: Readings) -> Lines:
        """Of one batch."""
        points = len(readings.times_ms)
        labels = self._labels.labels(readings.device, readings.times_ms[0])
        if not self._budget.admits(readings.stream, readings.device, labels):
            return self._beyond_budget(points)
        try:
            return encode(readings, labels)
        except UnspeakableError as error:
            return self._unspeakable(points, error)

    def sample(self, sample: Sample) -> Lines:
        """Of one device, node, or the site."""
        if not self._budget.admits(sample.measure.name, sample.device, (sample.device_class, sample.org)):
            return self._beyond_budget(1)
        try:
            return measured(sample)
        except UnspeakableError as error:
            return self._unspeakable(1, error)

    def annotation(self, annotation: Annotation) -> Lines:
        """Of one happening."""
        if not self._budget.admits(HAPPENING, annotation.device, (annotation.device_class, annotation.org)):
            return self._beyond_budget(1)
        try:
            return annotated(annotation)
        except UnspeakableError as error:
            return self._unspeakable(1, error)

    def _beyond_budget(self, points: int) -> Lines:
        if not self._tally.left_out[LeftOutReason.SERIES]:
            log.warning("new series are left out: the budget is full", series=self._budget.series)
        self._tally.left_out[LeftOutReason.SERIES] += points
        why = f"expected at most {self._budget.series_max} series: new ones are left out; see influx.series_max"
        self._tally.note(why, self._now_ms())
        return NOTHING

    def _unspeakable(self, points: int, error: UnspeakableError) -> Lines:
        self._tally.left_out[LeftOutReason.UNSPEAKABLE] += points
        self._tally.note(str(error), self._now_ms())
        return NOTHING
