"""Makes samples again and again, each measure at its own pace, in portions, so that none waits for a slow one."""

from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Final, NamedTuple, TypeVar

import structlog

from broker_config.text import shown
from fleet_server.evidence.uploads import UploadError
from fleet_server.standing.held import Held
from fleet_server.standing.measures import Measure
from fleet_server.standing.sample import Sample
from fleet_server.telemetry.store import StoreError

LOOK_S: Final = 0.25
"""Between two looks for what is due."""
PAUSE_S: Final = 0.02
"""Between portions: whoever receipts has the interpreter meanwhile."""
PORTION: Final = 100
"""Devices of one, where looking at each costs little."""

log = structlog.get_logger()
T = TypeVar("T")


def portions(found: Sequence[T], size: int = PORTION) -> Iterator[Sequence[T]]:
    """*found*, in parts."""
    return (found[at : at + size] for at in range(0, len(found), size))


class Source(NamedTuple):
    """``look``: at what time -> samples, a portion after the other; one may be empty, and should not take longer than
    some tens of milliseconds. It may raise StoreError, UploadError, OSError: then the rest is not known until the
    next time. ``wait_s``: before the first, for what is made of other measures.
    """

    measure: Measure
    look: Callable[[int], Iterator[Sequence[Sample]]]
    wait_s: float = 0.0


class _Turn:
    """Of one source: when it is due, and the portions under way."""

    def __init__(self, source: Source, due_s: float) -> None:
        self.source = source
        self.due_s = due_s
        self.began_ms = 0
        self.portions: Iterator[Sequence[Sample]] | None = None
        self.failing = False


class Looker:
    """One thread runs it. *pace*: see :class:`Held`."""

    def __init__(
        self,
        sources: Sequence[Source],
        held: Held,
        *,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
        pace: float = 1.0,
    ) -> None:
        self._held = held
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._pace = pace
        self._turns = [_Turn(source, monotonic_s() + source.wait_s / pace) for source in sources]

    def run(self, stop: Event) -> None:
        """Until *stop*."""
        while not stop.wait(PAUSE_S if self.turn() else LOOK_S):
            pass

    def turn(self) -> bool:
        """A portion of each source that is due or under way; whether any is under way."""
        busy = False
        for each in self._turns:
            now_s = self._monotonic_s()
            if each.portions is None and now_s >= each.due_s:
                each.began_ms = self._now_ms()
                each.due_s = now_s + each.source.measure.every_s / self._pace
                each.portions = each.source.look(each.began_ms)
            if each.portions is not None:
                self._portion(each, each.portions)
            busy = busy or each.portions is not None
        return busy

    def _portion(self, turn: _Turn, portions: Iterator[Sequence[Sample]]) -> None:
        measure = turn.source.measure
        try:
            portion = next(portions, None)
        except (StoreError, UploadError, OSError) as error:
            level = log.debug if turn.failing else log.warning
            level("how the fleet stands is not known now", measure=measure.name, error=shown(error))
            turn.portions, turn.failing = None, True
        except Exception:
            # one measure's mistake is not the others'
            log.exception("a measure made a mistake", measure=measure.name)
            turn.portions = None
        else:
            if portion is None:
                turn.portions, turn.failing = None, False
                self._held.passed(measure, turn.began_ms)
            else:
                self._held.put(portion)
