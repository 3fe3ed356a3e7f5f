"""The newest samples, in memory. One thread puts, any thread asks."""

from collections.abc import Iterable
from threading import Lock
from typing import Final

from fleet_server.standing.measures import Measure
from fleet_server.standing.sample import Fresh, Sample

OLD: Final = 2
"""So many times its ``every_s`` a sample is shown; what nobody measures any more is gone after that."""


class Held:
    """The ports Standing and Following. Samples are numbered in the order they came."""

    def __init__(self, *, pace: float = 1.0) -> None:
        """*pace*: how many times as often as their table says measures are made."""
        self._pace = pace
        self._number = 0
        self._of: dict[str, dict[tuple[str, str], tuple[int, Sample]]] = {}
        self._lock = Lock()

    def put(self, samples: Iterable[Sample]) -> None:
        """Each in the place of the one before it of the same device, node, or site."""
        with self._lock:
            for sample in samples:
                self._number += 1
                place = (sample.device, "" if sample.device else sample.org)
                self._of.setdefault(sample.measure.name, {})[place] = (self._number, sample)

    def passed(self, measure: Measure, began_ms: int) -> None:
        """Everything there is was looked at since *began_ms*: what is older is of what is not there any more."""
        with self._lock:
            of = self._of.get(measure.name, {})
            self._of[measure.name] = {place: held for place, held in of.items() if held[1].at_ms >= began_ms}

    def samples(self, now_ms: int) -> list[Sample]:
        """See the port."""
        with self._lock:
            return [
                sample
                for of in self._of.values()
                for _, sample in of.values()
                if now_ms - sample.at_ms <= self._old_ms(sample.measure)
            ]

    def since(self, mark: int) -> Fresh:
        """See the port."""
        with self._lock:
            if mark == self._number:
                return Fresh(mark, [], 0)
            found = [sample for of in self._of.values() for number, sample in of.values() if number > mark]
            return Fresh(self._number, found, self._number - mark - len(found))

    def _old_ms(self, measure: Measure) -> float:
        return OLD * 1000 * measure.every_s / self._pace
