"""Sealed records that the disk has not taken yet, in bounded memory: sampling goes on while a disk is full."""

from collections.abc import Sequence
from typing import Final

from broker_config.telemetry import JOURNAL
from edge_agent.spool import Draft

RECORDS_MAX: Final = 1_000
VALUES_MAX: Final = 50_000
"""Of all records together."""


class Holding:
    """In the order they were sealed. ``dropped``: stream -> how many had to go, which will each take a number and a
    tombstone as soon as the disk writes.
    """

    def __init__(self, *, records_max: int = RECORDS_MAX, values_max: int = VALUES_MAX) -> None:
        self._records_max = records_max
        self._values_max = values_max
        self._drafts: list[Draft] = []
        self._values = 0
        self.dropped: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._drafts or self.dropped)

    @property
    def drafts(self) -> Sequence[Draft]:
        """What waits."""
        return tuple(self._drafts)

    def add(self, drafts: Sequence[Draft]) -> None:
        """Take *drafts*; beyond the bounds the oldest go, of the journal only when nothing else is left."""
        self._drafts.extend(drafts)
        self._values += sum(draft.values for draft in drafts)
        while len(self._drafts) > self._records_max or (self._values > self._values_max and len(self._drafts) > 1):
            at = next((at for at, draft in enumerate(self._drafts) if draft.stream != JOURNAL), 0)
            draft = self._drafts.pop(at)
            self._values -= draft.values
            self.dropped[draft.stream] = self.dropped.get(draft.stream, 0) + 1

    def clear(self) -> None:
        """The spool has taken all of it."""
        self._drafts.clear()
        self._values = 0
        self.dropped = {}
