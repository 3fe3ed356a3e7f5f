"""The outbox and the feed. These are the ports; ``adapters.sql`` has them in the operators' database.

What ``Outbox.record`` has returned is never lost and will be delivered at least once to everybody who was to be told.
Errors of the database are :class:`fleet_server.telemetry.store.StoreError`: nothing of the call was stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from fleet_server.outbound.happenings import Happening, Kind, News, Severity
from fleet_server.outbound.memory import Changes
from fleet_server.outbound.retries import Attempt, Decision, State
from fleet_server.outbound.subscriptions import Choice, Subscription
from fleet_server.outbound.watch import Told

PENDING_MAX: Final = 10_000
"""Deliveries of one subscription that may wait; beyond them the oldest are parked."""
HAPPENING_MS_MAX: Final = 30 * 86_400_000
"""How long a happening is kept; longer while a delivery of it waits."""
HAPPENINGS_MAX: Final = 200_000
"""How many are kept, the newest."""
PRUNE_ROWS_MAX: Final = 5_000
"""Removed in one transaction."""


class StaleError(Exception):
    """A subscription was changed meanwhile; nothing was stored."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the revision is {revision}")
        self.revision = revision


class FullError(Exception):
    """There are as many subscriptions as there may be; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """``overflowed``: subscription -> deliveries of it that were parked, because too many waited."""

    happenings: tuple[Happening, ...]
    overflowed: Mapping[str, int]


class Due(NamedTuple):
    """A delivery that is to be tried; ``attempts``: made so far."""

    happening: Happening
    attempts: int
    since_ms: int


class Settled(NamedTuple):
    """What became of an attempt."""

    happening: int
    attempt: Attempt
    decision: Decision


@dataclass(frozen=True, slots=True)
class Delivery:
    """One happening's way to one subscription, as operators see it."""

    happening: int
    kind: Kind
    device: str
    state: State
    attempts: int
    next_ms: int
    status: int
    error: str
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which happenings of the feed; empty: all."""

    kinds: frozenset[Kind] = frozenset()
    severity: Severity = Severity.INFO
    device: str = ""
    org: str = ""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A piece of the feed, oldest first. ``up_to``: everything up to this id was looked at. ``pruned``: the highest
    id that is not kept any more, 0 if all are; ``newest``: the highest id ever given.
    """

    happenings: tuple[Happening, ...]
    up_to: int
    pruned: int
    newest: int


class Feed(Protocol):
    """What happened, in the order of ids. Any thread."""

    def after(self, after: int, chosen: Filter, *, rows_max: int) -> FeedPage:
        """What came after an id. What is committed later has a higher id than all that was seen."""

    def before(self, before: int | None, chosen: Filter, *, rows_max: int) -> list[Happening]:
        """What came before an id, newest first; the newest of all if it is None."""


class Outbox(Protocol):
    """The service's side. One caller at a time."""

    def remembered(self) -> list[tuple[str, str, str]]:
        """What the watches remember: topic, name, value."""

    def record(self, news: Sequence[News], changes: Changes, told: Mapping[str, Told], *, now_ms: int) -> Recorded:
        """In one transaction: *news* as happenings, a delivery of each for everybody who takes it, what the watches
        remember, and the three facts of *told* where the registry shows them. Durable once it returns.
        """

    def reconcile(self, told: Mapping[str, Told]) -> int:
        """Make the registry show what was told; how many rows were behind (a device registered since)."""

    def serving(self) -> list[Subscription]:
        """Subscriptions that are not disabled."""

    def due(self, subscription: str, now_ms: int, *, rows_max: int, sweep: bool) -> tuple[list[Due], int | None]:
        """Deliveries to try now, in the order of ids; and when the next one is due, None if none waits.

        With *sweep*, once one is due all that wait are.
        """

    def settle(self, subscription: str, settled: Sequence[Settled], *, now_ms: int, hurry: bool) -> None:
        """What became of attempts, in one transaction; with *hurry* all that wait are due now."""

    def park_older(self, since_ms: int, *, now_ms: int) -> int:
        """Park what has been waiting since before *since_ms*; how many."""

    def prune(self, now_ms: int) -> int:
        """Remove old happenings with their deliveries, some at a time; how many."""


class Subscriptions(Protocol):
    """The operators' side. Any thread."""

    def all(self) -> list[Subscription]:
        """In the order they were made."""

    def get(self, subscription: str) -> Subscription | None:
        """One of them."""

    def add(self, subscription: Subscription) -> None:
        """Raises FullError."""

    def change(self, changed: Subscription) -> Subscription:
        """Store *changed*, whose revision is the one it was read at; return it with its new one.

        Raises:
            StaleError: it was changed meanwhile.
            KeyError: it is not there.
        """

    def remove(self, subscription: str, revision: int) -> None:
        """Remove it with its deliveries. Raises StaleError, KeyError."""

    def keep_mail(self, choice: Choice | None, *, now_ms: int) -> None:
        """Make the mail subscription what the configuration says; None: there is no mail."""

    def deliveries(
        self, subscription: str, *, before: int | None, state: State | None, rows_max: int
    ) -> list[Delivery]:
        """The newest happening first."""

    def test(self, subscription: str, *, now_ms: int) -> Happening:
        """Record a test for it alone. Raises KeyError."""

    def again(self, subscription: str, happening: int, *, now_ms: int) -> Delivery:
        """Let a delivery be tried anew, whatever became of it. Raises KeyError."""
