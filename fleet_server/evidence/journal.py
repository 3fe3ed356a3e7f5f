"""What a device's journal says of its recordings and interviews, as values: the expectation that pieces are held to.

Names are those of the device classes. Whatever a device says, nothing here raises: what is not of its kind is as if
it had not been said.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from fleet_server.telemetry.store import EventFact

Data: TypeAlias = Mapping[str, float | bool | str | None]


class Noted(StrEnum):
    """Events that the ledger reads."""

    BOOT = "agent.start"
    BEGUN = "rec.start"
    ENDED = "rec.stop"
    OPENED = "recording.opened"
    CLOSED = "recording.closed"
    SKIPPED = "recording.skipped"
    SEALED = "file.sealed"
    ASSIGNED = "assign"
    UNASSIGNED = "unassign"
    INTERVIEW_BEGUN = "session.start"
    INTERVIEW_ENDED = "session.stop"
    GAP = "av.gap"


_KINDS: Final[Mapping[str, Noted]] = {kind.value: kind for kind in Noted}
_DATA: Final = msgspec.json.Decoder(dict[str, float | bool | str | None])


@dataclass(frozen=True, slots=True)
class Note:
    """An event. ``at_ms``: by the device's clock; ``boot``, ``mono``: by its monotonic one, ms; ``life`` to
    ``place``: where in the journal.
    """

    kind: Noted
    at_ms: int
    boot: str
    mono: int
    life: str
    seq: int
    place: int
    data: Data

    def text(self, name: str) -> str:
        """A member that is a text; empty if it is not."""
        found = self.data.get(name)
        return found if isinstance(found, str) else ""

    def number(self, name: str) -> int | None:
        """A member that is a whole number from 0; None if it is not."""
        found = self.data.get(name)
        if isinstance(found, bool | str) or found is None or found < 0 or found != int(found):
            return None
        return int(found)


def read(facts: Iterable[EventFact]) -> list[Note]:
    """Those that the ledger reads, in their order."""
    return [_note(fact, _KINDS[fact.kind]) for fact in facts if fact.kind in _KINDS]


def _note(fact: EventFact, kind: Noted) -> Note:
    place = (fact.key.life, fact.seq, fact.place)
    return Note(kind, fact.at_ms, fact.boot, fact.mono, *place, _DATA.decode(fact.data_json))
