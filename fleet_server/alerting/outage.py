"""Whether so many devices of a node are away that the node is. Pure.

An outage begins when half of what is never switched off there is away, and at least three. It lasts
while more than a quarter are away, and at least two: who comes back one after the other does not begin it anew.
"""

from dataclasses import dataclass, field
from typing import Final

DEVICES_MIN: Final = 3
SHARE: Final = 0.5
LASTS_SHARE: Final = 0.25


@dataclass(slots=True)
class Crowd:
    """``away``: devices of a node that are not there; ``size``: how many there should be."""

    away: set[str] = field(default_factory=set)
    size: int = 0

    def add(self, device: str, *, away: bool) -> None:
        """One that should be there."""
        self.size += 1
        if away:
            self.away.add(device)

    @property
    def begins(self) -> bool:
        """Whether that is an outage."""
        return len(self.away) >= max(DEVICES_MIN, SHARE * self.size)

    @property
    def lasts(self) -> bool:
        """Whether it still is, once it was."""
        return len(self.away) >= DEVICES_MIN - 1 and len(self.away) > LASTS_SHARE * self.size
