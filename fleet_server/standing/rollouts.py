"""Rollouts that have not ended, and how far their devices are."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from fleet_server.change.rollout_state import Phase, State
from fleet_server.change.rollout_store import Listed, RolloutStore
from fleet_server.standing.measures import ROLLOUTS
from fleet_server.standing.sample import Sample, sampled

WAITING: Final = frozenset({State.QUEUED})
CHANGING: Final = frozenset({State.OFFERED, State.WAITING, State.APPLYING, State.VERIFYING, State.ROLLING_BACK})
DONE: Final = frozenset({State.SUCCEEDED})
FAILED: Final = frozenset({State.FAILED, State.REJECTED, State.TIMED_OUT, State.SILENT})
"""The rest was taken back, or is another rollout's."""


def sample(found: Iterable[Listed], at_ms: int) -> Sample:
    """*found*: those that have not ended."""
    states: Counter[State] = Counter()
    phases: Counter[Phase] = Counter()
    for each in found:
        phases[each.head.phase] += 1
        states.update(each.counts)
    values: dict[str, float | None] = {
        "under_way": phases[Phase.RUNNING],
        "paused": phases[Phase.PAUSED],
        "waiting": sum(states[state] for state in WAITING),
        "changing": sum(states[state] for state in CHANGING),
        "done": sum(states[state] for state in DONE),
        "failed": sum(states[state] for state in FAILED),
    }
    return sampled(ROLLOUTS, at_ms, values)


class RolloutsLook:
    """At those that are open, which are few."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store

    def look(self, at_ms: int) -> Iterator[list[Sample]]:
        """See :class:`fleet_server.standing.looking.Source`."""
        found = [self._store.listed(rollout) for rollout, _ in self._store.open()]
        yield [sample([each for each in found if each is not None], at_ms)]
