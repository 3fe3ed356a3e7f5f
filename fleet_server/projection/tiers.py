"""The same, coarser and for longer: means of some minutes each, in a bucket of their own, by whichever server.

Readings come from the batch store, an hour of a stream once it is over: the sink of a tier takes no commits, so all
that is sealed is stale there, and what comes late makes its hour stale once more. The same hour gives the same
points. Measures are means over what was measured while this server ran.

A field has its mean under its own name, so that a query is the same for every tier, and of readings the least and
the greatest as ``..._min`` and ``..._max``.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from fleet_server.projection.feed import Feed, Item, Readings, StalePlace
from fleet_server.projection.labels import LabelsOf
from fleet_server.projection.projector import Projector, ProjectorSettings
from fleet_server.projection.target import Target
from fleet_server.projection.view import SinkStatus
from fleet_server.standing.measures import Measure
from fleet_server.standing.sample import Following, Fresh, Sample
from fleet_server.telemetry.store import Series

HOUR_MS: Final = 3_600_000
OVER_MS: Final = 600_000
"""So long after its end an hour is taken for over: what comes later makes it stale again."""
PLACES_MAX: Final = 500
SERIES_MAX: Final = 500_000
"""Of measures, in the slot that is open."""


class Stored(Protocol):
    """What is asked of the batch store; see :class:`fleet_server.telemetry.store.BatchStore`."""

    def series(self, device: str, stream: str, *, from_ms: int, to_ms: int, points: int | None = None) -> Series:
        """Buckets of a range."""


def over_before(now_ms: int) -> int:
    """The first hour, since the epoch, that is not over."""
    return (now_ms - OVER_MS) // HOUR_MS


def readings_of(place: StalePlace, found: Series) -> Iterator[Readings]:
    """A row for each bucket, by itself: a row's place in a batch is a part of its time."""
    names = tuple(found.columns)
    fields = (*names, *(f"{name}_min" for name in names), *(f"{name}_max" for name in names))
    columns = [by[name] for by in (found.columns, found.lows, found.highs) for name in names]
    for at, time_ms in enumerate(found.times_ms):
        yield Readings(place.device, place.stream, 0, (time_ms,), fields, [[column[at] for column in columns]])


class _Of(NamedTuple):
    measure: Measure
    device: str
    device_class: str
    org: str


class Means:
    """A :class:`fleet_server.standing.sample.Following`: of another's samples their means over *every_ms* each."""

    def __init__(self, following: Following, *, every_ms: int, now_ms: Callable[[], int]) -> None:
        self._following = following
        self._every_ms = every_ms
        self._now_ms = now_ms
        self._mark = 0
        self._slot = 0
        self._sums: dict[_Of, tuple[list[float], list[int]]] = {}

    def since(self, mark: int) -> Fresh:
        """What of a slot that has ended; each once, whatever *mark* is."""
        self._mark, samples, _ = self._following.since(self._mark)
        done: list[Sample] = []
        slot = self._now_ms() // self._every_ms
        if slot != self._slot:
            done, self._sums, self._slot = list(self._ended()), {}, slot
        self._add(samples)
        return Fresh(mark + len(done), done, 0)

    def _add(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            of = _Of(sample.measure, sample.device, sample.device_class, sample.org)
            held = self._sums.get(of)
            if held is None:
                if len(self._sums) >= SERIES_MAX:
                    continue
                held = self._sums[of] = ([0.0] * len(sample.values), [0] * len(sample.values))
            sums, counts = held
            for at, value in enumerate(sample.values):
                if value is not None:
                    sums[at] += value
                    counts[at] += 1

    def _ended(self) -> Iterator[Sample]:
        at_ms = self._slot * self._every_ms
        for of, (sums, counts) in self._sums.items():
            values = tuple(total / count if count else None for total, count in zip(sums, counts, strict=True))
            yield Sample(of.measure, at_ms, values, of.device, of.device_class, of.org)


class TierProjector(Projector):
    """One tier; its settings' name is that of a sink of its own."""

    def __init__(
        self,
        settings: ProjectorSettings,
        feed: Feed,
        labels: LabelsOf,
        standing: Following | None,
        stored: Stored,
        *,
        every_ms: int,
        new_target: Callable[[], Target],
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        """As :class:`Projector`; *every_ms*: of its points, a divisor of an hour."""
        means = None if standing is None else Means(standing, every_ms=every_ms, now_ms=now_ms)
        super().__init__(settings, feed, labels, means, new_target=new_target, now_ms=now_ms, rng=rng)
        self._stored = stored
        self._points = HOUR_MS // every_ms

    async def once(self) -> bool:
        """One round. Raises as the other."""
        await self._measured()
        return await self._stale()

    def _places(self) -> list[StalePlace]:
        before = over_before(self._now_ms())
        return self._feed.stale(self.name, places_max=PLACES_MAX, before_hour=before)

    def _read(self, place: StalePlace) -> Iterator[Item]:
        from_ms = place.hour * HOUR_MS
        found = self._stored.series(
            place.device, place.stream, from_ms=from_ms, to_ms=from_ms + HOUR_MS, points=self._points
        )
        return readings_of(place, found)

    def status(self) -> SinkStatus:
        """Without the hours that are not over."""
        behind = self._feed.behind(self.name, before_hour=over_before(self._now_ms()))
        return self._told_of(behind._replace(commits=0, oldest_ms=behind.oldest_ms if behind.stale_places else None))
