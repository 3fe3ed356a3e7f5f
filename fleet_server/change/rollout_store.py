"""Rollouts, each with its plan. This is the port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Every call may raise :class:`fleet_server.telemetry.store.StoreError`. Trusted: whoever can write here decides what
devices are told to be.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from fleet_server.change.rollout_plan import Plan
from fleet_server.change.rollout_state import Head, Member, Phase, Rollout, State

OPEN_MAX: Final = 50
"""Rollouts that have not ended."""


class Kept(NamedTuple):
    """A rollout as it was stored; ``revision`` counts its changes from 1."""

    rollout: Rollout
    plan: Plan
    revision: int


class Listed(NamedTuple):
    """A rollout without its members; ``counts``: how many are in each state."""

    id: str
    head: Head
    plan: Plan
    revision: int
    counts: dict[State, int]


class Before(NamedTuple):
    """A place in the list of rollouts, the newest first."""

    created_ms: int
    id: str


class MovedOnError(Exception):
    """The rollout has another revision than was expected; ``revision`` is what it has."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"it has moved on; its revision is {revision}")
        self.revision = revision


class TooManyOpenError(Exception):
    """There are as many rollouts as may be open at once."""


class RolloutStore(Protocol):
    """See the module's docstring."""

    def create(self, rollout: Rollout, plan: Plan) -> None:
        """Raises TooManyOpenError."""

    def put(self, before: Kept, after: Rollout) -> Kept:
        """Store what is different. Raises MovedOnError."""

    def kept(self, rollout: str) -> Kept | None:
        """One, with its members."""

    def open(self) -> Sequence[tuple[str, int]]:
        """Id and revision of each that has not ended, the oldest first."""

    def listed(self, rollout: str) -> Listed | None:
        """One, without its members."""

    def all(self, *, phase: Phase | None, before: Before | None, rows_max: int) -> Sequence[Listed]:
        """The newest first."""

    def members(
        self, rollout: str, *, state: State | None, after: str, rows_max: int
    ) -> Sequence[tuple[str, Member]]:
        """By device."""
