"""Commands and their targets. This is the port.

Any thread may call. Each change is one transaction, durable once it returns; after an error nothing has changed.
Every call may raise :class:`fleet_server.telemetry.store.StoreError`. Whoever can write here can have devices ordered
to do what needs one signature; what needs two, they cannot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fleet_server.change.commands import Command, Count, State, Target, Word


class Meant(NamedTuple):
    """A device, and where it is now."""

    device: str
    path: str


class Signed(NamedTuple):
    """An order for one target: what it counts by, and its envelope."""

    command: str
    device: str
    counter: int
    order: bytes


class After(NamedTuple):
    """A place in the list of commands, the newest first."""

    created_ms: int
    command: str


@dataclass(frozen=True, slots=True)
class CommandFilter:
    """None means any. ``open``: whether an end is still waited for. ``within``: with a target at one of these nodes
    or below; empty is nowhere.
    """

    name: str | None = None
    device: str | None = None
    by: str | None = None
    open: bool | None = None
    within: tuple[str, ...] | None = None


class CommandError(Exception):
    """It cannot be done; nothing was changed."""


class UnknownCommandError(CommandError):
    """There is no such command."""


class StaleOrderError(CommandError):
    """Another command was said to the device meanwhile, and its counter is higher: the order would be refused."""


class NotWaitingError(CommandError):
    """It does not wait for what is done to it."""


class CommandStore(Protocol):
    """See the module's docstring. ``within``: as in :class:`CommandFilter`."""

    def create(self, command: Command, targets: Sequence[Meant]) -> None:
        """Enter a command with a target for each device."""

    def command(self, command: str) -> Command | None:
        """One of them."""

    def commands(self, wanted: CommandFilter, *, after: After | None, rows_max: int) -> Sequence[Command]:
        """The newest first, behind *after*."""

    def counts(self, commands: Sequence[str], within: tuple[str, ...] | None) -> Mapping[str, Sequence[Count]]:
        """Of each of them, how many targets are in which state."""

    def targets(
        self,
        command: str,
        *,
        state: State | None = None,
        within: tuple[str, ...] | None = None,
        after: str = "",
        rows_max: int,
    ) -> Sequence[Target]:
        """By device, behind *after*."""

    def cancel(self, command: str, *, within: tuple[str, ...] | None, now_ms: int) -> int:
        """Take back what no device has heard of; how many targets that was."""

    def prepared(self, orders: Sequence[Signed]) -> None:
        """Keep the orders that a second person is shown; those kept before are worth nothing.

        Raises:
            NotWaitingError: one of them does not wait for a second person.
        """

    def approve(self, command: str, orders: Sequence[Signed], *, by: str, now_ms: int) -> None:
        """All of its orders have the signatures that they need.

        Raises:
            NotWaitingError: not all of those that wait, or others.
            StaleOrderError: see there.
        """

    # the service's

    def to_sign(self, *, rows_max: int) -> Sequence[tuple[Command, Target]]:
        """Targets that were asked for and have no order, the oldest first."""

    def to_send(self, *, rows_max: int) -> Sequence[Target]:
        """Targets whose order was not said, by counter."""

    def signed(self, orders: Sequence[Signed]) -> Sequence[Target]:
        """Keep them, of those targets that still wait for theirs; returns those."""

    def sent(self, targets: Sequence[Target], *, now_ms: int) -> None:
        """Their orders go out now."""

    def said_to(self, device: str) -> Sequence[Target]:
        """What was said to a device and has no end, by counter."""

    def waiting(self, *, late_after_ms: int) -> Mapping[str, int]:
        """Devices with a target of which something may still be heard: open, or expired after *late_after_ms*; and
        since when (ms).
        """

    def hear(self, words: Sequence[Word], *, now_ms: int) -> Sequence[Target]:
        """Take the words of devices, in their order; returns the targets that changed, as they are now."""

    def not_yet(self, *, before_ms: int) -> Sequence[str]:
        """Devices that could not yet obey what they were told, and said so before *before_ms*."""

    def expire(self, *, now_ms: int) -> int:
        """Give up those whose time is over; how many."""

    def unheard(self, *, since_ms: int) -> int:
        """How many were said after *since_ms* and were not answered."""


JournalOf = Callable[[str, int, int], Sequence[Word]]
"""Device, from, to (ms, by the device's clock) -> what its journal says of commands, oldest first."""
