"""How twins and commands are, for who operates the server."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TwinFacts:
    """How twins are: whether there is a link, how many devices wait for an order, and counts since the start.

    ``counts``: reported, asked, ordered, hinted, malformed, strangers (devices that the registry does not know),
    untold (no room at the broker or in the queue: they ask again), sign_failures, store_failures.
    """

    connected: bool
    orders_due: int
    counts: Mapping[str, int]

    def count(self, name: str) -> float:
        """One of the counts."""
        return float(self.counts.get(name, 0))


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """How commands are. ``counts``: of what happened since the start: said, heard, malformed, expired, from_journal,
    sign_failures, store_failures.
    """

    connected: bool
    devices_waiting: int
    counts: Mapping[str, int]

    def count(self, name: str) -> float:
        """One of the counts."""
        return float(self.counts.get(name, 0))
